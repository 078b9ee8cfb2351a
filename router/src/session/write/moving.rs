//! UPDATE of the shard key. Each shard updates its rows; those that belong to others then are deleted there and inserted where they belong,
//! all in one transaction.
//!
//! Others may not change or lock rows of the table meanwhile: who waits for a row that is updated finds it updated, on one server, and
//! would find it deleted here. What waits for the table sees the row where it is then.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::Format;
use switchyard_wire::backend::Message;
use switchyard_wire::frame::HEADER;

use crate::backend::Show;
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::load::store;
use crate::execute::participants::Need;
use crate::execute::relay::{Trouble, decode_message};
use crate::plan::Move;
use crate::session::Session;
use crate::session::workspace::columns;
use crate::session::workspace::fetch::Asked;
use crate::session::write::insert::{Inserted, Inserting};

/// So many rows are deleted by one statement.
const MOST_PLACES: usize = 10_000;

/// The places of rows, by the shard they are on and the table or partition they are in.
type Places = BTreeMap<(ShardIndex, String), Vec<String>>;

impl Session {
    /// Updates rows, in a block, which is there.
    pub(in crate::session) async fn move_rows(
        &mut self,
        of: &Move,
        asked: &Inserting<'_>,
    ) -> Result<Inserted, Trouble> {
        let count = self.database.shards.len();
        let (from, places) = asked.with_values(asked.sql, |values| {
            let places = of.places.shards(values, count);
            // A key that is not read with certainty may be any shard's.
            let places = places.unwrap_or_else(|_| ShardSet::all(count));
            (of.write.target.shards(values, count), places)
        })?;
        let from = from.map_err(Failure::Refused)?;
        let mut updated = Inserted {
            command: "UPDATE",
            ..Inserted::default()
        };
        let mut width = 0;
        if of.returns {
            let description = self.describe(asked.sql).await?;
            width = columns(&description).map_or(0, |columns| columns.len());
            // Of a portal this has been said.
            updated.description = asked.bound.is_none().then_some(description);
        }
        for shard in places.iter() {
            let index = self.settled(shard, asked).await?;
            match self.run_on(index, &of.lock()).await {
                Ok(false) => {}
                Ok(true) => return Err(self.failed_on(shard)),
                Err(Trouble::Lost) => return Err(self.lose(index, asked.plan)),
                Err(trouble) => return Err(trouble),
            }
        }
        let leaving = self
            .update_rows(of, asked, (&from, width), &mut updated)
            .await?;
        let arriving = self.take_rows_away(of, asked, leaving).await?;
        if let Some(block) = &mut self.block {
            block.moved_rows |= !arriving.is_empty();
        }
        // Before values arrive they have to have left.
        self.keep_unique(asked.plan).await?;
        for (shard, rows) in arriving {
            let index = self.settled(shard, asked).await?;
            let participant = self.participants.at(index)?;
            participant.note_run(asked.plan);
            let stored = store(
                &mut self.client,
                participant,
                &of.copy(),
                &rows,
                Show::Notices,
            )
            .await;
            match stored {
                Ok(stored) if stored == rows.len() as u64 => {}
                Ok(_) => return Err(Failure::Retry.into()),
                Err(Trouble::Told) => return Err(self.failed_on(shard)),
                Err(Trouble::Lost) => return Err(self.lose(index, asked.plan)),
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(updated)
    }

    /// A participant that owes nothing.
    pub(in crate::session) async fn settled(
        &mut self,
        shard: ShardIndex,
        asked: &Inserting<'_>,
    ) -> Result<usize, Trouble> {
        let index = self.join(shard, Need::Primary).await?;
        self.settle_one(index, asked.plan).await?;
        Ok(index)
    }

    /// What has been sent to a participant, if it is still there.
    pub(in crate::session) fn or_lost(
        &mut self,
        index: usize,
        asked: &Inserting<'_>,
        sent: Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        match sent {
            Err(Trouble::Lost) => Err(self.lose(index, asked.plan)),
            sent => sent,
        }
    }

    /// The client has been told an error of this shard.
    pub(in crate::session) fn failed_on(&mut self, shard: ShardIndex) -> Trouble {
        if let Some(block) = &mut self.block {
            block.failed.get_or_insert(FailedOn::Shard(shard));
        }
        Trouble::Told
    }

    /// Updates the rows where they are: the places of those that are not where they belong any more.
    async fn update_rows(
        &mut self,
        of: &Move,
        asked: &Inserting<'_>,
        (from, width): (&ShardSet, usize),
        updated: &mut Inserted,
    ) -> Result<Places, Trouble> {
        let mut own = Asked {
            sql: asked.sql,
            params: asked.bound.clone(),
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: asked.cancels,
        };
        let text = self.text_of_parts(&of.write, from, &mut own).await?;
        let is_own = text == asked.sql;
        let text = String::from_utf8(of.text(&text).ok_or(Failure::Retry)?);
        let text = text.map_err(|_| Failure::NotUtf8)?;
        let mut formats = asked.formats(width);
        formats.extend([Format::Text, Format::Text, Format::Binary]);
        let (mut leaving, mut returned) = (Places::new(), 0);
        for shard in from.iter() {
            let index = self.settled(shard, asked).await?;
            self.participants.at(index)?.note_run(asked.plan);
            let sent = self.ask(index, &text, &formats, &own).await;
            self.or_lost(index, asked, sent)?;
            let place = |position| is_own.then_some(position);
            let answer = self
                .rows_or_error(index, asked.plan, &mut returned, place)
                .await?;
            updated.count += answer.count;
            for message in answer.rows {
                let (shown, row) = divided(&message, width).ok_or(Failure::Retry)?;
                if place_of(of, row.key)? != shard {
                    let places = leaving.entry((shard, row.table)).or_default();
                    places.push(row.place);
                }
                if of.returns {
                    updated.rows.push(shown);
                }
            }
        }
        Ok(leaving)
    }

    /// Deletes rows at these places: what they are, by the shards they belong to.
    async fn take_rows_away(
        &mut self,
        of: &Move,
        asked: &Inserting<'_>,
        leaving: Places,
    ) -> Result<BTreeMap<ShardIndex, Vec<Bytes>>, Trouble> {
        let own = Asked {
            sql: asked.sql,
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: asked.cancels,
        };
        let mut arriving: BTreeMap<ShardIndex, Vec<Bytes>> = BTreeMap::new();
        let mut returned = 0;
        for ((shard, table), places) in &leaving {
            let index = self.settled(*shard, asked).await?;
            for some in places.chunks(MOST_PLACES) {
                let query = of.take(table, some);
                let sent = self.ask(index, &query, &[Format::Binary], &own).await;
                self.or_lost(index, asked, sent)?;
                let answer = self
                    .rows_or_error(index, asked.plan, &mut returned, |_| None)
                    .await?;
                if answer.rows.len() != some.len() {
                    return Err(Failure::Retry.into());
                }
                for message in answer.rows {
                    let Ok(Message::DataRow(row)) = decode_message(&message) else {
                        return Err(Failure::Retry.into());
                    };
                    let key = row.iter().nth(of.key()).ok_or(Failure::Retry)?;
                    let shard = place_of(of, key)?;
                    arriving
                        .entry(shard)
                        .or_default()
                        .push(message.slice(HEADER..));
                }
            }
        }
        Ok(arriving)
    }
}

/// What a row that has been updated says besides what is returned.
struct Updated<'a> {
    /// The number of the table or partition it is in.
    table: String,
    /// Its place there.
    place: String,
    /// Its key.
    key: Option<&'a [u8]>,
}

/// A whole message of a row: as the client sees it, with so many columns, and what stands behind them.
fn divided(message: &Bytes, width: usize) -> Option<(Bytes, Updated<'_>)> {
    let Ok(Message::DataRow(row)) = decode_message(message) else {
        return None;
    };
    let values: Vec<Option<&[u8]>> = row.iter().collect();
    let (shown, own) = values.split_at_checked(width)?;
    let [table, place, key] = own else {
        return None;
    };
    let text = |value: &Option<&[u8]>| Some(String::from_utf8_lossy((*value)?).into_owned());
    let updated = Updated {
        table: text(table)?,
        place: text(place)?,
        key: *key,
    };
    let mut first = BytesMut::with_capacity(message.len());
    let length: usize = shown
        .iter()
        .map(|value| 4 + value.map_or(0, <[u8]>::len))
        .sum();
    first.put_u8(b'D');
    first.put_i32(i32::try_from(length + 6).ok()?);
    first.put_i16(i16::try_from(width).ok()?);
    for value in shown {
        match value {
            Some(value) => {
                first.put_i32(i32::try_from(value.len()).ok()?);
                first.put_slice(value);
            }
            None => first.put_i32(-1),
        }
    }
    Some((first.freeze(), updated))
}

fn place_of(of: &Move, key: Option<&[u8]>) -> Result<ShardIndex, Failure> {
    of.shard(key).ok_or_else(|| Failure::Unsupported {
        what: "a row whose shard its key does not say".into(),
        hint: "Every key must have a shard.",
    })
}
