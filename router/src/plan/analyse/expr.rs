//! Expressions: every node is either walked or opaque.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, Query, Subscript, WindowFrameBound,
    WindowSpec, WindowType,
};

use super::facts::ScopeId;
use super::names::{Found, name};
use super::{Analyser, Stop};
use crate::plan::refusal::Refusal;

/// Columns every table has, whose values mean something on one server only.
const SYSTEM_COLUMNS: &[&str] = &["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

impl<'a> Analyser<'a> {
    /// Walks an expression evaluated for rows of a scope. `holds`: rows for which it is not true do not count, so what a
    /// subquery must equal for it to be true restricts the subquery.
    pub(super) fn expr(&mut self, expr: &'a Expr, scope: ScopeId, holds: bool) -> Result<(), Stop> {
        self.spend()?;
        match expr {
            Expr::BinaryOp { .. } => self.operators(expr, scope, holds),
            Expr::Nested(inner) => self.expr(inner, scope, holds),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.name(expr),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => Ok(()),
            Expr::Value(_) => {
                self.reads_time(expr, None);
                Ok(())
            }
            Expr::TypedString(typed) => {
                self.reads_time(expr, Some(&typed.data_type));
                self.data_type(&typed.data_type)
            }
            Expr::Cast {
                expr,
                data_type,
                format: None,
                ..
            } => {
                self.data_type(data_type)?;
                self.reads_time(expr, Some(data_type));
                self.expr(expr, scope, false)
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => {
                self.expr(expr, scope, false)?;
                let equal = self.column(expr).filter(|_| holds && !negated);
                self.subquery(subquery, scope, equal)
            }
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => {
                self.expr(left, scope, false)?;
                if let Some(query) = array_of(right) {
                    return self.subquery(query, scope, None);
                }
                let Some(query) = subquery_of(right) else {
                    return self.expr(right, scope, false);
                };
                let holds = holds && *compare_op == BinaryOperator::Eq;
                self.subquery(query, scope, self.column(left).filter(|_| holds))
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                self.subquery(subquery, scope, None)
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root, scope, false)?;
                access_chain
                    .iter()
                    .try_for_each(|access| self.access(access, scope))
            }
            Expr::Function(function) => self.function(function, scope),
            _ => match unary(expr) {
                Some(operand) => self.expr(operand, scope, false),
                None => self.all(operands(expr)?, scope),
            },
        }
    }

    /// A column's name, with or without its table's.
    fn name(&mut self, expr: &'a Expr) -> Result<(), Stop> {
        match expr {
            Expr::Identifier(ident) if is_session_name(ident) => {}
            Expr::Identifier(ident) => {
                let name = name(ident)?;
                let found = self.bare(&name);
                self.may_stray(None, &name, found);
                self.reference(found, &name);
            }
            Expr::CompoundIdentifier(parts) => {
                let names = parts.iter().map(name).collect::<Result<Vec<_>, _>>()?;
                let (schema, qualifier, column) = match names.as_slice() {
                    [qualifier, column] => (None, qualifier, column),
                    [schema, table, column] => (Some(&**schema), table, column),
                    _ => return Err(Stop::Opaque("a column name of more than three parts")),
                };
                let found = self.qualified(schema, qualifier, column);
                self.may_stray(Some(&**qualifier), column, found);
                self.reference(found, column);
            }
            _ => {}
        }
        Ok(())
    }

    fn all(
        &mut self,
        exprs: impl IntoIterator<Item = &'a Expr>,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        exprs
            .into_iter()
            .try_for_each(|expr| self.expr(expr, scope, false))
    }

    /// A chain of binary operators leans to the left: walked without recursion.
    fn operators(&mut self, expr: &'a Expr, scope: ScopeId, holds: bool) -> Result<(), Stop> {
        let mut open = vec![(expr, holds)];
        while let Some((expr, holds)) = open.pop() {
            match expr {
                Expr::BinaryOp { left, op, right } => {
                    let holds = holds && *op == BinaryOperator::And;
                    open.push((right, holds));
                    open.push((left, holds));
                    self.spend()?;
                }
                _ => self.expr(expr, scope, holds)?,
            }
        }
        Ok(())
    }

    fn reference(&mut self, found: Found, name: &str) {
        match found {
            Found::Column(.., 0) => {}
            Found::Column(..) => self.outward += 1,
            Found::Unknown => {
                // It may be a column of an outer level: see `aggregate`.
                self.outward += 1;
                let own_table = name == "tableoid" && self.analysis.names_own_tables;
                if SYSTEM_COLUMNS.contains(&name) && !own_table {
                    self.analysis
                        .diverges
                        .get_or_insert_with(|| name.to_owned());
                    self.needs_merge(|| {
                        Refusal::not_supported(format!(
                            "system column \"{name}\" is not supported across shards"
                        ))
                    });
                }
            }
        }
    }

    /// A type that is cast to. OID aliases look a name up in the catalogue, and OIDs differ from shard to shard.
    fn data_type(&mut self, data_type: &DataType) -> Result<(), Stop> {
        match data_type {
            DataType::Struct(..) | DataType::Map(..) | DataType::Tuple(_) | DataType::Nested(_) => {
                return Err(Stop::Opaque("not PostgreSQL's type"));
            }
            DataType::Regclass => self.analysis.catalog = true,
            DataType::Custom(name, _) => {
                let last = name.0.last().and_then(|part| part.as_ident());
                let alias =
                    last.is_some_and(|ident| ident.value.to_ascii_lowercase().starts_with("reg"));
                self.analysis.catalog |= alias;
            }
            _ => {}
        }
        Ok(())
    }

    fn access(&mut self, access: &'a AccessExpr, scope: ScopeId) -> Result<(), Stop> {
        match access {
            // A field of a composite value, or every field of it: the name says nothing.
            AccessExpr::Dot(Expr::Identifier(_) | Expr::Wildcard(_)) => Ok(()),
            AccessExpr::Dot(expr) => self.expr(expr, scope, false),
            AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index, scope, false),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride: None,
            }) => self.all(lower_bound.iter().chain(upper_bound), scope),
            AccessExpr::Subscript(Subscript::Slice { .. }) => {
                Err(Stop::Opaque("not PostgreSQL's syntax"))
            }
        }
    }

    fn function(&mut self, function: &'a Function, scope: ScopeId) -> Result<(), Stop> {
        if function.uses_odbc_syntax || !matches!(function.parameters, FunctionArguments::None) {
            return Err(Stop::Opaque("not PostgreSQL's syntax"));
        }
        // ARRAY(SELECT …)
        if let FunctionArguments::Subquery(query) = &function.args {
            self.depends_on_order(query, "ARRAY");
            return self.subquery(query, scope, None);
        }
        self.called_with(function)?;
        let outward = self.outward;
        match &function.args {
            FunctionArguments::None | FunctionArguments::Subquery(_) => {}
            FunctionArguments::List(list) => {
                for arg in &list.args {
                    self.function_arg(arg, scope)?;
                }
                for clause in &list.clauses {
                    self.clause(clause, scope)?;
                }
            }
        }
        for item in &function.within_group {
            self.expr(&item.expr, scope, false)?;
        }
        self.all(function.filter.as_deref(), scope)?;
        match &function.over {
            None => {}
            Some(WindowType::NamedWindow(_)) => {}
            Some(WindowType::WindowSpec(spec)) => self.window(spec, scope)?,
        }
        self.aggregate(function, outward)
    }

    fn clause(&mut self, clause: &'a FunctionArgumentClause, scope: ScopeId) -> Result<(), Stop> {
        match clause {
            FunctionArgumentClause::OrderBy(items) => items
                .iter()
                .try_for_each(|item| self.expr(&item.expr, scope, false)),
            FunctionArgumentClause::IgnoreOrRespectNulls(_)
            | FunctionArgumentClause::Where(_)
            | FunctionArgumentClause::Limit(_)
            | FunctionArgumentClause::OnOverflow(_)
            | FunctionArgumentClause::Having(_)
            | FunctionArgumentClause::Separator(_)
            | FunctionArgumentClause::JsonNullClause(_)
            | FunctionArgumentClause::JsonReturningClause(_) => {
                Err(Stop::Opaque("a clause in a function's arguments"))
            }
        }
    }

    pub(super) fn function_arg(
        &mut self,
        arg: &'a FunctionArg,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let arg = match arg {
            FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
            FunctionArg::ExprNamed {
                name: Expr::Identifier(_),
                arg,
                ..
            } => arg,
            FunctionArg::ExprNamed { .. } => return Err(Stop::Opaque("not PostgreSQL's syntax")),
        };
        match arg {
            FunctionArgExpr::Expr(expr) => self.expr(expr, scope, false),
            FunctionArgExpr::Wildcard | FunctionArgExpr::QualifiedWildcard(_) => Ok(()),
            FunctionArgExpr::WildcardWithOptions(_) => Err(Stop::Opaque("not PostgreSQL's syntax")),
        }
    }

    pub(super) fn window(&mut self, spec: &'a WindowSpec, scope: ScopeId) -> Result<(), Stop> {
        self.all(&spec.partition_by, scope)?;
        for item in &spec.order_by {
            self.expr(&item.expr, scope, false)?;
        }
        let Some(frame) = &spec.window_frame else {
            return Ok(());
        };
        for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()]
            .into_iter()
            .flatten()
        {
            match bound {
                WindowFrameBound::CurrentRow => {}
                WindowFrameBound::Preceding(expr) | WindowFrameBound::Following(expr) => {
                    self.all(expr.as_deref(), scope)?
                }
            }
        }
        Ok(())
    }
}

