//! Every setting: one table that file keys, environment variables, flags and the example file come from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::ByteSize;
use crate::domain::{IpNet, parse_network};

use super::{DurabilitySetting, LogFormatSetting, PartialConfig, ProxyProtocolSetting};

/// How a setting is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigValueType {
    /// A text in quotation marks.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of texts; elsewhere one text with commas.
    List,
}

/// One setting.
#[derive(Debug)]
pub struct ConfigKey {
    /// Its name in the file and in `--set`; upper-cased behind `PATGATE_` it is the environment variable.
    pub name: &'static str,
    /// Its flag, without the hyphens in front: the name with hyphens.
    pub flag: &'static str,
    /// How it is written in the file.
    pub value_type: ConfigValueType,
    /// What holds where it isn't given, as it would be typed; `None`: nothing.
    pub default: Option<&'static str>,
    /// What the example file shows where there is no default.
    pub example_value: &'static str,
    /// What a value looks like, for the help.
    pub value_name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// Reads a value into the draft.
    pub(super) parse: fn(&mut PartialConfig, &str) -> Result<(), String>,
}

impl ConfigKey {
    /// Returns the setting of that name.
    pub fn find(name: &str) -> Option<&'static ConfigKey> {
        CONFIG_KEYS.iter().find(|key| key.name == name)
    }

    /// Tells whether a running server takes a new value when it is sent SIGHUP.
    pub fn is_reloadable(&self) -> bool {
        RELOADABLE_KEYS.contains(&self.name)
    }

    /// Returns the name of its environment variable.
    pub fn environment_variable(&self) -> String {
        format!("PATGATE_{}", self.name.to_ascii_uppercase())
    }

    /// Returns its line in the example file; a comment where there is no default.
    pub fn example_line(&self) -> String {
        let text = self.default.unwrap_or(self.example_value);
        let value = match self.value_type {
            ConfigValueType::Text => format!("{text:?}"),
            ConfigValueType::Number | ConfigValueType::Boolean => text.to_owned(),
            ConfigValueType::List => {
                let items: Vec<_> = text.split(',').filter(|t| !t.is_empty()).map(|t| format!("{t:?}")).collect();
                format!("[{}]", items.join(", "))
            }
        };
        let comment = if self.default.is_some() || self.name == "root" { "" } else { "# " };
        format!("{comment}{} = {value}", self.name)
    }
}

/// Writes the example file: every setting with its purpose and default.
pub fn example_file() -> String {
    let mut text = String::from(EXAMPLE_FILE_HEADER);
    for key in CONFIG_KEYS {
        text.push('\n');
        for line in wrap_text(key.description) {
            text.push_str("# ");
            text.push_str(&line);
            text.push('\n');
        }
        if key.is_reloadable() {
            text.push_str("# Reloaded on SIGHUP.\n");
        }
        text.push_str(&key.example_line());
        text.push('\n');
    }
    text
}

const EXAMPLE_FILE_HEADER: &str = "\
# Every setting of patgate with its default. Each can also be given in the environment (PATGATE_HTTP)
# and as a flag of `patgate serve` (--http, or --set http=ADDR:PORT); flags win over the environment,
# which wins over this file. Relative paths are taken from the working directory.
#
#     patgate serve --config patgate.toml
#
# SIGHUP makes a running server read this file again; settings without \"Reloaded on SIGHUP\" need a
# restart. A file that can't be used is refused as a whole, with the reason in the log.
";

