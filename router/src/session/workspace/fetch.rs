//! Bringing the rows that a statement reads from the shards into its workspace.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_identifier;
use switchyard_schema::{ShardIndex, ShardSet, TableName};
use switchyard_wire::Format;
use switchyard_wire::frontend::{self, Bind, Kind};

use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::messages::lines;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, exchange};
use crate::execute::workspace::Workspace;
use crate::plan::learned::Estimate;
use crate::plan::workspace::{Fetch, Text};
use crate::plan::{self, Plan};
use crate::session::Session;
use crate::session::read::keep::Steady;
use crate::sql::{Lexer, TokenKind};

/// A relation with so many rows in the workspace, at most, restricts others by its keys.
const MOST_KEYS: u64 = 50_000;
/// One of which all rows are fetched mostly has what the others refer to: only so many of its keys restrict them.
const MOST_OF_ALL: u64 = 1_000;
/// And so many bytes of keys: they pass through the router's memory, and are read by every shard.
const MOST_KEY_BYTES: usize = 1 << 20;

/// Rows are condensed on the shards where that makes them so many times fewer: to group them costs about what it costs to bring them.
const FEWER: f64 = 2.0;

/// What a client asks, as it came.
pub(in crate::session) struct Asked<'a> {
    pub(in crate::session) sql: &'a [u8],
    /// Its parameters: their types, and the message they are in.
    pub(in crate::session) params: Option<(Vec<u32>, &'a Bind<'a>)>,
    /// Rows that are given with it.
    pub(in crate::session) given: GivenRows,
    /// The kind of node that may give the rows.
    pub(in crate::session) need: Need,
    /// Cancel requests that came before it.
    pub(in crate::session) cancels: u64,
}

impl Asked<'_> {
    /// How many parameters the client gives.
    pub(in crate::session) fn parameters(&self) -> usize {
        self.params
            .as_ref()
            .map_or(0, |(_, bind)| bind.params.len())
    }

    /// The same with a type for those of the client's parameters that this query of ours does not mention: PostgreSQL wants to know it
    /// even of one that it does not need.
    pub(in crate::session) fn with_types_in(&self, query: &[u8]) -> Self {
        let mentioned = parameters(query);
        let typed = |(oid, number): (u32, usize)| match mentioned.binary_search(&number) {
            Ok(_) => oid,
            Err(_) => TEXT,
        };
        let types = self.types().into_iter().zip(1..).map(typed).collect();
        Self {
            params: self.params.as_ref().map(|(_, bind)| (types, *bind)),
            given: self.given.clone(),
            ..*self
        }
    }

    /// The same, with other rows given.
    pub(in crate::session) fn with(&self, given: Vec<Option<Bytes>>) -> Self {
        Self {
            params: self.params.clone(),
            given: GivenRows::new(given),
            ..*self
        }
    }

    /// Their types; 0 is for the server to find out.
    pub(in crate::session) fn types(&self) -> Vec<u32> {
        self.params
            .as_ref()
            .map_or_else(Vec::new, |(types, _)| types.clone())
    }

    /// Appends the messages that run a query of ours with the client's parameters, as far as it mentions them.
    pub(in crate::session) fn encode(
        &self,
        output: &mut BytesMut,
        query: &[u8],
        formats: &[Format],
    ) {
        self.encode_bind(output, query, b"", formats);
        encode_run(output);
    }

    /// The same for a shard, which is given what it needs.
    pub(in crate::session) fn encode_for(
        &self,
        shard: ShardIndex,
        output: &mut BytesMut,
        query: &[u8],
        results: &[Format],
    ) {
        self.encode_given(output, query, (b"", self.given.on(shard)), results);
        encode_run(output);
    }

    /// The same where the server has kept it under this name.
    pub(in crate::session) fn encode_kept(
        &self,
        shard: ShardIndex,
        output: &mut BytesMut,
        (query, name): (&[u8], &str),
        results: &[Format],
    ) {
        let bound = self.bound(query, self.given.on(shard));
        let name = name.as_bytes();
        frontend::encode::bind(output, b"", name, &bound.formats, &bound.values, results);
        encode_run(output);
    }

    /// Appends the messages that bind a query to a portal with the client's parameters, as far as it mentions them.
    pub(in crate::session) fn encode_bind(
        &self,
        output: &mut BytesMut,
        query: &[u8],
        portal: &[u8],
        results: &[Format],
    ) {
        self.encode_given(output, query, (portal, self.given.all()), results);
    }

    /// The same for a shard, which is given what it needs.
    pub(in crate::session) fn encode_bind_for(
        &self,
        shard: ShardIndex,
        output: &mut BytesMut,
        query: &[u8],
        (portal, results): (&[u8], &[Format]),
    ) {
        self.encode_given(output, query, (portal, self.given.on(shard)), results);
    }

    fn encode_given(
        &self,
        output: &mut BytesMut,
        query: &[u8],
        (portal, given): (&[u8], &[Option<Bytes>]),
        results: &[Format],
    ) {
        let bound = self.bound(query, given);
        frontend::encode::parse(output, b"", query, &bound.types);
        frontend::encode::bind(output, portal, b"", &bound.formats, &bound.values, results);
    }

    /// A query as servers may keep it, if it means the same whenever it is analysed. Where it has parameters of the client's, PostgreSQL may then
    /// plan it for any values, as it does with what the client has given a name to.
    pub(in crate::session) fn steady<'b>(
        &self,
        plan: &Plan,
        query: &'b [u8],
    ) -> Option<Steady<'b>> {
        let own = self.parameters();
        let named = |(_, bind): &(Vec<u32>, &Bind<'_>)| !bind.statement.is_empty();
        let is_named = self.params.as_ref().is_some_and(named);
        if !is_named && parameters(query).iter().any(|number| *number <= own) {
            return None;
        }
        let types = self.bound(query, self.given.all()).types;
        Steady::of(plan, query, types, &self.given)
    }

    /// What a query is bound with.
    fn bound<'b>(&'b self, query: &[u8], given: &'b [Option<Bytes>]) -> Bound<'b> {
        let (mut types, mut values, mut formats) = (Vec::new(), Vec::new(), Vec::new());
        let mentioned = match self.params.is_some() || !given.is_empty() {
            true => parameters(query),
            false => Vec::new(),
        };
        let mentions = |number: usize| mentioned.binary_search(&number).is_ok();
        if let Some((known, bind)) = &self.params {
            for (at, value) in bind.params.iter().enumerate() {
                let used = mentions(at + 1);
                // PostgreSQL wants to know the type even of a parameter that it does not need. A value for which there is no
                // parameter is an error of its own.
                types.extend(known.get(at).map(|oid| if used { *oid } else { TEXT }));
                values.push(value.filter(|_| used));
                formats.push(bind.param_formats.format(at));
            }
        }
        for (at, array) in given.iter().enumerate() {
            let used = mentions(self.parameters() + at + 1);
            types.push(if used { 0 } else { TEXT });
            values.push(array.as_deref().filter(|_| used));
            formats.push(Format::Binary);
        }
        Bound {
            types,
            values,
            formats,
        }
    }
}

