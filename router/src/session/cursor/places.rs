//! Where the rows are that a cursor has locked: found when it is declared, while nobody can have changed them, and kept beside them in
//! its workspace.
//!
//! A place is a shard, and what this shard's PostgreSQL calls the version of the row that is locked: table, file, and position in it.
//! From there PostgreSQL itself goes on to the row's latest version, whatever the transaction has made of it since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::backend::{Message, encode};

use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::messages::rows;
use crate::execute::relay::{Trouble, decode_message};
use crate::plan::Plan;
use crate::plan::lock::{Locked, Places};
use crate::session::Session;
use crate::session::workspace::fetch::Asked;

/// A row of one table: its shard and primary key.
type RowKey = (ShardIndex, Vec<String>);

impl Session {
    /// The query of a cursor with what says where its rows are; `Err` is why they cannot be found again.
    pub(in crate::session) async fn places_of(
        &mut self,
        query: &[u8],
        plan: &Plan,
    ) -> Result<Result<Places, String>, Trouble> {
        let places = match Places::of(query, &self.planning_context()) {
            Ok(places) => places,
            Err(why) => return Ok(Err(why)),
        };
        let need = self.need(plan.access, None);
        let index = self.join(ShardIndex::FIRST, need).await?;
        let may = self.ask_lines(index, &may_look(&places), plan).await?;
        match may.first().map(String::as_str) {
            Some("t") => Ok(Ok(places)),
            _ => Ok(Err(
                "It needs the privilege to read all of the table, without row security policies."
                    .into(),
            )),
        }
    }

    /// Puts the places of rows in the stead of what identifies them. These and what is made of them are whole DataRow messages.
    pub(in crate::session) async fn place_rows(
        &mut self,
        places: &Places,
        found: &[Bytes],
        plan: &Plan,
    ) -> Result<Vec<Bytes>, Trouble> {
        let rows: Option<Vec<_>> = found.iter().map(|row| values_of(row)).collect();
        let mut rows = rows.ok_or(Failure::Retry)?;
        let mut columns = Vec::with_capacity(places.tables.len());
        for table in places.tables.iter().rev() {
            let cut = |row: &mut Vec<Option<&[u8]>>| {
                let rest = row.len().saturating_sub(table.identity_width());
                key_of(table, &row.split_off(rest))
            };
            let keys: Vec<Option<RowKey>> = rows.iter_mut().map(cut).collect();
            let known = self.find_places(table, &keys, plan).await?;
            let place = |key: &Option<RowKey>| known.get(key.as_ref()?).cloned();
            columns.push(keys.iter().map(place).collect::<Vec<_>>());
        }
        let mut placed = Vec::with_capacity(rows.len());
        for (at, mut row) in rows.into_iter().enumerate() {
            let own = columns.iter().rev().filter_map(|column| column.get(at));
            row.extend(own.map(|place| place.as_ref().map(String::as_bytes)));
            let mut message = BytesMut::new();
            encode::data_row(&mut message, &row);
            placed.push(message.freeze());
        }
        Ok(placed)
    }

    /// Asks the shards for the places of rows of one table. A row whose key does not come back as it was has none.
    async fn find_places(
        &mut self,
        table: &Locked,
        keys: &[Option<RowKey>],
        plan: &Plan,
    ) -> Result<HashMap<RowKey, String>, Trouble> {
        let mut by_shard: BTreeMap<ShardIndex, BTreeSet<Vec<&str>>> = BTreeMap::new();
        for (shard, key) in keys.iter().flatten() {
            let key = key.iter().map(String::as_str).collect();
            by_shard.entry(*shard).or_default().insert(key);
        }
        let mut places = HashMap::new();
        for (shard, keys) in by_shard {
            let keys: Vec<&[&str]> = keys.iter().map(Vec::as_slice).collect();
            let query = table.query_places(&keys);
            for row in self.rows_of_places(shard, &query, plan).await? {
                let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
                let mut row = row.into_iter().flatten().map(text);
                if let Some(place) = row.next() {
                    places.insert((shard, row.collect()), format!("{} {place}", shard.0));
                }
            }
        }
        Ok(places)
    }

    async fn rows_of_places(
        &mut self,
        shard: ShardIndex,
        query: &str,
        plan: &Plan,
    ) -> Result<Vec<Vec<Option<Vec<u8>>>>, Trouble> {
        let need = self.need(plan.access, None);
        let index = self.join(shard, need).await?;
        self.participants.at(index)?.note_run(plan);
        let own = Asked {
            sql: query.as_bytes(),
            params: None,
            given: GivenRows::default(),
            need,
            cancels: self.cancel.slot().requests(),
        };
        self.ask(index, query, &[Format::Text], &own).await?;
        let (client, source, _) = self.exchanging(index)?;
        let found = rows(client, source).await;
        let told = matches!(&found, Err(Trouble::Told));
        source.unread = found.is_err() && !told;
        if let (true, Some(block)) = (told, &mut self.block) {
            block.failed.get_or_insert(FailedOn::Shard(shard));
        }
        found
    }
}

/// The query whether this session may look for rows where they are: what is not shown to it, it would not find.
fn may_look(places: &Places) -> String {
    let names = places.tables.iter().map(|table| {
        let name = escape_literal(&table.name());
        format!("{name}::pg_catalog.regclass")
    });
    let names: Vec<String> = names.collect();
    format!(
        "SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(oid, 'SELECT') AND NOT relrowsecurity) FROM pg_catalog.pg_class WHERE oid IN ({})",
        names.join(", ")
    )
}

fn values_of(message: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    match decode_message(message) {
        Ok(Message::DataRow(row)) => Some(row.iter().collect()),
        _ => None,
    }
}

/// The row that these values identify; `None` if they do not say on which shard it is.
fn key_of(table: &Locked, values: &[Option<&[u8]>]) -> Option<RowKey> {
    let (of, key) = values.split_first()?;
    let of = match of {
        Some(value) => Some(std::str::from_utf8(value).ok()?),
        None => None,
    };
    let text = |value: &Option<&[u8]>| Some(std::str::from_utf8((*value)?).ok()?.to_owned());
    let key: Option<Vec<String>> = key.iter().map(text).collect();
    Some((table.shard(of)?, key?))
}
