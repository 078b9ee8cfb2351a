//! The client's half of a session: its stream, what it has sent and what it is owed.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use switchyard_wire::backend::encode;
use switchyard_wire::frame;
use tokio::io::AsyncWriteExt;
use tokio::task::coop::has_budget_remaining;

use crate::buffers::reclaim;
use crate::metrics::Counters;
use crate::stream::Stream;

/// Input read ahead, while a backend works for this client, before we leave the rest in the socket.
const READ_AHEAD: usize = 64 << 10;
/// More than the description of 1,664 columns, which is the most, can take.
const MOST_UNSURE: usize = 256 << 10;

/// A client's stream with its two buffers. Both are empty, and hold no memory, while the client is idle.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    /// Received, not yet handled.
    pub(crate) input: BytesMut,
    /// Owed to the client, not yet written.
    pub(crate) output: BytesMut,
    /// How many bytes have been written.
    written: u64,
    watch: Watch,
    /// The client has closed its half of the connection.
    gone: bool,
    /// Nothing is written while it is not 0: see [`Client::hold`].
    holds: u32,
    /// Whether it is there does not matter: see [`Client::ignore`].
    ignored: bool,
    /// Where in the output begins what is kept to itself: see [`Client::wait_for_rows`].
    unsure: Option<usize>,
    /// Where in the output begins what can still be taken back: see [`Client::keep`].
    kept: Option<usize>,
    pub(crate) counters: Arc<Counters>,
    /// The reported settings as the client knows them.
    told: Arc<Reported>,
    /// A reported setting may have changed; to be told before ReadyForQuery.
    pub(crate) untold: bool,
    /// A backend has ended the transaction, for the client has been idle in it for too long.
    pub(crate) overdue: bool,
}

/// The reactor is to wake the session at the client's next input, and has not done so yet.
#[derive(Debug, Default)]
struct Watch(bool);

impl Watch {
    /// Waits until a read may find something. A session is one task, which the reactor need be told but once for each time
    /// that it wakes it.
    fn poll(&mut self, stream: &Stream, context: &mut Context<'_>) -> Poll<()> {
        if self.0 && !stream.has_input() {
            return Poll::Pending;
        }
        let readable = stream.poll_readable(context);
        // A task that has done much in one go is put off without the reactor being told.
        self.0 = readable.is_pending() && has_budget_remaining();
        readable
    }
}

/// What a node has said of a session's settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported {
    /// The run-time parameters that clients are told, with their values.
    pub(crate) parameters: Vec<(Box<str>, Box<str>)>,
    /// `search_path`, which servers before PostgreSQL 18 do not report.
    pub(crate) search_path: Arc<str>,
    /// The defaults that the session's role and database have of the router's own settings, the one that holds first.
    pub(crate) defaults: Vec<(Box<str>, Box<str>)>,
}

/// The client broke the protocol, or its stream broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the client's stream failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
}

impl Client {
    pub(crate) fn new(stream: Stream, input: BytesMut, counters: Arc<Counters>) -> Self {
        Self {
            stream,
            input,
            output: BytesMut::new(),
            written: 0,
            watch: Watch::default(),
            gone: false,
            holds: 0,
            ignored: false,
            unsure: None,
            kept: None,
            counters,
            told: Arc::default(),
            untold: false,
            overdue: false,
        }
    }

    /// Tells the client of a reported setting's value, unless it knows.
    pub(crate) fn tell(&mut self, name: &[u8], value: &[u8]) {
        let known = |(known, _): &(Box<str>, Box<str>)| known.as_bytes() == name;
        let position = self.told.parameters.iter().position(known);
        let was = position.and_then(|position| self.told.parameters.get(position));
        if was.is_some_and(|(_, was)| was.as_bytes() == value) {
            return;
        }
        encode::parameter_status(&mut self.output, name, value);
        let told = &mut Arc::make_mut(&mut self.told).parameters;
        let value = String::from_utf8_lossy(value).into();
        match position.and_then(|position| told.get_mut(position)) {
            Some((_, told)) => *told = value,
            None => told.push((String::from_utf8_lossy(name).into(), value)),
        }
    }

