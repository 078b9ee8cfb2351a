//! INSERT of rows that belong to several shards: each shard is sent the client's own text with its rows only.

use switchyard_schema::{ShardIndex, ShardSet};

use super::analyse::Analysis;
use super::decide::stored_need;
use super::edits::Edits;
use super::parse;
use super::refusal::Refusal;
use super::route::{KeySet, Need, Values};
use super::rows::Rows;

/// An INSERT of a list of rows whose keys are known at binding.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The keys of the rows, in their order.
    pub need: Need,
    /// It has a RETURNING.
    pub returns: bool,
    /// Functions are called in its rows: some of them PostgreSQL lets stand in a single row only.
    pub calls: bool,
}

/// What a shard is sent.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardIndex,
    /// From the client's text to the shard's.
    edits: Edits,
}

impl Part {
    /// The shard's text, of the client's.
    pub(crate) fn text(&self, sql: &[u8]) -> Vec<u8> {
        self.edits.apply(sql)
    }

    /// Where in the client's text a character of the shard's comes from, both counted from 1.
    pub(crate) fn origin(&self, sql: &[u8], position: usize) -> Option<usize> {
        self.edits.origin(sql, position)
    }
}

/// The INSERT, if its rows may be stored on several shards; else the reason why not.
pub(super) fn insert(analysis: &Analysis) -> Option<Result<Insert, Refusal>> {
    let rows = analysis.inserted.as_ref()?;
    let [stored] = analysis.stored.as_slice() else {
        return None;
    };
    let elsewhere = !analysis.instances.is_empty()
        || analysis.reads_views.is_some()
        || analysis.first_shard.is_some()
        || analysis.temporary
        || analysis.catalog
        || !analysis.settings.is_empty();
    if elsewhere || rows.ragged {
        return None;
    }
    let need = stored_need(analysis, stored);
    if !matches!(need.keys, KeySet::AnyOf(_)) {
        return None;
    }
    let moment = analysis.varies.as_ref().filter(|_| analysis.moments);
    if let Some(reason) = analysis.merge.as_ref().or(moment) {
        return Some(Err(reason.clone()));
    }
    Some(Ok(Insert {
        need,
        returns: rows.returns,
        calls: rows.calls,
    }))
}

impl Insert {
    /// The shard of each row.
    pub(crate) fn shards(&self, values: &Values<'_>) -> Result<Vec<ShardIndex>, Box<Refusal>> {
        self.need.shard_of_rows(values)
    }

    /// What each shard is sent, in the order of their first rows, if the text has rows on these shards.
    pub(crate) fn parts(sql: &[u8], shards: &[ShardIndex]) -> Option<Vec<Part>> {
        let end = u32::try_from(sql.len()).ok()?;
        let tokens = parse::tokens(sql, 0..end).ok()?;
        let rows = Rows::of(sql, &tokens).filter(|rows| rows.len() == shards.len())?;
        let mut all = ShardSet::empty();
        let mut parts = Vec::new();
        for shard in shards {
            if all.contains(*shard) {
                continue;
            }
            all.insert(*shard);
            parts.push(Part {
                shard: *shard,
                edits: rows.only(&tokens, |row| shards.get(row) == Some(shard)),
            });
        }
        Some(parts)
    }

    /// The parameters it looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params = Vec::new();
        self.need.keys.params(&mut params);
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        512 + self.need.keys.size()
    }
}
