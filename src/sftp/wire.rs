//! The socket as russh sees it: can be cut from outside, tells when the other side reads nothing, and
//! remembers how the client names itself.
//!
//! russh's own timers stand still while its loop waits for the socket or for a channel; what watches a
//! session must therefore hold the socket, not the session.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How much is read from the system at once when a packet's length is asked for.
const READ_AHEAD: usize = 64 * 1024;
/// The longest identification string (RFC 4253 section 4.2).
const LONGEST_NAME: usize = 255;

/// Holds a connection from outside: cuts it and watches it.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<State>);

#[derive(Debug)]
struct State {
    cut: CancellationToken,
    client: OnceLock<String>,
    born: Instant,
    /// Milliseconds after `born`, plus one, at which the other side stopped reading; zero while it reads.
    stuck: AtomicU64,
}

impl Line {
    /// Cuts the connection: reading and writing fail from now on.
    pub(super) fn cut(&self) {
        self.0.cut.cancel();
    }

    /// Returns how the client names itself, once it has.
    pub(super) fn client(&self) -> Option<String> {
        self.0.client.get().cloned()
    }

    /// Waits until the other side has read nothing for `limit` though something waits for it.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let since = match self.0.stuck.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                stuck => self.0.born.elapsed().saturating_sub(Duration::from_millis(stuck - 1)),
            };
            if since >= limit {
                return;
            }
            tokio::time::sleep(limit.saturating_sub(since).max(Duration::from_millis(1))).await;
        }
    }

    fn note_stuck(&self, stuck: bool) {
        let was = self.0.stuck.load(Ordering::Relaxed);
        if stuck && was == 0 {
            let now = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.0.stuck.store(now + 1, Ordering::Relaxed);
        } else if !stuck && was != 0 {
            self.0.stuck.store(0, Ordering::Relaxed);
        }
    }
}

/// The socket, as russh reads and writes it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    line: Line,
    ahead: Box<[u8]>,
    /// What of `ahead` was read and not yet handed on.
    filled: std::ops::Range<usize>,
    name: Vec<u8>,
    cut_reading: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Wire<S> {
    /// Takes a socket; returns what holds it from outside.
    pub(super) fn new(stream: S) -> (Self, Line) {
        let cut = CancellationToken::new();
        let wait = || Box::pin(cut.clone().cancelled_owned());
        let (cut_reading, cut_writing) = (wait(), wait());
        let state = State { cut, client: OnceLock::new(), born: Instant::now(), stuck: AtomicU64::new(0) };
        let line = Line(Arc::new(state));
        let ahead = vec![0; READ_AHEAD].into();
        (Self { stream, line: line.clone(), ahead, filled: 0..0, name: Vec::new(), cut_reading, cut_writing }, line)
    }

    /// Remembers the client's first line.
    fn listen(&mut self, handed_on: &[u8]) {
        if self.line.0.client.get().is_some() {
            return;
        }
        let end = memchr::memchr(b'\n', handed_on);
        let room = LONGEST_NAME - self.name.len().min(LONGEST_NAME);
        let part = &handed_on[..end.unwrap_or(handed_on.len())];
        self.name.extend_from_slice(&part[..part.len().min(room)]);
        if end.is_some() || self.name.len() >= LONGEST_NAME {
            let name = String::from_utf8_lossy(self.name.trim_ascii_end()).into_owned();
            // It was empty a moment ago, and nobody else sets it.
            let _ = self.line.0.client.set(name);
        }
    }
}

fn severed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session was ended")
}

impl<S: AsyncRead + Unpin> Wire<S> {
    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.filled.is_empty() {
            if buf.remaining() >= self.ahead.len() {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut ahead = ReadBuf::new(&mut self.ahead);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ahead))?;
            self.filled = 0..ahead.filled().len();
        }
        let end = self.filled.end.min(self.filled.start + buf.remaining());
        buf.put_slice(&self.ahead[self.filled.start..end]);
        self.filled.start = end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.line.0.cut.is_cancelled() {
            return Poll::Ready(Err(severed()));
        }
        let before = buf.filled().len();
        let polled = wire.poll_ahead(cx, buf);
        match polled {
            Poll::Ready(Ok(())) => wire.listen(&buf.filled()[before..]),
            Poll::Ready(Err(_)) => {}
            Poll::Pending if wire.cut_reading.as_mut().poll(cx).is_ready() => return Poll::Ready(Err(severed())),
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.line.0.cut.is_cancelled() {
            return Poll::Ready(Err(severed()));
        }
        let polled = Pin::new(&mut wire.stream).poll_write(cx, buf);
        wire.line.note_stuck(polled.is_pending());
        if polled.is_pending() && wire.cut_writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(severed()));
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_first_line_names_the_client_however_it_is_cut() {
        let (mut client, server) = duplex(1024);
        let (mut wire, line) = Wire::new(server);
        client.write_all(b"SSH-2.0-Test_1 with words\r\nrest").await.expect("write");
        let mut byte = [0; 1];
        for _ in 0..10 {
            wire.read_exact(&mut byte).await.expect("read");
        }
        assert_eq!(line.client(), None);
        let mut rest = [0; 21];
        wire.read_exact(&mut rest).await.expect("read");
        assert_eq!(&rest[17..], b"rest");
        assert_eq!(line.client().as_deref(), Some("SSH-2.0-Test_1 with words"));
    }

    #[tokio::test]
    async fn a_cut_wakes_a_reader_and_a_writer_that_wait() {
        let (_client, server) = duplex(4);
        let (wire, line) = Wire::new(server);
        let (mut reader, mut writer) = tokio::io::split(wire);
        let reading = tokio::spawn(async move { reader.read_u8().await });
        let writing = tokio::spawn(async move { writer.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        line.cut();
        assert_eq!(reading.await.expect("task").expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.expect("task").expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_noticed() {
        let (mut client, server) = duplex(4);
        let (mut wire, line) = Wire::new(server);
        let writing = tokio::spawn(async move { wire.write_all(&[0; 8]).await });
        line.stalled(Duration::from_millis(30)).await;
        let mut all = [0; 8];
        client.read_exact(&mut all).await.expect("read");
        writing.await.expect("task").expect("written");
        let quiet = tokio::time::timeout(Duration::from_millis(90), line.stalled(Duration::from_millis(30)));
        assert!(quiet.await.is_err(), "it reads again");
    }
}
