//! Carrying out what operators order by the console.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::Ending;
use crate::admin::order::{Order, Until};
use crate::admin::registry::ClientState;
use crate::backend::Gate;
use crate::worker::Services;

/// Between two looks at what has ended. Longer than it takes a session that has found a gate open to say that it is at work.
const LOOK: Duration = Duration::from_millis(20);

/// Does it; why not, in words for the operator.
pub(super) async fn carry_out(
    services: &Services,
    ending: &Ending,
    order: Order,
) -> Result<(), String> {
    info!(?order, "an operator has ordered");
    match order {
        Order::Pause(database) => pause(services, database.as_deref()).await,
        Order::Resume(database) => resume(services, database.as_deref()),
        Order::Kill(database) => kill(services, database.as_deref()),
        Order::Reconnect(database) => {
            let database = known(services, database.as_deref())?;
            let last = services.registry.last_server();
            for pool in services.pools.of(database) {
                pool.replace_up_to(last);
            }
            Ok(())
        }
        Order::WaitClose(database) => {
            let database = known(services, database.as_deref())?;
            while services
                .pools
                .of(database)
                .iter()
                .any(|pool| pool.has_replaced())
            {
                sleep(LOOK).await;
            }
            Ok(())
        }
        Order::Disable(database) => disable(services, &database, true),
        Order::Enable(database) => disable(services, &database, false),
        Order::KillClient(id) => {
            let clients = services.registry.clients();
            let client = clients.iter().find(|client| client.id == id);
            client
                .ok_or_else(|| format!("there is no client {id}"))?
                .kill();
            Ok(())
        }
        Order::Shutdown(until) => {
            match until {
                Until::Clients => drop(ending.close.send_replace(true)),
                Until::Servers => drop(ending.drain()),
                Until::Now => {
                    ending.drain();
                    ending.stop.send_replace(true);
                }
            }
            Ok(())
        }
    }
}

/// The database, if it is one, or none for all.
fn known<'a>(services: &Services, database: Option<&'a str>) -> Result<Option<&'a str>, String> {
    let topology = services.topology.snapshot();
    match database {
        Some(name) if topology.database(name).is_none() => {
            Err(format!("there is no database \"{name}\""))
        }
        database => Ok(database),
    }
}

/// The gates of one database, or of all.
fn gates(services: &Services, database: Option<&str>) -> Result<Vec<Arc<Gate>>, String> {
    let topology = services.topology.snapshot();
    Ok(match known(services, database)? {
        Some(database) => vec![services.gates.of(database)],
        None => {
            let names = topology.databases.keys();
            names.map(|name| services.gates.of(name)).collect()
        }
    })
}

async fn pause(services: &Services, database: Option<&str>) -> Result<(), String> {
    let gates = gates(services, database)?;
    for gate in &gates {
        gate.pause();
    }
    loop {
        sleep(LOOK).await;
        if gates.iter().any(|gate| !gate.is_paused()) {
            return Err("it has been resumed before all had ended".to_owned());
        }
        if !is_busy(services, database) {
            break;
        }
    }
    for pool in services.pools.of(database) {
        pool.close_idle();
    }
    Ok(())
}

/// Whether something that has begun goes on. Clients that are held up wait.
fn is_busy(services: &Services, database: Option<&str>) -> bool {
    let works = |state: ClientState| match state {
        ClientState::Active | ClientState::IdleInTransaction => true,
        ClientState::Idle | ClientState::Waiting => false,
    };
    let mut clients = services.registry.clients();
    clients.retain(|client| database.is_none_or(|database| *client.database == *database));
    clients.iter().any(|client| works(client.state()))
        || services
            .pools
            .of(database)
            .iter()
            .any(|pool| pool.usage().active > 0)
}

fn resume(services: &Services, database: Option<&str>) -> Result<(), String> {
    let mut was_paused = false;
    for gate in gates(services, database)? {
        was_paused |= gate.resume();
    }
    match was_paused {
        true => Ok(()),
        false => Err("nothing is paused".to_owned()),
    }
}

fn kill(services: &Services, database: Option<&str>) -> Result<(), String> {
    for gate in gates(services, database)? {
        gate.pause();
    }
    for client in services.registry.clients() {
        if database.is_none_or(|database| *client.database == *database) {
            client.kill();
        }
    }
    for pool in services.pools.of(database) {
        pool.sever();
    }
    Ok(())
}

fn disable(services: &Services, database: &str, disabled: bool) -> Result<(), String> {
    for gate in gates(services, Some(database))? {
        gate.disable(disabled);
    }
    Ok(())
}
