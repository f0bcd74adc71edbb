//! A stream whose writes are gathered until they are flushed from outside.
//!
//! The h2 library flushes after each DATA frame. Every response would be a TLS record, a system call and a TCP segment of
//! its own, although others follow that are ready as well.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Maximum number of bytes that are gathered: a TLS record (RFC 8446 section 5.1).
const GATHERED_BYTES: usize = 16 * 1024;
/// Time after which a write passes on what was gathered before it: the peer works on one response while the next are
/// made.
const MAX_GATHERING_TIME: Duration = Duration::from_micros(100);

/// Wraps a stream: writes are gathered, and a flush by the writer does nothing. The bytes are passed on by
/// [`WriteFlusher::poll_flush`], by the shutdown, and where they are too many to be gathered.
pub struct GatheredWrites<S>(Arc<Mutex<GatheringStream<S>>>);

/// Handle that flushes a stream of [`GatheredWrites`].
pub struct WriteFlusher<S>(Arc<Mutex<GatheringStream<S>>>);

struct GatheringStream<S> {
    inner: S,
    /// Allocated while bytes wait to be flushed, so that an idle connection has none.
    gathered: BytesMut,
    gathering_since: Instant,
}

impl<S> GatheredWrites<S> {
    /// Wraps a stream.
    pub fn new(inner: S) -> Self {
        Self(Arc::new(Mutex::new(GatheringStream {
            inner,
            gathered: BytesMut::new(),
            gathering_since: Instant::now(),
        })))
    }

    /// Returns the handle that flushes the stream. Without it, writes that are few may never arrive.
    pub fn flusher(&self) -> WriteFlusher<S> {
        WriteFlusher(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> WriteFlusher<S> {
    /// Passes on what was gathered, and flushes the stream. Call it whenever the writer waits.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.0.lock();
        ready!(stream.poll_write_gathered(cx))?;
        Pin::new(&mut stream.inner).poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> GatheringStream<S> {
    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|slice| slice.len()).sum::<usize>();
        while self.gathered.len() + length > GATHERED_BYTES {
            // Without a copy of the new bytes.
            let waiting = self.gathered.len();
            let slices = std::iter::once(IoSlice::new(&self.gathered)).chain(data.iter().copied()).collect::<Vec<_>>();
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            self.gathered.advance(written.min(waiting));
            if written > waiting {
                return Poll::Ready(Ok(written - waiting));
            }
        }
        let now = Instant::now();
        if self.gathered.is_empty() {
            self.gathered = BytesMut::with_capacity(GATHERED_BYTES);
            self.gathering_since = now;
        }
        data.iter().for_each(|slice| self.gathered.extend_from_slice(slice));
        if now - self.gathering_since >= MAX_GATHERING_TIME {
            // What the stream does not take now stays gathered.
            let _ = self.poll_write_gathered(cx)?;
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheredWrites<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheredWrites<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.0.lock();
        ready!(stream.poll_write_gathered(cx))?;
        Pin::new(&mut stream.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    /// Stream that records the length of each write, and takes nothing once it has no `space`.
    struct RecordingStream {
        writes: Vec<usize>,
        bytes: Vec<u8>,
        space: usize,
    }

    impl AsyncWrite for RecordingStream {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let count = data.len().min(self.space);
            if count == 0 {
                return Poll::Pending;
            }
            self.space -= count;
            self.writes.push(count);
            self.bytes.extend_from_slice(&data[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let joined = data.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
            self.poll_write(cx, &joined)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gathered_writes(space: usize) -> GatheredWrites<RecordingStream> {
        GatheredWrites::new(RecordingStream { writes: Vec::new(), bytes: Vec::new(), space })
    }

    fn lengths_written(stream: &GatheredWrites<RecordingStream>) -> Vec<usize> {
        stream.0.lock().inner.writes.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn writes_leave_together_when_flushed_from_outside() {
        let mut stream = gathered_writes(usize::MAX);
        let flusher = stream.flusher();
        for _ in 0..10 {
            stream.write_all(&[1; 100]).await.expect("gathered");
            stream.flush().await.expect("deferred");
        }
        assert!(lengths_written(&stream).is_empty());
        poll_fn(|cx| flusher.poll_flush(cx)).await.expect("flushed");
        assert_eq!(lengths_written(&stream), [1000]);
        assert_eq!(stream.0.lock().gathered.capacity(), 0, "an idle stream has no buffer");
        stream.write_all(&[1; 7]).await.expect("gathered");
        stream.shutdown().await.expect("shut down");
        assert_eq!(lengths_written(&stream), [1000, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_can_be_gathered_is_passed_on_in_order() {
        let mut stream = gathered_writes(usize::MAX);
        let content = (0..50_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>();
        let (first, rest) = content.split_at(100);
        stream.write_all(first).await.expect("gathered");
        stream.write_all(rest).await.expect("passed on");
        assert_eq!(lengths_written(&stream), [50_000]);
        assert_eq!(stream.0.lock().inner.bytes, content);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_do_not_wait_longer_than_the_gathering_time() {
        let mut stream = gathered_writes(usize::MAX);
        stream.write_all(&[1; 10]).await.expect("gathered");
        tokio::time::advance(MAX_GATHERING_TIME).await;
        stream.write_all(&[1; 10]).await.expect("passed on");
        assert_eq!(lengths_written(&stream), [20]);
    }

    #[tokio::test(start_paused = true)]
    async fn stream_that_takes_nothing_bounds_what_is_gathered() {
        let mut stream = gathered_writes(10);
        let mut accepted = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), stream.write(&[1; 1000])).await {
            accepted += written.expect("gathered");
            assert!(accepted <= GATHERED_BYTES + 10, "without a bound");
        }
        assert!(stream.0.lock().gathered.len() <= GATHERED_BYTES);
    }
}
