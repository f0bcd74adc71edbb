//! Tests of the lock table with a manual clock: conflicts, depth, tokens, timeouts, limits and restarts. Who may lock
//! what is tested in `tree/view/lock/tests.rs`.

use super::*;

struct LockFixture {
    _state: tempfile::TempDir,
    store: Store,
    clock: Clock,
    locks: LockTable,
}

impl LockFixture {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("dir");
        let store = Store::open(&state.path().join("state")).expect("store");
        let clock = Clock::manual(UnixMillis::from_millis(1_000_000));
        let locks = LockTable::open(store.clone(), clock.clone(), WriteDurability::Lazy).expect("locks");
        Self { _state: state, store, clock, locks }
    }

    fn acquire(&self, path: &str, kind: LockRequest, login: &str) -> Result<LockToken> {
        self.locks.acquire(&tree_path(path), &kind, &login_of(login)).map(|lock| lock.token)
    }

    fn acquired(&self, path: &str, kind: LockRequest, login: &str) -> LockToken {
        self.acquire(path, kind, login).expect(path)
    }

    fn may_write(&self, path: &str, login: &str, tokens: &[&LockToken]) -> bool {
        let tokens: Vec<LockToken> = tokens.iter().map(|&token| token.clone()).collect();
        self.locks.check_write(&tree_path(path), &login_of(login), &tokens).is_ok()
    }

    fn may_remove(&self, path: &str, login: &str, tokens: &[&LockToken]) -> bool {
        let tokens: Vec<LockToken> = tokens.iter().map(|&token| token.clone()).collect();
        self.locks.check_subtree(&tree_path(path), &login_of(login), &tokens).is_ok()
    }

    fn restart(&self) -> LockTable {
        LockTable::open(self.store.clone(), self.clock.clone(), WriteDurability::Lazy).expect("locks")
    }
}

fn tree_path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn login_of(login: &str) -> Login {
    login.parse().expect("login")
}

fn lock_request(exclusive: bool, deep: bool) -> LockRequest {
    LockRequest { exclusive, depth_infinity: deep, owner: "<o/>".to_owned(), timeout: Duration::from_secs(60) }
}

fn exclusive_request() -> LockRequest {
    lock_request(true, false)
}

fn depth_infinity_request() -> LockRequest {
    lock_request(true, true)
}

fn shared_request() -> LockRequest {
    lock_request(false, false)
}

#[test]
fn conflicting_locks_are_refused() {
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
        for login in ["ann", "bob"] {
            let fixture = LockFixture::new();
            fixture.acquired(held_at, lock_request(held_exclusive, held_deep), "ann");
            let answer = fixture.acquire(asked_at, lock_request(asked_exclusive, asked_deep), login);
            let case = (held_exclusive, held_deep, held_at, asked_exclusive, asked_deep, asked_at, login);
            assert_eq!(answer.is_ok(), granted, "{case:?}");
            if let Err(error) = answer {
                let Error::Locked { root, token } = error else { panic!("{error}") };
                assert_eq!(root, tree_path(held_at));
                assert_eq!(token.is_some(), login == "ann", "a token is shown to its owner alone");
            }
        }
    }
}

#[test]
fn lock_allows_only_its_user_with_its_token() {
    let fixture = LockFixture::new();
    let token = fixture.acquired("/a/f", exclusive_request(), "ann");
    assert!(fixture.may_write("/a/f", "ann", &[&token]));
    assert!(!fixture.may_write("/a/f", "ann", &[]));
    assert!(!fixture.may_write("/a/f", "bob", &[&token]));
    assert!(!fixture.may_write("/a/f", "ann", &[&LockToken::new("urn:uuid:other")]));
    assert!(fixture.may_write("/a", "bob", &[]) && fixture.may_write("/a/g", "bob", &[]));
}

#[test]
fn depth_zero_lock_protects_members_and_depth_infinity_lock_the_subtree() {
    let fixture = LockFixture::new();
    let shallow = fixture.acquired("/a", exclusive_request(), "ann");
    let below = fixture.acquired("/d", depth_infinity_request(), "ann");
    // Adding and removing members of /a needs the token of /a; changing the content of a member does not.
    assert!(!fixture.may_write("/a", "bob", &[]) && fixture.may_write("/a", "ann", &[&shallow]));
    assert!(fixture.may_write("/a/f", "bob", &[]));
    assert!(!fixture.may_write("/d/x/y", "bob", &[]) && fixture.may_write("/d/x/y", "ann", &[&below]));
    assert!(!fixture.may_write("/d/x/y", "ann", &[&shallow]));
}

