//! `switchyard explain`: the distributed plan of one statement, without running it.
//!
//! It reads the catalog and the relations as a router does at its start, and plans as a session does.

use std::sync::Arc;

use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::control::{Control, PrepareError};
use crate::plan::{CacheContext, Context, Layer, NoParams, PlanCache, Values};
use crate::relations::SearchPath;
use crate::sql::Scan;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The installation could not be read.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// No such database.
    #[error("there is no database \"{0}\"")]
    NoDatabase(String),
    /// No server answered.
    #[error("no node of database \"{0}\" could be asked for its tables")]
    NoRelations(String),
    /// There must be one statement.
    #[error("there must be exactly one statement, and there are {0}")]
    NotOne(usize),
}

/// The plan of a statement.
#[derive(Debug)]
pub struct Explained {
    /// As text.
    pub plan: String,
    /// How long it takes to make it.
    pub times: Times,
}

/// How long a plan takes: medians.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// To scan and plan a text that is not in the plan cache.
    pub planned: Duration,
    /// To find the plan of one that is.
    pub found: Duration,
}

/// So often each is done to be timed.
const TIMED: usize = 501;
/// Bytes of the plan cache that is timed.
const CACHE: usize = 1 << 20;

/// Plans `sql` as a session of the first user in the default search path would, and prints the plan.
///
/// # Errors
/// [`ExplainError`]. A statement that is refused has a plan, which says so.
pub async fn explain(
    settings: Settings,
    database: Option<&str>,
    sql: &str,
) -> Result<Explained, ExplainError> {
    let first = settings.file.databases.first();
    let name = match (database, first) {
        (Some(name), _) => name.to_owned(),
        (None, Some(first)) => first.name.clone(),
        (None, None) => return Err(ExplainError::NoDatabase(String::new())),
    };
    let role = settings.monitor_user().map(|user| Arc::clone(&user.name));
    let (mut control, _handle) = Control::new(Arc::new(settings));
    control.prepare().await?;
    let topology = control.published().snapshot();
    let (is_ready, leaving) = (control.status().is_ready(), control.leaving());
    drop(control);
    leaving.await;
    let Some(database) = topology.database(&name) else {
        return Err(ExplainError::NoDatabase(name));
    };
    if !is_ready {
        return Err(ExplainError::NoRelations(name));
    }
    let mut scan = Scan::new();
    // A text that cannot be scanned has a plan too: the refusal.
    if scan.scan(sql.as_bytes()).is_ok() && scan.statements.len() != 1 {
        return Err(ExplainError::NotOne(scan.statements.len()));
    }
    let path = SearchPath::parse("\"$user\", public", role.as_deref().unwrap_or_default());
    let context = Context {
        relations: &database.relations,
        search_path: &path.unwrap_or_default(),
        temporary: &[],
        layer: Layer::Auto,
        given: &[],
        ahead: &[],
        in_trigger: false,
    };
    let plan = crate::plan::plan(sql, &scan, &context);
    let values = Values {
        sql: sql.as_bytes(),
        literals: &scan.literals,
        params: &NoParams,
    };
    let bound = plan.key_params.is_empty().then_some(&values);
    let (relations, bytes) = (&database.relations, sql.as_bytes());
    Ok(Explained {
        plan: crate::plan::explain::explain(&plan, relations, bytes, bound),
        times: times(sql, &context),
    })
}

/// Plans a text and finds its plan, again and again, as sessions do.
fn times(sql: &str, context: &Context<'_>) -> Times {
    let mut cache = PlanCache::new(CACHE);
    let id = cache.context(&CacheContext {
        database: "".into(),
        epoch: 0,
        role: "".into(),
        search_path: context.search_path.clone(),
        temporary: Vec::new(),
        layer: context.layer,
    });
    let mut scan = Scan::new();
    let planned = median(|| {
        // What cannot be scanned is planned, too.
        let _unreadable = scan.scan(sql.as_bytes());
        std::hint::black_box(crate::plan::plan(sql, &scan, context));
    });
    let plan = Arc::new(crate::plan::plan(sql, &scan, context));
    cache.insert(sql.as_bytes(), &scan, id, plan);
    let found = median(|| {
        let known = cache.recognise(sql.as_bytes(), &mut scan, id);
        if known.is_none()
            && scan.scan(sql.as_bytes()).is_ok()
            && let Some(plan) = cache.get(sql.as_bytes(), &scan, id)
        {
            cache.make_familiar(sql.as_bytes(), &scan, id, &plan);
        }
    });
    Times { planned, found }
}

fn median(mut act: impl FnMut()) -> Duration {
    let time = |()| {
        let begun = Instant::now();
        act();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = std::iter::repeat_n((), TIMED).map(time).collect();
    times.sort_unstable();
    times.get(TIMED / 2).copied().unwrap_or_default()
}
