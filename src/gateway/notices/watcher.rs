//! The look-out for what no other module records: tokens and certificate that expire soon, full disks and quotas, and parts of
//! the tree that are not available. What was announced is remembered in the store: a restart announces nothing twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::settings::NoticeSettings;
use crate::auth::Authenticator;
use crate::domain::{Notice, NoticeContent, NoticeDisk, TreePath, UnixMillis, notice_text};
use crate::gateway::reload::GatewayReloader;
use crate::store::{DiskFault, Result, StorageUse, Store};
use crate::tree::{Tree, TreeOutage};

const SECONDS_PER_DAY: u64 = 86_400;
/// Beginning of the names of conditions that are parts of the tree.
const ROOT_CONDITION: &str = "root ";
/// Beginning of the names of conditions that are storage quotas.
const QUOTA_CONDITION: &str = "quota ";
/// Part of a storage quota from which on it is announced, and how much less there must be before it is announced again.
const QUOTA_WARNING_PERCENT: u64 = 90;
const QUOTA_MARGIN_PERCENT: u64 = 5;

/// Modules that notices are about.
#[derive(Clone)]
pub(in crate::gateway) struct NoticeSources {
    pub(super) store: Store,
    pub(super) auth: Authenticator,
    tree: Tree,
    reloader: GatewayReloader,
}

impl NoticeSources {
    pub(in crate::gateway) fn new(store: &Store, tree: &Tree, reloader: &GatewayReloader) -> Self {
        Self { store: store.clone(), auth: reloader.auth.clone(), tree: tree.clone(), reloader: reloader.clone() }
    }
}

/// The look-out of a gateway.
pub(in crate::gateway) struct NoticeWatcher {
    sources: NoticeSources,
    settings: NoticeSettings,
    /// Outages that the store knows of; `None` before the first look, and after a failed one.
    known_outages: Option<Vec<(TreePath, TreeOutage)>>,
    next_check: Instant,
}

impl NoticeWatcher {
    pub(in crate::gateway) fn new(sources: NoticeSources, settings: NoticeSettings) -> Self {
        Self { sources, settings, known_outages: None, next_check: Instant::now() }
    }