/// What is sent with a query of ours.
struct Bound<'a> {
    types: Vec<u32>,
    values: Vec<Option<&'a [u8]>>,
    formats: Vec<Format>,
}

/// Appends the messages that run what is kept under this name, and has no parameters.
pub(in crate::session) fn encode_run_kept(output: &mut BytesMut, name: &str) {
    frontend::encode::bind::<&[u8]>(output, b"", name.as_bytes(), &[], &[], &[]);
    encode_run(output);
}

/// Appends the messages that run what has been bound.
fn encode_run(output: &mut BytesMut) {
    frontend::encode::describe(output, Kind::Portal, b"");
    frontend::encode::execute(output, b"", 0);
    frontend::encode::sync(output);
}

/// What was brought of a relation.
pub(in crate::session) struct Brought {
    pub(in crate::session) relation: TableName,
    /// What each shard was asked.
    pub(in crate::session) query: String,
    pub(in crate::session) rows: u64,
    pub(in crate::session) bytes: u64,
}

/// A relation and the shards of which its rows are brought.
pub(in crate::session) type Part<'a> = (&'a Fetch, &'a ShardSet);

impl Session {
    /// Brings the rows: of one relation after the other, from all of its shards at a time. What came before restricts what follows.
    pub(in crate::session) async fn fill_workspace(
        &mut self,
        workspace: &mut Workspace,
        parts: &[Part<'_>],
        asked: &Asked<'_>,
    ) -> Result<Vec<Brought>, Trouble> {
        let text = Text::new(asked.sql);
        let mut all = Vec::with_capacity(parts.len());
        let mut keys = Keys::default();
        for (fetch, shards) in parts {
            self.learn_keys(workspace, fetch, &mut keys).await?;
            let query = fetch.query(&text, &|relation, column| keys.of(relation, column));
            let before = workspace.given();
            let rows = self.bring(workspace, fetch, shards, &query, asked).await?;
            let most = match fetch.is_restricted() {
                true => MOST_KEYS,
                false => MOST_OF_ALL,
            };
            if rows <= most {
                keys.few.push(fetch.relation.clone());
            }
            all.push(Brought {
                relation: fetch.relation.clone(),
                query,
                rows,
                bytes: workspace.given() - before,
            });
        }
        Ok(all)
    }

    /// Asks PostgreSQL once for each plan how many rows it expects of each fetch, where it matters; and whether it is worth its while to
    /// look at other relations' rows for it.
    pub(in crate::session) async fn learn_rows(
        &mut self,
        plan: &plan::Workspace,
        shards: &[ShardSet],
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        let is_known = plan.learned.known().estimates.len() == plan.fetches.len();
        let matters = !plan.joins.is_empty()
            || plan.fetches.iter().any(|fetch| {
                let looks = fetch.awaits().next().is_some() || fetch.alone().is_some();
                looks || fetch.condense().is_some()
            });
        if is_known || !matters {
            return Ok(());
        }
        let text = Text::new(asked.sql);
        let mut estimates = Vec::with_capacity(plan.fetches.len());
        for (fetch, shards) in plan.fetches.iter().zip(shards) {
            let query = fetch.query(&text, &|_, _| None);
            let mut expected = self.expected(shards, &query, asked).await?;
            let mut lighter = None;
            if let Some(alone) = fetch.alone() {
                let query = alone.query(&text, &|_, _| None);
                let own = self.expected(shards, &query, asked).await?;
                if own.with_rows_sent() <= expected.with_rows_sent() {
                    (expected, lighter) = (own, Some(Arc::new(alone)));
                }
            }
            let made = lighter.as_deref().unwrap_or(fetch);
            let mut condensed = None;
            if let Some(fewer) = made.condense() {
                let query = fewer.query(&text, &|_, _| None);
                let own = self.expected(shards, &query, asked).await?;
                if own.rows * FEWER <= expected.rows {
                    condensed = Some(Arc::new(fewer));
                }
            }
            let shards = u16::try_from(shards.len()).unwrap_or(u16::MAX);
            estimates.push(Estimate {
                rows: expected.rows * f64::from(shards),
                cost: expected.with_rows_sent(),
                alone: lighter,
                condensed,
            });
        }
        plan.learned.known().estimates = estimates;
        Ok(())
    }

    /// What PostgreSQL expects of a query, on one of the shards.
    async fn expected(
        &mut self,
        shards: &ShardSet,
        query: &str,
        asked: &Asked<'_>,
    ) -> Result<Expected, Trouble> {
        let Some(shard) = shards.first() else {
            return Ok(Expected::default());
        };
        let index = self.join(shard, asked.need).await?;
        let explain = format!("EXPLAIN {query}");
        self.ask(index, &explain, &[Format::Text], asked).await?;
        let (client, source, _) = self.exchanging(index)?;
        let lines = lines(client, source).await;
        source.unread = matches!(&lines, Err(trouble) if !matches!(trouble, Trouble::Told));
        let first = lines?.into_iter().next();
        let expected = first.and_then(|line| Expected::read(&line));
        Ok(expected.unwrap_or(Expected {
            cost: f64::MAX,
            rows: f64::MAX,
        }))
    }

    /// Asks the workspace for the keys that restrict what is fetched next, where there are few.
    async fn learn_keys(
        &mut self,
        workspace: &mut Workspace,
        fetch: &Fetch,
        keys: &mut Keys,
    ) -> Result<(), Trouble> {
        for (relation, column) in fetch.awaits() {
            let name = (relation.clone(), column.to_owned());
            if keys.values.contains_key(&name) || !keys.few.contains(relation) {
                continue;
            }
            // No key at all is an array, too.
            let query = format!(
                "SELECT CASE WHEN keys IS NULL THEN '''{{}}''' \
                 WHEN pg_catalog.pg_column_size(keys) OPERATOR(pg_catalog.<=) {MOST_KEY_BYTES} \
                 THEN pg_catalog.quote_literal(keys) END \
                 FROM (SELECT pg_catalog.array_agg(DISTINCT {}) AS keys FROM pg_temp.{}) AS k",
                escape_identifier(column),
                escape_identifier(&relation.name)
            );
            if let Some(values) = workspace.value(&mut self.client, &query).await? {
                keys.values.insert(name, values);
            }
        }
        Ok(())
    }

    /// Brings one relation's rows; their number.
    async fn bring(
        &mut self,
        workspace: &mut Workspace,
        fetch: &Fetch,
        shards: &ShardSet,
        query: &str,
        asked: &Asked<'_>,
    ) -> Result<u64, Trouble> {
        let mut sources = Vec::with_capacity(shards.len());
        for shard in shards.iter() {
            let index = self.join(shard, asked.need).await?;
            self.ask(index, query, &[Format::Binary], asked).await?;
            sources.push(index);
        }
        let table = escape_identifier(&fetch.relation.name);
        let copy = format!("COPY pg_temp.{table} FROM STDIN (FORMAT binary)");
        workspace.begin_copy(&mut self.client, &copy).await?;
        let mut rows = 0;
        for index in sources {
            let Self {
                client,
                participants,
                ..
            } = self;
            let Some(source) = participants.get_mut(index) else {
                return Err(Failure::Retry.into());
            };
            rows += workspace.pour(client, source).await?;
        }
        workspace.end_copy(&mut self.client).await?;
        Ok(rows)
    }

    /// Sends a query of ours with the client's parameters to a shard. Its answer is to be read message by message.
    pub(in crate::session) async fn ask(
        &mut self,
        index: usize,
        query: &str,
        results: &[Format],
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        let query = (query, None);
        self.ask_steady(index, query, results, asked).await
    }

    /// The same of one that the server may keep.
    pub(in crate::session) async fn ask_steady(
        &mut self,
        index: usize,
        (query, steady): (&str, Option<&Steady<'_>>),
        results: &[Format],
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        let kept = steady.and_then(|steady| self.keep(index, steady));
        let Self {
            client,
            participants,
            described,
            cancel,
            ..
        } = self;
        let Some(source) = participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        if let Some(reason) = cancel.slot().requested_since(asked.cancels) {
            return Err(Failure::Cancelled(reason).into());
        }
        // What was queued when it joined is answered first, or earlier in the batch: a backend keeps its answers to the
        // extended protocol until it is told not to.
        if source.needs_sync && !source.connection.replies.is_settled() {
            frontend::encode::flush(&mut source.connection.output);
        }
        if exchange(client, source, &[], described).await? {
            return Err(Trouble::Told);
        }
        if let Some(reason) = cancel.slot().requested_since(asked.cancels) {
            return Err(Failure::Cancelled(reason).into());
        }
        let (shard, query) = (source.shard, query.as_bytes());
        let kept = source.kept(kept);
        let connection = &mut *source.connection;
        connection.unnamed = None;
        let output = &mut connection.output;
        match kept {
            Some(name) => asked.encode_kept(shard, output, (query, &name), results),
            None => asked.encode_for(shard, output, query, results),
        }
        source.unread = true;
        if connection.flush().await.is_err() {
            return Err(Trouble::Lost);
        }
        Ok(())
    }
}

/// The number of the type `text`.
pub(in crate::session) const TEXT: u32 = 25;

/// The numbers of the parameters that a query of ours mentions, ascending.
pub(in crate::session) fn parameters(query: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut lexer = Lexer::new(query);
    while let Ok(Some(token)) = lexer.next() {
        if token.kind == TokenKind::Param {
            found.extend(token.parameter(query).map(usize::from));
        }
    }
    found.sort_unstable();
    found
}

/// What would be brought, as far as it can be said before anything is.
pub(in crate::session) fn not_brought(parts: &[Part<'_>], asked: &Asked<'_>) -> Vec<Brought> {
    let text = Text::new(asked.sql);
    let part = |(fetch, _): &Part<'_>| Brought {
        relation: fetch.relation.clone(),
        query: fetch.query(&text, &|_, _| None),
        rows: 0,
        bytes: 0,
    };
    parts.iter().map(part).collect()
}

/// What is known of the relations that have been brought.
#[derive(Default)]
struct Keys {
    /// Those with few enough rows to restrict others.
    few: Vec<TableName>,
    /// The distinct values of a column, as an array's literal.
    values: HashMap<(TableName, String), String>,
}

impl Keys {
    fn of(&self, relation: &TableName, column: &str) -> Option<String> {
        let name = (relation.clone(), column.to_owned());
        self.values.get(&name).cloned()
    }
}

/// What PostgreSQL expects of a query.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Expected {
    /// In its own units, of which reading a page in order is one.
    cost: f64,
    rows: f64,
}

/// The cost of sending a row on, in PostgreSQL's units.
const SENT: f64 = 0.2;

impl Expected {
    /// Of the first line of a plan: `Seq Scan on t  (cost=0.00..1.00 rows=5 width=4)`.
    fn read(line: &str) -> Option<Self> {
        let (cost, rows) = line.split_once("(cost=")?.1.split_once(" rows=")?;
        Some(Self {
            cost: cost.split_once("..")?.1.parse().ok()?,
            rows: rows.split(' ').next()?.parse().ok()?,
        })
    }

    fn with_rows_sent(self) -> f64 {
        self.cost + self.rows * SENT
    }
}

#[cfg(test)]
mod tests {
    use super::Expected;

    #[test]
    fn a_plan_says_how_many_rows_it_expects() {
        let line = "Seq Scan on t  (cost=0.00..35.50 rows=2550 width=4)";
        let expected = Expected {
            cost: 35.5,
            rows: 2550.0,
        };
        assert_eq!(Expected::read(line), Some(expected));
        assert_eq!(Expected::read("  Filter: (a > 1)"), None);
    }
}
