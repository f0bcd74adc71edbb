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
use tokio_util::sync::CancellationToken;

/// Time in which a stranger's request is answered unless its sender is slow; after that he counts as one who waits.
const STRANGERS_REQUEST: Duration = Duration::from_secs(10);
/// Time that a connection has for its first request, or its next, before another may take its place.
const MOMENT: Duration = Duration::from_secs(1);
/// Maximum number of connections that were told to end and have not ended yet, beyond the bound on all connections.
const MAX_LEAVING: usize = 64;

/// Bounds on the connections that a listener has open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// In all.
    pub connections: usize,
    /// Of one user.
    pub per_user: usize,
    /// Of callers who have not proven themselves.
    pub strangers: usize,
    /// Of such callers from one address (one /64 of IPv6).
    pub strangers_per_address: usize,
}

/// Table of the connections of a listener. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: GateLimits,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    places: HashMap<u64, Place>,
    strangers: usize,
    leaving: usize,
    by_address: HashMap<IpAddr, usize>,
    by_user: HashMap<Arc<str>, usize>,
}

/// An open connection.
#[derive(Debug)]
struct Place {
    holder: Holder,
    /// When it began to wait for its caller, or to be answered.
    since: Instant,
    /// Requests that are being answered.
    requests: usize,
    end: CancellationToken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Stranger(IpAddr),
    User(Arc<str>),
    /// It was told to end.
    Leaving,
}

impl Place {
    /// Returns since when the connection waits for its caller; none while he is being answered, or may be about to ask.
    fn waits_since(&self, now: Instant) -> Option<Instant> {
        match self.holder {
            Holder::Leaving => None,
            _ if self.requests == 0 => Some(self.since),
            Holder::Stranger(_) => Some(self.since + STRANGERS_REQUEST),
            Holder::User(_) => None,
        }
        .filter(|since| now.saturating_duration_since(*since) >= MOMENT)
    }
}

impl Gate {
    /// Returns a gate that nobody has passed.
    pub fn new(limits: GateLimits) -> Self {
        Self { limits, table: Arc::default() }
    }

    /// Lets a connection in, as a stranger. At a bound it takes the place of another, which is told to end.
    ///
    /// Returns none where nobody has waited long enough to make room.
    pub fn admit(&self, address: IpAddr) -> Option<Pass> {
        let (address, limits) = (network(address), self.limits);
        let mut table = self.table.lock();
        if table.strangers_from(address) >= limits.strangers_per_address {
            table.displace_stranger(|from| from == address)?;
        } else if table.strangers >= limits.strangers {
            table.displace_of_most()?;
        }
        if table.places.len() - table.leaving >= limits.connections {
            table.displace_of_most().or_else(|| table.displace_idle())?;
        }
        if table.places.len() >= limits.connections.saturating_add(MAX_LEAVING) {
            return None;
        }
        let (number, end) = (table.next, CancellationToken::new());
        table.next += 1;
        table.enter(&Holder::Stranger(address));
        let (holder, since, end_of_place) = (Holder::Stranger(address), Instant::now(), end.clone());
        table.places.insert(number, Place { holder, since, requests: 0, end: end_of_place });
        Some(Pass { gate: self.clone(), number, end })
    }

    /// Returns how many connections are open.
    pub fn connections(&self) -> usize {
        self.table.lock().places.len()
    }
}

/// Place of one connection; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    number: u64,
    end: CancellationToken,
}

/// A request that is being answered: until it is dropped its connection is not told to end for another.
#[derive(Debug)]
pub struct Answering {
    gate: Gate,
    number: u64,
}

/// The caller's user has as many connections as he may have, and all of them are being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections of this user are open: close one, or try again later")]
pub struct TooManyConnections;

impl Pass {
    /// Notes that the caller has proven to be a user: the connection counts as one of his, and as a stranger's no
    /// more. At the bound of a user one of his that waits is told to end.
    ///
    /// # Errors
    /// [`TooManyConnections`]; the connection is a stranger's, or its last user's, then as before.
    pub fn proven(&self, user: &str) -> Result<(), TooManyConnections> {
        let mut table = self.gate.table.lock();
        let Some(place) = table.places.get(&self.number) else { return Ok(()) };
        match &place.holder {
            Holder::Leaving => return Ok(()),
            Holder::User(known) if **known == *user => return Ok(()),
            Holder::Stranger(_) | Holder::User(_) => {}
        }
        let user: Arc<str> = user.into();
        if table.by_user.get(&user).copied().unwrap_or(0) >= self.gate.limits.per_user {
            let of_user = |place: &Place| matches!(&place.holder, Holder::User(other) if *other == user);
            table.displace(of_user).ok_or(TooManyConnections)?;
        }
        table.hand_over(self.number, Holder::User(user));
        Ok(())
    }

