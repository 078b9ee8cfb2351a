//! PostgreSQL's extended hash functions, in safe Rust.
//!
//! The same function a shard can call on its own rows: `hashint8extended`, `hashtextextended` and the rest, all built on
//! `hash_bytes_extended` (Bob Jenkins' lookup3 with a 64-bit seed, `src/common/hashfn.c` in PostgreSQL). The results equal
//! those of a little-endian server, which every supported platform is. [`SEED`] is fixed for ever: it decides where rows live.

/// The seed of every shard key hash: the bytes `SWITCHYD` read as a big-endian integer, 6005349254376741188 in SQL.
///
/// Not zero, lest the low bits that choose a bucket also choose the slot in the hash tables of joins and aggregates on the
/// shard; not the seed of `PARTITION BY HASH`, lest a hash-partitioned table on a shard fill only some of its partitions.
pub const SEED: u64 = u64::from_be_bytes(*b"SWITCHYD");

/// `hash_bytes_extended`: the hash of text, bytea, uuid and the digits of numeric.
#[must_use]
pub fn bytes(data: &[u8], seed: u64) -> u64 {
    let mut state = State::new(data.len() as u32, seed);
    let mut chunks = data.chunks_exact(12);
    for chunk in &mut chunks {
        state.a = state.a.wrapping_add(word(&chunk[0..4]));
        state.b = state.b.wrapping_add(word(&chunk[4..8]));
        state.c = state.c.wrapping_add(word(&chunk[8..12]));
        state.mix();
    }
    let tail = chunks.remainder();
    let part = |from: usize| &tail[tail.len().min(from)..tail.len().min(from + 4)];
    state.a = state.a.wrapping_add(word(part(0)));
    state.b = state.b.wrapping_add(word(part(4)));
    // The lowest byte of c is kept for the length, which the initial state holds.
    state.c = state.c.wrapping_add(word(part(8)) << 8);
    state.finish()
}

/// `hash_bytes_uint32_extended`: the hash of a 32-bit value.
#[must_use]
pub fn uint32(value: u32, seed: u64) -> u64 {
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(value);
    state.finish()
}

/// `hashint8extended`, which equals `hashint4extended` and `hashint2extended` for the values those types hold.
#[must_use]
pub fn int8(value: i64, seed: u64) -> u64 {
    let (low, high) = (value as u32, (value >> 32) as u32);
    uint32(low ^ if value >= 0 { high } else { !high }, seed)
}

/// Up to four bytes as a little-endian word.
fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

/// The three words of lookup3.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(len: u32, seed: u64) -> Self {
        let start = 0x9e37_79b9_u32.wrapping_add(len).wrapping_add(3_923_095);
        let mut state = Self {
            a: start,
            b: start,
            c: start,
        };
        if seed != 0 {
            state.a = state.a.wrapping_add((seed >> 32) as u32);
            state.b = state.b.wrapping_add(seed as u32);
            state.mix();
        }
        state
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        let step = |x: &mut u32, y: &mut u32, z: &mut u32, bits: u32| {
            *x = x.wrapping_sub(*z) ^ z.rotate_left(bits);
            *z = z.wrapping_add(*y);
        };
        step(a, b, c, 4);
        step(b, c, a, 6);
        step(c, a, b, 8);
        step(a, b, c, 16);
        step(b, c, a, 19);
        step(c, a, b, 4);
    }

    fn finish(self) -> u64 {
        let Self {
            mut a,
            mut b,
            mut c,
        } = self;
        let step = |x: &mut u32, y: u32, bits: u32| {
            *x = (*x ^ y).wrapping_sub(y.rotate_left(bits));
        };
        step(&mut c, b, 14);
        step(&mut a, c, 11);
        step(&mut b, a, 25);
        step(&mut c, b, 16);
        step(&mut a, c, 4);
        step(&mut b, a, 14);
        step(&mut c, b, 24);
        (u64::from(b) << 32) | u64::from(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of a PostgreSQL 15 server; `tests/tests/hash.rs` asks a real one about far more.
    #[test]
    fn equals_the_server() {
        assert_eq!(SEED, 6_005_349_254_376_741_188);
        assert_eq!(
            int8(42, 6_005_140_434_562_832_708) as i64,
            7_381_305_132_148_897_029
        );
        assert_eq!(bytes(b"x", 0) as i64, -474_845_166_489_675_639);
    }

    #[test]
    fn integers_of_all_widths_hash_alike() {
        for value in [0, 1, -1, i32::MIN, i32::MAX] {
            assert_eq!(int8(value.into(), SEED), uint32(value as u32, SEED));
        }
    }
}
