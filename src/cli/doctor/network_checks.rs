//! Checks of what stands between clients and server: certificate and proxies.

use std::path::Path;
use std::time::SystemTime;

use super::check::{CheckStatus, DoctorCheck, check};
use crate::config::TlsFiles;
use crate::net;

/// Days before its end below which a certificate is warned of.
const EXPIRY_WARNING_DAYS: u64 = 14;

pub(super) fn check_certificate(files: &TlsFiles) -> DoctorCheck {
    let problem = net::server_config(&files.certificate, &files.key, &[]);
    let display_path = files.certificate.display();
    match problem.and_then(|_| net::check_certificate(&files.certificate)) {
        Ok(None) => {
            let (status, expiry) = describe_expiry(&files.certificate);
            check("certificate", status, format!("{display_path} and its key can be used{expiry}"))
        }
        Ok(Some(problem)) => {
            let detail = format!("{display_path}: {problem}: clients refuse it; set tls_cert to another one");
            check("certificate", CheckStatus::Fail, detail)
        }
        Err(error) => check("certificate", CheckStatus::Fail, error.to_string()),
    }
}

/// Describes for how long a certificate is valid.
fn describe_expiry(certificate: &Path) -> (CheckStatus, String) {
    let Ok(Some(validity)) = net::certificate_validity(certificate) else { return (CheckStatus::Ok, String::new()) };
    let days = validity.days_left(SystemTime::now());
    let status = if days < EXPIRY_WARNING_DAYS { CheckStatus::Warning } else { CheckStatus::Ok };
    (status, format!(", for {days} more days"))
}

pub(super) fn check_acme_certificate(state: &Path) -> DoctorCheck {
    let file = state.join("acme/certificate.pem");
    if !file.exists() {
        let detail = "the certificate authority has issued none yet: the log of the server says why";
        return check("certificate", CheckStatus::Warning, detail);
    }
    check_certificate(&TlsFiles { certificate: file.clone(), key: file })
}
