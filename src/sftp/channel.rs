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

use super::packet_input::{InvalidPacketLength, PacketInput};
use super::worker::{ChannelWorker, PendingWork, WorkerOutcome};

/// Input beyond this waits at the client while another thread works.
const INPUT_PAUSE_BYTES: usize = 2 * 1024 * 1024;
/// Input beyond this ends the session: the client sends and doesn't read.
const INPUT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How much of the input one run of the worker is given.
const WORKER_RUN_BYTES: usize = 1024 * 1024;
const WORKER_RUN_PACKETS: usize = 256;
/// How many batches of answers may wait while another is being sent.
const MAX_QUEUED_REPLY_BATCHES: usize = 1;

/// What a channel is told by its connection.
#[derive(Clone)]
pub(super) struct ShutdownSignals {
    /// The connection is to end now; also the channel's own word that it must.
    pub(super) closing: CancellationToken,
    /// The server is to stop: end once nothing is open and nothing under way.
    pub(super) stop: CancellationToken,
    /// How long an answer may wait for the client to take it.
    pub(super) client_timeout: Duration,
    /// Heavy work of all channels: while there is some, the session isn't idle.
    pub(super) blocking_work: TaskTracker,
    /// How the connection has ended, once it has.
    pub(super) disconnect_kind: watch::Receiver<Option<DisconnectKind>>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DisconnectKind {
    /// The client has said goodbye (SSH_MSG_DISCONNECT).
    ByClient,
    /// It was lost, or the server ended it.
    Lost,
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelEnd {
    /// The client is done, or the server stops: all is answered.
    Completed,
    /// The client has closed the channel, or taken leave of the server: all that it sent is done.
    ClosedByClient,
    /// The connection is over.
    ConnectionClosed,
    /// The client broke the protocol.
    ProtocolError,
    /// The client sends and takes no answers.
    ClientStalled,
}

type SendFuture = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send>>;
type WorkerTask = JoinHandle<(Box<ChannelWorker>, WorkerOutcome)>;

struct ChannelLoop {
    signals: ShutdownSignals,
    read: ChannelReadHalf,
    write: Arc<ChannelWriteHalf<Msg>>,
    /// Brings the worker, once the client has asked for SFTP.
    worker_receiver: Option<oneshot::Receiver<Box<ChannelWorker>>>,
    idle_worker: Option<Box<ChannelWorker>>,
    running_worker: Option<WorkerTask>,
    /// What the worker has left to do of what it was given, and how many handles.
    pending: PendingWork,
    open_handles: usize,
    input: PacketInput,
    eof: bool,
    /// Whether the client takes no more answers, though what it sent before is still done.
    client_closed: bool,
    /// Whether answers are dropped.
    discards_replies: bool,
    reply_queue: VecDeque<Bytes>,
    sending: Option<(SendFuture, Instant)>,
}

/// Serves a channel until its end. The worker comes through `start`; without one what comes in is dropped.
pub(super) async fn serve(
    channel: Channel<Msg>,
    worker_receiver: oneshot::Receiver<Box<ChannelWorker>>,
    signals: ShutdownSignals,
) {
    let (read, write) = channel.split();
    let mut channel = ChannelLoop {
        signals,
        read,
        write: Arc::new(write),
        worker_receiver: Some(worker_receiver),
        idle_worker: None,
        running_worker: None,
        pending: PendingWork::Nothing,
        open_handles: 0,
        input: PacketInput::default(),
        eof: false,
        client_closed: false,
        discards_replies: false,
        reply_queue: VecDeque::new(),
        sending: None,
    };
    let end = channel.run().await;
    channel.shut_down(end).await;
}

impl ChannelLoop {
    async fn run(&mut self) -> ChannelEnd {
        loop {
            self.send_next();
            if let Some(end) = self.run_worker() {
                return end;
            }
            let busy = self.running_worker.is_some() || self.sending.is_some();
            let stopping = self.signals.stop.is_cancelled();
            if !busy && (self.eof || stopping && self.open_handles == 0) {
                return if self.client_closed { ChannelEnd::ClosedByClient } else { ChannelEnd::Completed };
            }
            let accepts_input = self.input.len() < INPUT_PAUSE_BYTES || self.sending.is_some();
            tokio::select! {
                () = self.signals.closing.cancelled() => return ChannelEnd::ConnectionClosed,
                send_end = wait_for_send(&mut self.sending) => {
                    self.sending = None;
                    match send_end {
                        // Nobody takes answers any more; what the client sent before it left is still read.
                        Some(ChannelEnd::ConnectionClosed) => self.discard_replies(),
                        Some(end) => return end,
                        None => {}
                    }
                }
                finished = wait_for_worker(&mut self.running_worker) => {
                    self.running_worker = None;
                    let Ok((worker, outcome)) = finished else { return ChannelEnd::ProtocolError };
                    self.idle_worker = Some(worker);
                    if let Some(end) = self.apply_outcome(outcome) { return end }
                }
                message = self.read.wait(), if accepts_input && !self.client_closed => match message {
                    Some(message) => if let Some(end) = self.handle_message(message) { return end },
                    None => if let Some(end) = self.handle_disconnect().await { return end },
                },
                worker = wait_for_start(&mut self.worker_receiver) => self.set_worker(worker),
                () = self.signals.stop.cancelled(), if !stopping => {}
            }
        }
    }

    fn set_worker(&mut self, worker: Option<Box<ChannelWorker>>) {
        self.worker_receiver = None;
        self.idle_worker = worker;
    }

    /// The connection has ended: where the client took leave, what it sent before is done as it is before EOF.
    async fn handle_disconnect(&mut self) -> Option<ChannelEnd> {
        let mut disconnect_kind = self.signals.disconnect_kind.clone();
        let kind = tokio::select! {
            () = self.signals.closing.cancelled() => return Some(ChannelEnd::ConnectionClosed),
            kind = disconnect_kind.wait_for(Option::is_some) => kind.ok().and_then(|kind| *kind),
        };
        match kind {
            Some(DisconnectKind::ByClient) => {
                self.handle_client_close();
                None
            }
            Some(DisconnectKind::Lost) | None => Some(ChannelEnd::ConnectionClosed),
        }
    }

    /// The client sends no more and takes no more answers.
    fn handle_client_close(&mut self) {
        (self.eof, self.client_closed) = (true, true);
        self.discard_replies();
    }

    fn discard_replies(&mut self) {
        (self.discards_replies, self.sending) = (true, None);
        self.reply_queue.clear();
    }

    fn handle_message(&mut self, message: ChannelMsg) -> Option<ChannelEnd> {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(Ok(worker)) = self.worker_receiver.as_mut().map(oneshot::Receiver::try_recv) {
                    self.set_worker(Some(worker));
                }
                if self.worker_receiver.is_none() {
                    self.input.push(data);
                }
                (self.input.len() > INPUT_MAX_BYTES).then_some(ChannelEnd::ClientStalled)
            }
            ChannelMsg::Eof => {
                self.eof = true;
                None
            }
            ChannelMsg::Close => {
                self.handle_client_close();
                None
            }
            _ => None,
        }
    }

