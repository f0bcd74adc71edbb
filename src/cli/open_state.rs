//! An open state directory: users, tokens, policy, and the served directory.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::OTHER_TREE_HINT;
use super::{CommandError, Result, system_user};
use crate::auth::{Clock, request_usage_flush};
use crate::config::{self, LocalConfig};
use crate::domain::{EventKind, UnixMillis};
use crate::store::{QueuedNotice, StateSummary, Store};
use crate::tokens::{IssuedToken, Principal, TokenRequest, TokenService};
use crate::tree::{self, Tree};

/// An open state directory.
pub(super) struct OpenState {
    /// Management of users, tokens and policy, without the served directory.
    pub(super) tokens: TokenService,
    /// The system user that runs the command.
    pub(super) principal: Principal,
    store: Store,
    config: LocalConfig,
    tree: OnceCell<Tree>,
}

impl OpenState {
    /// Opens a state directory without migrating it.
    ///
    /// # Errors
    /// [`CommandError`] where it belongs to another user or can't be opened.
    pub(super) fn open(local: LocalConfig) -> Result<Self> {
        require_owner(&local.state)?;
        // A server of an older version may be running on it: only a starting server migrates.
        let store = Store::open_without_migration(&local.state)?;
        // A running server holds the latest uses in memory: it must write them first, so that this process shows
        // expirations in force.
        request_usage_flush(&local.state);
        let tokens = TokenService::new(store.clone(), Clock::system());
        Ok(Self { tokens, principal: system_user::principal(), store, config: local, tree: OnceCell::new() })
    }

    /// Returns the management of users and tokens, with the served directory if that can be opened.
    pub(super) fn tokens_with_optional_tree(&self) -> TokenService {
        self.tree().map_or_else(|_| self.tokens.clone(), |tree| self.tokens.clone().with_tree(tree))
    }

    /// Returns the management of users and tokens, with the served directory.
    pub(super) fn tokens_with_tree(&self) -> Result<TokenService> {
        Ok(self.tokens.clone().with_tree(self.tree()?))
    }

    /// Creates a token; opens the served directory only if it has scopes.
    pub(super) fn issue(&self, request: TokenRequest) -> Result<IssuedToken> {
        let tokens = if request.scopes.is_none() { self.tokens.clone() } else { self.tokens_with_tree()? };
        Ok(tokens.issue(&self.principal, request)?)
    }

    /// Opens the served directory: the one of the last `serve`, or else the configured one.
    pub(super) fn tree(&self) -> Result<Tree> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree.clone());
        }
        let tree = self.attach()?;
        Ok(self.tree.get_or_init(|| tree).clone())
    }

    fn attach(&self) -> Result<Tree> {
        let options = self.tree_options(None)?;
        let root = options.root.clone();
        Tree::attach(options, self.store.clone(), Clock::system())
            .map_err(|error| served_directory_error(&root, &error))
    }

    /// Returns the state directory.
    pub(super) fn directory(&self) -> &Path {
        &self.config.state
    }

    /// Returns the served directory: that of the last `serve`, or else the configured one.
    pub(super) fn served_root(&self) -> Result<Option<PathBuf>> {
        Ok(self.store.served_root()?.or_else(|| self.config.root.clone()))
    }

    /// Copies the database to a new file as it is at one moment, and returns what it holds.
    pub(super) fn copy_database(&self, target: &Path, now: UnixMillis) -> Result<StateSummary> {
        Ok(self.store.copy_to(target, now)?)
    }

    /// Returns up to `limit` notices that wait for their receivers.
    pub(super) fn queued_notices(&self, limit: usize) -> Result<Vec<QueuedNotice>> {
        Ok(self.store.queued_notices(limit)?)
    }

    /// Records an event that concerns the state directory.
    pub(super) fn record_event(&self, kind: EventKind, detail: &str) -> Result {
        Ok(self.tokens.record_state_event(&self.principal, kind, detail)?)
    }

    /// Compares each node with the entry at its path, and binds it to that entry if `bind` is set.
    pub(super) fn reattach(&self, root: Option<PathBuf>, bind: bool) -> Result<Vec<tree::NodeReattachment>> {
        let options = self.tree_options(root)?;
        Tree::reattach(&options, &self.store, bind).map_err(|error| served_directory_error(&options.root, &error))
    }

    /// Returns the options of the served directory: the named one, that of the last `serve`, or else the configured
    /// one.
    fn tree_options(&self, explicit_root: Option<PathBuf>) -> Result<tree::TreeOptions> {
        let root = match explicit_root {
            Some(root) => std::path::absolute(root)?,
            None => self.served_root()?.ok_or_else(|| {
                CommandError::new("no folder is served from this state yet")
                    .with_hint("start the server once (patgate serve --root DIR), or set PATGATE_ROOT")
            })?,
        };
        Ok(tree::TreeOptions { root, durability: tree_durability(self.config.durability) })
    }
}

fn served_directory_error(root: &Path, error: &tree::Error) -> CommandError {
    let command_error = CommandError::new(format!("the served folder {} can't be used: {error}", root.display()));
    if matches!(error, tree::Error::TreeMismatch) { command_error.with_hint(OTHER_TREE_HINT) } else { command_error }
}

/// Tells whether a state directory has been initialized, even if only in part.
pub(super) fn has_state(state: &Path) -> bool {
    ["patgate.db", "pepper"].iter().any(|name| state.join(name).exists())
}

/// Refuses the state directory of another user: files that this process creates there would lock that user out.
pub(super) fn require_owner(state: &Path) -> Result {
    let (Ok(metadata), euid) = (fs::metadata(state), rustix::process::geteuid().as_raw()) else { return Ok(()) };
    // The effective user, since that is the one that would own new files.
    if metadata.uid() == euid {
        return Ok(());
    }
    let (state, owner) = (state.display(), metadata.uid());
    Err(CommandError::new(format!("the state in {state} belongs to the user id {owner}, not to {euid}"))
        .with_hint(format!("run it as that user: sudo -u '#{owner}' patgate …")))
}

/// Converts the durability setting.
pub(super) fn tree_durability(setting: config::DurabilitySetting) -> tree::CommitDurability {
    match setting {
        config::DurabilitySetting::Full => tree::CommitDurability::Full,
        config::DurabilitySetting::Fast => tree::CommitDurability::Fast,
    }
}
