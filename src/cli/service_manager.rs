//! What the service manager is told of a server (`sd_notify(3)`): that it is ready, reloads or stops, and, for its
//! watchdog, that it works. Without `NOTIFY_SOCKET` in the environment nothing is sent.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// Time beyond that of the drain after which the service manager may kill the server: the last writes come then.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// States that a server is ready: it listens, and settings that were reloaded are in force.
pub(super) fn notify_ready() {
    notify("READY=1");
}

/// States that the settings are being reloaded, until [`notify_ready`].
pub(super) fn notify_reloading() {
    // The time says which of several reloads this one is.
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// States, once `stop` is cancelled, that the server stops, and that it may take as long as connections are drained.
pub(super) async fn notify_when_stopping(stop: CancellationToken, drain_timeout: impl Fn() -> Duration) {
    stop.cancelled().await;
    notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (drain_timeout() + STOP_MARGIN).as_micros()));
}

/// Feeds the service manager's watchdog, where there is one, at half of its interval: from the runtime, and only after
/// the store has answered. A server that hangs feeds it no more, and is restarted.
pub(super) async fn feed_watchdog(store: Store) {
    let Some(limit) = watchdog_limit() else { return };
    let mut ticks = tokio::time::interval(limit / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match ask_store(store.clone()).await {
            Ok(()) => notify("WATCHDOG=1"),
            Err(error) => tracing::error!(%error, "the watchdog is not fed: the store can't be read"),
        }
    }
}

/// Reads from the store, on a thread of its own: those of the runtime may all wait for a file system that hangs, for
/// which a restart is no remedy.
async fn ask_store(store: Store) -> Result<(), StoreError> {
    let (sender, receiver) = oneshot::channel();
    let asking = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let _ = sender.send(store.data_version().map(drop));
    });
    match asking {
        Ok(_) => receiver.await.unwrap_or(Ok(())),
        Err(error) => {
            tracing::warn!(%error, "no thread could be started to ask the store for the watchdog");
            Ok(())
        }
    }
}

/// Returns the interval in which the service manager wants this process to feed its watchdog, where it has one.
fn watchdog_limit() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    let is_other_process = number("WATCHDOG_PID").is_some_and(|pid: u64| pid != u64::from(std::process::id()));
    let limit = Duration::from_micros(number("WATCHDOG_USEC")?);
    Some(limit).filter(|limit| !limit.is_zero() && !is_other_process)
}

fn notify(state: &str) {
    if let Err(error) = try_notify(state) {
        tracing::warn!(%error, "the service manager was not told {}", state.replace('\n', " "));
    }
}

fn try_notify(state: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
