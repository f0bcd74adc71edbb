//! The socket that russh reads and writes. It can be aborted from outside, detects a client that reads nothing, sends
//! nothing or waits for a reply, and keeps the client's identification string.
//!
//! russh's own timers stop while its loop waits for the socket or for a channel. So the supervisor of a session works
//! on the socket, not on russh's session.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::login_reply_monitor::LoginReplyMonitor;
use super::preauth_slots::{PreauthSlot, PreauthSlotClaim, PreauthSlotState};

/// Number of bytes that are read from the system at once when russh reads a packet's head.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Maximum length of an identification string (RFC 4253 section 4.2).
const IDENTIFICATION_MAX_BYTES: usize = 255;

/// Handle of a connection for its supervisor: aborts it, and waits for its timeouts.
#[derive(Clone, Debug)]
pub(super) struct ConnectionControl(Arc<MonitoredState>);

#[derive(Debug)]
struct MonitoredState {
    abort: CancellationToken,
    client_identification: OnceLock<String>,
    started_at: Instant,
    /// Time at which a write began to block, in milliseconds after `started_at`, plus one; zero while writes succeed.
    write_blocked_since: AtomicU64,
    /// Time of the last read, in milliseconds after `started_at`.
    last_read_at: AtomicU64,
    /// Time at which an SFTP request last arrived or was seen running, in milliseconds after `started_at`.
    last_request_at: AtomicU64,
    reply_monitor: LoginReplyMonitor,
    /// Slot in which russh computes for this unauthenticated client.
    preauth_slot: Mutex<Option<PreauthSlot>>,
    /// Whether the client has logged in, and needs no slots.
    logged_in: AtomicBool,
}

impl MonitoredState {
    fn new(abort: CancellationToken) -> Self {
        Self {
            abort,
            client_identification: OnceLock::new(),
            started_at: Instant::now(),
            write_blocked_since: AtomicU64::new(0),
            last_read_at: AtomicU64::new(0),
            last_request_at: AtomicU64::new(0),
            reply_monitor: LoginReplyMonitor::new(),
            preauth_slot: Mutex::default(),
            logged_in: AtomicBool::new(false),
        }
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn elapsed_since(&self, moment: u64) -> Duration {
        self.started_at.elapsed().saturating_sub(Duration::from_millis(moment))
    }
}

impl ConnectionControl {
    /// Aborts the connection: reads and writes fail from now on.
    pub(super) fn abort(&self) {
        self.0.abort.cancel();
    }

    /// Returns the client's identification string, once it was received.
    pub(super) fn client_identification(&self) -> Option<String> {
        self.0.client_identification.get().cloned()
    }

    /// Waits until a write has been blocked for `limit`.
    pub(super) async fn wait_until_write_stalled(&self, limit: Duration) {
        wait_until_reached(limit, || match self.0.write_blocked_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.0.elapsed_since(since - 1),
        })
        .await;
    }

    /// Waits until nothing was received for `limit`.
    pub(super) async fn wait_until_silent(&self, limit: Duration) {
        wait_until_reached(limit, || self.0.elapsed_since(self.0.last_read_at.load(Ordering::Relaxed))).await;
    }

    /// Waits until no SFTP request arrived for `limit`, and none was running according to `busy`.
    pub(super) async fn wait_until_idle(&self, limit: Duration, busy: impl Fn() -> bool) {
        self.record_request();
        wait_until_reached(limit, || {
            // Restarts the time, so that it counts from the end of the work.
            if busy() {
                self.record_request();
            }
            self.0.elapsed_since(self.0.last_request_at.load(Ordering::Relaxed))
        })
        .await;
    }

    /// Waits until a login request has had no reply for `limit`.
    pub(super) async fn wait_until_unanswered(&self, limit: Duration) {
        wait_until_reached(limit, || self.0.reply_monitor.unanswered_for()).await;
    }

    /// Returns the monitor of the login's requests.
    pub(super) fn reply_monitor(&self) -> &LoginReplyMonitor {
        &self.0.reply_monitor
    }

    /// Releases the slot, since russh computes no more for now.
    pub(super) fn release_preauth_slot(&self) {
        *self.0.preauth_slot.lock() = None;
    }

