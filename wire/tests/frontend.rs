//! Frontend messages: what is encoded decodes to the same, other implementations agree, nothing panics.

#![expect(
    clippy::unwrap_used,
    reason = "a test may; clippy does not see that its functions are tests"
)]

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend as other;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use switchyard_wire::frontend::{self, Bind, Kind, Message, SaslInitialResponse, encode};
use switchyard_wire::startup::{self, ProtocolVersion, StartupError, StartupPacket};
use switchyard_wire::{DecodeError, Format, frame};

/// A text without NUL.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..20))
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Text), Just(Format::Binary)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Statement), Just(Kind::Portal)]
}

/// Values with a list of formats that fits them.
fn formatted() -> impl Strategy<Value = (Vec<Format>, Vec<Option<Vec<u8>>>)> {
    vec(value(), 0..6).prop_flat_map(|values| {
        let n = values.len();
        let formats = prop_oneof![Just(0), Just(1), Just(n)].prop_flat_map(|n| vec(format(), n));
        (formats, Just(values))
    })
}

/// The one message in `bytes`.
fn only(bytes: &[u8]) -> Message<'_> {
    let whole = frame::split(bytes).unwrap().unwrap();
    assert!(whole.rest.is_empty());
    frontend::decode(whole.tag, whole.body).unwrap()
}

