//! The socket as russh sees it: can be cut from outside, tells when the other side reads nothing, says nothing or
//! waits for an answer, and remembers how the client names itself.
//!
//! russh's own timers stand still while its loop waits for the socket or for a channel; what watches a
//! session must therefore hold the socket, not the session.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::answer_monitor::AnswerMonitor;
use super::turns::{LoginTurn, TurnClaim, TurnState};

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
    /// Milliseconds after `born` at which something last came in.
    heard: AtomicU64,
    /// Milliseconds after `born` at which a request of SFTP last came in, or one was last seen under way.
    requested: AtomicU64,
    answers: AnswerMonitor,
    /// The turn in which russh computes for a caller who has not logged in.
    turn: Mutex<Option<LoginTurn>>,
    /// Whether the caller has logged in, and needs no turns.
    inside: AtomicBool,
}

impl State {
    fn new(cut: CancellationToken) -> Self {
        Self {
            cut,
            client: OnceLock::new(),
            born: Instant::now(),
            stuck: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            requested: AtomicU64::new(0),
            answers: AnswerMonitor::new(),
            turn: Mutex::default(),
            inside: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn since(&self, moment: u64) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(moment))
    }
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
        reached(limit, || match self.0.stuck.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            stuck => self.0.since(stuck - 1),
        })
        .await;
    }

    /// Waits until nothing has come in for `limit`.
    pub(super) async fn silent(&self, limit: Duration) {
        reached(limit, || self.0.since(self.0.heard.load(Ordering::Relaxed))).await;
    }

    /// Waits until no request of SFTP has come in for `limit`, and none was under way, as `busy` tells.
    pub(super) async fn idle(&self, limit: Duration, busy: impl Fn() -> bool) {
        self.note_request();
        reached(limit, || {
            if busy() {
                self.note_request();
            }
            self.0.since(self.0.requested.load(Ordering::Relaxed))
        })
        .await;
    }

    /// Waits until a request of a login has gone without an answer for `limit`.
    pub(super) async fn unanswered(&self, limit: Duration) {
        reached(limit, || self.0.answers.waiting()).await;
    }

    /// Returns what watches the requests of the login.
    pub(super) fn answers(&self) -> &AnswerMonitor {
        &self.0.answers
    }

    /// Ends the turn of a caller for whom russh computes no more for now.
    pub(super) fn end_turn(&self) {
        *self.0.turn.lock() = None;
    }

    /// Ends the turns of a caller who has logged in.
    pub(super) fn end_turns(&self) {
        self.0.inside.store(true, Ordering::Release);
        self.end_turn();
    }

    fn needs_turns(&self) -> bool {
        !self.0.inside.load(Ordering::Acquire)
    }

    /// Notes that a request of SFTP has come in.
    pub(super) fn note_request(&self) {
        self.0.requested.store(self.0.now(), Ordering::Relaxed);
    }

    fn note_stuck(&self, stuck: bool) {
        let was = self.0.stuck.load(Ordering::Relaxed);
        if stuck && was == 0 {
            self.0.stuck.store(self.0.now() + 1, Ordering::Relaxed);
        } else if !stuck && was != 0 {
            self.0.stuck.store(0, Ordering::Relaxed);
        }
    }
}

