//! How the gateway is to run: defaults, a file, the environment and flags, in rising order, read once
//! into a [`Config`] that nothing has to check again. All faults are reported at once, each with
//! where it stands.

mod error;
mod keys;
mod unknown_key;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::domain::{AllowedOrigins, ForwardingHeaders, IpNet, PropertyQuota, PublicUrl, UploadSpaces};

use error::SettingLocation;
pub use error::{ConfigError, InvalidSetting};
pub use keys::{CONFIG_KEYS, ConfigKey, ConfigValueType, example_file};
pub use unknown_key::{RENAMED_KEYS, RenamedKey};
use unknown_key::{renamed, unknown_key_message};

/// When success after an upload is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurabilitySetting {
    /// Once the bytes and their name are on disk.
    #[default]
    Full,
    /// At once.
    Fast,
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

/// The files that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// How the gateway is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The served folder, absolute.
    pub root: PathBuf,
    /// The state directory, absolute.
    pub state: PathBuf,
    /// Where HTTP listens; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Where SFTP listens; `None`: nowhere.
    pub sftp: Option<SocketAddr>,
    /// TLS for HTTP.
    pub tls: Option<TlsFiles>,
    /// Whether unencrypted HTTP from other machines is answered.
    pub insecure_http: bool,
    /// The networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The headers that their proxies write.
    pub forwarding_headers: ForwardingHeaders,
    /// The URL at which clients see the server.
    pub public_url: Option<PublicUrl>,
    /// The origins of web applications that may call the server.
    pub cors_origins: AllowedOrigins,
    /// Whether the upload service's calls take a token from the address.
    pub allow_query_token: bool,
    /// Where their connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocolSetting,
    /// When uploads are answered.
    pub durability: DurabilitySetting,
    /// HTTP connections at once.
    pub http_connections: usize,
    /// SFTP connections at once.
    pub sftp_connections: usize,
    /// SFTP connections of one user at once.
    pub sftp_connections_per_user: usize,
    /// HTTP connections of one user at once.
    pub http_connections_per_user: usize,
    /// Channels of one SFTP connection at once.
    pub sftp_channels: usize,
    /// Open files and folders of one SFTP connection at once.
    pub sftp_handles: usize,
    /// How long an SFTP client may take to log in.
    pub sftp_login_timeout: Duration,
    /// Wrong tokens that one SFTP connection may try.
    pub sftp_login_attempts: usize,
    /// Silence after which an SFTP client is asked whether it is there; zero for never.
    pub sftp_keepalive_interval: Duration,
    /// How long an SFTP client may leave that, or an answer, waiting.
    pub sftp_unanswered_timeout: Duration,
    /// How long an SFTP session may go on without a request; zero for any time.
    pub sftp_idle_timeout: Duration,
    /// Time without a request after which an HTTP connection is closed.
    pub http_idle_timeout: Duration,
    /// How long what a lost SFTP connection left of an upload is kept.
    pub sftp_resume_retention: Duration,
    /// Connections of unproven callers at once, for each listener.
    pub unauthenticated_connections: usize,
    /// Of those, from one address.
    pub unauthenticated_connections_per_address: usize,
    /// The most entries of a WebDAV listing of infinite depth.
    pub propfind_infinity_entries: usize,
    /// How much unfinished uploads may hold.
    pub unfinished_upload_space: UploadSpaces,
    /// How much dead properties may take in the state directory.
    pub property_space: PropertyQuota,
    /// How long SIGTERM lets transfers go on.
    pub drain_timeout: Duration,
    /// What to log, as a filter of `tracing`.
    pub log: String,
    /// How to log.
    pub log_format: LogFormatSetting,
}

/// Where settings come from, from the weakest to the strongest.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The state directory where nothing says otherwise.
    pub default_state_directory: PathBuf,
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// The environment; what doesn't start with `PATGATE_` is passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags say.
    pub flags: Vec<CommandLineSetting>,
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct CommandLineSetting {
    /// The flag as it was typed, for messages.
    pub typed_name: String,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// What a command needs that works beside the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// The state directory, absolute.
    pub state: PathBuf,
    /// The served folder, where file, environment or flags name one.
    pub root: Option<PathBuf>,
    /// When changes are answered.
    pub durability: DurabilitySetting,
}

