//! Bounds on the connections of a listener: in all, of each user, of strangers, and of strangers from each address.
//!
//! A stranger is a connection whose caller has proven nothing yet. At a bound a new connection takes the place of the
//! one that has waited longest for its caller, once that has had a moment: whoever holds places and asks for nothing
//! keeps nobody out, and a caller who is being answered is never sent away for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection_activity::{ActiveRequest, ConnectionActivity, running_time};

/// Time in which a stranger's request is answered unless its sender is slow; after that he counts as one who waits.
const UNAUTHENTICATED_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a connection has for its first request, or its next, before another may take its place.
const MIN_IDLE_BEFORE_EVICTION: Duration = Duration::from_secs(1);
/// Connections of an address that may wait for a permit, for each that it may have open unauthenticated; and at least. The
/// first use of a token takes a run of argon2: what arrives from its address meanwhile waits and is not refused.
const PENDING_OF_ADDRESS_FACTOR_AND_MIN: (usize, usize) = (2, 32);
/// The same for all addresses together: so much more that it takes eight addresses to fill it.
const PENDING_TOTAL_FACTOR_AND_MIN: (usize, usize) = (4, 256);
/// How long a connection waits for a permit at most, and how often it asks for one.
const PERMIT_WAIT_TIMEOUT_AND_POLL_INTERVAL: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_millis(100));
/// Maximum number of connections that were told to end and have not ended yet, beyond the bound on all connections.
const MAX_CLOSING_CONNECTIONS: usize = 64;

/// Bounds on the connections that a listener has open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub connections: usize,
    /// Of one user.
    pub per_user: usize,
    /// Of callers who have not proven themselves.
    pub unauthenticated: usize,
    /// Of such callers from one address (one /64 of IPv6).
    pub unauthenticated_per_address: usize,
}

/// Numbers of connections of a listener, by their state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionUsage {
    /// Of users.
    pub authenticated: usize,
    /// Of callers who have not proven themselves.
    pub unauthenticated: usize,
    /// Told to end in favour of others.
    pub closing: usize,
    /// Without a permit yet.
    pub waiting: usize,
    /// Bound on those without a permit.
    pub max_waiting: usize,
}

/// Bounds on the connections of a listener that wait for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingLimits {
    /// In all.
    pub(super) total: usize,
    /// From one address.
    pub(super) per_address: usize,
}

impl ConnectionLimits {
    /// Returns how many connections may wait for a permit.
    pub(super) fn pending(&self) -> PendingLimits {
        let (factor, min) = PENDING_TOTAL_FACTOR_AND_MIN;
        // Each takes a descriptor: never more than the connections for which descriptors were set aside.
        let total = (self.unauthenticated * factor).max(min).min(self.connections);
        let (factor, min) = PENDING_OF_ADDRESS_FACTOR_AND_MIN;
        let per_address = (self.unauthenticated_per_address * factor).max(min).min(total);
        PendingLimits { total, per_address }
    }
}

/// Table of the connections of a listener. Clones share it.
#[derive(Clone, Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    table: Arc<Mutex<ConnectionTable>>,
    /// Notified for each permit of an unauthenticated connection that is given back.
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    next_id: u64,
    connections: HashMap<u64, OpenConnection>,
    unauthenticated: usize,
    closing: usize,
    unauthenticated_by_address: HashMap<IpAddr, usize>,
    connections_by_user: HashMap<Arc<str>, usize>,
    pending: usize,
    pending_by_address: HashMap<IpAddr, usize>,
}

/// An open connection.
#[derive(Debug)]
struct OpenConnection {
    owner: OpenConnectionOwner,
    activity: Arc<ConnectionActivity>,
    eviction: CancellationToken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OpenConnectionOwner {
    Unauthenticated(IpAddr),
    User(Arc<str>),
    /// It was told to end.
    Closing,
}

impl OpenConnection {
    /// Returns since when the connection waits for its caller; none while he is being answered, or may be about to ask.
    fn evictable_since(&self, now: Duration) -> Option<Duration> {
        match self.owner {
            OpenConnectionOwner::Closing => None,
            _ if !self.activity.is_answering() => Some(self.activity.idle_since()),
            OpenConnectionOwner::Unauthenticated(_) => {
                Some(self.activity.idle_since() + UNAUTHENTICATED_REQUEST_TIMEOUT)
            }
            OpenConnectionOwner::User(_) => None,
        }
        .filter(|since| now.saturating_sub(*since) >= MIN_IDLE_BEFORE_EVICTION)
    }
}

impl ConnectionLimiter {
    /// Returns a gate that nobody has passed.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self { limits, table: Arc::default(), freed: Arc::default() }
    }

