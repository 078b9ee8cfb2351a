//! What the outermost block of a query computes, column by column, as far as its rows could be merged here.

use sqlparser::ast::{
    CastKind, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, LimitClause, ObjectName, ObjectNamePart, OrderBy, OrderByExpr, OrderByKind,
    OrderBySort, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Value,
};
use switchyard_schema::{KeyFamily, KeyType};

use super::Analyser;
use super::facts::ColumnId;
use super::names::{Found, Output, function_name, name, relation_name};
use super::query::Features;
use super::value::key_type;
use crate::plan::parse::offset;
use crate::plan::route::{KeyExpr, Source};
use crate::plan::types::Typed;
use crate::sql::LiteralKind;

/// The outermost block of a query.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Root {
    pub(in crate::plan) features: Features,
    /// The columns of the result.
    pub(in crate::plan) columns: Vec<RootColumn>,
    /// What the result is ordered by.
    pub(in crate::plan) order: Vec<RootKey>,
    /// What is grouped by.
    pub(in crate::plan) group: Vec<RootKey>,
    /// What DISTINCT ON names.
    pub(in crate::plan) distinct_on: Vec<RootKey>,
    pub(in crate::plan) limits: Limits,
}

/// The limits of a query.
#[derive(Debug, Clone, Default)]
pub(in crate::plan) struct Limits {
    /// LIMIT or FETCH.
    pub(in crate::plan) limit: Option<Count>,
    pub(in crate::plan) offset: Option<Count>,
    pub(in crate::plan) ties: bool,
}

/// A number of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plan) enum Count {
    /// `FETCH FIRST ROW`
    One,
    /// What this says.
    Of(KeyExpr),
}

/// A column of the result.
#[derive(Debug, Clone)]
pub(in crate::plan) struct RootColumn {
    pub(in crate::plan) output: Output,
    /// The position of its select item.
    pub(in crate::plan) item: usize,
    /// Its item is a `*`.
    pub(in crate::plan) wildcard: bool,
    /// It is an input column or a constant: one value of one row.
    pub(in crate::plan) plain: bool,
    /// The aggregate it is, if one whose partial results can be combined.
    pub(in crate::plan) partial: Option<Partial>,
}

/// An expression of ORDER BY, GROUP BY or DISTINCT ON.
#[derive(Debug, Clone)]
pub(in crate::plan) struct RootKey {
    /// The column of the result that it is.
    pub(in crate::plan) column: Option<usize>,
    /// Its own text, put in the select list, means the same.
    pub(in crate::plan) selectable: bool,
    /// The input column that it is.
    pub(in crate::plan) input: Option<ColumnId>,
    pub(in crate::plan) typed: Option<Typed>,
    pub(in crate::plan) partial: Option<Partial>,
    pub(in crate::plan) descending: bool,
    pub(in crate::plan) nulls_first: bool,
}

/// An aggregate whose partial results can be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) struct Partial {
    pub(in crate::plan) function: Aggregate,
    /// The type of its result.
    pub(in crate::plan) typed: Typed,
}

/// The function of a [`Partial`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) enum Aggregate {
    Count,
    Sum,
    /// `avg`; whether the sum of its values is `bigint`, and not `numeric`.
    Average(bool),
    Least,
    Greatest,
    And,
    Or,
    BitAnd,
    BitOr,
    BitXor,
}

impl<'a> Analyser<'a> {
    /// Takes note of the outermost block, whose names are still in force. What is not understood of it is left out, and
    /// then it is not merged.
    pub(super) fn root(
        &mut self,
        select: &'a Select,
        order: Option<&'a OrderBy>,
        outputs: &[Output],
    ) -> Option<Root> {
        let features = self.blocks.last()?.clone();
        if features.ragged {
            return None;
        }
        let columns = self.root_columns(select, outputs)?;
        let mut root = Root {
            features,
            columns,
            order: Vec::new(),
            group: Vec::new(),
            distinct_on: Vec::new(),
            limits: Limits::default(),
        };
        if let Some(order) = order {
            let OrderByKind::Expressions(items) = &order.kind else {
                return None;
            };
            let keys = items.iter().map(|item| self.order_key(item, select, &root));
            root.order = keys.collect::<Option<_>>()?;
        }
        let GroupByExpr::Expressions(groups, _) = &select.group_by else {
            return None;
        };
        let groups = groups
            .iter()
            .map(|expr| self.group_key(expr, select, &root));
        root.group = groups.collect::<Option<_>>()?;
        if let Some(Distinct::On(exprs)) = &select.distinct {
            // DISTINCT ON finds columns as ORDER BY does.
            let keys = exprs.iter().map(|expr| self.key(expr, select, &root));
            root.distinct_on = keys.collect::<Option<_>>()?;
        }
        Some(root)
    }

