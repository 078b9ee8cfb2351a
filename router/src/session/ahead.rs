//! Queries inside a write of several shards that are computed before it: see [`crate::plan::ahead`].
//!
//! A query is answered by whatever answers the client's own, in the same transaction. PostgreSQL is asked once for each plan of what types
//! its columns are.

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_literal;
use switchyard_schema::{ShardIndex, ShardSet, TableName};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend;

use super::Session;
use super::fetch::Asked;
use super::workspace::columns;
use crate::execute::arrays::{Arrays, MOST_BYTES, MOST_ROWS, NotTaken, elements};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::ahead::{Ahead, Divided};
use crate::plan::given::Given;
use crate::plan::learned::{Part, Rows};
use crate::plan::moment::Clock;
use crate::relations::introspect::TEMPORARY_COLUMNS;

/// The rows of a query, as they come.
#[derive(Debug, Default)]
pub(super) struct Taking {
    description: Option<Bytes>,
    rows: Option<Arrays>,
    ended: bool,
    failed: Option<NotTaken>,
}

/// The rows of a query that has been computed.
pub(super) struct Computed {
    pub(super) given: Given,
    pub(super) arrays: Vec<Bytes>,
    /// The shard that each row is for, where not all need all.
    pub(super) shards: Option<Vec<ShardIndex>>,
}

impl Taking {
    /// Whether more rows are to come, and wanted.
    pub(super) fn goes_on(&self) -> bool {
        !self.ended && self.failed.is_none()
    }

    /// The rows, which are to be of these types (OID and modifier); `None` if they are too many.
    pub(super) fn arrays(
        self,
        types: impl Iterator<Item = (u32, i32)>,
    ) -> Result<Option<Vec<Bytes>>, Failure> {
        let own = self.description.as_deref().and_then(columns);
        let own = own.ok_or(Failure::Retry)?;
        let own = own
            .iter()
            .map(|column| (column.type_oid, column.type_modifier));
        match (self.failed, self.rows) {
            (Some(NotTaken::Full), _) => Ok(None),
            (None, Some(rows)) if own.eq(types) => Ok(Some(rows.finish())),
            (Some(NotTaken::Unreadable) | None, _) => Err(Failure::Retry),
        }
    }

    fn describe(&mut self, description: Bytes) {
        let types = columns(&description);
        let types = types.iter().flat_map(|columns| columns.iter());
        self.rows = Some(Arrays::new(types.map(|column| column.type_oid)));
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
    pub(super) async fn compute_ahead(
        &mut self,
        ahead: &Ahead,
        clock: Option<&Clock>,
        (asked, shards): (&Asked<'_>, &ShardSet),
    ) -> Result<Computed, Trouble> {
        let text = ahead.query(asked.sql, clock).ok_or(Failure::Retry)?;
        let taking = self.run_ahead(&text, asked).await?;
        match taking.failed {
            Some(NotTaken::Full) => {
                return Err(Failure::GivenLimit {
                    what: "a query in it".into(),
                    rows: MOST_ROWS,
                    bytes: MOST_BYTES,
                }
                .into());
            }
            Some(NotTaken::Unreadable) => return Err(Failure::Retry.into()),
            None => {}
        }
        let (Some(description), Some(rows)) = (taking.description, taking.rows) else {
            return Err(Failure::Retry.into());
        };
        let given = self.given_by(ahead, &text, &description, asked).await?;
        let arrays = rows.finish();
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

    /// Takes rows out of an answer; errors and notices are the client's.
    pub(super) fn take_said(&mut self, answer: BytesMut, taking: &mut Taking) {
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

    /// How rows of a query with this description are given.
    async fn given_by(
        &mut self,
        ahead: &Ahead,
        text: &[u8],
        description: &[u8],
        asked: &Asked<'_>,
    ) -> Result<Given, Trouble> {
        let columns = columns(description).ok_or(Failure::Retry)?;
        let types: Vec<(u32, i32)> = columns
            .iter()
            .map(|column| (column.type_oid, column.type_modifier))
            .collect();
        let names = columns.iter().map(|column| column.name);
        let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
        let names: Vec<String> = names.collect();
        let known = ahead.learned.given_rows();
        let known = known.and_then(|rows| rows.given.clone());
        if let Some(given) = known.filter(|given| given.types().eq(types.iter().copied())) {
            return Ok(given.named(&names));
        }
        if types.is_empty() {
            return Err(cannot_be_given());
        }
        let rows = self.types_of(text, (&names, &types), asked).await?;
        let given = rows.given.clone();
        ahead.learned.known().part = Some(Part::Rows(rows.into()));
        given.ok_or_else(cannot_be_given)
    }

    /// Asks PostgreSQL for the names and collations of the types of a query's columns.
    async fn types_of(
        &mut self,
        text: &[u8],
        (names, types): (&[String], &[(u32, i32)]),
        asked: &Asked<'_>,
    ) -> Result<Rows, Trouble> {
        if self.is_in_the_way() {
            let what = "a write by rows of several shards in a transaction that has changed the schema or locked tables";
            let (what, hint) = (what.into(), "Commit first.");
            return Err(Failure::Unsupported { what, hint }.into());
        }
        let backend = self.take_workspace(self.any_shard()).await?;
        let mut workspace = Workspace::new(backend, 0);
        let asking = self.ask_types(&mut workspace, text, types, asked).await;
        let lines = self.leave_workspace(workspace, asking).await?;
        let relation = TableName::new("", "switchyard rows");
        Ok(Rows::read((&relation, names), types, &lines).ok_or(Failure::Retry)?)
    }

    async fn ask_types(
        &mut self,
        workspace: &mut Workspace,
        text: &[u8],
        types: &[(u32, i32)],
        asked: &Asked<'_>,
    ) -> Result<Vec<String>, Trouble> {
        let table = "pg_temp.\"switchyard rows\"";
        self.open_workspace(workspace, &[], "").await?;
        let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let head = format!("CREATE TEMPORARY TABLE {table} ({}) AS ", names.join(", "));
        let creation = [head.as_bytes(), text, b" WITH NO DATA"].concat();
        let messages = |output: &mut BytesMut| {
            asked.encode_bind(output, &creation, b"", &[]);
            frontend::encode::execute(output, b"", 0);
            frontend::encode::sync(output);
        };
        workspace.send(&mut self.client, messages).await?;
        let modifiers: Vec<String> = types.iter().map(|(_, own)| own.to_string()).collect();
        let query = TEMPORARY_COLUMNS
            .replace("{modifiers}", &format!("'{{{}}}'", modifiers.join(",")))
            .replace("{table}", &escape_literal(table));
        workspace.lines(&mut self.client, &query).await
    }
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

fn cannot_be_given() -> Trouble {
    Failure::Unsupported {
        what: "a write of several shards with a query in it whose rows cannot be given to them".into(),
        hint: "Columns of types that users have made, or arrays, cannot be given: read the rows first, and write by values.",
    }
    .into()
}
