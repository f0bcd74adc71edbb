//! A socket whose peer must read at a minimum rate; the connection can be reset while a write waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::MinTransferRate;

/// Wraps a stream: when its peer reads too slowly, a write fails with [`io::ErrorKind::TimedOut`]. So a client that
/// requests much and reads nothing doesn't hold memory for ever.
pub struct WriteTimeoutStream<S> {
    inner: S,
    min_rate: MinTransferRate,
    abort: Option<AbortOnCancel<S>>,
    peer_shutdown: Option<PeerShutdownWatch<S>>,
}

/// State of a peer's shutdown, and how to query it.
struct PeerShutdownWatch<S> {
    state: PeerShutdown,
    has_shut_down: fn(&S) -> io::Result<bool>,
}

/// Whether a peer has shut down its sending side. Clones share the state of one stream.
#[derive(Clone, Debug, Default)]
pub struct PeerShutdown(Arc<PeerShutdownFlags>);

#[derive(Debug, Default)]
struct PeerShutdownFlags {
    check_requested: AtomicBool,
    detected: AtomicBool,
}

impl PeerShutdown {
    /// Requests a check at the stream's next flush; that flush fails if the peer has reset the connection.
    pub fn request_check(&self) {
        self.0.check_requested.store(true, Ordering::Relaxed);
    }

    /// Returns whether a check found that the peer has shut down its sending side.
    pub fn is_detected(&self) -> bool {
        self.0.detected.load(Ordering::Relaxed)
    }
}

/// When to discard unsent bytes, and how.
struct AbortOnCancel<S> {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    set_linger: fn(&S) -> io::Result<()>,
}

impl<S: AsRef<TcpStream>> WriteTimeoutStream<S> {
    /// Makes writes fail once `abort` is cancelled, waiting ones too. The peer then gets a reset instead of the unsent
    /// bytes in the socket's buffer, which may be megabytes.
    pub fn abort_on(mut self, abort: CancellationToken) -> Self {
        self.abort = Some(AbortOnCancel {
            cancelled: Box::pin(abort.cancelled_owned()),
            set_linger: |stream| stream.as_ref().set_zero_linger(),
        });
        self
    }

    /// Reports the peer's shutdown to `peer`; nothing reads the stream while its request is processed.
    pub fn watch_peer_shutdown(mut self, peer: PeerShutdown) -> Self {
        self.peer_shutdown =
            Some(PeerShutdownWatch { state: peer, has_shut_down: |stream| peer_has_shut_down(stream.as_ref()) });
        self
    }
}

impl<S> WriteTimeoutStream<S> {
    /// Wraps a stream; the rate is measured over windows of `window` of waiting, as in [`MinTransferRate`].
    pub fn new(inner: S, window: Duration) -> Self {
        Self { inner, min_rate: MinTransferRate::new(window), abort: None, peer_shutdown: None }
    }

    fn check_peer_shutdown(&self) -> io::Result<()> {
        let Some(PeerShutdownWatch { state, has_shut_down }) = &self.peer_shutdown else {
            return Ok(());
        };
        // One poll(2) for each request of a check, not for each flush.
        if state.0.check_requested.swap(false, Ordering::Relaxed) && has_shut_down(&self.inner)? {
            state.0.detected.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn check_abort(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(AbortOnCancel { cancelled, set_linger }) = &mut self.abort else {
            return Ok(());
        };
        if cancelled.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        // SO_LINGER of zero: closing then sends a reset and discards what the socket still holds.
        set_linger(&self.inner)?;
        // Once: the shutdown that follows the error must pass.
        self.abort = None;
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the response was aborted"))
    }

    /// Applies the minimum rate to the result of a write, flush or shutdown.
    fn enforce_min_rate<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        transferred_bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &result {
            Poll::Ready(Ok(value)) => self.min_rate.record_transferred(transferred_bytes(value)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending if self.min_rate.poll_too_slow(cx).is_ready() => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads too slowly")));
            }
            Poll::Pending => {}
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Before the write: while the socket has space a write never waits, and would not notice the abort.
        self.check_abort(cx)?;
        let result = Pin::new(&mut self.inner).poll_write(cx, data);
        self.enforce_min_rate(cx, result, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_abort(cx)?;
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, data);
        self.enforce_min_rate(cx, result, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_abort(cx)?;
        self.check_peer_shutdown()?;
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.enforce_min_rate(cx, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_abort(cx)?;
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.enforce_min_rate(cx, result, |()| 0)
    }
}

/// Returns whether a peer has shut down its sending side.
///
/// # Errors
/// [`io::ErrorKind::ConnectionReset`] once the connection is gone.
fn peer_has_shut_down(stream: &TcpStream) -> io::Result<bool> {
    // poll(2) and not a read, which would consume the beginning of the next request.
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default()))?;
    let seen = polled[0].revents();
    // Both directions are closed: nobody would read the response.
    if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(seen.contains(PollFlags::RDHUP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{FileTransfer, FileTransferStream};
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn write_times_out_when_peer_does_not_read() {
        let (server, _client) = tokio::io::duplex(16);
        let mut server = WriteTimeoutStream::new(server, Duration::from_millis(20));
        let error = server.write_all(&[0; 17]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn peer_shutdown_is_detected_and_reset_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().expect("it")), listener.accept());
        let (mut client, server) = (client.expect("connected"), server.expect("accepted").0);
        let peer = PeerShutdown::default();
        let server = FileTransferStream::new(server, FileTransfer::default());
        let mut server = WriteTimeoutStream::new(server, Duration::from_secs(60)).watch_peer_shutdown(peer.clone());
        client.write_all(b"not read").await.expect("sent");
        peer.request_check();
        server.flush().await.expect("open");
        assert!(!peer.is_detected());
        client.shutdown().await.expect("shut down");
        for _ in 0..1000 {
            peer.request_check();
            server.flush().await.expect("half open");
            if peer.is_detected() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(peer.is_detected());
        drop(client);
        server.write_all(b"x").await.expect("taken by the system");
        for _ in 0..1000 {
            peer.request_check();
            if let Err(error) = server.flush().await {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the reset is not seen");
    }

    #[tokio::test]
    async fn aborted_connection_is_reset_while_peer_does_not_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().expect("it")), listener.accept());
        let (mut client, server) = (client.expect("connected"), server.expect("accepted").0);
        let abort = CancellationToken::new();
        let server = FileTransferStream::new(server, FileTransfer::default());
        let mut server = WriteTimeoutStream::new(server, Duration::from_secs(60)).abort_on(abort.clone());
        let writing = tokio::spawn(async move { server.write_all(&vec![0; 64 << 20]).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        abort.cancel();
        let error = writing.await.expect("joined").expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        let error = tokio::io::copy(&mut client, &mut tokio::io::sink()).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
