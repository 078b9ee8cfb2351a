//! Queries inside a write of several shards that are computed before it: see [`crate::plan::ahead`].
//!
//! A query is answered by whatever answers the client's own, in the same transaction. PostgreSQL is asked once for each plan of what types
//! its columns are.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_literal;
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::backend::Columns;
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::{self, Kind};
use switchyard_wire::{Format, SqlState};

use crate::execute::arrays::{Arrays, MOST_BYTES, MOST_ROWS, NotTaken, elements};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::ahead::{Ahead, Divided};
use crate::plan::given::Given;
use crate::plan::learned::{Learned, Part, Rows};
use crate::plan::moment::Clock;
use crate::relations::introspect::{PLAIN_TYPES, TEMPORARY_COLUMNS};
use crate::session::Session;
use crate::session::extended::portable;
use crate::session::workspace::fetch::{Asked, TEXT};
use crate::session::workspace::{columns, error_in};

/// The rows of a query, as they come.
#[derive(Debug, Default)]
pub(in crate::session) struct Taking {
    /// One for all columns, or for each.
    formats: Vec<Format>,
    description: Option<Bytes>,
    rows: Option<Arrays>,
    ended: bool,
    failed: Option<NotTaken>,
}

/// The rows of a query that has been computed.
pub(in crate::session) struct Computed {
    pub(in crate::session) given: Given,
    pub(in crate::session) arrays: Vec<Bytes>,
    /// The shard that each row is for, where not all need all.
    pub(in crate::session) shards: Option<Vec<ShardIndex>>,
}

impl Taking {
    /// In these formats.
    pub(in crate::session) fn of(formats: &[Format]) -> Self {
        Self {
            formats: formats.to_vec(),
            ..Self::default()
        }
    }

    /// Whether more rows are to come, and wanted.
    pub(in crate::session) fn goes_on(&self) -> bool {
        !self.ended && self.failed.is_none()
    }

    /// The rows, which are to be of these types (OID and modifier); `None` if they are too many.
    pub(in crate::session) fn arrays(
        self,
        types: impl Iterator<Item = (u32, i32)>,
    ) -> Result<Option<Vec<Bytes>>, Failure> {
        let own = self.description.as_deref().and_then(columns);
        let own = own.ok_or(Failure::Retry)?;
        let own = own
            .iter()
            .map(|column| (column.type_oid, column.type_modifier));
        // Types that users have made have another number on each server.
        let on_any = |(oid, modifier): (u32, i32)| (portable(oid), modifier);
        let (own, types) = (own.map(on_any), types.map(on_any));
        match (self.failed, self.rows) {
            (Some(NotTaken::Full), _) => Ok(None),
            (None, Some(rows)) if own.eq(types) => Ok(Some(rows.finish())),
            (Some(NotTaken::Unreadable) | None, _) => Err(Failure::Retry),
        }
    }

    /// The names of the columns.
    fn names(&self) -> Vec<String> {
        let own = self.description.as_deref().and_then(columns);
        own.map_or_else(Vec::new, |columns| names_in(&columns))
    }

    /// Their types, and modifiers.
    fn types(&self) -> Vec<(u32, i32)> {
        let own = self.description.as_deref().and_then(columns);
        own.map_or_else(Vec::new, |columns| types_in(&columns))
    }

    fn describe(&mut self, description: Bytes) {
        let types = columns(&description).map_or_else(Vec::new, |columns| types_in(&columns));
        let array = |(at, (oid, _)): (usize, &(u32, i32))| match self
            .formats
            .get(at)
            .or(self.formats.first())
        {
            Some(Format::Text) => TEXT,
            Some(Format::Binary) | None => *oid,
        };
        self.rows = Some(Arrays::new(types.iter().enumerate().map(array)));
        self.description = Some(description);
    }

    fn push(&mut self, row: &[u8]) {
        let taken = match &mut self.rows {
            Some(rows) => rows.push(row),
            None => Err(NotTaken::Unreadable),
        };
        self.failed = self.failed.or(taken.err());
    }
}

