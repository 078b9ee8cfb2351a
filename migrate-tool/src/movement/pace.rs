//! How fast rows may move, and when: what whoever starts it says.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use futures_util::future::join_all;
use switchyard_router::topology::link::LinkError;

use super::visit::Visit;

/// What a replica has replayed, or a primary written, in bytes.
const POSITION: &str = "\
SELECT i.n, (CASE WHEN i.n THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END - '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8
  FROM (SELECT pg_catalog.pg_is_in_recovery()) AS i (n)";

const DAY: u64 = 24 * 60 * 60;

/// How rows are to move.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pace {
    /// About how many rows move in one transaction at most; they cannot be written meanwhile
    #[arg(long, value_name = "ROWS", default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) group_rows: u64,
    /// Which part of the time rows move while clients wait for them, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) busy: u32,
    /// Move rows between these times of a day only, by UTC
    #[arg(long, value_name = "HH:MM-HH:MM")]
    pub(crate) window: Option<Window>,
    /// Move no rows while a replica has so many megabytes of its primary's log still to replay
    #[arg(long, value_name = "MB")]
    pub(crate) max_lag: Option<u64>,
}

impl Pace {
    /// So long nothing is to move after a group that clients have waited for, and that has taken so long.
    pub(super) fn rest(&self, took: Duration) -> Duration {
        took * (100 - self.busy) / self.busy
    }

    /// Why nothing may move now.
    pub(super) async fn held_up(&self, visits: &mut [Visit]) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = now.map_or(0, |now| now.as_secs() % DAY);
        if let Some(window) = self.window.filter(|window| !window.is_open(second)) {
            return Some(format!("rows may move from {window} UTC only"));
        }
        let most = self.max_lag?;
        let (shard, lag) = furthest_behind(visits).await?;
        let lag = lag >> 20;
        (lag > most).then(|| format!("a replica of shard \"{shard}\" is {lag} MB behind"))
    }
}

/// The replica that has most to replay: its shard, and how many bytes. One that is away serves nobody.
async fn furthest_behind(visits: &mut [Visit]) -> Option<(String, u64)> {
    let asking = visits.iter_mut().map(async |visit| {
        let found = position(visit).await;
        found.map(|(is_replica, at)| (visit.shard, visit.name.clone(), is_replica, at))
    });
    let found: Vec<_> = join_all(asking).await.into_iter().flatten().collect();
    let primaries = found.iter().filter(|(.., is_replica, _)| !is_replica);
    let lags = primaries.flat_map(|(shard, name, _, written)| {
        let replicas = found.iter();
        let replicas =
            replicas.filter(move |(other, _, is_replica, _)| other == shard && *is_replica);
        replicas.map(move |(.., replayed)| (name.clone(), written.saturating_sub(*replayed)))
    });
    lags.max_by_key(|(_, lag)| *lag)
}

/// Whether a node is a replica, and how far it is.
async fn position(visit: &mut Visit) -> Result<(bool, u64), LinkError> {
    let row = visit.ask(POSITION).await?.pop().unwrap_or_default();
    let mut values = row.into_iter().flatten();
    let is_replica = values.next().as_deref() == Some("t");
    let at = values.next().and_then(|at| at.parse().ok());
    let at = at.ok_or(LinkError::Unexpected("how far it is"))?;
    Ok((is_replica, at))
}

/// A part of each day: its first second, and the first after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    from: u64,
    to: u64,
}

impl Window {
    /// Whether a second of the day is within it. One that ends before it begins lasts over midnight.
    fn is_open(self, second: u64) -> bool {
        let Self { from, to } = self;
        match from <= to {
            true => (from..to).contains(&second),
            false => second >= from || second < to,
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-');
        let ends = ends.and_then(|(from, to)| Some((time(from)?, time(to)?)));
        match ends {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            _ => Err("two different times, such as 22:00-06:30".to_owned()),
        }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |second: u64| format!("{:02}:{:02}", second / 3600, second / 60 % 60);
        write!(f, "{} to {}", time(self.from), time(self.to))
    }
}

/// The second of the day.
fn time(text: &str) -> Option<u64> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (u64, u64) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 3600 + minute * 60)
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::{Cluster, ClusterSpec};

    use super::super::tests::{server, visits};
    use super::*;

    fn opens(window: &str, times: &[(&str, bool)]) {
        let window: Window = window.parse().unwrap();
        for (at, open) in times {
            assert_eq!(window.is_open(time(at).unwrap()), *open, "{window} {at}");
        }
    }

    #[test]
    fn windows_open_and_close() {
        opens(
            "08:00-17:30",
            &[
                ("07:59", false),
                ("08:00", true),
                ("17:29", true),
                ("17:30", false),
            ],
        );
        opens(
            "22:00-06:00",
            &[
                ("21:59", false),
                ("22:00", true),
                ("00:00", true),
                ("06:00", false),
            ],
        );
        for wrong in [
            "",
            "08:00",
            "08:00-08:00",
            "24:00-01:00",
            "1-2",
            "01:60-02:00",
        ] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn replicas_that_are_behind_hold_rows_up() {
        let cluster = Cluster::start(ClusterSpec::for_tests(1, 1)).unwrap();
        let mut server = server(&cluster).await;
        let mut visits = visits(&cluster).await;
        let pace = |max_lag| Pace {
            max_lag: Some(max_lag),
            ..pace(100)
        };
        let shard = cluster.shard(0);
        let replica = shard.replicas[0].as_ref();
        let pause = "SELECT pg_wal_replay_pause()";
        cluster.superuser_sql(replica, "postgres", pause).unwrap();
        let write =
            "CREATE TABLE public.t AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)";
        server.ask(write).await.unwrap();
        let why = pace(1).held_up(&mut visits).await.unwrap();
        assert!(why.starts_with("a replica of shard \"s0\" is "), "{why}");
        assert_eq!(pace(100).held_up(&mut visits).await, None);
        let resume = "SELECT pg_wal_replay_resume()";
        cluster.superuser_sql(replica, "postgres", resume).unwrap();
        while pace(1).held_up(&mut visits).await.is_some() {}
    }

    fn pace(busy: u32) -> Pace {
        Pace {
            group_rows: 1,
            busy,
            window: None,
            max_lag: None,
        }
    }

    #[test]
    fn who_is_busy_half_of_the_time_rests_as_long() {
        let took = Duration::from_millis(90);
        let rests = [100, 50, 10].map(|busy| pace(busy).rest(took).as_millis());
        assert_eq!(rests, [0, 90, 810]);
    }
}
