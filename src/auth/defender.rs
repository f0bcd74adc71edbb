//! Defender: refuses addresses that administrators banned, and those from which too many logins failed.
//!
//! Failed logins of all protocols fill one bucket for each address, or /64 of IPv6 ([`LoginThrottle`]); no bucket belongs to a
//! user name, so that nobody can lock another out. An address whose bucket is full is banned, each time soon after the last
//! one for twice as long. Only guesses count, as for the throttle: a client that goes on with a revoked token is never
//! banned for it.
//!
//! A banned address is refused before its credential is read. Automatic bans spare an address from which a live token was
//! used before: it may be shared, by a proxy or a provider, with a stranger who guesses. Its guesses are throttled.
//!
//! Bans are rows of the store, so that a command in another process adds and removes them; they are read again when their
//! version has moved, several times a second. The request path reads memory alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::throttle::LoginThrottle;
use crate::domain::{Ban, BanOrigin, BannedNetwork, IpNet, UnixMillis};
use crate::store::{Store, StoreError};

/// Time after the end of a ban in which a further one of the same address lasts longer.
const REPEAT_WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// Maximum number of automatic bans that wait to be stored; at the bound no further address is banned.
const MAX_UNSTORED_BANS: usize = 1000;
/// Maximum number of addresses whose tokens are remembered; beyond it all are forgotten, and looked up again.
const MAX_KNOWN_ADDRESSES: usize = 1 << 16;
/// Time for which it is remembered whether a token was used from an address.
const KNOWN_ADDRESS_LIFETIME: Duration = Duration::from_secs(60);

/// Settings of the defender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefenderSettings {
    /// Number of failed logins within [`DefenderSettings::ban_window`] after which an address is banned; 0 bans none.
    pub ban_after: u32,
    /// Time after which failed logins don't count any more.
    pub ban_window: Duration,
    /// Duration of the first ban of an address; each one soon after another lasts twice as long.
    pub ban_time: Duration,
    /// Maximum duration of an automatic ban.
    pub ban_time_max: Duration,
    /// Networks that are never refused.
    pub allow_addresses: Vec<IpNet>,
    /// Networks that are always refused.
    pub deny_addresses: Vec<IpNet>,
}

impl Default for DefenderSettings {
    fn default() -> Self {
        Self {
            ban_after: 200,
            ban_window: Duration::from_secs(600),
            ban_time: Duration::from_secs(600),
            ban_time_max: Duration::from_secs(86_400),
            allow_addresses: Vec::new(),
            deny_addresses: Vec::new(),
        }
    }
}

/// Reason why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRefusal {
    /// It is in [`DefenderSettings::deny_addresses`].
    Denied,
    /// An administrator has banned it, until this time if there is one.
    Banned(Option<UnixMillis>),
    /// It is banned for failed logins.
    TooManyFailures {
        /// Time at which the ban ends.
        until: UnixMillis,
        /// Time until then.
        remaining: Duration,
    },
}

impl AddressRefusal {
    /// Returns the refusal by a ban that is in force.
    fn of_ban(ban: &Ban, now: UnixMillis) -> Self {
        match (ban.origin, ban.until) {
            (BanOrigin::Automatic, Some(until)) => {
                Self::TooManyFailures { until, remaining: until.saturating_duration_since(now) }
            }
            (BanOrigin::Automatic | BanOrigin::Manual, until) => Self::Banned(until),
        }
    }

    fn is_by_administrator(self) -> bool {
        matches!(self, Self::Denied | Self::Banned(_))
    }
}

impl std::fmt::Display for AddressRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddressRefusal::Denied => f.write_str("this address is not allowed to connect"),
            AddressRefusal::Banned(None) => f.write_str("this address is banned: ask the administrator"),
            AddressRefusal::Banned(Some(until)) => {
                write!(f, "this address is banned until {until}: wait, or ask the administrator")
            }
            AddressRefusal::TooManyFailures { until, .. } => {
                write!(f, "too many logins have failed from this address: wait until {until}, or ask the administrator")
            }
        }
    }
}

/// The defender of one server.
#[derive(Default)]
pub(super) struct Defender {
    rules: ArcSwap<DefenderRules>,
    /// Read by every request, without a lock that they would share.
    bans: ArcSwap<BanTable>,
    /// Locked while `bans` is replaced.
    changes: Mutex<BanChanges>,
    /// Whether anything may be refused: requests look no further where not.
    refuses_any: AtomicBool,
    /// Addresses of which it was looked up lately whether a live token was used from them.
    known_addresses: Mutex<HashMap<IpAddr, (bool, Duration)>>,
}

#[derive(Default)]
struct DefenderRules {
    settings: DefenderSettings,
    failures: Option<Arc<LoginThrottle>>,
}

