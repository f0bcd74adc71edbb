//! `patgate admin restore`: puts a backup in place of the state directory. All is checked before the first effect.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::backup_archive::BackupManifest;
use super::context::CommandContext;
use super::doctor;
use super::open_state::require_owner;
use super::staged_state::{RestoreSource, StagedState, holds_state};
use super::{CommandError, Result, output, system_user};
use crate::auth::{Clock, SecretHasher};
use crate::domain::TokenId;
use crate::sftp::HostKeys;
use crate::store::{StateSummary, Store};
use crate::tokens::{StateFilter, TokenQuery, TokenService};
use crate::tree::StateDirectoryLock;

/// Number of tokens that are read, and revoked, at once.
const TOKENS_PER_READ: usize = 500;

/// Restore the state directory from a backup; the server must not run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin restore /var/backups/patgate-2026-05-05.tar
  patgate admin restore /var/backups/patgate-2026-05-05.tar --replace --revoke-sliding
  patgate admin restore /var/lib/patgate/patgate.db.schema-16.backup --replace
  patgate admin restore /mnt/offsite/patgate.tar.age --age-identity /root/backup-key.txt

FILE is what patgate admin backup has written (- is standard input), a copy of the database from before an upgrade, or the directory of a state that an earlier restore has replaced. What was revoked, narrowed,
disabled or deleted since the backup is as it was before. If the served folder was restored or moved as well, bind grants
and scopes to it with patgate node reattach.")]
pub(super) struct RestoreCommand {
    /// The backup
    #[arg(value_name = "FILE")]
    source: PathBuf,
    /// Replace the state that is there; it is kept in a directory beside the new one
    #[arg(long)]
    replace: bool,
    /// File with the identity by which the program age decrypts the backup
    #[arg(long, value_name = "FILE")]
    age_identity: Option<PathBuf>,
    /// Revoke all restored tokens whose expiration moves with each use
    #[arg(long)]
    revoke_sliding: bool,
    /// Revoke all restored tokens
    #[arg(long)]
    revoke_all: bool,
}

/// Result of a restore.
struct RestoreReport {
    source: RestoreSource,
    holds: StateSummary,
    revoked: usize,
    replaced: Option<PathBuf>,
}

impl RestoreCommand {
    /// Restores the state, prints what it holds, and checks it as `patgate doctor` does.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        context.require_local("restoring")?;
        let state = context.local_config()?.state;
        require_owner(&state)?;
        if holds_state(&state) && !self.replace {
            return Err(CommandError::new(format!("{} holds a state already", state.display()))
                .with_hint("give another --state DIR, or --replace: the present state is kept beside the new one"));
        }
        context.will_create_state(&state);
        DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
        // Held to the end: no server starts on a state that is half restored.
        let _lock = StateDirectoryLock::acquire(&state).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => CommandError::new(format!("a server uses the state in {}", state.display()))
                .with_hint("stop it first: nothing was changed"),
            _ => error.into(),
        })?;
        let report = self.restore(&state)?;
        context.keep_state();
        report.print(context, &state)
    }

    fn restore(&self, state: &Path) -> Result<RestoreReport> {
        let now = Clock::system().now();
        let staged = StagedState::create(state)?;
        let source = staged.fill(&self.source, self.age_identity.as_deref(), state)?;
        // Opening it checks the whole database, and migrates an older one.
        let store = Store::open(staged.path())?;
        SecretHasher::open(&store)?;
        HostKeys::open_existing(staged.path())
            .map_err(|error| CommandError::new(format!("an SSH host key of the backup can't be used: {error}")))?;
        let tokens = TokenService::new(store.clone(), Clock::system());
        tokens.adopt_restored(&system_user::principal(), &source.describe(&self.source))?;
        let revoked = self.revoke(&tokens)?;
        let holds = store.summary(now)?;
        // Closed before its files are moved: the last connection moves the write-ahead log into the database.
        drop((tokens, store));
        for name in ["patgate.db-wal", "patgate.db-shm"] {
            if staged.path().join(name).exists() {
                return Err(CommandError::new("the restored database is still in use: nothing was changed"));
            }
        }
        let replaced = staged.install(state, &now.to_string())?;
        Ok(RestoreReport { source, holds, revoked, replaced })
    }

    /// Revokes the tokens that the flags name, and returns how many.
    fn revoke(&self, tokens: &TokenService) -> Result<usize> {
        if !self.revoke_all && !self.revoke_sliding {
            return Ok(0);
        }
        let principal = system_user::principal();
        let mut query = TokenQuery { state: Some(StateFilter::Live), ..TokenQuery::default() };
        let mut chosen: Vec<TokenId> = Vec::new();
        // All are read before the first is revoked: a revoked one would end the list where it is read by pages.
        loop {
            let page = tokens.list(&principal, &query, TOKENS_PER_READ)?;
            let is_chosen = |window: Option<u64>| self.revoke_all || window.is_some();
            chosen.extend(page.items.iter().filter(|token| is_chosen(token.window_seconds)).map(|token| token.id));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        for ids in chosen.chunks(TOKENS_PER_READ) {
            tokens.revoke(&principal, ids)?;
        }
        Ok(chosen.len())
    }
}

impl RestoreSource {
    /// Returns the time of the backup, where it is known.
    fn time(&self) -> Option<&str> {
        match self {
            RestoreSource::Archive(manifest) => Some(&manifest.created_at),
            RestoreSource::Database | RestoreSource::Directory => None,
        }
    }

    fn manifest(&self) -> Option<&BackupManifest> {
        match self {
            RestoreSource::Archive(manifest) => Some(manifest),
            RestoreSource::Database | RestoreSource::Directory => None,
        }
    }

    /// Describes the source for the audit trail.
    fn describe(&self, path: &Path) -> String {
        match self {
            RestoreSource::Archive(manifest) => format!("from {}, a backup of {}", path.display(), manifest.created_at),
            RestoreSource::Database => format!("from {}, a copy of the database", path.display()),
            RestoreSource::Directory => format!("from {}, a replaced state", path.display()),
        }
    }
}

impl RestoreReport {
    fn print(&self, context: &CommandContext, state: &Path) -> Result {
        let checks = doctor::run_checks(context)?;
        let Self { source, holds, revoked, replaced } = self;
        let former_root = source.manifest().and_then(|manifest| manifest.root.clone());
        if context.prints_json() {
            return output::print_json(&json!({
                "state": state, "backup_time": source.time(), "root": former_root, "holds": holds,
                "revoked_tokens": revoked, "replaced": replaced, "doctor": checks,
            }));
        }
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        output::print_fields(&[
            ("state", state.display().to_string()),
            ("backup of", source.time().map_or_else(|| "a time that it does not say".to_owned(), str::to_owned)),
            ("served folder then", or_none(former_root.map(|root| root.display().to_string()))),
            ("users", holds.users.to_string()),
            ("grants", holds.grants.to_string()),
            ("live tokens", format!("{}, {} of them sliding", holds.live_tokens, holds.sliding_tokens)),
            ("revoked now", revoked.to_string()),
            ("replaced state", or_none(replaced.as_ref().map(|path| path.display().to_string()))),
        ])?;
        let since = source.time().unwrap_or("that time");
        output::print_line(&format!(
            "What was revoked, narrowed, disabled or deleted after {since} is as it was before: {} tokens and {} grants work. \
             Nobody is signed in to the console any more.",
            holds.live_tokens, holds.grants
        ))?;
        doctor::print_checks(context, &checks)
    }
}
