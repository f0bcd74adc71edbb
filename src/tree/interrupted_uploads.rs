//! What a lost connection has left of uploads to new names: kept in staging for the token that sent it, so that a client
//! goes on where it was cut.
//!
//! Nothing of them has a name in the tree. To the sessions of their token they stand under the names that they were for;
//! the first session that asks for one takes it, and gives it back when it ends. Memory alone knows of them: a restart of
//! the server sweeps them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::Tree;
use super::fs::RetainedEntry;
use super::upload::SlotId;
use crate::auth::Clock;
use crate::domain::{Login, TokenId, UploadSpaces, UserQuotaLimits};
use crate::store::{Store, TokenState};

/// Maximum number of cut uploads that are kept for one token.
const INTERRUPTED_UPLOADS_PER_TOKEN: usize = 64;
/// Maximum number of cut uploads that are kept for all tokens of one user.
const INTERRUPTED_UPLOADS_PER_USER: usize = 256;

/// Bytes that unfinished uploads of all protocols hold: those of each user, and all.
#[derive(Debug, Default)]
pub struct UnfinishedUploadBytes {
    /// Announced or written.
    reserved: Mutex<HeldBytes>,
    /// What of that is written: it is free on the disk no more.
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct HeldBytes {
    in_all: u64,
    by_user: HashMap<Login, u64>,
}

impl UnfinishedUploadBytes {
    /// Tells whether a user may hold so many more bytes.
    pub fn fits(&self, login: &Login, bytes: u64, limits: UserQuotaLimits) -> bool {
        self.reserved.lock().fits(login, bytes, limits)
    }

    /// Holds so many more bytes for a user, where he may; tells whether he may.
    pub fn hold(&self, login: &Login, bytes: u64, limits: UserQuotaLimits) -> bool {
        let mut held = self.reserved.lock();
        let fits = held.fits(login, bytes, limits);
        if fits {
            held.add(login, bytes);
        }
        fits
    }

    /// Holds so many bytes that are written already, whatever is held.
    pub fn hold_written(&self, login: &Login, bytes: u64) {
        self.reserved.lock().add(login, bytes);
        self.wrote(bytes);
    }

    /// Holds so many bytes less.
    pub fn release(&self, login: &Login, bytes: u64) {
        let mut held = self.reserved.lock();
        held.in_all = held.in_all.saturating_sub(bytes);
        if let Some(user_bytes) = held.by_user.get_mut(login) {
            *user_bytes = user_bytes.saturating_sub(bytes);
            if *user_bytes == 0 {
                held.by_user.remove(login);
            }
        }
    }

    /// Notes that so many bytes of those that are held are written.
    pub fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Notes that so many bytes that were written are gone.
    pub fn release_written(&self, bytes: u64) {
        self.written.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Returns how many bytes are written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

impl HeldBytes {
    fn fits(&self, login: &Login, bytes: u64, limits: UserQuotaLimits) -> bool {
        let user_bytes = self.by_user.get(login).copied().unwrap_or(0);
        let within = |held: u64, limit: u64| held.checked_add(bytes).is_some_and(|sum| sum <= limit);
        within(user_bytes, limits.per_user) && within(self.in_all, limits.total)
    }

    fn add(&mut self, login: &Login, bytes: u64) {
        self.in_all = self.in_all.saturating_add(bytes);
        if bytes > 0 {
            let user_bytes = self.by_user.entry(login.clone()).or_default();
            *user_bytes = user_bytes.saturating_add(bytes);
        }
    }
}

/// For how long, and in how much space, cut uploads are kept.
#[derive(Clone, Copy, Debug)]
pub struct InterruptedUploadPolicy {
    /// Time after the connection was lost; zero: they are discarded at once.
    pub keep_for: Duration,
    /// Space that unfinished uploads may hold.
    pub space: UploadSpaces,
}

/// The cut uploads of a tree.
pub(super) struct InterruptedUploads {
    store: Store,
    clock: Clock,
    policy: OnceLock<InterruptedUploadPolicy>,
    bytes: Arc<UnfinishedUploadBytes>,
    by_slot: Mutex<HashMap<(TokenId, SlotId), InterruptedUpload>>,
}

/// An upload that was cut; what it holds in staging is removed when this is dropped.
pub(super) struct InterruptedUpload {
    content: Option<RetainedEntry>,
    /// The mode that it was to have.
    pub(super) mode: Option<u32>,
    login: Login,
    size: u64,
    /// When the connection was lost, in running time: no jump of the clock makes it older.
    pub(super) interrupted_at: Duration,
    bytes: Arc<UnfinishedUploadBytes>,
}

impl InterruptedUploads {
    /// Makes an empty table; nothing is kept before a policy is set.
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        let (policy, bytes, by_slot) = (OnceLock::new(), Arc::default(), Mutex::default());
        Self { store, clock, policy, bytes, by_slot }
    }

    /// Tells whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.lock().is_empty()
    }

