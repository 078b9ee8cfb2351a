//! Rules by where a client comes from, and certificates that stand for users.

use super::*;

/// A house with these rules and these maps; more lines of `[router]`.
fn house(rules: &str, maps: &str, router: &str) -> (House, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("hba"), rules).unwrap();
    std::fs::write(path("ident"), maps).unwrap();
    let auth = format!(
        "method = \"hba\"\nhba_file = {:?}\nident_file = {:?}",
        path("hba"),
        path("ident")
    );
    (House::by(&auth, router), directory)
}

fn to(user: &str, database: &str) -> BytesMut {
    packet(
        ProtocolVersion::V3_0,
        &[("user", user), ("database", database)],
    )
}

#[tokio::test]
async fn the_first_rule_decides_how_a_client_enters() {
    let rules = "\
        host shop app 192.0.2.0/24 trust\n\
        host all reader 192.0.2.1 255.255.255.255 reject\n\
        host other app all scram-sha-256\n\
        local all all trust\n";
    let (mut house, _files) = house(rules, "", "");
    let enters = async |house: &House, start: BytesMut| {
        let (entered, heard) = house
            .visit(1024, async |mut stream| {
                stream.write_all(&start).await.unwrap();
                message(&mut stream).await
            })
            .await;
        (entered.is_ok(), heard)
    };
    let ok = Some((b'R', vec![0; 4]));
    assert_eq!(enters(&house, to("app", "shop")).await, (true, ok.clone()));
    is(
        house.fatal(&to("reader", "shop")).await,
        "28000",
        "pg_hba.conf rejects connection for host \"192.0.2.1\", user \"reader\", database \"shop\", no encryption",
    );
    is(
        house.fatal(&to("app", "switchyard")).await,
        "28000",
        "no pg_hba.conf entry for host \"192.0.2.1\", user \"app\", database \"switchyard\", no encryption",
    );
    let (entered, (heard, _)) = house
        .visit(1024, async |mut stream| {
            stream.write_all(&to("app", "other")).await.unwrap();
            log_in(&mut stream, "secret", ClientBinding::Unsupported).await
        })
        .await;
    assert!(entered.unwrap().is_some());
    assert_eq!(heard.len(), 4);
    house.peer = None;
    assert_eq!(enters(&house, to("reader", "x")).await, (true, ok));
}

#[tokio::test]
async fn a_rule_for_the_console_holds_by_either_name() {
    let (house, _files) = house(
        "host pgbouncer app all reject\nhost all app all trust\n",
        "",
        "",
    );
    for name in ["pgbouncer", "switchyard"] {
        let message = format!(
            "pg_hba.conf rejects connection for host \"192.0.2.1\", user \"app\", database \"{name}\", no encryption"
        );
        is(house.fatal(&to("app", name)).await, "28000", &message);
    }
}

#[tokio::test]
async fn a_certificate_stands_for_whom_its_map_says() {
    let authority = Authority::new("ca");
    authority.sign("router", &["localhost"]);
    let (cert, key) = (authority.file("router.crt"), authority.file("router.key"));
    let tls = format!(
        "tls = {{ cert = {cert:?}, key = {key:?}, client_ca = {:?} }}",
        authority.ca()
    );
    let rules = "hostssl shop app all cert map=people\n\
                 hostssl other app all trust clientcert=verify-ca\n\
                 hostssl third app all trust clientcert=verify-full\n";
    let (house, _files) = house(rules, "people ann app\n", &tls);
    for name in ["ann", "app"] {
        authority.sign(name, &["localhost"]);
    }
    for (shown, database, enters) in [
        (Some("ann"), "shop", true),
        (Some("app"), "shop", false),
        (None, "shop", false),
        (Some("ann"), "other", true),
        (None, "other", false),
        (Some("ann"), "third", false),
        (Some("app"), "third", true),
    ] {
        let (entered, _) = house
            .visit(4096, async |mut stream| {
                stream.write_all(&bytes(encode::ssl_request)).await.unwrap();
                stream.read_u8().await.unwrap();
                let tls = tls_client(&authority, shown, true);
                let mut stream = tls.connect(localhost(), stream).await.unwrap();
                stream.write_all(&to("app", database)).await.unwrap();
                message(&mut stream).await
            })
            .await;
        match entered {
            Ok(_) => assert!(enters, "{shown:?} {database}"),
            Err(refusal) => {
                assert!(!enters, "{shown:?} {database}: {refusal}");
                let sqlstate = refusal.sqlstate().unwrap().to_string();
                assert_eq!(sqlstate, "28000");
            }
        }
    }
}
