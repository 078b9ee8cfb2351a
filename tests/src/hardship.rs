//! Reads over rows of several shards that are made to fail on their way, or to wait, and what must hold after that: the client
//! gets one error, the session goes on, and nothing is left on any server.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use switchyard_cluster::{ClusterSpec, Node};

use crate::{Bed, BedSpec, Client, Failure, Login, Reply, Router, Turn, Turns, bind, eventually};

/// `checked` is looked at row by row as it is read: a row can fail, or wait until nobody holds the lock. `logbook` is empty.
const DDL: &str = "
CREATE TABLE readings (id bigint PRIMARY KEY, divisor int NOT NULL, payload text NOT NULL);
ALTER TABLE readings ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE checked (LIKE readings INCLUDING ALL);
CREATE TABLE logbook (id bigint PRIMARY KEY, payload text);
CREATE FUNCTION passes(divisor int) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN
    IF divisor = -1 THEN PERFORM pg_advisory_xact_lock_shared(7); END IF;
    RETURN 100 / divisor IS NOT NULL;
END $$;
ALTER TABLE checked ENABLE ROW LEVEL SECURITY;
ALTER TABLE checked FORCE ROW LEVEL SECURITY;
CREATE POLICY looked_at ON checked USING (passes(divisor)) WITH CHECK (true);
";

const TABLES: &str = "
[[databases.tables]]
name      = \"readings\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name          = \"checked\"
shard_key     = \"id\"
method        = \"hash\"
colocate_with = \"readings\"

[[databases.tables]]
name          = \"logbook\"
shard_key     = \"id\"
method        = \"hash\"
colocate_with = \"readings\"
";

static BEDS: Turns<2> = Turns::new(|| {
    let bed = Bed::start(spec(ClusterSpec::for_tests(2, 0)));
    fill(&bed);
    bed
});

/// Two shards with both tables filled, for one test at a time: they stop servers, hold locks, and make the same tables.
pub fn bed() -> (&'static Bed, Turn) {
    BEDS.take()
}

/// Rows of each table.
pub const ROWS: usize = 60;
/// Bytes of a payload.
pub const PAYLOAD: usize = 20_000;

/// A test bed on these servers, with the tables of this module.
pub fn spec(cluster: ClusterSpec) -> BedSpec {
    BedSpec {
        auth: "trust",
        ..BedSpec::of(cluster).with_tables(DDL, TABLES)
    }
}

/// Fills the tables.
pub fn fill(bed: &Bed) {
    let mut client = bed.client();
    for table in ["readings", "checked"] {
        for id in 1..=ROWS {
            let insert = format!("INSERT INTO {table} VALUES ({id}, 1, repeat('x', {PAYLOAD}))");
            client.run(&insert).succeeded();
        }
    }
}

/// The primary of a shard.
pub fn primary(bed: &Bed, shard: usize) -> &dyn Node {
    bed.cluster().shard(shard).primary.as_ref()
}

/// Runs SQL on a shard, past the router, as a superuser.
pub fn superuser(bed: &Bed, shard: usize, sql: &str) -> String {
    let node = primary(bed, shard);
    bed.cluster().superuser_sql(node, "shop", sql).unwrap()
}

/// The same on all of them.
pub fn everywhere(bed: &Bed, sql: &str) {
    for shard in 0..bed.cluster().shards().len() {
        superuser(bed, shard, sql);
    }
}

/// What is so on every shard, for as long as this lives.
#[derive(Debug)]
pub struct Changed<'a>(&'a Bed, &'a str);

impl<'a> Changed<'a> {
    /// Done by this SQL, and undone by the other.
    pub fn by(bed: &'a Bed, sql: &str, undo: &'a str) -> Changed<'a> {
        everywhere(bed, sql);
        Changed(bed, undo)
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        everywhere(self.0, self.1);
    }
}

/// A row of `checked`, the last of its shard, that does as `divisor` says, for as long as this lives.
#[derive(Debug)]
pub struct Row<'a>(&'a Bed, usize);

