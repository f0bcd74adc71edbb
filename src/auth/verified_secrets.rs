//! Cache of secrets that match a hash. Argon2 verifies them in the bounded queue of [`HashingPool`], once for all
//! requests that ask at the same time. An entry grants nothing: authorization is read from the store on every request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::Clock;
use super::hashing_pool::{HashingBusy, HashingPool, QueueTicket};
use super::random::fill_random;
use super::secret_hash::{self, Argon2Memory};
use crate::domain::{Login, Secret, TokenId};
use crate::store::StoreError;

/// Maximum number of verified secrets in the cache.
const VERIFIED_CACHE_ENTRIES: u64 = 10_000;
/// Time after which a verified secret that no request presents has to be verified again.
const VERIFIED_IDLE_TTL: Duration = Duration::from_secs(10 * 60);
/// Time after which a verified secret has to be verified again in any case.
const VERIFIED_MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// Digest that identifies a PHC string of the store.
pub(super) type PhcDigest = [u8; 32];

/// Returns the digest of a PHC string.
pub(super) fn phc_digest(phc: &str) -> PhcDigest {
    blake3::hash(phc.as_bytes()).into()
}

/// Identifies a token and a secret presented for it, without keeping the secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SecretFingerprint {
    token: TokenId,
    keyed_digest: [u8; 32],
}

/// Verified secrets, and verifications under way.
pub(super) struct VerifiedSecrets {
    key: [u8; 32],
    clock: Clock,
    verified: Cache<SecretFingerprint, Arc<VerifiedSecret>>,
    in_flight: Mutex<HashMap<(SecretFingerprint, PhcDigest), InFlight>>,
    hashing_pool: Arc<HashingPool>,
    argon2_runs: AtomicU64,
}

/// Verification that waits in the queue or runs.
struct InFlight {
    ticket: QueueTicket,
    /// Number of requests that wait for it.
    waiters: usize,
    outcome: watch::Receiver<Option<bool>>,
}

/// One request's wait for a verification. Dropping the last one takes the verification out of the queue.
struct InFlightWait<'a> {
    secrets: &'a VerifiedSecrets,
    key: (SecretFingerprint, PhcDigest),
    ticket_number: u64,
    outcome: watch::Receiver<Option<bool>>,
}

impl Drop for InFlightWait<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.secrets.in_flight.lock();
        // An entry with another number is a later verification: the one that this request waited for has completed.
        let Some(entry) = in_flight.get_mut(&self.key).filter(|entry| entry.ticket.number == self.ticket_number) else {
            return;
        };
        entry.waiters -= 1;
        // A job that runs already can't be withdrawn. Its entry stays, so that a new request joins it. Lock order:
        // `in_flight`, then the queue of the pool.
        if entry.waiters == 0 && self.secrets.hashing_pool.withdraw(&entry.ticket) {
            in_flight.remove(&self.key);
        }
    }
}

/// Completes a verification when dropped, also when argon2 panics.
struct CompleteOnDrop {
    secrets: Arc<VerifiedSecrets>,
    key: (SecretFingerprint, PhcDigest),
    matches: Option<bool>,
    outcome: watch::Sender<Option<bool>>,
}

impl Drop for CompleteOnDrop {
    fn drop(&mut self) {
        // The result is cached by now: a request that comes from here on finds either the entry or the verified secret.
        self.secrets.in_flight.lock().remove(&self.key);
        self.outcome.send_replace(self.matches);
    }
}

/// Verified secret, with instants in the machine's running time: a clock that is set back prolongs no entry.
struct VerifiedSecret {
    digest: PhcDigest,
    verified_ms: u64,
    last_used_ms: AtomicU64,
}

impl VerifiedSecrets {
    pub(super) fn new(clock: Clock, hashing_pool: Arc<HashingPool>) -> Result<Self, StoreError> {
        // A key for this process alone: a fingerprint means nothing outside it, and never reaches the disk.
        let mut key = [0; 32];
        fill_random(&mut key)?;
        Ok(Self {
            key,
            clock,
            verified: Cache::builder()
                .max_capacity(VERIFIED_CACHE_ENTRIES)
                // LRU: the default policy (TinyLFU) may reject new entries, whose requests would all run argon2.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            in_flight: Mutex::default(),
            hashing_pool,
            argon2_runs: AtomicU64::new(0),
        })
    }

