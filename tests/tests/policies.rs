//! Which server answers a read, by `read_policy` and by `consistency`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{LazyLock, OnceLock};

use switchyard_tests::cluster::{ClusterSpec, Node};
use switchyard_tests::{Bed, BedSpec, Client, Login, Router, wait_for_replicas};

static BED: OnceLock<Bed> = OnceLock::new();

/// Two replicas for each shard. Nobody writes.
fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 2)));
        wait_for_replicas(bed.cluster());
        bed
    })
}

fn router(lines: &str) -> Router {
    bed().another_router(lines, &|node: &dyn Node| node.port())
}

fn primary() -> String {
    bed().cluster().shard(0).primary.port().to_string()
}

fn replicas() -> BTreeSet<String> {
    let replicas = &bed().cluster().shard(0).replicas;
    replicas
        .iter()
        .map(|replica| replica.port().to_string())
        .collect()
}

/// Asks for the port of the server that answers for a user of the first shard.
static READ: LazyLock<String> = LazyLock::new(|| {
    let primary = bed().cluster().shard(0).primary.as_ref();
    let user = bed()
        .cluster()
        .sql(primary, "SELECT min(id) FROM users")
        .unwrap();
    format!("SELECT inet_server_port() FROM users WHERE id = {user}")
});

/// The port of the server that answers.
fn server(client: &mut Client, sql: &str) -> String {
    client.run(sql).succeeded().value()
}

/// The port of the server that answers between these two statements.
fn server_within(client: &mut Client, begin: &str, end: &str) -> String {
    client.run(begin).succeeded();
    let port = server(client, &READ);
    client.run(end).succeeded();
    port
}

#[test]
fn strong_reads_go_to_the_primary_unless_the_client_says_otherwise() {
    let router = router("consistency = \"strong\"");
    let mut client = Client::connect(&Login::new(router.port()));
    let (primary, replicas) = (primary(), replicas());
    for _ in 0..20 {
        assert_eq!(server(&mut client, &READ), primary);
        let reply = client.extended(&READ, &[], 0).succeeded();
        assert_eq!(reply.value(), primary);
        let within = server_within(&mut client, "BEGIN", "COMMIT");
        assert_eq!(within, primary);
    }
    let hinted = format!("/* switchyard: replica */ {}", *READ);
    for _ in 0..20 {
        assert!(replicas.contains(&server(&mut client, &hinted)));
        for begin in ["BEGIN READ ONLY", "START TRANSACTION READ ONLY"] {
            let within = server_within(&mut client, begin, "COMMIT");
            assert!(replicas.contains(&within), "{begin}");
        }
        let route = "SET switchyard.route = 'replica'";
        let set = server_within(&mut client, route, "RESET switchyard.route");
        assert!(replicas.contains(&set));
        assert_eq!(server(&mut client, &READ), primary);
    }
}

#[test]
fn round_robin_gives_each_replica_the_same_number_of_reads() {
    // By `session` a session stays where it has read until another replica is known to be as far.
    let router = router("read_policy = \"round-robin\"\nconsistency = \"eventual\"");
    let mut clients: Vec<Client> = (0..3)
        .map(|_| Client::connect(&Login::new(router.port())))
        .collect();
    let mut ports = Vec::new();
    for turn in 0..90 {
        let client = &mut clients[turn % 3];
        ports.push(match turn % 6 {
            0..3 => server(client, &READ),
            _ => client.extended(&READ, &[], 0).succeeded().value(),
        });
    }
    let replicas = replicas();
    for two in ports.windows(2) {
        let two: BTreeSet<String> = two.iter().cloned().collect();
        assert_eq!(two, replicas, "in turn: {ports:?}");
    }
}

#[test]
fn client_address_keeps_each_address_on_one_replica() {
    let router = router("read_policy = \"client-address\"");
    let addresses = (1..=32).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
    let mut servers: BTreeMap<IpAddr, String> = BTreeMap::new();
    for address in addresses.clone().chain(addresses) {
        let login = Login::new(router.port()).from(address);
        let mut client = Client::connect(&login);
        for _ in 0..5 {
            let port = server(&mut client, &READ);
            let first = servers.entry(address).or_insert_with(|| port.clone());
            assert_eq!(*first, port, "{address}");
        }
    }
    let used: BTreeSet<String> = servers.into_values().collect();
    assert_eq!(used, replicas(), "addresses are spread");
}