    /// A query's limits, if they are ones that can be applied here.
    pub(super) fn limits(&self, query: &Query) -> Option<Limits> {
        let count = |expr: &Expr| {
            let whole = |key: &KeyType| key.family() == KeyFamily::Integer;
            let value = self.key_expr(expr)?;
            let is_number =
                value.casts.iter().all(whole) && !matches!(value.source, Source::Bool(_));
            let decimal = matches!(
                value.source,
                Source::Literal {
                    kind: LiteralKind::Decimal,
                    ..
                }
            );
            (is_number && !decimal).then_some(Count::Of(value))
        };
        let (limit, offset) = match &query.limit_clause {
            None => (None, None),
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => return None,
        };
        let fetch = match &query.fetch {
            None => None,
            Some(fetch) if fetch.percent || limit.is_some() => return None,
            Some(fetch) => Some(match &fetch.quantity {
                None => Count::One,
                Some(quantity) => count(quantity)?,
            }),
        };
        let limit = match limit {
            None => fetch,
            Some(limit) => Some(count(limit)?),
        };
        let offset = match offset {
            None => None,
            Some(offset) => Some(count(offset)?),
        };
        Some(Limits {
            limit,
            offset,
            ties: query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties),
        })
    }

    fn root_columns(&self, select: &'a Select, outputs: &[Output]) -> Option<Vec<RootColumn>> {
        let mut outputs = outputs.iter();
        let mut columns = Vec::with_capacity(outputs.len());
        for (item, select_item) in select.projection.iter().enumerate() {
            let (expr, width) = match select_item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    (Some(expr), 1)
                }
                SelectItem::Wildcard(_) => {
                    let frame = self.frames.last()?;
                    (None, self.expand(frame).0.len())
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(object),
                    _,
                ) => {
                    let (_, alias) = relation_name(object).ok()?;
                    (None, self.item(&alias)?.columns.len())
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _)
                | SelectItem::ExprWithAliases { .. } => return None,
            };
            for output in outputs.by_ref().take(width) {
                let partial = expr.and_then(|expr| self.partial(expr));
                let mut output = output.clone();
                output.typed = output.typed.or(partial.map(|partial| partial.typed));
                columns.push(RootColumn {
                    output,
                    item,
                    wildcard: expr.is_none(),
                    plain: expr.is_none_or(is_plain),
                    partial,
                });
            }
        }
        outputs.next().is_none().then_some(columns)
    }

    fn order_key(
        &mut self,
        item: &'a OrderByExpr,
        select: &'a Select,
        root: &Root,
    ) -> Option<RootKey> {
        let descending = match item.options.sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => return None,
        };
        let key = self.key(&item.expr, select, root)?;
        Some(RootKey {
            descending,
            nulls_first: item.options.nulls_first.unwrap_or(descending),
            ..key
        })
    }

    /// What an expression of ORDER BY means: a column of the result by number or name, else an expression of its own.
    fn key(&mut self, expr: &'a Expr, select: &'a Select, root: &Root) -> Option<RootKey> {
        let expr = unnested(expr);
        if let Expr::Value(_) = expr {
            return self.ordinal(expr, root);
        }
        if let Expr::Identifier(ident) = expr {
            let name = name(ident).ok()?;
            if let Some(column) = named(&name, root)? {
                let named = root.columns.get(column)?;
                // By the same name the input has the column that `*` stands for.
                let own = named.wildcard && self.column(expr) == named.output.column;
                return Some(RootKey {
                    selectable: own && named.output.column.is_some(),
                    ..of_column(column, root)?
                });
            }
        }
        self.expression(expr, select, root)
    }

    /// What an expression of GROUP BY means: an input column comes before one of the result.
    fn group_key(&mut self, expr: &'a Expr, select: &'a Select, root: &Root) -> Option<RootKey> {
        let expr = unnested(expr);
        if let Expr::Value(_) = expr {
            return self.ordinal(expr, root);
        }
        if let Expr::Identifier(ident) = expr {
            let name = name(ident).ok()?;
            if matches!(self.bare(&name), Found::Unknown) {
                let frame = self.frames.last()?;
                let mut items = frame.items.iter().map(|id| &self.items[*id]);
                let may_have = items.any(|item| {
                    let named = |column: &Output| column.name.as_deref() == Some(&name);
                    item.open || item.columns.iter().any(named)
                });
                return match may_have {
                    true => None,
                    false => of_column(named(&name, root)??, root),
                };
            }
        }
        self.expression(expr, select, root)
    }

    /// `1`: the first column. The plan then depends on the number.
    fn ordinal(&mut self, expr: &Expr, root: &Root) -> Option<RootKey> {
        let Expr::Value(value) = expr else {
            return None;
        };
        let Value::Number(digits, _) = &value.value else {
            return None;
        };
        let start = offset(value.span.start);
        let literals = &self.scan.literals;
        let slot = literals.binary_search_by_key(&start, |literal| literal.span.start);
        self.analysis.guards.push(u32::try_from(slot.ok()?).ok()?);
        let column = digits.parse::<usize>().ok()?.checked_sub(1)?;
        of_column(column, root)
    }

    fn expression(&self, expr: &'a Expr, select: &'a Select, root: &Root) -> Option<RootKey> {
        let input = self.column(expr);
        let partial = self.partial(expr);
        let same = |column: &RootColumn| {
            let item = match select.projection.get(column.item) {
                Some(
                    SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. },
                ) => unnested(item),
                _ => return input.is_some() && column.output.column == input,
            };
            match input {
                Some(_) => self.column(item) == input,
                None => partial.is_some() && has_no_constants(item) && *item == *expr,
            }
        };
        Some(RootKey {
            column: root.columns.iter().position(same),
            selectable: true,
            input,
            typed: self.type_of(expr),
            partial,
            descending: false,
            nulls_first: false,
        })
    }

    /// The type of an expression, if it is certain.
    pub(super) fn type_of(&self, expr: &Expr) -> Option<Typed> {
        match expr {
            Expr::Nested(inner) => self.type_of(inner),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => match self.found(expr)? {
                Found::Column(_, typed, _) => typed,
                Found::Unknown => None,
            },
            Expr::Function(_) => self.partial(expr).map(|partial| partial.typed),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                data_type,
                format: None,
                ..
            } if self.is_catalog_first() => Typed::of_key(key_type(data_type)?),
            Expr::Collate { expr, collation } if self.is_catalog_first() => {
                is_bytewise(collation).then_some(self.type_of(expr)?.bytewise())
            }
            _ => None,
        }
    }

    /// Whether a bare name of a type is PostgreSQL's own.
    fn is_catalog_first(&self) -> bool {
        self.context.search_path.schemas().next() == Some("pg_catalog")
    }

    /// The aggregate an expression is, if its partial results can be combined.
    fn partial(&self, expr: &Expr) -> Option<Partial> {
        let Expr::Function(function) = unnested(expr) else {
            return None;
        };
        let (schema, name) = function_name(&function.name).ok()?;
        let path = self.context.search_path;
        let mut known = self
            .context
            .relations
            .functions(path, schema.as_deref(), &name)
            .peekable();
        known.peek()?;
        // One of the user's by that name might be meant.
        if known.any(|function| &*function.schema != "pg_catalog") {
            return None;
        }
        let argument = match sole_argument(function)? {
            FunctionArgExpr::Wildcard if name == "count" => None,
            FunctionArgExpr::Expr(argument) => self.type_of(argument),
            FunctionArgExpr::Wildcard
            | FunctionArgExpr::QualifiedWildcard(_)
            | FunctionArgExpr::WildcardWithOptions(_) => return None,
        };
        combinable(&name, argument)
    }
}

