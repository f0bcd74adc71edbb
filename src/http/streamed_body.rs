//! Response bodies that are produced while they are sent: block by block, off the runtime, one block ahead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{BodyError, ResponseBody};
use crate::auth::Session;

/// Source of the blocks of a response; may block.
pub trait BlockProducer: Send + 'static {
    /// Produces the next block; `None` at the end.
    ///
    /// # Errors
    /// [`BodyError`] for any failure; it ends the response without its end.
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError>;

    /// Tells whether [`BlockProducer::next_ready_block`] is likely to return the next block.
    fn has_ready_block(&self) -> bool {
        false
    }

    /// Produces the next block if that needs no waiting; `None` if it does, or if there is none. It is called by async
    /// tasks.
    fn next_ready_block(&mut self) -> Option<std::result::Result<Bytes, BodyError>> {
        None
    }

    /// Returns the number of bytes still to come, where that is known.
    fn remaining_bytes(&self) -> Option<u64> {
        None
    }
}

type ProducerStep<S> = (S, std::result::Result<Option<Bytes>, BodyError>);

/// Body of the blocks of a producer. It fails once the session has ended, and each block counts as a use of the token.
struct StreamedBody<S> {
    first_block: Option<Bytes>,
    /// The producer, while it produces nothing ahead.
    idle_source: Option<S>,
    next_step: Option<JoinHandle<ProducerStep<S>>>,
    session_ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    session: Session,
    remaining_bytes: Option<u64>,
}

/// Returns a body of `first` and the remaining blocks of `source`.
pub fn streamed_body<S: BlockProducer>(session: &Session, first: Bytes, source: S) -> ResponseBody {
    let session_handle = session.clone();
    let remaining = source.remaining_bytes().map(|remaining| remaining.saturating_add(first.len() as u64));
    let streamed = StreamedBody {
        first_block: Some(first),
        idle_source: Some(source),
        next_step: None,
        session_ended: Box::pin(async move { session_handle.closed().await }),
        session: session.clone(),
        remaining_bytes: remaining,
    };
    streamed.boxed_unsync()
}

impl<S: BlockProducer> StreamedBody<S> {
    /// Has the next block produced while the one before is sent, unless it will be there at once.
    fn produce_next(&mut self, source: S) {
        match source.has_ready_block() {
            true => self.idle_source = Some(source),
            false => self.produce_ahead(source),
        }
    }

    fn produce_ahead(&mut self, mut source: S) {
        self.next_step = Some(spawn_blocking(move || {
            let step = source.next_block();
            (source, step)
        }));
    }

    fn emit(&mut self, block: Bytes) -> Poll<Option<std::result::Result<Frame<Bytes>, BodyError>>> {
        // Each block is a use: a sliding expiration must not run out during a long download.
        self.session.record_use();
        self.remaining_bytes = self.remaining_bytes.map(|remaining| remaining.saturating_sub(block.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(block))))
    }
}

// No field is structurally pinned: the future that resolves at the session's end is boxed.
impl<S> Unpin for StreamedBody<S> {}

impl<S: BlockProducer> HttpBody for StreamedBody<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BodyError>>> {
        // Before any block: nothing is sent after the token was revoked. The poll also registers the waker.
        if self.session_ended.as_mut().poll(cx).is_ready() {
            self.next_step = None;
            return Poll::Ready(Some(Err(BodyError("the session has ended".to_owned()))));
        }
        // The first block was read before the status was known; the second one is read while it is sent.
        if let Some(block) = self.first_block.take() {
            if let Some(source) = self.idle_source.take() {
                self.produce_next(source);
            }
            return self.emit(block);
        }
        if let Some(mut source) = self.idle_source.take() {
            match source.next_ready_block() {
                Some(Ok(block)) => {
                    self.idle_source = Some(source);
                    return self.emit(block);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.produce_ahead(source),
            }
        }
        let Some(task) = self.next_step.as_mut() else { return Poll::Ready(None) };
        let step = ready!(Pin::new(task).poll(cx));
        self.next_step = None;
        match step {
            Ok((source, Ok(Some(block)))) => {
                self.produce_next(source);
                self.emit(block)
            }
            Ok((_, Ok(None))) => Poll::Ready(None),
            Ok((_, Err(error))) => Poll::Ready(Some(Err(error))),
            Err(_) => Poll::Ready(Some(Err(BodyError("a task panicked".to_owned())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        // Lets the transport end the response with the last block.
        self.remaining_bytes == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining_bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Buffers that are reused once they were sent, so that a long response touches little memory.
#[derive(Clone, Default)]
pub struct BlockBufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl BlockBufferPool {
    /// Returns a buffer of this length, whose content is arbitrary.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().pop().unwrap_or_default();
        // A buffer of the same size is not cleared: its content is overwritten by the read.
        buffer.resize(length, 0);
        buffer
    }

    /// Turns the first `length` bytes of a buffer into a block; the buffer returns to the pool when the block is
    /// dropped.
    pub fn into_block(&self, buffer: Vec<u8>, length: usize) -> Bytes {
        Bytes::from_owner(PooledBuffer { length: length.min(buffer.len()), buffer, pool: self.clone() })
    }
}

struct PooledBuffer {
    buffer: Vec<u8>,
    length: usize,
    pool: BlockBufferPool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.pool.0.lock().push(std::mem::take(&mut self.buffer));
    }
}
