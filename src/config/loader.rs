//! Reads all sources of the configuration in rising order, and reports every fault of every source at once.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::access_log_values::AccessLogSetting;
use super::error::{ConfigError, InvalidSetting, SettingLocation};
use super::keys::ConfigKey;
use super::settings::{CONFIG_KEYS, Settings, find_key};
use super::unknown_key::{renamed, unknown_key_message};
use super::values::{ConfigValueType, DirectoryPath, ProxyProtocolSetting};
use super::{CommandLineSetting, ConfigSources};

/// Variables that are no settings but belong to the program all the same.
const KNOWN_OTHER_VARIABLES: &[&str] = &[
    "PATGATE_CONFIG",
    "PATGATE_SERVER",
    "PATGATE_TOKEN",
    "PATGATE_CA_FILE",
    "PATGATE_WEBHOOK_SECRET",
    "PATGATE_SMTP_PASSWORD",
];

/// The texts of the settings, as the sources are read one after the other.
#[derive(Default)]
pub(super) struct ConfigLoader {
    /// The valid text of the strongest source.
    texts: BTreeMap<&'static str, String>,
    /// Where that text comes from.
    locations: HashMap<&'static str, SettingLocation>,
    errors: Vec<InvalidSetting>,
    warnings: Vec<String>,
}

/// All that the sources say.
pub(super) struct ReadSettings {
    /// The values; where a source has an invalid text, that of a weaker source.
    pub(super) settings: Settings,
    /// The text of each setting that has a value.
    pub(super) texts: BTreeMap<&'static str, String>,
    pub(super) warnings: Vec<String>,
}

impl ConfigLoader {
    /// Reads all sources.
    pub(super) fn read(sources: &ConfigSources) -> Self {
        let mut loader = Self::default();
        for key in CONFIG_KEYS {
            if let Some(default) = key.default() {
                loader.set(key, default, SettingLocation::BuiltIn);
            }
        }
        if let Some(file) = &sources.file {
            loader.read_file(file);
        }
        loader.read_environment(&sources.environment);
        for CommandLineSetting { typed_name, key, value } in &sources.flags {
            loader.set_by_name(key, value, SettingLocation::FlagOrVariable(typed_name.clone()));
        }
        loader
    }

    /// Returns the values, each valid by itself.
    ///
    /// # Errors
    /// [`ConfigError`] with every unknown key and bad value.
    pub(super) fn finish(mut self) -> Result<ReadSettings, ConfigError> {
        match Settings::from_texts(&self.texts) {
            Ok(settings) if self.errors.is_empty() => {
                Ok(ReadSettings { settings, texts: self.texts, warnings: self.warnings })
            }
            Ok(_) => Err(ConfigError(self.errors)),
            Err(message) => {
                self.add_error(SettingLocation::BuiltIn, message);
                Err(ConfigError(self.errors))
            }
        }
    }

    /// Returns the values that can be combined, to run a server with them.
    ///
    /// # Errors
    /// As [`Self::finish`], and with every conflict between values that are valid one by one.
    pub(super) fn finish_for_server(mut self, default_state_directory: &Path) -> Result<ReadSettings, ConfigError> {
        // Also where a text was invalid: all faults are reported at once.
        if let Ok(settings) = Settings::from_texts(&self.texts) {
            self.check_conflicts(&settings, default_state_directory);
        }
        self.finish()
    }

    fn add_error(&mut self, location: SettingLocation, message: impl Into<String>) {
        self.errors.push(InvalidSetting { location, message: message.into() });
    }

    fn set(&mut self, key: &'static ConfigKey, text: &str, location: SettingLocation) {
        match (key.check)(text) {
            Ok(()) => {
                self.locations.insert(key.name, location);
                self.texts.insert(key.name, text.to_owned());
            }
            Err(why) => self.add_error(location, format!("{} = {text:?}: {why}", key.name)),
        }
    }

