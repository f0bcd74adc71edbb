//! Last uses of tokens: exact in memory, written to the store at intervals.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::throttle::address_prefix;
use crate::domain::{Peer, TokenExpiry, TokenId, UnixMillis};
use crate::store::{AddressSeen, ChainToken, LastUseRecord, TokenUse};

/// Time between two writes of the uses of a token without a sliding window.
const WRITE_INTERVAL_WITHOUT_WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of networks of a token that memory tells apart; the store knows more.
const MAX_REMEMBERED_NETWORKS: usize = 16;
/// Time by which a use has to be ahead of a trusted clock to be corrected: two clocks of one store may differ a little.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(3600);
const NEVER_USED_MS: i64 = i64::MIN;
/// Value of [`LastUsed::used_boottime_ms`] for a use that another process has seen.
const UNKNOWN_BOOTTIME_MS: u64 = u64::MAX;

/// Last uses of all tokens that a session holds, and of those with a use that is not in the store yet.
#[derive(Default)]
pub(super) struct LastUsedTable {
    entries: Mutex<HashMap<TokenId, Arc<LastUsed>>>,
}

/// Last use of one token, shared by all that hold it.
pub(super) struct LastUsed {
    used_at_ms: AtomicI64,
    /// Running time of the machine at the last use that this process has seen.
    used_boottime_ms: AtomicU64,
    written_ms: AtomicI64,
    dirty: AtomicBool,
    /// Whether `peers` has addresses that are not in the store yet. Changed only under the lock of `peers`.
    has_new_addresses: AtomicBool,
    /// Whether the token has expired for good; `expiry_dirty` tells whether the store doesn't know yet.
    expired: AtomicBool,
    expiry_dirty: AtomicBool,
    peers: Mutex<RecentPeers>,
    write_interval_ms: AtomicI64,
}

/// Clients that used a token lately.
#[derive(Default)]
struct RecentPeers {
    last_peer: Option<Arc<Peer>>,
    networks: Vec<IpAddr>,
    /// Clients from networks that memory did not know; not in the store yet.
    new_addresses: Vec<(UnixMillis, Arc<Peer>)>,
}

impl RecentPeers {
    /// Records the client of a use; returns whether its network is new to memory.
    fn observe(&mut self, now: UnixMillis, peer: &Arc<Peer>) -> bool {
        // A session passes the same `Arc` at each use: the common case compares one pointer.
        if self.last_peer.as_ref().is_some_and(|last| Arc::ptr_eq(last, peer)) {
            return false;
        }
        self.last_peer = Some(peer.clone());
        let network = address_prefix(peer.address);
        // Bounded between two flushes: a token that is used from everywhere fills no memory.
        if self.networks.contains(&network) || self.new_addresses.len() >= MAX_REMEMBERED_NETWORKS {
            return false;
        }
        if self.networks.len() >= MAX_REMEMBERED_NETWORKS {
            // Forgetting one costs a query, not an event: the store knows which networks are new.
            self.networks.remove(0);
        }
        self.networks.push(network);
        self.new_addresses.push((now, peer.clone()));
        true
    }
}

impl LastUsed {
    fn new() -> Self {
        Self {
            used_at_ms: AtomicI64::new(NEVER_USED_MS),
            used_boottime_ms: AtomicU64::new(UNKNOWN_BOOTTIME_MS),
            written_ms: AtomicI64::new(NEVER_USED_MS),
            dirty: AtomicBool::new(false),
            has_new_addresses: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            expiry_dirty: AtomicBool::new(false),
            peers: Mutex::default(),
            write_interval_ms: AtomicI64::new(0),
        }
    }

    /// Tells whether the token has expired for good, whatever the clock shows now.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Marks the token as expired for good, because it has expired by the steady time.
    pub(super) fn expire(&self) {
        if !self.expired.swap(true, Ordering::AcqRel) {
            self.expiry_dirty.store(true, Ordering::Release);
        }
    }

    fn is_dirty(&self) -> bool {
        let dirty_flags = [&self.dirty, &self.expiry_dirty, &self.has_new_addresses];
        dirty_flags.iter().any(|flag| flag.load(Ordering::Acquire))
    }

    /// Returns the instant of the last use; that of the token's creation when there was none.
    pub(super) fn used_at(&self) -> UnixMillis {
        UnixMillis::from_millis(self.used_at_ms.load(Ordering::Acquire))
    }