impl<'a> Row<'a> {
    /// On this shard. 0 fails; -1 waits until nobody holds the lock.
    pub fn on(bed: &'a Bed, shard: usize, divisor: i32) -> Row<'a> {
        let last = "(SELECT id FROM checked ORDER BY ctid DESC LIMIT 1)";
        let update = format!("UPDATE checked SET divisor = {divisor} WHERE id = {last}");
        superuser(bed, shard, &update);
        Row(bed, shard)
    }
}

impl Drop for Row<'_> {
    fn drop(&mut self) {
        superuser(
            self.0,
            self.1,
            "UPDATE checked SET divisor = 1 WHERE divisor <> 1",
        );
    }
}

/// The rows of `checked` on a shard stop coming before the last, as long as this lives.
#[derive(Debug)]
pub struct Held<'a> {
    holder: Option<Client>,
    bed: &'a Bed,
    shard: usize,
    _row: Row<'a>,
}

impl<'a> Held<'a> {
    /// On this shard.
    pub fn on(bed: &'a Bed, shard: usize) -> Held<'a> {
        let row = Row::on(bed, shard, -1);
        let mut held = Held {
            holder: None,
            bed,
            shard,
            _row: row,
        };
        held.hold();
        held
    }

    /// Holds them up again.
    pub fn hold(&mut self) {
        self.release();
        let mut holder = self.bed.node_client(primary(self.bed, self.shard));
        holder.run("SELECT pg_advisory_lock(7)").succeeded();
        self.holder = Some(holder);
    }

    /// Lets them come.
    pub fn release(&mut self) {
        self.holder = None;
    }

    /// Waits until somebody waits for the rows.
    pub fn is_waited_for(&self) {
        eventually("the fetch waits", || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
            superuser(self.bed, self.shard, waiting) == "1"
        });
    }

    /// Ends the backend that waits.
    pub fn kill(&self) {
        self.is_waited_for();
        let kill =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        assert_eq!(superuser(self.bed, self.shard, kill), "t");
    }
}

