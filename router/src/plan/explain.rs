//! A plan as people read it.

use std::fmt::{self, Write};

use switchyard_schema::{ShardIndex, TableName};

use super::bind_join::{self, BindJoin};
use super::command::Command;
use super::copy_in::{CopiedRows, CopyIn};
use super::create_as::CreateAs;
use super::route::{KeyExpr, KeySet, Source, Target, Values};
use super::within::query_within;
use super::workspace::fetch::listed;
use super::workspace::{Fetch, Restriction, Text};
use super::{
    Access, Argument, Broadcast, FromQuery, Insert, Lock, Operator, Plan, Rest, Workspace,
};
use crate::copy_in::{Format, KeyPlace};
use crate::relations::Relations;
use crate::sql::{Literal, LiteralKind};

/// Prints the plan of a text as a tree. With `values`, the shards of this execution are shown too.
pub fn explain(
    plan: &Plan,
    relations: &Relations,
    sql: &[u8],
    values: Option<&Values<'_>>,
) -> String {
    let names = Names {
        relations,
        literals: None,
    };
    let steps = steps(plan, &names, sql, values);
    let fetches = steps.fetches.concat();
    [steps.head, fetches, steps.tail].concat()
}

/// A plan in parts, between which there may be more to say.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// What is done.
    pub(crate) head: String,
    /// Each fetch of a workspace.
    pub(crate) fetches: Vec<String>,
    /// What else is known.
    pub(crate) tail: String,
}

/// What numbers in a plan mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) relations: &'a Relations,
    /// A text and its literals, where its own values are to be seen.
    pub(crate) literals: Option<(&'a [u8], &'a [Literal])>,
}

impl Names<'_> {
    fn key(&self, key: &KeyExpr) -> String {
        let literal = || match (&key.source, self.literals) {
            (Source::Literal { slot, .. }, Some((sql, literals))) => {
                let span = &literals.get(*slot as usize)?.span;
                let text = sql.get(span.start as usize..span.end as usize)?;
                Some(String::from_utf8_lossy(text).into_owned())
            }
            _ => None,
        };
        key.written(literal())
    }
}

/// The parts of a printed plan.
pub(crate) fn steps(
    plan: &Plan,
    names: &Names<'_>,
    sql: &[u8],
    values: Option<&Values<'_>>,
) -> Steps {
    let mut steps = Steps::default();
    // Writing to a string does not fail.
    let _ = write_plan(&mut steps, plan, names, sql, values);
    steps
}

/// Where such a statement goes.
fn broadcast(kind: Broadcast) -> &'static str {
    match kind {
        Broadcast::Ddl => "all shards (schema)",
        Broadcast::Stepwise => "one shard after the other (no transaction)",
        Broadcast::Reference => "all shards (reference table)",
    }
}

fn write_plan(
    steps: &mut Steps,
    plan: &Plan,
    names: &Names<'_>,
    sql: &[u8],
    values: Option<&Values<'_>>,
) -> fmt::Result {
    let out = &mut steps.head;
    match &plan.operator {
        Operator::PassThrough(target) => {
            write!(out, "PassThrough to ")?;
            write_target(out, target, names)?;
            write_node(out, plan)?;
            match &plan.several {
                Some(several) if let Operator::Insert(insert) = &several.operator => {
                    write_rows(out, insert, names, values)?;
                }
                _ => write_shards(out, target, names, values)?,
            }
        }
        Operator::Append(target) => {
            write!(out, "Append of ")?;
            write_target(out, target, names)?;
            write_node(out, plan)?;
            write_shards(out, target, names, values)?;
        }
        Operator::Merge(merge) => {
            write!(out, "Merge of ")?;
            write_target(out, &merge.target, names)?;
            write_node(out, plan)?;
            write_shards(out, &merge.target, names, values)?;
            super::merge::explain::write(out, merge, &query_within(sql, &plan.command))?;
        }
        Operator::Broadcast(kind) => writeln!(out, "Broadcast to {}", broadcast(*kind))?,
        Operator::Session => writeln!(out, "Session: {:?}", plan.command)?,
        Operator::Workspace(workspace) => {
            // A query whose rows are stored is planned in a text of its own.
            let created = CreateAs::of(sql).filter(|_| matches!(plan.command, Command::CreateAs));
            let query = created.map(|created| created.query(sql));
            let query = query.as_deref().unwrap_or(sql);
            write_workspace(steps, workspace, plan, names, query)?;
        }
        Operator::Write(write) => write_write(out, (write, plan), names, values)?,
        Operator::Steps(both) => write_steps(out, (both, plan), names, values)?,
        Operator::Move(of) => {
            write_write(out, (&of.write, plan), names, values)?;
            writeln!(out, "  Rows that change their shard key move")?;
        }
        Operator::Lock(lock) => write_lock(steps, lock, plan, names, sql)?,
        Operator::InsertQuery(insert) => {
            writeln!(out, "Insert of a query's rows, {}", insert.places())?;
            // The query is planned in a text of its own.
            let query = FromQuery::query(sql, insert.has_conflict());
            let query = query.as_deref().unwrap_or(sql);
            if insert.first.is_some() {
                writeln!(out, "  The query is computed first, in the transaction")?;
            }
            write_workspace(steps, &insert.workspace, plan, names, query)?;
        }
        Operator::Insert(insert) => {
            write!(out, "Insert of rows of {} stored ", insert.need.relation)?;
            write_keys(out, &insert.need.keys, names)?;
            writeln!(out)?;
            write_rows(out, insert, names, values)?;
        }
        Operator::CopyIn(copy) => write_copy_in(out, copy)?,
        Operator::Refuse(refusal) => writeln!(out, "Refuse {refusal}")?,
    }
    if !matches!(plan.operator, Operator::Session | Operator::Refuse(_)) {
        write_rest(&mut steps.tail, plan)?;
    }
    Ok(())
}

