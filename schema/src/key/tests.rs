//! Keys without a server. `tests/tests/hash.rs` compares far more with a real one.

use super::*;

fn text(key_type: KeyType, value: &str) -> Result<Key<'_>, KeyError> {
    Key::from_text(key_type, value.as_bytes())
}

fn hash(key_type: KeyType, value: &str) -> u64 {
    text(key_type, value).unwrap().hash_extended()
}

#[test]
fn types_have_their_oids() {
    for key_type in KeyType::ALL {
        assert_eq!(KeyType::from_oid(key_type.oid()), Some(key_type));
    }
    assert_eq!(KeyType::from_oid(0), None);
    assert_eq!(KeyType::from_oid(701), None);
}

#[test]
fn equal_values_hash_alike_however_they_are_written() {
    use KeyType::{Bool, Bpchar, Bytea, Numeric, Timestamp, Timestamptz, Uuid};
    let same = [
        (Numeric, "1.0", "1.00"),
        (Numeric, "1e2", "0100"),
        (Numeric, "-0.00", "0"),
        (Numeric, "10000", "1e4"),
        (Bpchar, "a", "a   "),
        (
            Uuid,
            "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ),
        (Bytea, "\\x6162", "ab"),
        (Timestamp, "2026-01-31", "2026-01-31T00:00"),
        (
            Timestamptz,
            "2026-01-31 02:00+02",
            "2026-01-30 20:30:00-03:30",
        ),
        (Bool, "yes", "1"),
    ];
    for (key_type, a, b) in same {
        assert_eq!(text(key_type, a), text(key_type, b), "{a} {b}");
        assert_eq!(hash(key_type, a), hash(key_type, b), "{a} {b}");
    }
    assert_eq!(hash(KeyType::Int2, "-7"), hash(KeyType::Int8, "-7"));
    assert_eq!(hash(KeyType::Text, "a"), hash(KeyType::Varchar, "a"));
    assert_ne!(hash(KeyType::Text, "a"), hash(KeyType::Text, "a "));
}

#[test]
fn what_depends_on_settings_clock_or_version_is_not_exact() {
    use KeyType::{Date, Int4, Numeric, Timestamp, Timestamptz};
    let uncertain = [
        (Date, "now"),
        (Date, "today"),
        (Date, "01/02/2026"),
        (Date, "26-01-02"),
        (Date, "2026-1-2"),
        (Date, "20260102"),
        (Date, "2026-01-02 10:00"),
        (Timestamp, "tomorrow"),
        (Timestamp, "2026-01-02 24:00"),
        (Timestamp, "2026-01-02 10:00:60"),
        (Timestamp, "2026-01-02 10:00:00.1234567"),
        (Timestamp, "2026-01-02 10:00 Europe/Berlin"),
        (Timestamptz, "2026-01-02 10:00"),
        (Timestamptz, "2026-01-02"),
        (Timestamptz, "2026-01-02 10:00 CET"),
        (Timestamptz, "epoch"),
        (Int4, "0x10"),
        (Int4, "1_000"),
        (Numeric, "0x10"),
        (Numeric, "1_000.5"),
        (Numeric, "1e99999"),
    ];
    for (key_type, value) in uncertain {
        assert_eq!(text(key_type, value), Err(KeyError::NotExact), "{value}");
    }
}

#[test]
fn what_every_server_refuses_is_invalid() {
    use KeyType::{Bool, Bytea, Date, Int2, Int4, Int8, Numeric, Timestamp, Uuid};
    let invalid = [
        (Int2, "32768"),
        (Int4, "2147483648"),
        (Int4, ""),
        (Int4, "-"),
        (Int4, "1.5"),
        (Int4, "five"),
        (Int8, "9223372036854775808"),
        (Int8, "99999999999999999999999999999999999999999999999999"),
        (Uuid, ""),
        (Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"),
        (Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111"),
        (Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1-"),
        (Bytea, "\\x1"),
        (Bytea, "\\x1g"),
        (Bytea, "a\\"),
        (Bytea, "\\400"),
        (Date, "2026-02-29"),
        (Date, "2026-13-01"),
        (Date, "0000-01-01"),
        (Date, "4714-11-23 BC"),
        (Timestamp, "294277-01-01"),
        (Numeric, ""),
        (Numeric, "."),
        (Numeric, "1.2.3"),
        (Numeric, "abc"),
        (Bool, "o"),
        (Bool, "2"),
        (Bool, ""),
    ];
    for (key_type, value) in invalid {
        assert_eq!(text(key_type, value), Err(KeyError::Invalid), "{value}");
    }
}

#[test]
fn binary_forms_are_checked() {
    use KeyType::{Bool, Date, Int2, Int4, Int8, Numeric, Timestamp, Uuid};
    let binary = |key_type, value: &[u8]| Key::from_binary(key_type, value).map(Key::into_owned);
    assert_eq!(binary(Int4, &[255, 255, 255, 254]), Ok(Key::Int(-2)));
    assert_eq!(binary(Bool, &[1]), Ok(Key::Bool(true)));
    for key_type in [Int2, Int4, Int8, Bool, Uuid, Date, Timestamp, Numeric] {
        assert_eq!(binary(key_type, &[]), Err(KeyError::Invalid));
        assert_eq!(binary(key_type, &[0; 17]), Err(KeyError::Invalid));
    }
    assert_eq!(
        binary(Date, &(i32::MAX - 1).to_be_bytes()),
        Err(KeyError::Invalid)
    );
    assert_eq!(
        binary(Date, &i32::MAX.to_be_bytes()),
        Ok(Key::Date(i32::MAX))
    );
    assert_eq!(
        binary(Timestamp, &(i64::MIN + 1).to_be_bytes()),
        Err(KeyError::Invalid)
    );
}

#[test]
fn binary_numerics_are_what_the_server_makes_of_them() {
    let numeric = |words: &[u16]| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
        Key::from_binary(KeyType::Numeric, &bytes).map(Key::into_owned)
    };
    let value = |value| text(KeyType::Numeric, value).map(Key::into_owned);
    // 12345.6: digits 1, 2345, 6000 of weight 1.
    assert_eq!(numeric(&[3, 1, 0, 1, 1, 2345, 6000]), value("12345.6"));
    assert_eq!(
        numeric(&[5, 2, 0x4000, 1, 0, 1, 2345, 6000, 0]),
        value("-12345.6")
    );
    assert_eq!(numeric(&[0, 0, 0x4000, 3]), value("0"));
    assert_eq!(numeric(&[0, 0, 0xC000, 0]), value("NaN"));
    // A display scale of 0 hides .6, and the server drops it.
    assert_eq!(
        numeric(&[3, 1, 0, 0, 1, 2345, 6000]),
        Err(KeyError::NotExact)
    );
    assert_eq!(numeric(&[2, 0, 0, 2, 1, 1]), Err(KeyError::NotExact));
    assert_eq!(numeric(&[1, 0, 0, 0, 10_000]), Err(KeyError::Invalid));
    assert_eq!(numeric(&[2, 0, 0, 0, 1]), Err(KeyError::Invalid));
    assert_eq!(numeric(&[0, 0, 0x1234, 0]), Err(KeyError::Invalid));
}

#[test]
fn numerics_are_ordered_by_value() {
    let ascending = [
        "-Infinity",
        "-1e30",
        "-10000.5",
        "-10000",
        "-1.5",
        "-1",
        "-0.0001",
        "0",
        "0.00001",
        "0.0001",
        "1",
        "1.0001",
        "1.5",
        "9999",
        "10000",
        "10000.0001",
        "1e30",
        "Infinity",
        "NaN",
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            let (a, b) = (
                text(KeyType::Numeric, a).unwrap(),
                text(KeyType::Numeric, b).unwrap(),
            );
            assert_eq!(a.compare(&b), Some(i.cmp(&j)), "{a:?} {b:?}");
        }
    }
}

#[test]
fn keys_of_two_families_do_not_compare() {
    assert_eq!(Key::Int(1).compare(&Key::Bool(true)), None);
    assert_ne!(Key::Int(1), Key::Date(1));
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for key_type in KeyType::ALL {
                for key in [Key::from_text(key_type, &bytes), Key::from_binary(key_type, &bytes)].into_iter().flatten() {
                    prop_assert!(key.is_of(key_type.family()));
                    prop_assert_eq!(key.compare(&key), Some(Ordering::Equal));
                    prop_assert_eq!(key.clone().into_owned(), key);
                }
            }
        }

        #[test]
        fn that_look_like_values_are_read_or_refused(text in "[-+0-9a-fxTZ:. eE_{}\\\\]{0,40}") {
            for key_type in KeyType::ALL {
                if let Ok(key) = Key::from_text(key_type, text.as_bytes()) {
                    let _ = key.hash_extended();
                    let _ = key.stored(key_type, 10);
                }
            }
        }
    }
}
