//! A stream whose first bytes are inspected before it is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Number of bytes that are read at once to find the preface: as much as most first requests have.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// Wraps a stream and replays the bytes that were already read of it.
pub struct RewindStream<S> {
    prefix: Bytes,
    inner: S,
}

impl<S: AsyncRead + Unpin> RewindStream<S> {
    /// Reads a stream until it is known whether it begins with `preface`; returns the rewound stream, and whether it
    /// does.
    ///
    /// # Errors
    /// I/O errors of the stream.
    pub async fn detect_preface(mut inner: S, preface: &[u8]) -> io::Result<(Self, bool)> {
        // All that has arrived, and not just the preface: a client may send whole requests and be gone. The first bytes
        // that are written to it are answered with a reset then, by which the system discards what was not read yet.
        let mut start = BytesMut::with_capacity(FIRST_READ_BYTES);
        // Ends at the first byte that differs: waiting for a whole preface would hang on a shorter request.
        while start.len() < preface.len() && preface.starts_with(&start) {
            if inner.read_buf(&mut start).await? == 0 {
                break;
            }
        }
        let matches = start.starts_with(preface);
        Ok((Self { prefix: start.freeze(), inner }, matches))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RewindStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RewindStream<S> {
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

    #[tokio::test]
    async fn detected_bytes_are_read_again() {
        for (sent, is_match) in [("", false), ("PR", false), ("PUT /", false), ("PRI * x", true), ("PRI * ", true)] {
            let (mut stream, matches) = RewindStream::detect_preface(sent.as_bytes(), b"PRI * ").await.expect("read");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("text");
            assert_eq!((&*text, matches), (sent, is_match));
        }
    }
}
