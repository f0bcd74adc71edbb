//! The limit on open files (`RLIMIT_NOFILE`), and how it is divided.
//!
//! Of the limit, [`RESERVED_DESCRIPTORS`] descriptors are for the process itself: listeners, store, staging, accepting
//! a connection, and reading revocations. At most half of the rest is for connections: fewer are accepted than
//! configured if those would need more. The remainder is for open files and directories of the tree, of which one user
//! may have a quarter, over all connections and both protocols.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::ListenConfig;
use crate::domain::UserQuotaLimits;
use crate::gateway::GatewaySettings;
use crate::net::ConnectionLimits;

/// Descriptors of an SFTP connection: its socket, and the thread that serves it.
const DESCRIPTORS_PER_SFTP_CONNECTION: usize = 5;
/// Descriptors of an HTTP connection: its socket, and a file.
const DESCRIPTORS_PER_HTTP_CONNECTION: usize = 2;
/// Descriptors of everything else: store, listeners, staging, files of SFTP sessions.
const BASE_DESCRIPTORS: usize = 1024;

/// Descriptors that clients can't use up; an idle server has about 60 open.
const RESERVED_DESCRIPTORS: u64 = 192;
/// Maximum number of descriptors of an open file or directory of the tree: of a staged upload, its own and that of its
/// directory; and of a request on it, those by which its path is resolved.
const DESCRIPTORS_PER_OPEN_FILE: u64 = 4;

/// The division of the limit on open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorBudget {
    http_connections: usize,
    sftp_connections: usize,
    open_files: UserQuotaLimits,
}

impl DescriptorBudget {
    /// Lowers the limits of a gateway to the budget.
    pub(super) fn limit_settings(self, settings: &mut GatewaySettings) {
        let lower = |limits: &mut ConnectionLimits, connections: usize| {
            if connections < limits.connections {
                // No single user, and no unauthenticated clients, may take more than half of a lowered limit.
                let half = (connections / 2).max(1);
                limits.connections = connections;
                limits.per_user = limits.per_user.min(half);
                limits.unauthenticated = limits.unauthenticated.min(half);
                limits.unauthenticated_per_address = limits.unauthenticated_per_address.min(half);
            }
        };
        lower(&mut settings.http_connection_limits, self.http_connections);
        lower(&mut settings.sftp_connection_limits, self.sftp_connections);
        let per_user = &mut settings.sftp_options.max_connections_per_user;
        *per_user = (*per_user).min(settings.sftp_connection_limits.per_user);
        settings.open_file_limits = Some(self.open_files);
    }
}

/// Divides a limit on open files.
pub(super) fn descriptor_budget(limit: u64, listen_config: &ListenConfig) -> DescriptorBudget {
    let usable = limit.saturating_sub(RESERVED_DESCRIPTORS);
    let (http, sftp) = connection_descriptors(listen_config);
    let configured = to_u64(http.saturating_add(sftp));
    let connection_share = configured.min(usable / 2);
    let scaled = |descriptors: usize, each: usize| {
        // In 128 bits: the product of two configured numbers may overflow 64.
        let share = u128::from(to_u64(descriptors)) * u128::from(connection_share) / u128::from(configured.max(1));
        (usize::try_from(share).unwrap_or(usize::MAX) / each).max(1)
    };
    let total_files = ((usable - connection_share) / DESCRIPTORS_PER_OPEN_FILE).max(4);
    DescriptorBudget {
        http_connections: scaled(http, DESCRIPTORS_PER_HTTP_CONNECTION),
        sftp_connections: scaled(sftp, DESCRIPTORS_PER_SFTP_CONNECTION),
        open_files: UserQuotaLimits { per_user: total_files / 4, total: total_files },
    }
}

/// As [`descriptor_budget`], for the listeners of a gateway.
pub(super) fn descriptor_budget_of_settings(limit: u64, settings: &GatewaySettings) -> DescriptorBudget {
    let listen_config = ListenConfig {
        http: settings.http,
        tls: None,
        acme: false,
        trusted_proxies: Vec::new(),
        public_url: None,
        sftp: settings.sftp,
        http_connections: settings.http_connection_limits.connections,
        sftp_connections: settings.sftp_connection_limits.connections,
    };
    descriptor_budget(limit, &listen_config)
}

