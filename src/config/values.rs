//! Types of the settings: each is read from one text and is valid once it exists.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{
    AllowedOrigins, ByteSize, ForwardingHeaders, IpNet, PublicUrl, SyslogTarget, UploadSpace, parse_network,
};

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

/// A type that a setting can have.
pub trait SettingValue: Sized {
    /// How it is written in the file.
    const VALUE_TYPE: ConfigValueType;
    /// Placeholder for a value in the help, such as `ADDR:PORT`.
    const VALUE_NAME: &'static str;

    /// Reads a value as it is written in the environment and in flags.
    ///
    /// # Errors
    /// What can be given instead, as a request: "give true or false".
    fn parse_setting(text: &str) -> Result<Self, String>;

    /// Returns the value of a setting that is given nowhere and has no default; none where it must be given.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const VALUE_TYPE: ConfigValueType = T::VALUE_TYPE;
    const VALUE_NAME: &'static str = T::VALUE_NAME;

    fn parse_setting(text: &str) -> Result<Self, String> {
        T::parse_setting(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// Absolute path of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPath(pub PathBuf);

impl SettingValue for DirectoryPath {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "DIR";

    fn parse_setting(text: &str) -> Result<Self, String> {
        absolute_path(text).map(Self)
    }
}

/// Absolute path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl SettingValue for FilePath {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "FILE";

    fn parse_setting(text: &str) -> Result<Self, String> {
        absolute_path(text).map(Self)
    }
}

/// Address on which a listener accepts connections; none where it is `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub Option<SocketAddr>);

impl SettingValue for ListenAddress {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "ADDR:PORT";

    fn parse_setting(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:8080, or off");
        Ok(Self(Some(address?)))
    }
}

impl SettingValue for bool {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Boolean;
    const VALUE_NAME: &'static str = "true|false";

    fn parse_setting(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "give true or false".to_owned())
    }
}

/// Number of things from `MIN` up to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u32>(pub usize);

impl<const MIN: u32> SettingValue for Count<MIN> {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Number;
    const VALUE_NAME: &'static str = "N";

    fn parse_setting(text: &str) -> Result<Self, String> {
        const MAX: u32 = 1_000_000;
        let number = text.parse::<u32>().ok().filter(|number| (MIN..=MAX).contains(number));
        number.map(|number| Self(number as usize)).ok_or_else(|| format!("give a whole number from {MIN} to {MAX}"))
    }
}

/// Time of `MIN` to `MAX` whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> SettingValue for Seconds<MIN, MAX> {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Number;
    const VALUE_NAME: &'static str = "SECONDS";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds| (MIN..=MAX).contains(seconds));
        let time = seconds.map(|seconds| Self(Duration::from_secs(seconds)));
        time.ok_or_else(|| format!("give whole seconds from {MIN} to {MAX}"))
    }
}

/// Maximum number of entries of a listing: 0 to 4,294,967,295.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryCount(pub usize);

impl SettingValue for EntryCount {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Number;
    const VALUE_NAME: &'static str = "N";

    fn parse_setting(text: &str) -> Result<Self, String> {
        text.parse::<u32>().map(|number| Self(number as usize)).map_err(|_| "give a whole number".to_owned())
    }
}

/// When success after an upload is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurabilitySetting {
    /// Once the bytes and their name are on disk.
    #[default]
    Full,
    /// At once.
    Fast,
}

impl SettingValue for DurabilitySetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "full|fast";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "fast" => Ok(Self::Fast),
            _ => Err("give full or fast".to_owned()),
        }
    }
}

/// Whether a server gives up its access to files that it does not need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxSetting {
    /// Where the kernel can, and a served file system is found again after it was mounted anew.
    #[default]
    Auto,
    /// Where the kernel can.
    Strict,
    /// Never.
    Off,
}

impl SettingValue for SandboxSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "auto|strict|off";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "strict" => Ok(Self::Strict),
            "off" => Ok(Self::Off),
            _ => Err("give auto, strict or off".to_owned()),
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormatSetting {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl SettingValue for LogFormatSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "text|json";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("give text or json".to_owned()),
        }
    }
}

/// Filter of `tracing`: a list of `LEVEL` and `MODULE=LEVEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilterSetting(pub String);

