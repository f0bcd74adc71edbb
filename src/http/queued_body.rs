//! Response bodies of listings: one thread fills a queue of blocks while the client takes them.
//!
//! The thread that produced the first block goes on with the next ones: a switch of threads for each block takes longer
//! than to write it. It stops where the queue is full, so that no client that takes nothing holds a thread, and after a
//! number of blocks, so that the other listings of its user get a turn. It works under a permit of the user.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{BlockProducer, BodyError, ResponseBody, full};
use crate::auth::{Session, WorkPermit};

/// Number of blocks that are produced ahead of the client.
const QUEUE_BLOCKS: usize = 8;
/// Number of free places in the queue from which a producer that has stopped goes on.
const RESUME_FREE_BLOCKS: usize = QUEUE_BLOCKS / 2;
/// Number of blocks after which a producer gives its permit back.
const BLOCKS_PER_TURN: usize = 64;

/// Start of a body.
pub enum BodyStart<S> {
    /// All of it.
    Whole(Bytes),
    /// The first block, and the producer of the next ones.
    Partial(Bytes, S),
}

/// Why a producer has stopped.
enum TurnEnd {
    /// The queue is full, or the turn is over.
    Paused,
    /// There are no more blocks.
    Done,
    /// The response can't be completed.
    Failed(BodyError),
}

type TurnResult<S> = (S, TurnEnd);

enum ProducerState<S> {
    Running(JoinHandle<Option<TurnResult<S>>>),
    Paused(S),
    Done,
    Failed(BodyError),
}

/// Body of the blocks of a producer. It fails once the session has ended, and each block counts as a use of the token.
struct QueuedBody<S> {
    blocks: mpsc::Receiver<Bytes>,
    queue: mpsc::Sender<Bytes>,
    producer: ProducerState<S>,
    session_ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    session: Session,
}

/// Starts a body on a thread where blocking is allowed, and returns it once `start` has returned, whose error it returns;
/// `None` where it panicked. The permit is held until the thread has nothing more to do.
pub async fn queued_body<S, E>(
    session: &Session,
    permit: WorkPermit,
    start: impl FnOnce() -> Result<BodyStart<S>, E> + Send + 'static,
) -> Option<Result<ResponseBody, E>>
where
    S: BlockProducer,
    E: Send + 'static,
{
    let (queue, blocks) = mpsc::channel(QUEUE_BLOCKS);
    let (start_sender, started) = oneshot::channel();
    let first_queue = queue.clone();
    let turn = spawn_blocking(move || {
        // Held until the work ends, even if the request was dropped: the thread is busy until then.
        let _permit = permit;
        match start() {
            Ok(BodyStart::Partial(first, source)) => {
                // Before the answer, and so before any other block. An error says that the request was dropped.
                let _ = first_queue.try_send(first);
                start_sender.send(Ok(None)).is_ok().then(|| produce(source, &first_queue))
            }
            Ok(BodyStart::Whole(bytes)) => {
                let _ = start_sender.send(Ok(Some(bytes)));
                None
            }
            Err(error) => {
                let _ = start_sender.send(Err(error));
                None
            }
        }
    });
    Some(match started.await.ok()? {
        Ok(Some(bytes)) => Ok(full(bytes)),
        Ok(None) => {
            let (session_handle, session) = (session.clone(), session.clone());
            let session_ended = Box::pin(async move { session_handle.closed().await });
            let producer = ProducerState::Running(turn);
            Ok(QueuedBody { blocks, queue, producer, session_ended, session }.boxed_unsync())
        }
        Err(error) => Err(error),
    })
}

/// Produces blocks until the queue is full, the turn is over, or there are no more.
fn produce<S: BlockProducer>(mut source: S, queue: &mpsc::Sender<Bytes>) -> TurnResult<S> {
    for _ in 0..BLOCKS_PER_TURN {
        // Reserved first: a block that is produced has a place.
        let place = match queue.try_reserve() {
            Ok(place) => place,
            Err(TrySendError::Full(())) => return (source, TurnEnd::Paused),
            // The response was dropped.
            Err(TrySendError::Closed(())) => return (source, TurnEnd::Done),
        };
        match source.next_block() {
            Ok(Some(block)) => place.send(block),
            Ok(None) => return (source, TurnEnd::Done),
            Err(error) => return (source, TurnEnd::Failed(error)),
        }
    }
    (source, TurnEnd::Paused)
}

impl<S: BlockProducer> QueuedBody<S> {
    /// Starts another turn of a producer that has stopped, once the queue has room.
    fn resume(&mut self) {
        match std::mem::replace(&mut self.producer, ProducerState::Done) {
            ProducerState::Paused(source) if self.queue.capacity() >= RESUME_FREE_BLOCKS => {
                let (session, queue) = (self.session.clone(), self.queue.clone());
                self.producer = ProducerState::Running(tokio::spawn(async move {
                    // Without a permit the blocks are produced all the same: the response has begun.
                    let permit = session.acquire_heavy_followup_permit().await;
                    let turn = spawn_blocking(move || {
                        let _permit = permit;
                        Some(produce(source, &queue))
                    });
                    turn.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
                }));
            }
            state => self.producer = state,
        }
    }

    /// Notices that a turn has ended; otherwise the task is woken when it does.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let ProducerState::Running(turn) = &mut self.producer {
            let Poll::Ready(turn) = Pin::new(turn).poll(cx) else { return Poll::Pending };
            self.producer = match turn {
                Ok(Some((source, TurnEnd::Paused))) => ProducerState::Paused(source),
                Ok(Some((_, TurnEnd::Done))) => ProducerState::Done,
                Ok(Some((_, TurnEnd::Failed(error)))) => ProducerState::Failed(error),
                Ok(None) | Err(_) => ProducerState::Failed(BodyError("a task panicked".to_owned())),
            };
        }
        Poll::Ready(())
    }
}

