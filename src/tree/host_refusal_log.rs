//! Log of the operations that the host refuses to the user that the server runs as: a misconfiguration, which the client
//! can't see through.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Minimum time between two warnings: a client that synchronizes tries again and again.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

static WARNED_AT: Mutex<Option<Instant>> = Mutex::new(None);

/// Logs an operation of a client that the host has refused, as a warning once a minute, and else for debugging.
pub fn log_host_refusal(operation: impl Display, path: Option<impl Display>, error: &io::Error) {
    let path = path.map_or_else(String::new, |path| path.to_string());
    let mut warned_at = WARNED_AT.lock();
    if warned_at.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
        tracing::debug!(%operation, path, %error, "the file system refused an operation to the user of the server");
    } else {
        *warned_at = Some(Instant::now());
        tracing::warn!(
            %operation,
            path,
            %error,
            "the file system refused an operation to the user of the server: give it the permissions on the served \
             directory (further refusals within a minute are logged at debug)"
        );
    }
}
