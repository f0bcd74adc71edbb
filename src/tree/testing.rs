//! A served directory with users, tokens and views, for tests of this module and of those that build on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use zeroize::Zeroizing;

pub(crate) use super::fs::fault_injection::{fail_read_after, take_read_count};
use super::{CommitDurability, Tree, TreeOptions, View};
use crate::auth::{Authenticator, Clock, Credential, Session, generate_token, testing};
use crate::domain::{Permission, Scope, TokenExpiry, TreePath};
use crate::store::testing::{login, now};
use crate::store::{NewTokenRow, Store, TokenProof};

/// A served tree with a store and an authenticator for it.
pub(crate) struct TreeFixture {
    pub(crate) tree: Tree,
    pub(crate) store: Store,
    pub(crate) auth: Authenticator,
    pub(crate) clock: Clock,
    pub(crate) root_path: PathBuf,
    token_count: AtomicU32,
    _directory: Option<TempDir>,
}

impl TreeFixture {
    /// Serves a temporary directory with the given directories in it.
    pub(crate) fn new(directories: &[&str]) -> Self {
        let temp_dir = tempfile::tempdir().expect("folder");
        let fixture = Self::open_in(temp_dir.path());
        for directory in directories {
            fixture.tree.ensure_directory(&tree_path(directory)).expect("folder");
        }
        Self { _directory: Some(temp_dir), ..fixture }
    }

    /// Serves `root` in a directory that outlives the fixture, with `state` beside it.
    pub(crate) fn open_in(directory: &Path) -> Self {
        let root = directory.join("root");
        std::fs::create_dir_all(&root).expect("root");
        let store = Store::open(&directory.join("state")).expect("store");
        store.set_policy("max-tokens-per-user", "1000").expect("set");
        let clock = Clock::manual(now());
        let auth = Authenticator::new(store.clone(), clock.clone()).expect("authenticator");
        let tree = Tree::open(tree_options(&root), store.clone(), clock.clone()).expect("tree");
        Self { tree, store, auth, clock, root_path: root, token_count: AtomicU32::new(0), _directory: None }
    }

    /// Opens the tree again, as the next start does. All views of the old one must be dropped before.
    pub(crate) fn restart(self) -> Self {
        let Self { tree, store, auth, clock, root_path: root, token_count: tokens, _directory: _folder } = self;
        drop(tree);
        let tree = Tree::open(tree_options(&root), store.clone(), clock.clone()).expect("tree");
        Self { tree, store, auth, clock, root_path: root, token_count: tokens, _directory: _folder }
    }

    /// Creates a user with the given grants.
    pub(crate) fn create_user(&self, name: &str, grants: &[(&str, Permission)]) {
        self.store.create_user(&login(name), &[], now()).expect("user");
        for (path, permission) in grants {
            self.store.grant(&login(name), self.scope_on(path, *permission), now()).expect("granted");
        }
    }

    /// Returns the view of a user's session with a token without scopes.
    pub(crate) fn view(&self, name: &str) -> View {
        self.tree.view(self.session(name, None))
    }

    /// Returns the view of a user's session with a token that has the given scopes.
    pub(crate) fn scoped_view(&self, name: &str, scopes: &[(&str, Permission)]) -> View {
        let scopes = scopes.iter().map(|(path, permission)| self.scope_on(path, *permission)).collect();
        self.tree.view(self.session(name, Some(scopes)))
    }

    pub(crate) fn scope_on(&self, path: &str, permission: Permission) -> Scope {
        Scope { node: self.tree.assign_node_id(&tree_path(path)).expect(path), permission }
    }

    fn session(&self, name: &str, scopes: Option<Vec<Scope>>) -> Session {
        let text = generate_token().expect("random");
        let proof = TokenProof::Secret(self.auth.secret_hasher().hash(text.secret()).expect("sealed"));
        let made = crate::store::testing::new_token(text.id().as_str(), name, TokenExpiry::Never);
        let new = NewTokenRow { proof, scopes, created_at: self.clock.now(), ..made };
        self.store.add_token(&new).expect("kept");
        let token = Zeroizing::new(text.reveal().as_bytes().to_vec());
        let credential = Credential { login: Some(name.to_owned()), token };
        // Each from an address of its own, so that the throttle of failed logins does not count them together.
        let number = self.token_count.fetch_add(1, Ordering::Relaxed);
        let peer = testing::peer(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(self.auth.authenticate(credential, peer)).expect("let in")
    }
}

fn tree_options(root: &Path) -> TreeOptions {
    TreeOptions { root: root.to_owned(), durability: CommitDurability::Fast }
}

/// Parses a path.
pub(crate) fn tree_path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}