    /// Returns how many times argon2 has run to verify a secret.
    pub(super) fn argon2_runs(&self) -> u64 {
        self.argon2_runs.load(Ordering::Relaxed)
    }

    pub(super) fn fingerprint(&self, token: TokenId, secret: &Secret) -> SecretFingerprint {
        SecretFingerprint { token, keyed_digest: blake3::keyed_hash(&self.key, secret.expose()).into() }
    }

    /// Returns the digest of the hash that a secret is known to match.
    pub(super) fn verified_digest(&self, fingerprint: &SecretFingerprint) -> Option<PhcDigest> {
        self.cached(fingerprint).map(|verified| verified.digest)
    }

    /// Verifies a secret against a PHC string, in a user's share of the queue. Requests that ask at the same time share
    /// one run of argon2.
    pub(super) async fn verify(
        self: &Arc<Self>,
        user: &Login,
        fingerprint: SecretFingerprint,
        secret: &Secret,
        phc: &str,
    ) -> Result<bool, HashingBusy> {
        let mut wait = match self.join(user, fingerprint, secret, phc)? {
            Some(wait) => wait,
            None => return Ok(true),
        };
        match wait.outcome.wait_for(Option::is_some).await {
            // No outcome means that argon2 panicked: the client may try again, and is not told that the secret is wrong.
            Ok(outcome) => outcome.ok_or(HashingBusy),
            Err(_) => Err(HashingBusy),
        }
    }

