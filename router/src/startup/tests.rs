use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use switchyard_wire::backend::{self, Authentication, Message};
use switchyard_wire::frontend::encode;
use switchyard_wire::scram::{ClientBinding, Nonce, ScramClient};
use switchyard_wire::{Format, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::access::LoginSecret;
use super::tls::tests::Authority;
use super::*;
use crate::config::{ProcessEnvironment, Settings};

mod rules;

/// What a router lets clients in by.
struct House {
    access: Access,
    cancels: CancelRegistry,
    failed: FailedLogins,
    drain: Drain,
    switch: watch::Sender<bool>,
    full: bool,
    peer: Option<SocketAddr>,
}

impl House {
    fn new(method: &str, router: &str) -> House {
        House::by(&format!("method = \"{method}\""), router)
    }

    /// With these lines in `[auth]`.
    fn by(auth: &str, router: &str) -> House {
        let text = format!(
            r#"
            [router]
            client_login_timeout = "10s"
            {router}
            [auth]
            {auth}
            [[users]]
            name = "app"
            password = "secret"
            admin = true
            [[users]]
            name = "reader"
            password = "secret"
            [[databases]]
            name = "shop"
            [[databases.shards]]
            name = "s0"
            nodes = [{{ host = "127.0.0.1", port = 1, role = "primary" }}]
            "#
        );
        let settings = Settings::parse(&text, Path::new("/x.toml"), &ProcessEnvironment).unwrap();
        let (switch, drain) = watch::channel(false);
        House {
            access: Access::new(&settings, &LoginSecret::random().unwrap()).unwrap(),
            cancels: CancelRegistry::default(),
            failed: FailedLogins::default(),
            drain: Drain::new(drain),
            switch,
            full: false,
            peer: Some("192.0.2.1:1".parse().unwrap()),
        }
    }

    fn trust() -> House {
        House::new("trust", "")
    }

    fn scram() -> House {
        House::new("scram-sha-256", "")
    }

    fn with_tls(method: &str, authority: &Authority, more: &str) -> House {
        authority.sign("router", &["localhost"]);
        let (cert, key) = (authority.file("router.crt"), authority.file("router.key"));
        let ca = authority.ca();
        House::new(
            method,
            &format!("tls = {{ cert = {cert:?}, key = {key:?}, client_ca = {ca:?}, {more} }}"),
        )
    }

    /// One connection: what becomes of it, and what `client` makes of its end. At most `chunk` bytes at a time pass.
    async fn visit<T>(
        &self,
        chunk: usize,
        client: impl AsyncFnOnce(DuplexStream) -> T,
    ) -> (Result<Option<ClientConnection<DuplexStream>>, Refusal>, T) {
        let (near, near_end) = duplex(1 << 16);
        let (far_end, far) = duplex(1 << 16);
        let ends = async { tokio::join!(admit(far, self.peer, self.door()), client(near)) };
        tokio::select! {
            both = ends => both,
            () = relay(near_end, far_end, chunk) => unreachable!(),
        }
    }

    fn door(&self) -> Door<'_> {
        Door {
            access: &self.access,
            cancels: &self.cancels,
            failed: &self.failed,
            directory: None,
            drain: &self.drain,
            full: self.full,
        }
    }

    /// A connection that sends these bytes and then only listens: what became of it, and what it heard.
    async fn hears(&self, bytes: &[u8]) -> (Result<Option<()>, Refusal>, Vec<u8>) {
        let talk = async |mut stream: DuplexStream| {
            // It may be refused before it has said everything.
            let _ = stream.write_all(bytes).await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        };
        let (near, far) = duplex(1 << 16);
        let admitted = async {
            let admitted = admit(far, self.peer, self.door()).await;
            admitted.map(|client| client.map(drop))
        };
        tokio::join!(admitted, talk(near))
    }

    /// The same, refused by a FATAL error: its SQLSTATE and message.
    async fn fatal(&self, bytes: &[u8]) -> (String, String) {
        let (result, heard) = self.hears(bytes).await;
        assert!(result.is_err());
        fatal(&heard)
    }

    /// The same, closed without a word.
    async fn silent(&self, bytes: &[u8]) -> Refusal {
        let (result, heard) = self.hears(bytes).await;
        assert_eq!(heard, b"", "{result:?}");
        result.unwrap_err()
    }
}