    /// Notes that the client has logged in, and releases its slot.
    pub(super) fn mark_logged_in(&self) {
        // Before the release: a read in between must not acquire another slot.
        self.0.logged_in.store(true, Ordering::Release);
        self.release_preauth_slot();
    }

    fn needs_preauth_slot(&self) -> bool {
        !self.0.logged_in.load(Ordering::Acquire)
    }

    /// Records that an SFTP request arrived.
    pub(super) fn record_request(&self) {
        self.0.last_request_at.store(self.0.elapsed_millis(), Ordering::Relaxed);
    }

    fn record_write_blocked(&self, is_blocked: bool) {
        let since = self.0.write_blocked_since.load(Ordering::Relaxed);
        if is_blocked && since == 0 {
            self.0.write_blocked_since.store(self.0.elapsed_millis() + 1, Ordering::Relaxed);
        } else if !is_blocked && since != 0 {
            self.0.write_blocked_since.store(0, Ordering::Relaxed);
        }
    }
}

/// Waits until `elapsed` reaches a limit; it is polled at least four times within that.
async fn wait_until_reached(limit: Duration, elapsed: impl Fn() -> Duration) {
    loop {
        // Polled: reads and writes only store a time, and stay free of wake-ups.
        let elapsed = elapsed();
        if elapsed >= limit {
            return;
        }
        tokio::time::sleep((limit - elapsed).min(limit / 4).max(Duration::from_millis(1))).await;
    }
}

/// A socket that russh reads and writes.
#[derive(Debug)]
pub(super) struct MonitoredStream<S> {
    stream: S,
    control: ConnectionControl,
    read_buffer: Box<[u8]>,
    /// Part of `read_buffer` that russh has not read yet.
    filled: std::ops::Range<usize>,
    identification: Vec<u8>,
    /// Size of the read that russh is waiting for, and the number of bytes still missing.
    current_read: (usize, usize),
    /// Slots of a client that has not logged in; `None` once it has.
    preauth_slot: Option<PreauthSlotState>,
    abort_read: Pin<Box<WaitForCancellationFutureOwned>>,
    abort_write: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> MonitoredStream<S> {
    /// Wraps a socket; returns it with the handle for its supervisor.
    pub(super) fn new(stream: S, claim: PreauthSlotClaim) -> (Self, ConnectionControl) {
        let abort = CancellationToken::new();
        // One per direction: a future keeps only the last waker, and the two halves may be polled by different tasks.
        let wait = || Box::pin(abort.clone().cancelled_owned());
        let (abort_read, abort_write) = (wait(), wait());
        let control = ConnectionControl(Arc::new(MonitoredState::new(abort)));
        let monitored = Self {
            stream,
            control: control.clone(),
            read_buffer: vec![0; READ_AHEAD_BYTES].into(),
            filled: 0..0,
            identification: Vec::new(),
            current_read: (0, 0),
            preauth_slot: Some(PreauthSlotState::new(claim)),
            abort_read,
            abort_write,
        };
        (monitored, control)
    }

    /// Tracks russh's reads: it reads a packet's head and then the rest, each in one read that may be completed in
    /// parts.
    fn track_read(&mut self, wanted: usize, got: usize) {
        let (size, remaining) = self.current_read;
        // A read for exactly the missing bytes continues the one before; any other starts a new packet part.
        let size = if remaining == wanted && remaining > 0 { size } else { wanted };
        self.current_read = (size, wanted - got);
        if got > 0 && got == wanted {
            self.control.0.reply_monitor.record_read(size);
        }
    }

    /// Collects the client's first line.
    fn capture_identification(&mut self, received: &[u8]) {
        if self.control.0.client_identification.get().is_some() {
            return;
        }
        let end = memchr::memchr(b'\n', received);
        let remaining = IDENTIFICATION_MAX_BYTES - self.identification.len().min(IDENTIFICATION_MAX_BYTES);
        // Bounded: a client that never sends a newline must not fill memory.
        let part = &received[..end.unwrap_or(received.len())];
        self.identification.extend_from_slice(&part[..part.len().min(remaining)]);
        if end.is_some() || self.identification.len() >= IDENTIFICATION_MAX_BYTES {
            let identification = String::from_utf8_lossy(self.identification.trim_ascii_end()).into_owned();
            // Never fails: it was empty above, and only this function sets it.
            let _ = self.control.0.client_identification.set(identification);
        }
    }
}

impl<S> Drop for MonitoredStream<S> {
    fn drop(&mut self) {
        // russh has ended, while the supervisor may keep the control for longer.
        self.control.release_preauth_slot();
    }
}

fn aborted_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session was ended")
}

