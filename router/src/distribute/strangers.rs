//! What keeps routers from a node that do not hear where rows are (ADR 0025): the epoch that it remembers, and the end of the connections that they have
//! made before.

use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_catalog::RouterId;
use tokio::time::{Instant, sleep};

use crate::config::Settings;
use crate::topology::link::{LINK_NAME, Link, LinkError, TextRow};

/// The longest that PostgreSQL may take to end them.
const HEED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Ends connections that were there at a moment, of some users, but for those that hold the lock of one of some routers. What a server does not say of other
/// users' connections is taken to be so.
const END: &str = "\
SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND ($THEIRS) AND a.application_name <> $LINKS
   AND coalesce(a.backend_type = 'client backend' AND a.backend_start <= $MOMENT, true)
   AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_locks l
        WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 1
          AND ((l.classid::pg_catalog.int8 << 32) | l.objid::pg_catalog.int8) = ANY ($ROUTERS))";

/// Whose connections these are: those of the configured users.
const OF_USERS: &str = "a.usename = ANY ($USERS)";

/// Where users are looked up, anybody may be a client, but for superusers, whose connections only they may end, and for replication.
const OF_ANYBODY: &str = "\
a.usename = ANY ($USERS)
   OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = a.usename AND NOT r.rolsuper AND NOT r.rolreplication)";

/// What a node remembers, also of what is set since its present connection began.
const REMEMBERED: &str = "\
SELECT pg_catalog.split_part(kept.setting, '=', 2)
  FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
       pg_catalog.unnest(s.setconfig) AS kept (setting)
 WHERE s.setrole = 0 AND d.datname = pg_catalog.current_database() AND kept.setting LIKE 'switchyard.epoch=%'";

/// Whether the user may set that.
const MAY_REMEMBER: &str = "\
SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// The epoch that a node remembers; 0 if it remembers none.
///
/// # Errors
/// [`LinkError`].
pub async fn remembered(link: &mut Link) -> Result<u64, LinkError> {
    let epoch = value(link.ask(REMEMBERED).await?);
    Ok(epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0))
}

/// Whether the user may have a primary remember one.
///
/// # Errors
/// [`LinkError`].
pub async fn may_remember(link: &mut Link) -> Result<bool, LinkError> {
    let may = value(link.ask(MAY_REMEMBER).await?);
    Ok(may.as_deref() != Some("f"))
}

/// Has a primary remember an epoch: connections that are made from then on are not used by who knows of none so new.
///
/// # Errors
/// [`LinkError`].
pub async fn remember(link: &mut Link, database: &str, epoch: u64) -> Result<(), LinkError> {
    let set = format!(
        "ALTER DATABASE {} SET switchyard.epoch = {}",
        escape_identifier(database),
        escape_literal(&epoch.to_string())
    );
    link.ask(&set).await?;
    Ok(())
}

fn value(rows: Vec<TextRow>) -> Option<String> {
    rows.into_iter().next()?.into_iter().next()?
}

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
    let moment = value(link.ask("SELECT pg_catalog.clock_timestamp()").await?);
    let moment = moment.ok_or(LinkError::Unexpected("the time"))?;
    let theirs = match settings.file.auth.lookup {
        Some(_) => OF_ANYBODY,
        None => OF_USERS,
    };
    let end = END
        .replace("$THEIRS", theirs)
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
