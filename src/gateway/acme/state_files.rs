//! Files of ACME in the state directory, for its owner alone: account, certificate with key, and when to order next.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::schedule::AcmeStatus;

/// Directory of the files.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct AcmeStateFiles {
    directory: PathBuf,
    certificate: PathBuf,
}

impl AcmeStateFiles {
    /// Returns the files beside that of the certificate.
    pub(super) fn new(certificate: PathBuf) -> Self {
        let directory = certificate.parent().map(Path::to_owned).unwrap_or_default();
        Self { directory, certificate }
    }

    /// Returns the account at an authority, as it was written; `None` where there is none.
    pub(super) fn read_account(&self, authority: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.account_path(authority)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_account(&self, authority: &str, text: &str) -> io::Result<()> {
        self.replace(&self.account_path(authority), text)
    }

    pub(super) fn write_certificate(&self, pem: &str) -> io::Result<()> {
        self.replace(&self.certificate, pem)
    }

    /// Returns the state of the orders; that of a new start where it can't be read.
    pub(super) fn read_status(&self) -> AcmeStatus {
        let text = fs::read_to_string(self.status_path()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(super) fn write_status(&self, status: &AcmeStatus) -> io::Result<()> {
        self.replace(&self.status_path(), &serde_json::to_string(status)?)
    }

    /// One for each authority: an account of one is unknown to another.
    fn account_path(&self, authority: &str) -> PathBuf {
        let name: String = authority.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.directory.join(format!("account-{name}.json"))
    }

    fn status_path(&self) -> PathBuf {
        self.directory.join("status.json")
    }

    /// Replaces a file as a whole, on disk.
    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let new = path.with_extension("new");
        // One that a kill has left could have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_replaced_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = AcmeStateFiles::new(folder.path().join("acme/certificate.pem"));
        assert!(files.read_account("https://ca.example/").expect("none").is_none());
        for text in ["first", "second"] {
            files.write_account("https://ca.example/", text).expect("written");
            assert_eq!(files.read_account("https://ca.example/").expect("read").as_deref(), Some(text));
        }
        assert!(files.read_account("https://other.example/").expect("none").is_none());
        files.write_certificate("pem").expect("written");
        files.write_status(&AcmeStatus::default()).expect("written");
        for entry in fs::read_dir(folder.path().join("acme")).expect("a folder") {
            let entry = entry.expect("an entry");
            assert_eq!(entry.metadata().expect("read").permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        }
    }
}
