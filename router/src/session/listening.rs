//! Notifications that come while the client says nothing: from a connection that the session keeps because it LISTENs there.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use switchyard_wire::frame;

use super::Session;
use crate::buffers::reclaim;
use crate::execute::client::Client;
use crate::execute::participant::Participant;
use crate::plan::Pin;

fn listens(held: &Participant) -> bool {
    held.pins.contains(Pin::Listen)
        && !held.connection.broken
        && held.connection.replies.is_settled()
}

impl Session {
    /// Whether something may come from a server while nothing is asked of it.
    pub(super) fn is_listening(&self) -> bool {
        self.participants.iter().any(listens)
    }

    /// Passes on what comes unasked, until there is something else to be done: a message of the client's, or its end.
    pub(super) async fn listen(&mut self, idle: bool) {
        let Self {
            client,
            drain,
            entry,
            overdue,
            participants,
            database,
            ..
        } = self;
        let Some(held) = participants.iter_mut().find(|held| listens(held)) else {
            return;
        };
        loop {
            pass_on(client, held);
            if !client.output.is_empty() && client.flush().await.is_err() {
                return;
            }
            let has_come = {
                let (mut next, mut more) = (pin!(client.next()), pin!(held.connection.fill()));
                poll_fn(|context| {
                    if next.as_mut().poll(context).is_ready()
                        || entry.poll_overdue(overdue, context).is_ready()
                        || idle && drain.poll_requested(context).is_ready()
                    {
                        return Poll::Ready(false);
                    }
                    more.as_mut().poll(context).map(|read| read.is_ok())
                })
                .await
            };
            if !has_come {
                reclaim(&mut held.connection.input);
                return participants.close_broken(database);
            }
        }
    }
}

/// Takes notifications and notices off the input; what else there is waits for the next request.
fn pass_on(client: &mut Client, held: &mut Participant) {
    let input = &mut held.connection.input;
    while let Ok(Some(header)) = frame::header(input)
        && matches!(header.tag, b'A' | b'N')
        && header.len <= input.len()
    {
        let message = input.split_to(header.len);
        client.output.extend_from_slice(&message);
    }
}