/// Returns the descriptors that the configured maximum of connections takes, of HTTP and of SFTP.
fn connection_descriptors(listen_config: &ListenConfig) -> (usize, usize) {
    let http = listen_config
        .http
        .map_or(0, |_| listen_config.http_connections.saturating_mul(DESCRIPTORS_PER_HTTP_CONNECTION));
    let sftp = listen_config
        .sftp
        .map_or(0, |_| listen_config.sftp_connections.saturating_mul(DESCRIPTORS_PER_SFTP_CONNECTION));
    (http, sftp)
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Raises the soft limit on open files to the hard limit, and returns it; `None` if there is none.
pub(super) fn raise_open_file_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        // Not fatal: the budget divides whatever limit there is.
        Err(error) => {
            tracing::warn!(%error, "the limit on open files can't be raised");
            current
        }
    }
}

/// Returns the limit that a server started from here would have; `None` if there is none.
pub(super) fn hard_open_file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Returns the descriptors that a server takes with the configured maximum of connections.
pub(super) fn required_descriptors(listen_config: &ListenConfig) -> u64 {
    let (http, sftp) = connection_descriptors(listen_config);
    to_u64(http.saturating_add(sftp).saturating_add(BASE_DESCRIPTORS))
}

/// Returns a warning about a limit that is too low for a configuration.
pub(super) fn limit_warning(limit: Option<u64>, listen_config: &ListenConfig) -> Option<String> {
    let (limit, required) = (limit?, required_descriptors(listen_config));
    (limit < required).then(|| {
        format!(
            "the limit on open files is {limit}, and the configured connections need {required}: \
             raise the limit (LimitNOFILE of a service) or lower http_connections and sftp_connections; \
             until then fewer connections are accepted if they would take more than half of the limit"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_limit_below_connection_limits_is_reported() {
        let mut listen_config = ListenConfig {
            http: Some(([127, 0, 0, 1], 1).into()),
            tls: None,
            acme: false,
            trusted_proxies: Vec::new(),
            public_url: None,
            sftp: Some(([127, 0, 0, 1], 2).into()),
            http_connections: 100,
            sftp_connections: 1000,
        };
        assert_eq!(required_descriptors(&listen_config), 200 + 5000 + 1024);
        assert_eq!(limit_warning(Some(6224), &listen_config), None);
        assert!(limit_warning(Some(6223), &listen_config).is_some_and(|text| text.contains("6224")));
        assert_eq!(limit_warning(None, &listen_config), None);
        listen_config.sftp = None;
        assert_eq!(limit_warning(Some(6223), &listen_config), None);
    }

    #[test]
    fn descriptor_budget_excludes_reserved_descriptors() {
        let listen_config = |connections: usize| ListenConfig {
            http: Some(([127, 0, 0, 1], 1).into()),
            tls: None,
            acme: false,
            trusted_proxies: Vec::new(),
            public_url: None,
            sftp: Some(([127, 0, 0, 1], 2).into()),
            http_connections: connections,
            sftp_connections: connections,
        };
        for (limit, connections) in [(256, 1024), (512, 1024), (1024, 1024), (8192, 1024), (1 << 30, 1024), (512, 4)] {
            let budget = descriptor_budget(limit, &listen_config(connections));
            let DescriptorBudget { http_connections, sftp_connections, open_files } = budget;
            assert!(http_connections.max(sftp_connections) <= connections, "{limit}: {budget:?}");
            let taken = to_u64(
                http_connections * DESCRIPTORS_PER_HTTP_CONNECTION + sftp_connections * DESCRIPTORS_PER_SFTP_CONNECTION,
            ) + open_files.total * DESCRIPTORS_PER_OPEN_FILE;
            assert!(taken + RESERVED_DESCRIPTORS <= limit, "{limit}: {budget:?}");
            assert!(open_files.per_user > 0 && open_files.per_user * 4 <= open_files.total, "{limit}: {budget:?}");
        }
        assert_eq!(descriptor_budget(1 << 20, &listen_config(1024)).http_connections, 1024);
        let budget = descriptor_budget(512, &listen_config(1024));
        let mut settings = GatewaySettings::new("/files", "/state");
        budget.limit_settings(&mut settings);
        assert_eq!(settings.open_file_limits, Some(budget.open_files));
        assert_eq!(settings.http_connection_limits.connections, budget.http_connections);
        assert!(settings.sftp_options.max_connections_per_user * 2 <= settings.sftp_connection_limits.connections);
    }

    #[test]
    fn descriptor_limit_is_raised_to_hard_limit() {
        let raised = raise_open_file_limit();
        assert_eq!(raised, getrlimit(Resource::Nofile).current);
        assert_eq!(raised, hard_open_file_limit());
    }
}
