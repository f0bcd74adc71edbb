//! Signals of a running server: SIGTERM, SIGINT and SIGQUIT stop it, SIGHUP reloads what has a configuration, SIGUSR1 has the
//! access log opened anew, SIGUSR2 does nothing.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Result;

/// Signals whose default action would end the process, and that must not end a server.
pub(super) struct HarmlessSignals {
    hangup: Signal,
    user: [Signal; 2],
}

impl HarmlessSignals {
    /// Installs handlers; from here on none of these signals ends the process.
    pub(super) fn register() -> Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Calls `on_hangup` on every SIGHUP and `reopen_logs` on every SIGUSR1, which returns whether there are any, and ignores
    /// SIGUSR2, for as long as the process runs. Signals that arrived since [`HarmlessSignals::register`] count once.
    pub(super) async fn handle(self, mut on_hangup: impl FnMut(), reopen_logs: impl Fn() -> bool) {
        let Self { mut hangup, user: [mut user1, mut user2] } = self;
        loop {
            tokio::select! {
                _ = hangup.recv() => on_hangup(),
                _ = user1.recv() => match reopen_logs() {
                    true => tracing::info!("the access log was opened anew"),
                    false => tracing::info!("SIGUSR1 has no effect: SIGTERM stops the server"),
                },
                _ = user2.recv() => tracing::info!("SIGUSR2 has no effect: SIGTERM stops the server"),
            }
        }
    }
}

/// Returns the token that the first SIGTERM, SIGINT or SIGQUIT cancels; a second one ends the process.
pub(super) fn stop_on_signals() -> Result<CancellationToken> {
    // Handlers are installed here and not in the task: a signal that arrives before the task runs must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut next_signal = async || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = quit.recv() => {}
                }
            };
            next_signal().await;
            tracing::info!("shutting down on a signal");
            stop.cancel();
            next_signal().await;
            // An administrator who is tired of waiting for slow clients must not need SIGKILL.
            tracing::warn!("second signal: aborting open requests");
            std::process::exit(1);
        }
    });
    Ok(stop)
}