impl Session {
    /// The rows of a query that is computed ahead of a write of these shards.
    pub(in crate::session) async fn compute_ahead(
        &mut self,
        ahead: &Ahead,
        clock: Option<&Clock>,
        (asked, shards): (&Asked<'_>, &ShardSet),
    ) -> Result<Computed, Trouble> {
        let text = ahead.query(asked.sql, clock).ok_or(Failure::Retry)?;
        let (given, arrays) = self.compute_rows(&ahead.learned, &text, asked).await?;
        computed(ahead, given, arrays, shards)
    }

    /// The rows of a query, and what is learned of its columns.
    pub(in crate::session) async fn compute_rows(
        &mut self,
        learned: &Arc<Learned>,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<(Given, Vec<Bytes>), Trouble> {
        let known = learned.given_rows();
        let mut known = known.and_then(|rows| rows.given.clone());
        if known.is_none() && self.is_in_the_way() {
            return self.compute_here(text, asked).await;
        }
        for _ in 0..2 {
            let given = match known.take() {
                Some(given) => given,
                None => self.learn_columns(learned, text, asked).await?,
            };
            let taking = self.run_ahead(text, asked, &given.formats()).await?;
            let names = taking.names();
            match taking.arrays(given.types()) {
                Ok(Some(arrays)) => return Ok((given.named(&names), arrays)),
                Ok(None) => return Err(too_many().into()),
                // Of other literals, the types may be others.
                Err(Failure::Retry) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(Failure::Retry.into())
    }

    /// The same where no connection apart can be asked of types: the session has locked tables, or changed the schema. The names of
    /// types come from a shard, which does not know the collations of the query's columns.
    async fn compute_here(
        &mut self,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<(Given, Vec<Bytes>), Trouble> {
        let taking = self.run_ahead(text, asked, &[Format::Binary]).await?;
        let (names, types) = (taking.names(), taking.types());
        let array = |values: Vec<String>| format!("'{{{}}}'", values.join(","));
        let oids = types.iter().map(|(oid, _)| oid.to_string()).collect();
        let modifiers = types.iter().map(|(_, own)| own.to_string()).collect();
        let query = PLAIN_TYPES
            .replace("{oids}", &array(oids))
            .replace("{modifiers}", &array(modifiers));
        let index = self.join(ShardIndex::FIRST, Need::Primary).await?;
        let own = Asked {
            sql: query.as_bytes(),
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: asked.cancels,
        };
        let lines = self
            .value_of(index, &query, &own)
            .await?
            .unwrap_or_default();
        let lines: Vec<String> = lines.split('\n').map(str::to_owned).collect();
        let given = Rows::read_all(&names, &types, &lines);
        let plain = |given: &Given| given.columns.iter().all(|column| !column.as_text);
        let Some(given) = given.filter(plain) else {
            let what = "a write by rows of several shards in a transaction that has changed the schema or locked tables";
            let (what, hint) = (what.into(), "Commit first.");
            return Err(Failure::Unsupported { what, hint }.into());
        };
        let arrays = taking.arrays(given.types())?.ok_or_else(too_many)?;
        Ok((given, arrays))
    }

    /// Takes rows out of an answer; errors and notices are the client's.
    pub(in crate::session) fn take_said(&mut self, answer: BytesMut, taking: &mut Taking) {
        let mut answer = answer.freeze();
        while let Ok(Some(header)) = frame::header(&answer) {
            let message = answer.split_to(header.len.min(answer.len()));
            match header.tag {
                b'T' => taking.describe(message),
                b'D' => taking.push(message.get(HEADER..).unwrap_or_default()),
                b'C' => taking.ended = true,
                b'E' | b'N' | b'A' | b'S' => {
                    taking.ended |= header.tag == b'E';
                    self.client.output.extend_from_slice(&message);
                }
                _ => {}
            }
        }
    }

    /// Asks PostgreSQL for the types of a query's columns, and their collations: how its rows are given.
    async fn learn_columns(
        &mut self,
        learned: &Arc<Learned>,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<Given, Trouble> {
        let backend = self.take_workspace(self.any_shard()).await?;
        let mut workspace = Workspace::new(backend, 0);
        let asking = self.ask_columns(&mut workspace, text, asked).await;
        let given = self.leave_workspace(workspace, asking).await?;
        learned.known().part = Some(Part::Rows(Arc::new(Rows {
            modifiers: Vec::new(),
            alterations: String::new(),
            given: Some(given.clone()),
        })));
        Ok(given)
    }

    async fn ask_columns(
        &mut self,
        workspace: &mut Workspace,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<Given, Trouble> {
        self.open_workspace(workspace, &[], "").await?;
        let messages = |output: &mut BytesMut| {
            asked.encode_bind(output, text, b"", &[]);
            frontend::encode::describe(output, Kind::Portal, b"");
            frontend::encode::sync(output);
        };
        let description = workspace.send(&mut self.client, messages).await?;
        let columns = columns(&description).ok_or(Failure::Retry)?;
        let (names, types) = (names_in(&columns), types_in(&columns));
        let table = "pg_temp.\"switchyard rows\"";
        let numbered: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let numbered = numbered.join(", ");
        let head = format!("CREATE TEMPORARY TABLE {table} ({numbered}) AS ");
        let creation = [head.as_bytes(), text, b" WITH NO DATA"].concat();
        let messages = |output: &mut BytesMut| {
            asked.encode_bind(output, &creation, b"", &[]);
            frontend::encode::execute(output, b"", 0);
            frontend::encode::sync(output);
        };
        let before = self.client.hold();
        let made = match types.is_empty() {
            true => Err(cannot_be_given()),
            false => workspace.send(&mut self.client, messages).await,
        };
        let said = self.client.unhold(before);
        if error_in(&said) == Some(SqlState::INVALID_TABLE_DEFINITION) {
            // There are no tables of such columns: rows of no named type, for one.
            return Err(cannot_be_given());
        }
        self.client.output.extend_from_slice(&said);
        made?;
        let modifiers: Vec<String> = types.iter().map(|(_, own)| own.to_string()).collect();
        let query = TEMPORARY_COLUMNS
            .replace("{modifiers}", &format!("'{{{}}}'", modifiers.join(",")))
            .replace("{table}", &escape_literal(table));
        let lines = workspace.lines(&mut self.client, &query).await?;
        Ok(Rows::read_all(&names, &types, &lines).ok_or(Failure::Retry)?)
    }
}

/// The types of columns, and their modifiers.
fn types_in(columns: &Columns<'_>) -> Vec<(u32, i32)> {
    let columns = columns.iter();
    let types = columns.map(|column| (column.type_oid, column.type_modifier));
    types.collect()
}

fn names_in(columns: &Columns<'_>) -> Vec<String> {
    let names = columns.iter().map(|column| column.name);
    let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
    names.collect()
}

/// Rows that have been computed, and where they go.
fn computed(
    ahead: &Ahead,
    given: Given,
    arrays: Vec<Bytes>,
    shards: &ShardSet,
) -> Result<Computed, Trouble> {
    let shards = match &ahead.divided {
        Some(divided) => Some(shards_of(divided, &given, &arrays, shards)?),
        None => None,
    };
    Ok(Computed {
        given,
        arrays,
        shards,
    })
}

/// The shard that each row is given to.
fn shards_of(
    divided: &Divided,
    given: &Given,
    arrays: &[Bytes],
    shards: &ShardSet,
) -> Result<Vec<ShardIndex>, Failure> {
    let refused = || Failure::Unsupported {
        what: "MERGE of rows whose keys are of another type than the shard key".into(),
        hint: "Cast them to the type of the shard key.",
    };
    let column = given.columns.get(divided.column);
    let column = column.filter(|column| !column.as_text);
    let type_oid = column.map(|column| column.type_oid);
    let type_oid = type_oid
        .filter(|oid| divided.fits(*oid))
        .ok_or_else(refused)?;
    let array = arrays.get(divided.column).ok_or(Failure::Retry)?;
    elements(array)
        .map(|key| {
            divided
                .shard(type_oid, key.value(), shards)
                .ok_or_else(refused)
        })
        .collect()
}

fn too_many() -> Failure {
    Failure::GivenLimit {
        what: "a query in it".into(),
        rows: MOST_ROWS,
        bytes: MOST_BYTES,
    }
}

fn cannot_be_given() -> Trouble {
    Failure::Unsupported {
        what: "a write of several shards with a query in it whose rows cannot be given to them".into(),
        hint: "Name its columns, of types that have names, or read the rows first and write by values.",
    }
    .into()
}
