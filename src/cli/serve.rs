//! `patgate serve`: runs the gateway until it is told to stop.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::context::CommandContext;
use super::notice_settings::notice_settings;
use super::open_state::tree_durability;
use super::sandbox::{SandboxFiles, SandboxPaths};
use super::setting_flags::SettingFlags;
use super::signals::{HarmlessSignals, stop_on_signals};
use super::{CommandError, Result, capabilities, doctor, huge_pages, output, rlimit, service_manager};
use crate::api::ApiOptions;
use crate::auth::DefenderSettings;
use crate::config::{self, Config, ConfigSources, Count, LoadedConfig, SandboxSetting, Settings};
use crate::domain::{PropertyQuota, StateLimits, UploadSpaceLimits};
use crate::gateway::{
    AcmeSettings, AuditForwardingSettings, Gateway, GatewayDependencies, GatewayReloader, GatewaySettings,
    HTTP_TRANSFER_RATE_WINDOW, ProxyProtocolListeners, StartError,
};
use crate::net::{ConnectionLimits, InheritedListeners};
use crate::sftp::{SftpOptions, SshCertificates};
use crate::telemetry::{self, AccessLogFormat, AccessLogSettings, AccessLogTarget, LogControl, LogFormat};
use crate::tree::Tree;
use crate::webdav::WebdavOptions;

/// Time between two looks at whether certificate and key have changed.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Serve a folder over WebDAV and SFTP
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate serve --root /srv/files
  patgate serve --config /etc/patgate/patgate.toml
  patgate serve --root /srv/files --http 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  patgate serve --root /srv/files --sftp off --set durability=fast

Prints one line on stdout when it is ready, with the addresses it got. SIGTERM, SIGINT and SIGQUIT let
transfers under way finish within drain_seconds; a second one cuts them. SIGHUP reads the configuration
file, the certificate and the key again, and opens the access log anew; settings that can't change while
the server runs are named in the log. SIGUSR1 opens the access log anew and does nothing else.")]
pub(super) struct ServeCommand {
    #[command(flatten)]
    settings: SettingFlags,
}

impl ServeCommand {
    /// Serves until SIGTERM, SIGINT or SIGQUIT.
    pub(super) fn run(self, site: &CommandContext) -> Result {
        // Before the first thread: the variables that announce the sockets are removed.
        let listeners = inherited_listeners()?;
        let sources = site.config_sources(self.settings.0);
        let loaded = Config::load(&sources)?;
        let log = start_logging(&loaded.config)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        huge_pages::disable();
        let (limit, doors) = (rlimit::raise_open_file_limit(), loaded.config.listen_config());
        if let Some(shortage) = rlimit::limit_warning(limit, &doors) {
            tracing::warn!("{shortage}");
        }
        let mut settings = gateway_settings(loaded.config.clone());
        if let Some(limit) = limit {
            rlimit::descriptor_budget(limit, &doors).limit_settings(&mut settings);
        }
        settings.ssh_certificates = ssh_certificates(&loaded.config.settings)?;
        site.will_create_state(&settings.state_directory);
        let sandbox = confine(&loaded.config, sources.file.as_deref(), site)?;
        run_server(async {
            // Before the state is opened: a service manager may send SIGHUP at any time.
            let harmless = HarmlessSignals::register()?;
            let dependencies = GatewayDependencies { listeners, ..GatewayDependencies::default() };
            let gateway = Gateway::open(settings, dependencies).await?;
            site.keep_state();
            let stop = stop_on_signals()?;
            let reloader = gateway.reloader();
            tokio::spawn({
                let reloader = reloader.clone();
                service_manager::notify_when_stopping(stop.clone(), move || reloader.drain_timeout())
            });
            tokio::spawn(service_manager::feed_watchdog(gateway.store().clone()));
            let config = loaded.config.clone();
            let mut reload = ConfigReload { sources, started_with: loaded, log, reloader: reloader.clone(), sandbox };
            tokio::spawn(harmless.handle(move || reload.run(), move || reloader.reopen_logs()));
            output::print_line(&ready_line(&gateway))?;
            service_manager::notify_ready();
            tokio::task::spawn_blocking({
                let store = gateway.store().clone();
                move || doctor::warn_at_start(&config, &store)
            });
            gateway.run(stop).await;
            Ok(())
        })
    }
}

