//! Ends what takes a client too long: `client_idle_timeout`, `idle_transaction_timeout`, `transaction_timeout` and `query_timeout`.
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

/// The clock is as coarse as the rounds: what a client has asked for itself must not be over too early. Its servers keep to it anyway.
const LATE: Duration = Duration::from_millis(500);

/// What is to be done about a stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Allowed,
    /// The session ends.
    EndSession,
    /// The statement is cancelled.
    CancelStatement(CancelReason),
    /// That it was cancelled has not helped.
    LoseConnections,
}

/// What becomes of a statement that takes too long by itself.
const CANCEL: Verdict = Verdict::CancelStatement(CancelReason::Timeout);

/// How long the transaction has gone on, if there is one, and the limit that the client itself has set for being idle in it.
#[derive(Clone, Copy, Debug, Default)]
struct Transaction {
    lasted: Option<Duration>,
    asked: Option<Duration>,
}

fn judge(
    state: ClientState,
    lasted: Duration,
    limits: &Timeouts,
    transaction: Transaction,
) -> Verdict {
    let beyond = match (limits.transaction, transaction.lasted) {
        (Some(limit), Some(lasted)) => lasted.checked_sub(limit),
        _ => None,
    };
    match (
        judge_stay(state, lasted, limits, transaction.asked),
        beyond,
        state,
    ) {
        (Verdict::Allowed, Some(_), ClientState::IdleInTransaction) => Verdict::EndSession,
        (Verdict::Allowed, Some(beyond), ClientState::Active | ClientState::Waiting) => {
            match beyond < HEED {
                true => Verdict::CancelStatement(CancelReason::TransactionTimeout),
                false => Verdict::LoseConnections,
            }
        }
        (verdict, ..) => verdict,
    }
}

fn judge_stay(
    state: ClientState,
    lasted: Duration,
    limits: &Timeouts,
    asked: Option<Duration>,
) -> Verdict {
    let (limit, verdict) = match state {
        ClientState::Idle => (limits.client_idle, Verdict::EndSession),
        ClientState::IdleInTransaction => {
            let limits = [limits.idle_transaction, asked.map(|asked| asked + LATE)];
            (limits.into_iter().flatten().min(), Verdict::EndSession)
        }
        ClientState::Active | ClientState::Waiting => (limits.query, CANCEL),
    };
    match limit {
        Some(limit) if lasted >= limit + HEED && verdict == CANCEL => Verdict::LoseConnections,
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
        for client in services.registry.clients() {
            let stay = client.stay();
            let transaction = Transaction {
                lasted: client.transaction_lasted(),
                asked: client.idle_transaction(),
            };
            let verdict = judge(stay.state, stay.lasted, limits, transaction);
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
            Verdict::CancelStatement(reason) => {
                if client.end_stay(stay) {
                    tracing::debug!(client = client.id, why = reason.message(), "too long");
                    let cancelling = client.slot.cancel(reason);
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
            [limits.clone(), Timeouts::default()]
                .map(|limits| judge(state, lasted, &limits, Transaction::default()))
        };
        let allowed = Verdict::Allowed;
        for (state, limit, verdict) in [
            (Idle, 30, Verdict::EndSession),
            (IdleInTransaction, 20, Verdict::EndSession),
            (Active, 10, CANCEL),
            (Waiting, 10, CANCEL),
        ] {
            assert_eq!(judged(state, limit - 1), [allowed, allowed], "{state:?}");
            assert_eq!(judged(state, limit), [verdict, allowed], "{state:?}");
        }
        assert_eq!(judged(Active, 15), [Verdict::LoseConnections, allowed]);
        assert_eq!(judged(Idle, 100), [Verdict::EndSession, allowed]);
        let asked = |limits, seconds| {
            let lasted = Duration::from_secs(seconds);
            let asked = Transaction {
                asked: Some(Duration::from_secs(15)),
                ..Transaction::default()
            };
            [IdleInTransaction, Idle].map(|state| judge(state, lasted, limits, asked))
        };
        for limits in [&limits, &Timeouts::default()] {
            assert_eq!(asked(limits, 15), [allowed, allowed]);
            assert_eq!(asked(limits, 16), [Verdict::EndSession, allowed]);
        }
        let limits = Timeouts {
            transaction: Some(Duration::from_secs(10)),
            ..Timeouts::default()
        };
        let within = |state, seconds| {
            let transaction = Transaction {
                lasted: Some(Duration::from_secs(seconds)),
                asked: None,
            };
            judge(state, Duration::from_secs(1), &limits, transaction)
        };
        let cancel = Verdict::CancelStatement(CancelReason::TransactionTimeout);
        for (state, verdict) in [(Active, cancel), (IdleInTransaction, Verdict::EndSession)] {
            assert_eq!(within(state, 9), allowed, "{state:?}");
            assert_eq!(within(state, 10), verdict, "{state:?}");
        }
        assert_eq!(within(Active, 15), Verdict::LoseConnections);
        assert_eq!(within(Idle, 100), allowed);
    }
}
