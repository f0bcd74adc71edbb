//! Threads of this module's own for work on the disk: the watcher waits neither for argon2 nor for the runtime's
//! blocking threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::store::StoreError;

type WorkerJob = Box<dyn FnOnce() + Send>;

/// Threads that work off one queue; they end once the pool is dropped and the queue is empty.
pub(super) struct WorkerPool {
    jobs: Sender<WorkerJob>,
}

impl WorkerPool {
    pub(super) fn new(name: &str, threads: usize) -> Result<Self, StoreError> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = queue.clone();
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run_worker(&queue));
            thread.map_err(StoreError::Thread)?;
        }
        Ok(Self { jobs })
    }

    /// Queues a job, and returns its result; `None` when it panicked. It runs even when nobody waits for it any more.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let job: WorkerJob = Box::new(move || drop(answer.send(job())));
        // Without a thread left the job is dropped, and the answer with it.
        drop(self.jobs.send(job));
        async { answered.await.ok() }
    }
}

fn run_worker(queue: &Mutex<Receiver<WorkerJob>>) {
    loop {
        // A statement of its own: in the head of a `while let` the lock would be held while the job runs.
        let job = queue.lock().recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of the authenticator panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panicking_worker_job_keeps_worker_thread() {
        let pool = WorkerPool::new("test", 1).expect("starts");
        assert_eq!(pool.run(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(pool.run(|| 7).await, Some(7));
    }
}