fn write_workspace(
    steps: &mut Steps,
    workspace: &Workspace,
    plan: &Plan,
    names: &Names<'_>,
    sql: &[u8],
) -> fmt::Result {
    write!(steps.head, "Workspace")?;
    write_node(&mut steps.head, plan)?;
    writeln!(steps.head, "  Reason: {}", workspace.reason)?;
    for (number, join) in workspace.joins.iter().enumerate() {
        let given = join.given.iter().enumerate();
        let given = given.map(|(at, (_, given))| match join.by(at) {
            Some(column) => format!("{} by {column}", given.relation),
            None => given.relation.to_string(),
        });
        let given: Vec<String> = given.collect();
        write!(steps.head, "  Bind join, if few: {}", given.join(", "))?;
        match bind_join::expected(workspace, number) {
            None => {}
            Some(None) => write!(steps.head, " (not possible)")?,
            Some(Some(rows)) => write!(steps.head, " (about {rows:.0} rows)")?,
        }
        writeln!(steps.head)?;
    }
    let text = Text::new(sql);
    for fetch in workspace.all_fetches() {
        let out = &mut String::new();
        if let Some(finish) = workspace
            .finish
            .as_ref()
            .filter(|finish| std::ptr::eq(&finish.rows, fetch))
        {
            write!(out, "  Rows made by ")?;
            write_target(out, &fetch.target, names)?;
            writeln!(out)?;
            finish.explain(out, sql)?;
            steps.fetches.push(std::mem::take(out));
            continue;
        }
        write_fetch(out, fetch, &fetch.columns, names)?;
        if fetch.home.is_some() {
            write!(out, ", or read in place")?;
        }
        writeln!(out)?;
        write_restrictions(out, fetch, &text)?;
        if let Some((by, made)) = fetch.condensable() {
            let (by, made) = (by.join(", "), made.join(", "));
            writeln!(out, "    If far fewer: one row for each {by}, with {made}")?;
        }
        if !fetch.primary_key.is_empty() {
            writeln!(out, "    Primary key: {}", fetch.primary_key.join(", "))?;
        }
        if !fetch.lookups.is_empty() {
            writeln!(out, "    Indexes: {}", fetch.lookups.join(", "))?;
        }
        steps.fetches.push(std::mem::take(out));
    }
    for view in &workspace.own {
        writeln!(steps.tail, "  List {}", view.name())?;
    }
    for view in &workspace.views {
        writeln!(steps.tail, "  View {}", view.relation)?;
    }
    Ok(())
}

fn write_fetch(
    out: &mut String,
    fetch: &Fetch,
    columns: &[impl AsRef<str>],
    names: &Names<'_>,
) -> fmt::Result {
    let columns: Vec<&str> = columns.iter().map(AsRef::as_ref).collect();
    let (only, columns) = (if fetch.only { "ONLY " } else { "" }, columns.join(", "));
    write!(out, "  Fetch {only}{} ({columns}) from ", fetch.relation)?;
    write_target(out, &fetch.target, names)
}

