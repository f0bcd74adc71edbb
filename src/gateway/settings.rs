//! What a gateway is told: typed, complete, with the defaults a newcomer gets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::api::ApiOptions;
use crate::domain::{AllowedOrigins, ForwardingHeaders, PropertyQuota, PublicUrl, StateLimits, UserQuotaLimits};
use crate::net::ConnectionLimits;
use crate::sftp::SftpOptions;
use crate::tree::CommitDurability;
use crate::webdav::WebdavOptions;

/// At which listeners the connections of trusted proxies begin with a PROXY header (version 1 or 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocolListeners {
    /// At that of HTTP.
    pub http: bool,
    /// At that of SFTP.
    pub sftp: bool,
}

/// Time of waiting for an HTTP client within which so much of what is under way has to move as [`crate::net::MinTransferRate`] asks
/// for, unless a program that embeds the gateway says otherwise.
pub const HTTP_PACE_WINDOW: Duration = Duration::from_secs(120);

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The served folder.
    pub root: PathBuf,
    /// The state directory: database, pepper, SSH host keys.
    pub state_directory: PathBuf,
    /// Where HTTP is answered; `None`: not at all.
    pub http: Option<SocketAddr>,
    /// Where SFTP is answered; `None`: not at all.
    pub sftp: Option<SocketAddr>,
    /// PEM files of certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether cleartext HTTP is answered from anywhere.
    pub insecure_http: bool,
    /// Proxies that are believed in whom they speak for, and as whom.
    pub trusted_proxies: Vec<IpNet>,
    /// Headers that those proxies write.
    pub forwarding_headers: ForwardingHeaders,
    /// URL at which clients see the server, where a proxy does not tell.
    pub public_url: Option<PublicUrl>,
    /// Origins of web applications that browsers let call the server.
    pub cors_origins: AllowedOrigins,
    /// Where those begin with a PROXY header.
    pub proxy_protocol: ProxyProtocolListeners,
    /// When success after a write is answered.
    pub durability: CommitDurability,
    /// Caps on HTTP connections.
    pub http_connection_limits: ConnectionLimits,
    /// Time without a request after which an HTTP connection is closed.
    pub http_idle_timeout: Duration,
    /// Window of waiting for an HTTP client in which it has to send, or take, 256 bytes for each second.
    pub http_pace_window: Duration,
    /// Caps on SSH connections.
    pub sftp_connection_limits: ConnectionLimits,
    /// What one SFTP client may take.
    pub sftp_options: SftpOptions,
    /// What one WebDAV client may take.
    pub webdav_options: WebdavOptions,
    /// How much dead properties may take in the state directory.
    pub property_space: PropertyQuota,
    /// How much of what the store keeps callers may fill, beside that.
    pub state_limits: StateLimits,
    /// How REST is set up.
    pub api_options: ApiOptions,
    /// How many files and directories are open at once; `None`: any number.
    pub open_file_limits: Option<UserQuotaLimits>,
    /// How long connections may go on once the gateway is told to stop.
    pub drain_timeout: Duration,
}

impl GatewaySettings {
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
            tls: None,
            insecure_http: false,
            trusted_proxies: Vec::new(),
            forwarding_headers: ForwardingHeaders::default(),
            public_url: None,
            cors_origins: AllowedOrigins::None,
            proxy_protocol: ProxyProtocolListeners::default(),
            durability: CommitDurability::Full,
            http_connection_limits: limits,
            http_idle_timeout: Duration::from_secs(75),
            http_pace_window: HTTP_PACE_WINDOW,
            // Sessions of a user have a bound of their own, which tells them so.
            sftp_connection_limits: ConnectionLimits { per_user: limits.connections, ..limits },
            sftp_options: SftpOptions::default(),
            webdav_options: WebdavOptions::default(),
            property_space: PropertyQuota::default(),
            state_limits: StateLimits::default(),
            api_options: ApiOptions::default(),
            open_file_limits: None,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