    /// Records a use. A late one moves nothing back.
    pub(super) fn record(&self, now: UnixMillis, boottime_ms: u64, peer: &Arc<Peer>) {
        self.used_at_ms.fetch_max(now.as_millis(), Ordering::AcqRel);
        self.used_boottime_ms.store(boottime_ms, Ordering::Release);
        let mut peers = self.peers.lock();
        if peers.observe(now, peer) {
            self.has_new_addresses.store(true, Ordering::Release);
        }
        drop(peers);
        // Last: a flush that sees the flag finds the use, too.
        self.dirty.store(true, Ordering::Release);
    }

    fn merge_row(&self, link: &ChainToken) {
        // Merged, since either side may be ahead: memory by uses that are not written, the row by another process.
        self.expired.fetch_or(link.expired, Ordering::AcqRel);
        self.used_at_ms.fetch_max(link.last_used_at.unwrap_or(link.created_at).as_millis(), Ordering::AcqRel);
        self.written_ms.fetch_max(link.last_used_at.map_or(NEVER_USED_MS, UnixMillis::as_millis), Ordering::AcqRel);
        // A crash loses the uses of one interval: a token may expire a twentieth of its window early, never late.
        let interval = match link.expiry {
            TokenExpiry::Sliding { window_ms, .. } => Duration::from_millis(window_ms / 20).max(Duration::from_secs(1)),
            TokenExpiry::Hard(_) | TokenExpiry::Never => WRITE_INTERVAL_WITHOUT_WINDOW,
        };
        self.write_interval_ms.store(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX), Ordering::Release);
    }

    /// Moves a use back that is ahead of a clock that is trusted: it was recorded while the clock was wrong.
    fn correct(&self, now: UnixMillis, boottime_ms: u64) {
        let latest_ms = now.saturating_add(MAX_CLOCK_DIFFERENCE).as_millis();
        let used_at_ms = self.used_at_ms.load(Ordering::Acquire);
        // A token that was created under the wrong clock has no use to correct.
        let was_used = self.written_ms.load(Ordering::Acquire) != NEVER_USED_MS || self.dirty.load(Ordering::Acquire);
        if used_at_ms <= latest_ms || !was_used {
            return;
        }
        // By the running time, which no clock has changed; now where only the row tells of the use.
        let elapsed_ms = match self.used_boottime_ms.load(Ordering::Acquire) {
            UNKNOWN_BOOTTIME_MS => 0,
            used_boottime_ms => boottime_ms.saturating_sub(used_boottime_ms),
        };
        let corrected_ms = now.saturating_sub(Duration::from_millis(elapsed_ms)).as_millis();
        // A use that comes meanwhile is left for the next round.
        if self.used_at_ms.compare_exchange(used_at_ms, corrected_ms, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.written_ms.store(NEVER_USED_MS, Ordering::Release);
            self.dirty.store(true, Ordering::Release);
        }
    }

    fn to_record(&self) -> LastUseRecord {
        let peer = self.peers.lock().last_peer.clone();
        let peer = peer.as_deref();
        LastUseRecord {
            at: self.used_at(),
            address: peer.map(|peer| peer.address.to_canonical().to_string()),
            client: peer.and_then(|peer| peer.user_agent.clone()),
            protocol: peer.map(|peer| peer.protocol),
        }
    }

    fn is_due(&self, now: UnixMillis) -> bool {
        let due_at =
            self.written_ms.load(Ordering::Acquire).saturating_add(self.write_interval_ms.load(Ordering::Acquire));
        self.dirty.load(Ordering::Acquire) && due_at <= now.as_millis()
    }

    /// Takes the use that is to be written; the next one is due an interval after [`LastUsedTable::mark_written`].
    fn take_pending(&self, token: TokenId) -> TokenUse {
        // Cleared before the use is read: one that comes in between sets the flag again and is written next time.
        self.dirty.store(false, Ordering::Release);
        TokenUse { token, last_use: self.to_record() }
    }
}

impl LastUsedTable {
    /// Returns a token's last use, merged with the one in its row.
    pub(super) fn entry(&self, link: &ChainToken) -> Arc<LastUsed> {
        let mut entries = self.entries.lock();
        let entry = entries.entry(link.token).or_insert_with(|| Arc::new(LastUsed::new())).clone();
        entry.merge_row(link);
        entry
    }