/// Decodes, encodes again, and compares; every cut of the body and every byte more must be noticed.
fn round_trip(bytes: &[u8]) {
    let message = only(bytes);
    let mut again = BytesMut::new();
    message.encode(&mut again);
    assert_eq!(&again[..], bytes);

    let open_ended = matches!(message, Message::CopyData(_) | Message::Password(_));
    let (tag, body) = (bytes[0], &bytes[frame::HEADER..]);
    for cut in 0..body.len() {
        assert!(
            open_ended || frontend::decode(tag, &body[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let longer = [body, b"\0"].concat();
    assert!(open_ended || frontend::decode(tag, &longer).is_err());
}

fn encoded(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut dst = BytesMut::new();
    write(&mut dst);
    dst
}

proptest! {
    #[test]
    fn texts(a in text(), b in text(), oids in vec(any::<u32>(), 0..5), rows: i32, kind in kind()) {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let (sa, sb) = (std::str::from_utf8(a).unwrap(), std::str::from_utf8(b).unwrap());
        let code = match kind { Kind::Statement => b'S', Kind::Portal => b'P' };
        let check = |ours: BytesMut, theirs: BytesMut| { round_trip(&ours); assert_eq!(ours, theirs); };

        check(encoded(|d| encode::query(d, a)), encoded(|d| other::query(sa, d).unwrap()));
        check(encoded(|d| encode::parse(d, a, b, &oids)), encoded(|d| other::parse(sa, sb, oids.clone(), d).unwrap()));
        check(encoded(|d| encode::describe(d, kind, a)), encoded(|d| other::describe(code, sa, d).unwrap()));
        check(encoded(|d| encode::close(d, kind, a)), encoded(|d| other::close(code, sa, d).unwrap()));
        check(encoded(|d| encode::execute(d, a, rows)), encoded(|d| other::execute(sa, rows, d).unwrap()));
        check(encoded(|d| encode::copy_fail(d, a)), encoded(|d| other::copy_fail(sa, d).unwrap()));
        check(encoded(|d| encode::password(d, a)), encoded(|d| other::password_message(a, d).unwrap()));

        let bytes = encoded(|d| encode::parse(d, a, b, &oids));
        let Message::Parse { name, sql, param_types } = only(&bytes) else { panic!() };
        prop_assert_eq!((name, sql), (a, b));
        prop_assert_eq!(param_types.iter().collect::<Vec<_>>(), oids);
        let bytes = encoded(|d| encode::password(d, a));
        let Message::Password(body) = only(&bytes) else { panic!() };
        prop_assert_eq!(frontend::password(body), Ok(a));
    }

    #[test]
    fn bind((formats, params) in formatted(), portal in text(), statement in text(), results in vec(format(), 0..4)) {
        let bytes = encoded(|d| {
            encode::bind(d, portal.as_bytes(), statement.as_bytes(), &formats, &params, &results);
        });
        round_trip(&bytes);
        let theirs = encoded(|d| {
            let write = |value: &Option<Vec<u8>>, dst: &mut BytesMut| Ok(match value {
                Some(value) => { dst.extend_from_slice(value); IsNull::No }
                None => IsNull::Yes,
            });
            let codes = |formats: &[Format]| formats.iter().map(|f| f.code()).collect::<Vec<_>>();
            assert!(other::bind(&portal, &statement, codes(&formats), &params, write, codes(&results), d).is_ok());
        });
        prop_assert_eq!(&bytes, &theirs);

        let Message::Bind(bound) = only(&bytes) else { panic!() };
        let mut renamed = BytesMut::new();
        encode::bind_like(&mut renamed, &bound, b"other");
        let other = encoded(|d| encode::bind(d, portal.as_bytes(), b"other", &formats, &params, &results));
        prop_assert_eq!(&renamed[..], &other[..]);
        let Bind { param_formats, params: found, result_formats, .. } = bound;
        prop_assert_eq!(found.iter().map(|v| v.map(<[u8]>::to_vec)).collect::<Vec<_>>(), params.clone());
        for (i, value) in params.iter().enumerate() {
            prop_assert_eq!(found.get(i), Some(value.as_deref()));
            let expected = match formats[..] { [] => Format::Text, [all] => all, ref each => each[i] };
            prop_assert_eq!(param_formats.format(i), expected);
        }
        prop_assert_eq!(found.get(params.len()), None);
        prop_assert_eq!(result_formats.iter().collect::<Vec<_>>(), results);
    }

    #[test]
    fn function_call((formats, args) in formatted(), function: u32, result in format()) {
        let bytes = encoded(|d| encode::function_call(d, function, &formats, &args, result));
        round_trip(&bytes);
        let Message::FunctionCall { function: f, args: a, result_format, .. } = only(&bytes) else { panic!() };
        prop_assert_eq!((f, a.len(), result_format), (function, args.len(), result));
    }

    #[test]
    fn data(data in vec(any::<u8>(), 0..50), mechanism in "[A-Z0-9-]{1,20}") {
        round_trip(&encoded(|d| encode::copy_data(d, &data)));
        let ours = encoded(|d| encode::sasl_response(d, &data));
        round_trip(&ours);
        prop_assert_eq!(ours, encoded(|d| other::sasl_response(&data, d).unwrap()));
        let ours = encoded(|d| encode::sasl_initial_response(d, mechanism.as_bytes(), Some(&data)));
        prop_assert_eq!(&ours, &encoded(|d| other::sasl_initial_response(&mechanism, &data, d).unwrap()));
        for (response, body) in [
            (Some(&data[..]), ours),
            (None, encoded(|d| encode::sasl_initial_response(d, mechanism.as_bytes(), None))),
        ] {
            let initial = SaslInitialResponse::decode(&body[frame::HEADER..]).unwrap();
            prop_assert_eq!(initial, SaslInitialResponse { mechanism: mechanism.as_bytes(), response });
        }
    }

    #[test]
    fn startup(params in vec(("[^\0]{1,8}", text()), 0..6), minor: u16) {
        let pairs = || params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let version = ProtocolVersion { major: 3, minor };
        let bytes = encoded(|d| {
            encode::startup(d, version, pairs().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        });
        prop_assert_eq!(startup::packet_len(&bytes), Ok(Some(bytes.len())));
        let Ok(StartupPacket::Startup { version: found, params: read }) = startup::decode_startup(&bytes[4..]) else {
            panic!()
        };
        prop_assert_eq!(found, version);
        let read: Vec<_> = read.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        let sent: Vec<_> = pairs().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        prop_assert_eq!(read, sent);
        for cut in 8..bytes.len() {
            prop_assert_eq!(startup::decode_startup(&bytes[4..cut]).is_ok(), false);
        }
        // The other implementation adds an encoding of its own, at the front.
        if minor == 0 {
            let theirs = encoded(|d| other::startup_message(pairs(), d).unwrap());
            prop_assert!(theirs.ends_with(&bytes[8..]));
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(tag: u8, body in vec(any::<u8>(), 0..200), shaped in shaped_body()) {
        for body in [body, shaped] {
            for tag in [tag].into_iter().chain(*b"BCEDFHPQSXcdfp") {
                if let Ok(message) = frontend::decode(tag, &body) {
                    let bytes = encoded(|d| message.encode(d));
                    assert_eq!(bytes.len(), body.len() + frame::HEADER);
                    let _ = format!("{message:?}");
                }
            }
            let _ = frame::split(&body);
            let _ = frontend::password(&body);
            let _ = SaslInitialResponse::decode(&body);
            let _ = startup::packet_len(&body);
            if let Ok(packet) = startup::decode_startup(&body) {
                let _ = format!("{packet:?}");
            }
        }
    }
}

/// Bytes made of what messages are made of: small counts, lengths, texts.
fn shaped_body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (-2i16..4).prop_map(|n| n.to_be_bytes().to_vec()),
        (-2i32..6).prop_map(|n| n.to_be_bytes().to_vec()),
        "[a-z]{0,3}\0".prop_map(String::into_bytes),
        any::<u8>().prop_map(|b| vec![b]),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

#[test]
fn messages_without_a_body() {
    type Write = fn(&mut BytesMut);
    let pairs: [(Write, Write); 4] = [
        (encode::sync, other::sync),
        (encode::flush, other::flush),
        (encode::terminate, other::terminate),
        (encode::copy_done, other::copy_done),
    ];
    for (ours, theirs) in pairs {
        round_trip(&encoded(ours));
        assert_eq!(encoded(ours), encoded(theirs));
    }
}

#[test]
fn packets_before_startup() {
    assert_eq!(encoded(encode::ssl_request), encoded(other::ssl_request));
    let decoded =
        |bytes: &BytesMut| startup::decode_startup(&bytes[4..]).map(|packet| format!("{packet:?}"));
    assert_eq!(decoded(&encoded(encode::ssl_request)), Ok("Ssl".to_owned()));
    assert_eq!(
        decoded(&encoded(encode::gss_enc_request)),
        Ok("GssEnc".to_owned())
    );

    let cancel = encoded(|d| encode::cancel_request(d, 77, &[1, 2, 3, 4]));
    assert_eq!(
        cancel,
        encoded(|d| other::cancel_request(77, 0x0102_0304, d))
    );
    for len in [0, 1, 4, 32, 256, 257] {
        let secret = vec![9; len];
        let bytes = encoded(|d| encode::cancel_request(d, -1, &secret));
        let expected = match len {
            1..=256 => Ok(StartupPacket::Cancel {
                pid: -1,
                secret: &secret,
            }),
            _ => Err(StartupError::CancelLength),
        };
        assert_eq!(startup::decode_startup(&bytes[4..]), expected, "{len}");
    }
}

#[test]
fn startup_lengths_have_postgresqls_bounds() {
    let len = |word: u32| startup::packet_len(&word.to_be_bytes());
    assert_eq!(startup::packet_len(&[0, 0, 0]), Ok(None));
    for bad in [0, 1, 4, 7, 10_005, 0x7fff_ffff, u32::MAX] {
        assert_eq!(len(bad), Err(StartupError::Length(bad)));
    }
    assert_eq!(len(8), Ok(Some(8)));
    assert_eq!(len(10_004), Ok(Some(10_004)));
    assert_eq!(
        startup::decode_startup(&[0; 10_001]),
        Err(StartupError::Length(10_001))
    );
}

#[test]
fn startup_layout_is_checked() {
    let with = |rest: &[u8]| startup::decode_startup(&[&[0, 3, 0, 0], rest].concat()).map(|_| ());
    assert_eq!(with(b"user\0x\0\0"), Ok(()));
    assert_eq!(with(b"\0"), Ok(()));
    for bad in [
        &b""[..],
        b"user",
        b"user\0",
        b"user\0x",
        b"user\0x\0",
        b"user\0x\0\0\0",
        b"user\0x\0\0more",
    ] {
        assert_eq!(with(bad), Err(StartupError::Layout), "{bad:?}");
    }
    // Of another major version only the number is known.
    let old = startup::decode_startup(&[0, 2, 0, 0, 1, 2, 3]);
    assert!(matches!(old, Ok(StartupPacket::Startup { version, .. }) if version.major == 2));
}

#[test]
fn startup_params_have_the_last_word_and_extensions() {
    let body = b"\0\x03\0\x02user\0a\0_pq_.x\x001\0user\0b\0\0";
    let Ok(StartupPacket::Startup { params, .. }) = startup::decode_startup(body) else {
        panic!()
    };
    assert_eq!(params.get("user"), Some(&b"b"[..]));
    assert_eq!(params.get("database"), None);
    assert_eq!(params.protocol_options().collect::<Vec<_>>(), [b"_pq_.x"]);
}

#[test]
fn errors_are_postgresqls() {
    let bind = |formats: &[u8]| {
        let body = [b"\0\0", formats, b"\0\x01\0\0\0\x01x\0\0"].concat();
        frontend::decode(b'B', &body)
            .map(|_| ())
            .map_err(|e| (e, e.sqlstate().to_string()))
    };
    assert_eq!(bind(&[0, 1, 0, 1]), Ok(()));
    assert_eq!(
        bind(&[0, 2, 0, 1, 0, 1]),
        Err((
            DecodeError::FormatCount {
                formats: 2,
                values: 1
            },
            "08P01".to_owned()
        ))
    );
    assert_eq!(
        bind(&[0, 1, 0, 7]),
        Err((DecodeError::UnsupportedFormat(7), "22023".to_owned()))
    );
    assert_eq!(
        frontend::decode(b'!', b""),
        Err(DecodeError::UnknownTag(b'!'))
    );
    assert_eq!(
        frontend::decode(b'D', b"X\0"),
        Err(DecodeError::Invalid("object kind"))
    );
}

#[test]
fn every_tag_has_its_limit() {
    for tag in 0..=u8::MAX {
        let known = !matches!(frontend::decode(tag, b""), Err(DecodeError::UnknownTag(_)));
        assert_eq!(
            frontend::max_length(tag).is_some(),
            known,
            "{}",
            char::from(tag)
        );
    }
    assert_eq!(frontend::max_length(b'S'), Some(10_000));
    assert_eq!(frontend::max_length(b'Q'), Some(0x3fff_ffff));
}
