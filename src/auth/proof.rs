//! Proof: that a secret matches a hash. Found out by argon2 in the bounded queue of [`HashingPool`], once for all who
//! ask at the same time, and remembered for a while. It gives no permission; that is read every time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::Clock;
use super::hashing::{HashingBusy, HashingPool, Ticket};
use super::seal::{self, Argon2Memory};
use crate::domain::{Login, Secret, TokenId, UnixMillis};
use crate::store::StoreError;

/// How many proofs are remembered.
const REMEMBERED: u64 = 10_000;
/// How long a proof is remembered that nobody asks for.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How long a proof is remembered at all.
const ABSOLUTE: Duration = Duration::from_secs(60 * 60);

/// Stands for a hash of the store.
pub(super) type Print = [u8; 32];

/// Returns what stands for a PHC string.
pub(super) fn print(phc: &str) -> Print {
    blake3::hash(phc.as_bytes()).into()
}

/// A token and a secret shown for it, told apart from other secrets without keeping it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    token: TokenId,
    fingerprint: [u8; 32],
}

/// What is proven.
pub(super) struct Proofs {
    key: [u8; 32],
    clock: Clock,
    known: Cache<Claim, Arc<Proven>>,
    flights: Mutex<HashMap<(Claim, Print), Flight>>,
    pool: Arc<HashingPool>,
    runs: AtomicU64,
}

/// A proof that waits in the queue or is under way.
struct Flight {
    ticket: Ticket,
    /// Number of requests that wait for it.
    requests: usize,
    landed: watch::Receiver<Option<bool>>,
}

/// The wait of one request for a flight. The last that is dropped takes the flight out of the queue.
struct FlightWait<'a> {
    proofs: &'a Proofs,
    key: (Claim, Print),
    number: u64,
    landed: watch::Receiver<Option<bool>>,
}

impl Drop for FlightWait<'_> {
    fn drop(&mut self) {
        let mut flights = self.proofs.flights.lock();
        // One with another number has begun since, after this one had landed.
        let Some(flight) = flights.get_mut(&self.key).filter(|flight| flight.ticket.number == self.number) else {
            return;
        };
        flight.requests -= 1;
        if flight.requests == 0 && self.proofs.pool.withdraw(&flight.ticket) {
            flights.remove(&self.key);
        }
    }
}

/// Ends a flight when dropped, also when argon2 panics.
struct Landing {
    proofs: Arc<Proofs>,
    key: (Claim, Print),
    fits: Option<bool>,
    land: watch::Sender<Option<bool>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        // It is remembered by now: whoever comes from here on finds either the flight or the proof.
        self.proofs.flights.lock().remove(&self.key);
        self.land.send_replace(self.fits);
    }
}

struct Proven {
    of: Print,
    at: UnixMillis,
    asked: AtomicI64,
}

impl Proofs {
    pub(super) fn new(clock: Clock, pool: Arc<HashingPool>) -> Result<Self, StoreError> {
        let mut key = [0; 32];
        seal::random(&mut key)?;
        Ok(Self {
            key,
            clock,
            known: Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build(),
            flights: Mutex::default(),
            pool,
            runs: AtomicU64::new(0),
        })
    }

    /// Returns how often argon2 has run for a proof.
    pub(super) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    pub(super) fn claim(&self, token: TokenId, secret: &Secret) -> Claim {
        Claim { token, fingerprint: blake3::keyed_hash(&self.key, secret.expose()).into() }
    }

    /// Returns the hash that a claim was proven of lately.
    pub(super) fn remembered(&self, claim: &Claim) -> Option<Print> {
        self.proven(claim).map(|proven| proven.of)
    }

    /// Finds out whether a claim fits a hash, in a user's share of the queue; all who ask at once share one run of
    /// argon2.
    pub(super) async fn prove(
        self: &Arc<Self>,
        user: &Login,
        claim: Claim,
        secret: &Secret,
        phc: &str,
    ) -> Result<bool, HashingBusy> {
        let mut wait = match self.board(user, claim, secret, phc)? {
            Some(wait) => wait,
            None => return Ok(true),
        };
        match wait.landed.wait_for(Option::is_some).await {
            Ok(landed) => landed.ok_or(HashingBusy),
            Err(_) => Err(HashingBusy),
        }
    }

