//! `patgate admin backup`: writes the state directory to one file, while a server may be running.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use super::backup_archive::{BackupManifest, CONFIG_NAME, DATABASE_NAME, PartSource, is_part_name, write_archive};
use super::context::CommandContext;
use super::{CommandError, Result, age_program, output};
use crate::auth::Clock;
use crate::domain::EventKind;

/// Back up the state directory to one file, also while the server runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin backup /var/backups/patgate-2026-05-05.tar
  patgate admin backup - > /var/backups/patgate.tar
  patgate admin backup /mnt/offsite/patgate.tar.age --age-recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p

The file holds the database as it is at one moment, the pepper, the SSH host keys, and the configuration file that --config or
PATGATE_CONFIG names. Whoever has it can check guesses of secrets and pass for the server: it has mode 0600; encrypt one that
leaves the machine. --age-recipient does it with the program age; any other takes it from standard output. The served folder
is not in it.")]
pub(super) struct BackupCommand {
    /// The file to write; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    overwrite: bool,
    /// Encrypt the file to a recipient of the program age: age1…, or an SSH public key; repeatable
    #[arg(long, value_name = "RECIPIENT")]
    age_recipient: Vec<String>,
}

/// Prefix of the names of unfinished files; the id of the process comes after it.
const DRAFT_PREFIX: &str = ".patgate-backup-";

/// A file that is removed again unless it is kept.
struct DraftFile {
    path: PathBuf,
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        // It has been renamed where the backup succeeded.
        let _ = fs::remove_file(&self.path);
    }
}

impl BackupCommand {
    /// Writes the backup and prints what it holds.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        context.require_local("backing up")?;
        let to_stdout = self.file == Path::new("-");
        if to_stdout && io::stdout().is_terminal() {
            return Err(CommandError::usage("a backup is not written to a terminal")
                .with_hint("give a FILE, or redirect standard output"));
        }
        let state = context.open_state()?;
        let root = state.served_root()?;
        if !to_stdout {
            self.check_target(root.as_deref())?;
        }
        // Beside the target, which has room for the backup: the disk of the state may be almost full.
        let directory = if to_stdout { state.directory() } else { parent_directory(&self.file) };
        remove_stale_drafts(directory);
        let draft =
            |suffix: &str| DraftFile { path: directory.join(format!("{DRAFT_PREFIX}{}.{suffix}", std::process::id())) };
        let database = draft("db");
        let now = Clock::system().now();
        let holds = state.copy_database(&database.path, now)?;
        // After the copy: a pepper that was created meanwhile belongs to its tokens.
        let mut sources = vec![PartSource { name: DATABASE_NAME.to_owned(), path: database.path.clone() }];
        sources.extend(other_parts(state.directory())?);
        sources.extend(context.config_file().map(|path| PartSource { name: CONFIG_NAME.to_owned(), path }));
        let manifest = BackupManifest::describe(&sources, now.to_string(), root, holds)?;
        if to_stdout {
            self.write(&manifest, &sources, io::stdout().as_fd().try_clone_to_owned()?.into())?;
        } else {
            let archive = draft("tar");
            let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&archive.path)?;
            self.write(&manifest, &sources, file.try_clone()?)?;
            file.sync_all()?;
            self.publish(&archive.path, directory)?;
        }
        let target = if to_stdout { "standard output".to_owned() } else { self.file.display().to_string() };
        state.record_event(EventKind::StateBackedUp, &format!("to {target}"))?;
        if to_stdout { Ok(()) } else { print_manifest(context, &manifest) }
    }

    /// Writes the archive, encrypted where that was asked for.
    fn write(&self, manifest: &BackupManifest, sources: &[PartSource], file: File) -> Result {
        if self.age_recipient.is_empty() {
            return Ok(write_archive(manifest, sources, file)?);
        }
        age_program::encrypt(&self.age_recipient, file, |output| Ok(write_archive(manifest, sources, output)?))
    }

    /// Refuses a target that exists, or that clients could read.
    fn check_target(&self, root: Option<&Path>) -> Result {
        let parent = parent_directory(&self.file);
        let parent = fs::canonicalize(parent)
            .map_err(|error| CommandError::new(format!("{} can't be used: {error}", parent.display())))?;
        if root.and_then(|root| fs::canonicalize(root).ok()).is_some_and(|root| parent.starts_with(root)) {
            return Err(CommandError::new(format!("{} is in the served folder", self.file.display()))
                .with_hint("give a file elsewhere: clients could read the pepper and the host keys there"));
        }
        match fs::symlink_metadata(&self.file) {
            Ok(_) if !self.overwrite => Err(self.exists_error()),
            _ => Ok(()),
        }
    }

    fn exists_error(&self) -> CommandError {
        CommandError::new(format!("{} exists already", self.file.display()))
            .with_hint("give another file, or --overwrite")
    }

    /// Gives the finished file its name, and syncs that.
    fn publish(&self, draft: &Path, directory: &Path) -> Result {
        let flags = if self.overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, draft, CWD, &self.file, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(self.exists_error()),
            // Some file systems know no flags; whether the file exists was asked for at the beginning.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(draft, &self.file)?,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(File::open(directory)?.sync_all()?)
    }
}

/// Removes unfinished files of processes that are gone: they hold a copy of the database.
fn remove_stale_drafts(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(DRAFT_PREFIX)?.split('.').next());
        let is_stale = process.is_some_and(|id| {
            let is_number = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
            is_number && (!Path::new("/proc").join(id).exists() || id == std::process::id().to_string())
        });
        if is_stale {
            // One that belongs to another user stays, and is refused when its name is needed.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn parent_directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Returns pepper and host keys of a state directory.
fn other_parts(state: &Path) -> Result<Vec<PartSource>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_part_name(&name) && name != DATABASE_NAME && name != CONFIG_NAME {
            sources.push(PartSource { name, path: entry.path() });
        }
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sources)
}

fn print_manifest(context: &CommandContext, manifest: &BackupManifest) -> Result {
    if context.prints_json() {
        return output::print_json(&json!(manifest));
    }
    let parts: Vec<_> = manifest.parts.iter().map(|part| format!("{} ({} bytes)", part.name, part.bytes)).collect();
    let holds = &manifest.holds;
    output::print_fields(&[
        ("time", manifest.created_at.clone()),
        ("parts", parts.join(", ")),
        ("schema", holds.schema.to_string()),
        ("users", holds.users.to_string()),
        ("grants", holds.grants.to_string()),
        ("live tokens", holds.live_tokens.to_string()),
        ("audit head", holds.audit_head.to_string()),
    ])
}
