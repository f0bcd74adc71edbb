//! Settings that can be replaced while the gateway runs. Each connection keeps those that were in force when it began,
//! so that a reload breaks none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::middleware::RequestMiddleware;
use super::settings::GatewaySettings;
use crate::auth::Authenticator;
use crate::http::TrustedProxies;
use crate::net::{self, TlsError};
use crate::telemetry::OperationRecorder;

/// Settings of the gateway that [`GatewayReloader::reload`] replaces.
pub(super) struct LiveSettings {
    /// TLS configuration of the HTTP listener; `None` for cleartext.
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    /// Time at which its certificate expires.
    pub(super) certificate_expiry: Option<SystemTime>,
    pub(super) middleware: RequestMiddleware,
    pub(super) drain_timeout: Duration,
}

impl LiveSettings {
    /// Reads certificate and key, and copies the other settings.
    pub(super) fn load(settings: &GatewaySettings, proxies: &Arc<TrustedProxies>) -> Result<Self, TlsError> {
        let tls = match &settings.tls {
            Some((certificate, key)) => Some(net::server_config(certificate, key, &["h2", "http/1.1"])?),
            None => None,
        };
        let certificate_expiry = match &settings.tls {
            Some((certificate, _)) => net::certificate_expiry(certificate)?,
            None => None,
        };
        let middleware = RequestMiddleware {
            proxies: Arc::clone(proxies),
            public_url: settings.public_url.clone(),
            cors_origins: settings.cors_origins.clone(),
        };
        Ok(Self { tls, certificate_expiry, middleware, drain_timeout: settings.drain_timeout })
    }
}

/// Reason why a running gateway can't take new settings. The old ones stay in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP listener would change between TLS and cleartext.
    #[error("HTTP can't be switched to or from TLS while it runs: restart the server for tls_cert and tls_key")]
    TlsSwitched,
}

/// Handle that replaces settings of a running gateway; clones act on the same gateway.
#[derive(Clone)]
pub struct GatewayReloader {
    pub(super) live_settings: Arc<ArcSwap<LiveSettings>>,
    pub(super) auth: Authenticator,
    pub(super) recorder: Arc<OperationRecorder>,
}

impl GatewayReloader {
    /// Has the access log opened anew, after its file was renamed; returns whether there is one.
    pub fn reopen_access_log(&self) -> bool {
        self.recorder.reopen_access_log()
    }

    /// Returns the time for which connections would be drained now.
    pub fn drain_timeout(&self) -> Duration {
        self.live_settings.load().drain_timeout
    }

    /// Reads certificate and key again and replaces them, `public_url`, `cors_origins`, `drain` and the defender's by those of
    /// `settings`, for connections from now on; all other settings are ignored.
    ///
    /// # Errors
    /// [`ReloadError`] where certificate and key can't be used; nothing is replaced then.
    pub fn reload(&self, settings: &GatewaySettings) -> Result<(), ReloadError> {
        let current = self.live_settings.load();
        // Loaded whole before anything is replaced: a broken certificate leaves the old settings in force.
        let new = LiveSettings::load(settings, &current.middleware.proxies)?;
        if new.tls.is_some() != current.tls.is_some() {
            return Err(ReloadError::TlsSwitched);
        }
        self.live_settings.store(Arc::new(new));
        self.auth.set_defender_settings(settings.defender.clone());
        Ok(())
    }
}
