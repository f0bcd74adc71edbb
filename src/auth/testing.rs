//! Store with a user and an authenticator for it, for tests of this module and of those that build on it.

use std::path::PathBuf;

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{AuthError, Authenticator, Clock, Credential, Session, generate_token};
use crate::domain::{Login, Peer, Permission, Protocol, TokenExpiry, TokenId, TokenText, UnixMillis};
use crate::store::testing::{insert_directory, login, now, scope};
use crate::store::{NewTokenRow, Store, TokenProof};

/// Environment with `alice`, who may do everything below the root (node 0), which holds the directory `/a` (node 1).
pub(crate) struct AuthEnv {
    pub(crate) auth: Authenticator,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) state: PathBuf,
    _directory: TempDir,
}

impl AuthEnv {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        let store = Store::open(&state).expect("opens");
        let clock = Clock::manual(now());
        let auth = Authenticator::new(store.clone(), clock.clone()).expect("opens");
        store.create_user(&login("alice"), &[], now()).expect("user");
        insert_directory(&store, 0, 0, "");
        insert_directory(&store, 1, 0, "a");
        store.grant(&login("alice"), scope(0, Permission::RW), now()).expect("granted");
        store.set_policy("max-tokens-per-user", "1000").expect("set");
        Self { auth, store, clock, state, _directory: directory }
    }

    /// Creates a token of alice, without scopes and limits unless `change` sets them.
    pub(crate) fn create_token(&self, expiry: TokenExpiry, change: impl FnOnce(&mut NewTokenRow)) -> TokenText {
        let text = generate_token().expect("random");
        let proof = self.proof_of(&text);
        let row = crate::store::testing::new_token(text.id().as_str(), "alice", expiry);
        let mut new = NewTokenRow { proof, created_at: self.clock.now(), ..row };
        change(&mut new);
        self.store.add_token(&new).expect("stored");
        text
    }

    pub(crate) fn proof_of(&self, text: &TokenText) -> TokenProof {
        TokenProof::Secret(self.auth.secret_hasher().hash(text.secret()).expect("hashed"))
    }

    /// Rotates a token to the secret of a text.
    pub(crate) fn rotate(&self, token: TokenId, text: &TokenText, grace_until: Option<UnixMillis>) {
        self.store.rotate_token(token, &self.proof_of(text), grace_until, self.clock.now()).expect("rotated");
    }

    /// Opens another store on the same files, as another process would.
    pub(crate) fn open_second_store(&self) -> Store {
        Store::open(&self.state).expect("opens")
    }

    pub(crate) async fn login(&self, text: &TokenText) -> Result<Session, AuthError> {
        self.auth.authenticate(credential(text), peer("192.0.2.1")).await
    }
}

impl Authenticator {
    /// Writes what the watcher would.
    pub(crate) fn flush(&self) {
        self.core.flush();
    }
}

pub(crate) fn credential(text: &TokenText) -> Credential {
    Credential { login: Some("alice".to_owned()), token: Zeroizing::new(text.reveal().as_bytes().to_vec()) }
}

pub(crate) fn peer(address: &str) -> Peer {
    let address = address.parse().expect("address");
    Peer { protocol: Protocol::Webdav, address, user_agent: Some("test/1".to_owned()) }
}

impl Authenticator {
    /// Keeps all threads that run argon2 busy until the returned senders are dropped.
    pub(crate) fn occupy_hashing_threads(&self) -> Vec<std::sync::mpsc::Sender<()>> {
        self.core.hashing_pool.occupy_all_threads()
    }

    /// Fills a user's share of the queue for argon2 with jobs that do nothing.
    pub(crate) fn fill_hashing_queue_share(&self, user: &Login) {
        while self.core.hashing_pool.submit(user, Box::new(|_| ())).is_ok() {}
    }

    /// Returns the number of jobs that wait for argon2.
    pub(crate) fn hashing_queue_len(&self) -> usize {
        self.core.hashing_pool.queue_len()
    }
}
