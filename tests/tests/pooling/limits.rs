//! How many connections there are: for each user and database, together, kept open, in reserve; and in what order they are had.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use switchyard_tests::{Client, Login, Reply, Router, eventually};

use super::{bed, client, router, server_of};

const READ: &str = "SELECT name FROM users WHERE id = 1";

/// Another user than the shop's.
fn clerk(router: &Router) -> Login {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        on_all("CREATE ROLE clerk LOGIN PASSWORD 'secret'; GRANT SELECT ON users TO clerk");
    });
    named(router, "clerk")
}

fn named(router: &Router, user: &str) -> Login {
    Login {
        user: user.to_owned(),
        ..Login::new(router.port())
    }
}

fn on_all(sql: &str) {
    for shard in bed().cluster().shards() {
        let node = shard.primary.as_ref();
        bed().cluster().superuser_sql(node, "shop", sql).unwrap();
    }
}

/// A router with these lines in its `[router]`, another user with these, and these of the database.
fn with_user(router: &str, user: &str, lines: &str, database: &str) -> Router {
    let user = format!("[[users]]\nname = {user:?}\npassword = \"secret\"\n{lines}\n\n");
    let databases = "[[databases]]\nname = \"shop\"\n";
    bed().router_by(router, |file| {
        assert!(file.contains(databases), "{file}");
        file.replacen(databases, &format!("{user}{databases}{database}\n"), 1)
    })
}