    /// Lets a connection in, as a stranger. At a bound it takes the place of another, which is told to end.
    ///
    /// Returns none where nobody has waited long enough to make room.
    pub fn acquire(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let (address, limits) = (address_network(address), self.limits);
        let mut table = self.table.lock();
        if table.unauthenticated_from(address) >= limits.unauthenticated_per_address {
            table.evict_unauthenticated(|from| from == address)?;
        } else if table.unauthenticated >= limits.unauthenticated {
            table.evict_from_busiest_address()?;
        }
        if table.connections.len() - table.closing >= limits.connections {
            table.evict_from_busiest_address().or_else(|| table.evict_from_busiest_user())?;
        }
        if table.connections.len() >= limits.connections.saturating_add(MAX_CLOSING_CONNECTIONS) {
            return None;
        }
        let (connection_id, owner) = (table.next_id, OpenConnectionOwner::Unauthenticated(address));
        let (activity, eviction) = (Arc::<ConnectionActivity>::default(), CancellationToken::new());
        table.next_id += 1;
        table.count_owner(&owner);
        let open = OpenConnection { owner, activity: Arc::clone(&activity), eviction: eviction.clone() };
        table.connections.insert(connection_id, open);
        Some(ConnectionPermit { limiter: self.clone(), connection_id, activity, eviction })
    }

    /// Lets a connection wait that got no permit; `None` where too many wait.
    pub(super) fn begin_wait(&self, address: IpAddr) -> Option<PendingConnection> {
        let (limits, network) = (self.limits.pending(), address_network(address));
        let mut table = self.table.lock();
        let from_here = table.pending_by_address.get(&network).copied().unwrap_or(0);
        if table.pending >= limits.total || from_here >= limits.per_address {
            return None;
        }
        table.pending += 1;
        table.pending_by_address.insert(network, from_here + 1);
        Some(PendingConnection { limiter: self.clone(), address })
    }

    /// Returns the bounds.
    pub fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Returns how many connections are open and wait, by their state.
    pub fn usage(&self) -> ConnectionUsage {
        let table = self.table.lock();
        let (unauthenticated, closing) = (table.unauthenticated, table.closing);
        let authenticated = table.connections.len().saturating_sub(unauthenticated + closing);
        let (waiting, max_waiting) = (table.pending, self.limits.pending().total);
        ConnectionUsage { authenticated, unauthenticated, closing, waiting, max_waiting }
    }

    /// Returns how many connections are open.
    pub fn connection_count(&self) -> usize {
        self.table.lock().connections.len()
    }
}

/// Place of one connection; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: ConnectionLimiter,
    connection_id: u64,
    activity: Arc<ConnectionActivity>,
    eviction: CancellationToken,
}

/// A connection that waits for a permit; counts for the bounds on those that wait until it is dropped.
#[derive(Debug)]
pub(super) struct PendingConnection {
    limiter: ConnectionLimiter,
    address: IpAddr,
}

impl PendingConnection {
    /// Waits some seconds for a permit; `None` where there was none in that time.
    pub(super) async fn wait(self) -> Option<ConnectionPermit> {
        let (timeout, poll_interval) = PERMIT_WAIT_TIMEOUT_AND_POLL_INTERVAL;
        let started_at = Instant::now();
        while started_at.elapsed() < timeout {
            // One of those that wait is woken for each permit that is given back, the one that has waited longest
            // first. The permit may be of use only to another address, and a connection that can be evicted now has
            // waited for its client longer than before: neither is told to everyone, so each asks now and then.
            let _ = tokio::time::timeout(poll_interval, self.limiter.freed.notified()).await;
            if let Some(permit) = self.limiter.acquire(self.address) {
                return Some(permit);
            }
        }
        None
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        let mut table = self.limiter.table.lock();
        table.pending -= 1;
        decrement(&mut table.pending_by_address, &address_network(self.address));
    }
}

/// The caller's user has as many connections as he may have, and all of them are being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections of this user are open: close one, or try again later")]
pub struct TooManyConnections;

