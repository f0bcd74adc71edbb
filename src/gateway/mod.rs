//! The composition root: opens every module, connects the protocols to their listeners, and drains connections at the
//! end.
//!
//! ```text
//! listener -> parse the credential -> auth -> Session -> View -> method -> error.rs of the protocol's module
//! ```

mod abort_on_revocation;
mod acme;
mod audit_forwarder;
mod certificate_watch;
mod connection_owner;
mod cors;
mod cross_origin;
mod disconnect_probe;
mod drain;
mod http2;
mod http2_budgets;
mod http_connection;
mod http_service;
mod last_host;
mod maintenance_task;
mod malformed;
mod metrics_collector;
mod metrics_listener;
mod middleware;
mod mount_monitor;
mod notices;
mod operation_report;
mod proxy_protocol;
mod readiness;
mod reload;
mod request_handler;
mod settings;
mod storage_recount_task;
#[cfg(test)]
mod tests;
mod untrusted_proxy_file;

use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::auth::{Authenticator, Clock};
use crate::console::Console;
use crate::http::TrustedProxies;
use crate::net::{self, AcceptedConnection, AcmeChallenges, ConnectionLimiter, InheritedListeners, TlsError};
use crate::sftp::{HostKeys, Sftp};
use crate::store::{DiskFault, Store, StoreError};
use crate::telemetry::OperationRecorder;
use crate::tokens::TokenService;
use crate::tree::{self, Tree};
use crate::webdav::Webdav;

use acme::AcmeManager;
use audit_forwarder::AuditForwarder;
pub use audit_forwarder::AuditForwardingSettings;
use drain::{DrainSignals, drain_connections};
use http_service::HttpService;
use http2_budgets::Http2Budgets;
use metrics_collector::{MetricSources, MetricsCollector};
use metrics_listener::MetricsListener;
pub use notices::{
    MailSettings, NoticeError, NoticeReceivers, NoticeSecret, NoticeSettings, NoticeTimings, SmtpTls, TestOutcome,
};
use notices::{NoticeRecorder, NoticeService, NoticeSources};
use proxy_protocol::ProxyProtocolReader;
use readiness::ReadinessCheck;
use reload::LiveSettings;
pub use reload::{GatewayReloader, ReloadError};
pub use settings::{AcmeSettings, GatewaySettings, HTTP_TRANSFER_RATE_WINDOW, ProxyProtocolListeners};
pub use untrusted_proxy_file::recorded_untrusted_proxy;

