//! Many scripts of writes, counted: after each step the router's session must see what the plain server's does, and outside of a block
//! the shards together must have what the plain server has.

use std::collections::BTreeMap;
use std::fmt;

use super::chance::Chance;
use super::compare::{Verdict, compare, show};
use super::generate::{Step, script};
use super::schema::{Method, TABLES, Table};
use super::servers::Servers;
use crate::differential::{self, Protocol};
use crate::{Client, Reply};

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Scripts {
    /// The seed of the scripts.
    pub seed: u64,
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// How many shards.
    pub shards: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Written {
    /// How many scripts were the same to their ends.
    pub same: usize,
    /// How many statements there were in them.
    pub statements: usize,
    /// How many of these changed rows.
    pub changes: usize,
    /// How many errors, by SQLSTATE, were the same.
    pub errors: BTreeMap<String, usize>,
    /// How many scripts ended at a statement that failed on a value on one side, or took too long.
    pub undecided: usize,
    /// How many statements were refused, by reason, and one of each. The script goes on without it.
    pub refused: BTreeMap<String, (usize, String)>,
    /// The first difference, for people.
    pub difference: Option<String>,
}

/// How one run of a script ends.
enum End {
    Same(Vec<Reply>),
    Undecided,
    /// A statement was refused.
    Refused(usize, String),
    /// After this statement.
    Different(usize, String),
}

/// The connections of a run.
struct Sides {
    router: Client,
    plain: Client,
    /// Past the router.
    shards: Vec<Client>,
}

impl Scripts {
    /// Runs them, up to the first difference.
    pub fn run(&self, servers: &Servers) -> Written {
        let mut sides = Sides {
            router: servers.router(self.shards),
            plain: servers.plain(),
            shards: servers.shards(self.shards),
        };
        sides.keep();
        let mut written = Written::default();
        for number in self.first..self.first + self.count {
            self.one(number, &mut sides, &mut written);
            if written.difference.is_some() {
                break;
            }
        }
        written
    }

    fn one(&self, number: u64, sides: &mut Sides, written: &mut Written) {
        let protocol = *Chance::of(self.seed, u64::MAX - number).pick(&Protocol::ALL);
        let mut steps = script(self.seed, number);
        loop {
            match sides.run(&steps, protocol) {
                End::Same(answers) => {
                    written.same += 1;
                    written.statements += answers.len();
                    for answer in &answers {
                        let tag = answer.tag.as_deref().unwrap_or_default();
                        let words = ["UPDATE", "DELETE", "INSERT"];
                        let none = tag.ends_with(" 0");
                        let changes = !none && words.iter().any(|word| tag.starts_with(word));
                        written.changes += usize::from(changes);
                        if let Some(code) = answer.sqlstate() {
                            *written.errors.entry(code.to_owned()).or_default() += 1;
                        }
                    }
                    return;
                }
                End::Undecided => {
                    written.undecided += 1;
                    return;
                }
                End::Refused(at, reason) => {
                    let step = steps.remove(at);
                    let known = written.refused.entry(reason).or_default();
                    known.0 += 1;
                    if known.1.is_empty() || step.text.sql.len() < known.1.len() {
                        known.1 = step.text.sql;
                    }
                }
                End::Different(at, what) => {
                    steps.truncate(at + 1);
                    let (steps, what) = sides.shrink(steps, protocol, what);
                    let Scripts { seed, shards, .. } = self;
                    let lines: Vec<String> = steps
                        .iter()
                        .map(|step| format!("{};   -- {:?}", step.text.sql, step.text.values))
                        .collect();
                    written.difference = Some(format!(
                        "{what}\non {shards} shards, {protocol:?}: SWITCHYARD_SEED={seed} SWITCHYARD_FIRST={number} \
                         SWITCHYARD_SCRIPTS=1\n{}",
                        lines.join("\n")
                    ));
                    return;
                }
            }
        }
    }
}

impl Sides {
    /// Keeps the rows as they are now.
    fn keep(&mut self) {
        for client in self.shards.iter_mut().chain([&mut self.plain]) {
            for Table { name, .. } in TABLES {
                let copy = format!("CREATE TEMPORARY TABLE kept_{name} AS TABLE {name}");
                client.run(&copy).succeeded();
            }
        }
    }

    /// Brings the rows that were kept back to these tables, past the router.
    fn bring_back(&mut self, tables: &[&Table]) {
        let sql: Vec<String> = tables
            .iter()
            .map(|Table { name, .. }| {
                format!("DELETE FROM {name}; INSERT INTO {name} TABLE kept_{name}")
            })
            .collect();
        for client in self.shards.iter_mut().chain([&mut self.plain]) {
            for reply in client.simple(&sql.join(";")) {
                reply.succeeded();
            }
        }
    }

    fn run(&mut self, steps: &[Step], protocol: Protocol) -> End {
        let written = |table: &&Table| steps.iter().any(|step| step.table == Some(table.name));
        let tables: Vec<&Table> = TABLES.iter().filter(written).collect();
        let end = self.steps(steps, protocol, &tables);
        for client in [&mut self.router, &mut self.plain] {
            if client.status != b'I' {
                client.run("ROLLBACK").succeeded();
            }
        }
        self.bring_back(&tables);
        end
    }

    fn steps(&mut self, steps: &[Step], protocol: Protocol, tables: &[&Table]) -> End {
        let mut answers = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let ask = |client: &mut Client| {
                differential::answer(client, &step.text.sql, &step.text.values, protocol)
            };
            let (expected, found) = (ask(&mut self.plain), ask(&mut self.router));
            match compare(&expected, &found, false) {
                Verdict::Same => {}
                Verdict::Evaluation | Verdict::Slow => return End::Undecided,
                Verdict::Refused(reason) => return End::Refused(at, reason),
                Verdict::Different(what) => {
                    let (expected, found) = (show(&expected), show(&found));
                    let told = format!("{what} differ\n  plain:  {expected}\n  router: {found}");
                    return End::Different(at, told);
                }
            }
            if self.plain.status != self.router.status {
                let status = [&self.plain, &self.router].map(|client| char::from(client.status));
                return End::Different(at, format!("the state of the block differs: {status:?}"));
            }
            answers.push(expected);
            let different = match self.plain.status {
                b'I' => self.stored(tables).or_else(|| self.found(tables)),
                b'T' => self.seen(step.table),
                _ => None,
            };
            if let Some(what) = different {
                return End::Different(at, what);
            }
        }
        End::Same(answers)
    }

    /// What the shards together have otherwise than the plain server.
    fn stored(&mut self, tables: &[&Table]) -> Option<String> {
        for table in tables {
            let expected = rows(&mut self.plain, table.name);
            let each = self.shards.iter_mut();
            let mut each: Vec<Vec<String>> = each.map(|shard| rows(shard, table.name)).collect();
            let all: Vec<Vec<String>> = match table.method {
                Method::Reference => each,
                Method::Unsharded => each.drain(..1).collect(),
                Method::Hash | Method::Modulo | Method::Range | Method::List => {
                    let mut union = each.concat();
                    union.sort();
                    vec![union]
                }
            };
            for found in all {
                if found != expected {
                    let name = table.name;
                    return Some(format!(
                        "what is stored of {name} differs\n  plain:  {expected:?}\n  shards: {found:?}"
                    ));
                }
            }
        }
        None
    }

    /// What is not found by its shard key.
    fn found(&mut self, tables: &[&Table]) -> Option<String> {
        let sharded =
            |table: &&&Table| !matches!(table.method, Method::Reference | Method::Unsharded);
        for Table { name, key, .. } in tables.iter().filter(sharded) {
            let keys =
                format!("SELECT DISTINCT quote_literal({key}) FROM {name} WHERE {key} IS NOT NULL");
            let keys = self.plain.run(&keys).succeeded().texts();
            let keys = keys
                .iter()
                .flatten()
                .map(|literal| format!("{key} = {literal}"));
            for condition in keys.chain([format!("{key} IS NULL")]) {
                let count = format!("SELECT count(*) FROM {name} WHERE {condition}");
                let count = |client: &mut Client| client.run(&count).succeeded().value();
                let (expected, found) = (count(&mut self.plain), count(&mut self.router));
                if expected != found {
                    return Some(format!(
                        "of {name} with {condition} {found} are found, not {expected}"
                    ));
                }
            }
        }
        None
    }

    /// What the session sees of a table otherwise than one of the plain server's.
    fn seen(&mut self, table: Option<&str>) -> Option<String> {
        let table = table?;
        let expected = rows(&mut self.plain, table);
        let found = rows(&mut self.router, table);
        (expected != found).then(|| {
            format!("what is seen of {table} differs\n  plain:  {expected:?}\n  router: {found:?}")
        })
    }

    /// Leaves out statements as long as what remains differs.
    fn shrink(
        &mut self,
        mut steps: Vec<Step>,
        protocol: Protocol,
        mut what: String,
    ) -> (Vec<Step>, String) {
        for at in (0..steps.len().saturating_sub(1)).rev() {
            let mut fewer = steps.clone();
            fewer.remove(at);
            if let End::Different(last, told) = self.run(&fewer, protocol) {
                fewer.truncate(last + 1);
                (steps, what) = (fewer, told);
            }
        }
        (steps, what)
    }
}

/// A table's rows, in one order.
fn rows(client: &mut Client, table: &str) -> Vec<String> {
    let reply = client.run(&format!("SELECT t::text FROM {table} AS t"));
    let mut rows: Vec<String> = reply.succeeded().texts().into_iter().flatten().collect();
    rows.sort();
    rows
}

impl Written {
    /// How many statements were refused.
    pub fn refused(&self) -> usize {
        self.refused.values().map(|(count, _)| count).sum()
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written {
            same,
            statements,
            changes,
            errors,
            undecided,
            refused,
            difference,
        } = self;
        writeln!(
            f,
            "{same} scripts the same ({statements} statements, {changes} of them changed rows, {} errors), {undecided} not decided, \
             {} statements refused, {} different",
            errors.values().sum::<usize>(),
            self.refused(),
            usize::from(difference.is_some())
        )?;
        for (code, count) in errors {
            writeln!(f, "  {count} failed: {code}")?;
        }
        for (reason, (count, shortest)) in refused {
            writeln!(f, "  {count} refused: {reason}\n      {shortest}")?;
        }
        difference
            .iter()
            .try_for_each(|difference| writeln!(f, "\n{difference}"))
    }
}