/// Configuration of a running server, and the ways to change it.
struct ConfigReload {
    sources: ConfigSources,
    /// The configuration that the server was started with: settings that need a restart are compared with it.
    started_with: LoadedConfig,
    log: LogControl,
    reloader: GatewayReloader,
    /// What the server can read since it was started; `None` where it is not confined.
    sandbox: Option<SandboxPaths>,
}

impl ConfigReload {
    /// Reads the configuration again and applies it, or logs why it can't be applied and leaves all as it is.
    fn run(&mut self) {
        service_manager::notify_reloading();
        // Whatever the file holds: logrotate has renamed the log.
        self.reloader.reopen_logs();
        match self.apply() {
            Ok(()) => tracing::info!("the configuration was reloaded"),
            Err(reason) => tracing::error!("the configuration was not reloaded, the old one stays: {reason}"),
        }
        service_manager::notify_ready();
    }

    /// Returns what to add to the reason why files can't be read, where the sandbox is one.
    fn sandbox_hint(&self, newer: &Config) -> String {
        let Some(sandbox) = &self.sandbox else { return String::new() };
        let files = newer.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        match files.into_iter().find(|file| !sandbox.covers(file)) {
            Some(file) => {
                let directory = file.parent().unwrap_or(file).display();
                format!("; since the server was started its sandbox keeps {directory} out of its reach: restart it")
            }
            None => String::new(),
        }
    }

    fn apply(&mut self) -> std::result::Result<(), String> {
        let newer = Config::load(&self.sources).map_err(|error| error.to_string().replace('\n', "; "))?;
        let filter = self.log.parse_log_filter(&newer.config.settings.log.0)?;
        self.reloader
            .reload(&gateway_settings(newer.config.clone()))
            .map_err(|error| error.to_string() + &self.sandbox_hint(&newer.config))?;
        // Last, since it can't fail any more.
        self.log.set_filter(filter);
        for warning in &newer.warnings {
            tracing::warn!("{warning}");
        }
        let restart = self.started_with.settings_needing_restart(&newer);
        if !restart.is_empty() {
            tracing::warn!("a restart is needed before these settings change: {}", restart.join(", "));
        }
        Ok(())
    }
}

/// Confines the server to the files of its configuration, as far as `sandbox` says and the kernel can. Returns to which.
fn confine(config: &Config, config_file: Option<&Path>, site: &CommandContext) -> Result<Option<SandboxPaths>> {
    let setting = config.settings.sandbox;
    if setting == SandboxSetting::Off {
        return Ok(None);
    }
    // Now, since neither the directories above nor other processes can be looked at later.
    Tree::refuse_overlapping_root(&config.root)
        .map_err(|source| StartError::Tree { path: config.root.clone(), source })?;
    // A rule needs a directory that is there.
    DirBuilder::new().recursive(true).mode(0o700).create(&config.state)?;
    let acme_ca = config.settings.acme_ca_file.as_ref().map(|file| file.0.as_path());
    let audit_file = config.settings.audit_file.as_ref().map(|file| file.0.as_path());
    let notice_files =
        [&config.settings.notice_ca_file, &config.settings.webhook_secret_file, &config.settings.smtp_password_file];
    let files = SandboxFiles {
        root: &config.root,
        state: &config.state,
        config_file,
        tls: config.tls.as_ref(),
        logs: config.settings.access_log.file().into_iter().chain(audit_file).collect(),
        resolves_names: resolves_names(&config.settings),
        acme_ca,
        notices: notice_files.into_iter().flatten().map(|file| file.0.as_path()).collect(),
    };
    let confined = SandboxPaths::new(files, setting)
        .map(|paths| paths.with_new_state(site.topmost_new_directory().as_deref()))
        .and_then(|paths| paths.enforce().map(|()| paths));
    match confined {
        Ok(paths) => Ok(Some(paths)),
        Err(error) => {
            tracing::info!("the server is not confined by a sandbox: {error}");
            Ok(None)
        }
    }
}

