//! Any text as a configuration file: it is read, or each problem has a place; what is read stands by its own rules.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_schema::{BucketMap, Config, Role};

fuzz_target!(|text: &str| {
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.to_string().is_empty());
            }
            return;
        }
    };
    assert!(!config.databases.is_empty() && !config.users.is_empty());
    for database in &config.databases {
        let map = BucketMap::place(&database.weights());
        let owned: usize = map.counts(database.shards.len()).iter().sum();
        assert_eq!(owned, switchyard_schema::BUCKETS);
        for shard in &database.shards {
            let primaries = shard.nodes.iter().filter(|node| node.role == Role::Primary);
            assert_eq!(primaries.count(), 1);
        }
    }
});