    fn set_by_name(&mut self, name: &str, text: &str, location: SettingLocation) {
        match find_key(name) {
            Some(key) => self.set(key, text, location),
            None => self.add_error(location, unknown_key_message(name)),
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
            let location = error.span().map_or(SettingLocation::File(file.to_owned()), |span| line(span.start));
            self.add_error(location, error.message());
        }
        let mut entries = Vec::new();
        for (name, value) in table.get_ref() {
            match value.get_ref() {
                // `[acme]` with `domains` says the same as `acme_domains`.
                DeValue::Table(acme) if name.get_ref() == "acme" => {
                    let settings =
                        acme.iter().map(|(name, value)| (name.span(), format!("acme_{}", name.get_ref()), value));
                    entries.extend(settings);
                }
                _ => entries.push((name.span(), name.get_ref().to_string(), value)),
            }
        }
        entries.sort_by_key(|(span, ..)| span.start);
        for (span, name, value) in entries {
            let (location, name) = (line(span.start), name.as_str());
            match find_key(name).map(|key| (key, toml_value_as_text(value.get_ref(), key.value_type))) {
                Some((key, Ok(text))) => self.set(key, &text, location),
                Some((_, Err(why))) => self.add_error(location, format!("{name}: {why}")),
                None => self.add_error(location, unknown_key_message(name)),
            }
        }
    }

    fn read_environment(&mut self, environment: &[(OsString, OsString)]) {
        let ours = |name: &OsStr| name.to_str().filter(|name| name.starts_with("PATGATE_")).map(str::to_owned);
        let mut variables: Vec<_> = environment.iter().filter_map(|(n, value)| Some((ours(n)?, value))).collect();
        variables.sort();
        for (variable, value) in variables {
            let location = SettingLocation::FlagOrVariable(variable.clone());
            match (CONFIG_KEYS.iter().find(|key| key.environment_variable() == variable), value.to_str()) {
                (Some(key), Some(text)) => self.set(key, text, location),
                (Some(_), None) => self.add_error(location, "its value is not UTF-8"),
                (None, _) if KNOWN_OTHER_VARIABLES.contains(&variable.as_str()) => {}
                (None, _) => match renamed(&variable.trim_start_matches("PATGATE_").to_ascii_lowercase()) {
                    Some(fault) => self.add_error(location, fault),
                    // Orchestrators set variables of their own for a service called patgate.
                    None => self.warnings.push(format!("the environment variable {variable} is not a setting")),
                },
            }
        }
    }

    fn location_of(&self, key: &'static str) -> SettingLocation {
        self.locations.get(key).cloned().unwrap_or(SettingLocation::BuiltIn)
    }

