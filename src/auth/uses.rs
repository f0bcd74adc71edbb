//! When tokens were last used: exact in memory, written down now and then.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::throttle::network;
use crate::domain::{Peer, TokenExpiry, TokenId, UnixMillis};
use crate::store::{AddressSeen, ChainToken, LastUseRecord, TokenUse};

/// How often the uses of a token without a window are written down.
const WITHOUT_WINDOW: Duration = Duration::from_secs(60);
/// How many networks of a token memory tells apart; the store knows more.
const NETWORKS: usize = 16;
const NEVER: i64 = i64::MIN;

/// The last uses of all tokens that a session holds, and of those with a use to be written down.
#[derive(Default)]
pub(super) struct Uses {
    points: Mutex<HashMap<TokenId, Arc<UsePoint>>>,
}

/// The last use of one token, shared by all that hold it.
pub(super) struct UsePoint {
    at: AtomicI64,
    written: AtomicI64,
    unwritten: AtomicBool,
    sighted: AtomicBool,
    /// Whether the token has expired for good, and whether that is not written down yet.
    expired: AtomicBool,
    expiry_unwritten: AtomicBool,
    by: Mutex<Users>,
    interval_ms: AtomicI64,
}

/// Who uses a token.
#[derive(Default)]
struct Users {
    last: Option<Arc<Peer>>,
    networks: Vec<IpAddr>,
    /// Those from networks that memory did not know; not written down yet.
    sighted: Vec<(UnixMillis, Arc<Peer>)>,
}

impl Users {
    /// Notes who uses the token; tells whether it comes from a network that memory does not know.
    fn meet(&mut self, now: UnixMillis, peer: &Arc<Peer>) -> bool {
        if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, peer)) {
            return false;
        }
        self.last = Some(peer.clone());
        let network = network(peer.address);
        if self.networks.contains(&network) || self.sighted.len() >= NETWORKS {
            return false;
        }
        if self.networks.len() >= NETWORKS {
            self.networks.remove(0);
        }
        self.networks.push(network);
        self.sighted.push((now, peer.clone()));
        true
    }
}

impl UsePoint {
    fn new() -> Self {
        Self {
            at: AtomicI64::new(NEVER),
            written: AtomicI64::new(NEVER),
            unwritten: AtomicBool::new(false),
            sighted: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            expiry_unwritten: AtomicBool::new(false),
            by: Mutex::default(),
            interval_ms: AtomicI64::new(0),
        }
    }

    /// Tells whether the token has expired for good, whatever the clock shows now.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Ends the token for good, because it has expired while the clock was steady.
    pub(super) fn expire(&self) {
        if !self.expired.swap(true, Ordering::AcqRel) {
            self.expiry_unwritten.store(true, Ordering::Release);
        }
    }

    fn is_unwritten(&self) -> bool {
        self.unwritten.load(Ordering::Acquire) || self.expiry_unwritten.load(Ordering::Acquire)
    }

    /// Returns the last use; the token's birth when there was none.
    pub(super) fn last(&self) -> UnixMillis {
        UnixMillis::from_millis(self.at.load(Ordering::Acquire))
    }

    /// Notes a use. One that comes late moves nothing back.
    pub(super) fn touch(&self, now: UnixMillis, peer: &Arc<Peer>) {
        self.at.fetch_max(now.as_millis(), Ordering::AcqRel);
        if self.by.lock().meet(now, peer) {
            self.sighted.store(true, Ordering::Release);
        }
        self.unwritten.store(true, Ordering::Release);
    }