/// Where a configured server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// HTTP; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// What HTTP is answered over TLS with.
    pub tls: Option<TlsFiles>,
    /// SFTP; `None`: nowhere.
    pub sftp: Option<SocketAddr>,
    /// HTTP connections at once.
    pub http_connections: usize,
    /// SFTP connections at once.
    pub sftp_connections: usize,
}

/// A configuration that can be run, and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Config,
    /// What the administrator should know, a sentence each.
    pub warnings: Vec<String>,
    /// Each setting that has a value, as it was written.
    values: BTreeMap<&'static str, String>,
}

impl LoadedConfig {
    /// Returns the settings whose values differ in `newer` and that a running server does not take anew.
    pub fn settings_needing_restart(&self, newer: &Self) -> Vec<&'static str> {
        let changed = CONFIG_KEYS.iter().filter(|key| self.values.get(key.name) != newer.values.get(key.name));
        changed.filter(|key| !key.is_reloadable()).map(|key| key.name).collect()
    }
}

/// Some of the listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocolSetting {
    /// That of HTTP.
    pub http: bool,
    /// That of SFTP.
    pub sftp: bool,
}

/// A configuration as it grows; what is left out holds its default.
#[derive(Debug)]
struct PartialConfig {
    root: Option<PathBuf>,
    state: PathBuf,
    http: Option<SocketAddr>,
    sftp: Option<SocketAddr>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    insecure_http: bool,
    trusted_proxies: Vec<IpNet>,
    forwarding_headers: ForwardingHeaders,
    public_url: Option<PublicUrl>,
    cors_origins: AllowedOrigins,
    allow_query_token: bool,
    proxy_protocol: ProxyProtocolSetting,
    durability: DurabilitySetting,
    http_connections: usize,
    sftp_connections: usize,
    sftp_connections_per_user: usize,
    http_connections_per_user: usize,
    sftp_channels: usize,
    sftp_handles: usize,
    sftp_login_timeout: Duration,
    sftp_login_attempts: usize,
    sftp_keepalive_interval: Duration,
    sftp_unanswered_timeout: Duration,
    sftp_idle_timeout: Duration,
    http_idle_timeout: Duration,
    sftp_resume_retention: Duration,
    unauthenticated_connections: usize,
    unauthenticated_connections_per_address: usize,
    propfind_infinity_entries: usize,
    unfinished_upload_space: UploadSpaces,
    property_space: PropertyQuota,
    drain_timeout: Duration,
    log: String,
    log_format: LogFormatSetting,
}

/// Variables that are no settings but belong to the program all the same.
const KNOWN_OTHER_VARIABLES: &[&str] = &["PATGATE_CONFIG", "PATGATE_SERVER", "PATGATE_TOKEN", "PATGATE_CA_FILE"];

impl Config {
    /// Reads all sources into a configuration that can be run.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault of every source: unknown keys, bad values, and clashes.
    pub fn load(sources: &ConfigSources) -> Result<LoadedConfig, ConfigError> {
        let mut reading = ConfigLoader::from_sources(sources);
        reading.check_conflicts();
        match (reading.errors.is_empty(), reading.partial.root.clone()) {
            (true, Some(root)) => {
                let config = reading.partial.to_config(root);
                reading.warnings.extend(config.cleartext_warning());
                Ok(LoadedConfig { config, warnings: reading.warnings, values: reading.values })
            }
            _ => Err(ConfigError(reading.errors)),
        }
    }

    /// Returns where it answers.
    pub fn listen_config(&self) -> ListenConfig {
        ListenConfig {
            http: self.http,
            tls: self.tls.clone(),
            sftp: self.sftp,
            http_connections: self.http_connections,
            sftp_connections: self.sftp_connections,
        }
    }

