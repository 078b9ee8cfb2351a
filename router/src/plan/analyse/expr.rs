//! Expressions: every node is either walked or opaque.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, Subscript, WindowFrameBound, WindowSpec,
    WindowType,
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
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "sqlparser has nodes for every dialect; the rest is opaque"
    )]
    pub(super) fn expr(&mut self, expr: &'a Expr, scope: ScopeId, holds: bool) -> Result<(), Stop> {
        self.spend()?;
        match expr {
            Expr::BinaryOp { .. } => self.operators(expr, scope, holds),
            Expr::Nested(inner) => self.expr(inner, scope, holds),
            Expr::Identifier(ident) if is_session_name(ident) => Ok(()),
            Expr::Identifier(ident) => {
                let name = name(ident)?;
                self.reference(self.bare(&name), &name);
                Ok(())
            }
            Expr::CompoundIdentifier(parts) => {
                let names = parts.iter().map(name).collect::<Result<Vec<_>, _>>()?;
                match names.as_slice() {
                    [qualifier, column] => {
                        self.reference(self.qualified(None, qualifier, column), column)
                    }
                    [schema, table, column] => {
                        self.reference(self.qualified(Some(schema), table, column), column)
                    }
                    _ => return Err(Stop::Opaque("a column name of more than three parts")),
                }
                Ok(())
            }
            Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => self.constant_type(expr),
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
            | Expr::Floor { expr, .. } => self.expr(expr, scope, false),
            Expr::Cast {
                expr,
                data_type,
                format: None,
                ..
            } => {
                check_type(data_type)?;
                self.expr(expr, scope, false)
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.all([&**left, &**right], scope)
            }
            Expr::InList { expr, list, .. } => {
                self.expr(expr, scope, false)?;
                self.all(list, scope)
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
            Expr::Between {
                expr, low, high, ..
            } => self.all([&**expr, &**low, &**high], scope),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => {
                self.expr(left, scope, false)?;
                match subquery_of(right) {
                    Some(query) => {
                        let equal = self
                            .column(left)
                            .filter(|_| holds && *compare_op == BinaryOperator::Eq);
                        self.subquery(query, scope, equal)
                    }
                    None => self.expr(right, scope, false),
                }
            }
            Expr::AllOp { left, right, .. } => self.all([&**left, &**right], scope),
            Expr::Exists { subquery, .. } => self.subquery(subquery, scope, None),
            Expr::Subquery(query) => self.subquery(query, scope, None),
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
            } => {
                self.all([&**expr, &**pattern], scope)?;
                self.all(escape_char.as_deref(), scope)
            }
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => self.all([&**timestamp, &**time_zone], scope),
            Expr::Position { expr, r#in } => self.all([&**expr, &**r#in], scope),
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                self.expr(expr, scope, false)?;
                self.all(
                    substring_from
                        .as_deref()
                        .into_iter()
                        .chain(substring_for.as_deref()),
                    scope,
                )
            }
            Expr::Trim {
                trim_what,
                expr,
                trim_characters,
                ..
            } => {
                self.expr(expr, scope, false)?;
                self.all(trim_what.as_deref(), scope)?;
                self.all(trim_characters.iter().flatten(), scope)
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.all([&**expr, &**overlay_what, &**overlay_from], scope)?;
                self.all(overlay_for.as_deref(), scope)
            }
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                self.all(operand.as_deref(), scope)?;
                self.all(
                    conditions
                        .iter()
                        .flat_map(|when| [&when.condition, &when.result]),
                    scope,
                )?;
                self.all(else_result.as_deref(), scope)
            }
            Expr::Tuple(parts) => self.all(parts, scope),
            Expr::Array(array) => self.all(&array.elem, scope),
            Expr::Interval(interval) => self.expr(&interval.value, scope, false),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root, scope, false)?;
                access_chain
                    .iter()
                    .try_for_each(|access| self.access(access, scope))
            }
            Expr::Function(function) => self.function(function, scope),
            _ => Err(Stop::Opaque("an expression that is not understood")),
        }
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
            Found::Column(_, 0) => {}
            Found::Column(..) => self.outward += 1,
            Found::Unknown => {
                // It may be a column of an outer level: see `aggregate`.
                self.outward += 1;
                if SYSTEM_COLUMNS.contains(&name) {
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

    fn constant_type(&mut self, expr: &'a Expr) -> Result<(), Stop> {
        match expr {
            Expr::TypedString(typed) => check_type(&typed.data_type),
            _ => Ok(()),
        }
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

fn subquery_of(expr: &Expr) -> Option<&sqlparser::ast::Query> {
    match expr {
        Expr::Subquery(query) => Some(query),
        Expr::Nested(inner) => subquery_of(inner),
        _ => None,
    }
}

/// `name 'literal'` where the name is no type of sqlparser's is a cast; where the type has fields, it is not PostgreSQL's.
fn check_type(data_type: &DataType) -> Result<(), Stop> {
    match data_type {
        DataType::Struct(..) | DataType::Map(..) | DataType::Tuple(_) | DataType::Nested(_) => {
            Err(Stop::Opaque("not PostgreSQL's type"))
        }
        _ => Ok(()),
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