impl<S: AsyncRead + Unpin> MonitoredStream<S> {
    /// Waits for the slot in which russh computes on the input.
    fn poll_preauth_slot(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(slots) = &mut self.preauth_slot else { return Poll::Ready(()) };
        if self.control.needs_preauth_slot() {
            let slot = std::task::ready!(slots.poll(cx));
            *self.control.0.preauth_slot.lock() = slot;
        } else {
            self.preauth_slot = None;
        }
        Poll::Ready(())
    }

    fn poll_buffered_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.filled.is_empty() {
            // After the login, large reads go to russh's buffer directly, without a copy. Before it, input is held back
            // here until there is a slot.
            if buf.remaining() >= self.read_buffer.len() && self.preauth_slot.is_none() {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut read_ahead = ReadBuf::new(&mut self.read_buffer);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read_ahead))?;
            self.filled = 0..read_ahead.filled().len();
        }
        // Only for input: EOF needs no slot, so that a closed connection is released at once.
        if !self.filled.is_empty() {
            std::task::ready!(self.poll_preauth_slot(cx));
        }
        let end = self.filled.end.min(self.filled.start + buf.remaining());
        buf.put_slice(&self.read_buffer[self.filled.start..end]);
        self.filled.start = end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Looked at before the socket: input that keeps arriving must not outlast an abort.
        if this.control.0.abort.is_cancelled() {
            return Poll::Ready(Err(aborted_error()));
        }
        if this.preauth_slot.is_some() {
            // russh asks for more input: it has computed on what it got before.
            this.control.release_preauth_slot();
        }
        let (before, wanted) = (buf.filled().len(), buf.remaining());
        let polled = this.poll_buffered_read(cx, buf);
        match polled {
            Poll::Ready(Ok(())) => {
                this.capture_identification(&buf.filled()[before..]);
                this.track_read(wanted, buf.filled().len() - before);
                this.control.0.last_read_at.store(this.control.0.elapsed_millis(), Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            // Registers the waker, by which an abort ends a read that waits.
            Poll::Pending if this.abort_read.as_mut().poll(cx).is_ready() => return Poll::Ready(Err(aborted_error())),
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.control.0.abort.is_cancelled() {
            return Poll::Ready(Err(aborted_error()));
        }
        // russh writes the result of what it computed: the slot is for the next client.
        if this.preauth_slot.is_some() {
            this.control.release_preauth_slot();
        }
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        // Any progress resets the time: a slow client is fine, only one that reads nothing at all is stalled.
        this.control.record_write_blocked(polled.is_pending());
        if matches!(polled, Poll::Ready(Ok(_))) {
            this.control.0.reply_monitor.record_write();
        }
        if polled.is_pending() && this.abort_write.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(aborted_error()));
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
    use super::super::preauth_slots::PreauthSlots;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn claim() -> PreauthSlotClaim {
        PreauthSlots::new(1).claim([127, 0, 0, 1].into())
    }

    #[tokio::test]
    async fn unauthenticated_input_waits_for_preauth_slot() {
        let slots = PreauthSlots::new(1);
        let (mut client, server) = duplex(1024);
        let (mut stream, control) = MonitoredStream::new(server, slots.claim([192, 0, 2, 1].into()));
        let (mut other_client, other) = duplex(1024);
        let (mut other, other_control) = MonitoredStream::new(other, slots.claim([192, 0, 2, 2].into()));
        client.write_all(b"abc").await.expect("write");
        other_client.write_all(b"d").await.expect("write");
        assert_eq!(stream.read_u8().await.expect("a slot"), b'a');
        let mut waiting = read_now(&mut other);
        assert!(waiting.is_none(), "the first one holds the slot");
        stream.write_all(b"answer").await.expect("write");
        waiting = read_now(&mut other);
        assert_eq!(waiting, Some(b'd'), "the reply released the slot");
        assert_eq!(read_now(&mut stream), None, "now the other one holds it");
        other_control.release_preauth_slot();
        assert_eq!(read_now(&mut stream), Some(b'b'));
        control.mark_logged_in();
        let _taken = slots.claim([192, 0, 2, 3].into()).acquire().await.expect("a slot");
        assert_eq!(read_now(&mut stream), Some(b'c'), "a client that has logged in needs no slot");
    }

    /// Reads a byte, if one is handed on now.
    fn read_now(stream: &mut MonitoredStream<tokio::io::DuplexStream>) -> Option<u8> {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let polled = Pin::new(stream).poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buffer);
        assert!(!matches!(polled, Poll::Ready(Err(_))), "{polled:?}");
        polled.is_ready().then(|| byte[0])
    }

    #[tokio::test]
    async fn client_identification_is_captured_across_fragments() {
        let (mut client, server) = duplex(1024);
        let (mut stream, control) = MonitoredStream::new(server, claim());
        client.write_all(b"SSH-2.0-Test_1 with words\r\nrest").await.expect("write");
        let mut byte = [0; 1];
        for _ in 0..10 {
            stream.read_exact(&mut byte).await.expect("read");
        }
        assert_eq!(control.client_identification(), None);
        let mut rest = [0; 21];
        stream.read_exact(&mut rest).await.expect("read");
        assert_eq!(&rest[17..], b"rest");
        assert_eq!(control.client_identification().as_deref(), Some("SSH-2.0-Test_1 with words"));
    }

    #[tokio::test]
    async fn abort_wakes_blocked_reader_and_writer() {
        let (_client, server) = duplex(4);
        let (stream, control) = MonitoredStream::new(server, claim());
        let (mut reader, mut writer) = tokio::io::split(stream);
        let reading = tokio::spawn(async move { reader.read_u8().await });
        let writing = tokio::spawn(async move { writer.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        control.abort();
        assert_eq!(reading.await.expect("task").expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.expect("task").expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn client_that_reads_nothing_is_detected() {
        let (mut client, server) = duplex(4);
        let (mut stream, control) = MonitoredStream::new(server, claim());
        let writing = tokio::spawn(async move { stream.write_all(&[0; 8]).await });
        control.wait_until_write_stalled(Duration::from_millis(30)).await;
        let mut received = [0; 8];
        client.read_exact(&mut received).await.expect("read");
        writing.await.expect("task").expect("written");
        let quiet = tokio::time::timeout(
            Duration::from_millis(90),
            control.wait_until_write_stalled(Duration::from_millis(30)),
        );
        assert!(quiet.await.is_err(), "it reads again");
    }

    #[tokio::test]
    async fn silent_client_is_detected() {
        let (mut client, server) = duplex(4);
        let (mut stream, control) = MonitoredStream::new(server, claim());
        control.wait_until_silent(Duration::from_millis(30)).await;
        client.write_all(&[0; 4]).await.expect("write");
        stream.read_exact(&mut [0; 4]).await.expect("read");
        let soon =
            tokio::time::timeout(Duration::from_millis(20), control.wait_until_silent(Duration::from_millis(200)));
        assert!(soon.await.is_err(), "it has just been heard");
    }

    #[tokio::test]
    async fn session_with_running_request_is_not_idle() {
        let (_client, server) = duplex(4);
        let (_stream, control) = MonitoredStream::new(server, claim());
        let limit = Duration::from_millis(30);
        assert!(tokio::time::timeout(limit * 4, control.wait_until_idle(limit, || true)).await.is_err(), "it is busy");
        control.wait_until_idle(limit, || false).await;
    }

    #[tokio::test]
    async fn fragmented_read_is_recorded_once() {
        let (mut client, server) = duplex(64);
        let (mut stream, control) = MonitoredStream::new(server, claim());
        let mut packet = [0; 32];
        for has_started in [false, true] {
            let reading = async {
                stream.read_exact(&mut packet[..4]).await.expect("the head");
                stream.read_exact(&mut packet[4..]).await.expect("the rest");
            };
            let writing = async {
                for part in [&[0; 9][..], &[0; 20], &[0; 3]] {
                    client.write_all(part).await.expect("write");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::join!(reading, writing);
            if !has_started {
                control.reply_monitor().start();
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(!control.reply_monitor().unanswered_for().is_zero(), "the second packet is as large as the first");
    }
}
