use std::path::Path;
use std::sync::atomic::AtomicBool;

use switchyard_wire::frontend;
use switchyard_wire::startup::ProtocolVersion;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use switchyard_schema::Address;

use super::*;
use crate::config::{ProcessEnvironment, Settings};
use crate::startup::access::LoginSecret;

/// A listener with workers that serve each client by echoing what it sends.
struct House {
    port: u16,
    room: Arc<Room>,
    drain: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    served: Arc<[AtomicUsize]>,
}

const MAX_CLIENTS: usize = 3;

impl House {
    async fn open(workers: usize) -> House {
        let text = r#"
            [router]
            client_login_timeout = "1s"
            [auth]
            method = "trust"
            [[users]]
            name = "app"
            admin = true
            [[databases]]
            name = "shop"
            [[databases.shards]]
            name = "s0"
            nodes = [{ host = "127.0.0.1", port = 1, role = "primary" }]
        "#;
        let settings = Settings::parse(text, Path::new("/x.toml"), &ProcessEnvironment).unwrap();
        let access = Access::new(&settings, &LoginSecret::random().unwrap()).unwrap();
        let (switch, drain) = watch::channel(false);
        let entrance = Entrance {
            access: Arc::new(ArcSwap::from_pointee(access)),
            cancels: Arc::default(),
            directory: None,
            failed: Arc::default(),
            room: Arc::new(Room::new(MAX_CLIENTS)),
            drain: Drain::new(drain),
        };
        let address = Address {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let listener = bind(&address, false).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served: Arc<[AtomicUsize]> = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let (seats, incoming): (Vec<_>, Vec<_>) = (0..workers).map(|_| seat()).unzip();
        let mut tasks: Vec<_> = incoming
            .into_iter()
            .enumerate()
            .map(|(index, incoming)| {
                let served = Arc::clone(&served);
                tokio::spawn(work(incoming, entrance.clone(), move |client| {
                    served[index].fetch_add(1, Ordering::Relaxed);
                    echo(client)
                }))
            })
            .collect();
        tasks.push(tokio::spawn(accept(
            Listener::Tcp(listener),
            seats,
            entrance.drain,
        )));
        House {
            port,
            room: entrance.room,
            drain: switch,
            tasks,
            served,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// From 127.0.0.`last`.
    async fn connect_from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::from(([127, 0, 0, last], 0)))
            .unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], self.port));
        socket.connect(to).await.unwrap()
    }

    /// Logs in; the error's SQLSTATE if that fails.
    async fn enter(&self, database: &str) -> Result<TcpStream, String> {
        let mut stream = self.connect().await;
        let mut packet = BytesMut::new();
        let pairs = [("user", "app"), ("database", database)];
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        frontend::encode::startup(&mut packet, ProtocolVersion::V3_0, pairs);
        stream.write_all(&packet).await.unwrap();
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).await.unwrap();
        if answer[0] == b'R' {
            return Ok(stream);
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let text = String::from_utf8_lossy(&rest).into_owned();
        let code = text.split('\0').find_map(|field| field.strip_prefix('C'));
        Err(code.unwrap().to_owned())
    }
}

/// Echoes; an exclamation mark is a bug.
async fn echo(mut client: ClientConnection) {
    let mut byte = [0];
    while let Ok(1) = client.stream.read(&mut byte).await {
        assert_ne!(byte[0], b'!', "a bug");
        let _ = client.stream.write_all(&byte).await;
    }
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").await.unwrap();
    matches!(stream.read(&mut byte).await, Ok(1))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test]
async fn clients_beyond_the_limit_are_turned_away_and_places_become_free() {
    let house = House::open(1).await;
    let mut clients = Vec::new();
    for _ in 0..MAX_CLIENTS {
        clients.push(house.enter("shop").await.unwrap());
    }
    assert_eq!(house.enter("shop").await.unwrap_err(), "53300");
    // The console always opens, and takes nobody's place.
    let console = house.enter("switchyard").await.unwrap();
    drop(console);
    eventually("the console has left", || {
        house.room.clients() == MAX_CLIENTS
    })
    .await;
    assert_eq!(house.room.turned_away(), 1);
    for client in &mut clients {
        assert!(echoes(client).await);
    }
    clients.pop();
    eventually("a place is free", || house.room.clients() < MAX_CLIENTS).await;
    house.enter("shop").await.unwrap();
}