/// The operand of an operator that has one.
fn unary(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::UnaryOp { expr, .. }
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsNormalized { expr, .. }
        | Expr::IsJson { expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::Extract { expr, .. }
        | Expr::Ceil { expr, .. }
        | Expr::Floor { expr, .. } => Some(expr),
        Expr::Interval(interval) => Some(&interval.value),
        _ => None,
    }
}

/// The operands of the operators and constructs that have several. Any node that is not named is opaque.
fn operands(expr: &Expr) -> Result<Vec<&Expr>, Stop> {
    let (first, more) = match expr {
        Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right)
        | Expr::AllOp { left, right, .. } => (vec![&**left, &**right], [None, None]),
        Expr::InList { expr, list, .. } => {
            (std::iter::once(&**expr).chain(list).collect(), [None, None])
        }
        Expr::Between {
            expr, low, high, ..
        } => (vec![&**expr, &**low, &**high], [None, None]),
        Expr::Like {
            expr,
            pattern,
            escape_char,
            ..
        }
        | Expr::ILike {
            expr,
            pattern,
            escape_char,
            ..
        }
        | Expr::SimilarTo {
            expr,
            pattern,
            escape_char,
            ..
        } => (vec![&**expr, &**pattern], [escape_char.as_deref(), None]),
        Expr::AtTimeZone {
            timestamp,
            time_zone,
        } => (vec![&**timestamp, &**time_zone], [None, None]),
        Expr::Position { expr, r#in } => (vec![&**expr, &**r#in], [None, None]),
        Expr::Substring {
            expr,
            substring_from: from,
            substring_for: length,
            ..
        } => (vec![&**expr], [from.as_deref(), length.as_deref()]),
        Expr::Tuple(parts) => (parts.iter().collect(), [None, None]),
        Expr::Array(array) => (array.elem.iter().collect(), [None, None]),
        _ => return constructs(expr),
    };
    Ok(first
        .into_iter()
        .chain(more.into_iter().flatten())
        .collect())
}

