//! A stream of frontend messages: framed, decoded, and encoded again to the same bytes.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use switchyard_wire::frame;
use switchyard_wire::frontend::{self, Message, SaslInitialResponse};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some(whole)) = frame::split(rest) {
        let len = rest.len() - whole.rest.len();
        if let Ok(message) = frontend::decode(whole.tag, whole.body) {
            assert!(frontend::max_length(whole.tag).is_some());
            let mut again = BytesMut::new();
            message.encode(&mut again);
            assert_eq!(&again[..], &rest[..len]);
            if let Message::Bind(bind) = message {
                let (params, param_formats) = (bind.params, bind.param_formats);
                let result_formats = bind.result_formats;
                for (i, value) in params.iter().enumerate() {
                    assert_eq!(params.get(i), Some(value));
                    let _ = (param_formats.format(i), result_formats.format(i));
                }
                assert_eq!(params.iter().count(), params.len());
            }
            if let Message::Password(body) = message {
                let _ = frontend::password(body);
                let _ = SaslInitialResponse::decode(body);
            }
        }
        rest = whole.rest;
    }
});
