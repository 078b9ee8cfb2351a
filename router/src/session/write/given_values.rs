//! Values that the rows of a COPY are given: those of sequences, and of the moment, in columns that the client leaves out.
//!
//! They come from a connection apart, for the first shard, whose sequences are everybody's, takes rows meanwhile: the values of all rows that
//! have come are one query's.

use bytes::{BufMut, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::frame::HEADER;

use crate::copy_in;
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::moment::Clock;
use crate::plan::{AddedColumn, CopiedRows, CopyIn, Plan};
use crate::session::Session;
use crate::session::workspace::fetch::Asked;

/// Where values of rows come from.
pub(in crate::session) struct GivenValues {
    workspace: Workspace,
    clock: Option<Clock>,
}

/// The values of rows, column by column.
pub(in crate::session) type Values = Vec<Vec<Option<Vec<u8>>>>;

impl Session {
    /// Opens what gives values to the rows of this COPY, if they need any. The session is in a block.
    pub(in crate::session) async fn open_values(
        &mut self,
        (copy, plan): (&CopyIn, &Plan),
        cancels: u64,
    ) -> Result<Option<GivenValues>, Trouble> {
        let added = copy.added();
        if added.is_empty() {
            return Ok(None);
        }
        if self.is_in_the_way() {
            let what = "COPY that leaves such columns out, in a transaction that has changed the schema or locked tables";
            let hint = "Commit first, or copy values into all columns.";
            let what = what.into();
            return Err(Failure::Unsupported { what, hint }.into());
        }
        let backend = self.take_workspace(ShardIndex::FIRST).await?;
        let mut workspace = Workspace::new(backend, 0);
        if added.iter().any(|column| column.takes_next) {
            self.take_sequences_apart(&mut workspace, &plan.sequences);
        }
        let opened = self.open_for(added, &mut workspace).await;
        let opened = opened.and_then(|clock| self.not_cancelled(cancels).map(|()| clock));
        match opened {
            Ok(clock) => Ok(Some(GivenValues { workspace, clock })),
            Err(trouble) => self.leave_workspace(workspace, Err(trouble)).await,
        }
    }

    async fn open_for(
        &mut self,
        added: &[AddedColumn],
        workspace: &mut Workspace,
    ) -> Result<Option<Clock>, Trouble> {
        self.open_workspace(workspace, &[], "").await?;
        if added.iter().any(|column| column.takes_next) {
            self.join_sequences_apart().await?;
        }
        match added.iter().all(|column| column.takes_next) {
            true => Ok(None),
            false => Ok(Some(self.clock(ShardIndex::FIRST).await?)),
        }
    }

    /// The values of so many rows, in their order.
    pub(in crate::session) async fn values_for(
        &mut self,
        rows: usize,
        given: &mut GivenValues,
        copy: &CopyIn,
    ) -> Result<Values, Trouble> {
        let CopiedRows::Keyed(format, ..) = &copy.rows else {
            return Err(Failure::Retry.into());
        };
        let query = copy.values(rows, format, given.clock.as_ref());
        let results = match format {
            copy_in::Format::Binary => Format::Binary,
            copy_in::Format::Text(_) | copy_in::Format::Csv(_) => Format::Text,
        };
        let own = Asked {
            sql: query.as_bytes(),
            params: None,
            given: GivenRows::default(),
            need: Need::Primary,
            cancels: 0,
        };
        let messages = |output: &mut BytesMut| own.encode(output, query.as_bytes(), &[results]);
        let workspace = &mut given.workspace;
        let values = workspace.rows(&mut self.client, messages).await;
        match values {
            Err(Trouble::Told) => {
                if let Some(block) = &mut self.block {
                    block
                        .failed
                        .get_or_insert(FailedOn::Shard(ShardIndex::FIRST));
                }
                Err(Trouble::Told)
            }
            Err(Trouble::Lost) => Err(self.lost_with_rows(Some(&workspace.backend)).into()),
            values => values,
        }
    }

    /// No more values are needed.
    pub(in crate::session) async fn close_values(&mut self, given: GivenValues) {
        self.give_back_workspace(given.workspace).await;
    }
}

/// A CopyInResponse without so many columns, which the client does not send.
pub(in crate::session) fn without_columns(response: &[u8], added: usize) -> Option<BytesMut> {
    let body = response.get(HEADER..)?;
    let (format, rest) = body.split_first()?;
    let (count, formats) = rest.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count)).checked_sub(added)?;
    let formats = formats.get(..2 * count)?;
    let mut output = BytesMut::with_capacity(response.len());
    output.put_u8(b'G');
    output.put_u32(u32::try_from(4 + 1 + 2 + formats.len()).ok()?);
    output.put_u8(*format);
    output.put_u16(u16::try_from(count).ok()?);
    output.put_slice(formats);
    Some(output)
}
