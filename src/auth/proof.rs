//! Proof: that a secret matches a hash. Found out by argon2 on a bounded pool, once for all who ask
//! at the same time, and remembered for a while. It gives no permission; that is read every time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::Clock;
use super::pool::Pool;
use super::seal;
use crate::domain::{Secret, Time, TokenId};
use crate::store::StoreError;

/// How many proofs are remembered.
const REMEMBERED: u64 = 10_000;
/// How long a proof is remembered that nobody asks for.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How long a proof is remembered at all.
const ABSOLUTE: Duration = Duration::from_secs(60 * 60);
/// How many different proofs may be under way or waiting.
const QUEUE: usize = 256;

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

/// As many proofs as may be found out at once are under way or waiting.
#[derive(Debug)]
pub(super) struct QueueFull;

/// What is proven.
pub(super) struct Proofs {
    key: [u8; 32],
    clock: Clock,
    known: Cache<Claim, Arc<Proven>>,
    flights: Mutex<HashMap<(Claim, Print), Flight>>,
    pool: Pool,
    runs: AtomicU64,
}

type Flight = watch::Receiver<Option<bool>>;

struct Proven {
    of: Print,
    at: Time,
    asked: AtomicI64,
}

impl Proofs {
    pub(super) fn new(clock: Clock) -> Result<Self, StoreError> {
        let mut key = [0; 32];
        seal::random(&mut key)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            key,
            clock,
            known: Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build(),
            flights: Mutex::default(),
            pool: Pool::new("patgate-argon2", cores)?,
            runs: AtomicU64::new(0),
        })
    }

    /// Returns how often argon2 has run.
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

    /// Finds out whether a claim fits a hash; all who ask at once share one run of argon2.
    pub(super) async fn prove(self: &Arc<Self>, claim: Claim, secret: &Secret, phc: &str) -> Result<bool, QueueFull> {
        let mut flight = match self.board(claim, secret, phc)? {
            Some(flight) => flight,
            None => return Ok(true),
        };
        match flight.wait_for(Option::is_some).await {
            Ok(landed) => landed.ok_or(QueueFull),
            Err(_) => Err(QueueFull),
        }
    }

    /// Joins the run that is under way, or starts one; none when the answer is there meanwhile.
    fn board(self: &Arc<Self>, claim: Claim, secret: &Secret, phc: &str) -> Result<Option<Flight>, QueueFull> {
        let of = print(phc);
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&(claim, of)) {
            return Ok(Some(flight.clone()));
        }
        if self.remembered(&claim) == Some(of) {
            return Ok(None);
        }
        if flights.len() >= QUEUE {
            return Err(QueueFull);
        }
        let (land, flight) = watch::channel(None);
        flights.insert((claim, of), flight.clone());
        // A task of its own: it lands for the others even when the caller who started it hangs up.
        tokio::spawn(self.clone().fly(claim, secret.clone(), phc.to_owned(), land));
        Ok(Some(flight))
    }

    async fn fly(self: Arc<Self>, claim: Claim, secret: Secret, phc: String, land: watch::Sender<Option<bool>>) {
        let of = print(&phc);
        let run = self.pool.run(move || seal::fits(&secret, &phc)).await;
        self.runs.fetch_add(1, Ordering::Relaxed);
        if run == Some(true) {
            let now = self.clock.now();
            self.known.insert(claim, Arc::new(Proven { of, at: now, asked: AtomicI64::new(now.as_millis()) }));
        }
        self.flights.lock().remove(&(claim, of));
        land.send_replace(run);
    }

    fn proven(&self, claim: &Claim) -> Option<Arc<Proven>> {
        let proven = self.known.get(claim)?;
        let now = self.clock.now();
        let asked = Time::from_millis(proven.asked.load(Ordering::Relaxed));
        if now.since(asked) >= IDLE || now.since(proven.at) >= ABSOLUTE {
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
    use crate::auth::mint;

    #[tokio::test]
    async fn more_first_uses_than_the_queue_holds_are_told_to_try_again() {
        let proofs = Arc::new(Proofs::new(Clock::system()).expect("random"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut held = Vec::new();
        for _ in 0..cores {
            let (hold, released) = std::sync::mpsc::channel::<()>();
            held.push(hold);
            drop(proofs.pool.run(move || released.recv().is_err()));
        }
        let claim = || {
            let text = mint().expect("random");
            (proofs.claim(text.id(), text.secret()), text.secret().clone())
        };
        let claims: Vec<_> = (0..=QUEUE).map(|_| claim()).collect();
        let mut flights = Vec::new();
        for (claim, secret) in &claims[..QUEUE] {
            flights.push(proofs.board(*claim, secret, "no hash").expect("room").expect("unknown"));
        }
        let (claim, secret) = &claims[QUEUE];
        assert!(proofs.prove(*claim, secret, "no hash").await.is_err());
        let (claim, secret) = &claims[0];
        proofs.board(*claim, secret, "no hash").expect("joins the one under way");
        assert_eq!(proofs.runs(), 0);
        drop(held);
        for mut flight in flights {
            let landed = *flight.wait_for(Option::is_some).await.expect("lands");
            assert_eq!(landed, Some(false));
        }
        let (claim, secret) = &claims[QUEUE];
        assert!(matches!(proofs.prove(*claim, secret, "no hash").await, Ok(false)), "there is room again");
        assert!(proofs.remembered(claim).is_none(), "what does not fit is not remembered");
    }

    #[tokio::test]
    async fn a_caller_who_hangs_up_leaves_the_answer_to_the_others() {
        let proofs = Arc::new(Proofs::new(Clock::system()).expect("random"));
        let text = mint().expect("random");
        let claim = proofs.claim(text.id(), text.secret());
        let first = proofs.board(claim, text.secret(), "no hash").expect("room");
        let second = proofs.prove(claim, text.secret(), "no hash");
        drop(first);
        assert!(matches!(second.await, Ok(false)));
        assert_eq!(proofs.runs(), 1);
    }
}
