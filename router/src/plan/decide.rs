//! From an analysis to an operator: one shard, several with the rows appended, all, or an error.
//!
//! The rules. *Pass through*: the keys of every sharded relation are known, and at binding they meet on one shard.
//! *Append*: every row of the result is made from rows of one shard. That holds when the main rows of the top level
//! contain a sharded relation (its *anchor*), every other mention of a sharded relation equals an anchor's key where it is
//! evaluated, and nothing in the statement puts rows together. Everything else is refused with its reason.

use switchyard_schema::{KeyType, ShardIndex};

use super::analyse::facts::{ColumnId, ScopeId};
use super::analyse::{Analysis, Instance, Stored, StoredKeys};
use super::refusal::Refusal;
use super::route::{KeyRoute, KeySet, Need, StoredAs, Target};
use super::{Access, Broadcast, Operator};

/// What kind of node may run it.
pub(super) fn access(analysis: &Analysis) -> Access {
    if analysis.writes || analysis.primary || analysis.temporary {
        Access::Write
    } else if analysis.locks || analysis.locks_apart {
        Access::LockingRead
    } else if analysis.primary_read {
        Access::PrimaryRead
    } else {
        Access::Read
    }
}

/// Where it goes.
pub(super) fn decide(analysis: &Analysis) -> Operator {
    if let Some(table) = &analysis.writes_reference {
        return match writes_reference(analysis, table) {
            Ok(()) => Operator::Broadcast(Broadcast::Reference),
            Err(refusal) => Operator::Refuse(Box::new(refusal)),
        };
    }
    if let Some(refusal) = &analysis.reads_views {
        return Operator::Refuse(Box::new(refusal.clone()));
    }
    if analysis.instances.is_empty() && analysis.stored.is_empty() {
        return Operator::PassThrough(unkeyed(analysis));
    }
    let of_sequences = analysis.takes_next.as_ref();
    if let Some(refusal) = of_sequences.or(analysis.sequence_values.as_ref()) {
        return Operator::Refuse(Box::new(refusal.clone()));
    }
    let needs = match needs(analysis) {
        Ok(needs) => needs,
        Err(refusal) => return Operator::Refuse(Box::new(refusal)),
    };
    match appendable(analysis) {
        Ok(anchors) => append(analysis, &anchors),
        Err(refusal) => {
            let open = |need: &Need| need.keys == KeySet::Everything && need.map.shards().len() > 1;
            if needs.iter().any(open) {
                return Operator::Refuse(Box::new(refusal));
            }
            let first_shard_only = analysis.first_shard.is_some() || analysis.temporary;
            let several = Some(Box::new(refusal));
            Operator::PassThrough(Target::Keys(KeyRoute {
                needs,
                first_shard_only,
                several,
            }))
        }
    }
}

/// The target of a statement that touches no sharded relation.
fn unkeyed(analysis: &Analysis) -> Target {
    let first = analysis.first_shard.is_some()
        || analysis.temporary
        || analysis.catalog
        || analysis.names_own_tables
        || analysis.primary
        || analysis.locks
        || analysis.writes;
    if first {
        Target::Shard(ShardIndex::FIRST)
    } else {
        Target::AnyShard
    }
}

pub(super) fn writes_reference(analysis: &Analysis, table: &str) -> Result<(), Refusal> {
    let refuse = |detail: String| {
        Err(Refusal::not_supported(format!(
            "this write of the reference table \"{table}\" is not supported"
        ))
        .detail(detail))
    };
    if let Some(name) = analysis
        .instances
        .first()
        .map(|i| &i.name)
        .or(analysis.stored.first().map(|s| &s.name))
    {
        return refuse(format!(
            "It also uses the sharded table \"{name}\", and each shard would see other rows of it."
        ));
    }
    if let Some(name) = &analysis.first_shard {
        return refuse(format!(
            "It also uses \"{name}\", which exists on the first shard only."
        ));
    }
    if analysis.temporary || analysis.catalog {
        return refuse("It also uses a temporary table or the system catalogue, which differ from shard to shard.".to_owned());
    }
    if let Some(what) = &analysis.diverges {
        return refuse(format!(
            "Each shard would compute a value of its own: {what}."
        ))
        .map_err(|refusal: Refusal| {
            refusal.hint("Compute the value first and pass it as a parameter.")
        });
    }
    Ok(())
}

