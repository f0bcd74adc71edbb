//! Tests of the view, by theme: permissions, limits, links, uploads, moves, ETags, sync journals and crashes. Each
//! child module says what it covers.

mod access;
mod access_model;
mod cached;
mod durability;
mod enforcement;
mod etags;
mod killed;
mod limits;
mod link_races;
mod links;
mod listings;
mod moves;
mod storage_quotas;
mod sync;
mod uploads;
mod whole_uploads;
mod without_waiting;

use std::fs;
use std::path::PathBuf;

use super::{View, WriteConditions};
use crate::tree::testing::{TreeFixture, tree_path};
use crate::tree::{Error, Result};

pub(super) const NO_CONDITIONS: WriteConditions<'static> = WriteConditions { lock_tokens: &[], evaluate: &|| Ok(()) };

/// Writes a file behind the gateway's back.
fn write_outside_gateway(fixture: &TreeFixture, path: &str, content: &str) {
    fs::write(host_path(fixture, path), content).expect(path);
}

/// Reads a file behind the gateway's back.
fn read_outside_gateway(fixture: &TreeFixture, path: &str) -> String {
    fs::read_to_string(host_path(fixture, path)).expect(path)
}

fn host_path(fixture: &TreeFixture, path: &str) -> PathBuf {
    fixture.root_path.join(path.trim_start_matches('/'))
}

/// Uploads a file through the gateway.
fn put(view: &View, path: &str, content: &str) -> Result<()> {
    let upload = view.stage(&tree_path(path), Some(content.len() as u64), &NO_CONDITIONS)?;
    upload.write_at(content.as_bytes(), 0)?;
    upload.commit(&NO_CONDITIONS).map(drop)
}

/// Reads a file through the gateway.
fn get(view: &View, path: &str) -> Result<String> {
    let reader = view.read(&tree_path(path))?;
    let mut buffer = vec![0; 1 << 16];
    let count = reader.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn list_names(view: &View, path: &str) -> Result<Vec<String>> {
    let listing = view.list(&tree_path(path), true)?;
    let mut names = listing
        .map(|entry| entry.map(|entry| String::from_utf8_lossy(&entry.name).into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Returns a short name of an outcome, for tables.
fn outcome_name<T>(outcome: Result<T>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(Error::Absent) => "absent",
        Err(Error::NoParent) => "no parent",
        Err(Error::Forbidden) => "forbidden",
        Err(Error::RefusedByHost(_)) => "refused by host",
        Err(Error::AlreadyExists) => "exists",
        Err(Error::NotADirectory) => "not directory",
        Err(Error::IsADirectory) => "is directory",
        Err(Error::DirectoryNotEmpty) => "not empty",
        Err(Error::Overlap) => "overlap",
        Err(Error::Locked { .. }) => "locked",
        Err(Error::PreconditionFailed) => "precondition",
        Err(Error::TooLarge(_)) => "too large",
        Err(Error::TypeNotAllowed(_)) => "wrong type",
        Err(Error::TagNotAllowed(_)) => "wrong tag",
        Err(Error::WriteFailed) => "write failed",
        Err(Error::Replaced) => "replaced",
        Err(Error::Superseded) => "superseded",
        Err(Error::UploadInProgress) => "upload under way",
        Err(Error::WrongOpenMode) => "wrong mode",
        Err(Error::TooManyOpenFiles) => "too many open files",
        Err(Error::StorageQuotaExceeded { .. }) => "quota exceeded",
        Err(Error::NoSpace) => "no space",
        Err(Error::InvalidName) => "bad name",
        Err(Error::PathTooLong) => "path too long",
        Err(Error::Unsupported) => "unsupported",
        Err(Error::SessionEnded(_)) => "ended",
        Err(Error::Unavailable(_)) => "unavailable",
        Err(Error::TreeMismatch) => "other tree",
        Err(Error::Filesystem(_)) => "host",
        Err(Error::Store(_)) => "store",
    }
}

/// Checks that staging is empty.
fn assert_staging_empty(fixture: &TreeFixture) {
    fixture.tree.wait_for_background_deletes();
    let left = staged_entries(fixture);
    assert!(left.is_empty(), "{left:?}");
}

/// Returns the entries in staging but the tree marker.
fn staged_entries(fixture: &TreeFixture) -> Vec<fs::DirEntry> {
    let Ok(staging) = fs::read_dir(host_path(fixture, ".patgate")) else { return Vec::new() };
    staging.map(|entry| entry.expect("entry")).filter(|entry| entry.file_name() != "tree.id").collect()
}
