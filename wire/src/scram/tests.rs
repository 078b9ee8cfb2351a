use proptest::prelude::*;

use super::*;
use crate::sqlstate::SqlState;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn pencil() -> Verifier {
    Verifier::derive("pencil", &BASE64.decode(SALT).unwrap(), 4096)
}

fn server(binding: Option<&[u8]>) -> ScramServer {
    ScramServer::new(
        pencil(),
        Nonce::new(SERVER_NONCE).unwrap(),
        binding.map(<[u8]>::to_vec),
    )
}

fn client() -> ScramClient {
    ScramClient::new(
        "user",
        Nonce::new(CLIENT_NONCE).unwrap(),
        ClientBinding::Unsupported,
    )
}

fn challenge() -> ServerChallenge {
    server(None)
        .client_first(b"SCRAM-SHA-256", b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        .unwrap()
}

#[test]
fn client_says_what_rfc_7677_says() {
    let client = client();
    assert_eq!(client.message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let proof = client
        .server_first(SERVER_FIRST.as_bytes())
        .unwrap()
        .prove_password("pencil");
    assert_eq!(proof.message(), CLIENT_FINAL.as_bytes());
    assert_eq!(proof.server_final(SERVER_FINAL.as_bytes()), Ok(()));
}

#[test]
fn server_says_what_rfc_7677_says() {
    let challenge = challenge();
    assert_eq!(challenge.message(), SERVER_FIRST.as_bytes());
    let accepted = challenge.client_final(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(accepted.message(), SERVER_FINAL.as_bytes());
}

#[test]
fn a_verifier_is_written_and_read_as_postgresql_has_it() {
    // CREATE ROLE … PASSWORD 'pencil', with the salt of the RFC.
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert_eq!(*pencil().to_text(), text);
    let parsed = Verifier::parse(text).unwrap();
    assert_eq!(*parsed.to_text(), text);
    assert!(Verifier::is_verifier(text) && !Verifier::is_verifier("pencil"));
    for (from, to, error) in [
        ("SCRAM-SHA-256", "SCRAM-SHA-1", VerifierError::Form),
        ("4096:", "", VerifierError::Form),
        ("wfPL", "", VerifierError::Form),
        ("==$", "=$", VerifierError::Form),
        ("4096", "0", VerifierError::Iterations),
        ("4096", "-4096", VerifierError::Iterations),
        ("4096", "+4096", VerifierError::Iterations),
        ("4096", "", VerifierError::Iterations),
        ("4096", "4294967297", VerifierError::Iterations),
        ("4096", "1000001", VerifierError::Iterations),
    ] {
        assert_eq!(
            Verifier::parse(&text.replacen(from, to, 1)).unwrap_err(),
            error,
            "{from} -> {to}"
        );
    }
}

#[test]
fn keys_of_one_exchange_serve_in_the_next() {
    let accepted = challenge().client_final(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(format!("{accepted:?}"), "ServerAccepted(..)");
    let keys = ClientKeys::from_parts(*accepted.client_key(), *pencil().server_key());
    let proof = client()
        .server_first(SERVER_FIRST.as_bytes())
        .unwrap()
        .prove(&keys);
    assert_eq!(proof.message(), CLIENT_FINAL.as_bytes());
}

#[test]
fn a_wrong_password_and_an_unknown_user_fail_alike() {
    let secret = [7; 32];
    let real = Verifier::of_user("pencil", &secret, b"user");
    let mock = Verifier::mock(&secret, b"nobody");
    assert_eq!(mock.salt.len(), real.salt.len());
    assert_eq!(mock.iterations, real.iterations);
    assert_eq!(
        mock.salt,
        Verifier::mock(&secret, b"nobody").salt,
        "a salt that changes gives the mock away"
    );
    assert_ne!(mock.salt, Verifier::mock(&secret, b"somebody").salt);
    assert_eq!(
        real.salt,
        Verifier::mock(&secret, b"user").salt,
        "or one that changes when the user is made"
    );
    for verifier in [real, mock] {
        assert_eq!(exchange(verifier, "wrong"), Err(ServerError::Proof));
    }
    assert_eq!(ServerError::Proof.sqlstate(), SqlState::INVALID_PASSWORD);
}

#[test]
fn a_mock_lets_nobody_in_whatever_they_prove() {
    let mut mock = pencil();
    mock.mock = true;
    assert_eq!(exchange(mock, "pencil"), Err(ServerError::Proof));
    assert_eq!(exchange(pencil(), "pencil"), Ok(()));
}

fn exchange(verifier: Verifier, password: &str) -> Result<(), ServerError> {
    let server = ScramServer::new(verifier, Nonce::random().unwrap(), None);
    let client = ScramClient::new("", Nonce::random().unwrap(), ClientBinding::Unsupported);
    let challenge = server.client_first(b"SCRAM-SHA-256", client.message())?;
    let proof = client
        .server_first(challenge.message())
        .unwrap()
        .prove_password(password);
    let accepted = challenge.client_final(proof.message())?;
    proof.server_final(accepted.message()).unwrap();
    Ok(())
}

#[test]
fn channel_binding_binds() {
    let with = |ours: &[u8], theirs: &[u8]| {
        let server = server(Some(ours));
        assert_eq!(server.mechanisms(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
        let client = ScramClient::new(
            "",
            Nonce::random().unwrap(),
            ClientBinding::TlsServerEndPoint(theirs.to_vec()),
        );
        let challenge = server
            .client_first(client.mechanism().as_bytes(), client.message())
            .unwrap();
        let proof = client
            .server_first(challenge.message())
            .unwrap()
            .prove_password("pencil");
        challenge.client_final(proof.message()).map(|_| ())
    };
    assert_eq!(with(b"certificate", b"certificate"), Ok(()));
    assert_eq!(
        with(b"certificate", b"another"),
        Err(ServerError::BindingMismatch)
    );
}

#[test]
fn gs2_headers_are_judged_as_postgresql_judges_them() {
    use ServerError::*;
    const PLAIN: &[u8] = b"SCRAM-SHA-256";
    const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
    let try_first = |bound: bool, mechanism: &[u8], message: &str| {
        server(bound.then_some(&b"certificate"[..]))
            .client_first(mechanism, message.as_bytes())
            .map(|_| ())
    };
    // Without channel binding on our side.
    assert_eq!(try_first(false, PLAIN, "n,,n=,r=abc"), Ok(()));
    assert_eq!(try_first(false, PLAIN, "y,,n=,r=abc"), Ok(()));
    assert!(matches!(
        try_first(false, PLAIN, "p=tls-server-end-point,,n=,r=abc"),
        Err(Malformed(detail)) if detail.contains("without channel binding")
    ));
    assert_eq!(
        try_first(false, PLUS, "p=tls-server-end-point,,n=,r=abc"),
        Err(Mechanism)
    );
    assert_eq!(try_first(false, b"PLAIN", "n,,n=,r=abc"), Err(Mechanism));
    // With it.
    assert_eq!(try_first(true, PLAIN, "n,,n=,r=abc"), Ok(()));
    assert_eq!(try_first(true, PLAIN, "y,,n=,r=abc"), Err(BindingDowngrade));
    assert_eq!(
        try_first(true, PLUS, "p=tls-server-end-point,,n=,r=abc"),
        Ok(())
    );
    assert_eq!(
        try_first(true, PLUS, "p=tls-unique,,n=,r=abc"),
        Err(BindingType)
    );
    for flag in ["n", "y"] {
        assert!(matches!(
            try_first(true, PLUS, &format!("{flag},,n=,r=abc")),
            Err(Malformed(_))
        ));
    }
    // Either way.
    assert_eq!(
        try_first(false, PLAIN, "n,a=admin,n=,r=abc"),
        Err(AuthorizationIdentity)
    );
    assert_eq!(try_first(false, PLAIN, "n,,m=x,n=,r=abc"), Err(Extension));
    assert_eq!(try_first(false, PLAIN, "n,,n=,r=abc,x=ignored"), Ok(()));
    for bad in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=",
        "n,,n=,r=",
        "n,,r=abc",
        "n,,n=,r=a\u{7f}",
        "q,,n=,r=abc",
        "n;,n=,r=abc",
        "n,b=x,n=,r=abc",
        "n,,n=,r=abc,",
        "n,,n=,r=abc,1=x",
        "n,,n=,r=abc\0",
    ] {
        let result = try_first(false, PLAIN, bad);
        match bad {
            // A trailing comma ends the last attribute; PostgreSQL takes it, too.
            "n,,n=,r=abc," => assert_eq!(result, Ok(())),
            _ => assert!(
                matches!(result, Err(Malformed(_) | Attribute(_))),
                "{bad:?}: {result:?}"
            ),
        }
    }
}

#[test]
fn final_messages_are_judged_as_postgresql_judges_them() {
    use ServerError::*;
    let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
    let proof = "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let cases = [
        (format!("c=biws,r={nonce}x,{proof}"), Nonce),
        (format!("c=biws,r={CLIENT_NONCE},{proof}"), Nonce),
        (
            format!("c=eSws,r={nonce},{proof}"),
            Malformed("Unexpected SCRAM channel-binding attribute in client-final-message."),
        ),
        (
            format!("c=biws,r={nonce},p=dHzb"),
            Malformed("Malformed proof in client-final-message."),
        ),
        (
            format!("c=biws,r={nonce},{proof},x=y"),
            Malformed("Garbage found at the end of client-final-message."),
        ),
        (format!("c=biws,r={nonce},x=y,{proof}"), Proof),
        (
            format!("c=biws,r={nonce}"),
            Attribute(attribute::AttributeError::End),
        ),
        (
            format!("r={nonce},{proof}"),
            Attribute(attribute::AttributeError::Other('c')),
        ),
    ];
    for (message, error) in cases {
        assert_eq!(
            challenge().client_final(message.as_bytes()).map(|_| ()),
            Err(error),
            "{message}"
        );
    }
}

#[test]
fn a_client_distrusts_its_server() {
    let first = |message: &str| client().server_first(message.as_bytes()).map(|_| ());
    let own = CLIENT_NONCE;
    assert_eq!(first(&format!("r={own}x,s=AAAA,i=1")), Ok(()));
    assert_eq!(
        first(&format!("r={own},s=AAAA,i=1")),
        Err(ClientError::Nonce)
    );
    assert_eq!(first("r=other,s=AAAA,i=1"), Err(ClientError::Nonce));
    assert_eq!(
        first(&format!("r={own}x,s=AAAA,i=0")),
        Err(ClientError::Iterations(0))
    );
    assert_eq!(
        first(&format!("r={own}x,s=AAAA,i=1000001")),
        Err(ClientError::Iterations(1_000_001))
    );
    assert_eq!(
        first(&format!("r={own}x,s=AAAA,i=4294967297")),
        Err(ClientError::Iterations(4_294_967_297))
    );
    for bad in ["", "x", "r=", "s=AAAA,i=1"] {
        assert!(first(bad).is_err(), "{bad}");
    }
    for bad in [
        "s=A,i=1",
        "s=AAAA,i=-1",
        "s=AAAA,i=",
        "s=AAAA,i=99999999999999999999",
        "s=AAAA",
    ] {
        assert!(first(&format!("r={own}x,{bad}")).is_err(), "{bad}");
    }

    let last = |message: &str| {
        let challenged = client().server_first(SERVER_FIRST.as_bytes()).unwrap();
        challenged
            .prove_password("pencil")
            .server_final(message.as_bytes())
    };
    assert_eq!(last(SERVER_FINAL), Ok(()));
    assert_eq!(
        last(&SERVER_FINAL.replace("6rri", "7rri")),
        Err(ClientError::Signature)
    );
    assert_eq!(
        last("e=invalid-proof"),
        Err(ClientError::Rejected("invalid-proof".to_owned()))
    );
    for bad in ["", "v=", "v=AAAA", "x=y"] {
        assert!(last(bad).is_err(), "{bad}");
    }
}

#[test]
fn nonces_are_printable() {
    let nonce = Nonce::random().unwrap();
    assert_eq!(Nonce::new(&nonce.0), Some(nonce.clone()));
    assert_ne!(Nonce::random().unwrap(), nonce);
    for bad in ["", "a,b", "a b", "ä", "a\n"] {
        assert_eq!(Nonce::new(bad), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Our client and the one of postgres-protocol say the same to our server.
    #[test]
    fn another_implementation_agrees(password in any::<String>(), salt in proptest::collection::vec(any::<u8>(), 1..40)) {
        use postgres_protocol::authentication::sasl;
        let verifier = || Verifier::derive(&password, &salt, 3);
        let mut other = sasl::ScramSha256::new(password.as_bytes(), sasl::ChannelBinding::unsupported());
        let server = ScramServer::new(verifier(), Nonce::random().unwrap(), None);
        let challenge = server.client_first(b"SCRAM-SHA-256", other.message()).unwrap();
        other.update(challenge.message()).unwrap();
        let accepted = challenge.client_final(other.message()).unwrap();
        other.finish(accepted.message()).unwrap();
        prop_assert_eq!(exchange(verifier(), &password), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(first in message(), second in message(), plus in any::<bool>()) {
        let mechanism: &[u8] = if plus { b"SCRAM-SHA-256-PLUS" } else { b"SCRAM-SHA-256" };
        let verifier = Verifier::mock(&[1; 32], b"x");
        let server = ScramServer::new(verifier, Nonce::random().unwrap(), plus.then(Vec::new));
        let _ = server.client_first(mechanism, &first).map(|challenge| challenge.client_final(&second).map(|_| ()));
        let _ = challenge().client_final(&second);
        if let Ok(challenged) = client().server_first(&first) {
            let _ = challenged.prove(&ClientKeys::from_parts([1; 32], [2; 32])).server_final(&second);
        }
        let _ = Verifier::parse(&String::from_utf8_lossy(&first));
    }
}

/// Bytes that are often nearly a message.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("n,,".to_owned()),
        Just("p=tls-server-end-point,,".to_owned()),
        Just("n=,".to_owned()),
        Just(format!("r={CLIENT_NONCE}x,")),
        Just(format!("r={CLIENT_NONCE}{SERVER_NONCE},")),
        Just("s=AAAA,".to_owned()),
        Just("i=2".to_owned()),
        Just("c=biws,".to_owned()),
        Just("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".to_owned()),
        Just("v=AAAA".to_owned()),
        "[a-z]=[ -~]{0,8},?",
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat().into_bytes()),
    ]
}
