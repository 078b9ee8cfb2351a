//! Asking a server's session what it remembers of sequences, before the connection is lent to others.

use std::str::FromStr;

use switchyard_wire::SqlState;
use switchyard_wire::frontend::encode;

use crate::backend::{Connection, QueryError};
use crate::execute::participant::HAVE_ON_DISK;
use crate::plan::remembered::Remembered;

/// Asks for the values of these sequences, and has the server forget them; `durable`: and has their values on its disk. One of which it
/// remembers nothing was not used. False if an answer is missing.
pub(crate) async fn remember(
    connection: &mut Connection,
    (sequences, durable): (&[Box<str>], bool),
    remembered: &mut Remembered,
) -> bool {
    let mut learnt = Vec::with_capacity(sequences.len());
    match ask(connection, (sequences, durable), &mut learnt).await {
        Ok((last, all)) => {
            remembered.learn(&learnt, last);
            all
        }
        Err(_) => {
            connection.broken = true;
            false
        }
    }
}

/// The last value of all, and whether nothing is missing.
async fn ask(
    connection: &mut Connection,
    (sequences, durable): (&[Box<str>], bool),
    values: &mut Vec<(u32, i64)>,
) -> Result<(Option<i64>, bool), QueryError> {
    let mut queries = vec!["SELECT pg_catalog.lastval()".to_owned()];
    queries.extend(sequences.iter().map(|of| {
        format!("SELECT ({of})::pg_catalog.regclass::pg_catalog.oid, pg_catalog.currval({of})")
    }));
    queries.extend(durable.then(|| HAVE_ON_DISK.to_owned()));
    queries.push("DISCARD SEQUENCES".to_owned());
    // One after the other they fail by themselves, and all are sent at once.
    for query in &queries {
        encode::query(&mut connection.output, query.as_bytes());
    }
    connection.unnamed = None;
    connection.broken = true;
    connection.flush().await?;
    let (mut last, mut all, mut forgotten) = (None, true, false);
    for position in 0..queries.len() {
        connection.broken = true;
        let rows = match connection.query_answer().await {
            Ok(rows) => rows,
            Err(QueryError::Server { sqlstate, .. }) => {
                all &= sqlstate == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
                forgotten = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        match rows.first().map(Vec::as_slice) {
            Some([value]) if position == 0 => last = parsed(value.as_deref()),
            Some([sequence, value]) => {
                values.extend(parsed(sequence.as_deref()).zip(parsed(value.as_deref())));
            }
            _ => {}
        }
        forgotten = true;
    }
    connection.sequences = !forgotten;
    Ok((last, all))
}

fn parsed<T: FromStr>(value: Option<&str>) -> Option<T> {
    value?.parse().ok()
}
