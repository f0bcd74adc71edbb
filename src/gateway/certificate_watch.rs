//! Takes a certificate in use when its files change, and warns before it expires.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::reload::GatewayReloader;
use crate::net::FileStamp;

/// Days before its end below which a certificate is warned of, and time between two warnings.
const EXPIRY_WARNING_DAYS: u64 = 14;
const EXPIRY_WARNING_INTERVAL: Duration = Duration::from_secs(86_400);

/// Looks at the files of the certificate in each `interval` until `stop` is cancelled.
pub(super) async fn watch_certificate(reloader: GatewayReloader, interval: Duration, stop: CancellationToken) {
    let (mut refused, mut next_warning) = (None, Instant::now());
    loop {
        let blocking = reloader.clone();
        let refreshed = tokio::task::spawn_blocking(move || refresh_certificate(&blocking, refused)).await;
        refused = refreshed.unwrap_or(refused);
        if Instant::now() >= next_warning && warn_of_expiry(&reloader) {
            next_warning = Instant::now() + EXPIRY_WARNING_INTERVAL;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Reads the certificate again where its files have changed. Returns the state in which they can't be used; those in the
/// state `refused` are not tried again. A pair of which one file is written already is such a state.
fn refresh_certificate(reloader: &GatewayReloader, refused: Option<[FileStamp; 2]>) -> Option<[FileStamp; 2]> {
    let changed = reloader.changed_certificate_files()?;
    if Some(changed) == refused {
        return refused;
    }
    match reloader.reload_certificate() {
        Ok(()) => {
            tracing::info!("the certificate was reloaded");
            None
        }
        Err(error) => {
            tracing::warn!("the certificate's files have changed and can't be used, the old one stays: {error}");
            Some(changed)
        }
    }
}

/// Warns of a certificate that expires soon, and tells whether it does.
fn warn_of_expiry(reloader: &GatewayReloader) -> bool {
    let Some(validity) = reloader.certificate_validity() else { return false };
    let days = validity.days_left(SystemTime::now());
    let is_soon = days < EXPIRY_WARNING_DAYS;
    if is_soon {
        tracing::warn!("the certificate expires in {days} days");
    }
    is_soon
}
