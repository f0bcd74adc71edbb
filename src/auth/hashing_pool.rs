//! Threads that run argon2, and the queue of jobs for them. The queue is bounded in total and per user, serves users
//! round robin, and drops the job of a request that has gone.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::secret_hash::Argon2Memory;
use crate::domain::Login;
use crate::store::StoreError;

/// Maximum number of jobs in the queue.
pub(super) const MAX_QUEUED_JOBS: usize = 256;
/// Maximum number of jobs of one user in the queue.
pub(super) const MAX_QUEUED_JOBS_PER_USER: usize = MAX_QUEUED_JOBS / 4;
/// Maximum number of threads on any number of processors: each takes 19 MiB while it hashes.
const MAX_HASHING_THREADS: usize = 8;

/// One run of argon2.
pub(super) type HashingJob = Box<dyn FnOnce(&mut Argon2Memory) + Send>;

/// Error of a job that was not run to its end: the queue is full, or the job panicked.
#[derive(Debug)]
pub(super) struct HashingBusy;

/// Identifies a job in the queue.
#[derive(Clone)]
pub(super) struct QueueTicket {
    user: Login,
    pub(super) number: u64,
}

/// Threads that work off one queue; they end once the pool is dropped and the queue is empty.
pub(super) struct HashingPool {
    shared: Arc<HashingPoolState>,
}

#[derive(Default)]
struct HashingPoolState {
    queue: Mutex<HashingQueue>,
    changed: Condvar,
}

/// Queued jobs by user.
#[derive(Default)]
struct HashingQueue {
    jobs: HashMap<Login, VecDeque<(u64, HashingJob)>>,
    /// Users with jobs, each once; the first is served next.
    round_robin: VecDeque<Login>,
    queued: usize,
    last_number: u64,
    closed: bool,
}

/// Withdraws a job from the queue when dropped.
struct WithdrawOnDrop<'a> {
    pool: &'a HashingPool,
    ticket: QueueTicket,
}

impl Drop for WithdrawOnDrop<'_> {
    fn drop(&mut self) {
        self.pool.withdraw(&self.ticket);
    }
}

impl HashingPool {
    /// Starts one thread per processor, up to a bound.
    pub(super) fn new() -> Result<Self, StoreError> {
        let threads = Self::threads();
        let pool = Self { shared: Arc::default() };
        for _ in 0..threads {
            let shared = pool.shared.clone();
            let thread = thread::Builder::new().name("patgate-argon2".to_owned()).spawn(move || run_worker(&shared));
            thread.map_err(StoreError::Thread)?;
        }
        Ok(pool)
    }

    /// Returns the number of jobs that run at once.
    pub(super) fn threads() -> usize {
        thread::available_parallelism().map_or(1, usize::from).min(MAX_HASHING_THREADS)
    }

    /// Returns the number of jobs in the queue.
    pub(super) fn queued_jobs(&self) -> usize {
        self.shared.queue.lock().queued
    }

    /// Puts a job of a user into the queue.
    pub(super) fn submit(&self, user: &Login, job: HashingJob) -> Result<QueueTicket, HashingBusy> {
        let ticket = self.shared.queue.lock().push(user, job)?;
        self.shared.changed.notify_one();
        Ok(ticket)
    }

    /// Takes a job out of the queue, so that it never runs; returns whether it was still there.
    pub(super) fn withdraw(&self, ticket: &QueueTicket) -> bool {
        let job = self.shared.queue.lock().remove(ticket);
        // The job is dropped after the queue is unlocked: the drop of its captures may take other locks.
        job.is_some()
    }

    /// Runs a job of a user when the queue comes to it; never, when the caller has gone by then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        user: &Login,
        job: impl FnOnce(&mut Argon2Memory) -> T + Send + 'static,
    ) -> Result<T, HashingBusy> {
        let (answer, answered) = oneshot::channel();
        let ticket = self.submit(user, Box::new(move |memory| drop(answer.send(job(memory)))))?;
        // A request that is dropped takes its job along, so that a flood of aborted requests doesn't delay others. A
        // job that runs already is finished.
        let _in_queue = WithdrawOnDrop { pool: self, ticket };
        answered.await.map_err(|_| HashingBusy)
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        // Queued jobs are still run, because `next` looks at the queue before this flag: none of their waiters is left
        // without an answer.
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl HashingQueue {
    fn push(&mut self, user: &Login, job: HashingJob) -> Result<QueueTicket, HashingBusy> {
        let queued_by_user = self.jobs.get(user).map_or(0, VecDeque::len);
        if self.queued >= MAX_QUEUED_JOBS || queued_by_user >= MAX_QUEUED_JOBS_PER_USER {
            return Err(HashingBusy);
        }
        self.last_number += 1;
        self.jobs.entry(user.clone()).or_default().push_back((self.last_number, job));
        // A user is in the round exactly while it has jobs: twice in it, the user would be served twice.
        if queued_by_user == 0 {
            self.round_robin.push_back(user.clone());
        }
        self.queued += 1;
        Ok(QueueTicket { user: user.clone(), number: self.last_number })
    }

    /// Takes the oldest job of the first user, and moves that user to the end of the round.
    fn pop(&mut self) -> Option<HashingJob> {
        let user = self.round_robin.pop_front()?;
        let jobs = self.jobs.get_mut(&user)?;
        let (_, job) = jobs.pop_front()?;
        self.queued -= 1;
        // Removed with the last job, so that the names of former callers don't accumulate.
        if jobs.is_empty() {
            self.jobs.remove(&user);
        } else {
            self.round_robin.push_back(user);
        }
        Some(job)
    }

    fn remove(&mut self, ticket: &QueueTicket) -> Option<HashingJob> {
        let jobs = self.jobs.get_mut(&ticket.user)?;
        let position = jobs.iter().position(|(number, _)| *number == ticket.number)?;
        let (_, job) = jobs.remove(position)?;
        self.queued -= 1;
        if jobs.is_empty() {
            self.jobs.remove(&ticket.user);
            self.round_robin.retain(|user| *user != ticket.user);
        }
        Some(job)
    }
}

impl HashingPoolState {
    /// Waits for the next job; `None` once the pool is closed and the queue is empty.
    fn next(&self, memory: &mut Argon2Memory) -> Option<HashingJob> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.pop() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            if memory.is_allocated() {
                // The 19 MiB are kept from job to job, and given back before a thread waits. The queue is unlocked
                // meanwhile, and looked at again: a notification in between would be lost.
                MutexGuard::unlocked(&mut queue, || memory.release());
            } else {
                self.changed.wait(&mut queue);
            }
        }
    }
}