/// Tells whether a server with these settings connects to other hosts by their names.
fn resolves_names(settings: &Settings) -> bool {
    !settings.acme_domains.0.is_empty()
        || settings.audit_syslog.is_some()
        || !settings.webhook_urls.0.is_empty()
        || settings.smtp_server.is_some()
}

/// Returns the listeners that the service manager has passed to this process.
fn inherited_listeners() -> Result<InheritedListeners> {
    InheritedListeners::from_environment().map_err(|error| {
        CommandError::new(error.to_string()).with_hint("examples/systemd shows socket units: docs/systemd.md")
    })
}

/// Runs a server to its end.
pub(super) fn run_server(server: impl Future<Output = Result>) -> Result {
    // Before the runtime starts threads.
    capabilities::drop_unneeded();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(server);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// Writes the line that says where a gateway is reached.
pub(super) fn ready_line(gateway: &Gateway) -> String {
    let scheme = if gateway.is_tls() { "https" } else { "http" };
    let http = gateway.http_address().map(|address| format!(" http={scheme}://{address}"));
    let sftp = gateway.sftp_address().map(|address| format!(" sftp={address}"));
    let metrics = gateway.metrics_address().map(|address| format!(" metrics=http://{address}"));
    ["patgate ready".to_owned()].into_iter().chain(http).chain(sftp).chain(metrics).collect()
}

fn start_logging(config: &Config) -> Result<LogControl> {
    let format = match config.settings.log_format {
        config::LogFormatSetting::Text => LogFormat::Text,
        config::LogFormatSetting::Json => LogFormat::Json,
    };
    telemetry::start_logging(&config.settings.log.0, format).map_err(CommandError::new)
}

fn access_log_settings(settings: &config::Settings) -> Option<AccessLogSettings> {
    let target = match &settings.access_log {
        config::AccessLogSetting::Off => return None,
        config::AccessLogSetting::Stderr => AccessLogTarget::Stderr,
        config::AccessLogSetting::File(path) => AccessLogTarget::File(path.clone()),
    };
    let format = match settings.access_log_format {
        config::AccessLogFormatSetting::Json => AccessLogFormat::Json,
        config::AccessLogFormatSetting::Combined => AccessLogFormat::Combined,
    };
    let writes_only = settings.access_log_operations == config::AccessLogOperationsSetting::Writes;
    Some(AccessLogSettings { target, format, writes_only })
}

fn gateway_settings(config: Config) -> GatewaySettings {
    let Config { root, state, settings, tls } = config;
    let (defender, notices) = (defender_settings(&settings), notice_settings(&settings));
    let connection_limits = |connections: Count<1>, per_user: Count<1>| ConnectionLimits {
        connections: connections.0,
        per_user: per_user.0,
        unauthenticated: settings.unauthenticated_connections.0,
        unauthenticated_per_address: settings.unauthenticated_connections_per_address.0,
    };
    GatewaySettings {
        http_connection_limits: connection_limits(settings.http_connections, settings.http_connections_per_user),
        // SFTP bounds the connections of a user itself, at login, with a message of its own.
        sftp_connection_limits: connection_limits(settings.sftp_connections, settings.sftp_connections),
        http_idle_timeout: settings.http_idle_seconds.0,
        http_transfer_rate_window: HTTP_TRANSFER_RATE_WINDOW,
        property_space: PropertyQuota {
            per_user: settings.property_space_per_user.bytes(),
            total: settings.property_space.bytes(),
        },
        state_limits: StateLimits::default(),
        webdav_options: WebdavOptions {
            propfind_infinity_entries: settings.propfind_infinity_entries.0,
            upload_space: UploadSpaceLimits {
                per_user: settings.unfinished_upload_space_per_user,
                total: settings.unfinished_upload_space,
            },
        },
        sftp_options: sftp_options(&settings),
        // Read once, when the server starts.
        ssh_certificates: SshCertificates::default(),
        root,
        state_directory: state,
        http: settings.http.0,
        sftp: settings.sftp.0,
        metrics: settings.metrics.0,
        metrics_per_user: settings.metrics_per_user,
        access_log: access_log_settings(&settings),
        tls: tls.map(|tls| (tls.certificate, tls.key)),
        certificate_poll_interval: CERTIFICATE_POLL_INTERVAL,
        acme: acme_settings(&settings),
        insecure_http: settings.insecure_http,
        trusted_proxies: settings.trusted_proxies.0,
        forwarding_headers: settings.forwarding_headers,
        public_url: settings.public_url,
        cors_origins: settings.cors_origins,
        api_options: ApiOptions { query_token: settings.allow_query_token },
        proxy_protocol: ProxyProtocolListeners {
            http: settings.proxy_protocol.http,
            sftp: settings.proxy_protocol.sftp,
        },
        defender,
        durability: tree_durability(settings.durability),
        open_file_limits: None,
        audit_forwarding: AuditForwardingSettings {
            file: settings.audit_file.map(|path| path.0),
            syslog: settings.audit_syslog,
        },
        notices,
        drain_timeout: settings.drain_seconds.0,
    }
}

fn sftp_options(settings: &config::Settings) -> SftpOptions {
    SftpOptions {
        login_timeout: settings.sftp_login_seconds.0,
        max_channels: settings.sftp_channels.0,
        max_handles: settings.sftp_handles.0,
        max_connections_per_user: settings.sftp_connections_per_user.0,
        max_login_attempts: settings.sftp_login_attempts.0,
        keepalive_interval: settings.sftp_keepalive_seconds.0,
        client_timeout: settings.sftp_unanswered_seconds.0,
        idle_timeout: settings.sftp_idle_seconds.0,
        upload_retention: settings.sftp_resume_seconds.0,
        ..SftpOptions::default()
    }
}

/// Reads the certificates that the settings name, before the server is confined.
fn ssh_certificates(settings: &Settings) -> Result<SshCertificates> {
    let authorities = settings.ssh_user_ca.as_ref().map(|file| file.0.as_path());
    SshCertificates::read(authorities, &settings.ssh_host_certificates.0).map_err(|error| {
        CommandError::new(error.to_string()).with_hint("set ssh_user_ca or ssh_host_certificates anew")
    })
}

fn defender_settings(settings: &config::Settings) -> DefenderSettings {
    DefenderSettings {
        ban_after: u32::try_from(settings.ban_after.0).unwrap_or(u32::MAX),
        ban_window: settings.ban_window_seconds.0,
        ban_time: settings.ban_seconds.0,
        ban_time_max: settings.ban_seconds_max.0,
        allow_addresses: settings.allow_addresses.0.clone(),
        deny_addresses: settings.deny_addresses.0.clone(),
    }
}

fn acme_settings(settings: &Settings) -> Option<AcmeSettings> {
    let domains = settings.acme_domains.0.clone();
    (!domains.is_empty()).then(|| AcmeSettings {
        domains,
        contact: settings.acme_contact.as_ref().map(|address| address.0.clone()),
        directory: settings.acme_directory.0.clone(),
        ca_file: settings.acme_ca_file.as_ref().map(|file| file.0.clone()),
        http: settings.acme_http.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CommandLineSetting, ConfigSources};

    #[test]
    fn command_line_defaults_equal_library_defaults() {
        let folder = tempfile::tempdir().expect("folder");
        let (root, state) = (folder.path().join("files"), folder.path().join("state"));
        std::fs::create_dir(&root).expect("root");
        let flag =
            CommandLineSetting { typed_name: String::new(), key: "root".into(), value: root.display().to_string() };
        let sources =
            ConfigSources { default_state_directory: state.clone(), flags: vec![flag], ..ConfigSources::default() };
        let loaded = Config::load(&sources).expect("loads");
        assert_eq!(
            format!("{:?}", gateway_settings(loaded.config)),
            format!("{:?}", GatewaySettings::new(root, state))
        );
    }
}
