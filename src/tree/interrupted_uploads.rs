//! Interrupted uploads: SFTP uploads to new names whose connection was lost. Their content is kept in staging for the
//! token that sent it, so that a client can resume them.
//!
//! They have no name in the tree. Sessions of their token see them under the names that they were for; the first
//! session that looks one up takes it, and returns it when it ends. They are known in memory only: a restart of the
//! server sweeps them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::Tree;
use super::fs::RetainedEntry;
use super::slot_id::SlotId;
use crate::auth::Clock;
use crate::domain::{Login, TokenId, UploadSpaceLimits, UserQuotaLimits};
use crate::store::{Store, TokenState};

/// Maximum number of interrupted uploads that are kept for one token.
const INTERRUPTED_UPLOADS_PER_TOKEN: usize = 64;
/// Maximum number of interrupted uploads that are kept for all tokens of one user.
const INTERRUPTED_UPLOADS_PER_USER: usize = 256;

/// Number of bytes that unfinished uploads of all protocols hold, by user and in total.
#[derive(Debug, Default)]
pub struct UnfinishedUploadBytes {
    /// Bytes that were announced or written.
    reserved: Mutex<ReservedBytes>,
    /// The part of them that is written, and so no longer free on the disk.
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct ReservedBytes {
    total: u64,
    by_user: HashMap<Login, u64>,
}

impl UnfinishedUploadBytes {
    /// Tells whether a user may hold `bytes` more within the limits.
    pub fn can_reserve(&self, login: &Login, bytes: u64, limits: UserQuotaLimits) -> bool {
        self.reserved.lock().can_reserve(login, bytes, limits)
    }

    /// Reserves `bytes` more for a user if the limits allow it; returns whether they do.
    pub fn try_reserve(&self, login: &Login, bytes: u64, limits: UserQuotaLimits) -> bool {
        let mut reserved = self.reserved.lock();
        let fits = reserved.can_reserve(login, bytes, limits);
        if fits {
            reserved.add(login, bytes);
        }
        fits
    }

    /// Reserves bytes that are written already, even beyond the limits.
    pub fn reserve_written(&self, login: &Login, bytes: u64) {
        self.reserved.lock().add(login, bytes);
        self.record_written(bytes);
    }

    /// Releases reserved bytes of a user.
    pub fn release(&self, login: &Login, bytes: u64) {
        let mut reserved = self.reserved.lock();
        reserved.total = reserved.total.saturating_sub(bytes);
        if let Some(user_bytes) = reserved.by_user.get_mut(login) {
            *user_bytes = user_bytes.saturating_sub(bytes);
            // The map would otherwise grow with every user that ever sent an upload.
            if *user_bytes == 0 {
                reserved.by_user.remove(login);
            }
        }
    }

    /// Records that `bytes` of the reserved ones were written.
    pub fn record_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Records that `bytes` of the written ones were removed from disk.
    pub fn release_written(&self, bytes: u64) {
        self.written.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Returns the number of written bytes.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

impl ReservedBytes {
    fn can_reserve(&self, login: &Login, bytes: u64, limits: UserQuotaLimits) -> bool {
        let user_bytes = self.by_user.get(login).copied().unwrap_or(0);
        let within = |reserved: u64, limit: u64| reserved.checked_add(bytes).is_some_and(|sum| sum <= limit);
        within(user_bytes, limits.per_user) && within(self.total, limits.total)
    }

    fn add(&mut self, login: &Login, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        if bytes > 0 {
            let user_bytes = self.by_user.entry(login.clone()).or_default();
            *user_bytes = user_bytes.saturating_add(bytes);
        }
    }
}

/// Retention time and space of interrupted uploads.
#[derive(Clone, Copy, Debug)]
pub struct InterruptedUploadPolicy {
    /// Retention time after the loss of the connection; zero discards them at once.
    pub keep_for: Duration,
    /// Space that unfinished uploads of all protocols may hold.
    pub space: UploadSpaceLimits,
}

/// The interrupted uploads of a tree.
pub(super) struct InterruptedUploads {
    store: Store,
    clock: Clock,
    policy: OnceLock<InterruptedUploadPolicy>,
    bytes: Arc<UnfinishedUploadBytes>,
    by_slot: Mutex<HashMap<(TokenId, SlotId), InterruptedUpload>>,
}

/// An interrupted upload; its content is removed from staging when this is dropped.
pub(super) struct InterruptedUpload {
    content: Option<RetainedEntry>,
    /// Mode that the client requested for the file.
    pub(super) mode: Option<u32>,
    login: Login,
    size: u64,
    /// Time since boot at which the connection was lost: no change of the wall clock makes it older.
    pub(super) interrupted_at: Duration,
    bytes: Arc<UnfinishedUploadBytes>,
}

impl InterruptedUploads {
    /// Creates an empty table; nothing is kept before a policy is set.
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        let (policy, bytes, by_slot) = (OnceLock::new(), Arc::default(), Mutex::default());
        Self { store, clock, policy, bytes, by_slot }
    }

    /// Returns the number of uploads that are kept.
    fn len(&self) -> usize {
        self.by_slot.lock().len()
    }

    /// Tells whether no upload is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.lock().is_empty()
    }

