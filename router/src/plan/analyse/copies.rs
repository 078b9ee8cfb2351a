//! Writes of reference tables: what could make copies differ besides functions.
//!
//! Each shard runs the statement on copies of its own, whose rows are in an order of their own, at a moment of its own.

use sqlparser::ast::{
    BinaryOperator, DataType, Distinct, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Update, UpdateTableFromKind,
};
use switchyard_schema::TableName;

use super::names::{name, relation_name};
use super::{Analyser, Stop};
use crate::relations::{Relation, Resolved};

/// Strings that stand for a time that passes.
const MOMENTS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// OIDs of types that read them: date, time, timetz, timestamp, timestamptz.
const TIMES: [u32; 5] = [1082, 1083, 1266, 1114, 1184];

impl<'a> Analyser<'a> {
    pub(super) fn writes_copies(&self) -> bool {
        self.analysis.writes_reference.is_some()
    }

    /// Notes that what a query returns depends on the order of its rows, unless that is the same on each shard.
    pub(super) fn depends_on_order(&mut self, query: &'a Query, what: &str) {
        if self.writes_copies() && !self.is_ordered_by_a_key(query) {
            self.diverges(&format!("{what} without an order of all rows"));
        }
    }

    /// Whether it sorts the rows of one table by its primary key, at least.
    fn is_ordered_by_a_key(&self, query: &Query) -> bool {
        let SetExpr::Select(select) = &*query.body else {
            return false;
        };
        let [TableWithJoins { relation, joins }] = select.from.as_slice() else {
            return false;
        };
        let (Some((table, _)), []) = (self.plain_table(relation), joins.as_slice()) else {
            return false;
        };
        // Rows that are given are in one order.
        if self.context.given.contains(&table.name) {
            return true;
        }
        let Some(OrderByKind::Expressions(order)) = query.order_by.as_ref().map(|by| &by.kind)
        else {
            return false;
        };
        let names: Vec<_> = order
            .iter()
            .filter_map(|item| column_of(&item.expr))
            .collect();
        let sorted = |key: &String| names.contains(key) && !renames(select, key);
        !table.primary_key.is_empty() && table.primary_key.iter().all(sorted)
    }

    /// A relation with its own rows, and what it is called.
    fn plain_table(&self, factor: &TableFactor) -> Option<(&'a Relation, String)> {
        let TableFactor::Table {
            name: object,
            alias,
            args: None,
            ..
        } = factor
        else {
            return None;
        };
        let (schema, table) = relation_name(object).ok()?;
        let is_cte = schema.is_none() && self.ctes.iter().any(|cte| cte.name == *table);
        if is_cte || self.is_temporary(schema.as_deref(), &table) {
            return None;
        }
        let called = match alias {
            Some(alias) => name(&alias.name).ok()?.into_owned(),
            None => table.clone().into_owned(),
        };
        match self.relation(schema.as_deref(), &table) {
            Resolved::Known(relation) => Some((relation, called)),
            Resolved::Catalog | Resolved::Unknown => None,
        }
    }

    /// Notes that several rows of the FROM of an UPDATE may match one that is updated, of which one is taken.
    pub(super) fn depends_on_match(&mut self, update: &'a Update) {
        let Some(UpdateTableFromKind::AfterSet(tables)) = &update.from else {
            return;
        };
        if !self.writes_copies() {
            return;
        }
        let target = self.plain_table(&update.table.relation);
        let target = target.map(|(_, called)| called).unwrap_or_default();
        let mut conditions = Vec::new();
        conjuncts(update.selection.as_ref(), &mut conditions);
        let once = |of: &TableWithJoins| {
            of.joins.is_empty() && self.matches_once(&of.relation, &target, &conditions)
        };
        if !tables.iter().all(once) {
            self.diverges("a FROM of which several rows may match one");
        }
    }