#[tokio::test]
async fn silent_connections_are_counted_until_their_deadline() {
    let house = House::open(1).await;
    let silent = house.connect().await;
    eventually("it is counted", || house.room.entering() == 1).await;
    assert_eq!(house.room.clients(), 0);
    eventually("it is closed", || house.room.entering() == 0).await;
    assert_eq!((house.room.accepted(), house.room.refused()), (1, 1));
    drop(silent);
}

#[tokio::test]
async fn connections_that_do_not_enter_are_limited() {
    let house = House::open(1).await;
    // One address fills half of the places, and then the others their shares of them.
    let mut silent = Vec::new();
    let share = MIN_ENTERING / SHARE;
    for (last, count) in [
        (1, MIN_ENTERING / 2),
        (2, share),
        (3, share),
        (4, share),
        (5, share),
    ] {
        for _ in 0..count {
            silent.push(house.connect_from(last).await);
        }
        eventually("all are counted", || house.room.entering() == silent.len()).await;
        let mut greedy = house.connect_from(last).await;
        let mut heard = Vec::new();
        greedy.read_to_end(&mut heard).await.unwrap();
        assert!(String::from_utf8_lossy(&heard).contains("C53300\0"));
    }
    let mut beyond = house.connect_from(99).await;
    let mut heard = Vec::new();
    beyond.read_to_end(&mut heard).await.unwrap();
    assert!(String::from_utf8_lossy(&heard).contains("C53300\0"));
    drop(silent);
    eventually("they have left", || house.room.entering() == 0).await;
    house.enter("shop").await.unwrap();
}

#[tokio::test]
async fn a_bug_ends_one_session() {
    let house = House::open(1).await;
    let mut bystander = house.enter("shop").await.unwrap();
    let mut victim = house.enter("shop").await.unwrap();
    victim.write_all(b"!").await.unwrap();
    assert_eq!(victim.read(&mut [0]).await.unwrap_or(0), 0);
    eventually("its place is free", || house.room.clients() == 1).await;
    assert!(echoes(&mut bystander).await);
    assert!(echoes(&mut house.enter("shop").await.unwrap()).await);
}

#[tokio::test]
async fn workers_share_the_connections() {
    let house = House::open(3).await;
    let mut clients = Vec::new();
    for _ in 0..MAX_CLIENTS {
        clients.push(house.enter("shop").await.unwrap());
    }
    let served: Vec<usize> = house
        .served
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect();
    assert_eq!(served, [1, 1, 1]);
}

#[tokio::test]
async fn draining_lets_nobody_in_and_those_inside_finish() {
    let house = House::open(2).await;
    let mut inside = house.enter("shop").await.unwrap();
    let mut entering = house.connect().await;
    eventually("it is counted", || house.room.entering() == 1).await;
    house.drain.send(true).unwrap();
    eventually("nothing is accepted", || house.tasks[2].is_finished()).await;
    assert!(TcpStream::connect(("127.0.0.1", house.port)).await.is_err());
    assert!(echoes(&mut inside).await);
    let mut packet = BytesMut::new();
    frontend::encode::startup(
        &mut packet,
        ProtocolVersion::V3_0,
        [(&b"user"[..], &b"app"[..])],
    );
    entering.write_all(&packet).await.unwrap();
    let mut heard = Vec::new();
    entering.read_to_end(&mut heard).await.unwrap();
    assert!(String::from_utf8_lossy(&heard).contains("C57P03\0"));
    let ended = Arc::new(AtomicBool::new(false));
    assert!(!house.tasks.iter().all(JoinHandle::is_finished));
    drop(inside);
    for task in house.tasks {
        task.await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    assert_eq!(house.room.clients(), 0);
}
