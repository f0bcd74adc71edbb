//! What the audit trail is to hear of from this process: told at once, counted where it repeats, and
//! bounded, so that a stranger's flood fills neither memory nor the store.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{AuditEvent, EventKind, Login, Protocol, TokenId, UnixMillis};

/// How long what repeats is counted before it is told again.
const COUNTED: Duration = Duration::from_secs(60);
/// As [`COUNTED`], for what is told of many at once.
const COUNTED_TOGETHER: Duration = Duration::from_secs(600);
/// How many different things are told apart at once.
const APART: usize = 2048;
/// How many more there may be that are told by user and kind alone.
const TOGETHER: usize = 2048;

/// Who made something happen: how much room it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The bearer of a token: 256 rows at once for what concerns a user, then one in 20 s; 4096 in all, then one a second.
    Known,
    /// Anybody: 256 rows at once, then one in ten seconds.
    Stranger,
}

/// What is to be noted, told apart by all but time, client and count.
#[derive(Default)]
pub(super) struct Trail {
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    tallies: HashMap<Key, Tally>,
    rooms: Rooms,
}

/// The room for rows: of each user, of all of them, and of strangers.
#[derive(Default)]
struct Rooms {
    users: HashMap<Login, Room>,
    known: Room,
    strangers: Room,
}

/// Rows that a room has at once, and the time after which one comes back.
type RoomSize = (u64, Duration);

const USER_ROOM: RoomSize = (256, Duration::from_secs(20));
const KNOWN_ROOM: RoomSize = (4096, Duration::from_secs(1));
const STRANGERS_ROOM: RoomSize = (256, Duration::from_secs(10));

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: EventKind,
    user: Option<Login>,
    token: Option<TokenId>,
    address: Option<String>,
    protocol: Option<Protocol>,
    path: Option<String>,
    detail: Option<String>,
}

struct Tally {
    event: AuditEvent,
    source: Source,
    /// How often it happened since it was told.
    untold: u64,
    told_at: Option<UnixMillis>,
}

/// The room for rows that one kind of source has: it runs out, and comes back with time.
#[derive(Default)]
struct Room {
    used: u64,
    freed_at: Option<UnixMillis>,
}

impl Trail {
    /// Notes an event; one like those of the last minute is counted.
    pub(super) fn note(&self, source: Source, event: AuditEvent) {
        self.pages.lock().note(source, event);
    }

    /// Takes what is to be told by now.
    pub(super) fn due(&self, now: UnixMillis) -> Vec<AuditEvent> {
        self.pages.lock().take(now, false)
    }

    /// Takes all that was not told.
    pub(super) fn all(&self, now: UnixMillis) -> Vec<AuditEvent> {
        self.pages.lock().take(now, true)
    }

    /// Takes events back that could not be written down.
    pub(super) fn untold(&self, events: Vec<AuditEvent>) {
        let mut pages = self.pages.lock();
        for event in events {
            match pages.tallies.get_mut(&Key::of(&event)) {
                Some(tally) => tally.untold += event.count,
                None => pages.note(Source::Stranger, event),
            }
        }
    }
}

impl Pages {
    fn note(&mut self, source: Source, event: AuditEvent) {
        let key = Key::of(&event);
        if let Some(tally) = self.tallies.get_mut(&key) {
            tally.add(event);
        } else if self.tallies.len() < APART && self.rooms.take(source, event.user.as_ref(), event.at) {
            self.begin(key, source, event);
        } else {
            self.together(source, event);
        }
    }

    /// Counts an event with all others of its kind, those that a user's token caused with those of this user.
    fn together(&mut self, source: Source, event: AuditEvent) {
        let AuditEvent { at, kind, count, user, .. } = event;
        let user = user.filter(|_| source == Source::Known && self.tallies.len() < APART + TOGETHER);
        let event = AuditEvent::new(at, kind).with_count(count).with_detail("and more of them, not told apart");
        let event = AuditEvent { user, ..event };
        let key = Key::of(&event);
        match self.tallies.get_mut(&key) {
            Some(tally) => tally.add(event),
            None => self.begin(key, source, event),
        }
    }

