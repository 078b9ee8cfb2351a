//! Ends what takes a client too long: `client_idle_timeout`, `idle_transaction_timeout` and `query_timeout`.
//!
//! All clients are looked at in each round of the housekeeping, so that no session needs a timer. A limit is kept to within
//! two rounds. Collaborators: [`crate::admin::activity`] says how long; sessions hear of it where they wait.

use std::time::Duration;

use switchyard_schema::Timeouts;
use tokio::task::JoinSet;

use crate::admin::activity::Stay;
use crate::admin::registry::{ClientEntry, ClientState};
use crate::startup::cancel::CancelReason;
use crate::worker::Services;

/// A statement that goes on for so long after it was cancelled loses its connections.
const HEED: Duration = Duration::from_secs(5);

/// What is to be done about a stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Allowed,
    /// The session ends.
    EndSession,
    /// The statement is cancelled.
    CancelStatement,
    /// That it was cancelled has not helped.
    LoseConnections,
}

fn judge(state: ClientState, lasted: Duration, limits: &Timeouts) -> Verdict {
    let (limit, verdict) = match state {
        ClientState::Idle => (limits.client_idle, Verdict::EndSession),
        ClientState::IdleInTransaction => (limits.idle_transaction, Verdict::EndSession),
        ClientState::Active | ClientState::Waiting => (limits.query, Verdict::CancelStatement),
    };
    match limit {
        Some(limit) if lasted >= limit + HEED && verdict == Verdict::CancelStatement => {
            Verdict::LoseConnections
        }
        Some(limit) if lasted >= limit => verdict,
        _ => Verdict::Allowed,
    }
}

/// The cancel requests on their way.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    cancelling: JoinSet<()>,
}

impl Overdue {
    /// Looks at all clients once.
    pub(super) fn look(&mut self, services: &Services) {
        services.registry.clock().tick();
        while self.cancelling.try_join_next().is_some() {}
        let settings = services.settings.load();
        let limits = &settings.file.router.timeouts;
        if limits.client_idle.is_none()
            && limits.idle_transaction.is_none()
            && limits.query.is_none()
        {
            return;
        }
        for client in services.registry.clients() {
            let stay = client.stay();
            let verdict = judge(stay.state, stay.lasted, limits);
            self.carry_out(verdict, stay, &client);
        }
    }

    fn carry_out(&mut self, verdict: Verdict, stay: Stay, client: &ClientEntry) {
        match verdict {
            Verdict::Allowed => {}
            Verdict::EndSession => {
                if client.end_stay(stay) {
                    tracing::debug!(
                        client = client.id,
                        state = stay.state.label(),
                        "idle too long"
                    );
                }
            }
            Verdict::CancelStatement => {
                if client.end_stay(stay) {
                    tracing::debug!(client = client.id, "query_timeout is over");
                    let cancelling = client.slot.cancel(CancelReason::Timeout);
                    self.cancelling.spawn(cancelling);
                }
            }
            Verdict::LoseConnections => {
                tracing::debug!(
                    client = client.id,
                    "a statement goes on after its cancellation"
                );
                client.slot.sever();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_limit() {
        use ClientState::{Active, Idle, IdleInTransaction, Waiting};
        let limits = Timeouts {
            client_idle: Some(Duration::from_secs(30)),
            idle_transaction: Some(Duration::from_secs(20)),
            query: Some(Duration::from_secs(10)),
            ..Timeouts::default()
        };
        let judged = |state, seconds| {
            let lasted = Duration::from_secs(seconds);
            [limits.clone(), Timeouts::default()].map(|limits| judge(state, lasted, &limits))
        };
        let allowed = Verdict::Allowed;
        for (state, limit, verdict) in [
            (Idle, 30, Verdict::EndSession),
            (IdleInTransaction, 20, Verdict::EndSession),
            (Active, 10, Verdict::CancelStatement),
            (Waiting, 10, Verdict::CancelStatement),
        ] {
            assert_eq!(judged(state, limit - 1), [allowed, allowed], "{state:?}");
            assert_eq!(judged(state, limit), [verdict, allowed], "{state:?}");
        }
        assert_eq!(judged(Active, 15), [Verdict::LoseConnections, allowed]);
        assert_eq!(judged(Idle, 100), [Verdict::EndSession, allowed]);
    }
}