/// Reason why the gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory or the database can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The served directory can't be opened.
    #[error("the folder {path} can't be served: {source}", path = path.display())]
    Tree {
        /// Path of the directory.
        path: PathBuf,
        /// Reason.
        source: tree::Error,
    },
    /// Certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address that can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Address of the listener.
        address: SocketAddr,
        /// Reason.
        source: io::Error,
    },
    /// The access log can't be opened.
    #[error("the access log can't be written: {0}")]
    AccessLog(#[source] io::Error),
    /// The service manager holds a listener of a protocol that is off: its clients would never be answered.
    #[error("the service manager passes a socket for {name}, which is off: turn {name} on, or stop that socket unit")]
    UnusedListener {
        /// Name of the setting.
        name: &'static str,
    },
    /// A listener of the service manager that can't be used.
    #[error("the socket for {name} that the service manager passes can't be used: {source}")]
    InheritedListener {
        /// Name of the setting.
        name: &'static str,
        /// Reason.
        source: io::Error,
    },
    /// Notices can't be sent with these settings.
    #[error("notices can't be sent: {0}")]
    Notices(#[from] NoticeError),
    /// The SSH host keys can't be read or created.
    #[error("the SSH host keys can't be used: {0}")]
    HostKeys(#[source] io::Error),
    /// One of the served directory and the state directory contains the other.
    #[error("the served folder and the state directory contain each other: {root} and {state}", root = root.display(), state = state.display())]
    OverlappingDirectories {
        /// Path of the served directory.
        root: PathBuf,
        /// Path of the state directory.
        state: PathBuf,
    },
}

/// Dependencies that tests replace.
#[derive(Clone, Default)]
pub struct GatewayDependencies {
    /// Clock that expiration is checked against.
    pub clock: Clock,
    /// SSH host keys; those of the state directory where `None`.
    pub host_keys: Option<HostKeys>,
    /// Listeners that are open already; the others are bound to the addresses of the settings.
    pub listeners: InheritedListeners,
}

/// Listener that is bound, with the bounds on its connections and what answers them.
struct BoundListener<S> {
    listener: TcpListener,
    limiter: ConnectionLimiter,
    service: S,
}

impl<S> BoundListener<S> {
    fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }
}

/// Gateway that listens and does not serve yet.
pub struct Gateway {
    store: Store,
    auth: Authenticator,
    tree: Tree,
    listeners: GatewayListeners,
    audit_forwarder: AuditForwarder,
    notices: NoticeService,
    settings: GatewaySettings,
    reloader: GatewayReloader,
    recorder: Arc<OperationRecorder>,
}

/// Listeners with the services that answer there.
struct GatewayListeners {
    http: Option<BoundListener<HttpService>>,
    sftp: Option<BoundListener<Sftp>>,
    metrics: Option<MetricsListener>,
    /// For challenges of a certificate authority.
    challenges: Option<TcpListener>,
}

impl Gateway {
    /// Opens the state and the served directory and binds the listeners (port 0 takes a free one).
    ///
    /// # Errors
    /// [`StartError`] that says what can't be opened and why; nothing was changed for clients then.
    pub async fn open(settings: GatewaySettings, dependencies: GatewayDependencies) -> Result<Self, StartError> {
        // Before anything is created: a state directory below the served directory would hand out database and pepper.
        check_disjoint(&settings)?;
        let proxies = Arc::new(TrustedProxies::new(settings.trusted_proxies.clone(), settings.forwarding_headers));
        let challenges = Arc::<AcmeChallenges>::default();
        let live_settings = Arc::new(ArcSwap::from_pointee(LiveSettings::load(&settings, &proxies, &challenges)?));
        // The addresses are bound before the store is opened: a second instance fails here, with the state untouched.
        let OpenListeners { http, sftp, metrics, challenges: challenge_listener } =
            OpenListeners::open(&settings, &dependencies.listeners).await?;
        let (recorder, notices) = (open_recorder(&settings)?, NoticeService::open(&settings.notices)?);
        let (store, auth, tree) = open_state(&settings, &dependencies, &notices)?;
        let keys = sftp.as_ref().map(|_| host_keys(&settings, dependencies.host_keys)).transpose()?;
        let sftp_address = sftp.as_ref().and_then(|listener| listener.local_addr().ok());
        let tokens = token_service(&store, &auth, &tree);
        let http_limiter = ConnectionLimiter::new(settings.http_connection_limits);
        let sftp_limiter = ConnectionLimiter::new(settings.sftp_connection_limits);
        let webdav = Webdav::new(tree.clone(), auth.clone(), settings.webdav_options);
        let limiters = [http.as_ref().map(|_| ("http", &http_limiter)), sftp.as_ref().map(|_| ("sftp", &sftp_limiter))];
        let collector = MetricsCollector::new(MetricSources {
            recorder: Arc::clone(&recorder),
            store: store.clone(),
            auth: auth.clone(),
            tree: tree.clone(),
            webdav: webdav.clone(),
            limiters: limiters.into_iter().flatten().map(|(name, limiter)| (name, limiter.clone())).collect(),
            live_settings: Arc::clone(&live_settings),
        });
        let service = HttpService {
            auth: auth.clone(),
            webdav,
            api: api(&settings, &tokens, (&tree, &auth), collector.clone()),
            console: Console::new(tokens, tree.clone(), auth.clone(), dependencies.clock, sftp_address),
            readiness: ReadinessCheck::for_store(store.clone()),
            tree: tree.clone(),
            live_settings: Arc::clone(&live_settings),
            proxies,
            recorder: Arc::clone(&recorder),
            allow_cleartext: settings.insecure_http,
            idle_timeout: settings.http_idle_timeout,
            transfer_rate_window: settings.http_transfer_rate_window,
            http2_budgets: Http2Budgets::default(),
        };
        let http = http.map(|listener| BoundListener { listener, limiter: http_limiter, service });
        let sftp = sftp.zip(keys).map(|(listener, keys)| {
            let service =
                Sftp::with_options(tree.clone(), auth.clone(), keys, settings.sftp_options, &settings.ssh_certificates);
            let service = service.with_recorder(Arc::clone(&recorder));
            BoundListener { listener, limiter: sftp_limiter, service }
        });
        let metrics = metrics.map(|listener| MetricsListener::new(listener, collector));
        // Last, since nothing that fails after it would end its threads.
        let audit_forwarder = AuditForwarder::start(&settings.audit_forwarding, &store).map_err(StoreError::Thread)?;
        let reloader = GatewayReloader {
            live_settings,
            challenges,
            auth: auth.clone(),
            recorder: Arc::clone(&recorder),
            audit_forwarder: audit_forwarder.reloader(),
            notices: NoticeRecorder::new(store.clone(), auth.clock().clone()),
        };
        let listeners = GatewayListeners { http, sftp, metrics, challenges: challenge_listener };
        Ok(Self { store, auth, tree, listeners, audit_forwarder, notices, settings, reloader, recorder })
    }

    /// Returns the address of the HTTP listener; `None` where HTTP is off.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listeners.http.as_ref().and_then(BoundListener::address)
    }

    /// Tells whether HTTP is served over TLS.
    pub fn is_tls(&self) -> bool {
        self.settings.tls.is_some() || self.settings.acme.is_some()
    }

    /// Returns the address of the SFTP listener; `None` where SFTP is off.
    pub fn sftp_address(&self) -> Option<SocketAddr> {
        self.listeners.sftp.as_ref().and_then(BoundListener::address)
    }

    /// Returns the address of the listener for metrics; `None` where there is none.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.listeners.metrics.as_ref().and_then(MetricsListener::address)
    }

    /// Returns the store, for a program that embeds the gateway and manages users itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the served tree, for a program that embeds the gateway.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the authenticator, for a program that embeds the gateway.
    pub fn auth(&self) -> &Authenticator {
        &self.auth
    }

    /// Returns the handle that replaces settings while the gateway runs.
    pub fn reloader(&self) -> GatewayReloader {
        self.reloader.clone()
    }

    /// Serves until `stop` is cancelled, then drains connections within the configured timeout, then writes the uses
    /// and events that memory holds.
    pub async fn run(self, stop: CancellationToken) {
        let Self { store, auth, tree, listeners, audit_forwarder, notices, settings, reloader, recorder } = self;
        let GatewayListeners { http, sftp, metrics, challenges } = listeners;
        let connections = TaskTracker::new();
        let (background, background_stop) = (TaskTracker::new(), CancellationToken::new());
        notices.spawn(&background, NoticeSources::new(&store, &tree, &reloader), &background_stop);
        let log_writers = (Arc::clone(&recorder), audit_forwarder);
        spawn_background_tasks(&background, store, auth, log_writers, &tree, &background_stop);
        spawn_certificate_tasks(&background, &settings, &reloader, challenges, &background_stop);

        let drain = DrainSignals::new(stop);
        let proxies = Arc::new(TrustedProxies::new(settings.trusted_proxies.clone(), settings.forwarding_headers));
        let server = ListenerServer { listeners: TaskTracker::new(), connections, drain: drain.clone() };
        if let Some(BoundListener { listener, limiter, service }) = http {
            let proxy_reader = ProxyProtocolReader::new(settings.proxy_protocol.http, &proxies);
            server.spawn(listener, limiter, proxy_reader, move |connection, drain| {
                service.clone().serve(connection, drain)
            });
        }
        if let Some(BoundListener { listener, limiter, service: sftp }) = sftp {
            let proxy_reader = ProxyProtocolReader::new(settings.proxy_protocol.sftp, &proxies);
            server.spawn(listener, limiter, proxy_reader, move |connection, drain| {
                let sftp = sftp.clone();
                async move { sftp.serve(connection, drain.end).await }
            });
        }

        if let Some(metrics) = metrics {
            server.listeners.spawn(metrics.run(server.connections.clone(), drain.draining.clone()));
        }

        drain.draining.cancelled().await;
        // First no new connections, then the open ones are drained: the other way round draining might never end.
        server.listeners.close();
        server.listeners.wait().await;
        // Read now, since a reload may have replaced it.
        let drain_timeout = reloader.drain_timeout();
        drain_connections(&server.connections, &drain, drain_timeout).await;
        // After the drain: until then revocations have to end sessions, and the last uses have to be written.
        background_stop.cancel();
        background.close();
        background.wait().await;
        // What is not removed yet is in staging, where it is no longer visible; the next start would sweep it, too.
        if let Err(error) = tokio::task::spawn_blocking(move || tree.wait_for_background_deletes()).await {
            tracing::warn!(%error, "background removals did not finish");
        }
        // Last, with the lines of all that was drained.
        let _ = tokio::task::spawn_blocking(move || recorder.close_access_log()).await;
    }
}