/// Passes bytes on in both directions, `chunk` at a time. Never ends.
async fn relay(near: DuplexStream, far: DuplexStream, chunk: usize) {
    let pass = async |mut from: tokio::io::ReadHalf<_>, mut to: tokio::io::WriteHalf<_>| {
        let mut buffer = vec![0; chunk];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = to.shutdown().await;
    };
    let (near_reads, near_writes) = tokio::io::split(near);
    let (far_reads, far_writes) = tokio::io::split(far);
    tokio::join!(pass(near_reads, far_writes), pass(far_reads, near_writes));
    std::future::pending().await
}

fn fatal(heard: &[u8]) -> (String, String) {
    let mut heard = heard;
    loop {
        let whole = frame::split(heard).unwrap().expect("an error");
        if let Message::ErrorResponse(fields) = backend::decode(whole.tag, whole.body).unwrap() {
            assert_eq!(fields.severity(), Some(backend::Severity::Fatal));
            assert!(whole.rest.is_empty());
            let sqlstate = fields.sqlstate().unwrap().to_string();
            return (sqlstate, fields.message().into_owned());
        }
        heard = whole.rest;
    }
}

fn is(found: (String, String), sqlstate: &str, message: &str) {
    assert_eq!((&*found.0, &*found.1), (sqlstate, message));
}

fn packet(version: ProtocolVersion, pairs: &[(&str, &str)]) -> BytesMut {
    let mut packet = BytesMut::new();
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    encode::startup(&mut packet, version, pairs);
    packet
}

fn app() -> BytesMut {
    packet(
        ProtocolVersion::V3_0,
        &[("user", "app"), ("database", "shop")],
    )
}

fn bytes(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut bytes = BytesMut::new();
    write(&mut bytes);
    bytes
}

/// Reads one whole message; `None` at the end.
async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.ok()?;
    let len = frame::header(&head).unwrap().unwrap().body_len();
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    Some((head[0], body))
}

/// Logs in by SCRAM, and returns what was heard: tag and length of each message, and the last one's body.
async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    password: &str,
    binding: ClientBinding,
) -> (Vec<(u8, usize)>, Vec<u8>) {
    let mut heard = Vec::new();
    let client = ScramClient::new("", Nonce::random().unwrap(), binding);
    let (mut client, mut challenged) = (Some(client), None);
    while let Some((tag, body)) = message(stream).await {
        heard.push((tag, body.len()));
        let mut reply = BytesMut::new();
        let Message::Authentication(step) = backend::decode(tag, &body).unwrap() else {
            return (heard, body);
        };
        if let Authentication::Sasl(_) = step {
            let client = client.as_ref().unwrap();
            let mechanism = client.mechanism().as_bytes();
            encode::sasl_initial_response(&mut reply, mechanism, Some(client.message()));
        } else if let Authentication::SaslContinue(data) = step {
            let challenge = client.take().unwrap().server_first(data).unwrap();
            let proof = challenge.prove_password(password);
            encode::sasl_response(&mut reply, proof.message());
            challenged = Some(proof);
        } else if let Authentication::SaslFinal(data) = step {
            challenged.take().unwrap().server_final(data).unwrap();
        } else {
            assert_eq!(step, Authentication::Ok);
            return (heard, body);
        }
        stream.write_all(&reply).await.unwrap();
    }
    (heard, Vec::new())
}

