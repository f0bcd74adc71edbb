//! The state directory once it is open: users, tokens, policy, and the folder that is served from it.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::OTHER_TREE_HINT;
use super::{CommandError, Result, system_user};
use crate::auth::{Clock, request_usage_flush};
use crate::config::{self, LocalConfig};
use crate::store::Store;
use crate::tokens::{IssuedToken, Principal, TokenRequest, TokenService};
use crate::tree::{self, Tree};

/// What is kept, and where the served folder is.
pub(super) struct OpenState {
    /// Users, tokens and policy.
    pub(super) tokens: TokenService,
    /// Who works on it.
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
        let store = Store::open_without_migration(&local.state)?;
        // What is shown is in force, also where a server holds the latest use in memory.
        request_usage_flush(&local.state);
        let tokens = TokenService::new(store.clone(), Clock::system());
        Ok(Self { tokens, principal: system_user::principal(), store, config: local, tree: OnceCell::new() })
    }

    /// Returns what manages users and tokens, with the served folder where that can be looked at.
    pub(super) fn tokens_with_optional_tree(&self) -> TokenService {
        self.tree().map_or_else(|_| self.tokens.clone(), |tree| self.tokens.clone().with_tree(tree))
    }

    /// Returns what manages users and tokens, with the served folder.
    pub(super) fn tokens_with_tree(&self) -> Result<TokenService> {
        Ok(self.tokens.clone().with_tree(self.tree()?))
    }

    /// Makes a token; opens the served folder only where scopes need it.
    pub(super) fn issue(&self, request: TokenRequest) -> Result<IssuedToken> {
        let tokens = if request.scopes.is_none() { self.tokens.clone() } else { self.tokens_with_tree()? };
        Ok(tokens.issue(&self.principal, request)?)
    }

    /// Opens the served folder: the one that `serve` was last told, or else the configured one.
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

    /// Tells what stands at the path of each node, and binds them to that where it is to.
    pub(super) fn reattach(&self, root: Option<PathBuf>, bind: bool) -> Result<Vec<tree::NodeReattachment>> {
        let options = self.tree_options(root)?;
        Tree::reattach(&options, &self.store, bind).map_err(|error| served_directory_error(&options.root, &error))
    }

    /// Returns how the folder is served that is named, or that `serve` was last told, or else that is configured.
    fn tree_options(&self, explicit_root: Option<PathBuf>) -> Result<tree::TreeOptions> {
        let root = match explicit_root {
            Some(root) => std::path::absolute(root)?,
            None => self.store.served_root()?.or_else(|| self.config.root.clone()).ok_or_else(|| {
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

/// Tells whether there is a state, if only a part of one.
pub(super) fn has_state(state: &Path) -> bool {
    ["patgate.db", "pepper"].iter().any(|name| state.join(name).exists())
}

/// Refuses the state of another user, which files of ours would lock out.
pub(super) fn require_owner(state: &Path) -> Result {
    let (Ok(metadata), euid) = (fs::metadata(state), rustix::process::geteuid().as_raw()) else { return Ok(()) };
    if metadata.uid() == euid {
        return Ok(());
    }
    let (state, owner) = (state.display(), metadata.uid());
    Err(CommandError::new(format!("the state in {state} belongs to the user id {owner}, not to {euid}"))
        .with_hint(format!("run it as that user: sudo -u '#{owner}' patgate …")))
}

/// Says when success is answered in the words of the tree.
pub(super) fn tree_durability(setting: config::DurabilitySetting) -> tree::CommitDurability {
    match setting {
        config::DurabilitySetting::Full => tree::CommitDurability::Full,
        config::DurabilitySetting::Fast => tree::CommitDurability::Fast,
    }
}
