//! The connection of one database that listens for all its sessions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use postgres_protocol::escape::escape_identifier;
use switchyard_wire::backend::{Message, decode};
use switchyard_wire::frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Hearing, Inbox, Order};
use crate::backend::Connection;
use crate::config::Settings;
use crate::topology::link::{Link, Visitor};
use crate::topology::{Node, Observed, Published};

/// The longest the server may take to answer; then it is lost.
const ANSWER: Duration = Duration::from_secs(15);
/// Between two looks whether the server is there and still the one to be asked.
const LOOKS: Duration = Duration::from_secs(1);
/// Orders that the server is asked about at a time.
const MOST: usize = 128;
/// What all questions begin with, for who looks at the server.
const MARK: &str = "-- switchyard listens\n";
/// No message that a listener gets is longer.
const LONGEST: usize = 64 << 10;

/// Why an ear hears nothing more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Unreachable(String),
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("the server said: {0}")]
    Refused(String),
    #[error("no answer in time")]
    Timeout,
    #[error("the first shard has another primary")]
    Moved,
    #[error("the server broke the protocol")]
    Protocol,
}

/// Listens for all sessions of a database.
#[derive(Debug)]
pub(super) struct Ear {
    database: Arc<str>,
    orders: mpsc::UnboundedReceiver<Order>,
    hearing: Hearing,
    /// Who hears what comes through a channel.
    channels: HashMap<Box<str>, Vec<Arc<Inbox>>>,
    /// What the server listens to.
    listened: HashSet<Box<str>>,
    /// Of that, what nobody has heard, at some time since the server was asked last.
    unheard: Vec<Box<str>>,
    /// The clients whose statements processes of the server's run now.
    callers: HashMap<i32, i32>,
    /// What the server is being asked about, since when.
    asked: Vec<Order>,
    since: Option<Instant>,
}

impl Ear {
    pub(super) fn new(
        database: Arc<str>,
        orders: mpsc::UnboundedReceiver<Order>,
        hearing: Hearing,
    ) -> Self {
        Self {
            database,
            orders,
            hearing,
            channels: HashMap::new(),
            listened: HashSet::new(),
            unheard: Vec::new(),
            callers: HashMap::new(),
            asked: Vec::new(),
            since: None,
        }
    }

    /// Listens until nobody does any more, or the server is lost.
    pub(super) async fn run(mut self, settings: Arc<Settings>, published: Published) {
        let heard = match self.open(&settings, &published).await {
            Ok((link, node)) => self.hear(link, &node, &published).await,
            Err(lost) => Err(lost),
        };
        if let Err(lost) = heard {
            tracing::warn!(database = %self.database, reason = %lost, "nobody hears notifications");
            self.lose();
        }
    }

    async fn open(
        &self,
        settings: &Settings,
        published: &Published,
    ) -> Result<(Link, Arc<Node>), Lost> {
        let node = self.primary(published).ok_or(Lost::Moved)?;
        let user = settings.monitor_user();
        let user = user.ok_or_else(|| Lost::Unreachable("no user is configured".to_owned()))?;
        let visitor = Visitor::new(user, settings.file.router.timeouts.connect, ANSWER);
        let link = Link::open(&visitor, &node, &self.database).await;
        let link = link.map_err(|error| Lost::Unreachable(error.to_string()))?;
        Ok((link, node))
    }

    /// The first shard's primary, unless it is known to be none.
    fn primary(&self, published: &Published) -> Option<Arc<Node>> {
        let topology = published.load();
        let primary = topology.database(&self.database)?.shards.first()?.primary();
        (primary.observed() != Observed::Standby).then(|| Arc::clone(primary))
    }