fn run_worker(shared: &HashingPoolState) {
    let mut memory = Argon2Memory::default();
    while let Some(job) = shared.next(&mut memory) {
        // A panic costs one login, and not the thread: without threads nobody could log in any more.
        if catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            tracing::error!("a run of argon2 panicked");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::store::testing::login;

    impl HashingPool {
        /// Keeps all threads busy until the returned senders are dropped.
        pub(in crate::auth) fn occupy_all_threads(&self) -> Vec<Sender<()>> {
            let occupy = |_| {
                let (hold, released) = channel::<()>();
                let (started_sender, started) = channel();
                let job = Box::new(move |_: &mut Argon2Memory| {
                    started_sender.send(()).expect("awaited");
                    let _ = released.recv();
                });
                self.submit(&login("blocker"), job).expect("not full");
                started.recv().expect("begins");
                hold
            };
            (0..Self::threads()).map(occupy).collect()
        }

        pub(in crate::auth) fn queue_len(&self) -> usize {
            self.shared.queue.lock().queued
        }
    }

    /// Queues a job that sends its name when it runs.
    fn submit_named_job(
        pool: &HashingPool,
        user: &str,
        name: &'static str,
        sender: &Sender<&'static str>,
    ) -> QueueTicket {
        let sender = sender.clone();
        pool.submit(&login(user), Box::new(move |_| sender.send(name).expect("received"))).expect("not full")
    }

    fn received_names(receiver: &Receiver<&'static str>, count: usize) -> Vec<&'static str> {
        receiver.iter().take(count).collect()
    }

    #[tokio::test]
    async fn panicking_hashing_job_keeps_worker_thread() {
        let pool = HashingPool::new().expect("starts");
        for _ in 0..=HashingPool::threads() {
            assert!(pool.run(&login("alice"), |_| -> u8 { panic!("on purpose") }).await.is_err());
        }
        assert_eq!(pool.run(&login("alice"), |_| 7).await.expect("runs"), 7);
    }

    #[test]
    fn queue_serves_users_round_robin() {
        let mut queue = HashingQueue::default();
        let (sender, names) = channel();
        for (user, name) in [("mallory", "m1"), ("mallory", "m2"), ("mallory", "m3"), ("bob", "b1"), ("bob", "b2")] {
            let sender = sender.clone();
            queue.push(&login(user), Box::new(move |_| sender.send(name).expect("received"))).expect("not full");
        }
        while let Some(job) = queue.pop() {
            job(&mut Argon2Memory::default());
        }
        assert_eq!(received_names(&names, 5), ["m1", "b1", "m2", "b2", "m3"]);
        assert!(queue.jobs.is_empty() && queue.round_robin.is_empty() && queue.queued == 0);
    }

    #[test]
    fn queue_is_bounded_per_user_and_in_total() {
        let mut queue = HashingQueue::default();
        let mut push = |user: &str| queue.push(&login(user), Box::new(|_| ()));
        for user in ["mallory", "bob", "carol"] {
            for _ in 0..MAX_QUEUED_JOBS_PER_USER {
                push(user).expect("not full");
            }
            assert!(push(user).is_err(), "{user} is at the bound of a user");
        }
        for number in 0..MAX_QUEUED_JOBS_PER_USER {
            push(&format!("user{number}")).expect("not full");
        }
        assert!(push("dave").is_err(), "the queue is full");
    }

    #[tokio::test]
    async fn dropped_request_withdraws_its_queued_job() {
        let pool = HashingPool::new().expect("starts");
        let held = pool.occupy_all_threads();
        let (sender, names) = channel();
        let withdrawn = submit_named_job(&pool, "alice", "withdrawn", &sender);
        let job = sender.clone();
        let user = login("alice");
        let mut abandoned = Box::pin(pool.run(&user, move |_| job.send("gone").expect("received")));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(abandoned.as_mut().poll(context))).await.is_pending()
        );
        submit_named_job(&pool, "alice", "stays", &sender);
        assert_eq!(pool.queue_len(), 3);
        drop(abandoned);
        assert!(pool.withdraw(&withdrawn));
        assert!(!pool.withdraw(&withdrawn), "it was withdrawn already");
        assert_eq!(pool.queue_len(), 1);
        drop((held, sender));
        drop(pool);
        assert_eq!(names.iter().collect::<Vec<_>>(), ["stays"]);
    }
}
