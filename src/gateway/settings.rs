//! Settings of a gateway: typed, complete, with the defaults of a new installation.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::audit_forwarder::AuditForwardingSettings;
use super::notices::NoticeSettings;
use crate::api::ApiOptions;
use crate::auth::DefenderSettings;
use crate::domain::{AllowedOrigins, ForwardingHeaders, PropertyQuota, PublicUrl, StateLimits, UserQuotaLimits};
use crate::net::ConnectionLimits;
use crate::sftp::{SftpOptions, SshCertificates};
use crate::telemetry::AccessLogSettings;
use crate::tree::CommitDurability;
use crate::webdav::WebdavOptions;

/// Listeners at which the connections of trusted proxies begin with a PROXY header (version 1 or 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocolListeners {
    /// Whether they do at the HTTP listener.
    pub http: bool,
    /// Whether they do at the SFTP listener.
    pub sftp: bool,
}

/// Default window of waiting for an HTTP client in which a transfer has to move as many bytes as
/// [`crate::net::MinTransferRate`] asks for.
pub const HTTP_TRANSFER_RATE_WINDOW: Duration = Duration::from_secs(120);

/// Settings of a gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Path of the served directory.
    pub root: PathBuf,
    /// Path of the state directory: database, pepper, SSH host keys.
    pub state_directory: PathBuf,
    /// Address of the HTTP listener; `None` turns HTTP off.
    pub http: Option<SocketAddr>,
    /// Address of the SFTP listener; `None` turns SFTP off.
    pub sftp: Option<SocketAddr>,
    /// Address of the listener for metrics alone; `None` for none.
    pub metrics: Option<SocketAddr>,
    /// Whether metrics have the names of users as labels.
    pub metrics_per_user: bool,
    /// Access log; `None` for none.
    pub access_log: Option<AccessLogSettings>,
    /// PEM files of certificate chain and key; `None` serves cleartext HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Certificate authority that issues the certificate, in place of files; `None` for no authority.
    pub acme: Option<AcmeSettings>,
    /// Time between two looks at whether certificate and key have changed.
    pub certificate_poll_interval: Duration,
    /// Whether cleartext HTTP is accepted from any address.
    pub insecure_http: bool,
    /// Networks of proxies whose forwarding headers and PROXY headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Forwarding headers that those proxies write.
    pub forwarding_headers: ForwardingHeaders,
    /// URL at which clients see the server, where no proxy tells it.
    pub public_url: Option<PublicUrl>,
    /// Origins of web applications that may call the server from a browser.
    pub cors_origins: AllowedOrigins,
    /// Listeners at which connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: ProxyProtocolListeners,
    /// Bans of addresses from which too many logins fail, and lists of addresses.
    pub defender: DefenderSettings,
    /// Durability that a write has before success is returned.
    pub durability: CommitDurability,
    /// Bounds on HTTP connections.
    pub http_connection_limits: ConnectionLimits,
    /// Time without a request after which an HTTP connection is closed.
    pub http_idle_timeout: Duration,
    /// Window of waiting for an HTTP client in which it has to send, or receive, 256 bytes for each second.
    pub http_transfer_rate_window: Duration,
    /// Bounds on SSH connections.
    pub sftp_connection_limits: ConnectionLimits,
    /// Options of SFTP: bounds on each client, and time-outs.
    pub sftp_options: SftpOptions,
    /// Certificates of users and host keys over SSH.
    pub ssh_certificates: SshCertificates,
    /// Options of WebDAV: bounds on each client and each request.
    pub webdav_options: WebdavOptions,
    /// Bounds on the space of dead properties in the state directory.
    pub property_space: PropertyQuota,
    /// Bounds on the other rows that clients can create in the store.
    pub state_limits: StateLimits,
    /// Options of REST.
    pub api_options: ApiOptions,
    /// Maximum number of files and directories that are open at once; `None` for no bound.
    pub open_file_limits: Option<UserQuotaLimits>,
    /// Receivers of audit events.
    pub audit_forwarding: AuditForwardingSettings,
    /// Notices for administrators.
    pub notices: NoticeSettings,
    /// Maximum time for which connections go on once the gateway shuts down.
    pub drain_timeout: Duration,
}

/// A certificate authority (ACME, RFC 8555), and what it certifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// Domains of the certificate.
    pub domains: Vec<String>,
    /// Mail address for the authority's notices.
    pub contact: Option<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// PEM file of the authority that certifies the directory itself, where that is a private one.
    pub ca_file: Option<PathBuf>,
    /// Address of a listener for HTTP-01 challenges; without one the HTTP listener answers TLS-ALPN-01.
    pub http: Option<SocketAddr>,
}

impl GatewaySettings {
    /// Returns the path of the certificate that the authority issues, with its key.
    pub(super) fn acme_certificate_file(&self) -> PathBuf {
        self.state_directory.join("acme/certificate.pem")
    }

    /// Returns the defaults for a served folder and a state directory.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        let limits = ConnectionLimits {
            connections: 1024,
            per_user: 256,
            unauthenticated: 256,
            unauthenticated_per_address: 64,
        };
        Self {
            root: root.into(),
            state_directory: state.into(),
            http: Some((Ipv4Addr::LOCALHOST, 8080).into()),
            sftp: Some((Ipv4Addr::LOCALHOST, 2022).into()),
            metrics: None,
            metrics_per_user: false,
            access_log: None,
            tls: None,
            acme: None,
            certificate_poll_interval: Duration::from_secs(5),
            insecure_http: false,
            trusted_proxies: Vec::new(),
            forwarding_headers: ForwardingHeaders::default(),
            public_url: None,
            cors_origins: AllowedOrigins::None,
            proxy_protocol: ProxyProtocolListeners::default(),
            defender: DefenderSettings::default(),
            durability: CommitDurability::Full,
            http_connection_limits: limits,
            http_idle_timeout: Duration::from_secs(75),
            http_transfer_rate_window: HTTP_TRANSFER_RATE_WINDOW,
            // SFTP bounds the connections of a user itself, and gives a reason; the limiter would just close them.
            sftp_connection_limits: ConnectionLimits { per_user: limits.connections, ..limits },
            sftp_options: SftpOptions::default(),
            ssh_certificates: SshCertificates::default(),
            webdav_options: WebdavOptions::default(),
            property_space: PropertyQuota::default(),
            state_limits: StateLimits::default(),
            api_options: ApiOptions::default(),
            open_file_limits: None,
            audit_forwarding: AuditForwardingSettings::default(),
            notices: NoticeSettings::default(),
            drain_timeout: Duration::from_secs(10),
        }
    }
}
