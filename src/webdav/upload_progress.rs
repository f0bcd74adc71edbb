//! State of a resumable upload, which one request at a time may hold and append to.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Result};
use super::headers;
use super::saved_request::SavedRequest;
use super::upload_quota::{UploadQuota, UploadReservation};
use crate::domain::{Login, TokenId, UnixMillis};
use crate::tree::{StagedPart, View};

/// Time after the last request at which an unfinished upload expires.
pub(super) const UPLOAD_MAX_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Time that a request waits for another one on the same upload to end after it was cancelled.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Resumable upload: each request continues where the last one ended.
pub(super) struct ResumableUpload {
    /// Row of the upload in the store.
    pub(super) id: i64,
    /// Token that created the upload.
    pub(super) token: TokenId,
    /// User of that token.
    pub(super) login: Login,
    /// Request that created the upload: its path, its conditions, and the announced properties of the file.
    pub(super) saved_request: SavedRequest,
    /// Announced length of the complete upload.
    pub(super) length: Option<u64>,
    /// Content in staging.
    pub(super) staged_part: StagedPart,
    state: Mutex<ResumableState>,
    released: Notify,
}

struct ResumableState {
    progress: Option<ResumableProgress>,
    cancel_request: CancellationToken,
    last_used: UnixMillis,
    deleted: bool,
}

/// Progress of a resumable upload. Whoever holds it may append; there is one for each upload.
pub(super) struct ResumableProgress {
    /// Number of received bytes.
    pub(super) offset: u64,
    /// Number of received bytes that are recorded in the store.
    recorded_offset: u64,
    /// Reservation for the received bytes, and for those that a request in progress announces.
    pub(super) reservation: UploadReservation,
}

impl ResumableUpload {
    /// Builds an upload from what the store keeps of it, just after its creation as well as after a restart.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the saved request announces a length that is not a number.
    pub(super) fn new(
        id: i64,
        (token, login): (TokenId, Login),
        saved_request: SavedRequest,
        (staged_part, progress): (StagedPart, ResumableProgress),
        last_used: UnixMillis,
    ) -> Result<Self> {
        let length = headers::upload_length(saved_request.headers())?;
        let state = ResumableState {
            progress: Some(progress),
            cancel_request: CancellationToken::new(),
            last_used,
            deleted: false,
        };
        let (state, released) = (Mutex::new(state), Notify::new());
        Ok(Self { id, token, login, saved_request, length, staged_part, state, released })
    }

    /// Tells whether the upload has expired.
    pub(super) fn is_expired(&self, now: UnixMillis) -> bool {
        let state = self.state.lock();
        // In use by a request, it does not expire.
        state.progress.is_some() && is_expired(state.last_used, now)
    }

    /// Acquires the progress; a request that holds it is cancelled and waited for.
    ///
    /// # Errors
    /// [`Error::UploadInUse`] when that request does not end in time; [`Error::NotFound`] when the upload was deleted
    /// in the meantime.
    pub(super) async fn take_over(&self, now: UnixMillis) -> Result<(ResumableProgress, CancellationToken)> {
        let takeover = tokio::time::timeout(TAKEOVER_TIMEOUT, async {
            loop {
                let released = self.released.notified();
                let mut released = std::pin::pin!(released);
                // Registered before the state is read: a release in between would be missed otherwise.
                released.as_mut().enable();
                {
                    let mut state = self.state.lock();
                    state.last_used = now;
                    if state.deleted {
                        return Err(Error::NotFound);
                    }
                    if let Some(progress) = state.progress.take() {
                        // A new one: the old one is cancelled.
                        state.cancel_request = CancellationToken::new();
                        return Ok((progress, state.cancel_request.clone()));
                    }
                    state.cancel_request.cancel();
                }
                released.await;
            }
        });
        takeover.await.map_err(|_| Error::UploadInUse)?
    }

    /// Puts the progress back; the reservation for announced bytes that did not arrive is released.
    pub(super) fn release(&self, mut progress: ResumableProgress) {
        // What was announced and did not arrive must not count until the upload expires.
        progress.reservation.shrink_to(progress.offset);
        let mut state = self.state.lock();
        // Deleted meanwhile: dropping the progress releases its reservation.
        if !state.deleted {
            state.progress = Some(progress);
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// Records the offset in the store, after which it may be sent to the client; may block.
    ///
    /// # Errors
    /// The errors of the tree.
    pub(super) fn record_offset(&self, view: &View, progress: &mut ResumableProgress, now: UnixMillis) -> Result<()> {
        if progress.recorded_offset != progress.offset {
            // Syncs the content first (unless durability is relaxed), so that a recorded offset is on disk.
            view.record_progress(self.id, &self.staged_part, progress.offset, now)?;
            progress.recorded_offset = progress.offset;
        }
        Ok(())
    }

    /// Marks the upload as deleted for the request that is using it, and for those that wait.
    pub(super) fn mark_deleted(&self) {
        let mut state = self.state.lock();
        state.deleted = true;
        state.cancel_request.cancel();
        state.progress = None;
        drop(state);
        self.released.notify_waiters();
    }
}

impl ResumableProgress {
    /// Returns the progress of an upload all of which is recorded.
    pub(super) fn recorded(quota: &UploadQuota, login: &Login, offset: u64) -> Self {
        Self { offset, recorded_offset: offset, reservation: quota.reserve_written(login, offset) }
    }

    /// Returns the number of received bytes that are not recorded yet.
    pub(super) fn unrecorded_bytes(&self) -> u64 {
        self.offset.saturating_sub(self.recorded_offset)
    }
}

/// Tells whether an upload that was last used at one time has expired at another.
pub(super) fn is_expired(last_used: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_duration_since(last_used) > UPLOAD_MAX_IDLE
}