    /// Tells what is odd about where HTTP listens.
    fn cleartext_warning(&self) -> Option<String> {
        let http = self.http.filter(|http| !http.ip().to_canonical().is_loopback())?;
        if self.tls.is_some() || self.insecure_http {
            return None;
        }
        let whom = if self.trusted_proxies.is_empty() { "nobody" } else { "trusted proxies that say https" };
        Some(format!(
            "HTTP listens on {http} without TLS: off loopback {whom} will be answered; \
             set tls_cert and tls_key, trusted_proxies, or insecure_http"
        ))
    }
}

impl LocalConfig {
    /// Reads what a command needs that works beside the server.
    ///
    /// # Errors
    /// [`ConfigError`] with every unknown key and bad value.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        let ConfigLoader { partial: draft, errors: faults, .. } = ConfigLoader::from_sources(sources);
        if faults.is_empty() {
            Ok(Self { state: draft.state, root: draft.root, durability: draft.durability })
        } else {
            Err(ConfigError(faults))
        }
    }
}

impl ListenConfig {
    /// Reads where a configured server answers.
    ///
    /// # Errors
    /// As [`LocalConfig::load`].
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        let ConfigLoader { partial: draft, errors: faults, .. } = ConfigLoader::from_sources(sources);
        let tls = draft.tls_files();
        let doors = Self {
            http: draft.http,
            tls,
            sftp: draft.sftp,
            http_connections: draft.http_connections,
            sftp_connections: draft.sftp_connections,
        };
        if faults.is_empty() { Ok(doors) } else { Err(ConfigError(faults)) }
    }
}

/// All sources, being read.
struct ConfigLoader {
    partial: PartialConfig,
    /// Where the value that holds comes from.
    locations: HashMap<&'static str, SettingLocation>,
    /// The value that holds, as it was written.
    values: BTreeMap<&'static str, String>,
    errors: Vec<InvalidSetting>,
    warnings: Vec<String>,
}

