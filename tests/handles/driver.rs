//! Executes steps on a server and reads the state that results.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::file_system::{FileSystem, InodeContent, InodeNumber, ModificationTime, ROOT};
use crate::model::{ExpectedAttributes, StepOutcome};
use crate::steps::{AttributeChange, CHANNELS, SftpRequest, handle_index};
use crate::support::sftp::{SftpAttributes, SftpClient, SftpError, encode_string, take_string};

/// Times before this were set by a client.
const CLIENT_TIME_BEFORE_SECONDS: u32 = 1_000_000_000;

/// The handles that a channel has open, as the server names them.
pub(crate) type OpenHandles = [Vec<Vec<u8>>; CHANNELS];

/// Sends a request and reads its answer. Paths begin with `prefix`.
pub(crate) async fn perform(
    sftp: &mut SftpClient,
    handles: &mut Vec<Vec<u8>>,
    prefix: &str,
    request: &SftpRequest,
) -> Result<StepOutcome, SftpError> {
    let full = |path: &str| format!("{prefix}{path}");
    let at = |number: usize| handles[handle_index(number, handles.len())].clone();
    match request {
        SftpRequest::Open { path, flags, mode } => {
            let body =
                [encode_string(full(path).as_bytes()), flags.0.to_be_bytes().to_vec(), mode_attributes(*mode)].concat();
            let (_, body) = sftp.request(3, &[&body]).await?;
            handles.push(take_string(&mut &body[..]).to_vec());
        }
        SftpRequest::Read { handle, offset, length } => {
            return Ok(StepOutcome::Data(sftp.read_at(&at(*handle), *offset, *length).await?));
        }
        SftpRequest::Write { handle, offset, data } => sftp.write_at(&at(*handle), *offset, data.as_bytes()).await?,
        SftpRequest::Close { handle } => {
            let number = handle_index(*handle, handles.len());
            sftp.close(&handles.remove(number)).await?;
        }
        SftpRequest::HandleStat { handle } => {
            let (_, body) = sftp.request(8, &[&encode_string(&at(*handle))]).await?;
            return Ok(StepOutcome::Attributes(sftp_attributes(crate::support::sftp::take_attrs(&mut &body[..]))));
        }
        SftpRequest::HandleSetStat { handle, change } => {
            sftp.request(10, &[&encode_string(&at(*handle)), &attributes(*change)]).await?;
        }
        SftpRequest::Sync { handle } => {
            sftp.extended("fsync@openssh.com", &[&at(*handle)]).await?;
        }
        SftpRequest::CopyData { from, offset, length, to, to_offset } => {
            let source =
                [encode_string(&at(*from)), offset.to_be_bytes().to_vec(), length.to_be_bytes().to_vec()].concat();
            let target = [encode_string(&at(*to)), to_offset.to_be_bytes().to_vec()].concat();
            sftp.request(200, &[&encode_string(b"copy-data"), &source, &target]).await?;
        }
        _ => return perform_on_names(sftp, &full, request).await,
    }
    Ok(StepOutcome::Done)
}

async fn perform_on_names(
    sftp: &mut SftpClient,
    full: &impl Fn(&str) -> String,
    request: &SftpRequest,
) -> Result<StepOutcome, SftpError> {
    match request {
        SftpRequest::Stat { path } => {
            return Ok(StepOutcome::Attributes(sftp_attributes(sftp.stat(&full(path)).await?)));
        }
        SftpRequest::LinkStat { path } => {
            return Ok(StepOutcome::Attributes(sftp_attributes(sftp.lstat(&full(path)).await?)));
        }
        SftpRequest::SetStat { path, change } => {
            sftp.request(9, &[&encode_string(full(path).as_bytes()), &attributes(*change)]).await?;
        }
        SftpRequest::LinkSetStat { path, change } => {
            let body = [encode_string(full(path).as_bytes()), attributes(*change)].concat();
            sftp.request(200, &[&encode_string(b"lsetstat@openssh.com"), &body]).await?;
        }
        SftpRequest::Rename { from, to } => sftp.rename(&full(from), &full(to)).await?,
        SftpRequest::PosixRename { from, to } => sftp.posix_rename(&full(from), &full(to)).await?,
        SftpRequest::HardLink { from, to } => sftp.hard_link(&full(from), &full(to)).await?,
        SftpRequest::SymbolicLink { target, path } => sftp.symlink(target, &full(path)).await?,
        SftpRequest::ReadLink { path } => return Ok(StepOutcome::Target(sftp.readlink(&full(path)).await?)),
        SftpRequest::Remove { path } => sftp.remove(&full(path)).await?,
        SftpRequest::MakeDirectory { path, mode } => {
            sftp.request(14, &[&encode_string(full(path).as_bytes()), &mode_attributes(*mode)]).await?;
        }
        SftpRequest::RemoveDirectory { path } => sftp.rmdir(&full(path)).await?,
        SftpRequest::List { path } => {
            let entries = sftp.entries(&full(path)).await?;
            return Ok(StepOutcome::Entries(
                entries.into_iter().map(|(name, attrs)| (name, sftp_attributes(attrs))).collect(),
            ));
        }
        _ => unreachable!("a request on a handle"),
    }
    Ok(StepOutcome::Done)
}

