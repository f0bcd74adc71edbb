//! Why notices can't be sent: of settings that can't be used at the start, and of one attempt.

use std::path::PathBuf;

use crate::domain::notice_text;

/// Reason why notices can't be sent with these settings.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// A file that can't be read.
    #[error("{setting}: {path} can't be read: {source}", path = path.display())]
    File {
        /// Name of the setting.
        setting: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// A file with a secret that other users may read.
    #[error("other users may read {path}: chmod 600 it", path = .0.display())]
    ReadableByOthers(PathBuf),
    /// No secret is given.
    #[error("{setting} is missing: name a file, or set {variable} in the environment")]
    MissingSecret {
        /// Name of the setting.
        setting: &'static str,
        /// Name of the variable.
        variable: &'static str,
    },
    /// A setting whose value can't be used.
    #[error("{setting}: {reason}")]
    Invalid {
        /// Name of the setting.
        setting: &'static str,
        /// Reason, and what can be given instead.
        reason: String,
    },
}

impl NoticeError {
    pub(super) fn invalid(setting: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { setting, reason: reason.to_string() }
    }
}

/// Failure of one attempt to deliver a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliveryFailure {
    /// Reason, as one short line.
    pub(super) reason: String,
    /// Whether a further attempt would fail likewise.
    pub(super) is_final: bool,
}

impl DeliveryFailure {
    pub(super) fn temporary(reason: impl ToString) -> Self {
        Self { reason: notice_text(&reason.to_string()), is_final: false }
    }

    pub(super) fn permanent(reason: impl ToString) -> Self {
        Self { is_final: true, ..Self::temporary(reason) }
    }

    /// Returns the failure with the innermost cause of an error, which says more than the error itself.
    pub(super) fn with_cause(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let cause = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
        Self::temporary(format!("{what}: {cause}"))
    }
}
