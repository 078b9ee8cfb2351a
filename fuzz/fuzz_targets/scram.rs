//! Both sides of SCRAM-SHA-256 against a peer that says anything. The input's lines are what the peer says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_wire::scram::{
    ClientBinding, ClientKeys, Nonce, ScramClient, ScramServer, Verifier,
};

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&b| b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (first, last) = (line(), line());
    let Some(nonce) = Nonce::new("rOprNGfwEbeRWgbNEkqO") else {
        return;
    };
    for bound in [false, true] {
        let mechanism: &[u8] = if bound {
            b"SCRAM-SHA-256-PLUS"
        } else {
            b"SCRAM-SHA-256"
        };
        let verifier = Verifier::mock(&[7; 32], b"nobody");
        let server = ScramServer::new(
            verifier,
            nonce.clone(),
            bound.then(|| b"certificate".to_vec()),
        );
        if let Ok(challenge) = server.client_first(mechanism, first) {
            assert!(
                challenge.client_final(last).is_err(),
                "a mock lets nobody in"
            );
        }
        let binding = match bound {
            true => ClientBinding::TlsServerEndPoint(b"certificate".to_vec()),
            false => ClientBinding::Unsupported,
        };
        if let Ok(challenged) = ScramClient::new("user", nonce.clone(), binding).server_first(first)
        {
            let proof = challenged.prove(&ClientKeys::from_parts([1; 32], [2; 32]));
            assert!(
                proof.server_final(last).is_err(),
                "nobody can sign without the key"
            );
        }
    }
    if let Ok(text) = std::str::from_utf8(first)
        && let Ok(verifier) = Verifier::parse(text)
    {
        let written = verifier.to_text();
        assert!(Verifier::parse(&written).is_ok());
    }
});