    fn apply_outcome(&mut self, outcome: WorkerOutcome) -> Option<ChannelEnd> {
        (self.pending, self.open_handles) = (outcome.pending, outcome.open_handles);
        if !outcome.replies.is_empty() && !self.discards_replies {
            self.reply_queue.push_back(outcome.replies);
        }
        outcome.protocol_error.then_some(ChannelEnd::ProtocolError)
    }

    fn send_next(&mut self) {
        if self.sending.is_none()
            && let Some(batch) = self.reply_queue.pop_front()
        {
            let write = self.write.clone();
            let sending = Box::pin(async move { write.data_bytes(batch).await });
            self.sending = Some((sending, Instant::now() + self.signals.client_timeout));
        }
    }

    /// Has the worker do what there is to do: here, or on a blocking thread when it is heavy.
    fn run_worker(&mut self) -> Option<ChannelEnd> {
        while self.reply_queue.len() < MAX_QUEUED_REPLY_BATCHES {
            if self.signals.closing.is_cancelled() {
                return Some(ChannelEnd::ConnectionClosed);
            }
            let mut worker = self.idle_worker.take()?;
            let fed = if self.pending == PendingWork::Nothing { self.feed_worker(&mut worker) } else { Ok(true) };
            if self.pending == PendingWork::Blocking {
                self.running_worker = Some(self.signals.blocking_work.spawn_blocking(move || {
                    let outcome = worker.run_blocking();
                    (worker, outcome)
                }));
                return None;
            }
            let outcome = if fed == Ok(true) { Some(worker.run()) } else { None };
            self.idle_worker = Some(worker);
            match (fed, outcome) {
                (Err(error), _) => {
                    tracing::debug!(%error, "SFTP stream broken");
                    return Some(ChannelEnd::ProtocolError);
                }
                (Ok(_), None) => return None,
                (Ok(_), Some(outcome)) => {
                    if let Some(end) = self.apply_outcome(outcome) {
                        return Some(end);
                    }
                    self.send_next();
                }
            }
        }
        None
    }

