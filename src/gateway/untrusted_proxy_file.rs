//! The file in the state directory from which a diagnosis learns of a proxy that the running server, or the last one, does
//! not trust.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "untrusted-proxy";

/// Returns the address from which the server of a state directory got forwarded requests without trusting it.
pub fn recorded_untrusted_proxy(state: &Path) -> Option<IpAddr> {
    fs::read_to_string(state.join(FILE_NAME)).ok()?.trim().parse().ok()
}

/// Record of the untrusted proxy of this process.
pub(super) struct UntrustedProxyFile {
    path: PathBuf,
    is_written: bool,
}

impl UntrustedProxyFile {
    /// Removes what a former process has recorded: its settings were others.
    pub(super) fn new(state: &Path) -> Self {
        let path = state.join(FILE_NAME);
        // Usually there is none; one that can't be removed is replaced or stays, which harms no one.
        let _ = fs::remove_file(&path);
        Self { path, is_written: false }
    }

    /// Records the proxy, once.
    pub(super) fn record(&mut self, proxy: Option<IpAddr>) -> io::Result<()> {
        let Some(proxy) = proxy.filter(|_| !self.is_written) else { return Ok(()) };
        // Whatever comes of it: a full disk must not cause a write every second.
        self.is_written = true;
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&self.path)?;
        writeln!(file, "{proxy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_is_recorded_once_and_forgotten_at_the_next_start() {
        let state = tempfile::tempdir().expect("folder");
        let proxy = IpAddr::from([127, 0, 0, 1]);
        let mut file = UntrustedProxyFile::new(state.path());
        file.record(None).expect("nothing");
        assert_eq!(recorded_untrusted_proxy(state.path()), None);
        file.record(Some(proxy)).expect("written");
        file.record(Some(IpAddr::from([127, 0, 0, 2]))).expect("nothing");
        assert_eq!(recorded_untrusted_proxy(state.path()), Some(proxy));
        UntrustedProxyFile::new(state.path());
        assert_eq!(recorded_untrusted_proxy(state.path()), None);
    }
}