    fn begin(&mut self, key: Key, source: Source, event: AuditEvent) {
        let untold = event.count;
        self.tallies.insert(key, Tally { event, source, untold, told_at: None });
    }

    fn take(&mut self, now: UnixMillis, all: bool) -> Vec<AuditEvent> {
        let mut told = Vec::new();
        let mut crowded = Vec::new();
        let Self { tallies, rooms } = self;
        for tally in tallies.values_mut().filter(|tally| tally.untold > 0 && (all || tally.is_due(now))) {
            let event = tally.event.clone().with_count(std::mem::take(&mut tally.untold));
            let first = tally.told_at.replace(now).is_none();
            // The room of the first telling was taken when it began.
            match all || first || tally.is_of_many() || rooms.take(tally.source, event.user.as_ref(), now) {
                true => told.push(event),
                false => crowded.push((tally.source, event)),
            }
        }
        tallies.retain(|_, tally| tally.untold > 0 || !tally.is_due(now));
        rooms.users.retain(|_, room| !room.is_empty(USER_ROOM, now));
        for (source, event) in crowded {
            self.together(source, event);
        }
        told.sort_by_key(|event| event.at);
        told
    }
}

impl Tally {
    fn add(&mut self, event: AuditEvent) {
        self.untold = self.untold.saturating_add(event.count);
        self.event = event;
    }

    fn is_due(&self, now: UnixMillis) -> bool {
        let counted = if self.is_of_many() { COUNTED_TOGETHER } else { COUNTED };
        // A clock that was set back keeps nothing waiting.
        self.told_at.is_none_or(|told| now < told || now.saturating_duration_since(told) >= counted)
    }

    fn is_of_many(&self) -> bool {
        self.event.token.is_none() && self.event.address.is_none()
    }
}

impl Rooms {
    /// Takes room for one row, if there is any.
    fn take(&mut self, source: Source, user: Option<&Login>, now: UnixMillis) -> bool {
        match (source, user) {
            (Source::Stranger, _) => self.strangers.take(STRANGERS_ROOM, now),
            (Source::Known, None) => self.known.take(KNOWN_ROOM, now),
            // The user's own first: who has used that up takes none of what all have.
            (Source::Known, Some(user)) => {
                let of_user = self.users.entry(user.clone()).or_default();
                of_user.take(USER_ROOM, now) && self.known.take(KNOWN_ROOM, now)
            }
        }
    }
}

impl Room {
    /// Takes room for one row, if there is any.
    fn take(&mut self, size: RoomSize, now: UnixMillis) -> bool {
        self.refill(size, now);
        let free = self.used < size.0;
        self.used += u64::from(free);
        free
    }

    /// Tells whether all of it has come back.
    fn is_empty(&mut self, size: RoomSize, now: UnixMillis) -> bool {
        self.refill(size, now);
        self.used == 0
    }

    fn refill(&mut self, (_, one_in): RoomSize, now: UnixMillis) {
        let freed_at = *self.freed_at.get_or_insert(now);
        let freed =
            u64::try_from(now.saturating_duration_since(freed_at).as_millis() / one_in.as_millis()).unwrap_or(u64::MAX);
        if freed > 0 || now < freed_at {
            self.used = self.used.saturating_sub(freed);
            self.freed_at = Some(now);
        }
    }
}