/// A column of SHOW NODE_POOLS as numbers, for each pool, the pools of one node together if they share it.
fn pools(router: &Router, of: fn(&[String]) -> u64) -> Vec<u64> {
    const COLUMNS: [&str; 4] = ["node", "cl_waiting", "sv_active", "sv_idle"];
    let shown: Reply = router.console().run("SHOW NODE_POOLS").succeeded();
    let names = shown.columns.iter().flatten().map(|column| &column.name);
    let places = COLUMNS.map(|wanted| names.clone().position(|name| name == wanted).unwrap());
    let mut nodes = std::collections::BTreeMap::<String, u64>::new();
    for row in shown.texts() {
        let row = places.map(|place| row[place].clone());
        *nodes.entry(row[0].clone()).or_default() += of(&row);
    }
    nodes.into_values().collect()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

/// The most connections that there are to a node.
fn most(router: &Router) -> u64 {
    let open = pools(router, |row| number(&row[2]) + number(&row[3]));
    open.into_iter().max().unwrap_or(0)
}

fn waiting(router: &Router) -> u64 {
    pools(router, |row| number(&row[1])).into_iter().sum()
}

fn begun(mut client: Client) -> Client {
    client.run("BEGIN").succeeded();
    client.run(READ).succeeded();
    client
}

#[test]
fn who_has_waited_longest_is_next() {
    const WAITING: u64 = 5;
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let mut holder = begun(client(&router));
    let clock = "SELECT clock_timestamp() FROM users WHERE id = 1";
    std::thread::scope(|scope| {
        let served: Vec<_> = (1..=WAITING)
            .map(|place| {
                let mut client = client(&router);
                let served = scope.spawn(move || client.run(clock).value());
                eventually("it waits", || waiting(&router) == place);
                served
            })
            .collect();
        holder.run("COMMIT").succeeded();
        let served: Vec<String> = served.into_iter().map(|at| at.join().unwrap()).collect();
        assert!(served.is_sorted(), "{served:?}");
    });
}

/// As with PgBouncer: a database may have another name for clients, and sessions that are all one user's for the servers.
#[test]
fn a_database_has_a_name_and_a_user_of_its_own_for_clients() {
    clerk(bed().router());
    let node = bed().cluster().shard(0).primary.as_ref();
    let another = format!(
        "[[databases]]\nname = \"counter\"\ndbname = \"shop\"\nuser = \"clerk\"\n[[databases.shards]]\nname = \"s0\"\n\
         nodes = [{{ host = {:?}, port = {}, role = \"primary\" }}]\n",
        node.host(),
        node.port()
    );
    let clerk = "[[users]]\nname = \"clerk\"\npassword = \"secret\"\n\n";
    let router = bed().router_by("", |file| {
        let at = file.find("[[databases]]").unwrap();
        format!("{}{clerk}{another}\n{}", &file[..at], &file[at..])
    });
    let mut client = Client::connect(&Login {
        database: "counter".to_owned(),
        ..Login::new(router.port())
    });
    let who = client.run("SELECT current_database(), current_user, session_user");
    assert_eq!(who.succeeded().texts(), [["shop", "clerk", "clerk"]]);
    client.refused(
        "DELETE FROM users WHERE id = 1",
        "42501",
        "permission denied for table users",
    );
    let shown = router.console().run("SHOW CLIENTS").succeeded().texts();
    let own: Vec<_> = shown.iter().map(|row| (&*row[2], &*row[3])).collect();
    assert_eq!(own, [("app", "counter")]);
}

#[test]
fn users_and_databases_have_their_own_sizes_and_modes() {
    let lines = "pool_size = 1\nquery_wait_timeout = \"500ms\"\nread_policy = \"primary\"";
    let own = "pool_mode = \"session\"\npool_size = 2";
    let router = with_user(lines, "clerk", own, "pool_mode = \"statement\"");
    // The user's word goes first: each keeps its connection, and a third finds none.
    let mut clerks = [0, 1].map(|_| Client::connect(&clerk(&router)));
    let servers = clerks.each_mut().map(|clerk| server_of(clerk, 1));
    assert_ne!(servers[0], servers[1]);
    let mut third = Client::connect(&clerk(&router));
    assert_eq!(third.run(READ).sqlstate(), Some("53300"));
    for (clerk, server) in clerks.iter_mut().zip(&servers) {
        clerk.run("BEGIN").succeeded();
        assert_eq!(server_of(clerk, 1), *server);
        clerk.run("COMMIT").succeeded();
    }
    // The other one has the database's mode, and the router's size.
    let mut other = client(&router);
    other.run(READ).succeeded();
    let message = "transaction blocks not allowed in statement pooling mode";
    for begin in ["BEGIN", "START TRANSACTION READ ONLY"] {
        other.refused(begin, "0A000", message);
    }
    let refused = other.simple(&format!("{READ}; BEGIN; {READ}"));
    assert_eq!(refused.last().unwrap().sqlstate(), Some("0A000"));
    other.run(READ).succeeded();
    let shown = router.console().run("SHOW NODE_POOLS").succeeded().texts();
    let modes = |user: &str, mode: &str| {
        let own = shown.iter().filter(|row| row[1] == user);
        own.clone().count() > 0 && own.clone().all(|row| row.contains(&mode.to_owned()))
    };
    assert!(
        modes("clerk", "session") && modes("app", "statement"),
        "{shown:?}"
    );
}

#[test]
fn users_share_what_a_database_may_have() {
    let lines = "read_policy = \"primary\"\nquery_wait_timeout = \"20s\"";
    let router = with_user(lines, "clerk", "", "max_db_connections = 1");
    let mut clerk = Client::connect(&clerk(&router));
    let mut app = client(&router);
    for _ in 0..2 {
        clerk.run(READ).succeeded();
        assert_eq!(most(&router), 1);
        // The one that rests for the other user is closed.
        app = begun(app);
        assert_eq!(most(&router), 1);
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| clerk.run(READ).succeeded());
            eventually("it waits", || waiting(&router) == 1);
            let since = Instant::now();
            app.run("COMMIT").succeeded();
            reading.join().unwrap();
            assert!(since.elapsed() < Duration::from_secs(10));
        });
    }
}

#[test]
fn who_has_waited_longest_is_next_among_users_that_share_a_limit() {
    let lines = "read_policy = \"primary\"\nquery_wait_timeout = \"20s\"";
    let router = with_user(lines, "clerk", "", "max_db_connections = 1");
    let mut holder = begun(Client::connect(&clerk(&router)));
    let mut clerks = [0, 1].map(|_| Client::connect(&clerk(&router)));
    let mut app = client(&router);
    let clock = "SELECT clock_timestamp() FROM users WHERE id = 1";
    let [before, between, after] = std::thread::scope(|scope| {
        let [first, second] = clerks.each_mut();
        let app = scope.spawn(|| app.run(clock).value());
        eventually("it waits", || waiting(&router) == 1);
        // Longer than the head start of who needs no other connection than the one that is there.
        holder
            .run("SELECT pg_sleep(0.2) FROM users WHERE id = 1")
            .succeeded();
        let first = scope.spawn(|| first.run(clock).value());
        eventually("it waits", || waiting(&router) == 2);
        let second = scope.spawn(|| second.run(clock).value());
        eventually("it waits", || waiting(&router) == 3);
        holder.run("COMMIT").succeeded();
        [app, first, second].map(|at| at.join().unwrap())
    });
    assert!(
        before < between && between < after,
        "{before} {between} {after}"
    );
}