/// Returns the given host keys, or those of the state directory.
fn host_keys(settings: &GatewaySettings, given: Option<HostKeys>) -> Result<HostKeys, StartError> {
    given.map_or_else(|| HostKeys::open(&settings.state_directory).map_err(StartError::HostKeys), Ok)
}

/// Listeners that the settings ask for.
struct OpenListeners {
    http: Option<TcpListener>,
    sftp: Option<TcpListener>,
    metrics: Option<TcpListener>,
    /// For challenges of a certificate authority.
    challenges: Option<TcpListener>,
}

impl OpenListeners {
    async fn open(settings: &GatewaySettings, inherited: &InheritedListeners) -> Result<Self, StartError> {
        let challenge_address = settings.acme.as_ref().and_then(|acme| acme.http);
        Ok(Self {
            http: open_listener("http", settings.http, inherited.http()).await?,
            sftp: open_listener("sftp", settings.sftp, inherited.sftp()).await?,
            metrics: open_listener("metrics", settings.metrics, inherited.metrics()).await?,
            challenges: open_listener("acme_http", challenge_address, None).await?,
        })
    }
}

/// Opens the store and the served directory.
fn open_state(
    settings: &GatewaySettings,
    dependencies: &GatewayDependencies,
    notices: &NoticeService,
) -> Result<(Store, Authenticator, Tree), StartError> {
    let store = Store::open(&settings.state_directory)?;
    notices.record_receivers(&store);
    store.set_property_quota(settings.property_space);
    store.set_state_limits(settings.state_limits);
    if !store.restore_ballast()? {
        tracing::warn!("{}", store.disk_fault().map_or("", DiskFault::message));
    }
    if let Some(checkpoint) = store.clock_checkpoint()? {
        // Before the first login: by a jump since the last run no expiration may become final.
        dependencies.clock.restore(checkpoint);
    }
    let auth = Authenticator::new(store.clone(), dependencies.clock.clone())?;
    auth.set_defender_settings(settings.defender.clone());
    let options = tree::TreeOptions { root: settings.root.clone(), durability: settings.durability };
    let tree = Tree::open(options, store.clone(), dependencies.clock.clone())
        .map_err(|source| StartError::Tree { path: settings.root.clone(), source })?;
    tree.keep_interrupted_uploads(interrupted_upload_policy(settings));
    if let Some(limits) = settings.open_file_limits {
        tree.limit_open_files(limits);
    }
    // Only a root that could be opened is recorded, for the commands that run beside the server.
    store.set_served_root(&settings.root)?;
    Ok((store, auth, tree))
}