    /// Tells whether one more upload of `size` bytes may be kept for a token, with `free` bytes free on the disk.
    pub(super) fn admits(&self, token: TokenId, login: &Login, size: u64, free: u64) -> bool {
        let Some(policy) = self.policy.get().filter(|policy| !policy.keep_for.is_zero()) else { return false };
        // Expired uploads must not use up the space of this one.
        self.discard_expired();
        let by_slot = self.by_slot.lock();
        let of_token = by_slot.keys().filter(|(other, _)| *other == token).count();
        let of_user = by_slot.values().filter(|upload| upload.login == *login).count();
        let fits = self.bytes.can_reserve(login, size, policy.space.limit_bytes(free, self.bytes.written()));
        // Without content there is nothing to resume.
        size > 0 && fits && of_token < INTERRUPTED_UPLOADS_PER_TOKEN && of_user < INTERRUPTED_UPLOADS_PER_USER
    }

    /// Keeps an upload, unless it expired while a session had it; it replaces an older one for the same slot.
    pub(super) fn keep(&self, token: TokenId, slot: SlotId, upload: InterruptedUpload) {
        if self.is_unexpired(&upload) {
            let replaced = self.by_slot.lock().insert((token, slot), upload);
            // Without the lock: its content is removed from the disk, which may take long.
            drop(replaced);
        }
    }

    /// Creates an interrupted upload from content in staging; without `since` it was interrupted now.
    pub(super) fn interrupted_upload(
        &self,
        content: RetainedEntry,
        (mode, size): (Option<u32>, u64),
        login: Login,
        since: Option<Duration>,
    ) -> InterruptedUpload {
        self.bytes.reserve_written(&login, size);
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

    /// Takes the upload that is kept for a slot.
    pub(super) fn take(&self, token: TokenId, slot: &SlotId) -> Option<InterruptedUpload> {
        let upload = self.by_slot.lock().remove(&(token, slot.clone()))?;
        self.is_unexpired(&upload).then_some(upload)
    }

    /// Returns the slots in a directory for which an upload is kept.
    pub(super) fn slots_in(&self, token: TokenId, device: u64, inode: u64) -> Vec<SlotId> {
        let by_slot = self.by_slot.lock();
        let in_directory = by_slot.keys().filter(|(other, slot)| *other == token && slot.is_in(device, inode));
        in_directory.map(|(_, slot)| slot.clone()).collect()
    }

    /// Discards the uploads that have expired, and those of inactive tokens.
    pub(super) fn discard_expired(&self) {
        // Copied, so that the store is not asked under the lock.
        let tokens: Vec<TokenId> = self.by_slot.lock().keys().map(|(token, _)| *token).collect();
        let now = self.clock.now();
        let is_live = |token: &TokenId| match self.store.token(*token, now) {
            Ok(record) => record.is_some_and(|record| record.state == TokenState::Live),
            // When the store fails, the upload is kept until the next call.
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
                // Taken out, so that the drop of the upload has no file to remove under the lock.
                removed.extend(upload.content.take());
            }
            is_kept
        });
        // After the lock is released: removing a large file takes long, and each look-up of a session would wait.
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
    /// Returns the content, which is then no longer removed on drop.
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
        tracing::warn!(%error, "an interrupted upload stays in staging until the next start");
    }
}

impl Tree {
    /// Keeps interrupted uploads from now on, by this policy. Only the first call has an effect.
    pub fn keep_interrupted_uploads(&self, policy: InterruptedUploadPolicy) {
        let _ = self.shared.interrupted_uploads.policy.set(policy);
    }

    /// Discards the interrupted uploads that have expired, and those of inactive tokens. Call it periodically.
    pub fn discard_expired_uploads(&self) {
        if !self.shared.interrupted_uploads.is_empty() {
            self.shared.interrupted_uploads.discard_expired();
        }
    }

    /// Returns the number of interrupted uploads that may be resumed.
    pub fn interrupted_upload_count(&self) -> usize {
        self.shared.interrupted_uploads.len()
    }

    /// Returns the counter of bytes of unfinished uploads, for protocols that keep uploads of their own.
    pub fn unfinished_upload_bytes(&self) -> Arc<UnfinishedUploadBytes> {
        Arc::clone(&self.shared.interrupted_uploads.bytes)
    }
}
