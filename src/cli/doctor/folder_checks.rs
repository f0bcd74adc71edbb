//! Checks of the served folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::error::OTHER_TREE_HINT;
use super::access_checks::check_access;
use super::check::{CheckStatus, DoctorCheck, check};
use super::file_system_checks::check_served_file_system;
use crate::config::LocalConfig;
use crate::domain::UnixMillis;
use crate::store::Store;
use crate::tree::{self, Tree};

pub(super) fn check_served_directory(store: Option<&Store>, local: &LocalConfig, now: UnixMillis) -> Vec<DoctorCheck> {
    // As for `node` and `admin`: the directory of the last `serve` comes before the configured one.
    let stored = store.and_then(|store| store.served_root().ok().flatten());
    let Some(root) = stored.or_else(|| local.root.clone()) else {
        return vec![check("served folder", CheckStatus::Warning, "none yet: patgate serve --root DIR sets it")];
    };
    let display_path = root.display();
    match fs::metadata(&root) {
        Err(error) => vec![check("served folder", CheckStatus::Fail, format!("{display_path}: {error}"))],
        Ok(metadata) if !metadata.is_dir() => {
            vec![check("served folder", CheckStatus::Fail, format!("{display_path} is not a directory"))]
        }
        Ok(metadata) => {
            let mut checks = vec![check_root_access(&root), check_birth_times(&metadata)];
            checks.extend(check_served_file_system(&root));
            if let Some(store) = store {
                let marker = check_tree_marker(&root, store);
                // In another folder nothing is where grants say, which is one problem and not many.
                let is_known = marker.as_ref().is_some_and(|marker| marker.status == CheckStatus::Ok);
                checks.extend(marker);
                checks.extend(is_known.then(|| check_access(&root, store, now)).into_iter().flatten());
            }
            checks.extend(check_staging(&root));
            checks.extend(Tree::supports_flock(&root).map(report_locks));
            checks
        }
    }
}

fn check_root_access(root: &PathBuf) -> DoctorCheck {
    use rustix::fs::Access;
    let display_path = root.display();
    let can_access = |access| rustix::fs::access(root, access).is_ok();
    if !can_access(Access::READ_OK | Access::EXEC_OK) {
        return check("served folder", CheckStatus::Fail, format!("this user can't read {display_path}"));
    }
    if !can_access(Access::WRITE_OK) {
        return check(
            "served folder",
            CheckStatus::Warning,
            format!("this user can't write to {display_path}: uploads fail"),
        );
    }
    check("served folder", CheckStatus::Ok, format!("this user can read and write {display_path}"))
}

/// Checks whether the served directory is the one that grants and scopes were created for.
fn check_tree_marker(root: &Path, store: &Store) -> Option<DoctorCheck> {
    let name = "tree";
    match Tree::verify_root(root, store) {
        Ok(()) => Some(check(name, CheckStatus::Ok, "it is the folder that grants and scopes were created for")),
        Err(error @ tree::Error::TreeMismatch) => {
            Some(check(name, CheckStatus::Fail, format!("{error}; {OTHER_TREE_HINT}")))
        }
        // Other checks of the served directory report this.
        Err(_) => None,
    }
}

fn check_staging(root: &Path) -> Option<DoctorCheck> {
    let problem = Tree::reserved_directory_fault(root)?;
    Some(check("staging", CheckStatus::Fail, format!("{} {problem}", root.join(".patgate").display())))
}

fn report_locks(supported: bool) -> DoctorCheck {
    match supported {
        true => {
            check("locks", CheckStatus::Ok, "they work on the file system: a second server on the folder is refused")
        }
        false => check(
            "locks",
            CheckStatus::Warning,
            "they don't work on the file system: a second server on the folder is not detected, so don't start one; \
             files of a killed server stay in .patgate",
        ),
    }
}

fn check_birth_times(root: &fs::Metadata) -> DoctorCheck {
    match root.created() {
        Ok(_) => check(
            "birth times",
            CheckStatus::Ok,
            "the file system records them: a directory that was replaced behind patgate's back is detected",
        ),
        Err(_) => check(
            "birth times",
            CheckStatus::Warning,
            "the file system records none: directories are identified by inode and path, so one that was replaced \
             behind patgate's back may not be detected",
        ),
    }
}
