//! Checks of the state directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::super::error::BROKEN_HOST_KEY_HINT;
use super::check::{CheckStatus, DoctorCheck, check};
use crate::auth::SecretHasher;
use crate::sftp::HostKeys;
use crate::store::{DiskFault, Store, StoreError};

pub(super) fn check_state_directory(state: &Path) -> DoctorCheck {
    let display_path = state.display();
    let name = "state directory";
    match fs::metadata(state) {
        Err(error) => check(
            name,
            CheckStatus::Warning,
            format!("{display_path}: {error}; the first start of the server creates it"),
        ),
        Ok(metadata) if !metadata.is_dir() => {
            check(name, CheckStatus::Fail, format!("{display_path} is not a directory"))
        }
        Ok(metadata) => {
            let (mode, owner_uid, euid) =
                (metadata.permissions().mode() & 0o777, metadata.uid(), rustix::process::geteuid().as_raw());
            if owner_uid != euid {
                let detail =
                    format!("{display_path} belongs to the user id {owner_uid}: run the server and this as that user");
                check(name, CheckStatus::Fail, detail)
            } else if mode & 0o077 != 0 {
                check(name, CheckStatus::Fail, format!("{display_path} has mode {mode:03o}: chmod 700 it"))
            } else {
                check(name, CheckStatus::Ok, format!("{display_path} is accessible to its owner only"))
            }
        }
    }
}

pub(super) fn check_database(store: Option<&crate::store::Result<Store>>) -> DoctorCheck {
    match store {
        None => check("database", CheckStatus::Warning, "there is none yet; the first start of the server creates it"),
        Some(Ok(store)) => match store.users(None, 1) {
            Ok(users) if users.is_empty() => check(
                "database",
                CheckStatus::Warning,
                "it opens and holds no user yet: patgate admin user create LOGIN",
            ),
            Ok(_) => check("database", CheckStatus::Ok, "it opens and is intact"),
            Err(error) => check("database", CheckStatus::Fail, error.to_string()),
        },
        Some(Err(error @ StoreError::SchemaTooOld { .. })) => {
            check("database", CheckStatus::Warning, error.to_string())
        }
        Some(Err(error)) => check("database", CheckStatus::Fail, error.to_string()),
    }
}

pub(super) fn check_pepper(store: &Store) -> DoctorCheck {
    match SecretHasher::open(store) {
        Ok(_) => check("pepper", CheckStatus::Ok, "it exists; keep it in backups together with the database"),
        Err(error) => check("pepper", CheckStatus::Fail, error.to_string()),
    }
}

pub(super) fn check_state_disk(store: &Store) -> DoctorCheck {
    let name = "state disk";
    match store.disk_fault() {
        None => check(
            name,
            CheckStatus::Ok,
            "it has free space, and a reserve that keeps revocations possible when it is full",
        ),
        // `admin user create` before the first start makes a state without the reserve, which is no reason to worry.
        Some(DiskFault::BallastMissing) if !store.has_been_served().unwrap_or(true) => {
            check(name, CheckStatus::Warning, "the first start of the server creates the reserve for a full disk")
        }
        Some(problem @ DiskFault::BallastMissing) => check(name, CheckStatus::Warning, problem.message()),
        Some(problem) => check(name, CheckStatus::Fail, problem.message()),
    }
}

pub(super) fn check_host_keys(state: &Path) -> DoctorCheck {
    let name = "SSH host keys";
    match HostKeys::open_existing(state) {
        Ok(Some(_)) => {
            check(name, CheckStatus::Ok, "they exist; keep them in backups, clients identify the server by them")
        }
        Ok(None) => check(name, CheckStatus::Warning, "some are missing; the next start of the server creates them"),
        Err(error) => check(name, CheckStatus::Fail, format!("{error}; {BROKEN_HOST_KEY_HINT}")),
    }
}

/// Looks for secrets whose own modes let other users read them, should the state directory be opened to them.
pub(super) fn check_secret_modes(state: &Path) -> Option<DoctorCheck> {
    let mut names = files_readable_by_others(state, "", |name| {
        name == "pepper" || name.starts_with("ssh_host_") || name.starts_with("patgate.db")
    });
    names.extend(files_readable_by_others(&state.join("acme"), "acme/", |_| true));
    names.sort();
    let detail = format!("other users may read {}: chmod 600 them", names.join(", "));
    (!names.is_empty()).then(|| check("secrets", CheckStatus::Fail, detail))
}

/// Returns the names, with a prefix, of those files of a directory that other users may read.
fn files_readable_by_others(directory: &Path, prefix: &str, is_secret: impl Fn(&str) -> bool) -> Vec<String> {
    let readable = |entry: fs::DirEntry| {
        let (name, metadata) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?);
        (metadata.is_file() && metadata.mode() & 0o077 != 0 && is_secret(&name)).then(|| format!("{prefix}{name}"))
    };
    fs::read_dir(directory).into_iter().flatten().flatten().filter_map(readable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_open_to_others_fails() {
        let folder = tempfile::tempdir().expect("folder");
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("mode");
        set(0o755);
        assert_eq!(check_state_directory(folder.path()).status, CheckStatus::Fail);
        set(0o700);
        assert_eq!(check_state_directory(folder.path()).status, CheckStatus::Ok);
        assert_eq!(check_state_directory(&folder.path().join("none")).status, CheckStatus::Warning);
    }
}