/// The first lines of a bind join.
pub(crate) fn bind_join_head(workspace: &Workspace, plan: &Plan) -> String {
    let mut out = "Bind join".to_owned();
    // Writing to a string does not fail.
    let _ = write_node(&mut out, plan);
    let _ = writeln!(out, "  Reason: {}", workspace.reason);
    out
}

/// A fetch of a bind join, whose rows are given to shards.
pub(crate) fn given_fetch(fetch: &Fetch, join: &BindJoin, names: &Names<'_>, sql: &[u8]) -> String {
    let place = |name: &TableName| {
        let mut given = join.given.iter();
        given.position(|(_, given)| given.relation == *name)
    };
    let mut fetch = fetch.clone();
    // What is not fetched restricts nothing.
    for mention in &mut fetch.mentions {
        mention.retain(|restriction| match restriction {
            Restriction::Among { other, .. } => place(other).is_some(),
            Restriction::Condition(_) | Restriction::Either(_) | Restriction::Meets { .. } => true,
        });
    }
    let place = place(&fetch.relation);
    let given = place.and_then(|place| join.given.get(place));
    let columns = given.map_or(&[][..], |(_, given)| &given.columns);
    let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_fetch(&mut out, &fetch, &columns, names);
    let _ = write!(out, ", to be given");
    if let Some(column) = place.and_then(|place| join.by(place)) {
        let _ = write!(out, " by {column}");
    }
    let _ = writeln!(out);
    let _ = write_restrictions(&mut out, &fetch, &Text::new(sql));
    out
}

/// A write, and what is done with the rows that it returns.
fn write_steps(
    out: &mut String,
    (steps, plan): (&super::Steps, &Plan),
    names: &Names<'_>,
    values: Option<&Values<'_>>,
) -> fmt::Result {
    match steps.apart {
        true => writeln!(out, "Write by a statement of its own")?,
        false => write_write(out, (&steps.write, plan), names, values)?,
    }
    let name = &steps.given.relation.name;
    match steps.rest {
        Rest::Query => writeln!(out, "  Then a query over {name}, on one shard"),
        Rest::OnFirst => writeln!(out, "  Then a write over {name}, on the first shard"),
        Rest::Insert(_) => writeln!(out, "  Then an insert of rows of {name}, each on its shard"),
    }
}

/// What each shard changes of its own.
fn write_write(
    out: &mut String,
    (write, plan): (&super::Write, &Plan),
    names: &Names<'_>,
    values: Option<&Values<'_>>,
) -> fmt::Result {
    match write.remembers {
        true => write!(out, "PassThrough to ")?,
        false => write!(out, "Write on ")?,
    }
    write_target(out, &write.target, names)?;
    write_node(out, plan)?;
    match plan.several.as_ref().map(|several| &several.operator) {
        Some(Operator::Insert(insert)) => write_rows(out, insert, names, values)?,
        _ => write_shards(out, &write.target, names, values)?,
    }
    if write.remembers {
        writeln!(out, "  Given: what the session remembers of sequences")?;
    }
    if write.copies {
        writeln!(out, "  Copies of a reference table")?;
    }
    for (given, _) in &write.given {
        writeln!(out, "  Given: all rows of {}", given.relation)?;
    }
    for ahead in &write.ahead {
        match &ahead.divided {
            Some(_) => writeln!(
                out,
                "  Given: the rows of a query that are computed first, to each shard those of its keys"
            )?,
            None => writeln!(out, "  Given: the rows of a query that are computed first")?,
        }
    }
    if !write.moments.is_empty() {
        writeln!(out, "  The time is given")?;
    }
    Ok(())
}

