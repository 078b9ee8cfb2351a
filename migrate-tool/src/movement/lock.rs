//! Tables locked on both shards, though clients' transactions have one after the other of them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Error;
use super::visit::Visit;
use super::waiting::{Way, clearing_the_way};
use crate::servers::{Server, ServerError};

/// The longest that tables are waited for at a time, while everybody else has to wait behind us.
const TURN: Duration = Duration::from_millis(100);
/// After so long a turn is given up in which somebody waits for us whom we wait for.
const DEADLOCK: Duration = Duration::from_millis(50);
/// So long nobody is cancelled for having a table, but who waits for rows besides.
const POLITE: Duration = Duration::from_secs(2);
/// The longest that tables are waited for at a time then.
const LONG_TURN: Duration = Duration::from_secs(1);
/// Between two turns others have so many times as long as a turn has taken, but no longer than this.
const SHARE: u32 = 2;
const PAUSE: Duration = Duration::from_millis(200);
/// The longest that tables are waited for in all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Locks tables on both shards. Others wait no longer than a turn for each attempt. A table that is not to be had comes before the others the next time: so their order becomes
/// the one in which clients' transactions have them, who then need none of those that we have. Where there is no such order, those who wait for us are cancelled in the end: they
/// have some of the tables, and we the others. Whether there was anybody who waited for rows.
pub(super) async fn lock(
    tables: &mut [String],
    (source, target): (&mut Server, &mut Server),
    visits: &mut [Visit],
) -> Result<bool, Error> {
    let mut were_awaited = false;
    if tables.is_empty() {
        return Ok(were_awaited);
    }
    let sessions = [&*source, &*target].map(|server| (server.shard, server.link.target().pid()));
    let began = Instant::now();
    loop {
        let turn = Instant::now();
        let (limits, way) = match began.elapsed() < POLITE {
            true => ((TURN, DEADLOCK), Way::OfRows),
            false => ((LONG_TURN, LONG_TURN * 2), Way::OfTables),
        };
        let locking = lock_all(tables, (source, target), limits);
        let (busy, were_any) = clearing_the_way(locking, sessions, way, visits).await;
        were_awaited |= were_any;
        let Some(busy) = busy? else {
            return Ok(were_awaited);
        };
        if began.elapsed() > PATIENCE {
            return Err(Error::Busy);
        }
        if let Some(first) = tables.get_mut(..=busy) {
            first.rotate_right(1);
        }
        source.ask("ROLLBACK TO turn").await?;
        target.ask("ROLLBACK TO turn").await?;
        sleep(PAUSE.min(turn.elapsed() * SHARE)).await;
    }
}

/// Locks one table after the other, all of them within a turn. The place of one that somebody else has for longer.
async fn lock_all(
    tables: &[String],
    (source, target): (&mut Server, &mut Server),
    (turn, deadlock): (Duration, Duration),
) -> Result<Option<usize>, ServerError> {
    let began = Instant::now();
    let deadlock = deadlock.as_millis();
    let begin = format!("SAVEPOINT turn; SET LOCAL deadlock_timeout = '{deadlock}ms'");
    source.ask(&begin).await?;
    target.ask(&begin).await?;
    for (place, table) in tables.iter().enumerate() {
        // Zero would be no limit.
        let left = turn.saturating_sub(began.elapsed()).as_millis().max(1);
        let lock = format!(
            "SET LOCAL lock_timeout = '{left}ms'; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        );
        let (at_source, at_target) = tokio::join!(source.ask(&lock), target.ask(&lock));
        match at_source.and(at_target) {
            Ok(_) => {}
            Err(error) if is_busy(&error) => return Ok(Some(place)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a table is somebody else's for longer than a turn.
fn is_busy(error: &ServerError) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01"))
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::{Cluster, ClusterSpec, MOVING_RIGHTS};

    use super::super::group::BEGIN;
    use super::super::tests::{server, visits};
    use super::*;

    #[tokio::test]
    async fn tables_are_locked_in_the_order_in_which_clients_have_them() {
        let one = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
        let other = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
        for cluster in [&one, &other] {
            let node = cluster.shard(0).primary.as_ref();
            cluster.superuser_sql(node, "shop", MOVING_RIGHTS).unwrap();
        }
        let (mut source, mut target) = (server(&one).await, server(&other).await);
        let mut client = server(&one).await;
        let mut visits = visits(&one).await;
        for server in [&mut source, &mut target] {
            let tables = "CREATE TABLE public.a (); CREATE TABLE public.b ()";
            server.ask(tables).await.unwrap();
            server.ask(BEGIN).await.unwrap();
        }
        client
            .ask("BEGIN; LOCK TABLE public.b IN ROW EXCLUSIVE MODE")
            .await
            .unwrap();
        let mut order = ["public.a", "public.b"].map(str::to_owned);
        // It waits for the other that we have, until we let go of it.
        let second = "LOCK TABLE public.a IN ROW EXCLUSIVE MODE";
        let working = async {
            eventually_waits(&one).await;
            client.ask(second).await.unwrap();
            client.ask("COMMIT").await.unwrap();
        };
        let locking = lock(&mut order, (&mut source, &mut target), &mut visits);
        let (locked, ()) = tokio::join!(locking, working);
        locked.unwrap();
        assert_eq!(order, ["public.b", "public.a"]);
    }

    /// Until somebody waits for a table.
    async fn eventually_waits(cluster: &Cluster) {
        let mut server = server(cluster).await;
        let waiting = "SELECT FROM pg_catalog.pg_locks WHERE NOT granted AND locktype = 'relation'";
        while server.ask(waiting).await.unwrap().is_empty() {}
    }
}
