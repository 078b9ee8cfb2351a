//! The state of one COPY FROM STDIN over several shards.

use bytes::BytesMut;
use switchyard_schema::ShardIndex;

use super::given_values::GivenValues;
use super::transcode::Transcoding;
use crate::backend::Show;
use crate::copy_in::Distributor;
use crate::execute::participants::Need;
use crate::plan::{CopiedRows, CopyIn, Plan};

/// One COPY over several shards.
pub(super) struct Copying<'a> {
    pub(super) copy: &'a CopyIn,
    pub(super) plan: &'a Plan,
    pub(super) need: Need,
    /// What shards are sent.
    pub(super) sql: &'a [u8],
    pub(super) rows: Distributor,
    /// Where values come from that the client leaves out.
    pub(super) values: Option<GivenValues>,
    /// Where rows are converted.
    pub(super) transcoding: Option<Transcoding>,
    /// By shard.
    pub(super) parts: Vec<Part>,
    /// The shard that is asked first.
    pub(super) first: ShardIndex,
    pub(super) failed: Option<Failed>,
}

/// One shard's part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// The participant, once it has been asked.
    pub(super) index: Option<usize>,
    /// It takes rows.
    pub(super) open: bool,
    /// It has not said yet that it is ready for a query.
    pub(super) busy: bool,
    pub(super) rows: u64,
}

/// What the client is told of what went wrong on shards.
pub(super) struct Failed {
    /// The line of the input; none: all lines were read.
    pub(super) line: u64,
    pub(super) said: BytesMut,
}

impl Copying<'_> {
    pub(super) fn part(&self, shard: ShardIndex) -> Part {
        self.parts
            .get(shard.position())
            .copied()
            .unwrap_or_default()
    }

    /// What the client sees of what a shard says: copies of a reference table say the same.
    pub(super) fn show(&self, shard: ShardIndex) -> Show {
        let is_copy = matches!(self.copy.rows, CopiedRows::Everywhere) && shard != self.first;
        if is_copy { Show::Errors } else { Show::All }
    }

    /// The participants that have not finished.
    pub(super) fn busy(&self) -> Vec<usize> {
        let busy = self.parts.iter().filter(|part| part.busy);
        busy.filter_map(|part| part.index).collect()
    }

    /// The most bytes that wait to be sent to one shard.
    pub(super) fn waiting(&mut self) -> usize {
        let lanes = self.rows.lanes().iter();
        lanes.map(|lane| lane.output.len()).max().unwrap_or(0)
    }

    /// Ends what shards are sent that still take rows.
    pub(super) fn close(&mut self, end: impl Fn(&mut BytesMut)) {
        let lanes = self.rows.lanes().iter_mut();
        for (part, lane) in self.parts.iter_mut().zip(lanes) {
            if std::mem::take(&mut part.open) {
                end(&mut lane.output);
            }
        }
    }
}
