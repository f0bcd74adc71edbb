//! How the gateway is to run: defaults, a file, the environment and flags, in rising order, read once into a [`Config`]
//! that nothing has to check again. All faults are reported at once, each with its location.

mod access_log_values;
mod error;
mod example;
mod keys;
mod loader;
mod notice_values;
mod settings;
#[cfg(test)]
mod tests;
mod unknown_key;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::domain::PublicUrl;
use ipnet::IpNet;
use loader::{ConfigLoader, ReadSettings};

pub use access_log_values::{AccessLogFormatSetting, AccessLogOperationsSetting, AccessLogSetting};
pub use error::{ConfigError, InvalidSetting};
pub use example::example_file;
pub use keys::{ConfigKey, InitialValue};
pub use notice_values::{
    DayList, MailAddressList, NoticeKindList, SmtpLogin, SmtpServer, SmtpTlsSetting, WebhookUrlList,
};
pub use settings::{CONFIG_KEYS, Settings};
pub use unknown_key::{RENAMED_KEYS, RenamedKey};
pub use values::{
    ConfigValueType, Count, DirectoryPath, DomainList, DurabilitySetting, EntryCount, FilePath, FilePathList, HttpsUrl,
    ListenAddress, LogFilterSetting, LogFormatSetting, MailAddress, NetworkList, ProxyProtocolSetting, SandboxSetting,
    Seconds, SettingValue,
};

/// The files that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A configuration with which a server can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The served directory, absolute.
    pub root: PathBuf,
    /// The state directory, absolute.
    pub state: PathBuf,
    /// All settings. Those of root, state and TLS are checked against one another in the fields beside this one.
    pub settings: Settings,
    /// Files of TLS for HTTP; none where HTTP is unencrypted.
    pub tls: Option<TlsFiles>,
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
    /// Whether the server is confined.
    pub sandbox: SandboxSetting,
}

/// Where a configured server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// HTTP; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// What HTTP is answered over TLS with.
    pub tls: Option<TlsFiles>,
    /// Whether its certificate comes from a certificate authority, in place of files.
    pub acme: bool,
    /// Networks of the proxies that HTTP trusts.
    pub trusted_proxies: Vec<IpNet>,
    /// Where clients see HTTP, if that is configured.
    pub public_url: Option<PublicUrl>,
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
    texts: BTreeMap<&'static str, String>,
}

impl LoadedConfig {
    /// Returns the settings whose values differ in `newer` and that a running server does not take anew.
    pub fn settings_needing_restart(&self, newer: &Self) -> Vec<&'static str> {
        let changed = CONFIG_KEYS.iter().filter(|key| self.texts.get(key.name) != newer.texts.get(key.name));
        changed.filter(|key| !key.is_reloadable).map(|key| key.name).collect()
    }
}

impl Config {
    /// Reads all sources into a configuration that can be run.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault of every source: unknown keys, bad values, and conflicts.
    pub fn load(sources: &ConfigSources) -> Result<LoadedConfig, ConfigError> {
        let read = ConfigLoader::read(sources).finish_for_server(&sources.default_state_directory)?;
        let ReadSettings { settings, texts, mut warnings } = read;
        let DirectoryPath(root) = settings.root.clone().ok_or_else(ConfigError::missing_root)?;
        let (state, tls) = (state_directory(&settings, sources), settings.tls_files());
        let config = Self { root, state, settings, tls };
        warnings.extend(config.cleartext_warning());
        warnings.extend(config.metrics_warning());
        Ok(LoadedConfig { config, warnings, texts })
    }

    /// Returns where it answers.
    pub fn listen_config(&self) -> ListenConfig {
        ListenConfig::from_settings(&self.settings)
    }

    /// Returns what of it concerns commands beside the server.
    pub fn local_config(&self) -> LocalConfig {
        LocalConfig {
            state: self.state.clone(),
            root: Some(self.root.clone()),
            durability: self.settings.durability,
            sandbox: self.settings.sandbox,
        }
    }

    /// Warns of an HTTP listener that answers hardly anybody.
    fn cleartext_warning(&self) -> Option<String> {
        let http = self.settings.http.0.filter(|http| !http.ip().to_canonical().is_loopback())?;
        if self.tls.is_some() || !self.settings.acme_domains.0.is_empty() || self.settings.insecure_http {
            return None;
        }
        let answered =
            if self.settings.trusted_proxies.0.is_empty() { "nobody" } else { "trusted proxies that say https" };
        Some(format!(
            "HTTP listens on {http} without TLS: off loopback {answered} will be answered; \
             set tls_cert and tls_key, trusted_proxies, or insecure_http"
        ))
    }
}

impl Config {
    /// Warns of metrics that other machines may read.
    fn metrics_warning(&self) -> Option<String> {
        let metrics = self.settings.metrics.0.filter(|metrics| !metrics.ip().to_canonical().is_loopback())?;
        Some(format!(
            "metrics listens on {metrics}: whoever reaches that address reads them without a token; let a firewall \
             admit Prometheus alone, or turn it off and read /metrics on the HTTP listener with a token that has the \
             role metrics.read"
        ))
    }
}

impl ListenConfig {
    /// Returns where a server with these settings answers.
    fn from_settings(settings: &Settings) -> Self {
        Self {
            http: settings.http.0,
            tls: settings.tls_files(),
            acme: !settings.acme_domains.0.is_empty(),
            trusted_proxies: settings.trusted_proxies.0.clone(),
            public_url: settings.public_url.clone(),
            sftp: settings.sftp.0,
            http_connections: settings.http_connections.0,
            sftp_connections: settings.sftp_connections.0,
        }
    }

    /// Reads where a configured server answers.
    ///
    /// # Errors
    /// As [`LocalConfig::load`].
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        Ok(Self::from_settings(&ConfigLoader::read(sources).finish()?.settings))
    }
}

impl Settings {
    /// Reads all settings, each valid by itself, for a command that works beside the server.
    ///
    /// # Errors
    /// [`ConfigError`] with every unknown key and bad value.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        Ok(ConfigLoader::read(sources).finish()?.settings)
    }

    /// Returns certificate and key, where both are named.
    fn tls_files(&self) -> Option<TlsFiles> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        files.map(|(FilePath(certificate), FilePath(key))| TlsFiles { certificate, key })
    }
}

impl LocalConfig {
    /// Reads what a command needs that works beside the server.
    ///
    /// # Errors
    /// [`ConfigError`] with every unknown key and bad value.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        let settings = ConfigLoader::read(sources).finish()?.settings;
        let state = state_directory(&settings, sources);
        Ok(Self {
            state,
            root: settings.root.map(|root| root.0),
            durability: settings.durability,
            sandbox: settings.sandbox,
        })
    }
}

/// Returns the state directory: the setting's, or the default one of the sources.
fn state_directory(settings: &Settings, sources: &ConfigSources) -> PathBuf {
    settings.state.as_ref().map_or_else(|| sources.default_state_directory.clone(), |state| state.0.clone())
}
