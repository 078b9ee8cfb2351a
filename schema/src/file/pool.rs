//! What `[[databases]]` and `[[users]]` say of their pools.

use super::reader::Section;
use crate::model::PoolMode;
use crate::pooling::PoolRules;

/// The most connections that can be asked for.
pub(super) const MOST: u32 = 10_000;

/// The keys that both have; `max` is what each calls its limit on connections.
pub(super) fn rules(section: &mut Section<'_>, max: &'static str) -> PoolRules {
    let modes = PoolMode::ALL.map(|mode| (mode.name(), mode));
    let mode = section.get("pool_mode");
    let mut number = |key, least| section.get(key).and_then(|item| item.integer(least..=MOST));
    PoolRules {
        mode: mode.and_then(|item| item.choice(&modes)),
        size: number("pool_size", 1),
        min_size: number("min_pool_size", 0),
        reserve_size: number("reserve_pool_size", 0),
        max_connections: number(max, 0),
    }
}