impl Key {
    fn of(event: &AuditEvent) -> Self {
        Self {
            kind: event.kind,
            user: event.user.clone(),
            token: event.token,
            address: event.address.clone(),
            protocol: event.protocol,
            path: event.path.clone(),
            detail: event.detail.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Peer;

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::from_millis(1_777_968_000_000).saturating_add(Duration::from_secs(seconds))
    }

    fn attempt(seconds: u64, number: u32) -> AuditEvent {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
        let peer = Peer { protocol: Protocol::Sftp, address, user_agent: None };
        AuditEvent::new(at(seconds), EventKind::AttemptRefused).with_peer(&peer).with_detail("wrong secret")
    }

    fn counts(events: &[AuditEvent]) -> Vec<u64> {
        events.iter().map(|event| event.count).collect()
    }

    #[test]
    fn what_repeats_is_told_at_once_and_then_counted_for_a_minute() {
        let trail = Trail::default();
        trail.note(Source::Stranger, attempt(0, 1));
        assert_eq!(counts(&trail.due(at(0))), [1]);
        for second in 1..50 {
            trail.note(Source::Stranger, attempt(second, 1));
        }
        assert!(trail.due(at(59)).is_empty());
        let told = trail.due(at(60));
        assert_eq!((counts(&told), told[0].at), (vec![49], at(49)));
        assert!(trail.due(at(120)).is_empty());
        assert!(trail.pages.lock().tallies.is_empty(), "forgotten");
        trail.note(Source::Stranger, attempt(130, 1));
        trail.note(Source::Stranger, attempt(131, 1));
        assert_eq!(counts(&trail.all(at(131))), [2]);
    }

    #[test]
    fn a_flood_takes_bounded_memory_and_rows_and_none_of_it_is_uncounted() {
        let trail = Trail::default();
        let (mut rows, mut counted) = (0, 0);
        for second in 0..3600u32 {
            for number in 0..100 {
                trail.note(Source::Stranger, attempt(u64::from(second), second * 100 + number));
            }
            let told = trail.due(at(u64::from(second)));
            rows += told.len();
            counted += counts(&told).iter().sum::<u64>();
            assert!(trail.pages.lock().tallies.len() <= APART + 1);
        }
        counted += counts(&trail.all(at(3600))).iter().sum::<u64>();
        assert_eq!(counted, 360_000);
        assert!(rows < 256 + 360 + 10, "{rows} rows in an hour");
        trail.note(
            Source::Known,
            AuditEvent::new(at(3600), EventKind::SessionEnded).with_token("JhxND7ci".parse().expect("id")),
        );
        assert_eq!(counts(&trail.due(at(3600))), [1], "strangers leave room for others");
    }

    fn denial(seconds: u64, user: &str, path: usize) -> AuditEvent {
        let event = AuditEvent::new(at(seconds), EventKind::AccessDenied).with_user(&user.parse().expect("a login"));
        AuditEvent { path: Some(format!("/{path}")), ..event.with_token("JhxND7ci".parse().expect("an id")) }
    }

    #[test]
    fn denials_of_one_user_take_no_room_from_those_of_another_and_are_told_as_his() {
        let trail = Trail::default();
        for path in 0..5000 {
            trail.note(Source::Known, denial(0, "mallory", path));
        }
        trail.note(Source::Known, denial(0, "bob", 1));
        let told = trail.due(at(0));
        let is_of = |event: &&AuditEvent, login: &str| event.user.as_ref().is_some_and(|user| user.as_str() == login);
        let of = |login: &'static str| told.iter().filter(move |event| is_of(event, login));
        let bobs: Vec<_> = of("bob").collect();
        assert!(bobs.len() == 1 && bobs[0].path.as_deref() == Some("/1"), "told apart: {bobs:?}");
        assert_eq!(of("mallory").count(), 256 + 1);
        assert_eq!(of("mallory").map(|event| event.count).sum::<u64>(), 5000, "and none of it is uncounted");
        assert_eq!(trail.pages.lock().rooms.users.len(), 2);
        trail.due(at(256 * 20));
        assert!(trail.pages.lock().rooms.users.is_empty(), "released");
    }

    #[test]
    fn what_could_not_be_written_is_told_later() {
        let trail = Trail::default();
        trail.note(Source::Stranger, attempt(0, 1));
        let told = trail.due(at(0));
        trail.note(Source::Stranger, attempt(1, 1));
        trail.untold(told);
        assert_eq!(counts(&trail.due(at(60))), [2]);
    }

    #[test]
    fn a_clock_set_back_keeps_nothing_waiting() {
        let trail = Trail::default();
        trail.note(Source::Stranger, attempt(7200, 1));
        assert_eq!(counts(&trail.due(at(7200))), [1]);
        trail.note(Source::Stranger, attempt(0, 1));
        assert_eq!(counts(&trail.due(at(0))), [1]);
    }
}