    /// Reports values that are valid one by one and can't be combined.
    fn check_conflicts(&mut self, settings: &Settings, default_state_directory: &Path) {
        self.check_directories(settings, default_state_directory);
        match (&settings.tls_cert, &settings.tls_key) {
            (Some(_), None) => self.add_error(self.location_of("tls_cert"), "tls_cert needs tls_key"),
            (None, Some(_)) => self.add_error(self.location_of("tls_key"), "tls_key needs tls_cert"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.check_acme(settings);
        self.check_notices(settings);
        if settings.proxy_protocol != ProxyProtocolSetting::default() && settings.trusted_proxies.0.is_empty() {
            self.add_error(
                self.location_of("proxy_protocol"),
                "proxy_protocol needs trusted_proxies: nobody else is believed",
            );
        }
        match (settings.http.0, settings.sftp.0) {
            (None, None) => {
                self.add_error(self.location_of("http"), "http and sftp are both off: there is nothing to serve")
            }
            (Some(http), Some(sftp)) if http == sftp && http.port() != 0 => {
                self.add_error(self.location_of("sftp"), format!("http and sftp can't both listen on {http}"));
            }
            _ => {}
        }
        let taken = |other: Option<SocketAddr>| {
            settings.metrics.0.filter(|metrics| Some(*metrics) == other && metrics.port() != 0)
        };
        for (name, other) in [("http", settings.http.0), ("sftp", settings.sftp.0)] {
            if let Some(metrics) = taken(other) {
                let message = format!("metrics and {name} can't both listen on {metrics}");
                self.add_error(self.location_of("metrics"), message);
            }
        }
    }

    fn check_acme(&mut self, settings: &Settings) {
        if settings.acme_domains.0.is_empty() {
            return;
        }
        if settings.tls_cert.is_some() {
            self.add_error(
                self.location_of("acme_domains"),
                "acme_domains and tls_cert can't both give the certificate",
            );
        }
        match (settings.http.0, settings.acme_http.0) {
            (None, _) => self.add_error(self.location_of("acme_domains"), "acme_domains needs http, which is off"),
            (Some(http), Some(acme)) if http == acme && http.port() != 0 => {
                self.add_error(
                    self.location_of("acme_http"),
                    format!("http and acme_http can't both listen on {http}"),
                );
            }
            _ => {}
        }
    }

    /// Refuses a mail server without sender or recipients, and the other way round.
    fn check_notices(&mut self, settings: &Settings) {
        let has_recipients = !settings.mail_to.0.is_empty();
        match (&settings.smtp_server, &settings.mail_from) {
            (Some(_), Some(_)) if has_recipients => {}
            (None, None) if !has_recipients => {}
            _ => {
                let text = "smtp_server, mail_from and mail_to need one another";
                self.add_error(self.location_of(if has_recipients { "mail_to" } else { "smtp_server" }), text);
            }
        }
    }

    /// Refuses a root that is not a directory, and a state directory that clients could read or that holds what they
    /// are served.
    fn check_directories(&mut self, settings: &Settings, default_state_directory: &Path) {
        let Some(DirectoryPath(root)) = &settings.root else {
            // A bad value has been reported already.
            if !self.errors.iter().any(|fault| fault.message.starts_with("root")) {
                self.errors.extend(ConfigError::missing_root().0);
            }
            return;
        };
        if !root.is_dir() {
            self.add_error(self.location_of("root"), format!("root: {} is not a directory", root.display()));
        }
        let state = settings.state.as_ref().map_or(default_state_directory, |state| &state.0);
        let (real_root, real_state) = (resolve_existing_links(root), resolve_existing_links(state));
        // What clients do must not be what they are served.
        if let AccessLogSetting::File(log) = &settings.access_log
            && resolve_existing_links(log).starts_with(&real_root)
        {
            let text = format!("access_log {} may not lie in root {}", log.display(), root.display());
            self.add_error(self.location_of("access_log"), text);
        }
        if real_root.starts_with(&real_state) || real_state.starts_with(&real_root) {
            let text = format!("state {} and root {} may not contain each other", state.display(), root.display());
            let location =
                if self.locations.contains_key("state") { self.location_of("state") } else { self.location_of("root") };
            self.add_error(location, text);
        }
    }
}

/// Returns a value of the file as the text that the environment and flags would have.
fn toml_value_as_text<'a>(value: &'a DeValue<'_>, value_type: ConfigValueType) -> Result<String, String> {
    match (value_type, value) {
        (ConfigValueType::Text, DeValue::String(text)) => Ok(text.to_string()),
        (ConfigValueType::Number, DeValue::Integer(number)) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        (ConfigValueType::Boolean, DeValue::Boolean(on)) => Ok(on.to_string()),
        (ConfigValueType::List, DeValue::Array(items)) => {
            let text = |item: &'a DeValue<'_>| match item {
                // `[14, 3]` says the same as `["14", "3"]`.
                DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
                item => item.as_str(),
            };
            let texts = items.iter().map(|item| text(item.get_ref())).collect::<Option<Vec<_>>>();
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
    let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match existing.map(|(above, real)| (path.strip_prefix(above), real)) {
        Some((Ok(rest), real)) => real.join(rest),
        _ => path.to_owned(),
    }
}