/// Waits until a time has grown to a limit; it is looked at four times within it.
async fn reached(limit: Duration, time: impl Fn() -> Duration) {
    loop {
        let time = time();
        if time >= limit {
            return;
        }
        tokio::time::sleep((limit - time).min(limit / 4).max(Duration::from_millis(1))).await;
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
    /// Size of the read that russh is at, and what of it is still to come.
    reading: (usize, usize),
    /// Turns of a caller who has not logged in; none any more once he has.
    turns: Option<TurnState>,
    cut_reading: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Wire<S> {
    /// Takes a socket and its claim to turns; returns what holds it from outside.
    pub(super) fn new(stream: S, claim: TurnClaim) -> (Self, Line) {
        let cut = CancellationToken::new();
        let wait = || Box::pin(cut.clone().cancelled_owned());
        let (cut_reading, cut_writing) = (wait(), wait());
        let line = Line(Arc::new(State::new(cut)));
        let wire = Self {
            stream,
            line: line.clone(),
            ahead: vec![0; READ_AHEAD].into(),
            filled: 0..0,
            name: Vec::new(),
            reading: (0, 0),
            turns: Some(TurnState::new(claim)),
            cut_reading,
            cut_writing,
        };
        (wire, line)
    }

    /// Follows the reads of russh, which takes a packet's head and then the rest, each in one read that may come in
    /// parts.
    fn follow(&mut self, wanted: usize, got: usize) {
        let (size, left) = self.reading;
        let size = if left == wanted && left > 0 { size } else { wanted };
        self.reading = (size, wanted - got);
        if got > 0 && got == wanted {
            self.line.0.answers.note_read(size);
        }
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

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        // russh has ended; whoever watches the line may go on for a while.
        self.line.end_turn();
    }
}

fn severed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session was ended")
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Waits for the turn in which russh computes on what has come in.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(turns) = &mut self.turns else { return Poll::Ready(()) };
        if self.line.needs_turns() {
            let turn = std::task::ready!(turns.poll(cx));
            *self.line.0.turn.lock() = turn;
        } else {
            self.turns = None;
        }
        Poll::Ready(())
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.filled.is_empty() {
            if buf.remaining() >= self.ahead.len() && self.turns.is_none() {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut ahead = ReadBuf::new(&mut self.ahead);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ahead))?;
            self.filled = 0..ahead.filled().len();
        }
        if !self.filled.is_empty() {
            std::task::ready!(self.poll_turn(cx));
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
        if wire.turns.is_some() {
            // It asks for more: what it got before is done with.
            wire.line.end_turn();
        }
        let (before, wanted) = (buf.filled().len(), buf.remaining());
        let polled = wire.poll_ahead(cx, buf);
        match polled {
            Poll::Ready(Ok(())) => {
                wire.listen(&buf.filled()[before..]);
                wire.follow(wanted, buf.filled().len() - before);
                wire.line.0.heard.store(wire.line.0.now(), Ordering::Relaxed);
            }
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
        if wire.turns.is_some() {
            wire.line.end_turn();
        }
        let polled = Pin::new(&mut wire.stream).poll_write(cx, buf);
        wire.line.note_stuck(polled.is_pending());
        if matches!(polled, Poll::Ready(Ok(_))) {
            wire.line.0.answers.note_write();
        }
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
    use crate::sftp::turns::LoginTurns;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn claim() -> TurnClaim {
        LoginTurns::new(1).claim([127, 0, 0, 1].into())
    }

    #[tokio::test]
    async fn bytes_of_a_caller_who_has_not_logged_in_wait_for_a_turn() {
        let turns = LoginTurns::new(1);
        let (mut client, server) = duplex(1024);
        let (mut wire, line) = Wire::new(server, turns.claim([192, 0, 2, 1].into()));
        let (mut others, other) = duplex(1024);
        let (mut other, other_line) = Wire::new(other, turns.claim([192, 0, 2, 2].into()));
        client.write_all(b"abc").await.expect("write");
        others.write_all(b"d").await.expect("write");
        assert_eq!(wire.read_u8().await.expect("a turn"), b'a');
        let mut waiting = read_now(&mut other);
        assert!(waiting.is_none(), "the first one has the turn");
        wire.write_all(b"answer").await.expect("write");
        waiting = read_now(&mut other);
        assert_eq!(waiting, Some(b'd'), "the answer ended the turn");
        assert_eq!(read_now(&mut wire), None, "now the other one has it");
        other_line.end_turn();
        assert_eq!(read_now(&mut wire), Some(b'b'));
        line.end_turns();
        let _taken = turns.claim([192, 0, 2, 3].into()).take().await.expect("a turn");
        assert_eq!(read_now(&mut wire), Some(b'c'), "who is inside needs none");
    }

    /// Reads a byte, if one is handed on now.
    fn read_now(wire: &mut Wire<tokio::io::DuplexStream>) -> Option<u8> {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let polled = Pin::new(wire).poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buffer);
        assert!(!matches!(polled, Poll::Ready(Err(_))), "{polled:?}");
        polled.is_ready().then(|| byte[0])
    }

    #[tokio::test]
    async fn the_first_line_names_the_client_however_it_is_cut() {
        let (mut client, server) = duplex(1024);
        let (mut wire, line) = Wire::new(server, claim());
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
        let (wire, line) = Wire::new(server, claim());
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
        let (mut wire, line) = Wire::new(server, claim());
        let writing = tokio::spawn(async move { wire.write_all(&[0; 8]).await });
        line.stalled(Duration::from_millis(30)).await;
        let mut all = [0; 8];
        client.read_exact(&mut all).await.expect("read");
        writing.await.expect("task").expect("written");
        let quiet = tokio::time::timeout(Duration::from_millis(90), line.stalled(Duration::from_millis(30)));
        assert!(quiet.await.is_err(), "it reads again");
    }

    #[tokio::test]
    async fn client_that_says_nothing_is_noticed() {
        let (mut client, server) = duplex(4);
        let (mut wire, line) = Wire::new(server, claim());
        line.silent(Duration::from_millis(30)).await;
        client.write_all(&[0; 4]).await.expect("write");
        wire.read_exact(&mut [0; 4]).await.expect("read");
        let soon = tokio::time::timeout(Duration::from_millis(20), line.silent(Duration::from_millis(200)));
        assert!(soon.await.is_err(), "it has just been heard");
    }

    #[tokio::test]
    async fn session_with_a_request_under_way_is_not_idle() {
        let (_client, server) = duplex(4);
        let (_wire, line) = Wire::new(server, claim());
        let limit = Duration::from_millis(30);
        assert!(tokio::time::timeout(limit * 4, line.idle(limit, || true)).await.is_err(), "it is busy");
        line.idle(limit, || false).await;
    }

    #[tokio::test]
    async fn read_in_parts_counts_as_one() {
        let (mut client, server) = duplex(64);
        let (mut wire, line) = Wire::new(server, claim());
        let mut packet = [0; 32];
        for begun in [false, true] {
            let reading = async {
                wire.read_exact(&mut packet[..4]).await.expect("the head");
                wire.read_exact(&mut packet[4..]).await.expect("the rest");
            };
            let writing = async {
                for part in [&[0; 9][..], &[0; 20], &[0; 3]] {
                    client.write_all(part).await.expect("write");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::join!(reading, writing);
            if !begun {
                line.answers().begin();
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(!line.answers().waiting().is_zero(), "the second packet is as large as the first");
    }
}