/// Returns the management of tokens, by the clock that the authenticator has.
fn token_service(store: &Store, auth: &Authenticator, tree: &Tree) -> TokenService {
    let tokens = TokenService::new(store.clone(), auth.clock().clone());
    tokens.with_tree(tree.clone()).with_authenticator(auth.clone())
}

/// Opens the record of operations, with counts by user and the access log where they are asked for.
fn open_recorder(settings: &GatewaySettings) -> Result<Arc<OperationRecorder>, StartError> {
    let mut recorder = OperationRecorder::default();
    if settings.metrics_per_user {
        recorder = recorder.with_user_counts();
    }
    if let Some(access_log) = settings.access_log.clone() {
        recorder = recorder.with_access_log(access_log).map_err(StartError::AccessLog)?;
    }
    Ok(Arc::new(recorder))
}

fn api(
    settings: &GatewaySettings,
    tokens: &TokenService,
    (tree, auth): (&Tree, &Authenticator),
    collector: MetricsCollector,
) -> Api {
    let metrics = Arc::new(move || collector.page());
    Api::with_metrics(tokens.clone(), tree.clone(), auth.clone(), settings.api_options, metrics)
}

/// Starts the tasks beside serving, which end once `stop` is cancelled.
fn spawn_background_tasks(
    background: &TaskTracker,
    store: Store,
    auth: Authenticator,
    (recorder, audit_forwarder): (Arc<OperationRecorder>, AuditForwarder),
    tree: &Tree,
    stop: &CancellationToken,
) {
    background.spawn(storage_recount_task::run_storage_recounts(tree.clone(), store.clone(), stop.clone()));
    let maintenance_stop = CancellationToken::new();
    background.spawn(maintenance_task::run_maintenance(
        store,
        auth.clone(),
        tree.clone(),
        recorder,
        audit_forwarder,
        maintenance_stop.clone(),
    ));
    background.spawn(mount_monitor::monitor_mounts(tree.clone(), stop.clone()));
    // Maintenance stops after the watcher, so that the events of its last flush reach the log.
    let maintenance_stop = maintenance_stop.drop_guard();
    let stop = stop.clone();
    background.spawn(async move {
        auth.watch(stop).await;
        drop(maintenance_stop);
    });
}

