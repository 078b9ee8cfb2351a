//! Users that the nodes know and the file does not, or only by a verifier: nobody tells the router a password.

use switchyard_tests::{Client, Failure, Login, Router, eventually};

use super::bed;

const EVERYBODY: &str = "SELECT count(*) FROM public.users";

/// What a careful operator makes, but that it remembers what it was called under.
const GATE: &str = "\
CREATE SCHEMA gate;
CREATE TABLE gate.seen (search_path text, application text);
CREATE FUNCTION gate.find(INOUT name text, OUT password text) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO gate.seen SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('application_name');
    SELECT r.rolname, CASE WHEN r.rolvaliduntil IS NULL OR r.rolvaliduntil > pg_catalog.now() THEN r.rolpassword END INTO name, password
      FROM pg_catalog.pg_authid r WHERE r.rolname = name AND r.rolcanlogin;
END $$;
REVOKE EXECUTE ON FUNCTION gate.find FROM PUBLIC;
CREATE ROLE doorkeeper LOGIN PASSWORD 'secret';
GRANT USAGE ON SCHEMA gate TO doorkeeper;
GRANT EXECUTE ON FUNCTION gate.find TO doorkeeper;
CREATE ROLE walker LOGIN PASSWORD 'walks';
GRANT SELECT ON users TO walker;
CREATE ROLE late LOGIN PASSWORD 'walks' VALID UNTIL '2020-01-01';
CREATE ROLE asleep PASSWORD 'walks';
CREATE ROLE bare LOGIN";

fn on(shard: usize, sql: &str) -> String {
    let node = bed().cluster().shard(shard).primary.as_ref();
    bed().cluster().superuser_sql(node, "shop", sql).unwrap()
}

fn login(router: &Router, user: &str, password: &str) -> Login {
    Login {
        user: user.to_owned(),
        password: password.to_owned(),
        ..Login::new(router.port())
    }
}

fn refused(login: &Login) -> Failure {
    Client::try_connect(login).unwrap_err()
}

/// A router that has these lines in `[auth]` and these users besides the shop's.
fn router(auth: &str, users: &str) -> Router {
    bed().router_by("", |file| {
        let file = file.replacen("[auth]\n", &format!("[auth]\n{auth}\n"), 1);
        file.replacen("[[databases]]\n", &format!("{users}\n[[databases]]\n"), 1)
    })
}

#[test]
fn users_come_in_that_only_the_nodes_know() {
    for shard in [0, 1] {
        on(shard, GATE);
    }
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'walker'";
    let verifier = on(0, verifier);
    on(
        1,
        &format!("ALTER ROLE walker PASSWORD '{}'", verifier.trim()),
    );
    let auth = "auth_user = \"doorkeeper\"\nauth_query = \"SELECT * FROM gate.find($1)\"";
    let doorkeeper = "[[users]]\nname = \"doorkeeper\"\npassword = \"secret\"\n";
    let router = router(auth, doorkeeper);

    // What a client brings does not reach the connection that asks.
    let evil = login(&router, "walker", "walks")
        .with("search_path", "evil")
        .with("application_name", "evil");
    let mut walker = Client::connect(&evil);
    walker.run(EVERYBODY).succeeded();
    assert_eq!(walker.run("SELECT current_user").value(), "walker");
    let seen = on(0, "SELECT DISTINCT search_path, application FROM gate.seen");
    assert_eq!(seen.trim(), "|switchyard auth_query");

    let wrong = refused(&login(&router, "walker", "runs"));
    for (user, password) in [
        ("walker", "wals"),
        ("nobody", "walks"),
        ("late", "walks"),
        ("asleep", "walks"),
        ("bare", ""),
        ("' OR true --", "walks"),
        ("postgres", "walks"),
    ] {
        let failure = refused(&login(&router, user, password));
        let message = wrong.message().replace("walker", user);
        assert_eq!(
            (failure.sqlstate(), failure.message()),
            ("28P01", &*message)
        );
    }
    // The console is nobody's whom the file does not name.
    let console = Login {
        database: "switchyard".to_owned(),
        ..login(&router, "walker", "walks")
    };
    assert_eq!(refused(&console).sqlstate(), "42501");

    // A new password holds for the next login, and everywhere once it is everywhere.
    on(0, "ALTER ROLE walker PASSWORD 'runs'");
    assert_eq!(
        refused(&login(&router, "walker", "walks")).sqlstate(),
        "28P01"
    );
    router.console().run("RECONNECT").succeeded();
    let mut walker = Client::connect(&login(&router, "walker", "runs"));
    let failure = walker.run(EVERYBODY).failure.unwrap();
    assert_eq!(failure.sqlstate(), "28P01");
    assert!(
        failure.message().contains("another verifier"),
        "{failure:?}"
    );
    let verifier = on(
        0,
        "SELECT rolpassword FROM pg_authid WHERE rolname = 'walker'",
    );
    let verifier = verifier.trim();
    on(1, &format!("ALTER ROLE walker PASSWORD '{verifier}'"));
    eventually("it is let in", || walker.run(EVERYBODY).failure.is_none());

    // The file may have the verifier, too.
    let listed = format!("[[users]]\nname = \"walker\"\npassword = \"{verifier}\"\n");
    let router = self::router("", &listed);
    let mut walker = Client::connect(&login(&router, "walker", "runs"));
    walker.run(EVERYBODY).succeeded();
    assert_eq!(
        refused(&login(&router, "walker", verifier)).sqlstate(),
        "28P01"
    );
}
