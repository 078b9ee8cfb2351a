//! A stream of backend messages: framed, decoded, walked, and encoded again to the same bytes.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use switchyard_wire::backend::{self, Message};
use switchyard_wire::frame;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some(whole)) = frame::split(rest) {
        let len = rest.len() - whole.rest.len();
        if let Ok(message) = backend::decode(whole.tag, whole.body) {
            let mut again = BytesMut::new();
            message.encode(&mut again);
            assert_eq!(&again[..], &rest[..len]);
            match message {
                Message::DataRow(row) => assert_eq!(row.iter().count(), row.len()),
                Message::RowDescription(columns) => {
                    assert_eq!(columns.iter().count(), columns.len())
                }
                Message::ErrorResponse(fields) | Message::NoticeResponse(fields) => {
                    let _ = (fields.sqlstate(), fields.severity(), fields.message().len());
                }
                Message::NegotiateProtocolVersion {
                    unknown_options, ..
                } => {
                    assert_eq!(unknown_options.iter().count(), unknown_options.len());
                }
                _ => {}
            }
        }
        rest = whole.rest;
    }
});
