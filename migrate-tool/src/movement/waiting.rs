//! Clients that wait for rows on their way: they say how large groups may be, and a large one gives way to them.

use std::time::Duration;

use switchyard_router::distribute::switchover::MAY_BE_CANCELLED;
use switchyard_schema::ShardIndex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::visit::Visit;
use crate::servers::{Server, ServerError};

/// So long clients may wait for rows of a large group.
const BEARABLE: Duration = Duration::from_millis(150);
/// Between two looks whether there are any.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether somebody waits for what this session has locked.
const AWAITED: &str = "\
SELECT FROM pg_catalog.pg_locks w WHERE NOT w.granted AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(w.pid)) LIMIT 1";

/// Cancels a session if somebody waits for what it has locked.
const GIVE_WAY: &str = "\
SELECT pg_catalog.pg_cancel_backend($PID)
  FROM (SELECT FROM pg_catalog.pg_locks w WHERE NOT w.granted AND $PID = ANY (pg_catalog.pg_blocking_pids(w.pid))
           AND NOT pg_catalog.pg_is_in_recovery() LIMIT 1) AS awaited";

/// Whether clients wait for what sessions have locked on these servers.
pub(super) async fn is_awaited(
    (one, other): (&mut Server, &mut Server),
) -> Result<bool, ServerError> {
    let (one, other) = tokio::join!(one.ask(AWAITED), other.ask(AWAITED));
    Ok(!one?.is_empty() || !other?.is_empty())
}

/// Who is cancelled for the sake of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Who waits for rows that have been taken away: he would find them gone, and silently change nothing. He has their table, so that it cannot be had before.
    OfRows,
    /// Whoever waits, for tables also.
    OfTables,
}

/// Cancels who waits for what a session has locked, or is about to.
const CLEAR: &str = "\
SELECT pg_catalog.pg_cancel_backend(w.pid) FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted AND locktype <> ALL ($SPARED)) AS w
 WHERE $PID = ANY (pg_catalog.pg_blocking_pids(w.pid)) AND NOT pg_catalog.pg_is_in_recovery() AND $MAY";

/// Does what waits for tables by sessions of shards, while those who wait for them are cancelled: clients hear of it in blocks only, by 40001. Whether there were any.
pub(super) async fn clearing_the_way<T>(
    work: impl Future<Output = T>,
    sessions: [(ShardIndex, i32); 2],
    way: Way,
    visits: &mut [Visit],
) -> (T, bool) {
    let over = Notify::new();
    let spared = match way {
        Way::OfRows => "'{relation}'",
        Way::OfTables => "'{}'",
    };
    let clear = CLEAR
        .replace("$SPARED", spared)
        .replace("$MAY", MAY_BE_CANCELLED);
    let clearing = async {
        let mut were_any = false;
        loop {
            for (shard, pid) in sessions {
                let clear = clear.replace("$PID", &pid.to_string());
                for visit in visits.iter_mut().filter(|visit| visit.shard == shard) {
                    match visit.ask(&clear).await {
                        Ok(cancelled) => were_any |= !cancelled.is_empty(),
                        Err(reason) => {
                            tracing::warn!(%reason, "cannot cancel what waits for rows that move");
                            return were_any;
                        }
                    }
                }
            }
            if timeout(PAUSE, over.notified()).await.is_ok() {
                return were_any;
            }
        }
    };
    let working = async {
        let done = work.await;
        over.notify_one();
        done
    };
    tokio::join!(working, clearing)
}

/// Does what takes rows away by the session `pid` of a shard. Once that has lasted longer than clients may wait, and one does, the session is
/// cancelled, so that `work` fails by 57014.
pub(super) async fn giving_way<T>(
    work: impl Future<Output = T>,
    (shard, pid): (ShardIndex, i32),
    visits: &mut [Visit],
) -> T {
    let over = Notify::new();
    let watching = async {
        let give_way = GIVE_WAY.replace("$PID", &pid.to_string());
        let mut pause = BEARABLE;
        // An answer is waited for even when the work is done: the connection is of use again.
        while timeout(pause, over.notified()).await.is_err() {
            pause = PAUSE;
            for visit in visits.iter_mut().filter(|visit| visit.shard == shard) {
                match visit.ask(&give_way).await {
                    Ok(rows) if rows.is_empty() => {}
                    Ok(_) => return,
                    Err(reason) => {
                        tracing::warn!(%reason, "cannot look who waits for rows that move");
                        return;
                    }
                }
            }
        }
    };
    let working = async {
        let done = work.await;
        over.notify_one();
        done
    };
    tokio::join!(working, watching).0
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::{Cluster, ClusterSpec};

    use super::super::tests::{server, visits};
    use super::*;

    /// The longest statement that is seen to end.
    const LONG: &str = "SELECT pg_catalog.pg_sleep(60)";

    #[tokio::test]
    async fn who_waits_is_given_way_to() {
        let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
        let mut moving = server(&cluster).await;
        let mut client = server(&cluster).await;
        let mut visits = visits(&cluster).await;
        let rows = "CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1), (2)";
        moving.ask(rows).await.unwrap();
        let taken = "BEGIN; DELETE FROM public.t WHERE id = 1";
        moving.ask(taken).await.unwrap();
        let pid = (moving.shard, moving.link.target().pid());
        // Nobody does, for longer than clients might wait.
        let slow = format!(
            "SELECT pg_catalog.pg_sleep({})",
            BEARABLE.as_secs_f64() * 2.0
        );
        let alone = giving_way(moving.ask(&slow), pid, &mut visits).await;
        assert_eq!(alone.unwrap().len(), 1);
        client
            .ask("DELETE FROM public.t WHERE id = 2")
            .await
            .unwrap();
        assert!(!is_awaited((&mut moving, &mut client)).await.unwrap());
        // Somebody does.
        let (given, waited) = tokio::join!(
            giving_way(moving.ask(LONG), pid, &mut visits),
            client.ask("DELETE FROM public.t WHERE id = 1 RETURNING id")
        );
        assert_eq!(given.unwrap_err().sqlstate(), Some("57014"));
        assert_eq!(waited.unwrap(), [[Some("1".to_owned())]]);
        // The connection that looked is of use.
        visits[0].ask("SELECT").await.unwrap();
    }
}
