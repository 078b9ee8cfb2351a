//! The first packets of a connection: found by their length, decoded, walked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_wire::startup::{MAX_STARTUP_PACKET, StartupPacket, decode_startup, packet_len};

fuzz_target!(|data: &[u8]| {
    let _ = decode_startup(data);
    let mut rest = data;
    while let Ok(Some(len)) = packet_len(rest) {
        assert!((8..=MAX_STARTUP_PACKET + 4).contains(&len));
        let Some((packet, after)) = rest.split_at_checked(len) else {
            return;
        };
        rest = after;
        if let Ok(StartupPacket::Startup { params, .. }) = decode_startup(&packet[4..]) {
            let pairs: usize = params
                .iter()
                .map(|(name, value)| name.len() + value.len() + 2)
                .sum();
            assert!(pairs < len);
            for (name, value) in params.iter() {
                assert!(!name.is_empty() && !name.contains(&0) && !value.contains(&0));
            }
            let _ = params.get("user");
            let _ = params.protocol_options().count();
        }
    }
});
