//! Settings that can be replaced while the gateway runs. Each connection keeps those that were in force when it began,
//! so that a reload breaks none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::audit_forwarder::ForwarderReloader;
use super::middleware::RequestMiddleware;
use super::notices::NoticeRecorder;
use super::settings::GatewaySettings;
use crate::auth::Authenticator;
use crate::http::TrustedProxies;
use crate::net::{self, AcmeChallenges, CertificateValidity, FileStamp, TlsError};
use crate::telemetry::OperationRecorder;

/// Protocols that are offered over TLS (ALPN).
const TLS_PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// Settings of the gateway that [`GatewayReloader::reload`] replaces.
pub(super) struct LiveSettings {
    /// TLS of the HTTP listener; `None` for cleartext.
    pub(super) tls: Option<LiveTls>,
    pub(super) middleware: RequestMiddleware,
    pub(super) drain_timeout: Duration,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub(super) enum CertificateSource {
    /// Files of the configuration.
    Files { certificate: PathBuf, key: PathBuf },
    /// A certificate authority, by way of a file in the state directory.
    Acme { file: PathBuf, challenges: Arc<AcmeChallenges> },
}

impl CertificateSource {
    /// Returns the source that settings name; `None` for cleartext. Challenges are answered with `challenges`.
    pub(super) fn of_settings(settings: &GatewaySettings, challenges: &Arc<AcmeChallenges>) -> Option<Self> {
        match (&settings.acme, &settings.tls) {
            (Some(_), _) => {
                Some(Self::Acme { file: settings.acme_certificate_file(), challenges: Arc::clone(challenges) })
            }
            (None, Some((certificate, key))) => {
                Some(Self::Files { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => None,
        }
    }

    fn stamps(&self) -> [FileStamp; 2] {
        match self {
            Self::Files { certificate, key } => [FileStamp::of(certificate), FileStamp::of(key)],
            Self::Acme { file, .. } => [FileStamp::of(file); 2],
        }
    }
}

/// TLS configuration, and the certificate in it.
pub(super) struct LiveTls {
    pub(super) config: Arc<rustls::ServerConfig>,
    source: CertificateSource,
    /// State of the files before they were read.
    stamps: [FileStamp; 2],
    validity: Option<CertificateValidity>,
}

impl LiveTls {
    fn load(source: CertificateSource) -> Result<Self, TlsError> {
        // Before the files are read: a change in between is noticed later.
        let stamps = source.stamps();
        let (config, file) = match &source {
            CertificateSource::Files { certificate, key } => {
                (net::server_config(certificate, key, &TLS_PROTOCOLS)?, certificate)
            }
            CertificateSource::Acme { file, challenges } => {
                (net::acme_server_config(file, &TLS_PROTOCOLS, Arc::clone(challenges))?, file)
            }
        };
        let validity = if file.exists() { net::certificate_validity(file)? } else { None };
        Ok(Self { config, source, stamps, validity })
    }
}

impl LiveSettings {
    /// Reads certificate and key, and copies the other settings.
    pub(super) fn load(
        settings: &GatewaySettings,
        proxies: &Arc<TrustedProxies>,
        challenges: &Arc<AcmeChallenges>,
    ) -> Result<Self, TlsError> {
        let tls = CertificateSource::of_settings(settings, challenges).map(LiveTls::load).transpose()?;
        let middleware = RequestMiddleware {
            proxies: Arc::clone(proxies),
            public_url: settings.public_url.clone(),
            cors_origins: settings.cors_origins.clone(),
        };
        Ok(Self { tls, middleware, drain_timeout: settings.drain_timeout })
    }

    /// Returns the time for which the certificate is valid; `None` without TLS, or without a certificate yet.
    pub(super) fn certificate_validity(&self) -> Option<CertificateValidity> {
        self.tls.as_ref().and_then(|tls| tls.validity)
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
    /// The certificate would come from a certificate authority, or no longer.
    #[error("certificates can't be switched to or from ACME while the server runs: restart it for acme_domains")]
    AcmeSwitched,
}

/// Handle that replaces settings of a running gateway; clones act on the same gateway.
#[derive(Clone)]
pub struct GatewayReloader {
    pub(super) live_settings: Arc<ArcSwap<LiveSettings>>,
    pub(super) auth: Authenticator,
    pub(super) recorder: Arc<OperationRecorder>,
    pub(super) challenges: Arc<AcmeChallenges>,
    pub(super) audit_forwarder: ForwarderReloader,
    pub(super) notices: NoticeRecorder,
}

impl GatewayReloader {
    /// Has the files of the access log and of forwarded audit events opened anew, after they were renamed; returns
    /// whether there is an access log.
    pub fn reopen_logs(&self) -> bool {
        self.audit_forwarder.reopen();
        self.recorder.reopen_access_log()
    }

    /// Returns the time for which connections would be drained now.
    pub fn drain_timeout(&self) -> Duration {
        self.live_settings.load().drain_timeout
    }

    /// Returns the moment at which the certificate expires; `None` where there is none.
    pub fn certificate_not_after(&self) -> Option<SystemTime> {
        self.certificate_validity().map(|validity| validity.not_after)
    }

    pub(super) fn certificate_validity(&self) -> Option<CertificateValidity> {
        self.live_settings.load().certificate_validity()
    }

    /// Reads certificate and key again and replaces them, `public_url`, `cors_origins`, `drain` and the defender's by those of
    /// `settings`, for connections from now on; all other settings are ignored.
    ///
    /// # Errors
    /// [`ReloadError`] where certificate and key can't be used; nothing is replaced then.
    pub fn reload(&self, settings: &GatewaySettings) -> Result<(), ReloadError> {
        let current = self.live_settings.load();
        // Loaded whole before anything is replaced: a broken certificate leaves the old settings in force.
        let new = LiveSettings::load(settings, &current.middleware.proxies, &self.challenges)?;
        let is_acme = |tls: &LiveTls| matches!(tls.source, CertificateSource::Acme { .. });
        match (&current.tls, &new.tls) {
            (None, None) => {}
            (Some(old), Some(new)) if is_acme(old) == is_acme(new) => {}
            (Some(_), Some(_)) => return Err(ReloadError::AcmeSwitched),
            (None, Some(_)) | (Some(_), None) => return Err(ReloadError::TlsSwitched),
        }
        self.live_settings.store(Arc::new(new));
        self.auth.set_defender_settings(settings.defender.clone());
        Ok(())
    }

    /// Returns the state of the certificate's files, where it is not the one in which they were read.
    pub(super) fn changed_certificate_files(&self) -> Option<[FileStamp; 2]> {
        let current = self.live_settings.load();
        let tls = current.tls.as_ref()?;
        Some(tls.source.stamps()).filter(|stamps| *stamps != tls.stamps)
    }

    /// Reads certificate and key again, for connections from now on.
    ///
    /// # Errors
    /// [`TlsError`] where they can't be used; nothing is replaced then.
    pub(super) fn reload_certificate(&self) -> Result<(), TlsError> {
        let current = self.live_settings.load_full();
        let Some(tls) = &current.tls else { return Ok(()) };
        let new = LiveSettings {
            tls: Some(LiveTls::load(tls.source.clone())?),
            middleware: current.middleware.clone(),
            drain_timeout: current.drain_timeout,
        };
        // Where a reload of all settings comes in between, it has read the certificate as well.
        self.live_settings.compare_and_swap(&current, Arc::new(new));
        Ok(())
    }
}
