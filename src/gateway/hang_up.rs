//! Noticing over HTTP/1 that a caller has hung up while his request is worked on.
//!
//! A client that has closed its connection and one that has only shut down its sending side look alike (RFC 9112 section
//! 9.6), until something is sent to them: the former answers with a reset. So when the other side has said that it sends
//! no more, and the work on its request takes long, one interim response is sent, which every client passes over (RFC
//! 9110 section 15.2). A reset ends the connection, and that cancels the work.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::PeerShutdown;

/// Time between two looks at the other side.
const LOOK: Duration = Duration::from_millis(500);

/// The interim response that is sent (RFC 9110 section 15.2.1).
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Asks for a probe of a [`ProbedStream`]. Clones ask the same stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe(Arc<AtomicBool>);

impl Probe {
    /// Has the interim response sent when the stream is flushed next; to be asked while a response over HTTP/1.1 is
    /// awaited of which nothing is written yet.
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes back what was not sent: a response begins.
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Waits for the work on a request over HTTP/1.1, and looks now and then whether its caller is still there. Both streams
/// are polled by whoever polls this.
pub(super) async fn while_awaited<T>(probe: &Probe, peer: &PeerShutdown, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut has_asked = false;
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => {
                probe.clear();
                return done;
            }
            () = tokio::time::sleep(LOOK) => peer.request_check(),
        }
        if peer.is_detected() && !has_asked {
            has_asked = true;
            probe.ask();
        }
    }
}

/// A stream on which an interim response is sent in between, as [`Probe`] asks.
///
/// An HTTP library flushes a stream only when all that it has written was taken: nothing is sent within a response.
pub(super) struct ProbedStream<S> {
    inner: S,
    probe: Probe,
    /// Bytes of the interim response that are still to be sent.
    left: usize,
}

impl<S> ProbedStream<S> {
    /// Wraps a stream.
    pub(super) fn new(inner: S, probe: Probe) -> Self {
        Self { inner, probe, left: 0 }
    }
}

impl<S: AsyncWrite + Unpin> ProbedStream<S> {
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.probe.0.swap(false, Ordering::Relaxed) {
            self.left += INTERIM.len();
        }
        while self.left > 0 {
            let from = INTERIM.len() - (self.left - 1) % INTERIM.len() - 1;
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &INTERIM[from..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.left -= sent,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ProbedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ProbedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.left > 0 {
            ready!(self.poll_interim(cx))?;
        }
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.left > 0 {
            ready!(self.poll_interim(cx))?;
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
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
    async fn interim_response_is_sent_when_it_is_asked_for_and_whole() {
        // So small that it is written in parts.
        let (ours, mut theirs) = tokio::io::duplex(7);
        let probe = Probe::default();
        let mut ours = ProbedStream::new(ours, probe.clone());
        let sending = tokio::spawn(async move {
            ours.flush().await.expect("nothing to send");
            probe.ask();
            ours.write_all(b"in the middle of a response, ").await.expect("sent");
            ours.flush().await.expect("sent");
            probe.ask();
            probe.clear();
            ours.flush().await.expect("sent");
            ours.write_all(b"more").await.expect("sent");
        });
        let mut received = String::new();
        theirs.read_to_string(&mut received).await.expect("text");
        sending.await.expect("joined");
        assert_eq!(received, "in the middle of a response, HTTP/1.1 100 Continue\r\n\r\nmore");
    }

    /// A server that answers one request, when it is told to; tells when the request's future is dropped.
    struct Slow {
        address: std::net::SocketAddr,
        answer: tokio::sync::oneshot::Sender<()>,
        dropped: tokio_util::sync::CancellationToken,
    }

    async fn slow() -> Slow {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let dropped = tokio_util::sync::CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (probe, peer) = (Probe::default(), PeerShutdown::default());
            let stream =
                crate::net::WriteTimeoutStream::new(stream, Duration::from_secs(60)).watch_peer_shutdown(peer.clone());
            let stream = ProbedStream::new(stream, probe.clone());
            let work = parking_lot::Mutex::new(Some((answered, guard)));
            let service = hyper::service::service_fn(|_| {
                let (answered, guard) = work.lock().take().expect("one request");
                let (probe, peer) = (&probe, &peer);
                async move {
                    let work = async move {
                        let _guard = guard;
                        let _ = answered.await;
                        crate::http::text_response(http::StatusCode::OK, "done")
                    };
                    Ok::<_, std::convert::Infallible>(while_awaited(probe, peer, work).await)
                }
            });
            let server = hyper::server::conn::http1::Builder::new().half_close(true).clone();
            let _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
        });
        Slow { address, answer, dropped }
    }

    async fn ask(slow: &Slow) -> tokio::net::TcpStream {
        let mut stream = tokio::net::TcpStream::connect(slow.address).await.expect("a connection");
        stream.write_all(b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        stream
    }

    #[tokio::test]
    async fn who_has_hung_up_has_nothing_worked_on_any_more() {
        let slow = slow().await;
        drop(ask(&slow).await);
        tokio::time::timeout(Duration::from_secs(30), slow.dropped.cancelled()).await.expect("dropped in time");
        drop(slow.answer);
    }

    #[tokio::test]
    async fn who_has_only_shut_down_his_side_gets_his_answer() {
        let slow = slow().await;
        let mut stream = ask(&slow).await;
        stream.shutdown().await.expect("shut down");
        let mut interim = vec![0; INTERIM.len()];
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut interim));
        read.await.expect("in time").expect("an interim response");
        assert_eq!(interim, INTERIM);
        // He is looked at again before his answer comes.
        tokio::time::sleep(LOOK * 3).await;
        assert!(!slow.dropped.is_cancelled());
        slow.answer.send(()).expect("awaited");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("an answer");
        assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("done\n"), "{rest}");
    }
}
