//! The rules of write locks, with a clock turned by hand.

use super::*;

struct World {
    _state: tempfile::TempDir,
    store: Store,
    clock: Clock,
    locks: LockTable,
}

impl World {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("dir");
        let store = Store::open(&state.path().join("state")).expect("store");
        let clock = Clock::manual(UnixMillis::from_millis(1_000_000));
        let locks = LockTable::open(store.clone(), clock.clone(), WriteDurability::Lazy).expect("locks");
        Self { _state: state, store, clock, locks }
    }

    fn take(&self, path: &str, kind: LockRequest, login: &str) -> Result<LockToken> {
        self.locks.take(&at(path), &kind, &who(login)).map(|lock| lock.token)
    }

    fn taken(&self, path: &str, kind: LockRequest, login: &str) -> LockToken {
        self.take(path, kind, login).expect(path)
    }

    fn may_write(&self, path: &str, login: &str, tokens: &[&LockToken]) -> bool {
        let tokens: Vec<LockToken> = tokens.iter().map(|&token| token.clone()).collect();
        self.locks.check_write(&at(path), &who(login), &tokens).is_ok()
    }

    fn may_remove(&self, path: &str, login: &str, tokens: &[&LockToken]) -> bool {
        let tokens: Vec<LockToken> = tokens.iter().map(|&token| token.clone()).collect();
        self.locks.check_subtree(&at(path), &who(login), &tokens).is_ok()
    }

    fn restart(&self) -> LockTable {
        LockTable::open(self.store.clone(), self.clock.clone(), WriteDurability::Lazy).expect("locks")
    }
}

