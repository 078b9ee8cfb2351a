//! The value of a shard key in PostgreSQL's text or binary form: what is read is one value, equal to itself, in one bucket.
//! The first byte says which type and which form.

#![no_main]

use std::cmp::Ordering;

use libfuzzer_sys::fuzz_target;
use switchyard_schema::{Bucket, Key, KeyType};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, value)) = data.split_first() else {
        return;
    };
    let key_type = KeyType::ALL[usize::from(choice >> 1) % KeyType::ALL.len()];
    let read = match choice & 1 {
        0 => Key::from_text(key_type, value),
        _ => Key::from_binary(key_type, value),
    };
    let Ok(key) = read else {
        return;
    };
    assert!(key.is_of(key_type.family()));
    assert_eq!(key.compare(&key), Some(Ordering::Equal));
    let bucket = Bucket::of(Some(&key));
    let owned = key.clone().into_owned();
    assert_eq!(owned, key);
    assert_eq!(Bucket::of(Some(&owned)), bucket);
});
