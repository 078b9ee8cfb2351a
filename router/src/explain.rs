//! `switchyard explain`: the distributed plan of one statement, without running it.
//!
//! It reads the catalog and the relations as a router does at its start, and plans as a session does.

use std::sync::Arc;

use crate::config::Settings;
use crate::control::{Control, PrepareError};
use crate::plan::{Context, Layer, NoParams, Values};
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

/// Plans `sql` as a session of the first user in the default search path would, and prints the plan.
///
/// # Errors
/// [`ExplainError`]. A statement that is refused has a plan, which says so.
pub async fn explain(
    settings: Settings,
    database: Option<&str>,
    sql: &str,
) -> Result<String, ExplainError> {
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
    let Some(database) = topology.database(&name) else {
        return Err(ExplainError::NoDatabase(name));
    };
    if !control.status().is_ready() {
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
    };
    let plan = crate::plan::plan(sql, &scan, &context);
    let values = Values {
        sql: sql.as_bytes(),
        literals: &scan.literals,
        params: &NoParams,
    };
    let bound = plan.key_params.is_empty().then_some(&values);
    Ok(crate::plan::explain::explain(
        &plan,
        &database.relations,
        sql.as_bytes(),
        bound,
    ))
}
