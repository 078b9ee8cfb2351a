//! Fetching rows that are few, to be given to a statement by parameters.

use bytes::Buf;
use switchyard_schema::ShardSet;
use switchyard_wire::Format;
use switchyard_wire::frame::HEADER;

use crate::backend::Show;
use crate::execute::arrays::{Arrays, NotTaken};
use crate::execute::messages::{Said, next, violation};
use crate::execute::relay::Trouble;
use crate::plan::Plan;
use crate::plan::given::Given;
use crate::session::Session;
use crate::session::extended::portable;
use crate::session::read::keep::{Steady, is_outdated};
use crate::session::workspace::columns;
use crate::session::workspace::fetch::Asked;

/// What comes of fetching rows that should be few.
pub(in crate::session) enum FewRows {
    All(Arrays),
    TooMany,
    /// Their types are not those that were expected.
    OfOtherTypes,
    /// A shard has failed, and the client was told.
    Failed {
        /// It could plan the query.
        planned: bool,
    },
}

impl Session {
    /// The rows that a query of ours has on these shards, if they are few and of the types given: values of other modifiers would be
    /// changed by theirs.
    pub(in crate::session) async fn few_rows(
        &mut self,
        given: &Given,
        shards: &ShardSet,
        query: &str,
        asked: &Asked<'_>,
    ) -> Result<FewRows, Trouble> {
        self.few_rows_of(given, shards, (query, None), asked).await
    }

    /// The same, of a query of this plan that comes again and again.
    pub(in crate::session) async fn few_rows_again(
        &mut self,
        given: &Given,
        shards: &ShardSet,
        (query, plan): (&str, &Plan),
        asked: &Asked<'_>,
    ) -> Result<FewRows, Trouble> {
        let Some(steady) = asked.steady(plan, query.as_bytes()) else {
            return self.few_rows(given, shards, query, asked).await;
        };
        let before = self.client.output.len();
        let kept = (query, Some(&steady));
        let few = self.few_rows_of(given, shards, kept, asked).await?;
        let said = self.client.output.get(before..).unwrap_or_default();
        let failed = matches!(few, FewRows::Failed { planned: false });
        if !failed || !is_outdated(said) {
            return Ok(few);
        }
        self.client.output.truncate(before);
        self.drop_unread().await;
        self.distrust_kept();
        self.few_rows(given, shards, query, asked).await
    }

    async fn few_rows_of(
        &mut self,
        given: &Given,
        shards: &ShardSet,
        query: (&str, Option<&Steady<'_>>),
        asked: &Asked<'_>,
    ) -> Result<FewRows, Trouble> {
        let mut sources = Vec::with_capacity(shards.len());
        for shard in shards.iter() {
            let index = self.join(shard, asked.need).await?;
            self.ask_steady(index, query, &[Format::Binary], asked)
                .await?;
            sources.push(index);
        }
        let mut few = FewRows::All(Arrays::new(given.types().map(|(oid, _)| oid)));
        for index in sources {
            few = self.take_rows(index, given, few).await?;
            if matches!(few, FewRows::Failed { .. }) {
                return Ok(few);
            }
        }
        if let FewRows::All(arrays) = &few {
            let counters = &self.client.counters;
            counters.fetched(arrays.rows().into(), arrays.bytes() as u64);
        }
        Ok(few)
    }

    /// Takes one shard's rows. They are read to their end, also where they are of no use.
    pub(in crate::session) async fn take_rows(
        &mut self,
        index: usize,
        given: &Given,
        mut few: FewRows,
    ) -> Result<FewRows, Trouble> {
        let (client, source, _) = self.exchanging(index)?;
        let (mut failed, mut planned) = (false, false);
        loop {
            match next(client, source, Show::All).await? {
                Said::Message(header) => {
                    let input = &mut source.connection.input;
                    let message = input.get(..header.len).unwrap_or_default();
                    let taken = match (header.tag, &mut few) {
                        (b'D', FewRows::All(arrays)) => {
                            arrays.push(message.get(HEADER..).unwrap_or_default())
                        }
                        (b'T', FewRows::All(_)) if !is_of_types(message, given) => {
                            few = FewRows::OfOtherTypes;
                            Ok(())
                        }
                        _ => Ok(()),
                    };
                    planned |= header.tag == b'2';
                    match taken {
                        Ok(()) => {}
                        Err(NotTaken::Full) => few = FewRows::TooMany,
                        Err(NotTaken::Unreadable) => {
                            return Err(violation(source, Some(header.tag)));
                        }
                    }
                    source.connection.input.advance(header.len);
                }
                Said::Error => failed = true,
                Said::Ready => {
                    source.unread = false;
                    return Ok(match failed {
                        true => FewRows::Failed { planned },
                        false => few,
                    });
                }
            }
        }
    }
}

/// Whether a RowDescription is one of rows as they are to be given.
fn is_of_types(description: &[u8], given: &Given) -> bool {
    columns(description).is_some_and(|columns| {
        // Types that users have made have another number on each server.
        let on_any = |(oid, modifier): (u32, i32)| (portable(oid), modifier);
        let types = columns.iter().map(|own| (own.type_oid, own.type_modifier));
        types.map(on_any).eq(given.types().map(on_any))
    })
}