/// Breaks a text into lines of at most 98 characters.
fn wrap_text(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 98 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Settings that a running server takes anew on SIGHUP; all others need a restart.
const RELOADABLE_KEYS: &[&str] = &["tls_cert", "tls_key", "public_url", "cors_origins", "drain_seconds", "log"];

/// Every setting there is, in the order of the example file.
pub const CONFIG_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "root",
        flag: "root",
        value_type: ConfigValueType::Text,
        default: None,
        example_value: "/srv/files",
        value_name: "DIR",
        description: "The folder to serve. Mandatory.",
        parse: |draft, text| parse_path(text).map(|path| draft.root = Some(path)),
    },
    ConfigKey {
        name: "state",
        flag: "state",
        value_type: ConfigValueType::Text,
        default: None,
        example_value: "/var/lib/patgate",
        value_name: "DIR",
        description: "The folder for database, pepper and SSH host keys, made with mode 0700. \
                  It defaults to /var/lib/patgate for root and to patgate in the XDG data folder for others.",
        parse: |draft, text| parse_path(text).map(|path| draft.state = path),
    },
    ConfigKey {
        name: "http",
        flag: "http",
        value_type: ConfigValueType::Text,
        default: Some("127.0.0.1:8080"),
        example_value: "",
        value_name: "ADDR:PORT",
        description: "Where WebDAV listens; \"off\" for nowhere. Port 0 takes any free one.",
        parse: |draft, text| parse_listen_address(text).map(|address| draft.http = address),
    },
    ConfigKey {
        name: "sftp",
        flag: "sftp",
        value_type: ConfigValueType::Text,
        default: Some("127.0.0.1:2022"),
        example_value: "",
        value_name: "ADDR:PORT",
        description: "Where SFTP listens; \"off\" for nowhere. Port 0 takes any free one.",
        parse: |draft, text| parse_listen_address(text).map(|address| draft.sftp = address),
    },
    ConfigKey {
        name: "tls_cert",
        flag: "tls-cert",
        value_type: ConfigValueType::Text,
        default: None,
        example_value: "/etc/patgate/cert.pem",
        value_name: "FILE",
        description: "The certificate chain for HTTPS, PEM. Needs tls_key.",
        parse: |draft, text| parse_path(text).map(|path| draft.tls_cert = Some(path)),
    },
    ConfigKey {
        name: "tls_key",
        flag: "tls-key",
        value_type: ConfigValueType::Text,
        default: None,
        example_value: "/etc/patgate/key.pem",
        value_name: "FILE",
        description: "The private key of tls_cert, PEM.",
        parse: |draft, text| parse_path(text).map(|path| draft.tls_key = Some(path)),
    },
    ConfigKey {
        name: "insecure_http",
        flag: "insecure-http",
        value_type: ConfigValueType::Boolean,
        default: Some("false"),
        example_value: "",
        value_name: "true|false",
        description: "Whether to take tokens over unencrypted HTTP from other machines. Anybody on the way can read them.",
        parse: |draft, text| parse_boolean(text).map(|on| draft.insecure_http = on),
    },
    ConfigKey {
        name: "trusted_proxies",
        flag: "trusted-proxies",
        value_type: ConfigValueType::List,
        default: Some(""),
        example_value: "",
        value_name: "CIDR,...",
        description: "The networks of reverse proxies that are believed in whom they speak for, by the headers that \
                  forwarding_headers names.",
        parse: |draft, text| parse_networks(text).map(|list| draft.trusted_proxies = list),
    },
    ConfigKey {
        name: "forwarding_headers",
        flag: "forwarding-headers",
        value_type: ConfigValueType::Text,
        default: Some("x-forwarded"),
        example_value: "",
        value_name: "x-forwarded|forwarded",
        description: "Which headers the trusted proxies write: \"x-forwarded\" for X-Forwarded-For, -Proto, -Host, -Port and \
                  -Prefix, \"forwarded\" for Forwarded (RFC 7239). The others are ignored: a proxy hands them on as its \
                  client sent them.",
        parse: |draft, text| text.parse().map(|headers| draft.forwarding_headers = headers),
    },
    ConfigKey {
        name: "public_url",
        flag: "public-url",
        value_type: ConfigValueType::Text,
        default: None,
        example_value: "https://files.example.org",
        value_name: "URL",
        description: "The URL at which clients see the server, where a proxy hands on neither its Host nor \
                  X-Forwarded-Host: a WebDAV client that moves or copies names it. A path in it is one that the \
                  proxy cuts off, and stands in front of every link that WebDAV gives.",
        parse: |draft, text| text.parse().map(|url| draft.public_url = Some(url)),
    },
    ConfigKey {
        name: "cors_origins",
        flag: "cors-origins",
        value_type: ConfigValueType::List,
        default: Some(""),
        example_value: "",
        value_name: "ORIGIN,...",
        description: "The origins of web applications that browsers let call /dav/, /node/, /remote.php/, /upload/, /api/ \
                  and /auth/ (CORS), such as https://app.example.org; \"*\" for every one. They need a token all the \
                  same, but may change things with one that the browser keeps as a password.",
        parse: |draft, text| text.parse().map(|origins| draft.cors_origins = origins),
    },
    ConfigKey {
        name: "proxy_protocol",
        flag: "proxy-protocol",
        value_type: ConfigValueType::List,
        default: Some(""),
        example_value: "",
        value_name: "http,sftp",
        description: "The listeners, of http and sftp, at which every connection of a trusted proxy begins with a PROXY \
                  header, version 1 or 2: the caller is then whom that names.",
        parse: |draft, text| parse_listeners(text).map(|listeners| draft.proxy_protocol = listeners),
    },
    ConfigKey {
        name: "allow_query_token",
        flag: "allow-query-token",
        value_type: ConfigValueType::Boolean,
        default: Some("false"),
        example_value: "",
        value_name: "true|false",
        description: "Whether /auth/token/... takes a token from ?_token= too. Addresses end up in the logs of proxies.",
        parse: |draft, text| parse_boolean(text).map(|on| draft.allow_query_token = on),
    },
    ConfigKey {
        name: "durability",
        flag: "durability",
        value_type: ConfigValueType::Text,
        default: Some("full"),
        example_value: "",
        value_name: "full|fast",
        description: "When an upload, a copy, a property or a lock is answered: \"full\" once it is on disk, \"fast\" at \
                  once, so that a power cut may lose what was just written.",
        parse: |draft, text| {
            draft.durability = match text {
                "full" => DurabilitySetting::Full,
                "fast" => DurabilitySetting::Fast,
                _ => return Err("give full or fast".to_owned()),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "http_connections",
        flag: "http-connections",
        value_type: ConfigValueType::Number,
        default: Some("1024"),
        example_value: "",
        value_name: "N",
        description: "How many HTTP connections may be open at once.",
        parse: |draft, text| parse_count(text).map(|n| draft.http_connections = n),
    },
    ConfigKey {
        name: "http_connections_per_user",
        flag: "http-connections-per-user",
        value_type: ConfigValueType::Number,
        default: Some("256"),
        example_value: "",
        value_name: "N",
        description: "How many HTTP connections one user may have open at once: one that waits makes room for another, else \
                  503 is answered.",
        parse: |draft, text| parse_count(text).map(|n| draft.http_connections_per_user = n),
    },
    ConfigKey {
        name: "sftp_connections",
        flag: "sftp-connections",
        value_type: ConfigValueType::Number,
        default: Some("1024"),
        example_value: "",
        value_name: "N",
        description: "How many SFTP connections may be open at once.",
        parse: |draft, text| parse_count(text).map(|n| draft.sftp_connections = n),
    },
    ConfigKey {
        name: "sftp_connections_per_user",
        flag: "sftp-connections-per-user",
        value_type: ConfigValueType::Number,
        default: Some("64"),
        example_value: "",
        value_name: "N",
        description: "How many SFTP connections one user may have open at once.",
        parse: |draft, text| parse_count(text).map(|n| draft.sftp_connections_per_user = n),
    },
    ConfigKey {
        name: "sftp_channels",
        flag: "sftp-channels",
        value_type: ConfigValueType::Number,
        default: Some("10"),
        example_value: "",
        value_name: "N",
        description: "How many channels one SFTP connection may have open at once.",
        parse: |draft, text| parse_count(text).map(|n| draft.sftp_channels = n),
    },
    ConfigKey {
        name: "sftp_handles",
        flag: "sftp-handles",
        value_type: ConfigValueType::Number,
        default: Some("1024"),
        example_value: "",
        value_name: "N",
        description: "How many files and folders one SFTP connection may have open at once.",
        parse: |draft, text| parse_count(text).map(|n| draft.sftp_handles = n),
    },
    ConfigKey {
        name: "sftp_login_seconds",
        flag: "sftp-login-seconds",
        value_type: ConfigValueType::Number,
        default: Some("120"),
        example_value: "",
        value_name: "SECONDS",
        description: "How many seconds an SFTP client may take to log in, from 1 to 600.",
        parse: |draft, text| parse_seconds(text, 1, 600).map(|time| draft.sftp_login_timeout = time),
    },
    ConfigKey {
        name: "sftp_login_attempts",
        flag: "sftp-login-attempts",
        value_type: ConfigValueType::Number,
        default: Some("6"),
        example_value: "",
        value_name: "N",
        description: "How many wrong tokens an SFTP connection may try before it is ended. Keys that a client offers first \
                  don't count.",
        parse: |draft, text| parse_count(text).map(|n| draft.sftp_login_attempts = n),
    },
    ConfigKey {
        name: "sftp_keepalive_seconds",
        flag: "sftp-keepalive-seconds",
        value_type: ConfigValueType::Number,
        default: Some("300"),
        example_value: "",
        value_name: "SECONDS",
        description: "After how many seconds of silence an SFTP client is asked whether it is there, up to 86400; never \
                  sooner than sftp_login_seconds. 0 asks never.",
        parse: |draft, text| parse_seconds(text, 0, 86_400).map(|time| draft.sftp_keepalive_interval = time),
    },
    ConfigKey {
        name: "sftp_unanswered_seconds",
        flag: "sftp-unanswered-seconds",
        value_type: ConfigValueType::Number,
        default: Some("3600"),
        example_value: "",
        value_name: "SECONDS",
        description: "How many seconds an SFTP client may leave that question unanswered, or what it asked for unread, \
                  before its session is ended, from 1 to 604800: a laptop asleep, a download that pauses.",
        parse: |draft, text| parse_seconds(text, 1, 604_800).map(|time| draft.sftp_unanswered_timeout = time),
    },
    ConfigKey {
        name: "http_idle_seconds",
        flag: "http-idle-seconds",
        value_type: ConfigValueType::Number,
        default: Some("75"),
        example_value: "",
        value_name: "SECONDS",
        description: "After how many seconds without a request an HTTP connection is closed, from 1 to 86400.",
        parse: |draft, text| parse_seconds(text, 1, 86_400).map(|time| draft.http_idle_timeout = time),
    },
    ConfigKey {
        name: "sftp_idle_seconds",
        flag: "sftp-idle-seconds",
        value_type: ConfigValueType::Number,
        default: Some("0"),
        example_value: "",
        value_name: "SECONDS",
        description: "After how many seconds without a request an SFTP session is ended although its client is there, up \
                  to 604800. 0 ends none.",
        parse: |draft, text| parse_seconds(text, 0, 604_800).map(|time| draft.sftp_idle_timeout = time),
    },
    ConfigKey {
        name: "sftp_resume_seconds",
        flag: "sftp-resume-seconds",
        value_type: ConfigValueType::Number,
        default: Some("86400"),
        example_value: "",
        value_name: "SECONDS",
        description: "For how many seconds what a lost SFTP connection left of an upload to a new name is kept for its \
                  token, to be gone on with, up to 604800. 0 keeps none.",
        parse: |draft, text| parse_seconds(text, 0, 604_800).map(|time| draft.sftp_resume_retention = time),
    },
    ConfigKey {
        name: "unauthenticated_connections",
        flag: "unauthenticated-connections",
        value_type: ConfigValueType::Number,
        default: Some("256"),
        example_value: "",
        value_name: "N",
        description: "How many connections a listener may have open at once whose callers have not proven themselves.",
        parse: |draft, text| parse_count(text).map(|n| draft.unauthenticated_connections = n),
    },
    ConfigKey {
        name: "unauthenticated_connections_per_address",
        flag: "unauthenticated-connections-per-address",
        value_type: ConfigValueType::Number,
        default: Some("64"),
        example_value: "",
        value_name: "N",
        description: "How many of those may come from one address (one /64 of IPv6).",
        parse: |draft, text| parse_count(text).map(|n| draft.unauthenticated_connections_per_address = n),
    },
    ConfigKey {
        name: "propfind_infinity_entries",
        flag: "propfind-infinity-entries",
        value_type: ConfigValueType::Number,
        default: Some("10000"),
        example_value: "",
        value_name: "N",
        description: "The most entries that a WebDAV listing of infinite depth may have; a client that asks for more is \
                  told to go folder by folder. 0 refuses them all.",
        parse: |draft, text| {
            let entries = text.parse::<u32>().map_err(|_| "give a whole number".to_owned())?;
            draft.propfind_infinity_entries = entries as usize;
            Ok(())
        },
    },
    ConfigKey {
        name: "unfinished_upload_space",
        flag: "unfinished-upload-space",
        value_type: ConfigValueType::Text,
        default: Some("50%"),
        example_value: "",
        value_name: "SIZE|SHARE",
        description: "How much all unfinished uploads of WebDAV together may hold: a size such as 10GiB, or a share of \
                  what would be free without them. More is refused with 507.",
        parse: |draft, text| text.parse().map(|space| draft.unfinished_upload_space.all = space),
    },
    ConfigKey {
        name: "unfinished_upload_space_per_user",
        flag: "unfinished-upload-space-per-user",
        value_type: ConfigValueType::Text,
        default: Some("25%"),
        example_value: "",
        value_name: "SIZE|SHARE",
        description: "Of that, those of one user.",
        parse: |draft, text| text.parse().map(|space| draft.unfinished_upload_space.per_user = space),
    },
    ConfigKey {
        name: "property_space",
        flag: "property-space",
        value_type: ConfigValueType::Text,
        default: Some("1GiB"),
        example_value: "",
        value_name: "SIZE",
        description: "How much the dead properties of all files together may take in the state directory, 256 bytes for each \
                  beside its texts. More is refused with 507.",
        parse: |draft, text| text.parse().map(|size: ByteSize| draft.property_space.total = size.bytes()),
    },
    ConfigKey {
        name: "property_space_per_user",
        flag: "property-space-per-user",
        value_type: ConfigValueType::Text,
        default: Some("64MiB"),
        example_value: "",
        value_name: "SIZE",
        description: "Of that, those that one user has set.",
        parse: |draft, text| text.parse().map(|size: ByteSize| draft.property_space.per_user = size.bytes()),
    },
    ConfigKey {
        name: "drain_seconds",
        flag: "drain-seconds",
        value_type: ConfigValueType::Number,
        default: Some("10"),
        example_value: "",
        value_name: "N",
        description: "How long SIGTERM lets transfers under way go on.",
        parse: |draft, text| parse_seconds(text, 0, 3600).map(|time| draft.drain_timeout = time),
    },
    ConfigKey {
        name: "log",
        flag: "log",
        value_type: ConfigValueType::Text,
        default: Some("info"),
        example_value: "",
        value_name: "LEVEL",
        description: "What to log on stderr: error, warn, info, debug or trace, also by module (\"info,patgate::sftp=debug\").",
        parse: |draft, text| parse_log_filter(text).map(|filter| draft.log = filter),
    },
    ConfigKey {
        name: "log_format",
        flag: "log-format",
        value_type: ConfigValueType::Text,
        default: Some("text"),
        example_value: "",
        value_name: "text|json",
        description: "How to log: \"text\" for people, \"json\" one object a line.",
        parse: |draft, text| {
            draft.log_format = match text {
                "text" => LogFormatSetting::Text,
                "json" => LogFormatSetting::Json,
                _ => return Err("give text or json".to_owned()),
            };
            Ok(())
        },
    },
];

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("give a path".to_owned());
    }
    std::path::absolute(text).map_err(|error| error.to_string())
}

