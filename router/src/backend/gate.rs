//! What operators have said about a database: whether clients may log in, and whether sessions that hold nothing may begin something.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The door of one database. What has begun goes on behind it, so that transactions can end.
#[derive(Debug, Default)]
pub struct Gate {
    paused: AtomicBool,
    disabled: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// Whether sessions that hold nothing wait.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether nobody may log in.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Has sessions that hold nothing wait from now on. False if they did already.
    pub fn pause(&self) -> bool {
        !self.paused.swap(true, Ordering::SeqCst)
    }

    /// Lets those that wait go on. False if nobody had to wait.
    pub fn resume(&self) -> bool {
        let was_paused = self.paused.swap(false, Ordering::SeqCst);
        self.opened.notify_waiters();
        was_paused
    }

    /// Lets nobody log in any more, or again everybody.
    pub fn disable(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::Relaxed);
    }

    /// Waits until it is open.
    pub(crate) async fn pass(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.is_paused() {
                return;
            }
            opened.await;
        }
    }
}

/// The gates of all databases that somebody has asked for.
#[derive(Debug, Default)]
pub struct Gates(Mutex<HashMap<Box<str>, Arc<Gate>>>);

impl Gates {
    /// The gate of a database.
    pub fn of(&self, database: &str) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match gates.get(database) {
            Some(gate) => Arc::clone(gate),
            None => Arc::clone(gates.entry(database.into()).or_default()),
        }
    }
}
