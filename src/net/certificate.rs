//! What a certificate says of its time, and whether the files that hold it have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Time for which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateValidity {
    /// Moment from which it is valid.
    pub not_before: SystemTime,
    /// Moment at which it expires.
    pub not_after: SystemTime,
}

impl CertificateValidity {
    /// Reads the validity of a certificate; `None` where it is damaged.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed: Certificate = Certificate::from_der(certificate).ok()?;
        let validity = parsed.tbs_certificate().validity();
        Some(Self { not_before: validity.not_before.to_system_time(), not_after: validity.not_after.to_system_time() })
    }

    /// Returns the time for which it is valid in all.
    pub fn lifetime(self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// Returns the whole days that are left at a moment; 0 also after it has expired.
    pub fn days_left(self, now: SystemTime) -> u64 {
        self.not_after.duration_since(now).unwrap_or_default().as_secs() / 86_400
    }
}

/// State of a file by which a change is noticed, also where it is replaced by another of the same age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp(Option<(u64, u64, u64, i64, i64)>);

impl FileStamp {
    /// Returns the present state of a file, links followed.
    pub fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|file| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())))
    }
}