/// Turns an answer into an outcome.
pub(crate) fn outcome(answer: Result<StepOutcome, SftpError>) -> Result<StepOutcome, String> {
    match answer {
        Ok(outcome) => Ok(outcome),
        Err(SftpError::Status(1, _)) => Ok(StepOutcome::EndOfFile),
        Err(SftpError::Status(..)) => Ok(StepOutcome::Refused),
        Err(SftpError::ConnectionLost) => Err("the server ended the session".to_owned()),
    }
}

fn mode_attributes(mode: Option<u32>) -> Vec<u8> {
    attributes(AttributeChange { mode, ..AttributeChange::default() })
}

fn attributes(change: AttributeChange) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut flags = 0_u32;
    if let Some(size) = change.size {
        flags |= 1;
        fields.extend(size.to_be_bytes());
    }
    if let Some(mode) = change.mode {
        flags |= 4;
        fields.extend(mode.to_be_bytes());
    }
    if let Some(modified) = change.modified {
        flags |= 8;
        fields.extend([modified.to_be_bytes(), modified.to_be_bytes()].concat());
    }
    [flags.to_be_bytes().to_vec(), fields].concat()
}

fn modification_time(seconds: u32) -> ModificationTime {
    if seconds < CLIENT_TIME_BEFORE_SECONDS { ModificationTime::Set(seconds) } else { ModificationTime::Recent }
}

fn sftp_attributes(attrs: SftpAttributes) -> ExpectedAttributes {
    let mode = attrs.mode.unwrap_or_default();
    attributes_of(mode, attrs.size.unwrap_or_default(), attrs.times.unwrap_or_default().1)
}

fn attributes_of(mode: u32, size: u64, seconds: u32) -> ExpectedAttributes {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        _ => '-',
    };
    ExpectedAttributes {
        kind,
        size: if kind == '-' { size } else { 0 },
        mode: if kind == 'l' { 0o777 } else { mode & 0o7777 },
        modified: if kind == 'd' { ModificationTime::Unknown } else { modification_time(seconds) },
    }
}

/// One entry of a tree: its attributes, its content or target, and the first path of the same inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeEntry {
    attributes: ExpectedAttributes,
    content: Vec<u8>,
    links: u64,
    same_as: String,
}

pub(crate) type TreeSnapshot = BTreeMap<String, TreeEntry>;

/// Reads what is below a directory of the host.
pub(crate) fn host_tree(root: &Path) -> TreeSnapshot {
    let mut found = TreeSnapshot::new();
    let mut first = BTreeMap::new();
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        let directory = root.join(&path);
        for entry in fs::read_dir(&directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            paths.extend(host_entry(&entry.path(), join(&path, &name), &mut found, &mut first));
        }
    }
    set_first_paths(&mut found, &first);
    found
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// Adds an entry to a tree; returns its path when it is a directory.
fn host_entry(
    host: &Path,
    path: String,
    found: &mut TreeSnapshot,
    first: &mut BTreeMap<String, String>,
) -> Option<String> {
    let metadata = fs::symlink_metadata(host).expect("metadata");
    let kind = metadata.file_type();
    let content = match (kind.is_file(), kind.is_symlink()) {
        (true, _) => fs::read(host).expect("a readable file"),
        (_, true) => fs::read_link(host).expect("a link").into_os_string().into_encoded_bytes(),
        _ => Vec::new(),
    };
    let seconds = u32::try_from(metadata.mtime()).expect("a time after 1970");
    let attributes = attributes_of(metadata.permissions().mode(), metadata.len(), seconds);
    let links = if kind.is_dir() { 1 } else { metadata.nlink() };
    let inode = metadata.ino().to_string();
    remember_first(first, &inode, &path);
    found.insert(path.clone(), TreeEntry { attributes, content, links, same_as: inode });
    kind.is_dir().then_some(path)
}

