//! One channel: takes what comes in, has it answered, sends the answers.
//!
//! The loop waits for the answer that is being sent, the heavy work that another thread does and what
//! comes in, all at once. It takes what comes in whenever an answer waits to be sent: russh's own loop
//! stands still while a channel does not take its data, and would then send nothing either. Only while
//! another thread works, and enough waits for it already, may the client be kept waiting in turn.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::input::{BadLength, Input};
use super::worker::{Left, Outcome, Worker};

/// Input beyond this waits at the client while another thread works.
const ENOUGH: usize = 2 * 1024 * 1024;
/// Input beyond this ends the session: the client sends and doesn't read.
const TOO_MUCH: usize = 16 * 1024 * 1024;
/// How much of the input one run of the worker is given.
const RUN_BYTES: usize = 1024 * 1024;
const RUN_PACKETS: usize = 256;
/// How many batches of answers may wait while another is being sent.
const WAITING: usize = 1;

/// What a channel is told by its connection.
#[derive(Clone)]
pub(super) struct Orders {
    /// The connection is to end now; also the channel's own word that it must.
    pub(super) over: CancellationToken,
    /// The server is to stop: end once nothing is open and nothing under way.
    pub(super) stop: CancellationToken,
    /// How long an answer may wait for the client to take it.
    pub(super) patience: Duration,
    /// Heavy work of all channels: while there is some, the session isn't idle.
    pub(super) heavy_work: TaskTracker,
    /// How the connection has ended, once it has.
    pub(super) parting: watch::Receiver<Option<Parting>>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// The client has said goodbye (SSH_MSG_DISCONNECT).
    Orderly,
    /// It was lost, or the server ended it.
    Lost,
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client is done, or the server stops: all is answered.
    Done,
    /// The client has closed the channel, or taken leave of the server: all that it sent is done.
    Left,
    /// The connection is over.
    Gone,
    /// The client broke the protocol.
    Broken,
    /// The client sends and takes no answers.
    Hung,
}

type Sending = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send>>;
type Work = JoinHandle<(Box<Worker>, Outcome)>;

struct Loop {
    orders: Orders,
    read: ChannelReadHalf,
    write: Arc<ChannelWriteHalf<Msg>>,
    /// Brings the worker, once the client has asked for SFTP.
    start: Option<oneshot::Receiver<Box<Worker>>>,
    idle: Option<Box<Worker>>,
    work: Option<Work>,
    /// What the worker has left to do of what it was given, and how many handles.
    left: Left,
    open: usize,
    input: Input,
    eof: bool,
    /// Whether the client takes no more answers, though what it sent before is still done.
    closed: bool,
    /// Whether answers are dropped.
    muted: bool,
    outbox: VecDeque<Bytes>,
    sending: Option<(Sending, Instant)>,
}

/// Serves a channel until its end. The worker comes through `start`; without one what comes in is dropped.
pub(super) async fn serve(channel: Channel<Msg>, start: oneshot::Receiver<Box<Worker>>, orders: Orders) {
    let (read, write) = channel.split();
    let mut channel = Loop {
        orders,
        read,
        write: Arc::new(write),
        start: Some(start),
        idle: None,
        work: None,
        left: Left::Nothing,
        open: 0,
        input: Input::default(),
        eof: false,
        closed: false,
        muted: false,
        outbox: VecDeque::new(),
        sending: None,
    };
    let end = channel.run().await;
    channel.finish(end).await;
}

impl Loop {
    async fn run(&mut self) -> End {
        loop {
            self.send_next();
            if let Some(end) = self.work_next() {
                return end;
            }
            let busy = self.work.is_some() || self.sending.is_some();
            let stopping = self.orders.stop.is_cancelled();
            if !busy && (self.eof || stopping && self.open == 0) {
                return if self.closed { End::Left } else { End::Done };
            }
            let takes = self.input.len() < ENOUGH || self.sending.is_some();
            tokio::select! {
                () = self.orders.over.cancelled() => return End::Gone,
                sent = sent(&mut self.sending) => {
                    self.sending = None;
                    match sent {
                        // Nobody takes answers any more; what the client sent before it left is still read.
                        Some(End::Gone) => self.mute(),
                        Some(end) => return end,
                        None => {}
                    }
                }
                done = finished(&mut self.work) => {
                    self.work = None;
                    let Ok((worker, outcome)) = done else { return End::Broken };
                    self.idle = Some(worker);
                    if let Some(end) = self.take_outcome(outcome) { return end }
                }
                message = self.read.wait(), if takes && !self.closed => match message {
                    Some(message) => if let Some(end) = self.take(message) { return end },
                    None => if let Some(end) = self.part().await { return end },
                },
                started = begun(&mut self.start) => self.begin(started),
                () = self.orders.stop.cancelled(), if !stopping => {}
            }
        }
    }

    fn begin(&mut self, worker: Option<Box<Worker>>) {
        self.start = None;
        self.idle = worker;
    }

    /// The connection has ended: where the client took leave, what it sent before is done as it is before EOF.
    async fn part(&mut self) -> Option<End> {
        let mut parting = self.orders.parting.clone();
        let known = tokio::select! {
            () = self.orders.over.cancelled() => return Some(End::Gone),
            known = parting.wait_for(Option::is_some) => known.ok().and_then(|parting| *parting),
        };
        match known {
            Some(Parting::Orderly) => {
                self.leave();
                None
            }
            Some(Parting::Lost) | None => Some(End::Gone),
        }
    }

    /// The client sends no more and takes no more answers.
    fn leave(&mut self) {
        (self.eof, self.closed) = (true, true);
        self.mute();
    }