    /// Tells the client of these settings, as far as it does not know.
    pub(crate) fn tell_all(&mut self, reported: &Arc<Reported>) {
        if Arc::ptr_eq(&self.told, reported) {
            return;
        }
        for (name, value) in &reported.parameters {
            self.tell(name.as_bytes(), value.as_bytes());
        }
        // What many clients have in common is kept once.
        self.told = Arc::clone(reported);
    }

    /// The next whole message already received: its tag and length, header included. It stays in `input`.
    pub(crate) fn peek(&self) -> Result<Option<frame::Header>, frame::FrameError> {
        let header = frame::header(&self.input)?;
        Ok(header.filter(|header| self.input.len() >= header.len))
    }

    /// Waits for the next whole message. `None`: the client has left between two messages.
    pub(crate) async fn next(&mut self) -> Result<Option<frame::Header>, ClientError> {
        loop {
            if let Some(header) = self.peek()? {
                return Ok(Some(header));
            }
            if self.gone || !self.read().await? {
                self.gone = true;
                return match self.input.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }

    /// Waits for bytes, any number. False at the end of the stream. A client that keeps us waiting holds no buffer.
    pub(crate) async fn read(&mut self) -> io::Result<bool> {
        reclaim(&mut self.input);
        let mut asked = !self.input.is_empty();
        let count = poll_fn(|context| {
            // Without a buffer, at first; woken, there is something to read, mostly.
            if !asked && self.poll_readable(context).is_pending() {
                asked = true;
                return Poll::Pending;
            }
            self.poll_read(context)
        })
        .await?;
        Ok(count > 0)
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.watch.poll(&self.stream, context)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.watch = Watch::default();
        let count = match self.stream.poll_receive(context, &mut self.input) {
            Poll::Pending => {
                reclaim(&mut self.input);
                return Poll::Pending;
            }
            Poll::Ready(read) => read?,
        };
        self.counters.received(count);
        Poll::Ready(Ok(count))
    }

    /// Takes the first `length` bytes of the input and leaves the rest where COPY looks for it. Without a rest, as mostly,
    /// nothing is split; [`Client::put_back`] then keeps the buffer.
    pub(crate) fn take_message(&mut self, length: usize) -> BytesMut {
        match self.input.len() == length {
            true => self.take_input(),
            false => self.input.split_to(length),
        }
    }

    /// Takes the input, to work on its first message while more may arrive; [`Client::put_back`] ends that.
    pub(crate) fn take_input(&mut self) -> BytesMut {
        std::mem::take(&mut self.input)
    }

    /// Puts back input taken by [`Client::take_input`], in front of what has arrived meanwhile.
    pub(crate) fn put_back(&mut self, mut input: BytesMut) {
        if input.is_empty() {
            return reclaim(&mut input);
        }
        if !self.input.is_empty() {
            input.extend_from_slice(&self.input);
        }
        self.input = input;
    }

    /// Reads ahead while a backend works. Ready when the client has gone; pending otherwise, however much it sends.
    pub(crate) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ignored {
            return Poll::Pending;
        }
        while !self.gone && self.input.len() < READ_AHEAD {
            if self.poll_readable(context).is_pending() {
                return Poll::Pending;
            }
            match self.poll_read(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => self.gone = true,
            }
        }
        if self.gone {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Collects what is owed from now on instead of writing it, until [`Client::unhold`]. Returns what was owed before.
    pub(crate) fn hold(&mut self) -> BytesMut {
        self.holds += 1;
        std::mem::take(&mut self.output)
    }

    /// Ends a [`Client::hold`]: returns what was collected, and owes what was owed before again.
    pub(crate) fn unhold(&mut self, before: BytesMut) -> BytesMut {
        self.holds -= 1;
        std::mem::replace(&mut self.output, before)
    }

    /// Does without the client for a while, be it there or not: backends' answers are read to their ends. Like [`Client::hold`].
    pub(crate) fn ignore(&mut self) -> BytesMut {
        self.ignored = true;
        self.hold()
    }

    /// Ends a [`Client::ignore`]: owes what was owed before, and what has been collected.
    pub(crate) fn heed(&mut self, before: BytesMut) {
        self.ignored = false;
        let said = self.unhold(before);
        self.output.extend_from_slice(&said);
    }

    /// Keeps what is owed from now on to itself until it is certain to have rows: until it is more than a description can be, or
    /// [`Client::take_unsure`].
    pub(crate) fn wait_for_rows(&mut self) {
        self.unsure = Some(self.output.len());
    }

    /// Ends that: what has been kept, if it has not become certain meanwhile. It is owed no more.
    pub(crate) fn take_unsure(&mut self) -> Option<BytesMut> {
        let begin = self.unsure.take()?;
        Some(self.output.split_off(begin.min(self.output.len())))
    }

    /// Keeps what is owed from now on to itself, until it is much or [`Client::take_kept`]: it may yet be taken back.
    pub(crate) fn keep(&mut self) {
        self.kept = Some(self.output.len());
    }

    /// Ends that: what has been kept, if none of it has been written. It is owed no more.
    pub(crate) fn take_kept(&mut self) -> Option<BytesMut> {
        let begin = self.kept.take()?;
        Some(self.output.split_off(begin.min(self.output.len())))
    }

    /// Ends that: it is all to be written, as the client has to answer.
    pub(crate) fn release(&mut self) {
        self.kept = None;
    }

    /// Whether something that is owed is not to be written yet.
    fn is_held(&mut self) -> bool {
        let few = |begin: &usize| self.output.len().saturating_sub(*begin) <= MOST_UNSURE;
        self.unsure = self.unsure.filter(few);
        self.kept = self.kept.filter(few);
        self.holds > 0 || self.unsure.is_some() || self.kept.is_some()
    }

    /// Writes all that is owed, then `bytes`, as far as the socket takes them at once; the rest is owed.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.output.is_empty() || self.holds > 0 || self.unsure.is_some() || self.kept.is_some()
        {
            self.output.extend_from_slice(bytes);
            return self.flush_now().map(|_| ());
        }
        let written = self.try_write(bytes)?;
        self.sent(written);
        let rest = bytes.get(written..).unwrap_or_default();
        if !rest.is_empty() {
            self.output.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Writes of what is owed as much as the socket takes at once. True if nothing is owed any more.
    pub(crate) fn flush_now(&mut self) -> io::Result<bool> {
        if self.output.is_empty() || self.is_held() {
            return Ok(true);
        }
        let written = self.try_write(&self.output)?;
        self.sent(written);
        self.output.advance(written);
        if !self.output.is_empty() {
            return Ok(false);
        }
        self.output = BytesMut::new();
        Ok(true)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    fn sent(&mut self, count: usize) {
        self.counters.sent(count);
        self.written += count as u64;
    }

    /// How many bytes have been written to the client.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How many bytes the client has been told, with those it is still owed.
    pub(crate) fn told(&self) -> u64 {
        self.written + self.output.len() as u64
    }

    /// Writes all that is owed.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if self.is_held() {
            return Ok(());
        }
        self.sent(self.output.len());
        while self.output.has_remaining() {
            self.stream.write_buf(&mut self.output).await?;
        }
        self.output = BytesMut::new();
        self.stream.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Socket;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::coop::consume_budget;
    use tokio::task::yield_now;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_task_that_has_done_much_in_one_go_hears_of_input_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut stream = Stream::Plain(Socket::Tcp(listener.accept().await.unwrap().0));
        client.write_all(b"Q").await.unwrap();
        stream.read_u8().await.unwrap();
        poll_fn(|context| {
            assert!(pin!(stream.read_u8()).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        let (mut watch, woken) = (Watch::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        poll_fn(|context| {
            while pin!(consume_budget()).poll(context).is_ready() {}
            let mut session = Context::from_waker(&waker);
            assert!(watch.poll(&stream, &mut session).is_pending());
            Poll::Ready(())
        })
        .await;
        // Put off, it is woken at once, and looks again.
        while woken.0.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        let mut session = Context::from_waker(&waker);
        assert!(watch.poll(&stream, &mut session).is_pending());
        client.write_all(b"Q").await.unwrap();
        while !stream.has_input() {
            yield_now().await;
        }
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    }
}