pub(super) fn need(analysis: &Analysis, instance: &Instance) -> Need {
    let keys = analysis.facts.known(instance.scope).keys(instance.key);
    Need {
        relation: instance.name.clone(),
        map: instance.map.clone(),
        keys,
        stored: None,
    }
}

fn needs(analysis: &Analysis) -> Result<Vec<Need>, Refusal> {
    let mut needs: Vec<Need> = Vec::new();
    let mut add = |need: Need| {
        let same = |known: &Need| {
            known.keys == need.keys
                && known.stored == need.stored
                && known.map.colocated_with(&need.map)
        };
        if !needs.iter().any(same) {
            needs.push(need);
        }
    };
    for instance in &analysis.instances {
        add(need(analysis, instance));
    }
    if let Some(refusal) = &analysis.computed {
        return Err(refusal.clone());
    }
    for stored in &analysis.stored {
        let need = stored_need(analysis, stored);
        if need.keys == KeySet::Everything {
            return Err(Refusal::not_supported(format!("storing rows of table \"{}\" on several shards in one statement is not supported yet", stored.name))
                .hint("Restrict the shard key of the rows it comes from to one value."));
        }
        add(need);
    }
    Ok(needs)
}

/// What the rows that are stored need.
pub(super) fn stored_need(analysis: &Analysis, stored: &Stored) -> Need {
    let (keys, as_stored) = match &stored.keys {
        StoredKeys::Values(values) => match values.as_slice() {
            [value] => (KeySet::Equal(value.clone()), Some(stored.column)),
            values => (KeySet::AnyOf(values.to_vec()), Some(stored.column)),
        },
        StoredKeys::Column(column, scope) => {
            let same = is_stored_as_it_is(analysis, stored, *column);
            let known = analysis.facts.known(*scope);
            // Whether a row is made of a constant that is NULL is for PostgreSQL to say.
            let constant = analysis.facts.is_constant(*column, &known);
            let as_stored = StoredAs {
                not_null: stored.column.not_null && !constant,
                ..stored.column
            };
            (
                known.keys(*column),
                (!same || constant).then_some(as_stored),
            )
        }
    };
    Need {
        relation: stored.name.clone(),
        map: stored.map.clone(),
        keys,
        stored: as_stored,
    }
}

/// Whether assignment changes nothing: the keys are those of the rows they come from.
pub(super) fn is_stored_as_it_is(analysis: &Analysis, stored: &Stored, column: ColumnId) -> bool {
    let same = analysis.facts.family(column) == stored.map.key_type().family();
    same && !is_cut(stored.map.key_type(), stored.column.typmod)
}

/// Whether values of the type are cut or rounded when they are assigned to a column with this modifier.
fn is_cut(key_type: KeyType, typmod: i32) -> bool {
    let cut = matches!(
        key_type,
        KeyType::Varchar | KeyType::Numeric | KeyType::Timestamp | KeyType::Timestamptz
    );
    cut && typmod >= 0
}

pub(super) fn append(analysis: &Analysis, anchors: &[&Instance]) -> Operator {
    let target = targets(analysis, anchors);
    let one = match &target {
        Target::Keys(KeyRoute { needs, .. }) => match needs.as_slice() {
            [need] => matches!(need.keys, KeySet::Equal(_)),
            _ => false,
        },
        Target::AnyShard | Target::Shard(_) | Target::AllShards => false,
    };
    match one {
        true => Operator::PassThrough(target),
        false => Operator::Append(target),
    }
}

/// The shards that may have rows of these anchors, each of them rows of its own.
pub(super) fn targets(analysis: &Analysis, anchors: &[&Instance]) -> Target {
    let mut needs: Vec<Need> = Vec::new();
    for anchor in anchors {
        let need = need(analysis, anchor);
        if !needs.iter().any(|known| known.keys == need.keys) {
            needs.push(need);
        }
    }
    let restricted = needs.iter().any(|need| need.keys != KeySet::Everything);
    if !restricted && needs.iter().all(|need| need.map.shards().len() > 1) {
        return Target::AllShards;
    }
    Target::Keys(KeyRoute {
        needs,
        first_shard_only: false,
        several: None,
    })
}