fn parse_listen_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "give an IP address and a port, such as 127.0.0.1:8080, or off".into()),
    }
}

fn parse_boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "give true or false".to_owned())
}

fn parse_count(text: &str) -> Result<usize, String> {
    let number = text.parse::<u32>().ok().filter(|n| (1..=1_000_000).contains(n));
    number.map(|n| n as usize).ok_or_else(|| "give a whole number from 1 to 1000000".to_owned())
}

fn parse_seconds(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|n| (least..=most).contains(n));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("give whole seconds from {least} to {most}"))
}

fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse_network).collect()
}

fn parse_listeners(text: &str) -> Result<ProxyProtocolSetting, String> {
    let mut listeners = ProxyProtocolSetting::default();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match item {
            "http" => listeners.http = true,
            "sftp" => listeners.sftp = true,
            _ => return Err("give http, sftp or both".to_owned()),
        }
    }
    Ok(listeners)
}

/// Takes a list of `LEVEL` and `MODULE=LEVEL`.
fn parse_log_filter(text: &str) -> Result<String, String> {
    let known = |level: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|known| known.eq_ignore_ascii_case(level))
    };
    let fits = |part: &str| match part.trim().split_once('=') {
        Some((module, level)) => {
            known(level)
                && !module.is_empty()
                && module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
        }
        None => known(part.trim()),
    };
    if text.split(',').all(fits) {
        Ok(text.to_owned())
    } else {
        Err("give off, error, warn, info, debug or trace, or a list such as info,patgate::sftp=debug".to_owned())
    }
}
