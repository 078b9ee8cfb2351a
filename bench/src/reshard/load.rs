//! Clients that update rows while these move.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchyard_cluster::APP_USER;

use crate::Error;
use crate::client::Client;
use crate::pgbench::DATABASE;

/// How many there are.
const CLIENTS: u64 = 4;

/// One update that has been acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    pub(super) ended: Instant,
    took: Duration,
}

impl Update {
    pub(super) fn milliseconds(&self) -> f64 {
        self.took.as_secs_f64() * 1e3
    }
}

/// The clients at work.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<io::Result<Vec<Update>>>>,
}

impl Load {
    /// Starts them at this router; each updates one of so many customers after the other.
    pub(super) fn start(port: u16, customers: u64) -> Result<Load, Error> {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let client = Client::login(port, APP_USER, DATABASE).map_err(Error::io("log in"))?;
            client
                .set_patience(Duration::from_secs(60))
                .map_err(Error::io("log in"))?;
            let over = Arc::clone(&over);
            clients.push(std::thread::spawn(move || {
                work(client, number, customers, &over)
            }));
        }
        Ok(Load { over, clients })
    }

    /// Ends them, and says what they have done.
    pub(super) fn end(self) -> Result<Vec<Update>, Error> {
        self.over.store(true, Ordering::Relaxed);
        let mut updates = Vec::new();
        for client in self.clients {
            let done = client
                .join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            updates.extend(done.map_err(Error::io("update rows while they move"))?);
        }
        Ok(updates)
    }
}

fn work(
    mut client: Client,
    number: u64,
    customers: u64,
    over: &AtomicBool,
) -> io::Result<Vec<Update>> {
    let mut updates = Vec::new();
    // A prime leads to every customer, and not to neighbours.
    let mut id = number;
    while !over.load(Ordering::Relaxed) {
        id = (id + 7919) % customers;
        let began = Instant::now();
        client.run(&format!(
            "UPDATE customers SET name = 'customer {number}' WHERE id = {id}"
        ))?;
        let ended = Instant::now();
        updates.push(Update {
            ended,
            took: ended - began,
        });
    }
    Ok(updates)
}

/// The longest update that ended between one group and the next, for each group; in milliseconds.
pub(super) fn pauses(updates: &[Update], began: Instant, groups: &[Instant]) -> Vec<f64> {
    let mut since = began;
    let mut pauses = Vec::with_capacity(groups.len());
    for &group in groups {
        let during = updates
            .iter()
            .filter(|update| since < update.ended && update.ended <= group);
        pauses.push(during.map(Update::milliseconds).fold(0.0, f64::max));
        since = group;
    }
    pauses
}