/// Whether rows of several shards can just be appended; the anchors, or the reason why not.
fn appendable(analysis: &Analysis) -> Result<Vec<&Instance>, Refusal> {
    if analysis.writes {
        return Err(several_written(analysis));
    }
    if let Some(refusal) = &analysis.combines {
        return Err(refusal.clone());
    }
    scattered(analysis)
}

/// Whether every row that the outermost block sees is seen by it on one shard; the anchors, or the reason why not.
pub(super) fn scattered(analysis: &Analysis) -> Result<Vec<&Instance>, Refusal> {
    match &analysis.varies {
        Some(refusal) => Err(refusal.clone()),
        None => parts(analysis),
    }
}

/// Whether nothing in it needs rows of several shards, or what is on one shard only, in one place.
pub(super) fn in_one_place(analysis: &Analysis) -> Result<(), Refusal> {
    // What a view or a function reads is on other shards, too.
    if let Some(refusal) = analysis.merge.as_ref().or(analysis.reads_views.as_ref()) {
        return Err(refusal.clone());
    }
    if analysis.locks_inside {
        return Err(Refusal::not_supported(
            "row locks in a subquery are not supported across shards",
        ));
    }
    if analysis.locks_copies {
        return Err(Refusal::not_supported("row locks of a reference table together with a sharded one are not supported across shards")
            .detail("Each shard has a copy of such a row, and only one of them would be locked.")
            .hint("Name the sharded tables: FOR UPDATE OF …."));
    }
    if let Some(name) = &analysis.first_shard {
        return Err(Refusal::not_supported(
            "combining a sharded table with something on the first shard only is not supported yet",
        )
        .detail(format!("\"{name}\" exists on the first shard only."))
        .hint(
            "Make it a reference table, or restrict the shard key to a row of the first shard.",
        ));
    }
    if analysis.temporary || analysis.catalog {
        return Err(Refusal::not_supported(
            "combining a sharded table with a temporary table or the system catalogue is not supported across shards yet",
        ));
    }
    Ok(())
}

/// The same as [`scattered`], whatever functions the shards would each compute a value of.
pub(super) fn parts(analysis: &Analysis) -> Result<Vec<&Instance>, Refusal> {
    in_one_place(analysis)?;
    let facts = &analysis.facts;
    let top: Option<ScopeId> = analysis.top.map(|top| facts.find(top));
    let anchors: Vec<&Instance> = analysis
        .instances
        .iter()
        .filter(|i| Some(facts.find(i.scope)) == top)
        .collect();
    let Some(first) = anchors.first() else {
        return Err(Refusal::not_supported("this use of a sharded table needs the rows of all shards together, which is not supported yet")
            .detail("The rows of the result are not made from rows of one sharded table: it is on the optional side of an outer join, or in a subquery.")
            .hint("Restrict the shard key so that one shard has all the rows."));
    };
    for instance in &analysis.instances {
        let known = facts.known(instance.scope);
        let tied = anchors
            .iter()
            .any(|anchor| known.same(instance.key, anchor.key))
            && (Some(facts.find(instance.scope)) != top || known.same(instance.key, first.key));
        if !tied || !instance.map.colocated_with(&first.map) {
            return Err(apart(first, instance));
        }
    }
    Ok(anchors)
}

/// Rows of both may be on different shards.
pub(super) fn apart(first: &Instance, other: &Instance) -> Refusal {
    Refusal::not_supported(format!("joining \"{}\" and \"{}\" across shards is not supported yet", first.name, other.name))
        .detail("Their shard keys are not known to be equal, or the tables are not colocated.")
        .hint("Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.")
}

fn several_written(analysis: &Analysis) -> Refusal {
    let message = "a statement that writes and needs rows of several shards is not supported yet";
    let refusal = Refusal::not_supported(message).hint(
        "Restrict every shard key in it to one value, or join the tables on their shard keys.",
    );
    let open = analysis
        .instances
        .iter()
        .find(|instance| need(analysis, instance).keys == KeySet::Everything);
    match open {
        Some(instance) => refusal.detail(format!(
            "The shard key of \"{}\" is not restricted.",
            instance.name
        )),
        None => refusal,
    }
}