#[test]
fn one_own_shared_lock_token_is_enough() {
    let fixture = LockFixture::new();
    let (ann, bob) =
        (fixture.acquired("/a", lock_request(false, true), "ann"), fixture.acquired("/a/f", shared_request(), "bob"));
    assert!(fixture.may_write("/a/f", "ann", &[&ann]) && fixture.may_write("/a/f", "bob", &[&bob]));
    assert!(!fixture.may_write("/a/f", "bob", &[&ann]) && !fixture.may_write("/a/f", "cid", &[&ann, &bob]));
    assert!(!fixture.may_write("/a/g", "bob", &[&bob]), "bob's covers another file");
}

#[test]
fn removal_needs_token_of_every_lock_in_subtree() {
    let fixture = LockFixture::new();
    let (f, g) =
        (fixture.acquired("/a/b/f", exclusive_request(), "ann"), fixture.acquired("/a/g", exclusive_request(), "ann"));
    fixture.acquired("/ab", exclusive_request(), "bob");
    fixture.acquired("/a-", exclusive_request(), "bob");
    assert!(fixture.may_remove("/a", "ann", &[&f, &g]));
    assert!(!fixture.may_remove("/a", "ann", &[&f]) && !fixture.may_remove("/a", "ann", &[&g]));
    assert!(!fixture.may_remove("/a", "bob", &[&f, &g]));
    assert!(fixture.may_remove("/a/b", "ann", &[&f]));
    assert!(!fixture.may_remove("/", "ann", &[&f, &g]), "bob's stand in the way");
    let above = fixture.acquired("/c", depth_infinity_request(), "ann");
    assert!(!fixture.may_remove("/c/x", "ann", &[]) && fixture.may_remove("/c/x", "ann", &[&above]));
}

#[test]
fn shared_lock_below_is_satisfied_by_shared_lock_above() {
    let fixture = LockFixture::new();
    let (ann, bob) =
        (fixture.acquired("/a", lock_request(false, true), "ann"), fixture.acquired("/a/f", shared_request(), "bob"));
    assert!(fixture.may_remove("/a", "ann", &[&ann]));
    assert!(!fixture.may_remove("/a", "bob", &[&bob]));
}

#[test]
fn expired_lock_is_ignored_and_removed_from_store() {
    let fixture = LockFixture::new();
    let token = fixture.acquired("/a", depth_infinity_request(), "ann");
    fixture.clock.advance(Duration::from_secs(59));
    assert!(!fixture.may_write("/a/f", "bob", &[]));
    let before = fixture.locks.generation();
    fixture.clock.advance(Duration::from_secs(1));
    assert!(fixture.may_write("/a/f", "bob", &[]));
    assert!(fixture.locks.covering(&tree_path("/a")).is_empty() && fixture.locks.generation() != before);
    assert!(matches!(
        fixture.locks.release(&tree_path("/a"), &token, &login_of("ann")),
        Err(Error::PreconditionFailed)
    ));
    assert!(fixture.store.load_unexpired_locks(UnixMillis::from_millis(0)).expect("read").is_empty());
    fixture.acquired("/a", depth_infinity_request(), "bob");
}

#[test]
fn refresh_extends_only_own_lock() {
    let fixture = LockFixture::new();
    let token = fixture.acquired("/a", depth_infinity_request(), "ann");
    let refresh = |path: &str, token: &LockToken, login: &str| {
        fixture.locks.refresh(&tree_path(path), token, &login_of(login), Duration::from_secs(90))
    };
    assert!(matches!(refresh("/a", &token, "bob"), Err(Error::PreconditionFailed)));
    assert!(matches!(refresh("/b", &token, "ann"), Err(Error::PreconditionFailed)));
    assert!(matches!(refresh("/a", &LockToken::new("x"), "ann"), Err(Error::PreconditionFailed)));
    fixture.clock.advance(Duration::from_secs(59));
    let lock = refresh("/a/f", &token, "ann").expect("refreshed");
    assert_eq!((lock.timeout, lock.root), (Duration::from_secs(90), tree_path("/a")));
    fixture.clock.advance(Duration::from_secs(89));
    assert!(!fixture.may_write("/a", "bob", &[]));
    assert!(fixture.restart().check_write(&tree_path("/a"), &login_of("bob"), &[]).is_err());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(fixture.may_write("/a", "bob", &[]));
}