fn at(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn who(login: &str) -> Login {
    login.parse().expect("login")
}

fn ask(exclusive: bool, deep: bool) -> LockRequest {
    LockRequest { exclusive, deep, owner: "<o/>".to_owned(), timeout: Duration::from_secs(60) }
}

fn exclusive() -> LockRequest {
    ask(true, false)
}

fn deep() -> LockRequest {
    ask(true, true)
}

fn shared() -> LockRequest {
    ask(false, false)
}

#[test]
fn what_excludes_what() {
    // held exclusive, held deep, held at; asked exclusive, asked deep, asked at; granted
    let cases = [
        (true, false, "/a", true, false, "/a", false),
        (true, false, "/a", false, false, "/a", false),
        (false, false, "/a", true, false, "/a", false),
        (false, false, "/a", false, false, "/a", true),
        (false, true, "/a", false, true, "/a", true),
        // From above.
        (true, true, "/a", true, false, "/a/b/c", false),
        (true, true, "/a", false, false, "/a/b/c", false),
        (false, true, "/a", true, false, "/a/b", false),
        (false, true, "/a", false, false, "/a/b", true),
        (true, false, "/a", true, false, "/a/b", true),
        (true, true, "/", true, false, "/a", false),
        // From below.
        (true, false, "/a/b/c", true, true, "/a", false),
        (true, false, "/a/b/c", false, true, "/a", false),
        (false, false, "/a/b/c", true, true, "/a", false),
        (false, false, "/a/b/c", false, true, "/a", true),
        (true, false, "/a/b/c", true, false, "/a", true),
        (true, false, "/a/b/c", true, true, "/", false),
        // Beside: a prefix ends at a boundary.
        (true, true, "/a", true, true, "/ab", true),
        (true, true, "/a-b", true, true, "/a", true),
        (true, true, "/a0", true, true, "/a", true),
        (true, false, "/", true, false, "/a", true),
    ];
    for (held_exclusive, held_deep, held_at, asked_exclusive, asked_deep, asked_at, granted) in cases {
        for asker in ["ann", "bob"] {
            let world = World::new();
            world.taken(held_at, ask(held_exclusive, held_deep), "ann");
            let answer = world.take(asked_at, ask(asked_exclusive, asked_deep), asker);
            let case = (held_exclusive, held_deep, held_at, asked_exclusive, asked_deep, asked_at, asker);
            assert_eq!(answer.is_ok(), granted, "{case:?}");
            if let Err(error) = answer {
                let Error::Locked { root, token } = error else { panic!("{error}") };
                assert_eq!(root, at(held_at));
                assert_eq!(token.is_some(), asker == "ann", "a token is shown to its owner alone");
            }
        }
    }
}

#[test]
fn a_lock_binds_all_but_its_user_with_its_token() {
    let world = World::new();
    let token = world.taken("/a/f", exclusive(), "ann");
    assert!(world.may_write("/a/f", "ann", &[&token]));
    assert!(!world.may_write("/a/f", "ann", &[]));
    assert!(!world.may_write("/a/f", "bob", &[&token]));
    assert!(!world.may_write("/a/f", "ann", &[&LockToken::new("urn:uuid:other")]));
    assert!(world.may_write("/a", "bob", &[]) && world.may_write("/a/g", "bob", &[]));
}

#[test]
fn a_lock_of_a_folder_protects_its_membership_and_a_deep_one_all_below() {
    let world = World::new();
    let shallow = world.taken("/a", exclusive(), "ann");
    let below = world.taken("/d", deep(), "ann");
    // Adding to and removing from /a asks for the lock of /a; what a member holds does not.
    assert!(!world.may_write("/a", "bob", &[]) && world.may_write("/a", "ann", &[&shallow]));
    assert!(world.may_write("/a/f", "bob", &[]));
    assert!(!world.may_write("/d/x/y", "bob", &[]) && world.may_write("/d/x/y", "ann", &[&below]));
    assert!(!world.may_write("/d/x/y", "ann", &[&shallow]));
}

#[test]
fn one_of_the_shared_locks_is_enough_and_it_must_be_ones_own() {
    let world = World::new();
    let (ann, bob) = (world.taken("/a", ask(false, true), "ann"), world.taken("/a/f", shared(), "bob"));
    assert!(world.may_write("/a/f", "ann", &[&ann]) && world.may_write("/a/f", "bob", &[&bob]));
    assert!(!world.may_write("/a/f", "bob", &[&ann]) && !world.may_write("/a/f", "cid", &[&ann, &bob]));
    assert!(!world.may_write("/a/g", "bob", &[&bob]), "bob's covers another file");
}

#[test]
fn removing_asks_for_every_lock_in_the_way() {
    let world = World::new();
    let (f, g) = (world.taken("/a/b/f", exclusive(), "ann"), world.taken("/a/g", exclusive(), "ann"));
    world.taken("/ab", exclusive(), "bob");
    world.taken("/a-", exclusive(), "bob");
    assert!(world.may_remove("/a", "ann", &[&f, &g]));
    assert!(!world.may_remove("/a", "ann", &[&f]) && !world.may_remove("/a", "ann", &[&g]));
    assert!(!world.may_remove("/a", "bob", &[&f, &g]));
    assert!(world.may_remove("/a/b", "ann", &[&f]));
    assert!(!world.may_remove("/", "ann", &[&f, &g]), "bob's stand in the way");
    let above = world.taken("/c", deep(), "ann");
    assert!(!world.may_remove("/c/x", "ann", &[]) && world.may_remove("/c/x", "ann", &[&above]));
}

#[test]
fn shared_locks_below_are_satisfied_by_one_that_covers_the_same_place() {
    let world = World::new();
    let (ann, bob) = (world.taken("/a", ask(false, true), "ann"), world.taken("/a/f", shared(), "bob"));
    assert!(world.may_remove("/a", "ann", &[&ann]));
    assert!(!world.may_remove("/a", "bob", &[&bob]));
}

#[test]
fn an_expired_lock_binds_nobody_and_leaves_the_store() {
    let world = World::new();
    let token = world.taken("/a", deep(), "ann");
    world.clock.advance(Duration::from_secs(59));
    assert!(!world.may_write("/a/f", "bob", &[]));
    let before = world.locks.generation();
    world.clock.advance(Duration::from_secs(1));
    assert!(world.may_write("/a/f", "bob", &[]));
    assert!(world.locks.covering(&at("/a")).is_empty() && world.locks.generation() != before);
    assert!(matches!(world.locks.release(&at("/a"), &token, &who("ann")), Err(Error::Precondition)));
    assert!(world.store.load_unexpired_locks(UnixMillis::from_millis(0)).expect("read").is_empty());
    world.taken("/a", deep(), "bob");
}

#[test]
fn a_refresh_gives_a_new_life_to_ones_own_lock_alone() {
    let world = World::new();
    let token = world.taken("/a", deep(), "ann");
    let refresh = |path: &str, token: &LockToken, login: &str| {
        world.locks.refresh(&at(path), token, &who(login), Duration::from_secs(90))
    };
    assert!(matches!(refresh("/a", &token, "bob"), Err(Error::Precondition)));
    assert!(matches!(refresh("/b", &token, "ann"), Err(Error::Precondition)));
    assert!(matches!(refresh("/a", &LockToken::new("x"), "ann"), Err(Error::Precondition)));
    world.clock.advance(Duration::from_secs(59));
    let lock = refresh("/a/f", &token, "ann").expect("refreshed");
    assert_eq!((lock.timeout, lock.root), (Duration::from_secs(90), at("/a")));
    world.clock.advance(Duration::from_secs(89));
    assert!(!world.may_write("/a", "bob", &[]));
    assert!(world.restart().check_write(&at("/a"), &who("bob"), &[]).is_err());
    world.clock.advance(Duration::from_secs(1));
    assert!(world.may_write("/a", "bob", &[]));
}

#[test]
fn a_lock_is_released_by_its_user_at_a_place_that_it_covers() {
    let world = World::new();
    let token = world.taken("/a", deep(), "ann");
    let release = |path: &str, login: &str| world.locks.release(&at(path), &token, &who(login));
    assert!(matches!(release("/a", "bob"), Err(Error::Forbidden)));
    assert!(matches!(release("/b", "ann"), Err(Error::Precondition)));
    release("/a/b/c", "ann").expect("released");
    assert!(world.may_write("/a", "bob", &[]));
    assert!(matches!(release("/a", "ann"), Err(Error::Precondition)));
    assert!(world.restart().covering(&at("/a")).is_empty());
}

#[test]
fn nobody_locks_for_ever() {
    let world = World::new();
    let request = LockRequest { timeout: Duration::MAX, ..deep() };
    let lock = world.locks.take(&at("/a"), &request, &who("ann")).expect("taken");
    assert_eq!(lock.timeout, LONGEST);
    world.clock.advance(LONGEST);
    assert!(world.may_write("/a", "bob", &[]));
    let request = LockRequest { timeout: Duration::ZERO, ..deep() };
    assert_eq!(world.locks.take(&at("/a"), &request, &who("ann")).expect("taken").timeout, SHORTEST);
}

#[test]
fn locks_outlive_a_restart_but_no_clock_that_was_set_back_stretches_them() {
    let world = World::new();
    let token = world.taken("/a\u{e4}/b", ask(false, true), "ann");
    let locks = world.restart();
    assert_eq!(locks.covering(&at("/a\u{e4}/b/c")), world.locks.covering(&at("/a\u{e4}/b")));
    assert!(locks.check_write(&at("/a\u{e4}/b"), &who("ann"), &[token]).is_ok());
    assert!(locks.check_write(&at("/a\u{e4}/b"), &who("bob"), &[]).is_err());
    let long_ago = Clock::manual(UnixMillis::from_millis(-900_000_000_000));
    let locks = LockTable::open(world.store.clone(), long_ago.clone(), WriteDurability::Lazy).expect("locks");
    long_ago.advance(LONGEST);
    assert!(locks.check_write(&at("/a\u{e4}/b"), &who("bob"), &[]).is_ok());
}

#[test]
fn locks_end_with_what_they_were_taken_on() {
    let world = World::new();
    for path in ["/a", "/a/b", "/a/b/c", "/ab"] {
        world.taken(path, exclusive(), "ann");
    }
    let free = |path: &str| world.may_write(path, "bob", &[]);
    world.locks.forget_below(&at("/a/b"));
    assert!(free("/a/b/c") && !free("/a/b"));
    world.locks.forget(&at("/a"));
    assert!(free("/a") && free("/a/b") && !free("/ab"));
    assert_eq!(world.restart().covering(&at("/ab")).len(), 1);
    world.locks.forget_below(&at("/"));
    assert!(free("/ab") && world.locks.is_empty());
}

#[test]
fn what_one_user_may_hold_is_bounded() {
    let world = World::new();
    for n in 0..world.store.state_limits().locks.per_user {
        world.taken(&format!("/{n}"), exclusive(), "ann");
    }
    assert!(matches!(world.take("/x", exclusive(), "ann"), Err(Error::Store(StoreError::QuotaExceeded(_)))));
    world.taken("/x", exclusive(), "bob");
    world.locks.forget(&at("/0"));
    world.taken("/y", exclusive(), "ann");
    let owner = "o".repeat(OWNER_BYTES + 1);
    assert!(matches!(
        world.take("/z", LockRequest { owner, ..exclusive() }, "bob"),
        Err(Error::Store(StoreError::QuotaExceeded(_)))
    ));
}

#[test]
fn no_lock_is_taken_between_a_check_and_its_effect() {
    let world = World::new();
    let steady = world.locks.steady();
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| world.taken("/a", exclusive(), "ann"));
        // It waits once it keeps new readers out.
        while world.locks.effects.try_read().is_some() {
            assert!(!taking.is_finished(), "it did not wait");
            std::thread::yield_now();
        }
        assert!(world.may_write("/a", "bob", &[]));
        drop(steady);
    });
    assert!(!world.may_write("/a", "bob", &[]));
}
