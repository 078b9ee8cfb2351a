//! What arrives costs no memory but what it was read into: decoding allocates nothing, whatever lengths and counts the bytes
//! claim, and SCRAM no more than a few times what was said.

use allocation_counter::measure;
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use switchyard_wire::scram::{ClientBinding, Nonce, ScramClient, ScramServer, Verifier};
use switchyard_wire::{backend, frame, frontend, startup};

/// Bytes with a shape that decoders follow: counts and lengths, small, negative and enormous, between text.
fn shaped() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop_oneof![-2_i16..4, any::<i16>()].prop_map(|n| n.to_be_bytes().to_vec()),
        prop_oneof![-2_i32..13, any::<i32>(), Just(i32::MAX)]
            .prop_map(|n| n.to_be_bytes().to_vec()),
        "[a-z_.]{0,5}\0".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..8),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// How many times `run` asked for memory.
fn requests<T>(run: impl FnOnce() -> T) -> u64 {
    let measured = measure(|| drop(std::hint::black_box(run())));
    measured.count_total
}

proptest! {
    #[test]
    fn decoding_allocates_nothing(body in shaped()) {
        for tag in 0..=u8::MAX {
            prop_assert_eq!(requests(|| frontend::decode(tag, &body).is_ok()), 0);
            prop_assert_eq!(requests(|| backend::decode(tag, &body).is_ok()), 0);
        }
        prop_assert_eq!(requests(|| startup::decode_startup(&body).is_ok()), 0);
        prop_assert_eq!(requests(|| frame::split(&body).is_ok()), 0);
    }

    #[test]
    fn walking_what_was_decoded_allocates_nothing(body in shaped()) {
        let walked = requests(|| {
            if let Ok(frontend::Message::Bind(bind)) = frontend::decode(b'B', &body) {
                assert_eq!(bind.params.iter().count(), bind.params.len());
            }
            if let Ok(backend::Message::DataRow(row)) = backend::decode(b'D', &body) {
                assert_eq!(row.iter().count(), row.len());
            }
            if let Ok(backend::Message::RowDescription(columns)) = backend::decode(b'T', &body) {
                assert_eq!(columns.iter().count(), columns.len());
            }
        });
        prop_assert_eq!(walked, 0);
    }

    #[test]
    fn scram_keeps_little_more_than_was_said(
        said in prop_oneof![vec(any::<u8>(), 0..400), "n,,n=,r=[!-+]{0,300}".prop_map(String::into_bytes)]
    ) {
        let nonce = Nonce::new("rOprNGfwEbeRWgbNEkqO").unwrap();
        let verifier = Verifier::mock(&[7; 32], b"nobody");
        let server = ScramServer::new(verifier, nonce.clone(), None);
        let used = measure(|| drop(server.client_first(b"SCRAM-SHA-256", &said)));
        prop_assert!(used.bytes_max <= 1024 + 4 * said.len() as u64, "{used:?}");
        let client = ScramClient::new("user", nonce, ClientBinding::Unsupported);
        let used = measure(|| drop(client.server_first(&said)));
        prop_assert!(used.bytes_max <= 1024 + 4 * said.len() as u64, "{used:?}");
    }
}

/// The measure measures: encoding into an empty buffer has to ask for memory.
#[test]
fn what_allocates_is_seen() {
    let asked = requests(|| frontend::encode::query(&mut BytesMut::new(), b"SELECT 1"));
    assert!(asked > 0);
}
