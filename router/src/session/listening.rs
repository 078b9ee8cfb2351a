//! LISTEN and UNLISTEN, which [an ear](crate::hearing) does for all clients of the database, and notifications, which a client is told of when it is in no
//! transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use switchyard_schema::ShardIndex;

use super::simple::Ready;
use super::{End, Session};
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::hearing::{Closed, Hearing, Inbox};

/// What a LISTEN or UNLISTEN changes when its transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Listen(Box<str>),
    Unlisten(Box<str>),
    UnlistenAll,
}

/// What a session listens to.
#[derive(Debug)]
pub(super) struct Listening {
    hearing: Hearing,
    database: Arc<str>,
    inbox: Arc<Inbox>,
    channels: BTreeSet<Box<str>>,
    /// Those that a transaction adds, which is not committed yet.
    added: Vec<Box<str>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        let channels = channels.into_iter().chain(self.added.drain(..)).collect();
        self.hearing.unlisten(&self.database, &self.inbox, channels);
    }
}

impl Listening {
    /// The channels as these changes leave them.
    fn changed(&self, changes: &[Change]) -> BTreeSet<Box<str>> {
        let mut channels = self.channels.clone();
        for change in changes {
            match change {
                Change::Listen(channel) => drop(channels.insert(channel.clone())),
                Change::Unlisten(channel) => drop(channels.remove(channel)),
                Change::UnlistenAll => channels.clear(),
            }
        }
        channels
    }

    /// Has the ear listen to what these changes add.
    async fn prepare(&mut self, changes: &[Change]) -> bool {
        let changed = self.changed(changes);
        self.added = changed.difference(&self.channels).cloned().collect();
        self.added.is_empty()
            || self
                .hearing
                .listen(&self.database, &self.inbox, &self.added)
                .await
    }

    /// The changes hold from now on, or never.
    fn take(&mut self, changes: &[Change], committed: bool) {
        let ended = match committed {
            true => {
                let changed = self.changed(changes);
                let ended = self.channels.difference(&changed).cloned().collect();
                self.channels = changed;
                self.added.clear();
                ended
            }
            false => std::mem::take(&mut self.added),
        };
        if !ended.is_empty() {
            self.hearing.unlisten(&self.database, &self.inbox, ended);
        }
    }
}

impl Session {
    pub(super) async fn listen(&mut self, channel: &str) -> Result<Ready, Trouble> {
        self.change_listening(Change::Listen(channel.into()))
            .await?;
        self.complete("LISTEN")
    }

    /// UNLISTEN, of all channels if none is named.
    pub(super) async fn unlisten(&mut self, channel: Option<&str>) -> Result<Ready, Trouble> {
        let change = channel.map_or(Change::UnlistenAll, |channel| {
            Change::Unlisten(channel.into())
        });
        self.change_listening(change).await?;
        self.complete("UNLISTEN")
    }

    /// At once, or when the block is committed.
    async fn change_listening(&mut self, change: Change) -> Result<(), Failure> {
        match &mut self.block {
            Some(block) => {
                block.add_listening(change);
                Ok(())
            }
            None => {
                let changes = [change];
                let prepared = self.prepare_listening(&changes).await;
                self.take_listening(&changes, prepared.is_ok());
                prepared
            }
        }
    }

    /// The first half of the end of a transaction with these changes, before it is committed.
    async fn prepare_listening(&mut self, changes: &[Change]) -> Result<(), Failure> {
        if self.listening.is_none()
            && !changes
                .iter()
                .any(|change| matches!(change, Change::Listen(_)))
        {
            return Ok(());
        }
        let (services, database) = (&self.worker.services, &self.database.name);
        let listening = self.listening.get_or_insert_with(|| {
            Box::new(Listening {
                hearing: services.hearing.clone(),
                database: Arc::clone(database),
                inbox: Arc::default(),
                channels: BTreeSet::new(),
                added: Vec::new(),
            })
        });
        match listening.prepare(changes).await {
            true => Ok(()),
            false => Err(Failure::ShardDown {
                shard: self.shard_name(ShardIndex::FIRST),
            }),
        }
    }

