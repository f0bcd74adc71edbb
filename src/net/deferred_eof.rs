//! A stream whose end is deferred until the requests before it were accepted.
//!
//! The h2 library reads everything that a socket has received at once, and drops requests that nobody has accepted yet
//! when the connection's end is part of it. A client that sends a whole request and closes would get no reply.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Handle that lets a [`DeferredEofStream`] report its end.
#[derive(Clone, Debug, Default)]
pub struct EofGate(Arc<AtomicBool>);

impl EofGate {
    /// Records that all input that was read so far was accepted.
    pub fn allow_eof(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Wraps a stream: its end, or an error in its place, is reported only while the gate is open. Every read of data
/// closes the gate.
pub struct DeferredEofStream<S> {
    inner: S,
    gate: EofGate,
    deferred_eof: Option<io::Result<()>>,
}

impl<S> DeferredEofStream<S> {
    /// Returns a stream whose end waits for `gate`.
    pub fn new(inner: S, gate: EofGate) -> Self {
        Self { inner, gate, deferred_eof: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeferredEofStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.deferred_eof.is_none() {
            let before = buffer.filled().len();
            let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
            if read.is_ok() && buffer.filled().len() > before {
                // The data may hold new requests, which have to be accepted before the end is reported.
                self.gate.0.store(false, Ordering::Relaxed);
                return Poll::Ready(read);
            }
            // Kept, an error included: a stream must not be polled again after its end.
            self.deferred_eof = Some(read);
        }
        if self.gate.0.load(Ordering::Relaxed) {
            // An error is reported once, then EOF.
            return Poll::Ready(self.deferred_eof.replace(Ok(())).unwrap_or(Ok(())));
        }
        // Wakes at once: the poller opens the gate when it has nothing left to accept, and polls again.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Replaces the error of a write to a disconnected peer by success with `done`, so that its earlier input is still
/// read.
fn ignore_disconnected<T>(written: Poll<io::Result<T>>, done: T) -> Poll<io::Result<T>> {
    match written {
        Poll::Ready(Err(error))
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            Poll::Ready(Ok(done))
        }
        written => written,
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeferredEofStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ignore_disconnected(Pin::new(&mut self.inner).poll_write(cx, data), data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|slice| slice.len()).sum();
        ignore_disconnected(Pin::new(&mut self.inner).poll_write_vectored(cx, data), length)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ignore_disconnected(Pin::new(&mut self.inner).poll_flush(cx), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn eof_is_reported_once_gate_is_open() {
        let gate = EofGate::default();
        gate.allow_eof();
        let mut stream = DeferredEofStream::new(&b"request"[..], gate.clone());
        let mut bytes = [0; 16];
        assert_eq!(stream.read(&mut bytes).await.expect("read"), 7);
        let next = tokio::time::timeout(std::time::Duration::from_millis(20), stream.read(&mut bytes)).await;
        assert!(next.is_err(), "the read closed the gate");
        gate.allow_eof();
        assert_eq!(stream.read(&mut bytes).await.expect("the end"), 0);
    }
}
