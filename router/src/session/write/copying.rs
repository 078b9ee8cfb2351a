//! The state of one COPY FROM STDIN over several shards.

use bytes::BytesMut;
use switchyard_schema::ShardIndex;

use crate::backend::Show;
use crate::copy_in::Distributor;
use crate::execute::participants::Need;
use crate::plan::{CopiedRows, CopyIn, Plan};
use crate::session::write::given_values::GivenValues;
use crate::session::write::transcode::Transcoding;

/// One COPY over several shards.
pub(in crate::session) struct Copying<'a> {
    pub(in crate::session) copy: &'a CopyIn,
    pub(in crate::session) plan: &'a Plan,
    pub(in crate::session) need: Need,
    /// What shards are sent.
    pub(in crate::session) sql: &'a [u8],
    pub(in crate::session) rows: Distributor,
    /// Where values come from that the client leaves out.
    pub(in crate::session) values: Option<GivenValues>,
    /// Where rows are converted.
    pub(in crate::session) transcoding: Option<Transcoding>,
    /// By shard.
    pub(in crate::session) parts: Vec<Part>,
    /// The shard that is asked first.
    pub(in crate::session) first: ShardIndex,
    pub(in crate::session) failed: Option<Failed>,
}

/// One shard's part.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::session) struct Part {
    /// The participant, once it has been asked.
    pub(in crate::session) index: Option<usize>,
    /// It takes rows.
    pub(in crate::session) open: bool,
    /// It has not said yet that it is ready for a query.
    pub(in crate::session) busy: bool,
    pub(in crate::session) rows: u64,
}

/// What the client is told of what went wrong on shards.
pub(in crate::session) struct Failed {
    /// The line of the input; none: all lines were read.
    pub(in crate::session) line: u64,
    pub(in crate::session) said: BytesMut,
}

impl Copying<'_> {
    pub(in crate::session) fn part(&self, shard: ShardIndex) -> Part {
        self.parts
            .get(shard.position())
            .copied()
            .unwrap_or_default()
    }

    /// What the client sees of what a shard says: copies of a reference table say the same.
    pub(in crate::session) fn show(&self, shard: ShardIndex) -> Show {
        let is_copy = matches!(self.copy.rows, CopiedRows::Everywhere) && shard != self.first;
        if is_copy { Show::Errors } else { Show::All }
    }

    /// The participants that have not finished.
    pub(in crate::session) fn busy(&self) -> Vec<usize> {
        let busy = self.parts.iter().filter(|part| part.busy);
        busy.filter_map(|part| part.index).collect()
    }

    /// The most bytes that wait to be sent to one shard.
    pub(in crate::session) fn waiting(&mut self) -> usize {
        let lanes = self.rows.lanes().iter();
        lanes.map(|lane| lane.output.len()).max().unwrap_or(0)
    }

    /// Ends what shards are sent that still take rows.
    pub(in crate::session) fn close(&mut self, end: impl Fn(&mut BytesMut)) {
        let lanes = self.rows.lanes().iter_mut();
        for (part, lane) in self.parts.iter_mut().zip(lanes) {
            if std::mem::take(&mut part.open) {
                end(&mut lane.output);
            }
        }
    }
}