    /// Counts a stranger as one of another address, from which he came through a proxy. Returns false when there are
    /// as many from there as may be, none of whom waits.
    pub fn moves_to(&self, address: IpAddr) -> bool {
        let address = network(address);
        let mut table = self.gate.table.lock();
        match table.places.get(&self.number).map(|place| &place.holder) {
            Some(Holder::Stranger(old)) if *old != address => {}
            _ => return true,
        }
        let is_full = table.strangers_from(address) >= self.gate.limits.strangers_per_address;
        if is_full && table.displace_stranger(|from| from == address).is_none() {
            return false;
        }
        table.hand_over(self.number, Holder::Stranger(address));
        true
    }

    /// Notes that a request of the connection is being answered, until what is returned is dropped.
    pub fn answering(&self) -> Answering {
        if let Some(place) = self.gate.table.lock().places.get_mut(&self.number) {
            if place.requests == 0 {
                place.since = Instant::now();
            }
            place.requests += 1;
        }
        Answering { gate: self.gate.clone(), number: self.number }
    }

    /// Waits until the connection is to end because another takes its place.
    pub fn displaced(&self) -> impl Future<Output = ()> + Send + 'static {
        self.end.clone().cancelled_owned()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut table = self.gate.table.lock();
        if let Some(place) = table.places.remove(&self.number) {
            table.leave(&place.holder);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(place) = self.gate.table.lock().places.get_mut(&self.number) {
            place.requests -= 1;
            place.since = Instant::now();
        }
    }
}

impl Table {
    fn strangers_from(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).copied().unwrap_or(0)
    }

    /// Tells the connection that waits longest, among those that `may_go`, to end.
    fn displace(&mut self, may_go: impl Fn(&Place) -> bool) -> Option<()> {
        if self.leaving >= MAX_LEAVING {
            return None;
        }
        let now = Instant::now();
        let waiting = self.places.iter().filter(|(_, place)| may_go(place));
        let waiting = waiting.filter_map(|(number, place)| Some((place.waits_since(now)?, *number)));
        let (_, number) = waiting.min()?;
        self.hand_over(number, Holder::Leaving);
        self.places.get(&number)?.end.cancel();
        Some(())
    }

    fn displace_stranger(&mut self, from: impl Fn(IpAddr) -> bool) -> Option<()> {
        self.displace(|place| matches!(place.holder, Holder::Stranger(address) if from(address)))
    }

    /// Displaces a stranger of the address that has most of them: many places of one address cost others nothing.
    fn displace_of_most(&mut self) -> Option<()> {
        let most = self.by_address.values().copied().max()?;
        let crowded: Vec<IpAddr> =
            self.by_address.iter().filter(|(_, count)| **count == most).map(|(address, _)| *address).collect();
        self.displace_stranger(|from| crowded.contains(&from)).or_else(|| self.displace_stranger(|_| true))
    }

    /// Displaces a connection that waits of the user who has most of them.
    fn displace_idle(&mut self) -> Option<()> {
        let most = self.by_user.values().copied().max()?;
        let of_most =
            |user: &Arc<str>, by_user: &HashMap<Arc<str>, usize>| by_user.get(user).is_some_and(|count| *count == most);
        let by_user = self.by_user.clone();
        self.displace(|place| matches!(&place.holder, Holder::User(user) if of_most(user, &by_user)))
            .or_else(|| self.displace(|place| matches!(place.holder, Holder::User(_))))
    }

    /// Counts a connection as another holder's.
    fn hand_over(&mut self, number: u64, holder: Holder) {
        let Some(place) = self.places.get_mut(&number) else { return };
        let old = std::mem::replace(&mut place.holder, holder.clone());
        self.leave(&old);
        self.enter(&holder);
    }

    fn enter(&mut self, holder: &Holder) {
        match holder {
            Holder::Stranger(address) => {
                self.strangers += 1;
                *self.by_address.entry(*address).or_default() += 1;
            }
            Holder::User(user) => *self.by_user.entry(Arc::clone(user)).or_default() += 1,
            Holder::Leaving => self.leaving += 1,
        }
    }

    fn leave(&mut self, holder: &Holder) {
        match holder {
            Holder::Stranger(address) => {
                self.strangers -= 1;
                count_down(&mut self.by_address, address);
            }
            Holder::User(user) => count_down(&mut self.by_user, user),
            Holder::Leaving => self.leaving -= 1,
        }
    }
}

