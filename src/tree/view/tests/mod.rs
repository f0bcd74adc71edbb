//! What the one check, staging and moving promise.

mod access;
mod cached;
mod durability;
mod etags;
mod judged;
mod killed;
mod limits;
mod links;
mod model;
mod moves;
mod sync;
mod uploads;

use std::fs;
use std::path::PathBuf;

use super::{Claim, View};
use crate::tree::testing::{House, at};
use crate::tree::{Error, Result};

pub(super) const NONE: Claim<'static> = Claim { tokens: &[], judge: &|| Ok(()) };

/// Writes a file behind the gateway's back.
fn write(house: &House, path: &str, content: &str) {
    fs::write(host(house, path), content).expect(path);
}

/// Reads a file behind the gateway's back.
fn content(house: &House, path: &str) -> String {
    fs::read_to_string(host(house, path)).expect(path)
}

fn host(house: &House, path: &str) -> PathBuf {
    house.root.join(path.trim_start_matches('/'))
}

/// Puts a file through the gateway.
fn put(view: &View, path: &str, content: &str) -> Result<()> {
    let upload = view.stage(&at(path), Some(content.len() as u64), &NONE)?;
    upload.write_at(content.as_bytes(), 0)?;
    upload.commit(&NONE).map(drop)
}

/// Gets a file through the gateway.
fn get(view: &View, path: &str) -> Result<String> {
    let reader = view.read(&at(path))?;
    let mut buffer = vec![0; 1 << 16];
    let count = reader.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn names(view: &View, path: &str) -> Result<Vec<String>> {
    let listing = view.list(&at(path), true)?;
    let mut names = listing
        .map(|entry| entry.map(|entry| String::from_utf8_lossy(&entry.name).into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Returns the name of an outcome, for tables.
fn said<T>(outcome: Result<T>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(Error::Absent) => "absent",
        Err(Error::NoParent) => "no parent",
        Err(Error::Forbidden) => "forbidden",
        Err(Error::Exists) => "exists",
        Err(Error::NotFolder) => "not folder",
        Err(Error::IsFolder) => "is folder",
        Err(Error::NotEmpty) => "not empty",
        Err(Error::Overlap) => "overlap",
        Err(Error::Locked { .. }) => "locked",
        Err(Error::Precondition) => "precondition",
        Err(Error::TooLarge(_)) => "too large",
        Err(Error::WrongType(_)) => "wrong type",
        Err(Error::WrongTag(_)) => "wrong tag",
        Err(Error::Spoilt) => "spoilt",
        Err(Error::Replaced) => "replaced",
        Err(Error::Superseded) => "superseded",
        Err(Error::UploadUnderWay) => "upload under way",
        Err(Error::WrongMode) => "wrong mode",
        Err(Error::TooManyOpenFiles) => "too many open files",
        Err(Error::NoSpace) => "no space",
        Err(Error::BadName) => "bad name",
        Err(Error::PathTooLong) => "path too long",
        Err(Error::Unsupported) => "unsupported",
        Err(Error::Ended(_)) => "ended",
        Err(Error::Unavailable(_)) => "unavailable",
        Err(Error::OtherTree) => "other tree",
        Err(Error::Host(_)) => "host",
        Err(Error::Store(_)) => "store",
    }
}

/// Tells that nothing waits in staging.
fn no_debris(house: &House) {
    house.tree.settle();
    let left = staged(house);
    assert!(left.is_empty(), "{left:?}");
}

/// What waits in staging: all in it but the marker of the tree.
fn staged(house: &House) -> Vec<fs::DirEntry> {
    let Ok(staging) = fs::read_dir(host(house, ".patgate")) else { return Vec::new() };
    staging.map(|entry| entry.expect("entry")).filter(|entry| entry.file_name() != "tree.id").collect()
}
