//! Views that every shard can read its own part of: like a table's, their rows are those of the shards together.

use super::splice;
use crate::plan::{Access, Context, Layer, Operator, plan};
use crate::relations::{Placement, Relation, RelationKind, Relations, SearchPath};
use crate::sql::Scan;

/// Views inside views at most.
const DEPTH: usize = 8;

/// Whether the rows that each shard has of a view are, together, the view's rows: a query that reads the same would be
/// answered by appending.
pub(super) fn is_spread(view: &Relation, relations: &Relations) -> bool {
    let Some(query) = query(view, relations, DEPTH) else {
        return false;
    };
    let mut scan = Scan::new();
    if scan.scan(query.as_bytes()).is_err() {
        return false;
    }
    let context = Context {
        relations,
        search_path: &SearchPath::of(&[]),
        temporary: &[],
        given: &[],
        ahead: &[],
        in_trigger: false,
        layer: Layer::Auto,
    };
    let plan = plan(&query, &scan, &context);
    matches!(plan.operator, Operator::Append(_)) && plan.access < Access::LockingRead
}

/// A view's query, with the queries of the views in it in their places. A materialized view in it stays: its rows may be of
/// another time.
fn query(view: &Relation, relations: &Relations, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let text = view.definition.as_deref()?.trim_end();
    let text = text.strip_suffix(';').unwrap_or(text);
    Some(splice::with_subqueries(text, &|name| {
        let inner = relations.get(&name.schema, &name.name)?;
        let seen_through = inner.kind == RelationKind::View
            && matches!(inner.placement, Placement::ReadsSharded(_));
        seen_through.then(|| query(inner, relations, depth))?
    }))
}