fn remember_first(first: &mut BTreeMap<String, String>, inode: &str, path: &str) {
    let known = first.entry(inode.to_owned()).or_insert_with(|| path.to_owned());
    if path < known.as_str() {
        path.clone_into(known);
    }
}

/// Names every inode by the first of its paths.
fn set_first_paths(found: &mut TreeSnapshot, first: &BTreeMap<String, String>) {
    found.values_mut().for_each(|entry| entry.same_as = first[&entry.same_as].clone());
}

/// Reads the tree of a model.
pub(crate) fn model_tree(files: &FileSystem, attributes: impl Fn(InodeNumber) -> ExpectedAttributes) -> TreeSnapshot {
    let mut found = TreeSnapshot::new();
    let mut first = BTreeMap::new();
    let mut directories = vec![(ROOT, String::new())];
    while let Some((directory, path)) = directories.pop() {
        for (name, number) in files.entries(directory) {
            let path = join(&path, &name);
            let inode = files.inode(number);
            let content = match &inode.content {
                InodeContent::File(content) => content.clone(),
                InodeContent::Link(target) => target.clone().into_bytes(),
                InodeContent::Directory { .. } => Vec::new(),
            };
            if files.is_directory(number) {
                directories.push((number, path.clone()));
            }
            remember_first(&mut first, &number.to_string(), &path);
            let links = u64::from(inode.links);
            let entry = TreeEntry { attributes: attributes(number), content, links, same_as: number.to_string() };
            found.insert(path, entry);
        }
    }
    set_first_paths(&mut found, &first);
    found
}

/// Tells whether attributes equal those of the model.
fn attributes_match(expected: &ExpectedAttributes, found: &ExpectedAttributes) -> bool {
    let modified = match expected.modified {
        ModificationTime::Unknown => expected.modified,
        ModificationTime::Set(_) | ModificationTime::Recent => found.modified,
    };
    *expected == ExpectedAttributes { modified, ..*found }
}

/// Returns the differences between two trees, as text.
pub(crate) fn differences(expected: &TreeSnapshot, found: &TreeSnapshot) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differs = |path: &&String| match (expected.get(*path), found.get(*path)) {
        (Some(expected), Some(found)) => {
            let same = TreeEntry { attributes: expected.attributes, ..found.clone() };
            *expected != same || !attributes_match(&expected.attributes, &found.attributes)
        }
        _ => true,
    };
    let text =
        |path: &String| format!("{path}:\n  expected {:?}\n  found    {:?}", expected.get(path), found.get(path));
    paths.into_iter().filter(differs).map(text).collect()
}

/// Tells whether two trees differ in numbers of links alone.
pub(crate) fn differs_only_in_link_counts(expected: &TreeSnapshot, found: &TreeSnapshot) -> bool {
    let without = |tree: &TreeSnapshot| -> TreeSnapshot {
        let entries = tree.iter().map(|(path, entry)| (path.clone(), TreeEntry { links: 1, ..entry.clone() }));
        entries.collect()
    };
    differences(&without(expected), &without(found)).is_empty()
}

/// Tells whether a response equals that of the model.
pub(crate) fn outcome_matches(expected: &StepOutcome, found: &StepOutcome) -> bool {
    match (expected, found) {
        (StepOutcome::Attributes(expected), StepOutcome::Attributes(found)) => attributes_match(expected, found),
        (StepOutcome::Entries(expected), StepOutcome::Entries(found)) => {
            let same = |((name, one), (other, two)): (&(String, ExpectedAttributes), &(String, ExpectedAttributes))| {
                name == other && attributes_match(one, two)
            };
            expected.len() == found.len() && expected.iter().zip(found).all(same)
        }
        _ => expected == found,
    }
}
