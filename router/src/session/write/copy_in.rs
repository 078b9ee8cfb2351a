//! COPY FROM STDIN into a table of several shards: each row goes to its shard, the shards store theirs at a time.
//!
//! The statement goes to one shard first, which judges it; the others join with their first rows. All is one transaction. What goes wrong
//! on a shard is told with the line of the client's input.

use bytes::{Buf, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend;

use crate::backend::Show;
use crate::copy_in::{Distributor, Format, Reason};
use crate::execute::copy_in::{Woken, copied_lines, flow, is_error};
use crate::execute::failure::Failure;
use crate::execute::messages::{Said, next, next_now, violation};
use crate::execute::relay::{Trouble, client_gone, exchange};
use crate::plan::{CopiedRows, CopyIn, Refusal};
use crate::session::Session;
use crate::session::read::copy::rows_of;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::write::copying::{Copying, Failed, Part};
use crate::session::write::given_values::without_columns;
use crate::session::write::transcode::in_line;

/// A shard gets no more rows while so many bytes wait to be sent there.
const WAITING_LIMIT: usize = 512 << 10;
/// What shards are told whose rows are of no use any more.
const GIVEN_UP: &[u8] = b"another shard failed";

/// What the client has sent.
enum Input {
    Data,
    Done,
    /// CopyFail, with the reason.
    Fail(BytesMut),
}

impl Session {
    /// Copies the client's rows into the table. Outside a block the statement is a transaction of its own.
    pub(in crate::session) async fn copy_in(
        &mut self,
        copy: &CopyIn,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let implicit = self.begin_implicit();
        let rows = self.copy_rows(copy, routed, sent.sql()).await?;
        if implicit {
            self.commit_implicit().await?;
        }
        self.complete(&format!("COPY {rows}"))
    }

    /// Copies the client's rows in the block, which is there; their number. What goes wrong fails the block.
    pub(in crate::session) async fn copy_rows(
        &mut self,
        copy: &CopyIn,
        routed: &Routed,
        sql: &[u8],
    ) -> Result<u64, Trouble> {
        let shards = self.database.shards.len();
        let cancels = self.cancel.slot().requests();
        let text = copy.text(sql).ok_or(Failure::Retry)?;
        let mut copying = Copying {
            copy,
            plan: &routed.plan,
            need: self.need(routed.plan.access, routed.hint),
            sql: &text,
            rows: Distributor::everywhere(shards),
            values: None,
            transcoding: None,
            parts: vec![Part::default(); shards],
            first: self.any_shard(),
            failed: None,
        };
        let opened = Box::pin(self.open_apart(&mut copying, cancels)).await;
        let copied = match opened {
            Ok(()) => self.copy_all(&mut copying).await,
            Err(trouble) => Err(trouble),
        };
        if let Some(values) = copying.values.take() {
            Box::pin(self.close_values(values)).await;
        }
        if let Some(transcoding) = copying.transcoding.take() {
            Box::pin(self.close_transcoding(transcoding)).await;
        }
        let Err(trouble) = copied else {
            let rows = self.copied_rows(&copying).await?;
            self.keep_unique(&routed.plan).await?;
            return Ok(rows);
        };
        // What is still in a COPY would take a query for a breach of the protocol.
        if let Trouble::Gone | Trouble::Protocol(_) = trouble {
            for index in copying.busy() {
                if let Some(held) = self.participants.get_mut(index) {
                    held.connection.broken = true;
                }
            }
            return Err(trouble);
        }
        self.give_up_copying(&mut copying).await;
        self.abandon_rows(None).await;
        match (copying.failed, trouble) {
            (Some(failed), Trouble::Told) => {
                self.client.output.extend_from_slice(&failed.said);
                Err(Trouble::Told)
            }
            (_, trouble) => Err(trouble),
        }
    }

    /// Opens the connections apart that the rows need.
    async fn open_apart(&mut self, copying: &mut Copying<'_>, cancels: u64) -> Result<(), Trouble> {
        let copy = copying.copy;
        copying.values = self.open_values((copy, copying.plan), cancels).await?;
        copying.transcoding = self.open_transcoding(copy, cancels).await?;
        Ok(())
    }

    /// The number of rows that have been copied; of a reference table, on each shard.
    async fn copied_rows(&mut self, copying: &Copying<'_>) -> Result<u64, Trouble> {
        for index in copying.parts.iter().filter_map(|part| part.index) {
            if let Some(after) = self.note_statement(index, copying.plan) {
                self.after_statement(after).await?;
            }
        }
        let mut rows = copying.parts.iter().map(|part| part.rows);
        let CopiedRows::Everywhere = copying.copy.rows else {
            return Ok(rows.sum());
        };
        let first = rows.next().unwrap_or_default();
        match copying.parts.iter().position(|part| part.rows != first) {
            None => Ok(first),
            Some(position) => {
                let shard = ShardIndex(u16::try_from(position).unwrap_or_default());
                self.note_abandoned();
                let shard = self.shard_name(shard);
                Err(Failure::CopiesDiffer { shard }.into())
            }
        }
    }

    async fn copy_all(&mut self, copying: &mut Copying<'_>) -> Result<(), Trouble> {
        self.begin_part(copying, copying.first).await?;
        let response = self.copy_response(copying).await?;
        let shards = copying.parts.len();
        match &copying.copy.rows {
            CopiedRows::Untold(refusal) => return Err(Failure::Refused(refusal.clone()).into()),
            CopiedRows::Everywhere => {
                for shard in 0..shards {
                    let shard = ShardIndex(u16::try_from(shard).unwrap_or_default());
                    self.begin_part(copying, shard).await?;
                }
            }
            CopiedRows::Keyed(format, key, added) => {
                let format = self.as_server_reads(copying, format)?;
                let rows = Distributor::by_key(&format, key.clone(), shards);
                let names = added.iter().map(|column| column.name.to_string());
                copying.rows = match added.is_empty() {
                    true => rows,
                    false => rows.adding(&format, names.collect()),
                };
            }
        }
        let response = without_columns(&response, copying.copy.added().len());
        let response = response.ok_or(Failure::Retry)?;
        self.client.output.extend_from_slice(&response);
        self.client.release();
        self.client.flush().await.map_err(client_gone)?;
        // It may have said more at once: that it takes none after all.
        self.hear_part(copying, copying.first)?;
        self.divide_input(copying).await?;
        self.end_parts(copying).await
    }

    /// The options as the server's version understands them.
    fn as_server_reads(
        &mut self,
        copying: &Copying<'_>,
        format: &Format,
    ) -> Result<Format, Trouble> {
        let index = copying.part(copying.first).index.ok_or(Failure::Retry)?;
        let mut parameters = self.participants.at(index)?.connection.parameters();
        let version = parameters.find(|(name, _)| *name == "server_version");
        let version = version.map_or("", |(_, version)| version);
        let digits = version.bytes().take_while(u8::is_ascii_digit).count();
        let major = version.get(..digits).and_then(|major| major.parse().ok());
        let mut format = format.clone();
        if let Format::Csv(options) = &mut format {
            // Since version 18 the end of the data is the protocol's alone.
            options.ends_with_marker = major.is_none_or(|major: u32| major < 18);
        }
        Ok(format)
    }

    /// A shard joins, and is sent the statement.
    async fn begin_part(
        &mut self,
        copying: &mut Copying<'_>,
        shard: ShardIndex,
    ) -> Result<(), Trouble> {
        if copying.part(shard).index.is_some() {
            return Ok(());
        }
        let index = self.join(shard, copying.need).await?;
        self.prepare_state(index, copying.plan)?;
        let (client, participant, described) = self.exchanging(index)?;
        // What was queued when it joined is answered first.
        match exchange(client, participant, &[], described).await {
            Ok(false) => {}
            Ok(true) => return Err(Trouble::Told),
            Err(Trouble::Lost) => {
                participant.connection.broken = true;
                return Err(self.lost_at(index, copying.plan));
            }
            Err(trouble) => return Err(trouble),
        }
        participant.note_run(copying.plan);
        participant.connection.unnamed = None;
        participant.unread = true;
        frontend::encode::query(&mut participant.connection.output, copying.sql);
        copying.parts[shard.position()] = Part {
            index: Some(index),
            open: true,
            busy: true,
            rows: 0,
        };
        match participant.connection.flush().await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lost_part(copying, shard)),
        }
    }

    /// What the shard that is asked first says to the statement: CopyInResponse, for the client.
    async fn copy_response(&mut self, copying: &mut Copying<'_>) -> Result<BytesMut, Trouble> {
        let shard = copying.first;
        let index = copying.part(shard).index.ok_or(Failure::Retry)?;
        let (client, participant, _) = self.exchanging(index)?;
        loop {
            match next(client, participant, Show::All).await {
                Ok(Said::Message(header)) if header.tag == b'G' => {
                    return Ok(participant.connection.input.split_to(header.len));
                }
                Ok(Said::Message(header)) => return Err(violation(participant, Some(header.tag))),
                // It has been shown.
                Ok(Said::Error) => copying.parts[shard.position()].open = false,
                Ok(Said::Ready) => {
                    participant.unread = false;
                    copying.parts[shard.position()].busy = false;
                    return Err(Trouble::Told);
                }
                Err(Trouble::Lost) => return Err(self.lost_part(copying, shard)),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Divides what the client sends, until it ends.
    async fn divide_input(&mut self, copying: &mut Copying<'_>) -> Result<(), Trouble> {
        loop {
            let input = self.take_copy_data(copying)?;
            let last = matches!(input, Some(Input::Done));
            let wrong = self.convert_input(copying, last).await?;
            self.give_values(copying, last).await?;
            copying.rows.divide(last && wrong.is_none());
            self.begin_parts(copying).await?;
            if copying.rows.astray().is_some() {
                return self.ask_what_is_wrong(copying).await;
            }
            if let Some(said) = wrong.filter(|_| !copying.rows.has_ended()) {
                return self.fail_in_line(copying, &said).await;
            }
            match input {
                Some(Input::Done) => return Ok(()),
                Some(Input::Fail(reason)) => return self.fail_parts(copying, &reason).await,
                Some(Input::Data) | None => {}
            }
            let wants_input = copying.waiting() < WAITING_LIMIT;
            self.let_flow(copying, wants_input).await?;
        }
    }

    /// Converts what has come, if its encoding is another one than the servers'; what PostgreSQL says of a line that it cannot convert.
    async fn convert_input(
        &mut self,
        copying: &mut Copying<'_>,
        last: bool,
    ) -> Result<Option<BytesMut>, Trouble> {
        let Some(transcoding) = &mut copying.transcoding else {
            return Ok(None);
        };
        let converted = Box::pin(self.transcode(transcoding, last)).await?;
        copying.rows.add(&converted.rows);
        Ok(converted.wrong)
    }

    /// A line cannot be converted. What is wrong with rows before it comes first.
    async fn fail_in_line(
        &mut self,
        copying: &mut Copying<'_>,
        said: &[u8],
    ) -> Result<(), Trouble> {
        self.end_parts(copying).await?;
        let line = copying.rows.lines() + copying.rows.lines_begun() + 1;
        let said = in_line(said, &copying.copy.table, line)?;
        copying.failed = Some(Failed { line, said });
        Err(Trouble::Told)
    }

    /// Has values for all rows that have come, where the client leaves some out.
    async fn give_values(&mut self, copying: &mut Copying<'_>, last: bool) -> Result<(), Trouble> {
        let Some(values) = &mut copying.values else {
            return Ok(());
        };
        let wanted = copying.rows.wants(last);
        if wanted > 0 {
            let given = Box::pin(self.values_for(wanted, values, copying.copy)).await?;
            given.into_iter().for_each(|row| copying.rows.give(row));
        }
        Ok(())
    }

    /// Takes the messages that the client has sent whole, up to the end of its data. `None`: there are none.
    fn take_copy_data(&mut self, copying: &mut Copying<'_>) -> Result<Option<Input>, Trouble> {
        let input = &mut self.client.input;
        let mut taken = None;
        loop {
            let header = frame::header(input)
                .map_err(|error| Trouble::Protocol(error.to_string().into()))?;
            let Some(header) = header.filter(|header| input.len() >= header.len) else {
                return Ok(taken);
            };
            match header.tag {
                b'd' => {
                    let body = input.get(HEADER..header.len).unwrap_or_default();
                    match &mut copying.transcoding {
                        Some(transcoding) => transcoding.add(body),
                        None => copying.rows.add(body),
                    }
                    taken = Some(Input::Data);
                    input.advance(header.len);
                }
                b'c' => {
                    input.advance(header.len);
                    return Ok(Some(Input::Done));
                }
                b'f' => {
                    let mut reason = input.split_to(header.len);
                    reason.advance(HEADER);
                    return Ok(Some(Input::Fail(reason)));
                }
                // Flush and Sync mean nothing here.
                b'H' | b'S' => input.advance(header.len),
                tag => {
                    let reason =
                        format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                    return Err(Trouble::Protocol(reason.into()));
                }
            }
        }
    }

    /// The shards that have got their first rows join.
    async fn begin_parts(&mut self, copying: &mut Copying<'_>) -> Result<(), Trouble> {
        for position in 0..copying.parts.len() {
            let used = copying
                .rows
                .lanes()
                .get(position)
                .is_some_and(|lane| lane.used);
            if used && copying.parts[position].index.is_none() {
                let shard = ShardIndex(u16::try_from(position).map_err(|_| Failure::Retry)?);
                self.begin_part(copying, shard).await?;
            }
        }
        Ok(())
    }

    /// Moves bytes until the client has sent something, or a shard has said something or taken some of its rows.
    async fn let_flow(
        &mut self,
        copying: &mut Copying<'_>,
        wants_input: bool,
    ) -> Result<(), Trouble> {
        let indexes: Vec<Option<usize>> = copying
            .parts
            .iter()
            .map(|part| part.index.filter(|_| part.busy))
            .collect();
        // Notices of shards are not kept back.
        if !self.client.output.is_empty() {
            self.client.flush().await.map_err(client_gone)?;
        }
        let Self {
            client,
            participants,
            ..
        } = self;
        let lanes = copying.rows.lanes();
        match flow(client, participants, (&indexes, lanes), wants_input).await? {
            Woken::Client | Woken::Written => Ok(()),
            Woken::Shard(position) => {
                let shard = ShardIndex(u16::try_from(position).map_err(|_| Failure::Retry)?);
                self.hear_part(copying, shard)
            }
        }
    }

    /// Reads what has come from a shard. An error there is kept for the client.
    fn hear_part(&mut self, copying: &mut Copying<'_>, shard: ShardIndex) -> Result<(), Trouble> {
        let index = copying.part(shard).index.ok_or(Failure::Retry)?;
        let (client, participant, _) = self.exchanging(index)?;
        if participant.connection.broken {
            return Err(self.lost_part(copying, shard));
        }
        loop {
            let before = client.hold();
            let said = next_now(client, participant, copying.show(shard));
            let shown = client.unhold(before);
            let part = &mut copying.parts[shard.position()];
            for told in copied_lines(&shown, &copying.copy.table, &copying.rows, shard.position()) {
                if !is_error(&told.message) {
                    client.output.extend_from_slice(&told.message);
                    continue;
                }
                part.open = false;
                let line = told.line.unwrap_or(u64::MAX);
                let is_first = |failed: &Failed| line < failed.line;
                if copying.failed.as_ref().is_none_or(is_first) {
                    copying.failed = Some(Failed {
                        line,
                        said: told.message,
                    });
                }
            }
            match said {
                Ok(None) => break,
                Ok(Some(Said::Message(header))) => {
                    let message = participant.connection.input.split_to(header.len);
                    match header.tag {
                        b'G' => {}
                        b'C' => part.rows = rows_of(message.get(HEADER..).unwrap_or_default()),
                        tag => return Err(violation(participant, Some(tag))),
                    }
                }
                Ok(Some(Said::Error)) => {}
                Ok(Some(Said::Ready)) => {
                    participant.unread = false;
                    part.busy = false;
                    break;
                }
                Err(Trouble::Lost) => return Err(self.lost_part(copying, shard)),
                Err(trouble) => return Err(trouble),
            }
        }
        match copying.failed {
            Some(_) => Err(Trouble::Told),
            None => Ok(()),
        }
    }

    /// The connection to a shard is lost.
    fn lost_part(&mut self, copying: &mut Copying<'_>, shard: ShardIndex) -> Trouble {
        let part = &mut copying.parts[shard.position()];
        (part.open, part.busy) = (false, false);
        let Some(index) = part.index else {
            return Failure::Retry.into();
        };
        if let Some(held) = self.participants.get_mut(index) {
            held.connection.broken = true;
            self.cancel.slot().withdraw(&held.connection.target);
        }
        self.lost_at(index, copying.plan)
    }

    /// Ends the COPY on every shard and waits for all.
    async fn end_parts(&mut self, copying: &mut Copying<'_>) -> Result<(), Trouble> {
        copying.close(frontend::encode::copy_done);
        self.await_parts(copying).await
    }

    async fn await_parts(&mut self, copying: &mut Copying<'_>) -> Result<(), Trouble> {
        while copying.parts.iter().any(|part| part.busy) {
            self.let_flow(copying, false).await?;
        }
        Ok(())
    }

    /// The client has given up: one of the shards says so.
    async fn fail_parts(
        &mut self,
        copying: &mut Copying<'_>,
        reason: &[u8],
    ) -> Result<(), Trouble> {
        let reason = reason.strip_suffix(b"\0").unwrap_or(reason);
        copying.close(|output| frontend::encode::copy_fail(output, reason));
        self.await_parts(copying).await?;
        Err(Failure::Retry.into())
    }

    /// The shard that has got what is no row, or a row without a shard, has an error for it.
    async fn ask_what_is_wrong(&mut self, copying: &mut Copying<'_>) -> Result<(), Trouble> {
        let Some(astray) = copying.rows.astray() else {
            return Ok(());
        };
        if astray.reason != Reason::TooLong {
            let at = astray.shard.position();
            if let Some(lane) = copying.rows.lanes().get_mut(at) {
                frontend::encode::copy_done(&mut lane.output);
            }
            copying.parts[at].open = false;
            while copying.parts[at].busy {
                self.let_flow(copying, false).await?;
            }
        }
        let message = match astray.reason {
            Reason::NotExact => "the shard of a row is not known",
            Reason::Wrong => "a row is not read as its shard reads it",
            Reason::TooLong => "a row is too long to be copied into a sharded table",
        };
        let line = copying.rows.lines();
        let mut refusal = Refusal::certain("0A000", message);
        refusal.detail = Some(format!("It is in line {line} of the input."));
        if astray.reason == Reason::NotExact {
            refusal.hint = Some(
                "Write the shard key in a form that means the same whatever the settings and the version of the server."
                    .to_owned(),
            );
        }
        Err(Failure::Refused(Box::new(refusal)).into())
    }

    /// What was copied is of no use any more: the shards that still take rows are told, and all are waited for. What they say of rows
    /// before the one that failed is what the client hears.
    async fn give_up_copying(&mut self, copying: &mut Copying<'_>) {
        let told = copying.failed.take();
        copying.close(|output| frontend::encode::copy_fail(output, GIVEN_UP));
        let mut first = told;
        while copying.parts.iter().any(|part| part.busy) {
            let flowed = self.let_flow(copying, false).await;
            let later = copying.failed.take();
            if let Some(later) = later.filter(|later| !is_given_up(&later.said))
                && first.as_ref().is_some_and(|first| later.line < first.line)
            {
                first = Some(later);
            }
            if let Err(Trouble::Gone | Trouble::Protocol(_)) = flowed {
                break;
            }
        }
        copying.failed = first;
    }
}

/// Whether a shard only says that it was told to give up.
fn is_given_up(said: &[u8]) -> bool {
    said.windows(GIVEN_UP.len())
        .any(|window| window == GIVEN_UP)
}