    /// Looks until `stop` is cancelled.
    pub(in crate::gateway) async fn run(mut self, stop: CancellationToken) {
        let interval = self.settings.timings.poll_interval;
        // First a wait, in which the mounts are checked for the first time.
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let look = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            self = match look.await {
                Ok(watcher) => watcher,
                Err(error) => return tracing::error!(%error, "the look-out for notices has ended"),
            };
        }
    }

    fn look(&mut self) {
        log_failure("the served directory", self.look_at_tree());
        if Instant::now() < self.next_check {
            return;
        }
        self.next_check = Instant::now() + self.settings.timings.check_interval;
        // By the time that expirations go by, which a wrong clock does not change at once.
        let now = self.sources.auth.clock().steady_time();
        log_failure("tokens", self.look_at_tokens(now));
        log_failure("the certificate", self.look_at_certificate(now));
        log_failure("disks", self.look_at_disks(now));
        log_failure("storage quotas", self.look_at_quotas(now));
    }

    fn now(&self) -> UnixMillis {
        self.sources.auth.clock().now()
    }

    fn look_at_tree(&mut self) -> Result<()> {
        let outages = self.sources.tree.outages();
        if self.known_outages.as_ref() == Some(&outages) {
            return Ok(());
        }
        // Until all of it is in the store.
        self.known_outages = None;
        let store = &self.sources.store;
        for (path, outage) in &outages {
            let (path, reason) = (notice_text(&path.to_string()), notice_text(&outage.to_string()));
            let name = format!("{ROOT_CONDITION}{path}");
            let notice = Notice::new(self.now(), NoticeContent::RootLost { path, reason });
            // Whatever the reason becomes: one notice for each outage.
            store.begin_condition(&name, "lost", Some(&notice))?;
        }
        for path in store.conditions_beginning_with(ROOT_CONDITION)? {
            if !outages.iter().any(|(lost, _)| notice_text(&lost.to_string()) == path) {
                let name = format!("{ROOT_CONDITION}{path}");
                let notice = Notice::new(self.now(), NoticeContent::RootBack { path });
                store.end_condition(&name, Some(&notice))?;
            }
        }
        self.known_outages = Some(outages);
        Ok(())
    }

    fn look_at_tokens(&self, now: UnixMillis) -> Result<()> {
        // A use in memory may extend a token: without these none may be announced.
        if self.sources.auth.flush_uses() {
            self.sources.store.announce_expiring_tokens(&self.settings.expiry_days, now)?;
        }
        Ok(())
    }

    fn look_at_certificate(&self, now: UnixMillis) -> Result<()> {
        let Some(validity) = self.sources.reloader.certificate_validity() else { return Ok(()) };
        let not_after = unix_millis(validity.not_after);
        let left = not_after.saturating_duration_since(now);
        let is_due = |days: &u32| {
            let within = Duration::from_secs(u64::from(*days) * SECONDS_PER_DAY);
            // As for tokens: one that is valid for no longer is not announced.
            left <= within && validity.lifetime() > within
        };
        let mut days: Vec<_> = self.settings.expiry_days.iter().copied().filter(is_due).collect();
        days.sort_unstable();
        let days_left = left.as_secs() / SECONDS_PER_DAY;
        let content = NoticeContent::CertificateExpiring { days_left, expires_at: not_after.to_string() };
        let notice = Notice::new(now, content);
        for (position, days) in days.iter().enumerate() {
            // The smallest number alone is announced; the larger ones are over with it.
            let notice = Some(&notice).filter(|_| position == 0);
            let value = not_after.as_millis().to_string();
            self.sources.store.begin_condition(&format!("certificate {days}"), &value, notice)?;
        }
        Ok(())
    }

    fn look_at_disks(&self, now: UnixMillis) -> Result<()> {
        let NoticeSources { store, tree, .. } = &self.sources;
        self.look_at_disk(NoticeDisk::State, store.state_disk_free_bytes(), store.disk_fault(), now)?;
        // Not asked while the root is away: its file system may hang.
        let is_root_available = !tree.outages().iter().any(|(path, _)| path.is_root());
        match is_root_available.then(|| tree.free_bytes()) {
            Some(Ok(free)) => self.look_at_disk(NoticeDisk::Root, free, None, now),
            Some(Err(_)) | None => Ok(()),
        }
    }

    fn look_at_quotas(&self, now: UnixMillis) -> Result<()> {
        let store = &self.sources.store;
        let quotas = store.storage_use()?;
        for StorageUse { account, used, max } in &quotas {
            let name = format!("{QUOTA_CONDITION}{account}");
            let percent = used.saturating_mul(100) / max.bytes().max(1);
            if percent >= QUOTA_WARNING_PERCENT {
                let content = NoticeContent::QuotaNearlyUsed {
                    account: account.to_string(),
                    used_bytes: *used,
                    quota_bytes: max.bytes(),
                };
                store.begin_condition(&name, "nearly used", Some(&Notice::new(now, content)))?;
            } else if percent < QUOTA_WARNING_PERCENT - QUOTA_MARGIN_PERCENT {
                store.end_condition(&name, None)?;
            }
        }
        // Of accounts that have no quota any more.
        for account in store.conditions_beginning_with(QUOTA_CONDITION)? {
            if !quotas.iter().any(|quota| quota.account.to_string() == account) {
                store.end_condition(&format!("{QUOTA_CONDITION}{account}"), None)?;
            }
        }
        Ok(())
    }

    fn look_at_disk(&self, disk: NoticeDisk, free: u64, fault: Option<DiskFault>, now: UnixMillis) -> Result<()> {
        let store = &self.sources.store;
        let name = |level: &str| format!("disk {disk:?} {level}");
        let effect = fault.map(DiskFault::message).unwrap_or_default().to_owned();
        let low = Notice::new(now, NoticeContent::DiskLow { disk, free_bytes: free, effect });
        let min = self.settings.min_free_bytes;
        if matches!(fault, Some(DiskFault::Full | DiskFault::BallastInUse)) {
            // Announced also where little space was announced before.
            store.begin_condition(&name("full"), "", Some(&low))?;
            store.begin_condition(&name("low"), "", None)?;
        } else if free < min || fault.is_some() {
            store.begin_condition(&name("low"), "", Some(&low))?;
        } else if free >= min.saturating_add(min / 4) {
            // With a margin, so that a disk at the bound is not announced again and again.
            store.end_condition(&name("full"), None)?;
            let recovered = Notice::new(now, NoticeContent::DiskRecovered { disk, free_bytes: free });
            store.end_condition(&name("low"), Some(&recovered))?;
        }
        Ok(())
    }
}

fn log_failure(what: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "notices about {what} can't be queued yet");
    }
}

fn unix_millis(time: SystemTime) -> UnixMillis {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::from_millis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