    /// Joins the verification that waits or runs, or starts one; `None` when the secret is known to match meanwhile.
    fn join(
        self: &Arc<Self>,
        user: &Login,
        fingerprint: SecretFingerprint,
        secret: &Secret,
        phc: &str,
    ) -> Result<Option<InFlightWait<'_>>, HashingBusy> {
        let key = (fingerprint, phc_digest(phc));
        let mut in_flight = self.in_flight.lock();
        if let Some(entry) = in_flight.get_mut(&key) {
            entry.waiters += 1;
            let (ticket_number, outcome) = (entry.ticket.number, entry.outcome.clone());
            return Ok(Some(InFlightWait { secrets: self, key, ticket_number, outcome }));
        }
        // Under the lock, after the look for an entry: a verification that has just completed is found in the cache.
        if self.verified_digest(&fingerprint) == Some(key.1) {
            return Ok(None);
        }
        let (sender, outcome) = watch::channel(None);
        let (secrets, secret, phc) = (self.clone(), secret.clone(), phc.to_owned());
        // The guard is created inside the job. A withdrawn job is dropped while `in_flight` is locked, and the guard's
        // drop would lock it again.
        let job = move |memory: &mut Argon2Memory| {
            let mut completion = CompleteOnDrop { secrets, key, matches: None, outcome: sender };
            let matches = completion.secrets.run_argon2(fingerprint, &secret, &phc, memory);
            completion.matches = Some(matches);
        };
        // It can't complete before its entry is inserted: completion takes the lock that is held here.
        let ticket = self.hashing_pool.submit(user, Box::new(job))?;
        let ticket_number = ticket.number;
        in_flight.insert(key, InFlight { ticket, waiters: 1, outcome: outcome.clone() });
        Ok(Some(InFlightWait { secrets: self, key, ticket_number, outcome }))
    }

    /// Runs argon2, and caches a secret that matches.
    fn run_argon2(
        &self,
        fingerprint: SecretFingerprint,
        secret: &Secret,
        phc: &str,
        memory: &mut Argon2Memory,
    ) -> bool {
        self.argon2_runs.fetch_add(1, Ordering::Relaxed);
        let matches = secret_hash::verify_phc(secret, phc, memory);
        // Matches alone are cached: guesses must not push verified secrets out.
        if matches {
            let (digest, verified_ms) = (phc_digest(phc), self.clock.boottime_ms());
            let last_used_ms = AtomicU64::new(verified_ms);
            self.verified.insert(fingerprint, Arc::new(VerifiedSecret { digest, verified_ms, last_used_ms }));
        }
        matches
    }

    fn cached(&self, fingerprint: &SecretFingerprint) -> Option<Arc<VerifiedSecret>> {
        let verified = self.verified.get(fingerprint)?;
        let now_ms = self.clock.boottime_ms();
        let elapsed = |since_ms| Duration::from_millis(now_ms.saturating_sub(since_ms));
        if elapsed(verified.last_used_ms.load(Ordering::Relaxed)) >= VERIFIED_IDLE_TTL
            || elapsed(verified.verified_ms) >= VERIFIED_MAX_TTL
        {
            self.verified.invalidate(fingerprint);
            return None;
        }
        verified.last_used_ms.fetch_max(now_ms, Ordering::Relaxed);
        Some(verified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::generate_token;
    use crate::auth::hashing_pool::{MAX_QUEUED_JOBS, MAX_QUEUED_JOBS_PER_USER};
    use crate::store::testing::login;

    fn verified_secrets() -> Arc<VerifiedSecrets> {
        let pool = Arc::new(HashingPool::new().expect("starts"));
        Arc::new(VerifiedSecrets::new(Clock::system(), pool).expect("random"))
    }

    fn random_fingerprint(secrets: &VerifiedSecrets) -> (SecretFingerprint, Secret) {
        let text = generate_token().expect("random");
        (secrets.fingerprint(text.id(), text.secret()), text.secret().clone())
    }

    #[tokio::test]
    async fn verification_beyond_queue_bound_returns_busy() {
        let secrets = verified_secrets();
        let held = secrets.hashing_pool.occupy_all_threads();
        let users: Vec<_> =
            (0..MAX_QUEUED_JOBS / MAX_QUEUED_JOBS_PER_USER).map(|number| login(&format!("user{number}"))).collect();
        let fingerprints: Vec<_> = (0..=MAX_QUEUED_JOBS).map(|_| random_fingerprint(&secrets)).collect();
        let mut waits = Vec::new();
        for (number, (fingerprint, secret)) in fingerprints[..MAX_QUEUED_JOBS].iter().enumerate() {
            let user = &users[number / MAX_QUEUED_JOBS_PER_USER];
            waits.push(secrets.join(user, *fingerprint, secret, "no hash").expect("not full").expect("unknown"));
        }
        let other = login("other");
        let (fingerprint, secret) = &fingerprints[MAX_QUEUED_JOBS];
        assert!(secrets.verify(&other, *fingerprint, secret, "no hash").await.is_err());
        let (fingerprint, secret) = &fingerprints[0];
        waits.push(
            secrets.join(&other, *fingerprint, secret, "no hash").expect("joins the one that waits").expect("unknown"),
        );
        assert_eq!(secrets.argon2_runs(), 0);
        drop(held);
        for wait in &mut waits {
            let outcome = *wait.outcome.wait_for(Option::is_some).await.expect("completes");
            assert_eq!(outcome, Some(false));
        }
        let (fingerprint, secret) = &fingerprints[MAX_QUEUED_JOBS];
        assert!(
            matches!(secrets.verify(&other, *fingerprint, secret, "no hash").await, Ok(false)),
            "the queue has space again"
        );
        assert!(secrets.verified_digest(fingerprint).is_none(), "a secret that does not match is not cached");
        assert_eq!(secrets.argon2_runs(), MAX_QUEUED_JOBS as u64 + 1);
    }

    #[tokio::test]
    async fn dropped_waiter_does_not_cancel_shared_verification() {
        let secrets = verified_secrets();
        let held = secrets.hashing_pool.occupy_all_threads();
        let alice = login("alice");
        let (fingerprint, secret) = random_fingerprint(&secrets);
        let first = secrets.join(&alice, fingerprint, &secret, "no hash").expect("not full");
        let mut second = secrets.join(&alice, fingerprint, &secret, "no hash").expect("joins").expect("unknown");
        drop(first);
        drop(held);
        assert_eq!(*second.outcome.wait_for(Option::is_some).await.expect("completes"), Some(false));
        assert_eq!(secrets.argon2_runs(), 1);
    }

    #[tokio::test]
    async fn abandoned_verification_is_not_run() {
        let secrets = verified_secrets();
        let held = secrets.hashing_pool.occupy_all_threads();
        let alice = login("alice");
        let (fingerprint, secret) = random_fingerprint(&secrets);
        let both = [(); 2].map(|()| secrets.join(&alice, fingerprint, &secret, "no hash").expect("not full"));
        assert_eq!(secrets.hashing_pool.queue_len(), 1);
        drop(both);
        assert_eq!(secrets.hashing_pool.queue_len(), 0);
        assert!(secrets.in_flight.lock().is_empty());
        let again = secrets.verify(&alice, fingerprint, &secret, "no hash");
        drop(held);
        assert!(matches!(again.await, Ok(false)), "a later request is answered");
        assert_eq!(secrets.argon2_runs(), 1);
    }
}