/// What is locked, and how it is found.
fn write_lock(
    steps: &mut Steps,
    lock: &Lock,
    plan: &Plan,
    names: &Names<'_>,
    sql: &[u8],
) -> fmt::Result {
    let out = &mut steps.head;
    write!(out, "Lock")?;
    write_node(out, plan)?;
    writeln!(out, "  Reason: {}", lock.reason)?;
    for table in &lock.tables {
        writeln!(out, "  Rows of {table}")?;
    }
    writeln!(out, "  Candidates")?;
    // As many as are asked for, and then more.
    let text = lock.candidates(&query_within(sql, &plan.command), 1);
    for line in explain(&lock.candidates, names.relations, &text, None).lines() {
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

/// Which rows are fetched, if not all: those that may matter to one mention of the relation.
fn write_restrictions(out: &mut String, fetch: &Fetch, text: &Text<'_>) -> fmt::Result {
    if fetch.mentions.iter().any(Vec::is_empty) {
        return Ok(());
    }
    for (at, mention) in fetch.mentions.iter().enumerate() {
        let word = if at == 0 { "Only" } else { "  or" };
        writeln!(out, "    {word}: {}", listed(mention, text))?;
    }
    Ok(())
}

fn write_node(out: &mut String, plan: &Plan) -> fmt::Result {
    let access = match plan.access {
        Access::Read => "read",
        Access::PrimaryRead => "read: primary",
        Access::LockingRead => "locking read: primary",
        Access::Write => "primary",
    };
    writeln!(out, " ({access})")
}

fn write_copy_in(out: &mut String, copy: &CopyIn) -> fmt::Result {
    match &copy.rows {
        CopiedRows::Keyed(format, key, added) => {
            let format = match format {
                Format::Text(_) => "text",
                Format::Csv(_) => "csv",
                Format::Binary => "binary",
            };
            let map = key.map.key_type().name();
            match key.place {
                KeyPlace::Sent(position) => writeln!(
                    out,
                    "Copy of rows of {format} by field {}, {map}",
                    position + 1
                ),
                KeyPlace::Added(_) => {
                    writeln!(
                        out,
                        "Copy of rows of {format} by a value that is given, {map}"
                    )
                }
                KeyPlace::Nowhere => {
                    writeln!(out, "Copy of rows of {format} whose key, {map}, is NULL")
                }
            }?;
            if let Some(encoding) = &copy.encoding {
                writeln!(out, "  Converted from {encoding}")?;
            }
            match added.as_slice() {
                [] => Ok(()),
                added => {
                    let names: Vec<&str> = added.iter().map(|column| &*column.name).collect();
                    writeln!(out, "  Values given for {}", names.join(", "))
                }
            }
        }
        CopiedRows::Everywhere => writeln!(out, "Copy of all rows to all shards"),
        CopiedRows::Untold(refusal) => writeln!(out, "Refuse {refusal}"),
    }
}

fn write_target(out: &mut String, target: &Target, names: &Names<'_>) -> fmt::Result {
    match target {
        Target::AnyShard => write!(out, "any shard"),
        Target::Shard(shard) => write!(out, "shard {}", shard_name(*shard, names)),
        Target::AllShards => write!(out, "all shards"),
        Target::Keys(route) => {
            let point = route
                .needs
                .iter()
                .all(|need| matches!(need.keys, KeySet::Equal(_)));
            write!(
                out,
                "{}",
                if point {
                    "the shard of"
                } else {
                    "the shards of"
                }
            )?;
            for (at, need) in route.needs.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let stored = if need.stored.is_some() { " stored" } else { "" };
                write!(out, "{comma} {}{stored} ", need.relation)?;
                write_keys(out, &need.keys, names)?;
            }
            if route.first_shard_only {
                write!(out, ", first shard only")?;
            }
            Ok(())
        }
    }
}

fn write_shards(
    out: &mut String,
    target: &Target,
    names: &Names<'_>,
    values: Option<&Values<'_>>,
) -> fmt::Result {
    let Some(values) = values else { return Ok(()) };
    if !matches!(target, Target::Keys(_)) {
        return Ok(());
    }
    match target.shards(values, names.relations.shards().len()) {
        Ok(shards) => {
            let names: Vec<&str> = shards
                .iter()
                .map(|shard| shard_name(shard, names))
                .collect();
            writeln!(out, "  Shards: {}", names.join(", "))
        }
        Err(refusal) => writeln!(out, "  Refuse {}", refusal.message),
    }
}

/// The shard of each row.
fn write_rows(
    out: &mut String,
    insert: &Insert,
    names: &Names<'_>,
    values: Option<&Values<'_>>,
) -> fmt::Result {
    let Some(values) = values.filter(|_| !insert.computes_keys()) else {
        return Ok(());
    };
    match insert.shards(values, &[]) {
        Ok(shards) => {
            let shards = shards.iter().map(|shard| shard_name(*shard, names));
            let shards: Vec<&str> = shards.collect();
            writeln!(out, "  Shards of the rows: {}", shards.join(", "))
        }
        Err(refusal) => writeln!(out, "  Refuse {}", refusal.message),
    }
}

fn write_rest(out: &mut String, plan: &Plan) -> fmt::Result {
    if !plan.effects.pins.is_empty() {
        let pins: Vec<String> = plan
            .effects
            .pins
            .iter()
            .map(|pin| format!("{pin:?}"))
            .collect();
        writeln!(out, "  Pins: {}", pins.join(", "))?;
    }
    if plan.effects.dirty {
        writeln!(out, "  Leaves the backend dirty")?;
    }
    if plan.effects.reads_sequence_state {
        writeln!(out, "  Reads the state of a sequence")?;
    }
    if plan.effects.uses_sequences {
        writeln!(out, "  May use a sequence")?;
    }
    if plan.effects.seeds_random {
        writeln!(out, "  Seeds random()")?;
    }
    if let Some(name) = &plan.unknown {
        writeln!(out, "  Unknown: {name}")?;
    }
    if let Some(name) = &plan.temporary {
        writeln!(out, "  Creates temporary: {name}")?;
    }
    if let Some(located) = &plan.located {
        writeln!(out, "  Located by: {}", located.index.name)?;
    }
    for index in plan.unique.iter().flat_map(|indexes| indexes.iter()) {
        writeln!(out, "  Keeps unique: {}", index.name)?;
    }
    for setting in &plan.settings {
        let known = |argument: &Option<Argument>| match argument {
            Some(argument) => format!("{argument:?}"),
            None => "?".to_owned(),
        };
        let (value, local) = (known(&setting.value), known(&setting.local));
        writeln!(out, "  Sets: {:?} = {value}, local {local}", setting.name)?;
    }
    if !plan.guards.is_empty() {
        writeln!(out, "  Guards: {:?}", plan.guards)?;
    }
    if let Some(node) = plan.node {
        writeln!(out, "  Hint: {node:?}")?;
    }
    Ok(())
}

fn shard_name<'a>(shard: ShardIndex, names: &Names<'a>) -> &'a str {
    let shards = names.relations.shards();
    shards.get(shard.position()).map_or("?", |name| name)
}