impl ConfigLoader {
    fn from_sources(sources: &ConfigSources) -> Self {
        let mut reading = Self {
            partial: PartialConfig::new(sources.default_state_directory.clone()),
            locations: HashMap::new(),
            values: BTreeMap::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        for key in CONFIG_KEYS {
            if let Some(default) = key.default {
                reading.set(key, default, SettingLocation::BuiltIn);
            }
        }
        if let Some(file) = &sources.file {
            reading.read_file(file);
        }
        reading.read_environment(&sources.environment);
        for CommandLineSetting { typed_name: shown, key, value } in &sources.flags {
            reading.set_by_name(key, value, SettingLocation::FlagOrVariable(shown.clone()));
        }
        reading
    }

    fn add_error(&mut self, place: SettingLocation, text: impl Into<String>) {
        self.errors.push(InvalidSetting { location: place, message: text.into() });
    }

    fn set(&mut self, key: &'static ConfigKey, text: &str, place: SettingLocation) {
        match (key.parse)(&mut self.partial, text) {
            Ok(()) => {
                self.locations.insert(key.name, place);
                self.values.insert(key.name, text.to_owned());
            }
            Err(why) => self.add_error(place, format!("{} = {text:?}: {why}", key.name)),
        }
    }

    fn set_by_name(&mut self, name: &str, text: &str, place: SettingLocation) {
        match ConfigKey::find(name) {
            Some(key) => self.set(key, text, place),
            None => self.add_error(place, unknown_key_message(name)),
        }
    }

    fn read_file(&mut self, file: &Path) {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                return self.add_error(SettingLocation::File(file.to_owned()), format!("can't be read: {error}"));
            }
        };
        let line = |at: usize| {
            let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
            SettingLocation::FileLine(file.to_owned(), memchr::memchr_iter(b'\n', before).count() + 1)
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let place = error.span().map_or(SettingLocation::File(file.to_owned()), |span| line(span.start));
            self.add_error(place, error.message());
        }
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let place = line(name.span().start);
            let name: &str = name.get_ref();
            match ConfigKey::find(name).map(|key| (key, toml_value_as_text(value.get_ref(), key.value_type))) {
                Some((key, Ok(text))) => self.set(key, &text, place),
                Some((_, Err(why))) => self.add_error(place, format!("{name}: {why}")),
                None => self.add_error(place, unknown_key_message(name)),
            }
        }
    }

    fn read_environment(&mut self, environment: &[(OsString, OsString)]) {
        let ours = |name: &OsStr| name.to_str().filter(|name| name.starts_with("PATGATE_")).map(str::to_owned);
        let mut variables: Vec<_> = environment.iter().filter_map(|(n, value)| Some((ours(n)?, value))).collect();
        variables.sort();
        for (variable, value) in variables {
            let place = SettingLocation::FlagOrVariable(variable.clone());
            match (CONFIG_KEYS.iter().find(|key| key.environment_variable() == variable), value.to_str()) {
                (Some(key), Some(text)) => self.set(key, text, place),
                (Some(_), None) => self.add_error(place, "its value is not UTF-8"),
                (None, _) if KNOWN_OTHER_VARIABLES.contains(&variable.as_str()) => {}
                (None, _) => match renamed(&variable.trim_start_matches("PATGATE_").to_ascii_lowercase()) {
                    Some(fault) => self.add_error(place, fault),
                    // Orchestrators set variables of their own for a service called patgate.
                    None => self.warnings.push(format!("the environment variable {variable} is not a setting")),
                },
            }
        }
    }

    fn location_of(&self, key: &'static str) -> SettingLocation {
        self.locations.get(key).cloned().unwrap_or(SettingLocation::BuiltIn)
    }

    /// Finds what is wrong with values that are right one by one.
    fn check_conflicts(&mut self) {
        self.check_root_conflicts();
        match (&self.partial.tls_cert, &self.partial.tls_key) {
            (Some(_), None) => self.add_error(self.location_of("tls_cert"), "tls_cert needs tls_key"),
            (None, Some(_)) => self.add_error(self.location_of("tls_key"), "tls_key needs tls_cert"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if self.partial.proxy_protocol != ProxyProtocolSetting::default() && self.partial.trusted_proxies.is_empty() {
            self.add_error(
                self.location_of("proxy_protocol"),
                "proxy_protocol needs trusted_proxies: nobody else is believed",
            );
        }
        match (self.partial.http, self.partial.sftp) {
            (None, None) => {
                self.add_error(self.location_of("http"), "http and sftp are both off: there is nothing to serve")
            }
            (Some(http), Some(sftp)) if http == sftp && http.port() != 0 => {
                self.add_error(self.location_of("sftp"), format!("http and sftp can't both listen on {http}"));
            }
            _ => {}
        }
    }

    fn check_root_conflicts(&mut self) {
        let Some(root) = self.partial.root.clone() else {
            // A bad value has been reported already.
            if !self.errors.iter().any(|fault| fault.message.starts_with("root")) {
                self.add_error(SettingLocation::BuiltIn, "root is missing: name the folder to serve");
            }
            return;
        };
        if !root.is_dir() {
            self.add_error(self.location_of("root"), format!("root: {} is no folder", root.display()));
        }
        let (real_root, real_state) = (resolve_existing_links(&root), resolve_existing_links(&self.partial.state));
        if real_root.starts_with(&real_state) || real_state.starts_with(&real_root) {
            let (root, state) = (root.display(), self.partial.state.display());
            let text = format!("state {state} and root {root} may not contain each other");
            let place =
                if self.locations.contains_key("state") { self.location_of("state") } else { self.location_of("root") };
            self.add_error(place, text);
        }
    }
}

impl PartialConfig {
    fn new(state: PathBuf) -> Self {
        Self {
            root: None,
            state,
            http: None,
            sftp: None,
            tls_cert: None,
            tls_key: None,
            insecure_http: false,
            trusted_proxies: Vec::new(),
            forwarding_headers: ForwardingHeaders::default(),
            public_url: None,
            cors_origins: AllowedOrigins::None,
            allow_query_token: false,
            proxy_protocol: ProxyProtocolSetting::default(),
            durability: DurabilitySetting::Full,
            http_connections: 0,
            sftp_connections: 0,
            sftp_connections_per_user: 0,
            http_connections_per_user: 0,
            sftp_channels: 0,
            sftp_handles: 0,
            sftp_login_timeout: Duration::ZERO,
            sftp_login_attempts: 0,
            sftp_keepalive_interval: Duration::ZERO,
            sftp_unanswered_timeout: Duration::ZERO,
            sftp_idle_timeout: Duration::ZERO,
            http_idle_timeout: Duration::ZERO,
            sftp_resume_retention: Duration::from_secs(86_400),
            unauthenticated_connections: 0,
            unauthenticated_connections_per_address: 0,
            propfind_infinity_entries: 0,
            unfinished_upload_space: UploadSpaces::default(),
            property_space: PropertyQuota::default(),
            drain_timeout: Duration::ZERO,
            log: String::new(),
            log_format: LogFormatSetting::Text,
        }
    }

    /// Returns certificate and key, where both are named.
    fn tls_files(&self) -> Option<TlsFiles> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        files.map(|(certificate, key)| TlsFiles { certificate, key })
    }

    fn to_config(&self, root: PathBuf) -> Config {
        let tls = self.tls_files();
        Config {
            root,
            state: self.state.clone(),
            http: self.http,
            sftp: self.sftp,
            tls,
            insecure_http: self.insecure_http,
            trusted_proxies: self.trusted_proxies.clone(),
            forwarding_headers: self.forwarding_headers,
            public_url: self.public_url.clone(),
            cors_origins: self.cors_origins.clone(),
            allow_query_token: self.allow_query_token,
            proxy_protocol: self.proxy_protocol,
            durability: self.durability,
            http_connections: self.http_connections,
            sftp_connections: self.sftp_connections,
            sftp_connections_per_user: self.sftp_connections_per_user,
            http_connections_per_user: self.http_connections_per_user,
            sftp_channels: self.sftp_channels,
            sftp_handles: self.sftp_handles,
            sftp_login_timeout: self.sftp_login_timeout,
            sftp_login_attempts: self.sftp_login_attempts,
            sftp_keepalive_interval: self.sftp_keepalive_interval,
            sftp_unanswered_timeout: self.sftp_unanswered_timeout,
            sftp_idle_timeout: self.sftp_idle_timeout,
            http_idle_timeout: self.http_idle_timeout,
            sftp_resume_retention: self.sftp_resume_retention,
            unauthenticated_connections: self.unauthenticated_connections,
            unauthenticated_connections_per_address: self.unauthenticated_connections_per_address,
            propfind_infinity_entries: self.propfind_infinity_entries,
            unfinished_upload_space: self.unfinished_upload_space,
            property_space: self.property_space,
            drain_timeout: self.drain_timeout,
            log: self.log.clone(),
            log_format: self.log_format,
        }
    }
}