/// Starts the tasks that replace the certificate, which end once `stop` is cancelled.
fn spawn_certificate_tasks(
    background: &TaskTracker,
    settings: &GatewaySettings,
    reloader: &GatewayReloader,
    challenge_listener: Option<TcpListener>,
    stop: &CancellationToken,
) {
    if settings.tls.is_some() || settings.acme.is_some() {
        let interval = settings.certificate_poll_interval;
        background.spawn(certificate_watch::watch_certificate(reloader.clone(), interval, stop.clone()));
    }
    let Some(acme) = settings.acme.clone() else { return };
    if let Some(listener) = challenge_listener {
        let challenges = Arc::clone(&reloader.challenges);
        background.spawn(acme::serve_challenges(listener, challenges, acme.domains.clone(), stop.clone()));
    }
    let manager = AcmeManager::new(acme, settings.acme_certificate_file(), reloader.clone());
    background.spawn(manager.run(stop.clone()));
}

fn interrupted_upload_policy(settings: &GatewaySettings) -> tree::InterruptedUploadPolicy {
    tree::InterruptedUploadPolicy {
        keep_for: settings.sftp_options.upload_retention,
        space: settings.webdav_options.upload_space,
    }
}

/// Starts accept loops whose connections are tracked.
struct ListenerServer {
    listeners: TaskTracker,
    connections: TaskTracker,
    drain: DrainSignals,
}

impl ListenerServer {
    /// Serves the connections of a listener, each in a task of its own.
    fn spawn<F>(
        &self,
        listener: TcpListener,
        limiter: ConnectionLimiter,
        proxy_reader: ProxyProtocolReader,
        serve: impl Fn(AcceptedConnection, DrainSignals) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (connections, drain) = (self.connections.clone(), self.drain.clone());
        let serve_in_task = move |connection| {
            let (serve, proxy_reader, drain) = (serve.clone(), proxy_reader.clone(), drain.clone());
            // The PROXY header is read in the connection's task: a silent proxy must not stop the accept loop.
            connections.spawn(async move {
                if let Some(connection) = proxy_reader.read_header(connection, &drain.end).await {
                    serve(connection, drain).await;
                }
            });
        };
        self.listeners.spawn(net::accept(listener, limiter, self.drain.draining.clone(), serve_in_task));
    }
}

/// Returns the listener of a protocol: the one that was handed in, or a new one; `None` where the protocol is off.
async fn open_listener(
    name: &'static str,
    address: Option<SocketAddr>,
    inherited: Option<io::Result<TcpListener>>,
) -> Result<Option<TcpListener>, StartError> {
    match (address, inherited) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(StartError::UnusedListener { name }),
        (Some(_), Some(listener)) => {
            listener.map(Some).map_err(|source| StartError::InheritedListener { name, source })
        }
        (Some(address), None) => match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(listener)),
            Err(source) => Err(StartError::Listen { address, source }),
        },
    }
}

/// Refuses a served directory through which the state could be read, with symbolic links resolved.
fn check_disjoint(settings: &GatewaySettings) -> Result<(), StartError> {
    let real_path = |path: &PathBuf| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    if let (Ok(root), Ok(state)) = (real_path(&settings.root), real_path(&settings.state_directory))
        && (root.starts_with(&state) || state.starts_with(&root))
    {
        return Err(StartError::OverlappingDirectories { root, state });
    }
    Ok(())
}