#[tokio::test]
async fn a_trusted_client_enters_however_its_bytes_arrive() {
    let house = House::trust();
    let query = bytes(|dst| encode::query(dst, b"SELECT 1"));
    for chunk in 1..80 {
        let (entered, ()) = house
            .visit(chunk, async |mut stream| {
                stream.write_all(&bytes(encode::ssl_request)).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'N');
                stream
                    .write_all(&bytes(encode::gss_enc_request))
                    .await
                    .unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'N');
                let start = packet(
                    ProtocolVersion::V3_0,
                    &[
                        ("user", "app"),
                        ("database", "shop"),
                        ("options", "-c geqo=off"),
                    ],
                );
                stream.write_all(&start).await.unwrap();
                // A client that knows it is trusted need not wait.
                stream.write_all(&query[..5]).await.unwrap();
                assert_eq!(message(&mut stream).await, Some((b'R', vec![0; 4])));
            })
            .await;
        let client = entered.unwrap().unwrap();
        assert_eq!((&*client.user, &*client.database), ("app", "shop"));
        assert_eq!(client.parameters, [("geqo".to_owned(), "off".to_owned())]);
        assert_eq!(client.version, ProtocolVersion::V3_0);
        assert!(query.starts_with(&client.leftover));
        assert!(!client.stream.is_tls());
    }
}

#[tokio::test]
async fn a_password_lets_in_however_its_bytes_arrive() {
    let house = House::scram();
    for chunk in (1..40).chain([1000]) {
        let (entered, (heard, _)) = house
            .visit(chunk, async |mut stream| {
                stream.write_all(&app()).await.unwrap();
                log_in(&mut stream, "secret", ClientBinding::Unsupported).await
            })
            .await;
        assert_eq!(entered.unwrap().unwrap().user, "app");
        assert_eq!(heard.len(), 4);
    }
}

#[tokio::test]
async fn a_client_may_ask_for_an_empty_challenge_first() {
    let house = House::scram();
    let (entered, ()) = house
        .visit(64, async |mut stream| {
            stream.write_all(&app()).await.unwrap();
            message(&mut stream).await.unwrap();
            let choice = bytes(|dst| encode::sasl_initial_response(dst, b"SCRAM-SHA-256", None));
            stream.write_all(&choice).await.unwrap();
            assert_eq!(message(&mut stream).await, Some((b'R', vec![0, 0, 0, 11])));
            let client = ScramClient::new("", Nonce::random().unwrap(), ClientBinding::Unsupported);
            let first = bytes(|dst| encode::sasl_response(dst, client.message()));
            stream.write_all(&first).await.unwrap();
            let (_, challenge) = message(&mut stream).await.unwrap();
            let proof = client
                .server_first(&challenge[4..])
                .unwrap()
                .prove_password("secret");
            let last = bytes(|dst| encode::sasl_response(dst, proof.message()));
            stream.write_all(&last).await.unwrap();
            message(&mut stream).await.unwrap();
        })
        .await;
    assert!(entered.unwrap().is_some());
}

#[tokio::test]
async fn nobody_can_tell_a_wrong_password_from_an_unknown_user() {
    let house = House::scram();
    let visit = async |user: &str, password: &str| {
        let start = packet(
            ProtocolVersion::V3_0,
            &[("user", user), ("database", "nowhere")],
        );
        let (entered, (heard, last)) = house
            .visit(4096, async |mut stream| {
                stream.write_all(&start).await.unwrap();
                log_in(&mut stream, password, ClientBinding::Unsupported).await
            })
            .await;
        assert!(matches!(entered, Err(Refusal::Password(_))));
        let Ok(Message::ErrorResponse(fields)) = backend::decode(b'E', &last) else {
            panic!()
        };
        assert_eq!(fields.sqlstate().unwrap().as_str(), "28P01");
        assert_eq!(
            fields.message(),
            format!("password authentication failed for user \"{user}\"")
        );
        heard
    };
    let wrong = visit("app", "wrong").await;
    assert_eq!(wrong.len(), 3);
    assert_eq!(wrong, visit("who", "wrong").await);
    assert_eq!(wrong, visit("who", "secret").await);
}