/// The aggregate of that name over values of that type.
fn combinable(name: &str, argument: Option<Typed>) -> Option<Partial> {
    let partial = |function, typed| Some(Partial { function, typed });
    if name == "count" {
        return partial(Aggregate::Count, Typed::INT8);
    }
    let argument = argument?;
    let (whole, small) = (argument.is_whole(), argument.is_small());
    match name {
        "sum" if small => partial(Aggregate::Sum, Typed::INT8),
        "sum" if argument.is_number() => partial(Aggregate::Sum, Typed::NUMERIC),
        "avg" if argument.is_number() => partial(Aggregate::Average(small), Typed::NUMERIC),
        "min" if argument.has_extremes() => partial(Aggregate::Least, argument),
        "max" if argument.has_extremes() => partial(Aggregate::Greatest, argument),
        "bool_and" | "every" if argument == Typed::BOOL => partial(Aggregate::And, Typed::BOOL),
        "bool_or" if argument == Typed::BOOL => partial(Aggregate::Or, Typed::BOOL),
        "bit_and" if whole => partial(Aggregate::BitAnd, argument),
        "bit_or" if whole => partial(Aggregate::BitOr, argument),
        "bit_xor" if whole => partial(Aggregate::BitXor, argument),
        _ => None,
    }
}