    /// Moves uses back that are ahead of the clock, which is trusted. Returns the instant after which a use in the store
    /// is ahead of it, too.
    pub(super) fn correct(&self, now: UnixMillis, boottime_ms: u64) -> UnixMillis {
        self.entries.lock().values().for_each(|entry| entry.correct(now, boottime_ms));
        now.saturating_add(MAX_CLOCK_DIFFERENCE)
    }

    /// Takes the uses that are due to be written, and removes tokens that nothing holds.
    pub(super) fn take_due(&self, now: UnixMillis) -> Vec<TokenUse> {
        self.take_where(|entry| entry.is_due(now))
    }

    /// Takes all uses that are not in the store.
    pub(super) fn take_all(&self) -> Vec<TokenUse> {
        self.take_where(|entry| entry.dirty.load(Ordering::Acquire))
    }

    /// Takes the tokens that have expired for good while the store doesn't know yet.
    pub(super) fn take_expired(&self) -> Vec<TokenId> {
        let entries = self.entries.lock();
        let expired = entries.iter().filter(|(_, entry)| entry.expiry_dirty.swap(false, Ordering::AcqRel));
        expired.map(|(token, _)| *token).collect()
    }

    /// Takes back expired tokens that could not be written.
    pub(super) fn restore_expired(&self, tokens: &[TokenId]) {
        let mut entries = self.entries.lock();
        for token in tokens {
            // Between the two calls nothing told that the entry has something to write: it may have been removed.
            let entry = entries.entry(*token).or_insert_with(|| Arc::new(LastUsed::new()));
            entry.expired.store(true, Ordering::Release);
            entry.expiry_dirty.store(true, Ordering::Release);
        }
    }

    /// Returns the clients from new networks that are not in the store, those of one token in a row. They stay in
    /// memory, and count for its bound, until [`LastUsedTable::mark_addresses_written`].
    pub(super) fn new_addresses(&self) -> Vec<AddressSeen> {
        let entries = self.entries.lock();
        let mut addresses = Vec::new();
        for (token, entry) in entries.iter().filter(|(_, entry)| entry.has_new_addresses.load(Ordering::Acquire)) {
            addresses.extend(entry.peers.lock().new_addresses.iter().map(|(at, peer)| {
                let network = address_prefix(peer.address);
                AddressSeen { token: *token, at: *at, network, peer: (**peer).clone() }
            }));
        }
        addresses
    }

    /// Removes addresses that are in the store now from memory. Takes them as [`LastUsedTable::new_addresses`] returned
    /// them.
    pub(super) fn mark_addresses_written(&self, written: &[AddressSeen]) {
        let entries = self.entries.lock();
        for of_token in written.chunk_by(|one, next| one.token == next.token) {
            let Some(entry) = of_token.first().and_then(|seen| entries.get(&seen.token)) else { continue };
            let mut peers = entry.peers.lock();
            // One by one: others may have been added since they were read.
            let is_written = |network| of_token.iter().any(|seen| seen.network == network);
            peers.new_addresses.retain(|(_, peer)| !is_written(address_prefix(peer.address)));
            entry.has_new_addresses.store(!peers.new_addresses.is_empty(), Ordering::Release);
        }
    }

    /// Records that uses are in the store.
    pub(super) fn mark_written(&self, uses: &[TokenUse]) {
        let entries = self.entries.lock();
        for TokenUse { token, last_use } in uses {
            if let Some(entry) = entries.get(token) {
                entry.written_ms.fetch_max(last_use.at.as_millis(), Ordering::AcqRel);
            }
        }
    }

    /// Takes back uses that could not be written.
    pub(super) fn restore(&self, uses: &[TokenUse]) {
        let entries = self.entries.lock();
        // `written_ms` was not moved, so that they are due at once: after a whole interval more, a crash would lose the
        // uses of two.
        for entry in uses.iter().filter_map(|token_use| entries.get(&token_use.token)) {
            entry.dirty.store(true, Ordering::Release);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.entries.lock().len()
    }

    fn take_where(&self, is_wanted: impl Fn(&LastUsed) -> bool) -> Vec<TokenUse> {
        let mut entries = self.entries.lock();
        // An entry with something to write stays: the next session would start from the older use in the row.
        entries.retain(|_, entry| Arc::strong_count(entry) > 1 || entry.is_dirty());
        entries.iter().filter(|(_, entry)| is_wanted(entry)).map(|(token, entry)| entry.take_pending(*token)).collect()
    }
}
