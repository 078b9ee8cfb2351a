//! Users that the nodes know and the file does not, or only by a verifier: nobody tells the router a password.

use std::sync::OnceLock;

use switchyard_tests::{Client, Failure, Login, Router};

use super::bed;

const EVERYBODY: &str = "SELECT count(*) FROM public.users";

/// What a careful operator makes, but that it remembers what it was called under.
const GATE: &str = "\
CREATE SCHEMA gate;
CREATE TABLE gate.seen (search_path text, application text, asked text);
CREATE FUNCTION gate.find(INOUT name text, OUT password text) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO gate.seen SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('application_name'), name;
    SELECT r.rolname, CASE WHEN r.rolvaliduntil IS NULL OR r.rolvaliduntil > pg_catalog.now() THEN r.rolpassword END INTO name, password
      FROM pg_catalog.pg_authid r WHERE r.rolname = name AND r.rolcanlogin;
END $$;
REVOKE EXECUTE ON FUNCTION gate.find FROM PUBLIC;
CREATE ROLE doorkeeper LOGIN PASSWORD 'secret';
GRANT USAGE ON SCHEMA gate TO doorkeeper;
GRANT EXECUTE ON FUNCTION gate.find TO doorkeeper;
CREATE ROLE walker LOGIN PASSWORD 'walks';
CREATE ROLE rover LOGIN PASSWORD 'walks';
GRANT SELECT ON users TO walker, rover;
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
    bed().router_by("", |file| with(&file, auth, users))
}

/// A router's file with these lines in `[auth]` and these users besides the shop's.
fn with(file: &str, auth: &str, users: &str) -> String {
    let file = file.replacen("[auth]\n", &format!("[auth]\n{auth}\n"), 1);
    file.replacen("[[databases]]\n", &format!("{users}\n[[databases]]\n"), 1)
}

/// A router that looks users up, with these lines in its `[router]`, by a file that `edit` has changed.
fn asking(lines: &str, edit: impl FnOnce(String) -> String) -> Router {
    static GATES: OnceLock<()> = OnceLock::new();
    GATES.get_or_init(|| {
        for shard in [0, 1] {
            on(shard, GATE);
        }
    });
    let auth = "auth_user = \"doorkeeper\"\nauth_query = \"SELECT * FROM gate.find($1)\"";
    let doorkeeper = "[[users]]\nname = \"doorkeeper\"\npassword = \"secret\"\n";
    bed().router_by(lines, |file| edit(with(&file, auth, doorkeeper)))
}

/// Gives the second shard the role's verifier on the first, which it is.
fn copy_verifier(role: &str) -> String {
    let verifier = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    let verifier = on(0, &verifier).trim().to_owned();
    on(1, &format!("ALTER ROLE {role} PASSWORD '{verifier}'"));
    verifier
}

#[test]
fn nobody_is_looked_up_whom_a_rule_keeps_out() {
    let files = tempfile::tempdir().unwrap();
    let rules = files.path().join("rules");
    std::fs::write(
        &rules,
        "host all mole all reject\nhost all all all scram-sha-256\n",
    )
    .unwrap();
    let by_rules = format!("method = \"hba\"\nhba_file = {rules:?}");
    let router = asking("", |file| {
        file.replacen("method = \"scram-sha-256\"", &by_rules, 1)
    });
    for (user, sqlstate, asked) in [("mole", "28000", "0"), ("hare", "28P01", "1")] {
        let failure = refused(&login(&router, user, "digs"));
        assert_eq!(failure.sqlstate(), sqlstate, "{failure:?}");
        let seen = format!("SELECT count(*) FROM gate.seen WHERE asked = '{user}'");
        assert_eq!(on(0, &seen).trim(), asked, "{user}");
    }
}

#[test]
fn who_may_log_in_no_more_is_forgotten() {
    let router = asking("client_login_timeout = \"2s\"", |file| file);
    copy_verifier("rover");
    let rover = login(&router, "rover", "walks");
    let mut before = Client::connect(&rover);
    before.run(EVERYBODY).succeeded();

    // While the database is paused nobody is looked up, and no connection is opened for that.
    router.console().run("PAUSE shop").succeeded();
    assert_eq!(refused(&rover).sqlstate(), "57014");
    let servers = router.console().run("SHOW SERVERS").succeeded();
    assert_eq!(servers.rows.len(), 0, "{servers:?}");
    router.console().run("RESUME shop").succeeded();

    // What it has proven is good for new connections until a lookup says otherwise.
    before.run(EVERYBODY).succeeded();
    router.console().run("RECONNECT").succeeded();
    on(0, "ALTER ROLE rover NOLOGIN");
    assert_eq!(refused(&rover).sqlstate(), "28P01");
    on(0, "ALTER ROLE rover LOGIN");
    let failure = before.run(EVERYBODY).failure.unwrap();
    assert_eq!(failure.sqlstate(), "28P01");
    assert!(failure.message().contains("log in anew"), "{failure:?}");
    Client::connect(&rover);
    before.run(EVERYBODY).succeeded();
}

#[test]
fn users_come_in_that_only_the_nodes_know() {
    let router = asking("", |file| file);
    copy_verifier("walker");

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
    for _ in 0..3 {
        let failure = walker.run(EVERYBODY).failure.unwrap();
        assert_eq!(failure.sqlstate(), "28P01");
        assert!(
            failure.message().contains("another verifier"),
            "{failure:?}"
        );
    }
    let verifier = copy_verifier("walker");
    // The node has refused nothing, so that nobody waits before it is asked again.
    walker.run(EVERYBODY).succeeded();

    // The file may have the verifier, too.
    let listed = format!("[[users]]\nname = \"walker\"\npassword = \"{verifier}\"\n");
    let router = self::router("", &listed);
    let mut walker = Client::connect(&login(&router, "walker", "runs"));
    walker.run(EVERYBODY).succeeded();
    assert_eq!(
        refused(&login(&router, "walker", &verifier)).sqlstate(),
        "28P01"
    );
}