impl ConnectionPermit {
    /// Notes that the caller has proven to be a user: the connection counts as one of his, and as a stranger's no
    /// more. At the bound of a user one of his that waits is told to end.
    ///
    /// # Errors
    /// [`TooManyConnections`]; the connection is a stranger's, or its last user's, then as before.
    pub fn assign_user(&self, user: &str) -> Result<(), TooManyConnections> {
        let mut table = self.limiter.table.lock();
        let Some(place) = table.connections.get(&self.connection_id) else { return Ok(()) };
        match &place.owner {
            OpenConnectionOwner::Closing => return Ok(()),
            OpenConnectionOwner::User(known) if **known == *user => return Ok(()),
            OpenConnectionOwner::Unauthenticated(_) | OpenConnectionOwner::User(_) => {}
        }
        let user: Arc<str> = user.into();
        if table.connections_by_user.get(&user).copied().unwrap_or(0) >= self.limiter.limits.per_user {
            let of_user =
                |place: &OpenConnection| matches!(&place.owner, OpenConnectionOwner::User(other) if *other == user);
            table.evict_longest_idle(of_user).ok_or(TooManyConnections)?;
        }
        table.change_owner(self.connection_id, OpenConnectionOwner::User(user));
        drop(table);
        self.limiter.freed.notify_one();
        Ok(())
    }

    /// Counts a stranger as one of another address, from which he came through a proxy. Returns false when there are
    /// as many from there as may be, none of whom waits.
    fn assign_address(&self, address: IpAddr) -> bool {
        let address = address_network(address);
        let mut table = self.limiter.table.lock();
        match table.connections.get(&self.connection_id).map(|place| &place.owner) {
            Some(OpenConnectionOwner::Unauthenticated(old)) if *old != address => {}
            _ => return true,
        }
        let is_full = table.unauthenticated_from(address) >= self.limiter.limits.unauthenticated_per_address;
        if is_full && table.evict_unauthenticated(|from| from == address).is_none() {
            return false;
        }
        table.change_owner(self.connection_id, OpenConnectionOwner::Unauthenticated(address));
        true
    }

    /// Counts an unauthenticated connection for another address, from which it came through a proxy; where that is at its
    /// limit, waits for a permit as a connection does that comes from there. Returns `None` where there is none in that
    /// time, or too many wait.
    pub(super) async fn move_to_address(self, address: IpAddr) -> Option<Self> {
        if self.assign_address(address) {
            return Some(self);
        }
        let pending = self.limiter.begin_wait(address)?;
        // Given back before the wait: else the clients that wait would take the permits of the proxy's address, and one
        // of them would keep the others from being heard.
        drop(self);
        pending.wait().await
    }

    /// Notes that a request of the connection is being answered, until what is returned is dropped.
    pub fn begin_request(&self) -> ActiveRequest {
        self.activity.begin_request()
    }

    /// Waits until the connection is to end because another takes its place.
    pub fn evicted(&self) -> impl Future<Output = ()> + Send + 'static {
        self.eviction.clone().cancelled_owned()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.limiter.table.lock();
        if let Some(place) = table.connections.remove(&self.connection_id) {
            table.uncount_owner(&place.owner);
        }
        drop(table);
        self.limiter.freed.notify_one();
    }
}

impl ConnectionTable {
    fn unauthenticated_from(&self, address: IpAddr) -> usize {
        self.unauthenticated_by_address.get(&address).copied().unwrap_or(0)
    }

    /// Tells the connection that waits longest, among those that `may_go`, to end.
    fn evict_longest_idle(&mut self, may_go: impl Fn(&OpenConnection) -> bool) -> Option<()> {
        if self.closing >= MAX_CLOSING_CONNECTIONS {
            return None;
        }
        let now = running_time();
        let waiting = self.connections.iter().filter(|(_, place)| may_go(place));
        let waiting = waiting.filter_map(|(number, place)| Some((place.evictable_since(now)?, *number)));
        let (_, number) = waiting.min()?;
        self.change_owner(number, OpenConnectionOwner::Closing);
        self.connections.get(&number)?.eviction.cancel();
        Some(())
    }

    fn evict_unauthenticated(&mut self, from: impl Fn(IpAddr) -> bool) -> Option<()> {
        self.evict_longest_idle(
            |place| matches!(place.owner, OpenConnectionOwner::Unauthenticated(address) if from(address)),
        )
    }

