//! Reception of a body. What the file system takes at once, into memory or the page cache, is written where it is
//! received: a switch to another thread and back costs as much as copying a block. What may wait for a disk is written
//! off the runtime, while the next block is received.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::{Error, Result};
use crate::auth::{Session, SessionEnded};
use crate::http::RequestBody;
use crate::tree;

/// Number of bytes that are received before anything is written, and then written at once.
pub(super) const BODY_BLOCK_BYTES: usize = 256 * 1024;

/// Maximum time that a write may take on a thread of the runtime. One that takes longer, whatever the file system said
/// of it, is the last of its body there.
const IN_PLACE_TIME_LIMIT: Duration = Duration::from_millis(2);

/// Maximum time without any data of a body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Consumer of the blocks of a body; may block.
pub(super) trait BodySink: Sized + Send + 'static {
    /// Writes the next blocks.
    ///
    /// # Errors
    /// Any error that ends the transfer.
    fn write(self, blocks: &[Bytes]) -> Result<Self>;

    /// Writes as much of the next blocks as takes no wait for a disk, nor long computation. Returns the number of bytes
    /// written; the rest is left to [`BodySink::write`].
    ///
    /// # Errors
    /// As [`BodySink::write`].
    fn write_cached(&mut self, _blocks: &[Bytes]) -> Result<usize> {
        Ok(0)
    }

    /// Receives the last blocks of a body that ended early, for a sink that keeps a partial body.
    fn on_abort(self, _blocks: &[Bytes]) {}
}

/// Writes a body to a sink, except for its last blocks: these are returned, so that writing them and finishing the
/// upload is one step. Ends early with the session, and when `cancelled` resolves.
///
/// # Errors
/// The errors of the sink; [`Error::Truncated`] when the body ends early or is cancelled, [`Error::TooSlow`].
pub(super) async fn receive_body<S: BodySink>(
    body: &mut RequestBody,
    session: &Session,
    cancelled: impl Future<Output = ()>,
    sink: S,
) -> Result<(S, Vec<Bytes>)> {
    let abort = async {
        tokio::select! {
            () = session.closed() => Error::from(tree::Error::SessionEnded(SessionEnded)),
            // As if the connection was lost, so that a sink which keeps partial bodies keeps this one.
            () = cancelled => Error::Truncated,
        }
    };
    let mut abort = std::pin::pin!(abort);
    let mut write_task: Option<JoinHandle<Result<S>>> = None;
    let mut idle_sink = Some(sink);
    let mut in_place = InPlaceWrites::default();
    loop {
        // While the last block is written: two blocks are in memory at most.
        let (blocks, outcome) = receive_block(body, abort.as_mut()).await;
        // Exactly one is set: either nothing was written yet, or a task holds the sink.
        let sink = match (idle_sink.take(), write_task.take()) {
            (Some(sink), _) => sink,
            (None, Some(task)) => task.await.unwrap_or(Err(Error::TaskPanicked))?,
            (None, None) => return Err(Error::TaskPanicked),
        };
        match outcome {
            Ok(true) => return Ok((sink, blocks)),
            Ok(false) => match in_place.write(sink, blocks) {
                (sink, Ok(rest)) if rest.is_empty() => idle_sink = Some(sink),
                (sink, Ok(rest)) => write_task = Some(spawn_blocking(move || sink.write(&rest))),
                (sink, Err(error)) => {
                    // Dropping the sink may wait for a disk. Awaited for the same reason as below.
                    let _ = spawn_blocking(move || drop(sink)).await;
                    return Err(error);
                }
            },
            Err(error) => {
                // After the end of the session nothing is kept: its token may not write any more.
                let is_truncated = matches!(error, Error::Truncated | Error::TooSlow);
                // Awaited, so that what the sink holds is released before the client gets the error and tries again.
                let _ = spawn_blocking(move || if is_truncated { sink.on_abort(&blocks) } else { drop(sink) }).await;
                return Err(error);
            }
        }
    }
}

/// Writes of one body on the threads of the runtime.
#[derive(Default)]
struct InPlaceWrites {
    /// Whether one has taken too long.
    exceeded: bool,
}

impl InPlaceWrites {
    /// Writes what takes no wait; returns the sink, and the blocks that are left to write.
    fn write<S: BodySink>(&mut self, mut sink: S, mut blocks: Vec<Bytes>) -> (S, Result<Vec<Bytes>>) {
        if self.exceeded {
            return (sink, Ok(blocks));
        }
        let started = Instant::now();
        let mut written = match sink.write_cached(&blocks) {
            Ok(written) => written,
            Err(error) => return (sink, Err(error)),
        };
        self.exceeded = started.elapsed() > IN_PLACE_TIME_LIMIT;
        blocks.retain_mut(|block| {
            let count = written.min(block.len());
            written -= count;
            block.advance(count);
            !block.is_empty()
        });
        (sink, Ok(blocks))
    }
}

/// Receives up to about one block; returns whether it was the last one, or the error that ended the body.
async fn receive_block(
    body: &mut RequestBody,
    mut abort: Pin<&mut impl Future<Output = Error>>,
) -> (Vec<Bytes>, Result<bool>) {
    let (mut blocks, mut length) = (Vec::new(), 0);
    while length < BODY_BLOCK_BYTES && !body.is_end_stream() {
        let frame = tokio::select! {
            // Data that has already arrived first. An ended session is not missed: the tree checks it at every write.
            biased;
            // Silence alone; a client that sends too slowly is the business of `MinTransferRate`.
            frame = tokio::time::timeout(BODY_IDLE_TIMEOUT, body.frame()) => frame,
            error = abort.as_mut() => return (blocks, Err(error)),
        };
        match frame {
            Ok(None) => return (blocks, Ok(true)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    length += data.len();
                    blocks.push(data);
                }
            }
            Ok(Some(Err(error))) => return (blocks, Err(error.into())),
            Err(_) => return (blocks, Err(Error::TooSlow)),
        }
    }
    (blocks, Ok(body.is_end_stream()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sink that takes a number of bytes at once, and leaves the rest.
    struct LimitedSink(usize);

    impl BodySink for LimitedSink {
        fn write(self, _blocks: &[Bytes]) -> Result<Self> {
            Ok(self)
        }

        fn write_cached(&mut self, blocks: &[Bytes]) -> Result<usize> {
            Ok(self.0.min(blocks.iter().map(Bytes::len).sum()))
        }
    }

    fn rest_after(writes: &mut InPlaceWrites, count: usize) -> Vec<Bytes> {
        let blocks = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")];
        writes.write(LimitedSink(count), blocks).1.expect("written")
    }

    #[test]
    fn what_is_not_taken_at_once_is_left_for_the_blocking_write() {
        let mut writes = InPlaceWrites::default();
        assert_eq!(rest_after(&mut writes, 0), ["abc", "def"]);
        assert_eq!(rest_after(&mut writes, 2), ["c", "def"]);
        assert_eq!(rest_after(&mut writes, 3), ["def"]);
        assert!(rest_after(&mut writes, 6).is_empty(), "no switch of threads");
        let mut slow = InPlaceWrites { exceeded: true };
        assert_eq!(rest_after(&mut slow, 6), ["abc", "def"], "one that was slow is the last");
    }
}