    /// Whether the values of the statement, or the primary key, say which row of a FROM matches.
    fn matches_once(&self, factor: &TableFactor, target: &str, conditions: &[&Expr]) -> bool {
        if let TableFactor::Derived { subquery, .. } = factor {
            return matches!(&*subquery.body, SetExpr::Values(_));
        }
        let Some((table, called)) = self.plain_table(factor) else {
            return matches!(
                factor,
                TableFactor::Table { args: Some(_), .. }
                    | TableFactor::Function { .. }
                    | TableFactor::UNNEST { .. }
            );
        };
        let is_told = |expr: &Expr| match qualified(expr) {
            Some((qualifier, _)) => qualifier == target && target != called,
            None => matches!(expr, Expr::Value(_)),
        };
        let is_known = |key: &String| {
            let is_key = |expr: &Expr| {
                qualified(expr).is_some_and(|(of, column)| of == called && column == *key)
            };
            conditions.iter().any(|condition| match condition {
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::Eq,
                    right,
                } => is_key(left) && is_told(right) || is_told(left) && is_key(right),
                _ => false,
            })
        };
        !table.primary_key.is_empty() && table.primary_key.iter().all(is_known)
    }

    /// Notes a string that stands for the time, where it is read as such.
    pub(super) fn reads_time(&mut self, expr: &'a Expr, data_type: Option<&DataType>) {
        let is_time = match data_type {
            Some(data_type) => is_time(data_type),
            None => self.has_times(),
        };
        if !is_time || !self.writes_copies() {
            return;
        }
        let mut inner = expr;
        while let Expr::Nested(next) | Expr::Cast { expr: next, .. } = inner {
            inner = next;
        }
        let value = match inner {
            Expr::Value(value) => value,
            Expr::TypedString(typed) => &typed.value,
            _ => return,
        };
        let text = self.text_of(value).unwrap_or_default();
        if MOMENTS.contains(&&*text.trim().to_ascii_lowercase()) {
            self.diverges(&format!("'{}'", text.trim()));
        }
    }

    /// Whether the table that is written has columns that are times.
    fn has_times(&self) -> bool {
        let changed = self.analysis.changed.as_ref();
        let relation = |table: &TableName| self.context.relations.get(&table.schema, &table.name);
        changed.and_then(relation).is_some_and(|relation| {
            let mut columns = relation.columns.iter();
            columns.any(|column| TIMES.contains(&column.type_oid))
        })
    }

    /// Notes the value of a setting that is the server's and not the session's.
    pub(super) fn reads_setting(&mut self, function: &'a Function) -> Result<(), Stop> {
        if !self.writes_copies() {
            return Ok(());
        }
        let setting = match &function.args {
            FunctionArguments::List(list) => match list.args.first() {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => self.constant_text(expr),
                _ => None,
            },
            FunctionArguments::None | FunctionArguments::Subquery(_) => None,
        };
        let is_sessions = |setting: &str| {
            let setting = setting.to_ascii_lowercase();
            setting.contains('.') || matches!(&*setting, "role" | "search_path" | "timezone")
        };
        if !setting.as_deref().is_some_and(is_sessions) {
            self.diverges("current_setting");
        }
        Ok(())
    }
}

/// Whether a column of the result has the name of another expression.
fn renames(select: &Select, column: &str) -> bool {
    let distinct_on = matches!(select.distinct, Some(Distinct::On(_)));
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            let same = column_of(expr).as_deref() == Some(column);
            name(alias).is_ok_and(|alias| alias == column) && !same
        }
        SelectItem::UnnamedExpr(_) | SelectItem::Wildcard(_) => false,
        SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) => distinct_on,
    })
}

/// The column that an expression is.
fn column_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(name(ident).ok()?.into_owned()),
        _ => qualified(expr).map(|(_, column)| column),
    }
}

/// `table.column`
fn qualified(expr: &Expr) -> Option<(String, String)> {
    match expr {
        Expr::Nested(inner) => qualified(inner),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, column] => Some((
                name(table).ok()?.into_owned(),
                name(column).ok()?.into_owned(),
            )),
            _ => None,
        },
        _ => None,
    }
}

/// What a condition connects by AND.
fn conjuncts<'e>(condition: Option<&'e Expr>, found: &mut Vec<&'e Expr>) {
    match condition {
        Some(Expr::Nested(inner)) => conjuncts(Some(inner), found),
        Some(Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        }) => {
            conjuncts(Some(left), found);
            conjuncts(Some(right), found);
        }
        Some(other) => found.push(other),
        None => {}
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Date | DataType::Time(..) | DataType::Timestamp(..)
    ) || matches!(data_type, DataType::Custom(name, _) if name.to_string().to_ascii_lowercase().contains("time"))
}