/// The argument of a call that has one, and nothing else than perhaps a FILTER.
pub(in crate::plan) fn sole_argument(function: &Function) -> Option<&FunctionArgExpr> {
    let plain = !function.uses_odbc_syntax
        && function.over.is_none()
        && function.within_group.is_empty()
        && function.null_treatment.is_none()
        && function.parameters == FunctionArguments::None;
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    match list.args.as_slice() {
        [FunctionArg::Unnamed(argument)] => Some(argument),
        _ => None,
    }
}

/// A column or a constant.
fn is_plain(expr: &Expr) -> bool {
    matches!(
        unnested(expr),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)
    )
}

pub(in crate::plan) fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        _ => expr,
    }
}

/// A key that is a column of the result.
fn of_column(column: usize, root: &Root) -> Option<RootKey> {
    let RootColumn {
        output, partial, ..
    } = root.columns.get(column)?;
    Some(RootKey {
        column: Some(column),
        selectable: false,
        input: output.column,
        typed: output.typed,
        partial: *partial,
        descending: false,
        nulls_first: false,
    })
}

/// The column of the result with that name; the outer `None` if there is no telling.
fn named(name: &str, root: &Root) -> Option<Option<usize>> {
    let mut columns = root.columns.iter().enumerate();
    let is_named = |column: &RootColumn| column.output.name.as_deref() == Some(name);
    let Some((at, _)) = columns.find(|(_, column)| is_named(column)) else {
        // One whose name PostgreSQL makes up may have it.
        let made_up = root
            .columns
            .iter()
            .any(|column| column.output.name.is_none());
        return (!made_up).then_some(None);
    };
    columns
        .all(|(_, column)| !is_named(column))
        .then_some(Some(at))
}

/// `"C"` and `"POSIX"`
fn is_bytewise(collation: &ObjectName) -> bool {
    let [ObjectNamePart::Identifier(name)] = collation.0.as_slice() else {
        return false;
    };
    name.quote_style == Some('"') && matches!(name.value.as_str(), "C" | "POSIX")
}

/// Whether no constant is in it, whose value would decide whether two expressions are the same.
fn has_no_constants(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => has_no_constants(inner),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Function(function) => {
            let argument = match sole_argument(function) {
                Some(FunctionArgExpr::Expr(argument)) => has_no_constants(argument),
                Some(FunctionArgExpr::Wildcard) => true,
                _ => false,
            };
            argument && function.filter.as_deref().is_none_or(has_no_constants)
        }
        _ => false,
    }
}