#[test]
fn lock_is_released_only_by_its_user_at_a_covered_path() {
    let fixture = LockFixture::new();
    let token = fixture.acquired("/a", depth_infinity_request(), "ann");
    let release = |path: &str, login: &str| fixture.locks.release(&tree_path(path), &token, &login_of(login));
    assert!(matches!(release("/a", "bob"), Err(Error::Forbidden)));
    assert!(matches!(release("/b", "ann"), Err(Error::PreconditionFailed)));
    release("/a/b/c", "ann").expect("released");
    assert!(fixture.may_write("/a", "bob", &[]));
    assert!(matches!(release("/a", "ann"), Err(Error::PreconditionFailed)));
    assert!(fixture.restart().covering(&tree_path("/a")).is_empty());
}

#[test]
fn lock_timeout_is_clamped() {
    let fixture = LockFixture::new();
    let request = LockRequest { timeout: Duration::MAX, ..depth_infinity_request() };
    let lock = fixture.locks.acquire(&tree_path("/a"), &request, &login_of("ann")).expect("taken");
    assert_eq!(lock.timeout, LOCK_MAX_LIFETIME);
    fixture.clock.advance(LOCK_MAX_LIFETIME);
    assert!(fixture.may_write("/a", "bob", &[]));
    let request = LockRequest { timeout: Duration::ZERO, ..depth_infinity_request() };
    assert_eq!(
        fixture.locks.acquire(&tree_path("/a"), &request, &login_of("ann")).expect("taken").timeout,
        LOCK_MIN_LIFETIME
    );
}

#[test]
fn locks_survive_restart_and_clock_set_back_does_not_extend_them() {
    let fixture = LockFixture::new();
    let token = fixture.acquired("/a\u{e4}/b", lock_request(false, true), "ann");
    let locks = fixture.restart();
    assert_eq!(locks.covering(&tree_path("/a\u{e4}/b/c")), fixture.locks.covering(&tree_path("/a\u{e4}/b")));
    assert!(locks.check_write(&tree_path("/a\u{e4}/b"), &login_of("ann"), &[token]).is_ok());
    assert!(locks.check_write(&tree_path("/a\u{e4}/b"), &login_of("bob"), &[]).is_err());
    let long_ago = Clock::manual(UnixMillis::from_millis(-900_000_000_000));
    let locks = LockTable::open(fixture.store.clone(), long_ago.clone(), WriteDurability::Lazy).expect("locks");
    long_ago.advance(LOCK_MAX_LIFETIME);
    assert!(locks.check_write(&tree_path("/a\u{e4}/b"), &login_of("bob"), &[]).is_ok());
}

#[test]
fn locks_are_removed_with_the_locked_entry() {
    let fixture = LockFixture::new();
    for path in ["/a", "/a/b", "/a/b/c", "/ab"] {
        fixture.acquired(path, exclusive_request(), "ann");
    }
    let free = |path: &str| fixture.may_write(path, "bob", &[]);
    fixture.locks.remove_below(&tree_path("/a/b"));
    assert!(free("/a/b/c") && !free("/a/b"));
    fixture.locks.remove_subtree(&tree_path("/a"));
    assert!(free("/a") && free("/a/b") && !free("/ab"));
    assert_eq!(fixture.restart().covering(&tree_path("/ab")).len(), 1);
    fixture.locks.remove_below(&tree_path("/"));
    assert!(free("/ab") && fixture.locks.is_empty());
}

#[test]
fn locks_per_user_are_limited() {
    let fixture = LockFixture::new();
    for n in 0..fixture.store.state_limits().locks.per_user {
        fixture.acquired(&format!("/{n}"), exclusive_request(), "ann");
    }
    assert!(matches!(
        fixture.acquire("/x", exclusive_request(), "ann"),
        Err(Error::Store(StoreError::QuotaExceeded(_)))
    ));
    fixture.acquired("/x", exclusive_request(), "bob");
    fixture.locks.remove_subtree(&tree_path("/0"));
    fixture.acquired("/y", exclusive_request(), "ann");
    let owner = "o".repeat(LOCK_OWNER_MAX_BYTES + 1);
    assert!(matches!(
        fixture.acquire("/z", LockRequest { owner, ..exclusive_request() }, "bob"),
        Err(Error::Store(StoreError::QuotaExceeded(_)))
    ));
}

#[test]
fn lock_is_not_acquired_between_check_and_effect() {
    let fixture = LockFixture::new();
    let lock_freeze = fixture.locks.freeze();
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| fixture.acquired("/a", exclusive_request(), "ann"));
        // The writer is waiting once new readers are refused.
        while fixture.locks.acquisition_lock.try_read().is_some() {
            assert!(!taking.is_finished(), "it did not wait");
            std::thread::yield_now();
        }
        assert!(fixture.may_write("/a", "bob", &[]));
        drop(lock_freeze);
    });
    assert!(!fixture.may_write("/a", "bob", &[]));
}