    async fn hear(
        &mut self,
        mut link: Link,
        node: &Node,
        published: &Published,
    ) -> Result<(), Lost> {
        let mut looks = interval(LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let connection = link.connection();
        while !self.is_over() {
            let asks = self.since.is_none();
            tokio::select! {
                read = connection.fill() => {
                    read?;
                    self.take(&mut connection.input)?;
                }
                _ = self.orders.recv_many(&mut self.asked, MOST), if asks => {
                    self.ask(connection).await?;
                }
                _ = looks.tick() => match self.since {
                    _ if self.primary(published).is_none_or(|now| now.id != node.id || !now.is_reached_like(node)) => {
                        return Err(Lost::Moved);
                    }
                    Some(since) if since.elapsed() > ANSWER => return Err(Lost::Timeout),
                    Some(_) => {}
                    // Whether it is there at all.
                    None => self.ask(connection).await?,
                },
            }
        }
        Ok(())
    }

    /// Whether nobody listens or asks. It is not listed any more then.
    fn is_over(&mut self) -> bool {
        if !self.channels.is_empty() || self.since.is_some() {
            return false;
        }
        let mut open = self.hearing.0.lock();
        let is_over = self.orders.is_empty();
        if is_over {
            open.remove(&self.database);
        }
        is_over
    }

    /// Asks the server about what is to be done: to listen to what is new, and not to what nobody hears. Its answer comes behind all that
    /// it has been told before.
    async fn ask(&mut self, connection: &mut Connection) -> Result<(), Lost> {
        let wanted = self.asked.iter().flat_map(|order| match order {
            Order::Listen { channels, .. } => channels.as_slice(),
            Order::Unlisten { .. } | Order::CatchUp { .. } | Order::Call { .. } => &[],
        });
        let wanted: HashSet<&Box<str>> = wanted.collect();
        let mut sql = MARK.to_owned();
        for channel in self.unheard.drain(..) {
            let is_heard = self.channels.contains_key(&channel) || wanted.contains(&channel);
            if !is_heard && self.listened.remove(&channel) {
                sql.push_str(&format!("UNLISTEN {};", escape_identifier(&channel)));
            }
        }
        for channel in wanted {
            if self.listened.insert(channel.clone()) {
                sql.push_str(&format!("LISTEN {};", escape_identifier(channel)));
            }
        }
        self.since = Some(Instant::now());
        let sent = timeout(ANSWER, connection.send_query(&sql)).await;
        match sent.map_err(|_| Lost::Timeout)? {
            Ok(()) => Ok(()),
            Err(error) => Err(Lost::Unreachable(error.to_string())),
        }
    }

    /// Takes what the server has said.
    fn take(&mut self, input: &mut BytesMut) -> Result<(), Lost> {
        while let Some(header) = frame::header(input).map_err(|_| Lost::Protocol)? {
            if header.len > LONGEST {
                return Err(Lost::Protocol);
            }
            if header.len > input.len() {
                break;
            }
            let message = input.split_to(header.len);
            match header.tag {
                b'A' => self.spread(message)?,
                b'Z' => self.answered(),
                b'E' => return Err(refused(&message)),
                // Of the statements, notices and settings.
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives a notification to those who listen.
    fn spread(&self, message: BytesMut) -> Result<(), Lost> {
        let message = message.freeze();
        let body = message.get(frame::HEADER..).unwrap_or_default();
        let Ok(Message::NotificationResponse { pid, channel, .. }) = decode(b'A', body) else {
            return Err(Lost::Protocol);
        };
        let listeners = std::str::from_utf8(channel).ok();
        let Some(listeners) = listeners.and_then(|channel| self.channels.get(channel)) else {
            return Ok(());
        };
        let message = match self.callers.get(&pid) {
            Some(client) => called(&message, *client),
            None => message.clone(),
        };
        for inbox in listeners {
            inbox.put(&message);
        }
        Ok(())
    }

    /// The server has answered what it was asked.
    fn answered(&mut self) {
        self.since = None;
        for order in std::mem::take(&mut self.asked) {
            let done = match order {
                Order::Listen {
                    inbox,
                    channels,
                    done,
                } => {
                    for channel in channels {
                        self.channels
                            .entry(channel)
                            .or_default()
                            .push(Arc::clone(&inbox));
                    }
                    done
                }
                Order::Unlisten { inbox, channels } => {
                    for channel in channels {
                        self.forget(&inbox, &channel);
                    }
                    continue;
                }
                Order::CatchUp { done } => done,
                Order::Call {
                    process,
                    client,
                    done,
                } => {
                    match client {
                        Some(client) => self.callers.insert(process, client),
                        None => self.callers.remove(&process),
                    };
                    done
                }
            };
            // The session may have ended.
            let _ = done.send(());
        }
    }

    fn forget(&mut self, inbox: &Arc<Inbox>, channel: &str) {
        let Some(listeners) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(place) = listeners.iter().position(|other| Arc::ptr_eq(other, inbox)) {
            listeners.swap_remove(place);
        }
        if listeners.is_empty() {
            self.channels.remove(channel);
            self.unheard.push(channel.into());
        }
    }

    /// Nothing is heard any more: those who listen are told, those who ask learn it by getting no answer.
    fn lose(mut self) {
        self.hearing.0.lock().remove(&self.database);
        for inbox in self.channels.values().flatten() {
            inbox.lose();
        }
        self.orders.close();
    }
}

/// In the server's words.
fn refused(message: &[u8]) -> Lost {
    let body = message.get(frame::HEADER..).unwrap_or_default();
    let Ok(Message::ErrorResponse(fields)) = decode(b'E', body) else {
        return Lost::Protocol;
    };
    let said = fields.get(b'M').unwrap_or_default();
    Lost::Refused(String::from_utf8_lossy(said).into_owned())
}

/// The same notification, of a client.
fn called(message: &[u8], client: i32) -> Bytes {
    let mut called = BytesMut::from(message);
    if let Some(mut process) = called.get_mut(frame::HEADER..) {
        process.put_i32(client);
    }
    called.freeze()
}