    fn mute(&mut self) {
        (self.muted, self.sending) = (true, None);
        self.outbox.clear();
    }

    fn take(&mut self, message: ChannelMsg) -> Option<End> {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(Ok(worker)) = self.start.as_mut().map(oneshot::Receiver::try_recv) {
                    self.begin(Some(worker));
                }
                if self.start.is_none() {
                    self.input.push(data);
                }
                (self.input.len() > TOO_MUCH).then_some(End::Hung)
            }
            ChannelMsg::Eof => {
                self.eof = true;
                None
            }
            ChannelMsg::Close => {
                self.leave();
                None
            }
            _ => None,
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) -> Option<End> {
        (self.left, self.open) = (outcome.left, outcome.open);
        if !outcome.replies.is_empty() && !self.muted {
            self.outbox.push_back(outcome.replies);
        }
        outcome.broken.then_some(End::Broken)
    }

    fn send_next(&mut self) {
        if self.sending.is_none()
            && let Some(batch) = self.outbox.pop_front()
        {
            let write = self.write.clone();
            let sending = Box::pin(async move { write.data_bytes(batch).await });
            self.sending = Some((sending, Instant::now() + self.orders.patience));
        }
    }

    /// Has the worker do what there is to do: here, or on a blocking thread when it is heavy.
    fn work_next(&mut self) -> Option<End> {
        while self.outbox.len() < WAITING {
            if self.orders.over.is_cancelled() {
                return Some(End::Gone);
            }
            let mut worker = self.idle.take()?;
            let given = if self.left == Left::Nothing { self.give(&mut worker) } else { Ok(true) };
            if self.left == Left::Heavy {
                self.work = Some(self.orders.heavy_work.spawn_blocking(move || {
                    let outcome = worker.run_heavy();
                    (worker, outcome)
                }));
                return None;
            }
            let outcome = if given == Ok(true) { Some(worker.run()) } else { None };
            self.idle = Some(worker);
            match (given, outcome) {
                (Err(error), _) => {
                    tracing::debug!(%error, "SFTP stream broken");
                    return Some(End::Broken);
                }
                (Ok(_), None) => return None,
                (Ok(_), Some(outcome)) => {
                    if let Some(end) = self.take_outcome(outcome) {
                        return Some(end);
                    }
                    self.send_next();
                }
            }
        }
        None
    }

    /// Gives the worker packets; tells whether there were any.
    fn give(&mut self, worker: &mut Worker) -> Result<bool, BadLength> {
        let (mut bytes, mut packets) = (0, 0);
        while bytes < RUN_BYTES && packets < RUN_PACKETS {
            let frame = match self.input.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                // What came before it is answered first.
                Err(_) if packets > 0 => break,
                Err(error) => return Err(error),
            };
            bytes += frame.len();
            packets += 1;
            worker.push(frame);
        }
        Ok(packets > 0)
    }

    /// Closes what the client left open where it ended the channel in order, and says farewell where it still listens;
    /// else waits for work under way, and discards what was not closed.
    async fn finish(mut self, end: End) {
        match end {
            End::Done => {
                let whole = self.close_all().await;
                self.say_farewell(u32::from(!whole)).await;
            }
            End::Left => {
                self.close_all().await;
            }
            End::Broken => self.say_farewell(1).await,
            End::Hung => {
                tracing::debug!("SFTP session ended: the client takes no answers");
                self.orders.over.cancel();
            }
            End::Gone => {}
        }
        // Nobody reads on: russh's loop must not wait for this channel.
        drop(self.read);
        let worker = match self.work.take() {
            Some(work) => work.await.ok().map(|(worker, _)| worker),
            None => self.idle.take(),
        };
        if let Some(worker) = worker {
            let discarded = tokio::task::spawn_blocking(move || drop(worker)).await;
            tracing::trace!(ok = discarded.is_ok(), "SFTP channel ended");
        }
    }

    /// Commits the uploads of a channel that has ended in order, as OpenSSH's server leaves them. Tells whether all were.
    async fn close_all(&mut self) -> bool {
        let Some(mut worker) = self.idle.take() else { return true };
        let closed = tokio::task::spawn_blocking(move || worker.close_all()).await;
        closed.unwrap_or(false)
    }

    async fn say_farewell(&mut self, status: u32) {
        let write = self.write.clone();
        let rest = std::mem::take(&mut self.outbox);
        let sending = self.sending.take();
        let words = async move {
            if let Some((sending, _)) = sending {
                sending.await?;
            }
            for batch in rest {
                write.data_bytes(batch).await?;
            }
            write.exit_status(status).await?;
            write.eof().await?;
            write.close().await
        };
        tokio::pin!(words);
        let patience = tokio::time::sleep(self.orders.patience);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                _ = &mut words => return,
                () = self.orders.over.cancelled() => return,
                () = &mut patience => return self.orders.over.cancel(),
                message = self.read.wait() => if message.is_none() { return },
            }
        }
    }
}

async fn sent(sending: &mut Option<(Sending, Instant)>) -> Option<End> {
    match sending {
        Some((sending, patience)) => match tokio::time::timeout_at(*patience, sending).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(End::Gone),
            Err(_) => Some(End::Hung),
        },
        None => std::future::pending().await,
    }
}

async fn finished(work: &mut Option<Work>) -> Result<(Box<Worker>, Outcome), tokio::task::JoinError> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn begun(start: &mut Option<oneshot::Receiver<Box<Worker>>>) -> Option<Box<Worker>> {
    match start {
        Some(start) => start.await.ok(),
        None => std::future::pending().await,
    }
}
