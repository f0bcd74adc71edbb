//! Every setting: one table that file keys, environment variables, flags and the example file come from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::ByteSize;
use crate::domain::{IpNet, parse_network};

use super::{Draft, Durability, Listeners, LogFormat};

/// How a setting is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text in quotation marks.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// A list of texts; elsewhere one text with commas.
    List,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file and in `--set`; upper-cased behind `PATGATE_` it is the environment variable.
    pub name: &'static str,
    /// Its flag, without the hyphens in front: the name with hyphens.
    pub flag: &'static str,
    /// How it is written in the file.
    pub shape: Shape,
    /// What holds where it isn't given, as it would be typed; `None`: nothing.
    pub default: Option<&'static str>,
    /// What the example file shows where there is no default.
    pub example: &'static str,
    /// What a value looks like, for the help.
    pub value: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Reads a value into the draft.
    pub(super) read: fn(&mut Draft, &str) -> Result<(), String>,
}

impl Key {
    /// Returns the setting of that name.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Tells whether a running server takes a new value when it is sent SIGHUP.
    pub fn is_reloadable(&self) -> bool {
        RELOADABLE.contains(&self.name)
    }

    /// Returns the name of its environment variable.
    pub fn variable(&self) -> String {
        format!("PATGATE_{}", self.name.to_ascii_uppercase())
    }

    /// Returns its line in the example file; a comment where there is no default.
    pub fn line(&self) -> String {
        let text = self.default.unwrap_or(self.example);
        let value = match self.shape {
            Shape::Text => format!("{text:?}"),
            Shape::Number | Shape::Switch => text.to_owned(),
            Shape::List => {
                let items: Vec<_> = text.split(',').filter(|t| !t.is_empty()).map(|t| format!("{t:?}")).collect();
                format!("[{}]", items.join(", "))
            }
        };
        let comment = if self.default.is_some() || self.name == "root" { "" } else { "# " };
        format!("{comment}{} = {value}", self.name)
    }
}

/// Writes the example file: every setting with its purpose and default.
pub fn example() -> String {
    let mut text = String::from(EXAMPLE_HEAD);
    for key in KEYS {
        text.push('\n');
        for line in wrapped(key.purpose) {
            text.push_str("# ");
            text.push_str(&line);
            text.push('\n');
        }
        if key.is_reloadable() {
            text.push_str("# Reloaded on SIGHUP.\n");
        }
        text.push_str(&key.line());
        text.push('\n');
    }
    text
}

