//! The prepared statements one backend connection holds, least recently used first out.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Server-side prepared statements by the router's own statement number, bounded.
///
/// Every distinct statement (text and parameter types) has one number in the whole router and is prepared under
/// `sy_<number>` on every connection that meets it, so that any connection can serve any client.
#[derive(Debug)]
pub struct PreparedSet {
    /// The one used last, while it is held: to use it again changes nothing. 0 is no statement's number.
    latest: u64,
    last_use: HashMap<u64, u64, Scatter>,
    clock: u64,
    limit: usize,
}

/// Spreads the statement numbers, which are the router's own and count up from 1: nobody can make them collide.
type Scatter = BuildHasherDefault<ScatterHasher>;

#[derive(Debug, Default)]
struct ScatterHasher(u64);

impl Hasher for ScatterHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl PreparedSet {
    /// An empty set that holds at most `limit` statements.
    pub fn new(limit: usize) -> Self {
        Self {
            latest: 0,
            last_use: HashMap::default(),
            clock: 0,
            limit: limit.max(1),
        }
    }

    /// Notes a use of `statement`: true when the connection already holds it.
    pub fn touch(&mut self, statement: u64) -> bool {
        if statement == self.latest {
            return true;
        }
        self.clock += 1;
        match self.last_use.get_mut(&statement) {
            Some(used) => {
                *used = self.clock;
                self.latest = statement;
                true
            }
            None => false,
        }
    }

    /// Notes that `statement` has been prepared. Returns the statement that must be closed to make room.
    pub fn insert(&mut self, statement: u64) -> Option<u64> {
        let evicted = (self.last_use.len() >= self.limit)
            .then(|| self.last_use.iter().min_by_key(|(_, used)| **used))
            .flatten()
            .map(|(oldest, _)| *oldest);
        if let Some(oldest) = evicted {
            self.last_use.remove(&oldest);
        }
        self.clock += 1;
        self.last_use.insert(statement, self.clock);
        self.latest = statement;
        evicted
    }

    /// Forgets `statement`, whose preparation failed.
    pub fn remove(&mut self, statement: u64) {
        self.last_use.remove(&statement);
        if statement == self.latest {
            self.latest = 0;
        }
    }

    /// Holds `statement` after all: it could not be closed. Whatever it was to make room for could not be prepared either.
    pub fn put_back(&mut self, statement: u64) {
        self.last_use.insert(statement, self.clock);
    }

    /// Forgets all, after `DISCARD ALL`.
    pub fn clear(&mut self) {
        self.last_use.clear();
        self.latest = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::PreparedSet;

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut set = PreparedSet::new(2);
        assert_eq!(set.insert(1), None);
        assert_eq!(set.insert(2), None);
        assert!(set.touch(1));
        assert_eq!(set.insert(3), Some(2));
        assert!(!set.touch(2));
        assert!(set.touch(1));
        assert!(set.touch(3));
    }

    #[test]
    fn what_is_forgotten_is_not_held_even_if_it_was_used_last() {
        let mut set = PreparedSet::new(2);
        set.insert(1);
        set.insert(2);
        set.remove(2);
        assert!(!set.touch(2));
        assert!(set.touch(1));
        set.insert(4);
        assert_eq!(set.insert(5), Some(1));
        set.remove(5);
        set.put_back(1);
        assert!(set.touch(1));
        assert_eq!(set.insert(6), Some(4));
        set.clear();
        assert!(!set.touch(1));
    }
}
