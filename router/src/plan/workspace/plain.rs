//! Expressions that say the same on every server and at any moment.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not listed is not known to"
)]

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName,
};

/// Whether an expression is made of own columns, constants and what computes the same anywhere.
pub(super) fn is_plain(
    expr: &Expr,
    own: &dyn Fn(&Expr) -> bool,
    immutable: &dyn Fn(&ObjectName) -> bool,
) -> bool {
    let plain = |expr: &Expr| is_plain(expr, own, immutable);
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => own(expr),
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Interval(interval) => plain(&interval.value),
        Expr::Nested(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::Cast { expr: inner, .. }
        | Expr::Extract { expr: inner, .. } => plain(inner),
        Expr::BinaryOp { left, op, right } => is_standard(op) && plain(left) && plain(right),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            plain(left) && plain(right)
        }
        Expr::InList { expr, list, .. } => plain(expr) && list.iter().all(plain),
        Expr::Between {
            expr, low, high, ..
        } => plain(expr) && plain(low) && plain(high),
        Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
            plain(expr) && plain(pattern)
        }
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => {
            let parts = [substring_from, substring_for];
            plain(expr) && parts.into_iter().flatten().all(|part| plain(part))
        }
        Expr::Function(function) => {
            let FunctionArguments::List(list) = &function.args else {
                return false;
            };
            let argument = |argument: &FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => plain(expr),
                _ => false,
            };
            let simple = function.over.is_none()
                && function.filter.is_none()
                && function.within_group.is_empty()
                && list.duplicate_treatment.is_none()
                && list.clauses.is_empty();
            simple && immutable(&function.name) && list.args.iter().all(argument)
        }
        _ => false,
    }
}

/// Operators that users do not make.
fn is_standard(operator: &BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::StringConcat
    )
}