fn write_keys(out: &mut String, keys: &KeySet, names: &Names<'_>) -> fmt::Result {
    let list = |out: &mut String, sets: &[KeySet], word: &str| {
        write!(out, "(")?;
        for (at, set) in sets.iter().enumerate() {
            if at > 0 {
                write!(out, " {word} ")?;
            }
            write_keys(out, set, names)?;
        }
        write!(out, ")")
    };
    match keys {
        KeySet::Equal(key) => write!(out, "= {}", names.key(key)),
        KeySet::AnyOf(keys) => {
            let keys: Vec<String> = keys.iter().map(|key| names.key(key)).collect();
            write!(out, "in ({})", keys.join(", "))
        }
        KeySet::Elements(key) => write!(out, "in elements of {}", names.key(key)),
        KeySet::Between(low, high) => {
            let end = |limit: &super::route::Limit| if limit.inclusive { "=" } else { "" };
            match (low, high) {
                (Some(low), Some(high)) => write!(
                    out,
                    ">{} {} <{} {}",
                    end(low),
                    names.key(&low.value),
                    end(high),
                    names.key(&high.value)
                ),
                (Some(low), None) => write!(out, ">{} {}", end(low), names.key(&low.value)),
                (None, Some(high)) => write!(out, "<{} {}", end(high), names.key(&high.value)),
                (None, None) => write!(out, "any"),
            }
        }
        KeySet::Null => write!(out, "is null"),
        KeySet::Either(sets) => list(out, sets, "or"),
        KeySet::Both(sets) => list(out, sets, "and"),
        KeySet::Nothing => write!(out, "none"),
        KeySet::Everything => write!(out, "any"),
    }
}

impl KeyExpr {
    /// For people, with this for the literal that it is.
    fn written(&self, literal: Option<String>) -> String {
        let source = match &self.source {
            Source::Literal { slot, kind } => literal.unwrap_or_else(|| {
                let kind = match kind {
                    LiteralKind::Integer => "integer",
                    LiteralKind::Decimal => "decimal",
                    LiteralKind::String => "string",
                };
                format!("{kind}[{slot}]")
            }),
            Source::Param { number, .. } => format!("${number}"),
            Source::Bool(value) => value.to_string(),
            Source::Null => "null".to_owned(),
            Source::Computed => "a value computed first".to_owned(),
        };
        let sign = if self.negative { "-" } else { "" };
        let casts = self.casts.iter().map(|cast| format!("::{}", cast.name()));
        format!("{sign}{source}{}", casts.collect::<String>())
    }
}
