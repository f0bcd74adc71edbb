//! Where secrets come from: a file of their owner alone, or the environment. Never the command line, which other users see.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::error::NoticeError;

/// Maximum size of a file with a secret.
const MAX_SECRET_FILE_BYTES: u64 = 4096;

/// Place of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeSecret {
    /// Name of the setting with the file, for messages.
    pub setting: &'static str,
    /// File with the secret; where there is none, the environment has it.
    pub file: Option<PathBuf>,
    /// Name of the environment variable.
    pub variable: &'static str,
}

impl NoticeSecret {
    /// Returns the place of the secret with which webhooks are signed.
    pub fn of_webhooks(file: Option<PathBuf>) -> Self {
        Self { setting: "webhook_secret_file", file, variable: "PATGATE_WEBHOOK_SECRET" }
    }

    /// Returns the place of the password of the mail server.
    pub fn of_mail(file: Option<PathBuf>) -> Self {
        Self { setting: "smtp_password_file", file, variable: "PATGATE_SMTP_PASSWORD" }
    }

    /// Reads the secret, without white space around it.
    pub(super) fn load(&self) -> Result<Zeroizing<String>, NoticeError> {
        let missing = || NoticeError::MissingSecret { setting: self.setting, variable: self.variable };
        let text = match &self.file {
            Some(path) => self.read_file(path)?,
            None => Zeroizing::new(std::env::var(self.variable).map_err(|_| missing())?),
        };
        match text.trim() {
            "" => Err(missing()),
            secret => Ok(Zeroizing::new(secret.to_owned())),
        }
    }

    fn read_file(&self, path: &PathBuf) -> Result<Zeroizing<String>, NoticeError> {
        let unreadable = |source| NoticeError::File { setting: self.setting, path: path.clone(), source };
        let file = File::open(path).map_err(unreadable)?;
        // Of the open file: nobody can put another one in its place after the check.
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(NoticeError::ReadableByOthers(path.clone()));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_SECRET_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_file_is_of_its_owner_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "  hidden\n").expect("written");
        let secret = NoticeSecret::of_mail(Some(path.clone()));
        for mode in [0o604, 0o640, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
            assert!(matches!(secret.load(), Err(NoticeError::ReadableByOthers(_))), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        assert_eq!(*secret.load().expect("read"), "hidden");
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(secret.load(), Err(NoticeError::MissingSecret { .. })));
        assert!(matches!(NoticeSecret::of_mail(None).load(), Err(NoticeError::MissingSecret { .. })));
    }
}