#[tokio::test(start_paused = true)]
async fn guesses_take_their_time_whomever_they_are_for() {
    let house = House::new("scram-sha-256", "max_login_failures = 12");
    let visit = async |user: &str, password: &str| {
        let start = packet(ProtocolVersion::V3_0, &[("user", user)]);
        let began = Instant::now();
        let (entered, _) = house
            .visit(4096, async |mut stream| {
                stream.write_all(&start).await.unwrap();
                log_in(&mut stream, password, ClientBinding::Unsupported).await
            })
            .await;
        (entered.map(|_| ()), began.elapsed().as_secs())
    };
    for number in 0..12 {
        let user = if number % 2 == 0 { "app" } else { "nobody" };
        let (refused, waited) = visit(user, "wrong").await;
        assert!(matches!(refused, Err(Refusal::Password(_))), "{refused:?}");
        assert_eq!(waited, 0);
    }
    for user in ["app", "nobody", "app"] {
        let (refused, waited) = visit(user, "wrong").await;
        assert!(matches!(refused, Err(Refusal::Password(_))), "{refused:?}");
        assert_eq!(waited, 5, "{user}");
    }
    assert!(matches!(visit("app", "secret").await, (Ok(()), 5)));

    // The password was good, so its turn is another's. Of four at once the last would wait for 15 s.
    let (one, two, three, four) = tokio::join!(
        visit("app", "wrong"),
        visit("nobody", "wrong"),
        visit("app", "wrong"),
        visit("nobody", "wrong")
    );
    let mut all = [one, two, three, four].map(|(outcome, waited)| {
        let refusal = outcome.unwrap_err();
        (waited, refusal.report().unwrap().sqlstate.to_string())
    });
    all.sort();
    let expected = [(0, "28000"), (0, "28P01"), (5, "28P01"), (10, "28P01")];
    assert_eq!(
        all,
        expected.map(|(waited, code)| (waited, code.to_owned()))
    );
}

#[tokio::test]
async fn versions_and_options_are_negotiated() {
    let house = House::trust();
    let at = |minor| ProtocolVersion { major: 3, minor };
    let cases: [(u16, &[&str], u16, bool); 6] = [
        (0, &[], 0, false),
        (2, &[], 2, false),
        (1, &[], 0, true),
        (9999, &[], 2, true),
        (0, &["_pq_.a"], 0, true),
        (2, &["_pq_.a", "_pq_.b"], 2, true),
    ];
    for (minor, options, agreed, told) in cases {
        let mut pairs = vec![("user", "app")];
        pairs.extend(options.iter().map(|&name| (name, "1")));
        let (entered, ()) = house
            .visit(1024, async |mut stream| {
                stream.write_all(&packet(at(minor), &pairs)).await.unwrap();
                if told {
                    let (tag, body) = message(&mut stream).await.unwrap();
                    let Ok(Message::NegotiateProtocolVersion {
                        version,
                        unknown_options,
                    }) = backend::decode(tag, &body)
                    else {
                        panic!("{}", char::from(tag))
                    };
                    assert_eq!(version, at(agreed));
                    let names: Vec<&[u8]> = unknown_options.iter().collect();
                    assert_eq!(
                        names,
                        options.iter().map(|o| o.as_bytes()).collect::<Vec<_>>()
                    );
                }
                assert_eq!(message(&mut stream).await, Some((b'R', vec![0; 4])));
            })
            .await;
        let client = entered.unwrap().unwrap();
        assert_eq!(client.version, at(agreed));
        assert_eq!(client.cancel.secret.len(), if agreed == 2 { 32 } else { 4 });
    }
}