/// The operands of constructs with keywords inside.
fn constructs(expr: &Expr) -> Result<Vec<&Expr>, Stop> {
    Ok(match expr {
        Expr::Trim {
            trim_what,
            expr,
            trim_characters,
            ..
        } => {
            let characters = trim_characters.iter().flatten();
            trim_what
                .as_deref()
                .into_iter()
                .chain([&**expr])
                .chain(characters)
                .collect()
        }
        Expr::Overlay {
            expr,
            overlay_what,
            overlay_from,
            overlay_for,
        } => {
            let all = [&**expr, &**overlay_what, &**overlay_from];
            all.into_iter().chain(overlay_for.as_deref()).collect()
        }
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => {
            let branches = conditions
                .iter()
                .flat_map(|when| [&when.condition, &when.result]);
            branches
                .chain(operand.as_deref())
                .chain(else_result.as_deref())
                .collect()
        }
        _ => return Err(Stop::Opaque("an expression that is not understood")),
    })
}

fn subquery_of(expr: &Expr) -> Option<&sqlparser::ast::Query> {
    match expr {
        Expr::Subquery(query) => Some(query),
        Expr::Nested(inner) => subquery_of(inner),
        _ => None,
    }
}

/// What the session is called, without parentheses: read by sqlparser as a name.
fn is_session_name(ident: &Ident) -> bool {
    let names = [
        "current_catalog",
        "current_role",
        "current_schema",
        "current_user",
        "session_user",
        "system_user",
        "user",
    ];
    ident.quote_style.is_none()
        && names
            .iter()
            .any(|name| ident.value.eq_ignore_ascii_case(name))
}

/// The query of `ARRAY(SELECT …)`.
fn array_of(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Nested(inner) => array_of(inner),
        Expr::Function(Function {
            args: FunctionArguments::Subquery(query),
            ..
        }) => Some(query),
        _ => None,
    }
}
