//! Backend messages: what is encoded decodes to the same, other implementations agree, nothing panics.

#![expect(
    clippy::unwrap_used,
    reason = "a test may; clippy does not see that its functions are tests"
)]

use bytes::BytesMut;
use postgres_protocol::message::backend as other;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use switchyard_wire::backend::{
    self, Authentication, Column, ErrorReport, Message, Severity, TransactionStatus, encode,
};
use switchyard_wire::startup::ProtocolVersion;
use switchyard_wire::{DecodeError, Format, SqlState, frame};

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Text), Just(Format::Binary)]
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..20))
}

fn encoded(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut dst = BytesMut::new();
    write(&mut dst);
    dst
}

fn only(bytes: &[u8]) -> Message<'_> {
    let whole = frame::split(bytes).unwrap().unwrap();
    assert!(whole.rest.is_empty());
    backend::decode(whole.tag, whole.body).unwrap()
}

/// Decodes, encodes again, and compares; every cut of the body and every byte more must be noticed.
fn round_trip(bytes: &[u8]) {
    let message = only(bytes);
    let mut again = BytesMut::new();
    message.encode(&mut again);
    assert_eq!(&again[..], bytes);

    use Authentication::{GssContinue, SaslContinue, SaslFinal};
    let open_ended = matches!(
        message,
        Message::CopyData(_)
            | Message::BackendKeyData { .. }
            | Message::Authentication(GssContinue(_) | SaslContinue(_) | SaslFinal(_))
    );
    let (tag, body) = (bytes[0], &bytes[frame::HEADER..]);
    for cut in 0..body.len() {
        assert!(
            open_ended || backend::decode(tag, &body[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let longer = [body, b"\0"].concat();
    assert!(open_ended || backend::decode(tag, &longer).is_err());
}

fn theirs(bytes: &BytesMut) -> other::Message {
    let mut bytes = bytes.clone();
    let message = other::Message::parse(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    message
}

/// Walks an iterator of the other implementation.
macro_rules! walk {
    ($iterator:expr, $map:expr) => {{
        let mut iterator = $iterator;
        let mut found = Vec::new();
        while let Some(item) = fallible_iterator::FallibleIterator::next(&mut iterator).unwrap() {
            found.push($map(item));
        }
        found
    }};
}

proptest! {
    #[test]
    fn rows(values in vec(value(), 0..6)) {
        let bytes = encoded(|d| encode::data_row(d, &values));
        round_trip(&bytes);
        let Message::DataRow(row) = only(&bytes) else { panic!() };
        prop_assert_eq!(row.iter().map(|v| v.map(<[u8]>::to_vec)).collect::<Vec<_>>(), values.clone());
        let other::Message::DataRow(row) = theirs(&bytes) else { panic!() };
        let found = walk!(row.ranges(), |range: Option<std::ops::Range<usize>>| range.map(|r| row.buffer()[r].to_vec()));
        prop_assert_eq!(found, values);
    }

    #[test]
    fn columns(columns in vec((text(), any::<(u32, i16, u32, i16, i32)>(), format()), 0..5)) {
        let columns: Vec<Column<'_>> = columns
            .iter()
            .map(|(name, (table, attribute, type_oid, type_size, type_modifier), format)| Column {
                name: name.as_bytes(),
                table: *table,
                attribute: *attribute,
                type_oid: *type_oid,
                type_size: *type_size,
                type_modifier: *type_modifier,
                format: *format,
            })
            .collect();
        let bytes = encoded(|d| encode::row_description(d, &columns));
        round_trip(&bytes);
        let Message::RowDescription(found) = only(&bytes) else { panic!() };
        prop_assert_eq!(found.len(), columns.len());
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), columns.clone());
        let other::Message::RowDescription(found) = theirs(&bytes) else { panic!() };
        let found = walk!(found.fields(), |f: other::Field<'_>| (
            f.name().as_bytes().to_vec(), f.table_oid(), f.column_id(), f.type_oid(), f.type_size(), f.type_modifier(), f.format()
        ));
        let ours: Vec<_> = columns.iter().map(|c| (
            c.name.to_vec(), c.table, c.attribute, c.type_oid, c.type_size, c.type_modifier, c.format.code()
        )).collect();
        prop_assert_eq!(found, ours);
    }

    #[test]
    fn texts(a in text(), b in text(), pid: i32, oids in vec(any::<u32>(), 0..5)) {
        let (x, y) = (a.as_bytes(), b.as_bytes());
        let bytes = encoded(|d| encode::command_complete(d, x));
        round_trip(&bytes);
        let other::Message::CommandComplete(found) = theirs(&bytes) else { panic!() };
        prop_assert_eq!(found.tag().unwrap(), &a);

        let bytes = encoded(|d| encode::parameter_status(d, x, y));
        round_trip(&bytes);
        let other::Message::ParameterStatus(found) = theirs(&bytes) else { panic!() };
        prop_assert_eq!((found.name().unwrap(), found.value().unwrap()), (&*a, &*b));

        let bytes = encoded(|d| encode::notification_response(d, pid, x, y));
        round_trip(&bytes);
        let other::Message::NotificationResponse(found) = theirs(&bytes) else { panic!() };
        prop_assert_eq!((found.process_id(), found.channel().unwrap(), found.message().unwrap()), (pid, &*a, &*b));

        let bytes = encoded(|d| encode::parameter_description(d, &oids));
        round_trip(&bytes);
        let other::Message::ParameterDescription(found) = theirs(&bytes) else { panic!() };
        prop_assert_eq!(walk!(found.parameters(), |oid| oid), oids);
    }

    #[test]
    fn reports(message in text(), detail in option::of(text()), hint in option::of(text()), position in option::of(1u32..)) {
        let mut report = ErrorReport::error(SqlState::FEATURE_NOT_SUPPORTED, &*message).context("shard s1");
        report.detail = detail.as_deref().map(Into::into);
        report.hint = hint.as_deref().map(Into::into);
        report.position = position;
        let bytes = encoded(|d| encode::error(d, &report));
        round_trip(&bytes);
        let Message::ErrorResponse(fields) = only(&bytes) else { panic!() };
        prop_assert_eq!(fields.sqlstate(), Some(SqlState::FEATURE_NOT_SUPPORTED));
        prop_assert_eq!(fields.severity(), Some(Severity::Error));
        prop_assert_eq!(fields.message(), &*message);
        prop_assert_eq!(fields.get(b'D'), detail.as_deref().map(str::as_bytes));
        prop_assert_eq!(fields.get(b'H'), hint.as_deref().map(str::as_bytes));
        prop_assert_eq!(fields.get(b'W'), Some(&b"shard s1"[..]));
        let other::Message::ErrorResponse(found) = theirs(&bytes) else { panic!() };
        let found = walk!(found.fields(), |f: other::ErrorField<'_>| (f.type_(), f.value_bytes().to_vec()));
        prop_assert_eq!(found, fields.iter().map(|(code, value)| (code, value.to_vec())).collect::<Vec<_>>());

        let bytes = encoded(|d| encode::notice(d, &report));
        round_trip(&bytes);
        prop_assert!(matches!(theirs(&bytes), other::Message::NoticeResponse(_)));
    }

    #[test]
    fn copies(whole in format(), each in vec(format(), 0..5), data in vec(any::<u8>(), 0..40)) {
        for write in [encode::copy_in_response, encode::copy_out_response, encode::copy_both_response] {
            let bytes = encoded(|d| write(d, whole, &each));
            round_trip(&bytes);
            let (Message::CopyInResponse(found) | Message::CopyOutResponse(found) | Message::CopyBothResponse(found)) =
                only(&bytes) else { panic!() };
            prop_assert_eq!(found.format, whole);
            prop_assert_eq!(found.columns.iter().collect::<Vec<_>>(), each.clone());
            if let Message::CopyInResponse(_) = only(&bytes) {
                let other::Message::CopyInResponse(found) = theirs(&bytes) else { panic!() };
                prop_assert_eq!(i16::from(found.format()), whole.code());
                let codes: Vec<_> = each.iter().map(|f| u16::try_from(f.code()).unwrap()).collect();
                prop_assert_eq!(walk!(found.column_formats(), |code| code), codes);
            }
        }
        let bytes = encoded(|d| encode::copy_data(d, &data));
        round_trip(&bytes);
        let other::Message::CopyData(found) = theirs(&bytes) else { panic!() };
        prop_assert_eq!(found.data(), &data[..]);
        round_trip(&encoded(|d| encode::function_call_response(d, Some(&data))));
        round_trip(&encoded(|d| encode::function_call_response(d, None)));
    }

    #[test]
    fn authentication(data in vec(any::<u8>(), 0..40), salt: [u8; 4], mechanisms in vec("[A-Z0-9-]{1,20}", 0..4)) {
        use Authentication::*;
        for step in [
            Ok, KerberosV5, CleartextPassword, Md5Password { salt }, ScmCredential, Gss, GssContinue(&data), Sspi,
            SaslContinue(&data), SaslFinal(&data),
        ] {
            let bytes = encoded(|d| encode::authentication(d, step));
            round_trip(&bytes);
            prop_assert_eq!(only(&bytes), Message::Authentication(step));
            theirs(&bytes);
        }
        let names: Vec<&str> = mechanisms.iter().map(String::as_str).collect();
        let bytes = encoded(|d| encode::authentication_sasl(d, &names));
        round_trip(&bytes);
        let Message::Authentication(Sasl(found)) = only(&bytes) else { panic!() };
        prop_assert_eq!(found.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(),
            names.iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>());
        let other::Message::AuthenticationSasl(found) = theirs(&bytes) else { panic!() };
        prop_assert_eq!(walk!(found.mechanisms(), |name: &str| name.to_owned()), mechanisms.clone());
    }

    #[test]
    fn negotiation(options in vec("_pq_[.][a-z]{0,5}", 0..4), minor: u16) {
        let names: Vec<&[u8]> = options.iter().map(String::as_bytes).collect();
        let version = ProtocolVersion { major: 3, minor };
        let bytes = encoded(|d| encode::negotiate_protocol_version(d, version, &names));
        round_trip(&bytes);
        let Message::NegotiateProtocolVersion { version: found, unknown_options } = only(&bytes) else { panic!() };
        prop_assert_eq!(found, version);
        prop_assert_eq!(unknown_options.iter().collect::<Vec<_>>(), names);
    }

    #[test]
    fn arbitrary_bodies_never_panic(tag: u8, body in vec(any::<u8>(), 0..200), shaped in shaped_body()) {
        for body in [body, shaped] {
            for tag in [tag].into_iter().chain(*b"RK23CWdcGHDIEVvnNAtS1sZT") {
                if let Ok(message) = backend::decode(tag, &body) {
                    let bytes = encoded(|d| message.encode(d));
                    assert_eq!(bytes.len(), body.len() + frame::HEADER, "{message:?}");
                }
            }
        }
    }
}

fn shaped_body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (-2i16..4).prop_map(|n| n.to_be_bytes().to_vec()),
        (-2i32..13).prop_map(|n| n.to_be_bytes().to_vec()),
        "[a-z]{0,3}\0".prop_map(String::into_bytes),
        any::<u8>().prop_map(|b| vec![b]),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

#[test]
fn messages_without_a_body() {
    type Write = fn(&mut BytesMut);
    let all: [(Write, Message<'static>); 7] = [
        (encode::parse_complete, Message::ParseComplete),
        (encode::bind_complete, Message::BindComplete),
        (encode::close_complete, Message::CloseComplete),
        (encode::no_data, Message::NoData),
        (encode::empty_query, Message::EmptyQueryResponse),
        (encode::portal_suspended, Message::PortalSuspended),
        (encode::copy_done, Message::CopyDone),
    ];
    for (write, message) in all {
        let bytes = encoded(write);
        round_trip(&bytes);
        assert_eq!(only(&bytes), message);
        theirs(&bytes);
    }
    for status in [
        TransactionStatus::Idle,
        TransactionStatus::InBlock,
        TransactionStatus::Failed,
    ] {
        let bytes = encoded(|d| encode::ready_for_query(d, status));
        round_trip(&bytes);
        let other::Message::ReadyForQuery(found) = theirs(&bytes) else {
            panic!()
        };
        assert_eq!(found.status(), status.code());
    }
}

#[test]
fn cancel_keys_are_short_or_long() {
    for len in [1, 4, 32, 256] {
        let secret = vec![7; len];
        let bytes = encoded(|d| encode::backend_key_data(d, 42, &secret));
        round_trip(&bytes);
        assert_eq!(
            only(&bytes),
            Message::BackendKeyData {
                pid: 42,
                secret: &secret
            }
        );
    }
    for len in [0, 257] {
        let bytes = encoded(|d| encode::backend_key_data(d, 42, &vec![7; len]));
        assert_eq!(
            backend::decode(b'K', &bytes[5..]),
            Err(DecodeError::Invalid("cancel key"))
        );
    }
}

#[test]
fn an_error_without_a_sqlstate_is_still_an_error() {
    let decoded = backend::decode(b'E', b"Mboom\0\0").unwrap();
    let Message::ErrorResponse(fields) = decoded else {
        panic!()
    };
    assert_eq!((fields.sqlstate(), fields.severity()), (None, None));
    assert_eq!(fields.message(), "boom");
    let Ok(Message::ErrorResponse(fields)) = backend::decode(b'E', b"Cx\0\0") else {
        panic!()
    };
    assert_eq!(fields.sqlstate(), None);
}
