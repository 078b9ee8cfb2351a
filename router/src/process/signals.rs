//! Signals, for a program that is a router: SIGHUP reloads, SIGTERM and SIGINT drain, once more and they stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::Router;

/// Between two looks whether the router has ended by itself.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the router until signals have ended it.
///
/// # Errors
/// Signals cannot be received; the router is stopped.
pub fn obey(router: Router) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(receive(&router))?;
    router.wait();
    Ok(())
}

async fn receive(router: &Router) -> io::Result<()> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked = false;
    loop {
        tokio::select! {
            _ = reload.recv() => {
                let operations = Arc::clone(router.operations());
                // A signal that ends the router does not wait for a reload.
                tokio::spawn(async move {
                    // It says itself what is wrong.
                    let _ = crate::admin::console::Office::reload(&*operations).await;
                });
            }
            _ = terminate.recv() => end(router, &mut asked),
            _ = interrupt.recv() => end(router, &mut asked),
            // By the console.
            () = router.is_asked_to_end(), if !asked => asked = true,
            () = tokio::time::sleep(LOOK), if asked => {
                if router.has_ended() {
                    return Ok(());
                }
            }
        }
    }
}

fn end(router: &Router, asked: &mut bool) {
    if std::mem::replace(asked, true) {
        router.stop();
    } else {
        router.drain();
    }
}