#[test]
fn who_no_longer_waits_is_in_nobodys_way() {
    let lines = "read_policy = \"primary\"\nquery_wait_timeout = \"20s\"";
    let router = with_user(lines, "clerk", "", "max_db_connections = 1");
    let mut first = begun(Client::connect(&clerk(&router)));
    let mut second = Client::connect(&clerk(&router));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| second.run(READ).succeeded());
        eventually("it waits", || waiting(&router) == 1);
        // The second gets what the first gives back, without a place of the quota.
        first.run("COMMIT").succeeded();
        reading.join().unwrap();
    });
    let since = Instant::now();
    client(&router).run(READ).succeeded();
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_user_has_so_many_connections_and_others_have_theirs() {
    let router = with_user(
        "query_wait_timeout = \"500ms\"\nread_policy = \"primary\"",
        "clerk",
        "max_user_connections = 1",
        "",
    );
    let _one = begun(Client::connect(&clerk(&router)));
    let mut two = Client::connect(&clerk(&router));
    assert_eq!(two.run(READ).sqlstate(), Some("53300"));
    let _others = [0, 1].map(|_| begun(client(&router)));
}

/// Clients, where the others are about connections to servers.
#[test]
fn a_database_and_a_user_have_so_many_clients() {
    let router = with_user(
        "max_db_client_connections = 3",
        "clerk",
        "max_user_client_connections = 1",
        "",
    );
    let refused = |login: &Login, message| {
        let failure = Client::try_connect(login).unwrap_err();
        let said = (failure.severity(), failure.sqlstate(), failure.message());
        assert_eq!(said, ("FATAL", "53300", message));
    };
    let clerk = clerk(&router);
    let one = Client::connect(&clerk);
    refused(&clerk, "too many connections for role \"clerk\"");
    let _two = [0, 1].map(|_| client(&router));
    let own = named(&router, "app");
    refused(&own, "too many connections for database \"shop\"");
    // The console is for those who are to do something about it.
    router.console().run("SHOW CLIENTS").succeeded();
    drop(one);
    eventually("there is room again", || Client::try_connect(&own).is_ok());
}

#[test]
fn the_reserve_is_for_who_has_waited() {
    let lines = "pool_size = 1\nreserve_pool_size = 1\nreserve_pool_timeout = \"300ms\"\n\
                 query_wait_timeout = \"1s\"\nread_policy = \"primary\"";
    let router = router(lines);
    let mut one = begun(client(&router));
    let mut two = client(&router);
    let since = Instant::now();
    two = begun(two);
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(most(&router), 2);
    assert_eq!(client(&router).run(READ).sqlstate(), Some("53300"));
    one.run("COMMIT").succeeded();
    two.run("COMMIT").succeeded();
    assert_eq!(most(&router), 1);
}

#[test]
fn so_many_connections_are_kept_open() {
    let lines = "min_pool_size = 2\nserver_idle_timeout = \"1s\"\nread_policy = \"primary\"";
    let router = router(lines);
    client(&router).run(READ).succeeded();
    eventually("there are as many", || most(&router) == 2);
    let busy: Vec<Client> = (0..4).map(|_| begun(client(&router))).collect();
    assert_eq!(most(&router), 4);
    drop(busy);
    eventually("the others are closed", || most(&router) == 2);
    client(&router).run(READ).succeeded();
}

#[test]
fn a_node_that_lets_nobody_in_is_not_asked_by_everybody() {
    let router = with_user("", "late", "", "");
    let asked = || {
        let nodes = bed().cluster().nodes();
        let logs = nodes.map(|node| node.log().unwrap());
        let failed = "password authentication failed for user \"late\"";
        logs.map(|log| log.matches(failed).count()).sum::<usize>()
    };
    let since = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let failure = Client::try_connect(&named(&router, "late")).unwrap_err();
                assert_eq!((failure.severity(), failure.sqlstate()), ("FATAL", "28P01"));
            });
        }
    });
    // Each of two nodes may have been asked, and again after a pause.
    let pauses = since.elapsed().as_millis() as usize / 250;
    assert!((1..=2 + 2 * pauses).contains(&asked()), "{}", asked());
    on_all("CREATE ROLE late LOGIN PASSWORD 'secret'");
    eventually("it is let in", || {
        Client::try_connect(&named(&router, "late")).is_ok()
    });
}
