//! How a body comes in: a block is written off the runtime while the next is being received.

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

/// As much as is written at once, and as is received before anything is written.
pub(super) const BODY_BLOCK_BYTES: usize = 512 * 1024;

/// How long a client may send nothing of a body that it began.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// What takes a body in; may block.
pub(super) trait BodySink: Sized + Send + 'static {
    /// Writes the next blocks.
    ///
    /// # Errors
    /// Whatever stops the transfer.
    fn write(self, blocks: &[Bytes]) -> Result<Self>;

    /// Keeps what came of a body that was cut, where that is of use: the last blocks.
    fn on_abort(self, _blocks: &[Bytes]) {}
}

/// Pours a body into a sink, up to its last blocks: these are returned unwritten, so that they can be written
/// and the transfer finished in one step. Ends with the session, and when `stopped` says so.
///
/// # Errors
/// What the sink says; [`Error::Truncated`] when the body ends before its end, [`Error::TooSlow`].
pub(super) async fn receive_body<S: BodySink>(
    body: &mut RequestBody,
    session: &Session,
    cancelled: impl Future<Output = ()>,
    sink: S,
) -> Result<(S, Vec<Bytes>)> {
    let abort = async {
        tokio::select! {
            () = session.closed() => Error::from(tree::Error::SessionEnded(SessionEnded)),
            () = cancelled => Error::Truncated,
        }
    };
    let mut abort = std::pin::pin!(abort);
    let mut write_task: Option<JoinHandle<Result<S>>> = None;
    let mut idle_sink = Some(sink);
    loop {
        let (blocks, outcome) = receive_block(body, abort.as_mut()).await;
        let sink = match (idle_sink.take(), write_task.take()) {
            (Some(sink), _) => sink,
            (None, Some(task)) => task.await.unwrap_or(Err(Error::TaskPanicked))?,
            (None, None) => return Err(Error::TaskPanicked),
        };
        match outcome {
            Ok(true) => return Ok((sink, blocks)),
            Ok(false) => write_task = Some(spawn_blocking(move || sink.write(&blocks))),
            Err(error) => {
                let is_truncated = matches!(error, Error::Truncated | Error::TooSlow);
                let _ = spawn_blocking(move || if is_truncated { sink.on_abort(&blocks) } else { drop(sink) }).await;
                return Err(error);
            }
        }
    }
}

/// Receives up to about a block; tells whether that was the last, or why no more will come.
async fn receive_block(
    body: &mut RequestBody,
    mut abort: Pin<&mut impl Future<Output = Error>>,
) -> (Vec<Bytes>, Result<bool>) {
    let (mut blocks, mut length) = (Vec::new(), 0);
    while length < BODY_BLOCK_BYTES && !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
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