#[tokio::test]
async fn what_is_no_startup_packet_is_refused_as_postgresql_refuses_it() {
    let house = House::trust();
    let version = |word: u32| {
        let mut packet = app();
        packet[4..8].copy_from_slice(&word.to_be_bytes());
        packet
    };
    is(
        house.fatal(&version(2 << 16)).await,
        "0A000",
        "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
    );
    is(
        house.fatal(&version(4 << 16 | 1)).await,
        "0A000",
        "unsupported frontend protocol 4.1: server supports 3.0 to 3.2",
    );
    is(
        house
            .fatal(&packet(ProtocolVersion::V3_0, &[("database", "shop")]))
            .await,
        "28000",
        "no PostgreSQL user name specified in startup packet",
    );
    is(
        house.fatal(b"\0\0\0\x0e\0\x03\0\0user\0\0").await,
        "08P01",
        "invalid startup packet layout: expected terminator as last byte",
    );
    is(
        house.fatal(b"\0\0\0\x10\0\x03\0\0user\0\xff\0\0").await,
        "22021",
        "invalid byte sequence for encoding \"UTF8\" in startup packet",
    );
    for (name, value, sqlstate) in [
        ("replication", "database", "0A000"),
        ("options", "-d 5", "42601"),
    ] {
        let start = packet(ProtocolVersion::V3_0, &[("user", "app"), (name, value)]);
        assert_eq!(house.fatal(&start).await.0, sqlstate);
    }
    is(
        house
            .fatal(&packet(ProtocolVersion::V3_0, &[("user", "who")]))
            .await,
        "28000",
        "role \"who\" does not exist",
    );
}

#[tokio::test]
async fn impossible_lengths_are_closed_without_a_word() {
    let house = House::trust();
    for word in [0, 4, 7, 10_005, 0x7fff_ffff, u32::MAX] {
        let garbage = [&word.to_be_bytes()[..], &[7; 100]].concat();
        assert!(matches!(house.silent(&garbage).await, Refusal::Packet(_)));
    }
    assert!(matches!(
        house.silent(b"GET / HTTP/1.1\r\n\r\n").await,
        Refusal::Packet(_)
    ));
    let cancel = bytes(|dst| encode::cancel_request(dst, 1, &[0; 257]));
    assert!(matches!(house.silent(&cancel).await, Refusal::Packet(_)));
}

#[tokio::test]
async fn encryption_is_asked_for_once() {
    let house = House::trust();
    for (request, word) in [
        (bytes(encode::ssl_request), "1234.5679"),
        (bytes(encode::gss_enc_request), "1234.5680"),
    ] {
        let (result, heard) = house
            .visit(64, async |mut stream| {
                stream.write_all(&request).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'N');
                stream.write_all(&request).await.unwrap();
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                heard
            })
            .await;
        assert!(matches!(result, Err(Refusal::Version(_))));
        let message = format!("unsupported frontend protocol {word}: server supports 3.0 to 3.2");
        is(fatal(&heard), "0A000", &message);
    }
}

