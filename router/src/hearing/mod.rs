//! Notifications for all clients of a database by one connection.
//!
//! A task of the control thread keeps an `Ear` for each database in which a session listens: a connection to the first shard's primary that listens to the
//! channels of all. Sessions have an `Inbox` each; they decide when their clients hear of what is in it (`session/listening.rs`).
//!
//! Invariant: what was committed on the server before a session asks the ear to catch up is in its inbox when the ear has, or the inbox is
//! closed; none is ever left with a gap. ADR 0029 has the reasons.

mod ear;
mod inbox;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::Settings;
use crate::topology::Published;
use ear::Ear;
pub(crate) use inbox::{Closed, Inbox, LIMIT};

/// The way to the ears of all databases.
#[derive(Debug, Clone)]
pub struct Hearing(Arc<Ears>);

#[derive(Debug)]
struct Ears {
    /// The ways to those that there are. An ear takes its own away, and with the lock held, so that it leaves nobody waiting.
    open: Mutex<HashMap<Arc<str>, mpsc::UnboundedSender<Order>>>,
    keeper: mpsc::UnboundedSender<Ear>,
}

/// What sessions ask of an ear. Each session has one of them at most that it waits for.
#[derive(Debug)]
enum Order {
    /// To hear for it what comes through these channels, from the answer on.
    Listen {
        inbox: Arc<Inbox>,
        channels: Vec<Box<str>>,
        done: oneshot::Sender<()>,
    },
    /// Not to, any more.
    Unlisten {
        inbox: Arc<Inbox>,
        channels: Vec<Box<str>>,
    },
    /// To have heard all that has been committed before.
    CatchUp { done: oneshot::Sender<()> },
    /// What this process of the server's notifies from now on comes of this client, or of nobody known.
    Call {
        process: i32,
        client: Option<i32>,
        done: oneshot::Sender<()>,
    },
}

impl Hearing {
    /// Listens to these channels for the inbox. False if that could not be, or not be known to be.
    pub(crate) async fn listen(
        &self,
        database: &Arc<str>,
        inbox: &Arc<Inbox>,
        channels: &[Box<str>],
    ) -> bool {
        let (done, answer) = oneshot::channel();
        let order = Order::Listen {
            inbox: Arc::clone(inbox),
            channels: channels.to_vec(),
            done,
        };
        self.order(database, order, true);
        answer.await.is_ok()
    }

    /// Stops to listen to these channels for the inbox, some time soon.
    pub(crate) fn unlisten(
        &self,
        database: &Arc<str>,
        inbox: &Arc<Inbox>,
        channels: Vec<Box<str>>,
    ) {
        let inbox = Arc::clone(inbox);
        self.order(database, Order::Unlisten { inbox, channels }, false);
    }

    /// Returns when all is in the inboxes that had been committed before.
    pub(crate) async fn catch_up(&self, database: &Arc<str>) {
        let (done, answer) = oneshot::channel();
        self.order(database, Order::CatchUp { done }, false);
        // An ear that is lost has closed its inboxes.
        let _ = answer.await;
    }

    /// Has what this process of the server's notifies bear the number of this client, from when it returns; or no longer, with all that it has
    /// notified by now in the inboxes. Returns at once where nobody listens.
    pub(crate) async fn call(&self, database: &Arc<str>, process: i32, client: Option<i32>) {
        let (done, answer) = oneshot::channel();
        let order = Order::Call {
            process,
            client,
            done,
        };
        self.order(database, order, false);
        let _ = answer.await;
    }

    /// Gives an order to the database's ear, to a new one if there is none and `opens`; else it is dropped.
    fn order(&self, database: &Arc<str>, order: Order, opens: bool) {
        let mut open = self.0.lock();
        if let Some(ear) = open.get(database) {
            // It is there as long as it is listed.
            let _ = ear.send(order);
        } else if opens {
            let (sender, orders) = mpsc::unbounded_channel();
            let _ = sender.send(order);
            open.insert(Arc::clone(database), sender);
            // If the control thread has ended, the process is about to.
            let ear = Ear::new(Arc::clone(database), orders, self.clone());
            let _ = self.0.keeper.send(ear);
        }
    }
}

impl Ears {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, mpsc::UnboundedSender<Order>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that has the ears.
#[derive(Debug)]
pub struct Keeper {
    settings: watch::Receiver<Arc<Settings>>,
    published: Published,
    new: mpsc::UnboundedReceiver<Ear>,
}

impl Keeper {
    /// The task, to be run on the control thread, and the way to it.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>, published: Published) -> (Self, Hearing) {
        let (keeper, new) = mpsc::unbounded_channel();
        let hearing = Hearing(Arc::new(Ears {
            open: Mutex::default(),
            keeper,
        }));
        let keeper = Self {
            settings,
            published,
            new,
        };
        (keeper, hearing)
    }

    /// Works until every [`Hearing`] is gone.
    pub async fn run(mut self) {
        let mut ears = JoinSet::new();
        loop {
            tokio::select! {
                ear = self.new.recv() => match ear {
                    Some(ear) => {
                        let settings = Arc::clone(&self.settings.borrow());
                        ears.spawn(ear.run(settings, self.published.clone()));
                    }
                    None => return,
                },
                Some(_) = ears.join_next() => {}
            }
        }
    }
}