/// The backends, on all shards, that satisfy a condition, dealt with by an expression.
pub fn backends(bed: &Bed, expression: &str, condition: &str) -> Vec<String> {
    let sql = format!(
        "SELECT {expression} FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend' \
         AND pid <> pg_backend_pid() AND {condition}"
    );
    let shards = 0..bed.cluster().shards().len();
    let lines = shards.map(|shard| superuser(bed, shard, &sql));
    lines
        .flat_map(|lines| lines.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the simple protocol.
    Simple,
    /// By the extended protocol.
    Extended,
    /// In a block that has written, behind a savepoint.
    Block,
    /// The same by the extended protocol.
    BlockExtended,
    /// Between two others, all before one Sync.
    Pipeline,
}

/// All of them.
pub const WAYS: [Way; 5] = [
    Way::Simple,
    Way::Extended,
    Way::Block,
    Way::BlockExtended,
    Way::Pipeline,
];

impl Way {
    /// Whether it is in a block.
    pub fn is_block(self) -> bool {
        matches!(self, Way::Block | Way::BlockExtended)
    }
}

fn extended(sql: &str, buffer: &mut BytesMut) {
    frontend::parse("", sql, [], buffer).unwrap();
    bind("", "", &[], 0, buffer);
    frontend::describe(b'P', "", buffer).unwrap();
    frontend::execute("", 0, buffer).unwrap();
}

/// Sends a statement.
pub fn send(client: &mut Client, way: Way, sql: &str) {
    if way.is_block() {
        client.run("BEGIN").succeeded();
        let insert = "INSERT INTO readings VALUES (1000, 1, 'own')";
        client.run(insert).succeeded();
        client.run("SAVEPOINT before").succeeded();
    }
    client.send(|buffer| match way {
        Way::Simple | Way::Block => frontend::query(sql, buffer).unwrap(),
        Way::Extended | Way::BlockExtended => {
            extended(sql, buffer);
            frontend::sync(buffer);
        }
        Way::Pipeline => {
            extended("SELECT divisor FROM readings WHERE id = 7", buffer);
            extended(sql, buffer);
            extended("SELECT divisor FROM readings WHERE id = 8", buffer);
            frontend::sync(buffer);
        }
    });
}

/// The error that a statement is answered, which must be the only one.
#[track_caller]
pub fn failure(client: &mut Client, way: Way) -> Failure {
    let mut replies = client.replies(None);
    if way == Way::Pipeline {
        let before: Reply = replies.remove(0).succeeded();
        assert_eq!(before.value(), "1");
    }
    assert_eq!(replies.len(), 1, "{way:?}: {:?}", replies.last());
    assert_eq!(client.status, if way.is_block() { b'E' } else { b'I' });
    let reply = replies.remove(0);
    let failure = reply.failure;
    failure.unwrap_or_else(|| panic!("{way:?} is answered: {:?}", reply.tag))
}

/// The session goes on as if nothing had been. In a block, from its savepoint, unless a part of the block was lost.
#[track_caller]
pub fn goes_on(client: &mut Client, way: Way, lost: bool) {
    if way.is_block() {
        let refused = client.run("SELECT 1");
        assert_eq!(refused.sqlstate(), Some("25P02"), "{way:?}");
        if !lost {
            client.run("ROLLBACK TO before").succeeded();
            assert_eq!(client.status, b'T');
            let both = "SELECT count(*), sum(id), min(divisor) FROM readings";
            let seen = client.run(both).succeeded().texts();
            assert_eq!(seen, [[(ROWS + 1).to_string(), "2830".into(), "1".into()]]);
        }
        client.run("ROLLBACK").succeeded();
    }
    works(client);
}

/// A session in no block is answered as it should be.
#[track_caller]
pub fn works(client: &mut Client) {
    let all = "SELECT count(*), sum(id) FROM readings";
    let expected = [[ROWS.to_string(), (ROWS * (ROWS + 1) / 2).to_string()]];
    assert_eq!(client.run(all).succeeded().texts(), expected);
    assert_eq!(client.extended(all, &[], 0).succeeded().texts(), expected);
    let one = "SELECT divisor FROM readings WHERE id = 5";
    assert_eq!(client.run(one).succeeded().value(), "1");
    assert_eq!(client.status, b'I');
}

/// Nothing is left of what failed: no table, no backend that works or waits in a transaction, no place taken in a pool.
#[track_caller]
pub fn nothing_is_left(bed: &Bed, router: &Router) {
    let mut console = Client::connect(&Login {
        database: "switchyard".into(),
        ..Login::new(router.port())
    });
    let mut seen = Vec::new();
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let busy = "state <> 'idle'";
        seen.clear();
        seen.extend(backends(bed, "state || ': ' || query", busy));
        for shard in 0..bed.cluster().shards().len() {
            let tables = "SELECT relname FROM pg_class WHERE relpersistence = 't'";
            seen.extend(superuser(bed, shard, tables).lines().map(str::to_owned));
        }
        let pools = console.run("SHOW NODE_POOLS").succeeded();
        let names: Vec<_> = pools
            .columns
            .iter()
            .flatten()
            .map(|column| &*column.name)
            .collect();
        for pool in pools.texts() {
            let number = |name: &str| -> usize {
                let at = names.iter().position(|found| *found == name).unwrap();
                pool[at].parse().unwrap()
            };
            let whole = number("sv_idle") <= number("pool_size");
            if number("cl_waiting") + number("sv_active") > 0 || !whole {
                seen.push(format!("{pool:?}"));
            }
        }
        if seen.is_empty() {
            return;
        }
        assert!(Instant::now() < give_up, "{seen:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A statement fails, sent in each way, after `act` has been done to it.
#[track_caller]
pub fn fails(
    bed: &Bed,
    (router, connect): (&Router, &dyn Fn(&Router) -> Client),
    sql: &str,
    expected: &str,
    mut act: impl FnMut(&Client),
) {
    for way in WAYS {
        let mut client = connect(router);
        send(&mut client, way, sql);
        act(&client);
        let failure = failure(&mut client, way);
        assert_eq!(failure.sqlstate(), expected, "{way:?}: {failure:?}");
        goes_on(&mut client, way, expected == "08006");
        nothing_is_left(bed, router);
        client.terminate();
    }
}

/// One more router, with more lines of `[router]`.
pub fn router(bed: &Bed, lines: &str) -> Router {
    bed.another_router(lines, &|node: &dyn Node| node.port())
}

/// Terminates the one backend that satisfies a condition.
pub fn kill(bed: &Bed, condition: &str) {
    eventually("it is terminated", || {
        backends(bed, "pg_terminate_backend(pid)", condition) == ["t"]
    });
}