    /// Joins the run that waits or is under way, or starts one; none when the answer is there meanwhile.
    fn board(
        self: &Arc<Self>,
        user: &Login,
        claim: Claim,
        secret: &Secret,
        phc: &str,
    ) -> Result<Option<FlightWait<'_>>, HashingBusy> {
        let key = (claim, print(phc));
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get_mut(&key) {
            flight.requests += 1;
            let (number, landed) = (flight.ticket.number, flight.landed.clone());
            return Ok(Some(FlightWait { proofs: self, key, number, landed }));
        }
        if self.remembered(&claim) == Some(key.1) {
            return Ok(None);
        }
        let (land, landed) = watch::channel(None);
        let (proofs, secret, phc) = (self.clone(), secret.clone(), phc.to_owned());
        let fly = move |memory: &mut Argon2Memory| {
            let mut landing = Landing { proofs, key, fits: None, land };
            let fits = landing.proofs.fits(claim, &secret, &phc, memory);
            landing.fits = Some(fits);
        };
        // It can't land before it is among the flights, which are locked until then.
        let ticket = self.pool.submit(user, Box::new(fly))?;
        let number = ticket.number;
        flights.insert(key, Flight { ticket, requests: 1, landed: landed.clone() });
        Ok(Some(FlightWait { proofs: self, key, number, landed }))
    }

    /// Runs argon2, and remembers a claim that fits.
    fn fits(&self, claim: Claim, secret: &Secret, phc: &str, memory: &mut Argon2Memory) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let fits = seal::fits(secret, phc, memory);
        if fits {
            let (of, now) = (print(phc), self.clock.now());
            self.known.insert(claim, Arc::new(Proven { of, at: now, asked: AtomicI64::new(now.as_millis()) }));
        }
        fits
    }

    fn proven(&self, claim: &Claim) -> Option<Arc<Proven>> {
        let proven = self.known.get(claim)?;
        let now = self.clock.now();
        let asked = UnixMillis::from_millis(proven.asked.load(Ordering::Relaxed));
        if now.saturating_duration_since(asked) >= IDLE || now.saturating_duration_since(proven.at) >= ABSOLUTE {
            self.known.invalidate(claim);
            return None;
        }
        proven.asked.fetch_max(now.as_millis(), Ordering::Relaxed);
        Some(proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hashing::{QUEUE_LIMIT, QUEUE_LIMIT_PER_USER};
    use crate::auth::mint;
    use crate::store::testing::login;

    fn proofs() -> Arc<Proofs> {
        let pool = Arc::new(HashingPool::new().expect("starts"));
        Arc::new(Proofs::new(Clock::system(), pool).expect("random"))
    }

    fn claim(proofs: &Proofs) -> (Claim, Secret) {
        let text = mint().expect("random");
        (proofs.claim(text.id(), text.secret()), text.secret().clone())
    }

    #[tokio::test]
    async fn more_first_uses_than_the_queue_holds_are_told_to_try_again() {
        let proofs = proofs();
        let held = proofs.pool.occupy();
        let users: Vec<_> =
            (0..QUEUE_LIMIT / QUEUE_LIMIT_PER_USER).map(|number| login(&format!("user{number}"))).collect();
        let claims: Vec<_> = (0..=QUEUE_LIMIT).map(|_| claim(&proofs)).collect();
        let mut waits = Vec::new();
        for (number, (claim, secret)) in claims[..QUEUE_LIMIT].iter().enumerate() {
            let user = &users[number / QUEUE_LIMIT_PER_USER];
            waits.push(proofs.board(user, *claim, secret, "no hash").expect("room").expect("unknown"));
        }
        let other = login("other");
        let (claim, secret) = &claims[QUEUE_LIMIT];
        assert!(proofs.prove(&other, *claim, secret, "no hash").await.is_err());
        let (claim, secret) = &claims[0];
        waits
            .push(proofs.board(&other, *claim, secret, "no hash").expect("joins the one that waits").expect("unknown"));
        assert_eq!(proofs.runs(), 0);
        drop(held);
        for wait in &mut waits {
            let landed = *wait.landed.wait_for(Option::is_some).await.expect("lands");
            assert_eq!(landed, Some(false));
        }
        let (claim, secret) = &claims[QUEUE_LIMIT];
        assert!(matches!(proofs.prove(&other, *claim, secret, "no hash").await, Ok(false)), "there is room again");
        assert!(proofs.remembered(claim).is_none(), "what does not fit is not remembered");
        assert_eq!(proofs.runs(), QUEUE_LIMIT as u64 + 1);
    }

    #[tokio::test]
    async fn caller_who_hangs_up_leaves_the_answer_to_the_others() {
        let proofs = proofs();
        let held = proofs.pool.occupy();
        let alice = login("alice");
        let (claim, secret) = claim(&proofs);
        let first = proofs.board(&alice, claim, &secret, "no hash").expect("room");
        let mut second = proofs.board(&alice, claim, &secret, "no hash").expect("joins").expect("unknown");
        drop(first);
        drop(held);
        assert_eq!(*second.landed.wait_for(Option::is_some).await.expect("lands"), Some(false));
        assert_eq!(proofs.runs(), 1);
    }

    #[tokio::test]
    async fn proof_that_nobody_waits_for_any_more_is_not_run() {
        let proofs = proofs();
        let held = proofs.pool.occupy();
        let alice = login("alice");
        let (claim, secret) = claim(&proofs);
        let both = [(); 2].map(|()| proofs.board(&alice, claim, &secret, "no hash").expect("room"));
        assert_eq!(proofs.pool.waiting(), 1);
        drop(both);
        assert_eq!(proofs.pool.waiting(), 0);
        assert!(proofs.flights.lock().is_empty());
        let again = proofs.prove(&alice, claim, &secret, "no hash");
        drop(held);
        assert!(matches!(again.await, Ok(false)), "whoever comes then is answered");
        assert_eq!(proofs.runs(), 1);
    }
}