    /// Displaces a stranger of the address that has most of them: many places of one address cost others nothing.
    fn evict_from_busiest_address(&mut self) -> Option<()> {
        let most = self.unauthenticated_by_address.values().copied().max()?;
        let crowded: Vec<IpAddr> = self
            .unauthenticated_by_address
            .iter()
            .filter(|(_, count)| **count == most)
            .map(|(address, _)| *address)
            .collect();
        self.evict_unauthenticated(|from| crowded.contains(&from)).or_else(|| self.evict_unauthenticated(|_| true))
    }

    /// Displaces a connection that waits of the user who has most of them.
    fn evict_from_busiest_user(&mut self) -> Option<()> {
        let most = self.connections_by_user.values().copied().max()?;
        let of_most =
            |user: &Arc<str>, by_user: &HashMap<Arc<str>, usize>| by_user.get(user).is_some_and(|count| *count == most);
        let by_user = self.connections_by_user.clone();
        self.evict_longest_idle(
            |place| matches!(&place.owner, OpenConnectionOwner::User(user) if of_most(user, &by_user)),
        )
        .or_else(|| self.evict_longest_idle(|place| matches!(place.owner, OpenConnectionOwner::User(_))))
    }

    /// Counts a connection as another holder's.
    fn change_owner(&mut self, number: u64, holder: OpenConnectionOwner) {
        let Some(place) = self.connections.get_mut(&number) else { return };
        let old = std::mem::replace(&mut place.owner, holder.clone());
        self.uncount_owner(&old);
        self.count_owner(&holder);
    }

    fn count_owner(&mut self, holder: &OpenConnectionOwner) {
        match holder {
            OpenConnectionOwner::Unauthenticated(address) => {
                self.unauthenticated += 1;
                *self.unauthenticated_by_address.entry(*address).or_default() += 1;
            }
            OpenConnectionOwner::User(user) => *self.connections_by_user.entry(Arc::clone(user)).or_default() += 1,
            OpenConnectionOwner::Closing => self.closing += 1,
        }
    }