const EXAMPLE_HEAD: &str = "\
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
fn wrapped(text: &str) -> Vec<String> {
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
const RELOADABLE: &[&str] = &["tls_cert", "tls_key", "public_url", "cors_origins", "drain_seconds", "log"];

/// Every setting there is, in the order of the example file.
pub const KEYS: &[Key] = &[
    Key {
        name: "root",
        flag: "root",
        shape: Shape::Text,
        default: None,
        example: "/srv/files",
        value: "DIR",
        purpose: "The folder to serve. Mandatory.",
        read: |draft, text| path(text).map(|path| draft.root = Some(path)),
    },
    Key {
        name: "state",
        flag: "state",
        shape: Shape::Text,
        default: None,
        example: "/var/lib/patgate",
        value: "DIR",
        purpose: "The folder for database, pepper and SSH host keys, made with mode 0700. \
                  It defaults to /var/lib/patgate for root and to patgate in the XDG data folder for others.",
        read: |draft, text| path(text).map(|path| draft.state = path),
    },
    Key {
        name: "http",
        flag: "http",
        shape: Shape::Text,
        default: Some("127.0.0.1:8080"),
        example: "",
        value: "ADDR:PORT",
        purpose: "Where WebDAV listens; \"off\" for nowhere. Port 0 takes any free one.",
        read: |draft, text| address(text).map(|address| draft.http = address),
    },
    Key {
        name: "sftp",
        flag: "sftp",
        shape: Shape::Text,
        default: Some("127.0.0.1:2022"),
        example: "",
        value: "ADDR:PORT",
        purpose: "Where SFTP listens; \"off\" for nowhere. Port 0 takes any free one.",
        read: |draft, text| address(text).map(|address| draft.sftp = address),
    },
    Key {
        name: "tls_cert",
        flag: "tls-cert",
        shape: Shape::Text,
        default: None,
        example: "/etc/patgate/cert.pem",
        value: "FILE",
        purpose: "The certificate chain for HTTPS, PEM. Needs tls_key.",
        read: |draft, text| path(text).map(|path| draft.tls_cert = Some(path)),
    },
    Key {
        name: "tls_key",
        flag: "tls-key",
        shape: Shape::Text,
        default: None,
        example: "/etc/patgate/key.pem",
        value: "FILE",
        purpose: "The private key of tls_cert, PEM.",
        read: |draft, text| path(text).map(|path| draft.tls_key = Some(path)),
    },
    Key {
        name: "insecure_http",
        flag: "insecure-http",
        shape: Shape::Switch,
        default: Some("false"),
        example: "",
        value: "true|false",
        purpose: "Whether to take tokens over unencrypted HTTP from other machines. Anybody on the way can read them.",
        read: |draft, text| switch(text).map(|on| draft.insecure_http = on),
    },
    Key {
        name: "trusted_proxies",
        flag: "trusted-proxies",
        shape: Shape::List,
        default: Some(""),
        example: "",
        value: "CIDR,...",
        purpose: "The networks of reverse proxies that are believed in whom they speak for, by the headers that \
                  forwarding_headers names.",
        read: |draft, text| networks(text).map(|list| draft.trusted_proxies = list),
    },
    Key {
        name: "forwarding_headers",
        flag: "forwarding-headers",
        shape: Shape::Text,
        default: Some("x-forwarded"),
        example: "",
        value: "x-forwarded|forwarded",
        purpose: "Which headers the trusted proxies write: \"x-forwarded\" for X-Forwarded-For, -Proto, -Host, -Port and \
                  -Prefix, \"forwarded\" for Forwarded (RFC 7239). The others are ignored: a proxy hands them on as its \
                  client sent them.",
        read: |draft, text| text.parse().map(|headers| draft.forwarding_headers = headers),
    },
    Key {
        name: "public_url",
        flag: "public-url",
        shape: Shape::Text,
        default: None,
        example: "https://files.example.org",
        value: "URL",
        purpose: "The URL at which clients see the server, where a proxy hands on neither its Host nor \
                  X-Forwarded-Host: a WebDAV client that moves or copies names it. A path in it is one that the \
                  proxy cuts off, and stands in front of every link that WebDAV gives.",
        read: |draft, text| text.parse().map(|url| draft.public_url = Some(url)),
    },
    Key {
        name: "cors_origins",
        flag: "cors-origins",
        shape: Shape::List,
        default: Some(""),
        example: "",
        value: "ORIGIN,...",
        purpose: "The origins of web applications that browsers let call /dav/, /node/, /remote.php/, /upload/, /api/ \
                  and /auth/ (CORS), such as https://app.example.org; \"*\" for every one. They need a token all the \
                  same, but may change things with one that the browser keeps as a password.",
        read: |draft, text| text.parse().map(|origins| draft.cors_origins = origins),
    },
    Key {
        name: "proxy_protocol",
        flag: "proxy-protocol",
        shape: Shape::List,
        default: Some(""),
        example: "",
        value: "http,sftp",
        purpose: "The listeners, of http and sftp, at which every connection of a trusted proxy begins with a PROXY \
                  header, version 1 or 2: the caller is then whom that names.",
        read: |draft, text| listeners(text).map(|listeners| draft.proxy_protocol = listeners),
    },
    Key {
        name: "allow_query_token",
        flag: "allow-query-token",
        shape: Shape::Switch,
        default: Some("false"),
        example: "",
        value: "true|false",
        purpose: "Whether /auth/token/... takes a token from ?_token= too. Addresses end up in the logs of proxies.",
        read: |draft, text| switch(text).map(|on| draft.allow_query_token = on),
    },
    Key {
        name: "durability",
        flag: "durability",
        shape: Shape::Text,
        default: Some("full"),
        example: "",
        value: "full|fast",
        purpose: "When an upload, a copy, a property or a lock is answered: \"full\" once it is on disk, \"fast\" at \
                  once, so that a power cut may lose what was just written.",
        read: |draft, text| {
            draft.durability = match text {
                "full" => Durability::Full,
                "fast" => Durability::Fast,
                _ => return Err("give full or fast".to_owned()),
            };
            Ok(())
        },
    },
    Key {
        name: "http_connections",
        flag: "http-connections",
        shape: Shape::Number,
        default: Some("1024"),
        example: "",
        value: "N",
        purpose: "How many HTTP connections may be open at once.",
        read: |draft, text| count(text).map(|n| draft.http_connections = n),
    },
    Key {
        name: "http_connections_per_user",
        flag: "http-connections-per-user",
        shape: Shape::Number,
        default: Some("256"),
        example: "",
        value: "N",
        purpose: "How many HTTP connections one user may have open at once: one that waits makes room for another, else \
                  503 is answered.",
        read: |draft, text| count(text).map(|n| draft.http_connections_per_user = n),
    },
    Key {
        name: "sftp_connections",
        flag: "sftp-connections",
        shape: Shape::Number,
        default: Some("1024"),
        example: "",
        value: "N",
        purpose: "How many SFTP connections may be open at once.",
        read: |draft, text| count(text).map(|n| draft.sftp_connections = n),
    },
    Key {
        name: "sftp_connections_per_user",
        flag: "sftp-connections-per-user",
        shape: Shape::Number,
        default: Some("64"),
        example: "",
        value: "N",
        purpose: "How many SFTP connections one user may have open at once.",
        read: |draft, text| count(text).map(|n| draft.sftp_connections_per_user = n),
    },
    Key {
        name: "sftp_channels",
        flag: "sftp-channels",
        shape: Shape::Number,
        default: Some("10"),
        example: "",
        value: "N",
        purpose: "How many channels one SFTP connection may have open at once.",
        read: |draft, text| count(text).map(|n| draft.sftp_channels = n),
    },
    Key {
        name: "sftp_handles",
        flag: "sftp-handles",
        shape: Shape::Number,
        default: Some("1024"),
        example: "",
        value: "N",
        purpose: "How many files and folders one SFTP connection may have open at once.",
        read: |draft, text| count(text).map(|n| draft.sftp_handles = n),
    },
    Key {
        name: "sftp_login_seconds",
        flag: "sftp-login-seconds",
        shape: Shape::Number,
        default: Some("120"),
        example: "",
        value: "SECONDS",
        purpose: "How many seconds an SFTP client may take to log in, from 1 to 600.",
        read: |draft, text| seconds(text, 1, 600).map(|time| draft.sftp_login = time),
    },
    Key {
        name: "sftp_login_attempts",
        flag: "sftp-login-attempts",
        shape: Shape::Number,
        default: Some("6"),
        example: "",
        value: "N",
        purpose: "How many wrong tokens an SFTP connection may try before it is ended. Keys that a client offers first \
                  don't count.",
        read: |draft, text| count(text).map(|n| draft.sftp_login_attempts = n),
    },
    Key {
        name: "sftp_keepalive_seconds",
        flag: "sftp-keepalive-seconds",
        shape: Shape::Number,
        default: Some("300"),
        example: "",
        value: "SECONDS",
        purpose: "After how many seconds of silence an SFTP client is asked whether it is there, up to 86400; never \
                  sooner than sftp_login_seconds. 0 asks never.",
        read: |draft, text| seconds(text, 0, 86_400).map(|time| draft.sftp_keepalive = time),
    },
    Key {
        name: "sftp_unanswered_seconds",
        flag: "sftp-unanswered-seconds",
        shape: Shape::Number,
        default: Some("3600"),
        example: "",
        value: "SECONDS",
        purpose: "How many seconds an SFTP client may leave that question unanswered, or what it asked for unread, \
                  before its session is ended, from 1 to 604800: a laptop asleep, a download that pauses.",
        read: |draft, text| seconds(text, 1, 604_800).map(|time| draft.sftp_unanswered = time),
    },
    Key {
        name: "http_idle_seconds",
        flag: "http-idle-seconds",
        shape: Shape::Number,
        default: Some("75"),
        example: "",
        value: "SECONDS",
        purpose: "After how many seconds without a request an HTTP connection is closed, from 1 to 86400.",
        read: |draft, text| seconds(text, 1, 86_400).map(|time| draft.http_idle = time),
    },
    Key {
        name: "sftp_idle_seconds",
        flag: "sftp-idle-seconds",
        shape: Shape::Number,
        default: Some("0"),
        example: "",
        value: "SECONDS",
        purpose: "After how many seconds without a request an SFTP session is ended although its client is there, up \
                  to 604800. 0 ends none.",
        read: |draft, text| seconds(text, 0, 604_800).map(|time| draft.sftp_idle = time),
    },
    Key {
        name: "sftp_resume_seconds",
        flag: "sftp-resume-seconds",
        shape: Shape::Number,
        default: Some("86400"),
        example: "",
        value: "SECONDS",
        purpose: "For how many seconds what a lost SFTP connection left of an upload to a new name is kept for its \
                  token, to be gone on with, up to 604800. 0 keeps none.",
        read: |draft, text| seconds(text, 0, 604_800).map(|time| draft.sftp_resume = time),
    },
    Key {
        name: "unauthenticated_connections",
        flag: "unauthenticated-connections",
        shape: Shape::Number,
        default: Some("256"),
        example: "",
        value: "N",
        purpose: "How many connections a listener may have open at once whose callers have not proven themselves.",
        read: |draft, text| count(text).map(|n| draft.unauthenticated_connections = n),
    },
    Key {
        name: "unauthenticated_connections_per_address",
        flag: "unauthenticated-connections-per-address",
        shape: Shape::Number,
        default: Some("64"),
        example: "",
        value: "N",
        purpose: "How many of those may come from one address (one /64 of IPv6).",
        read: |draft, text| count(text).map(|n| draft.unauthenticated_connections_per_address = n),
    },
    Key {
        name: "propfind_infinity_entries",
        flag: "propfind-infinity-entries",
        shape: Shape::Number,
        default: Some("10000"),
        example: "",
        value: "N",
        purpose: "The most entries that a WebDAV listing of infinite depth may have; a client that asks for more is \
                  told to go folder by folder. 0 refuses them all.",
        read: |draft, text| {
            let entries = text.parse::<u32>().map_err(|_| "give a whole number".to_owned())?;
            draft.propfind_infinity_entries = entries as usize;
            Ok(())
        },
    },
    Key {
        name: "unfinished_upload_space",
        flag: "unfinished-upload-space",
        shape: Shape::Text,
        default: Some("50%"),
        example: "",
        value: "SIZE|SHARE",
        purpose: "How much all unfinished uploads of WebDAV together may hold: a size such as 10GiB, or a share of \
                  what would be free without them. More is refused with 507.",
        read: |draft, text| text.parse().map(|space| draft.unfinished_upload_space.all = space),
    },
    Key {
        name: "unfinished_upload_space_per_user",
        flag: "unfinished-upload-space-per-user",
        shape: Shape::Text,
        default: Some("25%"),
        example: "",
        value: "SIZE|SHARE",
        purpose: "Of that, those of one user.",
        read: |draft, text| text.parse().map(|space| draft.unfinished_upload_space.per_user = space),
    },
    Key {
        name: "property_space",
        flag: "property-space",
        shape: Shape::Text,
        default: Some("1GiB"),
        example: "",
        value: "SIZE",
        purpose: "How much the dead properties of all files together may take in the state directory, 256 bytes for each \
                  beside its texts. More is refused with 507.",
        read: |draft, text| text.parse().map(|size: ByteSize| draft.properties.all = size.bytes()),
    },
    Key {
        name: "property_space_per_user",
        flag: "property-space-per-user",
        shape: Shape::Text,
        default: Some("64MiB"),
        example: "",
        value: "SIZE",
        purpose: "Of that, those that one user has set.",
        read: |draft, text| text.parse().map(|size: ByteSize| draft.properties.per_user = size.bytes()),
    },
    Key {
        name: "drain_seconds",
        flag: "drain-seconds",
        shape: Shape::Number,
        default: Some("10"),
        example: "",
        value: "N",
        purpose: "How long SIGTERM lets transfers under way go on.",
        read: |draft, text| seconds(text, 0, 3600).map(|time| draft.drain = time),
    },
    Key {
        name: "log",
        flag: "log",
        shape: Shape::Text,
        default: Some("info"),
        example: "",
        value: "LEVEL",
        purpose: "What to log on stderr: error, warn, info, debug or trace, also by module (\"info,patgate::sftp=debug\").",
        read: |draft, text| log_filter(text).map(|filter| draft.log = filter),
    },
    Key {
        name: "log_format",
        flag: "log-format",
        shape: Shape::Text,
        default: Some("text"),
        example: "",
        value: "text|json",
        purpose: "How to log: \"text\" for people, \"json\" one object a line.",
        read: |draft, text| {
            draft.log_format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("give text or json".to_owned()),
            };
            Ok(())
        },
    },
];

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("give a path".to_owned());
    }
    std::path::absolute(text).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "give an IP address and a port, such as 127.0.0.1:8080, or off".into()),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "give true or false".to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    let number = text.parse::<u32>().ok().filter(|n| (1..=1_000_000).contains(n));
    number.map(|n| n as usize).ok_or_else(|| "give a whole number from 1 to 1000000".to_owned())
}

fn seconds(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|n| (least..=most).contains(n));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("give whole seconds from {least} to {most}"))
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse_network).collect()
}

fn listeners(text: &str) -> Result<Listeners, String> {
    let mut listeners = Listeners::default();
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
fn log_filter(text: &str) -> Result<String, String> {
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