#[derive(Clone, Default)]
struct BanTable {
    /// Bans of single hosts, ended ones included.
    hosts: HashMap<BannedNetwork, Ban>,
    /// Bans of larger networks.
    networks: Vec<Ban>,
}

#[derive(Default)]
struct BanChanges {
    /// Version of the bans in the store that the table was made of.
    version: Option<i64>,
    /// Automatic bans that are not stored yet.
    unstored: Vec<Ban>,
}

impl BanTable {
    fn insert(&mut self, ban: Ban) {
        match ban.network.is_single_host() {
            true => drop(self.hosts.insert(ban.network, ban)),
            false => self.networks.push(ban),
        }
    }

    /// Returns the ban in force that an address falls under; a manual one before an automatic one.
    fn find(&self, address: IpAddr, now: UnixMillis) -> Option<&Ban> {
        let host = self.hosts.get(&BannedNetwork::of_address(address));
        let bans = self.networks.iter().filter(|ban| ban.network.contains(address)).chain(host);
        let active = bans.filter(|ban| ban.is_active(now));
        active.min_by_key(|ban| ban.origin == BanOrigin::Automatic)
    }
}

impl Defender {
    /// Replaces the settings. Failures are counted anew where their bounds change.
    pub(super) fn set_settings(&self, settings: DefenderSettings) {
        let _changes = self.changes.lock();
        let former = self.rules.load();
        let has_same_bounds =
            settings.ban_after == former.settings.ban_after && settings.ban_window == former.settings.ban_window;
        let failures = match settings.ban_after {
            0 => None,
            _ if has_same_bounds && former.failures.is_some() => former.failures.clone(),
            count => Some(Arc::new(LoginThrottle::new(count, settings.ban_window / count))),
        };
        self.rules.store(Arc::new(DefenderRules { settings, failures }));
        self.update_refuses_any();
    }

    /// Replaces the table of bans. The caller holds the lock of the changes.
    fn replace_bans(&self, bans: BanTable) {
        self.bans.store(Arc::new(bans));
        self.update_refuses_any();
    }

    fn update_refuses_any(&self) {
        let bans = self.bans.load();
        let denies = !self.rules.load().settings.deny_addresses.is_empty();
        let refuses_any = denies || !bans.hosts.is_empty() || !bans.networks.is_empty();
        self.refuses_any.store(refuses_any, Ordering::Release);
    }

    /// Reads the bans again where they have changed in the store; returns whether they have.
    pub(super) fn reload(&self, store: &Store) -> Result<bool, StoreError> {
        let version = store.bans_version()?;
        if self.changes.lock().version == Some(version) {
            return Ok(false);
        }
        let (version, stored) = store.all_bans()?;
        let mut changes = self.changes.lock();
        changes.version = Some(version);
        let mut bans = BanTable::default();
        // Those in the store take precedence: an administrator may have replaced one since.
        changes.unstored.iter().cloned().chain(stored).for_each(|ban| bans.insert(ban));
        self.replace_bans(bans);
        Ok(true)
    }

    /// Returns why an address is refused; `None` where it isn't. `now` and `boottime` are the present time.
    pub(super) fn refusal(
        &self,
        address: IpAddr,
        now: UnixMillis,
        boottime: Duration,
        store: &Store,
    ) -> Option<AddressRefusal> {
        if !self.refuses_any.load(Ordering::Acquire) {
            return None;
        }
        let refusal = self.find_refusal(address, now)?;
        let is_spared =
            !refusal.is_by_administrator() && self.was_token_used_from(address.to_canonical(), now, boottime, store);
        (!is_spared).then_some(refusal)
    }

    /// Tells whether an administrator has banned or denied an address.
    pub(super) fn is_refused_by_administrator(&self, address: IpAddr, now: UnixMillis) -> bool {
        self.find_refusal(address, now).is_some_and(AddressRefusal::is_by_administrator)
    }

    fn find_refusal(&self, address: IpAddr, now: UnixMillis) -> Option<AddressRefusal> {
        let address = address.to_canonical();
        let rules = self.rules.load();
        if contains(&rules.settings.allow_addresses, address) {
            return None;
        }
        if contains(&rules.settings.deny_addresses, address) {
            return Some(AddressRefusal::Denied);
        }
        self.bans.load().find(address, now).map(|ban| AddressRefusal::of_ban(ban, now))
    }

    fn was_token_used_from(&self, address: IpAddr, now: UnixMillis, boottime: Duration, store: &Store) -> bool {
        let network = BannedNetwork::of_address(address).first_address();
        if let Some((is_known, looked_up)) = self.known_addresses.lock().get(&network)
            && boottime.saturating_sub(*looked_up) < KNOWN_ADDRESS_LIFETIME
        {
            return *is_known;
        }
        // In doubt it is spared: a fault of the store must not turn users away.
        let is_known = store.was_live_token_used_from(address, now).unwrap_or(true);
        self.remember_address(network, is_known, boottime);
        is_known
    }