#[tokio::test]
async fn what_is_said_before_the_answer_to_a_request_for_encryption_ends_the_connection() {
    let authority = Authority::new("ca");
    for house in [House::trust(), House::with_tls("trust", &authority, "")] {
        for request in [bytes(encode::ssl_request), bytes(encode::gss_enc_request)] {
            let early = [&request[..], &app()].concat();
            assert_eq!(house.fatal(&early).await.0, "08P01");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_startup_packet_and_silence_end_at_the_deadline() {
    let house = House::trust();
    for cut in 0..app().len() {
        let begin = Instant::now();
        let (result, heard) = house
            .visit(1024, async |mut stream| {
                stream.write_all(&app()[..cut]).await.unwrap();
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                heard
            })
            .await;
        assert!(matches!(result, Err(Refusal::Timeout)));
        assert_eq!(heard, b"");
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_secs(10) && took < Duration::from_secs(11),
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_one_for_all_and_counts_for_a_client_that_drips() {
    let house = House::scram();
    let begin = Instant::now();
    let (result, heard) = house
        .visit(1024, async |mut stream| {
            for byte in app() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.write_all(&[byte]).await.unwrap();
            }
            assert_eq!(message(&mut stream).await.unwrap().0, b'R');
            for byte in [b'p', 0, 0, 1, 0] {
                tokio::time::sleep(Duration::from_millis(900)).await;
                stream.write_all(&[byte]).await.unwrap();
            }
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            heard
        })
        .await;
    assert!(matches!(result, Err(Refusal::Timeout)));
    is(
        fatal(&heard),
        "57014",
        "canceling authentication due to timeout",
    );
    assert!(begin.elapsed() < Duration::from_secs(11));
}

#[tokio::test]
async fn what_comes_in_place_of_a_password_is_refused() {
    let house = House::scram();
    let after = |more: &[u8]| [&app()[..], more].concat();
    is(
        house.fatal(&after(b"Q\0\0\0\x04")).await,
        "08P01",
        "expected SASL response, got message type 81",
    );
    // Believed, this would be 1 GB.
    is(
        house.fatal(&after(b"p\x3f\xff\xff\xff")).await,
        "08P01",
        "invalid message length",
    );
    is(
        house.fatal(&after(b"p\0\x01\0\0")).await,
        "08P01",
        "invalid message length",
    );
    is(
        house.fatal(&after(b"p\0\0\0\x03")).await,
        "08P01",
        "invalid message length",
    );
    is(
        house.fatal(&after(b"p\0\0\0\x05x")).await,
        "08P01",
        "invalid string in message",
    );
    let choose = |name: &[u8], first: &[u8]| {
        after(&bytes(|dst| {
            encode::sasl_initial_response(dst, name, Some(first))
        }))
    };
    is(
        house
            .fatal(&choose(
                b"SCRAM-SHA-256-PLUS",
                b"p=tls-server-end-point,,n=,r=x",
            ))
            .await,
        "08P01",
        "client selected an invalid SASL authentication mechanism",
    );
    let silently = after(&bytes(|dst| {
        encode::sasl_initial_response(dst, b"SCRAM-SHA-1", None)
    }));
    is(
        house.fatal(&silently).await,
        "08P01",
        "client selected an invalid SASL authentication mechanism",
    );
    is(
        house.fatal(&choose(b"SCRAM-SHA-256", b"n,,n=")).await,
        "08P01",
        "malformed SCRAM message",
    );
}

#[tokio::test]
async fn a_cancel_request_is_carried_out_and_closed() {
    let house = House::trust();
    let key = house.cancels.register(ProtocolVersion::V3_2).unwrap();
    for (secret, forwarded) in [(&key.secret[..], 1), (b"wrong", 1), (&key.secret[..4], 1)] {
        let request = bytes(|dst| encode::cancel_request(dst, key.pid, secret));
        let (result, heard) = house.hears(&request).await;
        assert!(matches!(result, Ok(None)));
        assert_eq!(heard, b"");
        assert_eq!(house.cancels.forwarded(), forwarded);
    }
    assert_eq!(house.cancels.unknown(), 2);
}

#[tokio::test]
async fn the_console_is_for_admins_and_opens_when_nothing_else_does() {
    let mut house = House::trust();
    let to = |user, database| {
        packet(
            ProtocolVersion::V3_0,
            &[("user", user), ("database", database)],
        )
    };
    for name in ["switchyard", "pgbouncer"] {
        is(
            house.fatal(&to("reader", name)).await,
            "42501",
            &format!("permission denied for database \"{name}\""),
        );
    }
    house.full = true;
    is(
        house.fatal(&to("app", "shop")).await,
        "53300",
        "sorry, too many clients already",
    );
    let (entered, ()) = house
        .visit(1024, async |mut stream| {
            stream.write_all(&to("app", "switchyard")).await.unwrap();
            assert_eq!(message(&mut stream).await, Some((b'R', vec![0; 4])));
        })
        .await;
    assert!(entered.unwrap().is_some());
    house.switch.send(true).unwrap();
    is(
        house.fatal(&to("app", "shop")).await,
        "57P03",
        "the database system is shutting down",
    );
}

/// A client's side of TLS that trusts `authority` and shows the certificate of `name`.
fn tls_client(authority: &Authority, name: Option<&str>, alpn: bool) -> TlsConnector {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.ca()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match name {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let own =
                CertificateDer::from_pem_file(authority.file(&format!("{name}.crt"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(authority.file(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![own], key).unwrap()
        }
    };
    if alpn {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    "localhost".try_into().unwrap()
}

#[tokio::test]
async fn tls_is_spoken_when_asked_for_or_at_once() {
    let authority = Authority::new("ca");
    let house = House::with_tls("scram-sha-256", &authority, "required = true");
    let end_point = house.access.tls().unwrap().end_point().unwrap().to_vec();
    for (direct, alpn) in [(false, false), (false, true), (true, true)] {
        for binding in [
            ClientBinding::Unsupported,
            ClientBinding::TlsServerEndPoint(end_point.clone()),
        ] {
            for chunk in [1, 7, 4096] {
                let (entered, ()) = house
                    .visit(chunk, async |mut stream| {
                        if !direct {
                            stream.write_all(&bytes(encode::ssl_request)).await.unwrap();
                            assert_eq!(stream.read_u8().await.unwrap(), b'S');
                        }
                        let tls = tls_client(&authority, None, alpn);
                        let mut stream = tls.connect(localhost(), stream).await.unwrap();
                        stream.write_all(&app()).await.unwrap();
                        let (heard, _) = log_in(&mut stream, "secret", binding.clone()).await;
                        assert_eq!(heard.len(), 4);
                    })
                    .await;
                assert!(entered.unwrap().unwrap().stream.is_tls());
            }
        }
    }
    is(
        house.fatal(&app()).await,
        "28000",
        "SSL connection is required",
    );
}

#[tokio::test]
async fn there_is_no_tls_on_a_unix_socket_and_none_is_demanded() {
    let authority = Authority::new("ca");
    let mut house = House::with_tls("trust", &authority, "required = true");
    house.peer = None;
    let (entered, _) = house
        .visit(4096, async |mut stream| {
            stream.write_all(&bytes(encode::ssl_request)).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'N');
            stream.write_all(&app()).await.unwrap();
            assert_eq!(message(&mut stream).await.unwrap().0, b'R');
            stream
        })
        .await;
    assert!(!entered.unwrap().unwrap().stream.is_tls());
    let mut house = House::with_tls("cert", &authority, "");
    house.peer = None;
    is(
        house.fatal(&app()).await,
        "28000",
        "connection requires a valid client certificate",
    );
}

#[tokio::test]
async fn channel_binding_that_somebody_took_away_is_noticed() {
    let authority = Authority::new("ca");
    let house = House::with_tls("scram-sha-256", &authority, "");
    for (binding, sqlstate) in [
        (ClientBinding::NotOffered, "28000"),
        (
            ClientBinding::TlsServerEndPoint(b"another".to_vec()),
            "28000",
        ),
    ] {
        let (entered, (_, last)) = house
            .visit(4096, async |mut stream| {
                stream.write_all(&bytes(encode::ssl_request)).await.unwrap();
                stream.read_u8().await.unwrap();
                let tls = tls_client(&authority, None, true);
                let mut stream = tls.connect(localhost(), stream).await.unwrap();
                stream.write_all(&app()).await.unwrap();
                log_in(&mut stream, "secret", binding).await
            })
            .await;
        assert!(matches!(entered, Err(Refusal::Scram(_))));
        let Ok(Message::ErrorResponse(fields)) = backend::decode(b'E', &last) else {
            panic!()
        };
        assert_eq!(fields.sqlstate().unwrap().as_str(), sqlstate);
    }
}

#[tokio::test]
async fn tls_at_once_must_be_for_postgresql_and_configured() {
    let authority = Authority::new("ca");
    let without = House::trust();
    let (refused, connected) = without
        .visit(4096, async |stream| {
            tls_client(&authority, None, true)
                .connect(localhost(), stream)
                .await
                .is_ok()
        })
        .await;
    assert!(matches!(refused, Err(Refusal::DirectTls)));
    assert!(!connected);

    let house = House::with_tls("trust", &authority, "");
    let (refused, heard) = house
        .visit(4096, async |stream| {
            let tls = tls_client(&authority, None, false);
            let mut stream = tls.connect(localhost(), stream).await.unwrap();
            let _ = stream.write_all(&app()).await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        })
        .await;
    assert!(matches!(refused, Err(Refusal::NoAlpn)));
    assert_eq!(heard, b"");

    let garbage = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 600]].concat();
    let (result, _) = house.hears(&garbage).await;
    assert!(matches!(result, Err(Refusal::Handshake(_))), "{result:?}");
}

#[tokio::test]
async fn a_certificate_lets_in_whom_it_names() {
    let authority = Authority::new("ca");
    let house = House::with_tls("cert", &authority, "");
    for name in ["app", "other"] {
        authority.sign(name, &["localhost"]);
    }
    for (shown, expected) in [
        (Some("app"), "in"),
        (Some("other"), "28000"),
        (None, "no handshake"),
    ] {
        let (entered, heard) = house
            .visit(4096, async |mut stream| {
                stream.write_all(&bytes(encode::ssl_request)).await.unwrap();
                stream.read_u8().await.unwrap();
                let tls = tls_client(&authority, shown, true);
                let Ok(mut stream) = tls.connect(localhost(), stream).await else {
                    return None;
                };
                let _ = stream.write_all(&app()).await;
                message(&mut stream).await
            })
            .await;
        match expected {
            "in" => {
                assert_eq!(entered.unwrap().unwrap().user, "app");
                assert_eq!(heard, Some((b'R', vec![0; 4])));
            }
            "28000" => {
                assert!(matches!(entered, Err(Refusal::Certificate(_))));
                assert_eq!(heard.unwrap().0, b'E');
            }
            _ => assert!(matches!(entered, Err(Refusal::Handshake(_)))),
        }
    }
    // Without TLS there is nothing to show.
    let (sqlstate, _) = house.fatal(&app()).await;
    assert_eq!(sqlstate, "28000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever arrives, the connection ends or the client is in; nothing panics and nothing hangs.
    #[test]
    fn arbitrary_bytes_come_to_an_end(parts in proptest::collection::vec(part(), 0..6), scram: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        static HOUSES: std::sync::OnceLock<[House; 2]> = std::sync::OnceLock::new();
        let houses = HOUSES.get_or_init(|| [House::trust(), House::scram()]);
        let sent = parts.concat();
        runtime.block_on(async {
            let house = &houses[usize::from(scram)];
            let (result, heard) = timeout(Duration::from_secs(60), house.hears(&sent)).await.unwrap();
            if let Err(refusal) = result
                && refusal.sqlstate().is_none()
            {
                assert!(heard.iter().all(|&b| b == b'N') || heard.first() == Some(&b'R'));
            }
        });
    }
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(app().to_vec()),
        Just(bytes(encode::ssl_request).to_vec()),
        Just(bytes(encode::gss_enc_request).to_vec()),
        Just(bytes(|dst| encode::cancel_request(dst, 1, b"abcd")).to_vec()),
        Just(bytes(|dst| encode::bind::<&[u8]>(dst, b"", b"", &[Format::Text], &[], &[])).to_vec()),
        Just(
            bytes(|dst| encode::sasl_initial_response(dst, b"SCRAM-SHA-256", Some(b"n,,n=,r=x")))
                .to_vec()
        ),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}