    fn uncount_owner(&mut self, holder: &OpenConnectionOwner) {
        match holder {
            OpenConnectionOwner::Unauthenticated(address) => {
                self.unauthenticated -= 1;
                decrement(&mut self.unauthenticated_by_address, address);
            }
            OpenConnectionOwner::User(user) => decrement(&mut self.connections_by_user, user),
            OpenConnectionOwner::Closing => self.closing -= 1,
        }
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Returns what counts as one address: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn address_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> ConnectionLimiter {
        ConnectionLimiter::new(ConnectionLimits {
            connections: 6,
            per_user: 2,
            unauthenticated: 3,
            unauthenticated_per_address: 2,
        })
    }

    /// Lets time pass for all that wait now.
    fn make_all_evictable(gate: &ConnectionLimiter) {
        gate.table
            .lock()
            .connections
            .values_mut()
            .for_each(|connection| connection.activity.age(MIN_IDLE_BEFORE_EVICTION));
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn is_evicted(pass: &ConnectionPermit) -> bool {
        pass.eviction.is_cancelled()
    }

    #[test]
    fn new_unauthenticated_connection_evicts_longest_idle_of_its_address() {
        let gate = limiter();
        let one = gate.acquire(address("192.0.2.1")).expect("room");
        let two = gate.acquire(address("::ffff:192.0.2.1")).expect("room");
        let answering = one.begin_request();
        assert!(gate.acquire(address("192.0.2.1")).is_none(), "the second may be about to ask");
        make_all_evictable(&gate);
        let _three = gate.acquire(address("192.0.2.1")).expect("in place of the second");
        assert!(is_evicted(&two) && !is_evicted(&one));
        make_all_evictable(&gate);
        drop(answering);
        let _four = gate.acquire(address("192.0.2.1")).expect("in place of the third, which has waited longer");
        assert!(!is_evicted(&one), "it has begun to wait last");
    }

    #[test]
    fn busiest_address_is_evicted_for_other_addresses() {
        let gate = limiter();
        let many = ["192.0.2.1", "192.0.2.1"].map(|from| gate.acquire(address(from)).expect("room"));
        let other = gate.acquire(address("192.0.2.2")).expect("room");
        make_all_evictable(&gate);
        let last = gate.acquire(address("192.0.2.3")).expect("in place of the first");
        assert!(is_evicted(&many[0]) && !is_evicted(&many[1]));
        assert!(!is_evicted(&other) && !is_evicted(&last));
        let answering: Vec<_> = [&many[1], &other, &last].map(ConnectionPermit::begin_request).into();
        make_all_evictable(&gate);
        assert!(gate.acquire(address("192.0.2.4")).is_none(), "all are being answered");
        drop(answering);
        make_all_evictable(&gate);
        assert!(gate.acquire(address("192.0.2.4")).is_some());
    }

    #[test]
    fn authenticated_connection_is_never_evicted_for_unauthenticated_one() {
        let gate = limiter();
        let authenticated: Vec<_> = (0..4)
            .map(|number| {
                let pass = gate.acquire(address("192.0.2.1")).expect("room");
                pass.assign_user(&format!("user-{}", number / 2)).expect("his share");
                pass
            })
            .collect();
        let mut unauthenticated = Vec::new();
        for _ in 0..20 {
            make_all_evictable(&gate);
            unauthenticated.extend(gate.acquire(address("192.0.2.1")));
        }
        assert!(unauthenticated.iter().filter(|pass| !is_evicted(pass)).count() <= 2);
        assert!(!authenticated.iter().any(is_evicted));
    }

    #[test]
    fn user_at_limit_loses_idle_connection_or_is_refused() {
        let gate = limiter();
        let (first, second) =
            (gate.acquire(address("192.0.2.1")).expect("room"), gate.acquire(address("192.0.2.2")).expect("room"));
        assert_eq!((first.assign_user("alice"), second.assign_user("alice")), (Ok(()), Ok(())));
        let busy = [first.begin_request(), second.begin_request()];
        let three = gate.acquire(address("192.0.2.3")).expect("room");
        assert_eq!(three.assign_user("alice"), Err(TooManyConnections));
        assert_eq!(three.assign_user("bob"), Ok(()), "others have their own share");
        let four = gate.acquire(address("192.0.2.3")).expect("room");
        drop(busy);
        make_all_evictable(&gate);
        assert_eq!(four.assign_user("alice"), Ok(()));
        assert!(is_evicted(&first) && !is_evicted(&second));
        assert_eq!(four.assign_user("bob"), Ok(()), "a connection is of the user who was proven last");
        assert_eq!(gate.table.lock().connections_by_user.get("alice"), Some(&1));
    }

    #[test]
    fn total_limit_evicts_an_idle_connection() {
        let gate = limiter();
        let users: Vec<_> = (0..6)
            .map(|number| {
                let pass = gate.acquire(address("192.0.2.1")).expect("room");
                pass.assign_user(["alice", "alice", "bob", "carol", "dave", "erin"][number]).expect("his share");
                pass
            })
            .collect();
        let _busy: Vec<_> = users[1..].iter().map(ConnectionPermit::begin_request).collect();
        make_all_evictable(&gate);
        let new = gate.acquire(address("192.0.2.9")).expect("in place of the one that waits");
        assert!(is_evicted(&users[0]));
        let _new_is_busy = new.begin_request();
        assert!(gate.acquire(address("192.0.2.10")).is_none(), "nobody waits");
    }

    #[test]
    fn proxied_connection_counts_for_client_address() {
        let gate = limiter();
        let proxy = address("192.0.2.9");
        let two = [gate.acquire(proxy), gate.acquire(proxy)].map(|pass| pass.expect("room"));
        assert!(two.iter().all(|pass| pass.assign_address(address("192.0.2.1"))));
        assert!(two[0].assign_address(address("192.0.2.1")), "he is there already");
        let _busy = [two[0].begin_request(), two[1].begin_request()];
        let third = gate.acquire(proxy).expect("the proxy holds none any more");
        assert!(!third.assign_address(address("192.0.2.1")));
        drop((two, third));
        assert!(gate.table.lock().unauthenticated_by_address.is_empty());
    }

    #[test]
    fn dropped_permits_leave_empty_table() {
        let gate = limiter();
        for _ in 0..10 {
            let one = gate.acquire(address("2001:db8::1")).expect("room");
            one.assign_user("alice").expect("his share");
            let two = gate.acquire(address("2001:db8::2")).expect("room");
            let three = gate.acquire(address("2001:db8::3")).expect("one /64, two strangers");
            make_all_evictable(&gate);
            let four = gate.acquire(address("2001:db8::4")).expect("in place of the second");
            drop(two.begin_request());
            drop((one, two, three, four));
        }
        assert_eq!(gate.connection_count(), 0);
        let table = gate.table.lock();
        assert!(table.unauthenticated_by_address.is_empty() && table.connections_by_user.is_empty());
        assert_eq!((table.unauthenticated, table.closing), (0, 0));
    }
}
