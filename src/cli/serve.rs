//! `patgate serve`: runs the gateway until it is told to stop.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::settings::SettingFlags;
use super::site::{Site, durability};
use super::{Failure, Result, capabilities, descriptors, output};
use crate::api::ApiOptions;
use crate::config::{self, Config, Loaded};
use crate::gateway::{Gateway, Parts, ProxyProtocol, Settings};
use crate::net::GateLimits;
use crate::sftp::SftpOptions;
use crate::telemetry::{self, LogFormat};
use crate::webdav::WebdavOptions;

/// Serve a folder over WebDAV and SFTP
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate serve --root /srv/files
  patgate serve --config /etc/patgate/patgate.toml
  patgate serve --root /srv/files --http 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  patgate serve --root /srv/files --sftp off --set durability=fast

Prints one line on stdout when it is ready, with the addresses it got. SIGTERM lets transfers under
way finish within drain_seconds; a second one cuts them.")]
pub(super) struct Serve {
    #[command(flatten)]
    settings: SettingFlags,
}

impl Serve {
    /// Serves until SIGTERM or SIGINT.
    pub(super) fn run(self, site: &Site) -> Result {
        let Loaded { config, warnings } = Config::load(&site.sources(self.settings.0))?;
        start_log(&config)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let (limit, doors) = (descriptors::raise(), config.doors());
        if let Some(shortage) = descriptors::shortage(limit, &doors) {
            tracing::warn!("{shortage}");
        }
        let mut settings = settings(config);
        if let Some(limit) = limit {
            descriptors::divide(limit, &doors).apply(&mut settings);
        }
        run(async {
            site.makes(&settings.state);
            let gateway = Gateway::open(settings, Parts::default()).await?;
            site.keeps();
            let stop = stop_on_signals()?;
            output::say(&ready(&gateway))?;
            gateway.run(stop).await;
            Ok(())
        })
    }
}

/// Runs a server to its end.
pub(super) fn run(server: impl Future<Output = Result>) -> Result {
    // Before the runtime starts threads.
    capabilities::drop_unneeded();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(server);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// Returns what is cancelled at the first SIGTERM or SIGINT; a second one ends the process.
pub(super) fn stop_on_signals() -> Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            next().await;
            tracing::info!("told to stop");
            stop.cancel();
            next().await;
            tracing::warn!("told to stop again: what is under way is cut");
            std::process::exit(1);
        }
    });
    Ok(stop)
}

/// Writes the line that says where a gateway is reached.
pub(super) fn ready(gateway: &Gateway) -> String {
    let scheme = if gateway.is_tls() { "https" } else { "http" };
    let http = gateway.http_address().map(|address| format!(" http={scheme}://{address}"));
    let sftp = gateway.sftp_address().map(|address| format!(" sftp={address}"));
    format!("patgate ready{}{}", http.unwrap_or_default(), sftp.unwrap_or_default())
}

fn start_log(config: &Config) -> Result {
    let format = match config.log_format {
        config::LogFormat::Text => LogFormat::Text,
        config::LogFormat::Json => LogFormat::Json,
    };
    telemetry::start(&config.log, format).map_err(Failure::new)
}

fn settings(config: Config) -> Settings {
    let gate = |connections, per_user| GateLimits {
        connections,
        per_user,
        strangers: config.strangers,
        strangers_per_address: config.strangers_per_address,
    };
    Settings {
        http_gate: gate(config.http_connections, config.http_connections_per_user),
        sftp_gate: gate(config.sftp_connections, config.sftp_connections),
        http_idle: config.http_idle,
        properties: config.properties,
        webdav_options: WebdavOptions { deep_listing: config.deep_listing, uploads: config.unfinished_uploads },
        sftp_options: SftpOptions {
            authentication: config.sftp_login,
            channels: config.sftp_channels,
            handles: config.sftp_handles,
            connections_per_user: config.sftp_connections_per_user,
            login_attempts: config.sftp_login_attempts,
            keepalive: config.sftp_keepalive,
            patience: config.sftp_unanswered,
            idle: config.sftp_idle,
            resume: config.sftp_resume,
            ..SftpOptions::default()
        },
        root: config.root,
        state: config.state,
        http: config.http,
        sftp: config.sftp,
        tls: config.tls.map(|tls| (tls.certificate, tls.key)),
        insecure_http: config.insecure_http,
        trusted_proxies: config.trusted_proxies,
        forwarding_headers: config.forwarding_headers,
        public_url: config.public_url,
        cors_origins: config.cors_origins,
        api_options: ApiOptions { query_token: config.allow_query_token },
        proxy_protocol: ProxyProtocol { http: config.proxy_protocol.http, sftp: config.proxy_protocol.sftp },
        durability: durability(config.durability),
        open_files: None,
        drain: config.drain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Sources};

    #[test]
    fn the_defaults_on_the_command_line_are_those_of_the_library() {
        let folder = tempfile::tempdir().expect("folder");
        let (root, state) = (folder.path().join("files"), folder.path().join("state"));
        std::fs::create_dir(&root).expect("root");
        let flag = Flag { shown: String::new(), key: "root".into(), value: root.display().to_string() };
        let sources = Sources { default_state: state.clone(), flags: vec![flag], ..Sources::default() };
        let loaded = Config::load(&sources).expect("loads");
        assert_eq!(format!("{:?}", settings(loaded.config)), format!("{:?}", Settings::new(root, state)));
    }
}
