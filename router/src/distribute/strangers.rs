//! Ends connections to a node that no router has made which hears where rows are (ADR 0025).

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use switchyard_catalog::RouterId;
use tokio::time::{Instant, sleep};

use crate::config::Settings;
use crate::topology::link::{LINK_NAME, Link, LinkError};

/// The longest that PostgreSQL may take to end them.
const HEED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Ends connections that were there at a moment, of some users, but for those that hold the lock of one of some routers. What a server does not say of other
/// users' connections is taken to be so.
const END: &str = "\
SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND a.usename = ANY ($USERS) AND a.application_name <> $LINKS
   AND coalesce(a.backend_type = 'client backend' AND a.backend_start <= $MOMENT, true)
   AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_locks l
        WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 1
          AND ((l.classid::pg_catalog.int8 << 32) | l.objid::pg_catalog.int8) = ANY ($ROUTERS))";

/// Ends the connections of the configured users to a node which are no connections of these routers: whoever has made them does not hear that rows move.
/// Only those that there are at first; those that come later have seen what the node says then.
///
/// # Errors
/// [`LinkError`]; also [`LinkError::Timeout`] if they do not end.
pub async fn end_strangers(
    link: &mut Link,
    settings: &Settings,
    routers: &[RouterId],
) -> Result<(), LinkError> {
    let users = settings.users.iter().map(|user| user.name.to_string());
    let routers = routers.iter().map(|router| router.0.to_string());
    let moment = link.ask("SELECT pg_catalog.clock_timestamp()").await?;
    let moment = moment
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().next()?);
    let moment = moment.ok_or(LinkError::Unexpected("the time"))?;
    let end = END
        .replace("$USERS", &array(users, "pg_catalog.name"))
        .replace("$LINKS", &escape_literal(LINK_NAME))
        .replace(
            "$MOMENT",
            &format!("{}::pg_catalog.timestamptz", escape_literal(&moment)),
        )
        .replace("$ROUTERS", &array(routers, "pg_catalog.int8"));
    let began = Instant::now();
    loop {
        let ended = link.ask(&end).await?;
        if ended.is_empty() {
            return Ok(());
        }
        tracing::info!(
            connections = ended.len(),
            "connections that do not hear where rows are have been ended"
        );
        if began.elapsed() > HEED {
            return Err(LinkError::Timeout);
        }
        sleep(PAUSE).await;
    }
}

fn array(values: impl Iterator<Item = String>, of: &str) -> String {
    let values: Vec<String> = values.map(|value| escape_literal(&value)).collect();
    format!("ARRAY[{}]::{of}[]", values.join(", "))
}
