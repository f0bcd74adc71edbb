//! Every setting, declared once: the file's keys, the environment's variables, the flags of `serve` with their help, the
//! example file and the typed values all come from the list in this file.
//!
//! A new setting needs an entry here and the line in `cli/serve.rs` that hands it to the module that uses it.

use std::collections::BTreeMap;

use crate::domain::{AllowedOrigins, ByteSize, ForwardingHeaders, PublicUrl, SyslogTarget, UploadSpace};

use super::access_log_values::{AccessLogFormatSetting, AccessLogOperationsSetting, AccessLogSetting};
use super::keys::{ConfigKey, InitialValue};
use super::notice_values::{
    DayList, MailAddressList, NoticeKindList, SmtpLogin, SmtpServer, SmtpTlsSetting, WebhookUrlList,
};
use super::values::{
    Count, DirectoryPath, DomainList, DurabilitySetting, EntryCount, FilePath, FilePathList, HttpsUrl, ListenAddress,
    LogFilterSetting, LogFormatSetting, MailAddress, NetworkList, ProxyProtocolSetting, SandboxSetting, Seconds,
    SettingValue,
};

/// Declares the settings: `/// documentation`, `name: Type = Default("text"),`, with `[reloadable]` in front
/// where a running server takes a new value on SIGHUP.
macro_rules! declare_settings {
    ($($(#[doc = $doc:literal])+ $([$reload:ident])? $name:ident: $type:ty = $initial:ident($text:literal),)+) => {
        /// Values of all settings, each valid by itself.
        #[allow(rustdoc::bare_urls, reason = "the documentation is printed as it is in help and example")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        /// All settings, in the order of the example file.
        pub const CONFIG_KEYS: &[ConfigKey] = &[$(ConfigKey {
            name: stringify!($name),
            value_type: <$type as SettingValue>::VALUE_TYPE,
            value_name: <$type as SettingValue>::VALUE_NAME,
            initial: InitialValue::$initial($text),
            is_reloadable: declare_settings!(@is_reloadable $($reload)?),
            documentation: concat!($($doc,)+),
            check: |text| <$type as SettingValue>::parse_setting(text).map(drop),
        },)+];

        impl Settings {
            /// Reads the values from their texts, by name; a setting without one holds none.
            ///
            /// # Errors
            /// The name of a setting and what is wrong with its text.
            pub(super) fn from_texts(texts: &BTreeMap<&'static str, String>) -> Result<Self, String> {
                Ok(Self {
                    $($name: match texts.get(stringify!($name)) {
                        Some(text) => <$type as SettingValue>::parse_setting(text)
                            .map_err(|message| format!("{} = {text:?}: {message}", stringify!($name)))?,
                        None => <$type as SettingValue>::absent()
                            .ok_or_else(|| format!("{} is missing", stringify!($name)))?,
                    },)+
                })
            }
        }
    };
    (@is_reloadable reloadable) => { true };
    (@is_reloadable) => { false };
}

declare_settings! {
    /// Directory to serve. Mandatory.
    root: Option<DirectoryPath> = Mandatory("/srv/files"),
    /// Directory of the database, pepper and SSH host keys, created with mode 0700. It defaults to /var/lib/patgate for
    /// root and to patgate in the XDG data directory for others.
    state: Option<DirectoryPath> = Example("/var/lib/patgate"),
    /// Address on which WebDAV listens; "off" for none. Port 0 takes any free one.
    http: ListenAddress = Default("127.0.0.1:8080"),
    /// Address on which SFTP listens; "off" for none. Port 0 takes any free one.
    sftp: ListenAddress = Default("127.0.0.1:2022"),
    /// Address on which metrics are read at /metrics, without a token; "off" for none. Port 0 takes any free one. A token
    /// with the role metrics.read reads them at /metrics of the HTTP listener, too.
    metrics: ListenAddress = Default("off"),
    /// Whether the metrics also have operations, bytes and storage of each user, by name, for 1000 users at most.
    metrics_per_user: bool = Default("false"),
    /// Certificate chain for HTTPS, PEM. Needs tls_key.
    [reloadable] tls_cert: Option<FilePath> = Example("/etc/patgate/cert.pem"),
    /// Private key of tls_cert, PEM.
    [reloadable] tls_key: Option<FilePath> = Example("/etc/patgate/key.pem"),
    /// Domains for which a certificate is obtained from a certificate authority (ACME) and renewed, in place of tls_cert.
    /// With them you agree to the authority's terms. In the file also as a table named acme with domains, contact, directory,
    /// ca_file and http.
    acme_domains: DomainList = Default(""),
    /// Mail address for notices of the certificate authority.
    acme_contact: Option<MailAddress> = Example("ops@example.org"),
    /// URL of the directory of the certificate authority.
    acme_directory: HttpsUrl = Default("https://acme-v02.api.letsencrypt.org/directory"),
    /// Certificate of the authority behind acme_directory itself, PEM, where that is not a public one.
    acme_ca_file: Option<FilePath> = Example("/etc/patgate/ca.pem"),
    /// Address on which the challenges of the certificate authority are answered over HTTP, and all else is sent to HTTPS;
    /// the authority connects to port 80. "off" answers them on the address of http, to which the authority connects by
    /// port 443.
    acme_http: ListenAddress = Default("off"),
    /// Whether tokens are accepted over unencrypted HTTP from other machines. Anybody on the network path can read them.
    insecure_http: bool = Default("false"),
    /// Networks of reverse proxies that are believed about the clients they forward, by the headers that
    /// forwarding_headers names.
    trusted_proxies: NetworkList = Default(""),
    /// Headers that the trusted proxies write: "x-forwarded" for X-Forwarded-For, -Proto, -Host, -Port and -Prefix,
    /// "forwarded" for Forwarded (RFC 7239). The others are ignored: a proxy hands them on as its client sent them.
    forwarding_headers: ForwardingHeaders = Default("x-forwarded"),
    /// URL at which clients see the server, where a proxy hands on neither its Host nor X-Forwarded-Host: a WebDAV client
    /// that moves or copies names it. A path in it is one that the proxy cuts off, and is put in front of every link that
    /// WebDAV gives.
    [reloadable] public_url: Option<PublicUrl> = Example("https://files.example.org"),
    /// Origins of web applications that browsers let call /dav/, /node/, /remote.php/, /upload/, /api/ and /auth/ (CORS),
    /// such as https://app.example.org; "*" for every one. They need a token all the same, but may change things with one
    /// that the browser keeps as a password.
    [reloadable] cors_origins: AllowedOrigins = Default(""),
    /// Listeners, of http and sftp, at which every connection of a trusted proxy begins with a PROXY header, version 1 or 2:
    /// the client is then the one that the header names.
    proxy_protocol: ProxyProtocolSetting = Default(""),
    /// Whether /auth/token/... also accepts a token in ?_token=. Addresses end up in the logs of proxies.
    allow_query_token: bool = Default("false"),
    /// When an upload, a copy, a property or a lock is answered: "full" once it is on disk, "fast" at once, so that a power
    /// cut may lose what was just written.
    durability: DurabilitySetting = Default("full"),
    /// Maximum number of open HTTP connections.
    http_connections: Count<1> = Default("1024"),
    /// Maximum number of open HTTP connections of one user: an idle one is closed for a new one, else 503 is answered.
    http_connections_per_user: Count<1> = Default("256"),
    /// Maximum number of open SFTP connections.
    sftp_connections: Count<1> = Default("1024"),
    /// Maximum number of open SFTP connections of one user.
    sftp_connections_per_user: Count<1> = Default("64"),
    /// Maximum number of open channels of one SFTP connection.
    sftp_channels: Count<1> = Default("10"),
    /// Maximum number of open files and directories of one SFTP connection.
    sftp_handles: Count<1> = Default("1024"),
    /// Time in which an SFTP client must log in, from 1 to 600 seconds.
    sftp_login_seconds: Seconds<1, 600> = Default("120"),
    /// Maximum number of wrong tokens that an SFTP connection may try before it is closed. Keys that a client offers first
    /// don't count.
    sftp_login_attempts: Count<1> = Default("6"),
    /// Silence, in seconds, after which an SFTP client is asked whether it is still connected, up to 86400; never sooner
    /// than sftp_login_seconds. 0 asks never.
    sftp_keepalive_seconds: Seconds<0, 86_400> = Default("300"),
    /// Seconds for which an SFTP client may leave that question unanswered, or what it asked for unread, before its session
    /// is closed, from 1 to 604800: a laptop asleep, a download that pauses.
    sftp_unanswered_seconds: Seconds<1, 604_800> = Default("3600"),
    /// Seconds without a request after which an HTTP connection is closed, from 1 to 86400.
    http_idle_seconds: Seconds<1, 86_400> = Default("75"),
    /// Seconds without a request after which an SFTP session is closed although its client is still connected, up to 604800.
    /// 0 closes none.
    sftp_idle_seconds: Seconds<0, 604_800> = Default("0"),
    /// Seconds for which the received part of an upload to a new name is kept for its token after its SFTP connection was
    /// lost, to be resumed, up to 604800. 0 keeps none.
    sftp_resume_seconds: Seconds<0, 604_800> = Default("86400"),
    /// File with the SSH public keys of authorities that certify users, one a line. A certificate whose principal is the id of
    /// a token proves that token for its owner's login, and its sessions end with it.
    ssh_user_ca: Option<FilePath> = Example("/etc/patgate/user_ca.pub"),
    /// Files with certificates of the SSH host keys, such as /etc/patgate/ssh_host_ed25519_key-cert.pub.
    ssh_host_certificates: FilePathList = Default(""),
    /// Maximum number of connections of each listener whose clients have not authenticated.
    unauthenticated_connections: Count<1> = Default("256"),
    /// Maximum number of those from one address (one /64 of IPv6).
    unauthenticated_connections_per_address: Count<1> = Default("64"),
    /// Number of failed logins from one address (one /64 of IPv6), over all protocols and within ban_window_seconds, after
    /// which it is banned. 0 bans none. Addresses from which a live token was used before are spared.
    [reloadable] ban_after: Count<0> = Default("200"),
    /// Seconds after which a failed login doesn't count any more, from 1 to 86400.
    [reloadable] ban_window_seconds: Seconds<1, 86_400> = Default("600"),
    /// Seconds for which an address is banned for the first time, up to 2592000; each time soon after the last one takes
    /// twice as long.
    [reloadable] ban_seconds: Seconds<1, 2_592_000> = Default("600"),
    /// Maximum number of those seconds.
    [reloadable] ban_seconds_max: Seconds<1, 2_592_000> = Default("86400"),
    /// Networks that are never refused, whatever fails there.
    [reloadable] allow_addresses: NetworkList = Default(""),
    /// Networks from which nothing is accepted.
    [reloadable] deny_addresses: NetworkList = Default(""),
    /// Maximum number of entries in a WebDAV listing of infinite depth; a client that asks for more is told to list
    /// directory by directory. 0 refuses them all.
    propfind_infinity_entries: EntryCount = Default("10000"),
    /// Space that all unfinished WebDAV uploads together may take: a size such as 10GiB, or a share of what would be free
    /// without them. More is refused with 507.
    unfinished_upload_space: UploadSpace = Default("50%"),
    /// Part of that space that the unfinished uploads of one user may take.
    unfinished_upload_space_per_user: UploadSpace = Default("25%"),
    /// Space that the dead properties of all files together may take in the state directory, 256 bytes for each beside its
    /// texts. More is refused with 507.
    property_space: ByteSize = Default("1GiB"),
    /// Part of that space that the properties set by one user may take.
    property_space_per_user: ByteSize = Default("64MiB"),
    /// Whether the server gives up its access to all files but the served directory, the state directory and the
    /// directories of the configured files (Landlock, Linux 5.19): "auto", "strict" or "off". "auto" leaves a served file
    /// system that is mounted in the root directory without it, and allows one that is mounted below by the directory in
    /// which it is mounted: else it would not be found again after it was mounted anew.
    sandbox: SandboxSetting = Default("auto"),
    /// Seconds for which transfers in progress may continue after SIGTERM.
    [reloadable] drain_seconds: Seconds<0, 3600> = Default("10"),
    /// File to which one line is written for each operation; "stderr" for the log's place, "off" for none.
    access_log: AccessLogSetting = Default("off"),
    /// Format of those lines: "json" for one object a line, "combined" for the format of web servers.
    access_log_format: AccessLogFormatSetting = Default("json"),
    /// Operations that have a line: "all", or "writes" for those that may change something, and refused logins.
    access_log_operations: AccessLogOperationsSetting = Default("all"),
    /// Level of the log on stderr: error, warn, info, debug or trace, also by module ("info,patgate::sftp=debug").
    [reloadable] log: LogFilterSetting = Default("info"),
    /// File to which each audit event is appended for a collector, one JSON object a line, with its number and hash. SIGHUP
    /// opens it again.
    audit_file: Option<FilePath> = Example("/var/log/patgate/audit.jsonl"),
    /// Syslog receiver (RFC 5424) that each audit event is sent to: unix:/dev/log, udp:HOST:PORT or tcp:HOST:PORT.
    audit_syslog: Option<SyslogTarget> = Example("unix:/dev/log"),
    /// Notices that are sent to webhooks and mail addresses: "all", or some of token.expiring, token.new_address, ban.added,
    /// certificate.expiring, certificate.failed, disk.low, disk.recovered, quota.nearly_used, root.lost and root.back. Nothing is sent where
    /// neither webhook_urls nor mail_to names a receiver.
    notice_kinds: NoticeKindList = Default("all"),
    /// Numbers of days before the expiration of a token or of the certificate at which it is announced.
    notice_expiry_days: DayList = Default("14,3"),
    /// Free space on the disks of the state directory and of root below which disk.low is sent.
    notice_free_space: ByteSize = Default("256MiB"),
    /// Certificate of an authority (PEM) that certifies webhooks or the mail server, beside the public ones.
    notice_ca_file: Option<FilePath> = Example("/etc/patgate/ca.pem"),
    /// URLs to which notices are sent by POST, signed.
    webhook_urls: WebhookUrlList = Default(""),
    /// File (mode 0600) with the secret with which webhooks are signed: whsec_ and 24 to 64 random bytes in Base64. Without
    /// it the environment variable PATGATE_WEBHOOK_SECRET has the secret.
    webhook_secret_file: Option<FilePath> = Example("/etc/patgate/webhook.secret"),
    /// Networks in which webhooks may be although they are not public, such as 127.0.0.1 or 10.0.0.0/8; there alone a URL
    /// may begin with http://.
    webhook_networks: NetworkList = Default(""),
    /// Mail server that notices are sent by.
    smtp_server: Option<SmtpServer> = Example("mail.example.org:587"),
    /// Encryption of the connection to it: "starttls", commonly at port 587, or "tls", commonly at port 465.
    smtp_tls: SmtpTlsSetting = Default("starttls"),
    /// Login at the mail server, where it asks for one.
    smtp_login: Option<SmtpLogin> = Example("patgate"),
    /// File (mode 0600) with the password of that login. Without it the environment variable PATGATE_SMTP_PASSWORD has the
    /// password.
    smtp_password_file: Option<FilePath> = Example("/etc/patgate/smtp.password"),
    /// Sender of the mails.
    mail_from: Option<MailAddress> = Example("patgate@example.org"),
    /// Mail addresses of the administrators who get notices.
    mail_to: MailAddressList = Default(""),
    /// Format of the log: "text" for people, "json" for one object a line.
    log_format: LogFormatSetting = Default("text"),
}

/// Returns the setting of that name.
pub(super) fn find_key(name: &str) -> Option<&'static ConfigKey> {
    CONFIG_KEYS.iter().find(|key| key.name == name)
}
