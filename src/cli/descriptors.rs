//! How many files and sockets the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Doors;

/// What an SFTP connection takes: its socket, and the thread that serves it.
const SFTP: usize = 5;
/// What an HTTP connection takes: its socket, and a file.
const HTTP: usize = 2;
/// What there is besides: the store, listeners, staging, files of SFTP sessions.
const BESIDES: usize = 1024;

/// Raises the limit on open files to what the system allows, and returns it; `None` where there is no limit.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files can't be raised");
            current
        }
    }
}

/// Returns the limit that a server started here would have; `None` where there is none.
pub(super) fn allowed() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Returns how many a server takes when as many connections are open as may be.
pub(super) fn wanted(doors: &Doors) -> u64 {
    let http = doors.http.map_or(0, |_| doors.http_connections.saturating_mul(HTTP));
    let sftp = doors.sftp.map_or(0, |_| doors.sftp_connections.saturating_mul(SFTP));
    u64::try_from(http.saturating_add(sftp).saturating_add(BESIDES)).unwrap_or(u64::MAX)
}

/// Says what is wrong with a limit that is too low for a configuration.
pub(super) fn shortage(limit: Option<u64>, doors: &Doors) -> Option<String> {
    let (limit, wanted) = (limit?, wanted(doors));
    (limit < wanted).then(|| {
        format!(
            "{limit} files may be open, and {wanted} would be with as many connections as are configured: \
             raise the limit (LimitNOFILE of a service) or lower http_connections and sftp_connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_the_connections_take_is_a_shortage() {
        let mut doors = Doors {
            http: Some(([127, 0, 0, 1], 1).into()),
            tls: None,
            sftp: Some(([127, 0, 0, 1], 2).into()),
            http_connections: 100,
            sftp_connections: 1000,
        };
        assert_eq!(wanted(&doors), 200 + 5000 + 1024);
        assert_eq!(shortage(Some(6224), &doors), None);
        assert!(shortage(Some(6223), &doors).is_some_and(|text| text.contains("6224")));
        assert_eq!(shortage(None, &doors), None);
        doors.sftp = None;
        assert_eq!(shortage(Some(6223), &doors), None);
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let raised = raise();
        assert_eq!(raised, getrlimit(Resource::Nofile).current);
        assert_eq!(raised, allowed());
    }
}
