//! Reception of a body: a block is written off the runtime while the next one is received.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::{Error, Result};
use crate::auth::{Session, SessionEnded};
use crate::http::RequestBody;
use crate::tree;

/// Number of bytes that are received before anything is written, and then written at once.
pub(super) const BODY_BLOCK_BYTES: usize = 512 * 1024;

/// Maximum time without any data of a body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Consumer of the blocks of a body; may block.
pub(super) trait BodySink: Sized + Send + 'static {
    /// Writes the next blocks.
    ///
    /// # Errors
    /// Any error that ends the transfer.
    fn write(self, blocks: &[Bytes]) -> Result<Self>;

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
            Ok(false) => write_task = Some(spawn_blocking(move || sink.write(&blocks))),
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