    /// Remembers for a while whether a live token was used from a network, by its first address.
    pub(super) fn remember_address(&self, network: IpAddr, is_known: bool, boottime: Duration) {
        let mut known_addresses = self.known_addresses.lock();
        if known_addresses.len() >= MAX_KNOWN_ADDRESSES {
            known_addresses.clear();
        }
        known_addresses.insert(network, (is_known, boottime));
    }

    /// Counts a failed login. Returns the ban that it leads to.
    pub(super) fn record_failure(&self, address: IpAddr, now: UnixMillis, boottime: Duration) -> Option<Ban> {
        let rules = self.rules.load();
        let failures = rules.failures.as_ref()?;
        let address = address.to_canonical();
        let settings = &rules.settings;
        if contains(&settings.allow_addresses, address) || !failures.record_failure(address, boottime) {
            return None;
        }
        let mut changes = self.changes.lock();
        let bans = self.bans.load();
        // Without the bound a flood would fill memory while the store can't be written.
        if bans.find(address, now).is_some() || changes.unstored.len() >= MAX_UNSTORED_BANS {
            return None;
        }
        // Counted anew: an address that is spared is banned again only for as many failures.
        failures.forget(address);
        let network = BannedNetwork::of_address(address);
        let earlier = bans
            .hosts
            .get(&network)
            .filter(|ban| ban.until.is_some_and(|until| now.saturating_duration_since(until) < REPEAT_WINDOW));
        let repeats = earlier.map_or(0, |ban| ban.repeats).saturating_add(1);
        let doubled = settings.ban_time.checked_mul(1 << (repeats - 1).min(31)).unwrap_or(settings.ban_time_max);
        let duration = doubled.min(settings.ban_time_max.max(settings.ban_time));
        let reason = format!("{} failed logins within {} s", settings.ban_after, settings.ban_window.as_secs());
        let until = Some(now.saturating_add(duration));
        let ban = Ban { network, since: now, until, origin: BanOrigin::Automatic, repeats, reason };
        changes.unstored.push(ban.clone());
        let mut bans = BanTable::clone(&bans);
        bans.insert(ban.clone());
        self.replace_bans(bans);
        Some(ban)
    }