    /// Gives the worker packets; tells whether there were any.
    fn feed_worker(&mut self, worker: &mut ChannelWorker) -> Result<bool, InvalidPacketLength> {
        let (mut bytes, mut packets) = (0, 0);
        while bytes < WORKER_RUN_BYTES && packets < WORKER_RUN_PACKETS {
            let frame = match self.input.next_frame() {
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
    async fn shut_down(mut self, end: ChannelEnd) {
        match end {
            ChannelEnd::Completed => {
                let all_committed = self.commit_open_handles().await;
                self.send_close(u32::from(!all_committed)).await;
            }
            ChannelEnd::ClosedByClient => {
                self.commit_open_handles().await;
            }
            ChannelEnd::ProtocolError => self.send_close(1).await,
            ChannelEnd::ClientStalled => {
                tracing::debug!("SFTP session ended: the client takes no answers");
                self.signals.closing.cancel();
            }
            ChannelEnd::ConnectionClosed => {}
        }
        // Nobody reads on: russh's loop must not wait for this channel.
        drop(self.read);
        let worker = match self.running_worker.take() {
            Some(task) => task.await.ok().map(|(worker, _)| worker),
            None => self.idle_worker.take(),
        };
        if let Some(worker) = worker {
            let discarded = tokio::task::spawn_blocking(move || drop(worker)).await;
            tracing::trace!(ok = discarded.is_ok(), "SFTP channel ended");
        }
    }

    /// Commits the uploads of a channel that has ended in order, as OpenSSH's server leaves them. Tells whether all were.
    async fn commit_open_handles(&mut self) -> bool {
        let Some(mut worker) = self.idle_worker.take() else { return true };
        let closed = tokio::task::spawn_blocking(move || worker.close_handles()).await;
        closed.unwrap_or(false)
    }

    async fn send_close(&mut self, status: u32) {
        let write = self.write.clone();
        let queued = std::mem::take(&mut self.reply_queue);
        let sending = self.sending.take();
        let closing = async move {
            if let Some((sending, _)) = sending {
                sending.await?;
            }
            for batch in queued {
                write.data_bytes(batch).await?;
            }
            write.exit_status(status).await?;
            write.eof().await?;
            write.close().await
        };
        tokio::pin!(closing);
        let deadline = tokio::time::sleep(self.signals.client_timeout);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                _ = &mut closing => return,
                () = self.signals.closing.cancelled() => return,
                () = &mut deadline => return self.signals.closing.cancel(),
                message = self.read.wait() => if message.is_none() { return },
            }
        }
    }
}

async fn wait_for_send(sending: &mut Option<(SendFuture, Instant)>) -> Option<ChannelEnd> {
    match sending {
        Some((sending, deadline)) => match tokio::time::timeout_at(*deadline, sending).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(ChannelEnd::ConnectionClosed),
            Err(_) => Some(ChannelEnd::ClientStalled),
        },
        None => std::future::pending().await,
    }
}

async fn wait_for_worker(
    task: &mut Option<WorkerTask>,
) -> Result<(Box<ChannelWorker>, WorkerOutcome), tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn wait_for_start(receiver: &mut Option<oneshot::Receiver<Box<ChannelWorker>>>) -> Option<Box<ChannelWorker>> {
    match receiver {
        Some(receiver) => receiver.await.ok(),
        None => std::future::pending().await,
    }
}