    /// Tells whether one more of so many bytes may be kept for a token, `free` being free on the disk.
    pub(super) fn admits(&self, token: TokenId, login: &Login, size: u64, free: u64) -> bool {
        let Some(policy) = self.policy.get().filter(|policy| !policy.keep_for.is_zero()) else { return false };
        self.discard_expired();
        let by_slot = self.by_slot.lock();
        let of_token = by_slot.keys().filter(|(other, _)| *other == token).count();
        let of_user = by_slot.values().filter(|upload| upload.login == *login).count();
        let fits = self.bytes.fits(login, size, policy.space.most(free, self.bytes.written()));
        size > 0 && fits && of_token < INTERRUPTED_UPLOADS_PER_TOKEN && of_user < INTERRUPTED_UPLOADS_PER_USER
    }

    /// Keeps what was cut, unless its time was over while a session had it; an older one of the same name goes.
    pub(super) fn keep(&self, token: TokenId, slot: SlotId, upload: InterruptedUpload) {
        if self.is_unexpired(&upload) {
            drop(self.by_slot.lock().insert((token, slot), upload));
        }
    }

    /// Returns what is kept of a content: its mode and size; since now, where nothing is said.
    pub(super) fn interrupted_upload(
        &self,
        content: RetainedEntry,
        (mode, size): (Option<u32>, u64),
        login: Login,
        since: Option<Duration>,
    ) -> InterruptedUpload {
        self.bytes.hold_written(&login, size);
        let (content, bytes) = (Some(content), Arc::clone(&self.bytes));
        InterruptedUpload {
            content,
            mode,
            login,
            size,
            interrupted_at: since.unwrap_or_else(|| self.clock.boottime()),
            bytes,
        }
    }

    /// Takes what is kept for a name.
    pub(super) fn take(&self, token: TokenId, slot: &SlotId) -> Option<InterruptedUpload> {
        let upload = self.by_slot.lock().remove(&(token, slot.clone()))?;
        self.is_unexpired(&upload).then_some(upload)
    }

    /// Returns the names in a directory for which something is kept.
    pub(super) fn slots_in(&self, token: TokenId, device: u64, inode: u64) -> Vec<SlotId> {
        let by_slot = self.by_slot.lock();
        let in_directory = by_slot.keys().filter(|(other, slot)| *other == token && slot.is_in(device, inode));
        in_directory.map(|(_, slot)| slot.clone()).collect()
    }

    /// Discards what has been kept for long enough, and what belongs to dead tokens.
    pub(super) fn discard_expired(&self) {
        let tokens: Vec<TokenId> = self.by_slot.lock().keys().map(|(token, _)| *token).collect();
        let now = self.clock.now();
        let is_live = |token: &TokenId| match self.store.token(*token, now) {
            Ok(record) => record.is_some_and(|record| record.state == TokenState::Live),
            // What can't be known is asked again.
            Err(_) => true,
        };
        let mut live: HashMap<TokenId, bool> = HashMap::new();
        for token in tokens {
            live.entry(token).or_insert_with(|| is_live(&token));
        }
        let mut removed = Vec::new();
        self.by_slot.lock().retain(|key, upload| {
            let is_kept = self.is_unexpired(upload) && live.get(&key.0).copied().unwrap_or(true);
            if !is_kept {
                removed.extend(upload.content.take());
            }
            is_kept
        });
        // Not under the lock: removing a large file takes time.
        for content in removed {
            discard_or_warn(&content);
        }
    }

    fn is_unexpired(&self, upload: &InterruptedUpload) -> bool {
        self.policy
            .get()
            .is_some_and(|policy| self.clock.boottime() < upload.interrupted_at.saturating_add(policy.keep_for))
    }
}

impl InterruptedUpload {
    /// Returns its content, to be gone on with.
    pub(super) fn into_content(mut self) -> Option<RetainedEntry> {
        self.content.take()
    }
}

impl Drop for InterruptedUpload {
    fn drop(&mut self) {
        self.bytes.release(&self.login, self.size);
        self.bytes.release_written(self.size);
        if let Some(content) = &self.content {
            discard_or_warn(content);
        }
    }
}

fn discard_or_warn(content: &RetainedEntry) {
    if let Err(error) = content.discard() {
        tracing::warn!(%error, "what is left of an upload stays in staging until the next start");
    }
}

impl Tree {
    /// Keeps what lost connections leave of uploads, from now on by this policy; the first that is set counts.
    pub fn keep_interrupted_uploads(&self, policy: InterruptedUploadPolicy) {
        let _ = self.shared.interrupted_uploads.policy.set(policy);
    }

    /// Discards cut uploads that have been kept for long enough, and those of dead tokens; to be called now and then.
    pub fn discard_expired_uploads(&self) {
        if !self.shared.interrupted_uploads.is_empty() {
            self.shared.interrupted_uploads.discard_expired();
        }
    }

    /// Returns the count of bytes that unfinished uploads hold, for whoever holds some beside the tree.
    pub fn unfinished_upload_bytes(&self) -> Arc<UnfinishedUploadBytes> {
        Arc::clone(&self.shared.interrupted_uploads.bytes)
    }
}
