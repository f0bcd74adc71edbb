//! A stream that is read in larger pieces than its reader asks for.
//!
//! rustls reads 4 KiB at once: a TLS record of an upload would take four or five system calls.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Maximum number of bytes that are read ahead: a TLS record, as it is sent.
const READ_AHEAD_BYTES: usize = 17 * 1024;

/// Wraps a stream: reads into small buffers are served from one larger read.
pub struct ReadAheadStream<S> {
    inner: S,
    /// Allocated while it has bytes, so that an idle connection has none.
    unread: BytesMut,
}

impl<S> ReadAheadStream<S> {
    /// Wraps a stream.
    pub fn new(inner: S) -> Self {
        Self { inner, unread: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAheadStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, unread } = &mut *self;
        if unread.is_empty() {
            if buffer.remaining() >= READ_AHEAD_BYTES {
                return Pin::new(inner).poll_read(cx, buffer);
            }
            let mut read = BytesMut::with_capacity(READ_AHEAD_BYTES);
            ready!(poll_read_buf(Pin::new(inner), cx, &mut read))?;
            *unread = read;
        }
        let count = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..count]);
        unread.advance(count);
        if unread.is_empty() {
            *unread = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAheadStream<S> {
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
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn small_reads_are_served_from_one_larger_read() {
        let (mut sender, receiver) = tokio::io::duplex(2 * READ_AHEAD_BYTES);
        let content = (0..READ_AHEAD_BYTES + 100).map(|i| (i % 251) as u8).collect::<Vec<_>>();
        sender.write_all(&content).await.expect("sent");
        let mut stream = ReadAheadStream::new(receiver);
        let (mut received, mut part) = (Vec::new(), [0; 4096]);
        let count = stream.read(&mut part).await.expect("read");
        received.extend_from_slice(&part[..count]);
        assert_eq!((count, stream.unread.len()), (4096, READ_AHEAD_BYTES - 4096));
        drop(sender);
        stream.read_to_end(&mut received).await.expect("read to its end");
        assert_eq!(received, content);
        assert_eq!(stream.unread.capacity(), 0, "an idle stream has no buffer");
    }
}
