//! What `[[databases]]` and `[[users]]` say of their pools.

use super::reader::Section;
use crate::model::PoolMode;
use crate::pooling::PoolRules;

/// The most connections that can be asked for.
pub(super) const MOST: u32 = 10_000;

/// The most clients that there may be.
pub(super) const MOST_CLIENTS: u32 = 1_000_000;

/// The keys that both have; `max` and `max_clients` are what each calls its limits on connections to servers and of clients.
pub(super) fn rules(
    section: &mut Section<'_>,
    max: &'static str,
    max_clients: &'static str,
) -> PoolRules {
    let modes = PoolMode::ALL.map(|mode| (mode.name(), mode));
    let mode = section.get("pool_mode");
    let mut limit = |key, least, most| section.get(key).and_then(|item| item.integer(least..=most));
    let max_clients = limit(max_clients, 0, MOST_CLIENTS);
    let mut number = |key, least| limit(key, least, MOST);
    PoolRules {
        mode: mode.and_then(|item| item.choice(&modes)),
        size: number("pool_size", 1),
        min_size: number("min_pool_size", 0),
        reserve_size: number("reserve_pool_size", 0),
        max_connections: number(max, 0),
        max_clients,
    }
}
