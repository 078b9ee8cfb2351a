use super::*;

fn visit<'a>(database: &'a str, user: &'a str, address: &str, tls: bool) -> Visit<'a> {
    Visit {
        databases: Box::leak(Box::new([database])),
        user,
        address: (address != "local").then(|| address.parse().unwrap()),
        tls,
    }
}

const RULES: &str = r#"
# TYPE  DATABASE        USER        ADDRESS                 METHOD
local   all             all                                 trust
hostssl all             boss        0.0.0.0/0               cert map=people   # by certificate
host    shop,"all"      clerk, app  10.1.0.0/16             scram-sha-256
host    sameuser        all         10.2.0.0 255.255.0.0    md5
host    all             eve         all                     reject
hostnossl all           all         ::1/128                 reject
host    replication     all         all                     trust
hostssl all             all         fe80::/10               scram-sha-256 clientcert=verify-full
"#;

#[test]
fn the_first_rule_that_fits_decides() {
    let hba = Hba::parse(RULES).unwrap();
    let method = |visit| hba.rule(visit).map(|rule| rule.method);
    let scram = Some(HbaMethod::ScramSha256);
    for (visit, expected) in [
        (visit("shop", "eve", "local", false), Some(HbaMethod::Trust)),
        (visit("x", "boss", "192.0.2.1", true), Some(HbaMethod::Cert)),
        (visit("x", "boss", "192.0.2.1", false), None),
        (visit("x", "boss", "::1", true), None),
        (visit("shop", "clerk", "10.1.255.7", false), scram),
        (visit("shop", "app", "10.1.255.7", true), scram),
        // In quotes it is a name.
        (visit("all", "app", "10.1.0.0", true), scram),
        (visit("other", "app", "10.1.0.0", true), None),
        (visit("shop", "app", "10.2.0.0", true), None),
        (visit("app", "app", "10.2.0.0", true), scram),
        (visit("app", "app", "::ffff:10.2.3.4", true), scram),
        (
            visit("shop", "eve", "2001:db8::1", true),
            Some(HbaMethod::Reject),
        ),
        (visit("shop", "app", "::1", false), Some(HbaMethod::Reject)),
        (visit("shop", "app", "::1", true), None),
        (visit("shop", "app", "fe80::17", true), scram),
        (visit("shop", "app", "fec0::17", true), None),
    ] {
        assert_eq!(method(visit), expected, "{visit:?}");
    }
    let console = Visit {
        databases: &["x", "shop"],
        ..visit("", "app", "10.1.255.7", false)
    };
    assert_eq!(method(console), scram);
    assert!(hba.wants_certificates());
    assert_eq!(hba.maps().collect::<Vec<_>>(), ["people"]);
    let full = hba.rule(visit("shop", "app", "fe80::17", true)).unwrap();
    assert_eq!(full.certificate, Some(ClientCert::OfUser));
}

#[test]
fn names_are_what_they_are_for_postgresql() {
    let hba = Hba::parse("host all \"we\"\"ird\",no\u{a0}break all reject\r\n").unwrap();
    for (user, is_named) in [("we\"ird", true), ("weird", false), ("no\u{a0}break", true)] {
        let visit = visit("shop", user, "192.0.2.1", false);
        assert_eq!(hba.rule(visit).is_some(), is_named, "{user}");
    }
}

#[test]
fn nothing_unknown_is_passed_over() {
    for (line, complaint) in [
        ("hots all all all trust", "\"hots\" is not known"),
        ("host all all", "the address is missing"),
        ("host all all 10.0.0.0", "the mask"),
        ("host all all 10.0.0.0/33 trust", "no address"),
        ("host all all 10.0.0.0/x trust", "no address"),
        ("host all all example.org/8 trust", "no address"),
        ("host all all samenet trust", "no address"),
        ("host all all 10.0.0.0 ::1 trust", "no address"),
        ("host all +staff all trust", "\"+staff\" is not supported"),
        ("host @file all all trust", "\"@file\" is not supported"),
        ("host all /^a all trust", "\"/^a\" is not supported"),
        ("host all \"/^(a|b),?$\" all reject", "is not supported"),
        ("host samerole all all trust", "samerole is not supported"),
        ("host all all all ldap", "method \"ldap\""),
        ("host all all all", "the method is missing"),
        ("host all all all trust x=1", "option \"x=1\""),
        ("host all all all trust map=a", "option \"map=a\""),
        ("hostssl all all all cert clientcert=verify-ca", "option"),
        ("host all all all cert", "hostssl only"),
        ("local all all trust clientcert=verify-ca", "hostssl only"),
        ("host all \"app all trust", "a quote is not closed"),
        ("# host all all all reject \\", "a line that goes on"),
        ("host all all all trust,reject", "a list has no meaning"),
    ] {
        let errors = Hba::parse(&format!("\n{line}\n")).unwrap_err();
        let [(2, error)] = errors.as_slice() else {
            panic!("{line}: {errors:?}")
        };
        assert!(error.contains(complaint), "{line}: {error}");
    }
}

#[test]
fn certificates_stand_for_whom_the_map_says() {
    let maps = "people \"Ann B.\" app # her\npeople bob bob\nothers \"Ann B.\" boss\n";
    let maps = IdentMaps::parse(maps).unwrap();
    assert!(maps.allows("people", "Ann B.", "app"));
    assert!(!maps.allows("people", "Ann B.", "boss"));
    assert!(!maps.allows("others", "bob", "bob"));
    assert!(maps.has("others") && !maps.has("bob"));
    for wrong in [
        "people ann",
        "people /^(.*)$ x",
        "people \"/^(.*)$\" x",
        "people a,b c",
        "people ann all",
        "people ann +staff",
        "people ann @file",
        "a b c d",
    ] {
        assert!(IdentMaps::parse(wrong).is_err(), "{wrong}");
    }
}
