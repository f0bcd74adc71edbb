//! Settings of notices: what is announced, when, and to whom.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::secret::NoticeSecret;
use crate::domain::NoticeKind;

/// Receivers of notices, and what they get. Without a receiver nothing is watched or sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeSettings {
    /// Kinds that are sent.
    pub kinds: Vec<NoticeKind>,
    /// Numbers of days before an expiration at which it is announced.
    pub expiry_days: Vec<u32>,
    /// Free space, of the disks of state and served directory, below which a notice is sent.
    pub min_free_bytes: u64,
    /// PEM file of an authority that certifies receivers, beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// URLs of webhooks.
    pub webhook_urls: Vec<String>,
    /// Place of the secret with which webhooks are signed.
    pub webhook_secret: NoticeSecret,
    /// Networks that webhooks may be in although they are not public.
    pub webhook_networks: Vec<IpNet>,
    /// Mail server and addresses; `None` for no mail.
    pub mail: Option<MailSettings>,
    /// Intervals and time-outs.
    pub timings: NoticeTimings,
}

/// A mail server, and the addresses that get mail by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailSettings {
    /// Host of the mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// Login; `None` where the server asks for none.
    pub login: Option<String>,
    /// Place of the password of that login.
    pub password: NoticeSecret,
    /// Sender.
    pub from: String,
    /// Recipients: administrators.
    pub to: Vec<String>,
}

/// Encryption of the connection to a mail server. Without one nothing is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmtpTls {
    /// After STARTTLS (RFC 3207), commonly at port 587.
    #[default]
    StartTls,
    /// From the first byte (RFC 8314), commonly at port 465.
    Implicit,
}

/// Intervals and time-outs of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticeTimings {
    /// Time between two looks at expirations and disks.
    pub check_interval: Duration,
    /// Time between two looks at the queue and at the served directory.
    pub poll_interval: Duration,
    /// Time after the first failed attempt until the second; each further one takes three times as long.
    pub first_retry: Duration,
    /// Maximum time of an attempt.
    pub attempt_timeout: Duration,
}

impl Default for NoticeTimings {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
            first_retry: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(15),
        }
    }
}

impl Default for NoticeSettings {
    fn default() -> Self {
        Self {
            kinds: NoticeKind::ALL.to_vec(),
            expiry_days: vec![14, 3],
            min_free_bytes: 256 << 20,
            ca_file: None,
            webhook_urls: Vec::new(),
            webhook_secret: NoticeSecret::of_webhooks(None),
            webhook_networks: Vec::new(),
            mail: None,
            timings: NoticeTimings::default(),
        }
    }
}
