//! How long the router takes to plan a join of five tables, and to find its plan again: as `switchyard explain --times` says.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gate::Gate;
use crate::{Error, router};

/// Five tables, by their keys and by others.
const JOIN: &str = "SELECT c_name, o_orderdate, l_quantity, s_name, n_name \
    FROM customer JOIN orders ON o_custkey = c_custkey JOIN lineitem ON l_orderkey = o_orderkey \
    JOIN supplier ON s_suppkey = l_suppkey JOIN nation ON n_nationkey = s_nationkey \
    WHERE c_custkey = 42 AND o_orderdate >= '1995-01-01' AND l_quantity > 10";

/// At most so many microseconds to plan it,
const PLANNED: f64 = 100.0;
/// and to find its plan.
const FOUND: f64 = 3.0;

/// Microseconds, medians.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Planning {
    /// To plan it.
    pub(crate) planned_us: f64,
    /// To find its plan in the cache.
    pub(crate) found_us: f64,
}

#[derive(Deserialize)]
struct Explained {
    times: Planning,
}

/// Measures with the configuration of a router that runs.
pub(super) fn measure(config: &Path) -> Result<Planning, Error> {
    let text = router::explain(config, JOIN)?;
    let explained: Explained = serde_json::from_str(&text).map_err(|error| {
        Error::io("read what the router explains")(std::io::Error::other(error))
    })?;
    Ok(explained.times)
}

impl Planning {
    /// The demands, and whether they are met.
    pub(crate) fn gates(self) -> [Gate; 2] {
        [
            Gate::at_most("µs to plan a join of five tables", self.planned_us, PLANNED),
            Gate::at_most("µs to find its plan", self.found_us, FOUND),
        ]
    }
}
