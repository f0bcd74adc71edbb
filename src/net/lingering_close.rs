//! A stream that is closed only after its peer had time to read the last response.
//!
//! A socket that is closed while it holds unread bytes of the peer, or receives more, sends a reset, and the reset
//! makes the peer's system discard a response that the peer has not read yet (RFC 9112 section 9.6). So the sending
//! side is shut down first, and what the peer still sends is read and discarded within bounds.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes that are discarded in one read.
const DISCARD_BUFFER_BYTES: usize = 16 * 1024;

/// Bounds on discarding unread input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainLimits {
    /// Maximum time without input.
    pub idle_timeout: Duration,
    /// Maximum number of discarded bytes.
    pub max_bytes: u64,
    /// Maximum total time.
    pub total_timeout: Duration,
}

/// Flag of a [`LingeringStream`]: whether its peer may still be sending.
#[derive(Clone, Debug, Default)]
pub struct UnreadInput(Arc<AtomicBool>);

impl UnreadInput {
    /// Records that all received bytes belong to requests that were read completely.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Records that the peer may send more than will be read.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Wraps a stream: its shutdown discards unread input before it completes.
///
/// Every read sets [`UnreadInput`], so that a request that the HTTP library rejects by itself counts too; the code that
/// answers a request that was read completely clears it.
pub struct LingeringStream<S> {
    inner: S,
    unread: UnreadInput,
    limits: DrainLimits,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    peer_closed: bool,
    drain: Option<LingeringDrain>,
}

/// Progress of a shutdown whose sending side is closed.
struct LingeringDrain {
    idle_timer: Pin<Box<Sleep>>,
    total_timer: Pin<Box<Sleep>>,
    remaining_bytes: u64,
}

impl<S> LingeringStream<S> {
    /// Wraps a stream; once `stop` is cancelled, a shutdown discards no more input.
    pub fn new(inner: S, limits: DrainLimits, unread: UnreadInput, stop: CancellationToken) -> Self {
        Self { inner, unread, limits, stopped: Box::pin(stop.cancelled_owned()), peer_closed: false, drain: None }
    }
}

impl<S: AsyncRead + Unpin> LingeringStream<S> {
    /// Reads and discards until the peer closes its side or a bound is reached.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limits = self.limits;
        // Created once: the total time must not restart with each poll.
        let drain = self.drain.get_or_insert_with(|| LingeringDrain {
            idle_timer: Box::pin(tokio::time::sleep(limits.idle_timeout)),
            total_timer: Box::pin(tokio::time::sleep(limits.total_timeout)),
            remaining_bytes: limits.max_bytes,
        });
        loop {
            let mut bytes = [0; DISCARD_BUFFER_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    drain.remaining_bytes = drain.remaining_bytes.saturating_sub(buffer.filled().len() as u64);
                    // Input restarts the idle time only: the byte limit and the total time bound a peer that never
                    // stops sending.
                    drain.idle_timer.as_mut().reset(Instant::now() + limits.idle_timeout);
                    if drain.remaining_bytes == 0 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let timed_out = drain.idle_timer.as_mut().poll(cx).is_ready() || drain.total_timer.as_mut().poll(cx).is_ready();
        if timed_out || self.stopped.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LingeringStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.unread.set();
        } else if buffer.remaining() > 0 {
            // Nothing read into a buffer with space: EOF.
            self.peer_closed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LingeringStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Our side first, once: the peer then sees the end of the response, and closes its own.
        if self.drain.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        // Without unread input, closing sends no reset, and the connection must not be held any longer.
        if !self.peer_closed && self.unread.is_set() {
            ready!(self.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMITS: DrainLimits = DrainLimits {
        idle_timeout: Duration::from_millis(100),
        max_bytes: 100_000,
        total_timeout: Duration::from_secs(60),
    };

    fn lingering_pair() -> (LingeringStream<tokio::io::DuplexStream>, tokio::io::DuplexStream, UnreadInput) {
        let (server, client) = tokio::io::duplex(1024);
        let unread = UnreadInput::default();
        let server = LingeringStream::new(server, LIMITS, unread.clone(), CancellationToken::new());
        (server, client, unread)
    }

    #[tokio::test]
    async fn shutdown_discards_input_still_arriving() {
        let (mut server, mut client, unread) = lingering_pair();
        unread.set();
        let closing = tokio::spawn(async move { server.shutdown().await });
        client.write_all(&[0; 50_000]).await.expect("taken");
        drop(client);
        closing.await.expect("joined").expect("closed");
    }

    #[tokio::test]
    async fn shutdown_drain_ends_at_idle_timeout_and_byte_limit() {
        let (mut server, _client, unread) = lingering_pair();
        unread.set();
        let start = Instant::now();
        server.shutdown().await.expect("closed");
        assert!(start.elapsed() >= LIMITS.idle_timeout);

        let (mut server, mut client, unread) = lingering_pair();
        unread.set();
        let sending = tokio::spawn(async move { client.write_all(&[0; 200_000]).await });
        server.shutdown().await.expect("closed");
        drop(server);
        sending.await.expect("joined").expect_err("cut after the bound");
    }

    #[tokio::test]
    async fn shutdown_does_not_linger_after_fully_read_requests() {
        let (mut server, mut client, unread) = lingering_pair();
        client.write_all(b"request").await.expect("sent");
        server.read_exact(&mut [0; 7]).await.expect("read");
        assert!(unread.is_set(), "no request was answered yet");
        unread.clear();
        let closed = tokio::time::timeout(LIMITS.idle_timeout / 2, server.shutdown());
        closed.await.expect("at once").expect("closed");
    }
}