fn count_down<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Returns what counts as one address: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(GateLimits { connections: 6, per_user: 2, strangers: 3, strangers_per_address: 2 })
    }

    /// Lets time pass for all that wait now.
    fn let_wait(gate: &Gate) {
        gate.table.lock().places.values_mut().for_each(|place| place.since -= MOMENT);
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn is_displaced(pass: &Pass) -> bool {
        pass.end.is_cancelled()
    }

    #[test]
    fn a_new_stranger_takes_the_place_of_the_one_of_his_address_that_waits_longest() {
        let gate = gate();
        let one = gate.admit(address("192.0.2.1")).expect("room");
        let two = gate.admit(address("::ffff:192.0.2.1")).expect("room");
        let answering = one.answering();
        assert!(gate.admit(address("192.0.2.1")).is_none(), "the second may be about to ask");
        let_wait(&gate);
        let _three = gate.admit(address("192.0.2.1")).expect("in place of the second");
        assert!(is_displaced(&two) && !is_displaced(&one));
        let_wait(&gate);
        drop(answering);
        let _four = gate.admit(address("192.0.2.1")).expect("in place of the third, which has waited longer");
        assert!(!is_displaced(&one), "it has begun to wait last");
    }

    #[test]
    fn strangers_of_one_address_make_room_for_those_of_others() {
        let gate = gate();
        let many = ["192.0.2.1", "192.0.2.1"].map(|from| gate.admit(address(from)).expect("room"));
        let other = gate.admit(address("192.0.2.2")).expect("room");
        let_wait(&gate);
        let last = gate.admit(address("192.0.2.3")).expect("in place of the first");
        assert!(is_displaced(&many[0]) && !is_displaced(&many[1]));
        assert!(!is_displaced(&other) && !is_displaced(&last));
        let answering: Vec<_> = [&many[1], &other, &last].map(Pass::answering).into();
        let_wait(&gate);
        assert!(gate.admit(address("192.0.2.4")).is_none(), "all are being answered");
        drop(answering);
        let_wait(&gate);
        assert!(gate.admit(address("192.0.2.4")).is_some());
    }

    #[test]
    fn who_has_proven_himself_counts_as_no_stranger_and_is_never_sent_away_for_one() {
        let gate = gate();
        let proven: Vec<_> = (0..4)
            .map(|number| {
                let pass = gate.admit(address("192.0.2.1")).expect("room");
                pass.proven(&format!("user-{}", number / 2)).expect("his share");
                pass
            })
            .collect();
        let mut strangers = Vec::new();
        for _ in 0..20 {
            let_wait(&gate);
            strangers.extend(gate.admit(address("192.0.2.1")));
        }
        assert!(strangers.iter().filter(|pass| !is_displaced(pass)).count() <= 2);
        assert!(!proven.iter().any(is_displaced));
    }

    #[test]
    fn a_user_at_his_bound_loses_what_waits_and_else_is_refused() {
        let gate = gate();
        let (one, two) =
            (gate.admit(address("192.0.2.1")).expect("room"), gate.admit(address("192.0.2.2")).expect("room"));
        assert_eq!((one.proven("alice"), two.proven("alice")), (Ok(()), Ok(())));
        let busy = [one.answering(), two.answering()];
        let three = gate.admit(address("192.0.2.3")).expect("room");
        assert_eq!(three.proven("alice"), Err(TooManyConnections));
        assert_eq!(three.proven("bob"), Ok(()), "others have their own share");
        let four = gate.admit(address("192.0.2.3")).expect("room");
        drop(busy);
        let_wait(&gate);
        assert_eq!(four.proven("alice"), Ok(()));
        assert!(is_displaced(&one) && !is_displaced(&two));
        assert_eq!(four.proven("bob"), Ok(()), "a connection is of the user who was proven last");
        assert_eq!(gate.table.lock().by_user.get("alice"), Some(&1));
    }

    #[test]
    fn at_the_bound_of_all_a_connection_that_waits_makes_room() {
        let gate = gate();
        let users: Vec<_> = (0..6)
            .map(|number| {
                let pass = gate.admit(address("192.0.2.1")).expect("room");
                pass.proven(["alice", "alice", "bob", "carol", "dave", "erin"][number]).expect("his share");
                pass
            })
            .collect();
        let _busy: Vec<_> = users[1..].iter().map(Pass::answering).collect();
        let_wait(&gate);
        let new = gate.admit(address("192.0.2.9")).expect("in place of the one that waits");
        assert!(is_displaced(&users[0]));
        let _new_is_busy = new.answering();
        assert!(gate.admit(address("192.0.2.10")).is_none(), "nobody waits");
    }

    #[test]
    fn who_comes_through_a_proxy_counts_where_he_comes_from() {
        let gate = gate();
        let proxy = address("192.0.2.9");
        let two = [gate.admit(proxy), gate.admit(proxy)].map(|pass| pass.expect("room"));
        assert!(two.iter().all(|pass| pass.moves_to(address("192.0.2.1"))));
        assert!(two[0].moves_to(address("192.0.2.1")), "he is there already");
        let _busy = [two[0].answering(), two[1].answering()];
        let third = gate.admit(proxy).expect("the proxy holds none any more");
        assert!(!third.moves_to(address("192.0.2.1")));
        drop((two, third));
        assert!(gate.table.lock().by_address.is_empty());
    }

    #[test]
    fn every_place_is_given_back() {
        let gate = gate();
        for _ in 0..10 {
            let one = gate.admit(address("2001:db8::1")).expect("room");
            one.proven("alice").expect("his share");
            let two = gate.admit(address("2001:db8::2")).expect("room");
            let three = gate.admit(address("2001:db8::3")).expect("one /64, two strangers");
            let_wait(&gate);
            let four = gate.admit(address("2001:db8::4")).expect("in place of the second");
            drop(two.answering());
            drop((one, two, three, four));
        }
        assert_eq!(gate.connections(), 0);
        let table = gate.table.lock();
        assert!(table.by_address.is_empty() && table.by_user.is_empty());
        assert_eq!((table.strangers, table.leaving), (0, 0));
    }
}