    fn learn(&self, link: &ChainToken) {
        self.expired.fetch_or(link.expired, Ordering::AcqRel);
        self.at.fetch_max(link.last_used_at.unwrap_or(link.created_at).as_millis(), Ordering::AcqRel);
        self.written.fetch_max(link.last_used_at.map_or(NEVER, UnixMillis::as_millis), Ordering::AcqRel);
        let interval = match link.expiry {
            TokenExpiry::Sliding { window_ms, .. } => Duration::from_millis(window_ms / 20).max(Duration::from_secs(1)),
            TokenExpiry::Hard(_) | TokenExpiry::Never => WITHOUT_WINDOW,
        };
        self.interval_ms.store(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX), Ordering::Release);
    }

    fn last_use(&self) -> LastUseRecord {
        let peer = self.by.lock().last.clone();
        let peer = peer.as_deref();
        LastUseRecord {
            at: self.last(),
            address: peer.map(|peer| peer.address.to_canonical().to_string()),
            client: peer.and_then(|peer| peer.user_agent.clone()),
            protocol: peer.map(|peer| peer.protocol),
        }
    }

    fn is_due(&self, now: UnixMillis) -> bool {
        let due_at = self.written.load(Ordering::Acquire).saturating_add(self.interval_ms.load(Ordering::Acquire));
        self.unwritten.load(Ordering::Acquire) && due_at <= now.as_millis()
    }

    /// Takes what is to be written down; it counts as written from now on.
    fn take(&self, token: TokenId) -> TokenUse {
        self.unwritten.store(false, Ordering::Release);
        let last = self.last_use();
        self.written.fetch_max(last.at.as_millis(), Ordering::AcqRel);
        TokenUse { token, last_use: last }
    }
}

impl Uses {
    /// Returns a token's last use, joined with what is written down of it.
    pub(super) fn point(&self, link: &ChainToken) -> Arc<UsePoint> {
        let mut points = self.points.lock();
        let point = points.entry(link.token).or_insert_with(|| Arc::new(UsePoint::new())).clone();
        point.learn(link);
        point
    }

    /// Takes the uses that are due to be written down, and forgets tokens that nothing holds.
    pub(super) fn due(&self, now: UnixMillis) -> Vec<TokenUse> {
        self.take(|point| point.is_due(now))
    }

    /// Takes all uses that are not written down.
    pub(super) fn all(&self) -> Vec<TokenUse> {
        self.take(|point| point.unwritten.load(Ordering::Acquire))
    }

    /// Takes the tokens of which it is not written down that they have expired for good.
    pub(super) fn expired(&self) -> Vec<TokenId> {
        let points = self.points.lock();
        let expired = points.iter().filter(|(_, point)| point.expiry_unwritten.swap(false, Ordering::AcqRel));
        expired.map(|(token, _)| *token).collect()
    }

    /// Takes expired tokens back of which that could not be written down.
    pub(super) fn expiry_unwritten(&self, tokens: &[TokenId]) {
        let points = self.points.lock();
        for point in tokens.iter().filter_map(|token| points.get(token)) {
            point.expiry_unwritten.store(true, Ordering::Release);
        }
    }

    /// Takes the sightings that are not written down.
    pub(super) fn sightings(&self) -> Vec<AddressSeen> {
        let points = self.points.lock();
        let sighted = points.iter().filter(|(_, point)| point.sighted.swap(false, Ordering::AcqRel));
        let taken = sighted.map(|(token, point)| (*token, std::mem::take(&mut point.by.lock().sighted)));
        let sighting = |token, (at, peer): (UnixMillis, Arc<Peer>)| {
            let network = network(peer.address);
            AddressSeen { token, at, network, peer: (*peer).clone() }
        };
        taken.flat_map(|(token, of)| of.into_iter().map(move |one| sighting(token, one))).collect()
    }

    /// Takes uses back that could not be written down.
    pub(super) fn unwritten(&self, uses: &[TokenUse]) {
        let points = self.points.lock();
        for point in uses.iter().filter_map(|one| points.get(&one.token)) {
            point.unwritten.store(true, Ordering::Release);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.points.lock().len()
    }

    fn take(&self, which: impl Fn(&UsePoint) -> bool) -> Vec<TokenUse> {
        let mut points = self.points.lock();
        points.retain(|_, point| Arc::strong_count(point) > 1 || point.is_unwritten());
        points.iter().filter(|(_, point)| which(point)).map(|(token, point)| point.take(*token)).collect()
    }
}