impl SettingValue for LogFilterSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "LEVEL";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let is_level = |level: &str| {
            ["off", "error", "warn", "info", "debug", "trace"].iter().any(|known| known.eq_ignore_ascii_case(level))
        };
        let is_module = |module: &str| {
            !module.is_empty() && module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
        };
        let is_directive = |part: &str| match part.trim().split_once('=') {
            Some((module, level)) => is_level(level) && is_module(module),
            None => is_level(part.trim()),
        };
        if !text.split(',').all(is_directive) {
            let message = "give off, error, warn, info, debug or trace, or a list such as info,patgate::sftp=debug";
            return Err(message.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Listeners at which every connection of a trusted proxy begins with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocolSetting {
    /// Whether the HTTP listener is one of them.
    pub http: bool,
    /// Whether the SFTP listener is one of them.
    pub sftp: bool,
}

impl SettingValue for ProxyProtocolSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "http,sftp";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let mut listeners = Self::default();
        for item in list_items(text) {
            match item {
                "http" => listeners.http = true,
                "sftp" => listeners.sftp = true,
                _ => return Err("give http, sftp or both".to_owned()),
            }
        }
        Ok(listeners)
    }
}

/// Networks in CIDR notation; a single address is a network of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkList(pub Vec<IpNet>);

impl SettingValue for NetworkList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "CIDR,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        list_items(text).map(parse_network).collect::<Result<_, _>>().map(Self)
    }
}

/// Domains that a certificate authority certifies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainList(pub Vec<String>);

impl SettingValue for DomainList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "DOMAIN,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_domain =
            |domain: &str| domain.len() <= 253 && domain.parse::<IpAddr>().is_err() && domain.split('.').all(is_label);
        let domains: Vec<_> = list_items(text).map(str::to_ascii_lowercase).collect();
        match domains.iter().find(|domain| !is_domain(domain)) {
            Some(domain) if domain.starts_with("*.") => {
                Err(format!("{domain} would need a challenge over DNS: give each host name"))
            }
            Some(domain) => Err(format!("{domain} is not a host name in ASCII, such as files.example.org")),
            None => Ok(Self(domains)),
        }
    }
}

/// Paths of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePathList(pub Vec<PathBuf>);

impl SettingValue for FilePathList {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::List;
    const VALUE_NAME: &'static str = "FILE,...";

    fn parse_setting(text: &str) -> Result<Self, String> {
        Ok(Self(list_items(text).map(PathBuf::from).collect()))
    }
}

/// Mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress(pub String);

impl SettingValue for MailAddress {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "ADDRESS";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let is_address = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
            && !text.contains(|c: char| c.is_whitespace() || c == ',' || c == ':');
        is_address
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| "give a mail address, such as ops@example.org".to_owned())
    }
}

/// URL of a server that is reached over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsUrl(pub String);

impl SettingValue for HttpsUrl {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "URL";

    fn parse_setting(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace));
        rest.map(|_| Self(text.to_owned())).ok_or_else(|| "give a URL that begins with https://".to_owned())
    }
}

/// Makes types settings that are read by their own `FromStr`, whose error is the message.
macro_rules! impl_setting_from_str {
    ($($type:ty: $value_type:ident, $value_name:literal;)+) => {
        $(impl SettingValue for $type {
            const VALUE_TYPE: ConfigValueType = ConfigValueType::$value_type;
            const VALUE_NAME: &'static str = $value_name;

            fn parse_setting(text: &str) -> Result<Self, String> {
                text.parse()
            }
        })+
    };
}

impl_setting_from_str! {
    ForwardingHeaders: Text, "x-forwarded|forwarded";
    PublicUrl: Text, "URL";
    AllowedOrigins: List, "ORIGIN,...";
    ByteSize: Text, "SIZE";
    UploadSpace: Text, "SIZE|SHARE";
    SyslogTarget: Text, "unix:PATH|udp:HOST:PORT|tcp:HOST:PORT";
}

/// Returns the items of a list in one text, without the blanks around them.
pub(super) fn list_items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Reads a path; a relative one is taken from the working directory.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("give a path".to_owned());
    }
    std::path::absolute(text).map_err(|error| error.to_string())
}