    /// The second half.
    fn take_listening(&mut self, changes: &[Change], committed: bool) {
        if let Some(listening) = &mut self.listening {
            listening.take(changes, committed);
            if listening.channels.is_empty() && listening.inbox.closed().is_none() {
                self.listening = None;
            }
        }
        self.entry.set_listens(self.listening.is_some());
    }

    /// What is to be done before the block is committed, about what it has changed and notified. Returns the changes.
    pub(super) async fn prepare_to_be_heard(&mut self) -> Result<Vec<Change>, Failure> {
        let changes = self
            .block
            .as_ref()
            .map(Block::listening)
            .unwrap_or_default();
        if !changes.is_empty() {
            self.prepare_listening(&changes).await?;
        }
        if self.notifies {
            self.call_by_its_number().await;
        }
        Ok(changes)
    }

    /// The block has ended.
    pub(super) fn committed_listening(&mut self, changes: &[Change], committed: bool) {
        if !changes.is_empty() {
            self.take_listening(changes, committed);
        }
    }

    /// UNLISTEN *, of what holds.
    pub(super) fn unlisten_all(&mut self) {
        self.take_listening(&[Change::UnlistenAll], true);
    }

    /// Whether something is to be done between a transaction and its ReadyForQuery.
    pub(super) fn hears_at_end(&self) -> bool {
        self.block.is_none() && (self.listening.is_some() || self.notifies)
    }

    /// Sees to it that what the transaction notifies bears the number that its client knows the session by, until the transaction has ended.
    pub(super) async fn call_by_its_number(&mut self) {
        let held = self.participants.position_of(ShardIndex::FIRST, true);
        let Some(held) = held.and_then(|held| self.participants.get(held)) else {
            return;
        };
        let process = held.connection.target.pid();
        self.called = Some(process);
        let hearing = &self.worker.services.hearing;
        hearing
            .call(&self.database.name, process, Some(self.cancel.pid))
            .await;
    }

    /// A transaction has ended: takes in all that has been notified until now, and tells the client if it listens.
    pub(super) async fn hear_until_now(&mut self) {
        self.notifies = false;
        let (hearing, database) = (&self.worker.services.hearing, &self.database.name);
        match self.called.take() {
            Some(process) => hearing.call(database, process, None).await,
            None if self.listening.is_some() => hearing.catch_up(database).await,
            None => {}
        }
        self.tell_heard();
    }

    /// Tells the client what is in its inbox.
    fn tell_heard(&mut self) {
        if let Some(listening) = &self.listening {
            let Listening {
                inbox, channels, ..
            } = &**listening;
            let output = &mut self.client.output;
            inbox.take(
                |channel| channels.contains(channel),
                |message| output.extend_from_slice(message),
            );
        }
    }

    /// The same while the session waits for its client, or the session's end if there is nothing to be heard any more.
    pub(super) async fn hear(&mut self, idle: bool) -> Result<(), End> {
        self.go_on_listening().await?;
        if idle {
            self.tell_heard();
        }
        self.client.flush().await.map_err(|_| End)
    }

    /// A session that listens ends when it cannot hear any more.
    pub(super) async fn go_on_listening(&mut self) -> Result<(), End> {
        match self.deaf() {
            None => Ok(()),
            Some(failure) => Err(self.end_by(failure.into()).await),
        }
    }

    /// Why the session cannot hear what it listens to any more.
    pub(super) fn deaf(&self) -> Option<Failure> {
        Some(match self.listening.as_ref()?.inbox.closed()? {
            Closed::Lost => Failure::StateLost {
                shard: self.shard_name(ShardIndex::FIRST),
            },
            Closed::Full => Failure::InboxFull,
        })
    }
}

/// Polls for what a session that waits is to hear of: anything while it is `idle`, else only that there is nothing to be heard any more.
pub(super) fn poll_heard(
    listening: Option<&Listening>,
    idle: bool,
    context: &mut std::task::Context<'_>,
) -> bool {
    listening.is_some_and(|listening| listening.inbox.poll(idle, context).is_ready())
}