/// Turns a value of the file into the text that the environment and flags would carry.
fn toml_value_as_text(value: &DeValue<'_>, shape: ConfigValueType) -> Result<String, String> {
    match (shape, value) {
        (ConfigValueType::Text, DeValue::String(text)) => Ok(text.to_string()),
        (ConfigValueType::Number, DeValue::Integer(number)) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        (ConfigValueType::Boolean, DeValue::Boolean(on)) => Ok(on.to_string()),
        (ConfigValueType::List, DeValue::Array(items)) => {
            let texts = items.iter().map(|item| item.get_ref().as_str()).collect::<Option<Vec<_>>>();
            texts.map(|texts| texts.join(",")).ok_or_else(|| "give a list of texts in quotation marks".to_owned())
        }
        (ConfigValueType::Text, _) => Err("give a text in quotation marks".to_owned()),
        (ConfigValueType::Number, _) => Err("give a whole number without quotation marks".to_owned()),
        (ConfigValueType::Boolean, _) => Err("give true or false without quotation marks".to_owned()),
        (ConfigValueType::List, _) => Err("give a list of texts, such as [\"10.0.0.0/8\"]".to_owned()),
    }
}

/// Returns a path without links as far as it exists.
fn resolve_existing_links(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there.map(|(above, real)| (path.strip_prefix(above), real)) {
        Some((Ok(rest), real)) => real.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