    /// Stores the automatic bans that are not stored yet.
    pub(super) fn store_bans(&self, store: &Store, now: UnixMillis) -> Result<(), StoreError> {
        let unstored = self.changes.lock().unstored.clone();
        if unstored.is_empty() {
            return Ok(());
        }
        store.add_automatic_bans(&unstored, now)?;
        // Further ones were added behind these.
        self.changes.lock().unstored.drain(..unstored.len());
        Ok(())
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{now, open_temp_store};

    const FIRST: Duration = Duration::from_secs(1000);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn defender(change: impl FnOnce(&mut DefenderSettings)) -> Defender {
        let defender = Defender::default();
        let mut settings = DefenderSettings { ban_after: 5, ..DefenderSettings::default() };
        change(&mut settings);
        defender.set_settings(settings);
        defender
    }

    fn fail(defender: &Defender, from: &str, count: u32, at: UnixMillis, boottime: Duration) -> Option<Ban> {
        (0..count).filter_map(|_| defender.record_failure(address(from), at, boottime)).next_back()
    }

    #[test]
    fn address_is_banned_after_failures_and_longer_each_time() {
        let (_temp_dir, store) = open_temp_store();
        let defender = defender(|_| ());
        assert_eq!(fail(&defender, "192.0.2.7", 4, now(), FIRST), None);
        let (mut at, mut boottime) = (now(), FIRST);
        for minutes in [10, 20, 40, 80] {
            let ban = fail(&defender, "192.0.2.7", 5, at, boottime).expect("banned");
            let until = at.saturating_add(Duration::from_secs(60 * minutes));
            assert_eq!(ban.until, Some(until));
            let refusal = |at, from: &str| defender.refusal(address(from), at, boottime, &store);
            let remaining = Duration::from_secs(60 * minutes);
            assert_eq!(refusal(at, "192.0.2.7"), Some(AddressRefusal::TooManyFailures { until, remaining }));
            assert_eq!(refusal(at, "192.0.2.8"), None, "another address");
            assert_eq!(refusal(until, "192.0.2.7"), None, "the ban has ended");
            (at, boottime) = (until, boottime + Duration::from_secs(60 * minutes));
        }
        let much_later = at.saturating_add(REPEAT_WINDOW);
        let ban = fail(&defender, "192.0.2.7", 5, much_later, boottime + REPEAT_WINDOW).expect("banned");
        assert_eq!(ban.repeats, 1, "the former ones are forgotten");
    }

    #[test]
    fn failures_that_are_spread_over_time_ban_nobody() {
        let defender = defender(|_| ());
        for number in 0..100u32 {
            let elapsed = Duration::from_secs(130) * number;
            let (at, boottime) = (now().saturating_add(elapsed), FIRST + elapsed);
            assert_eq!(defender.record_failure(address("192.0.2.7"), at, boottime), None);
        }
    }

    #[test]
    fn unstored_bans_are_bounded() {
        let (_temp_dir, store) = open_temp_store();
        let defender = defender(|settings| settings.ban_after = 1);
        let ban = |number: u16| {
            let [high, low] = number.to_be_bytes();
            defender.record_failure(IpAddr::from([10, 0, high, low]), now(), FIRST)
        };
        assert_eq!((0..1200).filter_map(ban).count(), MAX_UNSTORED_BANS);
        assert_eq!(defender.bans.load().hosts.len(), MAX_UNSTORED_BANS);
        defender.store_bans(&store, now()).expect("stored");
        assert!(ban(1100).is_some(), "there is room again");
    }

    #[test]
    fn reload_with_the_same_bounds_keeps_the_failures() {
        let defender = defender(|_| ());
        assert_eq!(fail(&defender, "192.0.2.7", 4, now(), FIRST), None);
        defender.set_settings(DefenderSettings { ban_after: 5, ..DefenderSettings::default() });
        assert!(fail(&defender, "192.0.2.7", 1, now(), FIRST).is_some());
        assert_eq!(fail(&defender, "192.0.2.8", 4, now(), FIRST), None);
        defender.set_settings(DefenderSettings { ban_after: 6, ..DefenderSettings::default() });
        assert_eq!(fail(&defender, "192.0.2.8", 5, now(), FIRST), None, "counted anew");
    }

    #[test]
    fn ipv6_addresses_of_one_host_are_banned_together() {
        let (_temp_dir, store) = open_temp_store();
        let defender = defender(|_| ());
        for number in 1..=5 {
            defender.record_failure(address(&format!("2001:db8::{number}")), now(), FIRST);
        }
        assert!(defender.refusal(address("2001:db8::ffff"), now(), FIRST, &store).is_some());
        assert!(defender.refusal(address("2001:db8:0:1::1"), now(), FIRST, &store).is_none());
    }

    #[test]
    fn allowed_addresses_are_never_banned_and_denied_ones_always_refused() {
        let (_temp_dir, store) = open_temp_store();
        let network = |text: &str| text.parse::<IpNet>().expect("a network");
        let defender = defender(|settings| {
            settings.allow_addresses = vec![network("192.0.2.0/24")];
            settings.deny_addresses = vec![network("192.0.2.9/32"), network("198.51.100.0/24")];
        });
        assert_eq!(fail(&defender, "192.0.2.7", 50, now(), FIRST), None);
        let refusal = |from: &str| defender.refusal(address(from), now(), FIRST, &store);
        assert_eq!((refusal("192.0.2.7"), refusal("192.0.2.9")), (None, None), "allowed before denied");
        assert_eq!(refusal("::ffff:198.51.100.3"), Some(AddressRefusal::Denied));
        assert_eq!(refusal("203.0.113.1"), None);
        defender.set_settings(DefenderSettings { ban_after: 0, ..DefenderSettings::default() });
        assert_eq!(fail(&defender, "203.0.113.1", 500, now(), FIRST), None, "0 bans none");
        assert_eq!(defender.refusal(address("198.51.100.3"), now(), FIRST, &store), None, "no longer denied");
    }

    #[test]
    fn bans_of_other_processes_are_seen_and_own_ones_are_stored() {
        let (_temp_dir, store) = open_temp_store();
        let (defender, other) = (defender(|_| ()), defender(|_| ()));
        let ban = fail(&defender, "192.0.2.7", 5, now(), FIRST).expect("banned");
        assert!(defender.reload(&store).expect("read"));
        assert!(defender.refusal(address("192.0.2.7"), now(), FIRST, &store).is_some(), "not stored, and kept");
        defender.store_bans(&store, now()).expect("stored");
        assert_eq!(store.active_bans(now()).expect("read"), [ban]);
        assert!(other.reload(&store).expect("read") && !other.reload(&store).expect("unchanged"));
        assert!(other.refusal(address("192.0.2.7"), now(), FIRST, &store).is_some());
        store.remove_ban(BannedNetwork::of_address(address("192.0.2.7")), now()).expect("removed");
        for defender in [&defender, &other] {
            assert!(defender.reload(&store).expect("read"));
            assert_eq!(defender.refusal(address("192.0.2.7"), now(), FIRST, &store), None);
        }
    }
}
