//! A check of the doctor and its result.

use serde::Serialize;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckStatus {
    Ok,
    Warning,
    Fail,
}

/// A check and its result.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct DoctorCheck {
    #[serde(rename = "what")]
    pub(super) name: &'static str,
    #[serde(rename = "verdict")]
    pub(super) status: CheckStatus,
    #[serde(rename = "text")]
    pub(super) detail: String,
}

/// Returns the result of a check, with what to do where it is not [`CheckStatus::Ok`].
pub(super) fn check(name: &'static str, status: CheckStatus, detail: impl Into<String>) -> DoctorCheck {
    DoctorCheck { name, status, detail: detail.into() }
}