impl<S> Drop for QueuedBody<S> {
    /// Aborts a turn that still waits for its permit. One that has begun ends with the queue, at the next block.
    fn drop(&mut self) {
        if let ProducerState::Running(turn) = &self.producer {
            turn.abort();
        }
    }
}

// No field is structurally pinned: the future that resolves at the session's end is boxed.
impl<S> Unpin for QueuedBody<S> {}

impl<S: BlockProducer> HttpBody for QueuedBody<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BodyError>>> {
        // Before any block: nothing is sent after the token was revoked. The poll also registers the waker.
        if self.session_ended.as_mut().poll(cx).is_ready() {
            self.blocks.close();
            return Poll::Ready(Some(Err(BodyError("the session has ended".to_owned()))));
        }
        loop {
            // Asked before the queue: once a turn has ended, the queue has all its blocks.
            let turn = self.poll_turn(cx);
            if let Poll::Ready(Some(block)) = self.blocks.poll_recv(cx) {
                self.resume();
                // Each block is a use: a sliding expiration must not run out during a long download.
                self.session.record_use();
                return Poll::Ready(Some(Ok(Frame::data(block))));
            }
            if turn.is_pending() {
                return Poll::Pending;
            }
            match std::mem::replace(&mut self.producer, ProducerState::Done) {
                ProducerState::Done => return Poll::Ready(None),
                ProducerState::Failed(error) => return Poll::Ready(Some(Err(error))),
                state => self.producer = state,
            }
            self.resume();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::auth::testing::AuthEnv;
    use crate::domain::TokenExpiry;

    /// Producer of numbered blocks that counts them, and fails after the last one.
    struct NumberedBlocks {
        produced: Arc<AtomicUsize>,
        total: usize,
        fails: bool,
    }

    impl BlockProducer for NumberedBlocks {
        fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
            let number = self.produced.load(Ordering::SeqCst);
            if number == self.total {
                return if self.fails { Err(BodyError("broken".to_owned())) } else { Ok(None) };
            }
            self.produced.store(number + 1, Ordering::SeqCst);
            Ok(Some(Bytes::from(number.to_string())))
        }
    }

    /// Returns a session, and a body of this many blocks with the counter of those that were produced.
    async fn started(total: usize, fails: bool) -> (AuthEnv, Session, ResponseBody, Arc<AtomicUsize>) {
        let env = AuthEnv::new();
        let text = env.create_token(TokenExpiry::Never, |_| ());
        let session = env.login(&text).await.expect("accepted");
        let produced = Arc::<AtomicUsize>::default();
        let mut source = NumberedBlocks { produced: Arc::clone(&produced), total, fails };
        let permit = session.acquire_heavy_permit().await.expect("a permit");
        let start = move || match source.next_block() {
            Ok(first) => Ok(BodyStart::Partial(first.unwrap_or_default(), source)),
            Err(error) => Err(error),
        };
        let body = queued_body(&session, permit, start).await.expect("no panic").expect("started");
        (env, session, body, produced)
    }

    /// Takes all permits of the user, which waits until no producer has one.
    async fn wait_for_producers(session: &Session) {
        let mut permits = Vec::new();
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).max(2) {
            permits.push(session.acquire_heavy_permit().await.expect("a permit"));
        }
    }

    #[tokio::test]
    async fn blocks_arrive_in_order_and_completely() {
        for total in [1, 2, QUEUE_BLOCKS, QUEUE_BLOCKS + 1, BLOCKS_PER_TURN + 1, 10 * BLOCKS_PER_TURN] {
            let (_env, _session, body, _) = started(total, false).await;
            let collected = body.collect().await.expect("complete").to_bytes();
            assert_eq!(collected, (0..total).map(|number| number.to_string()).collect::<String>(), "{total} blocks");
        }
    }

    #[tokio::test]
    async fn client_that_takes_nothing_holds_neither_permit_nor_more_blocks_than_the_queue_has() {
        let (_env, session, mut body, produced) = started(1000, false).await;
        wait_for_producers(&session).await;
        assert_eq!(produced.load(Ordering::SeqCst), QUEUE_BLOCKS);
        for _ in 0..QUEUE_BLOCKS {
            body.frame().await.expect("a block").expect("no error");
        }
        wait_for_producers(&session).await;
        assert!(produced.load(Ordering::SeqCst) <= 2 * QUEUE_BLOCKS);
    }

    #[tokio::test]
    async fn error_comes_after_the_blocks_before_it_and_instead_of_the_end() {
        let (_env, _session, mut body, _) = started(3, true).await;
        for number in 0..3 {
            let block = body.frame().await.expect("a block").expect("no error");
            assert_eq!(block.into_data().expect("data"), number.to_string());
        }
        assert!(body.frame().await.expect("not the end").is_err());
    }

    #[tokio::test]
    async fn dropped_body_ends_its_producer() {
        let (_env, session, body, produced) = started(usize::MAX, false).await;
        drop(body);
        wait_for_producers(&session).await;
        let count = produced.load(Ordering::SeqCst);
        assert!(count <= QUEUE_BLOCKS + 1, "{count}");
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_session_has_ended() {
        let (env, session, mut body, _) = started(usize::MAX, false).await;
        env.store.revoke_tokens(&[session.token()], env.clock.now()).expect("revoked");
        assert!(body.frame().await.expect("not the end").is_err());
    }
}
