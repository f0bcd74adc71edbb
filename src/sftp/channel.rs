//! One channel: reads input, has it answered by the worker, sends the replies.
//!
//! The loop waits for the reply that is being sent, for blocking work on another thread and for input, all at once. It
//! reads input whenever a reply waits to be sent: russh's own loop blocks while a channel does not take its data, and
//! would then send nothing either. Only while another thread works, and enough input is queued for it, is the client
//! made to wait.

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

/// Queued input above which the client is made to wait while another thread works.
const INPUT_PAUSE_BYTES: usize = 2 * 1024 * 1024;
/// Queued input above which the session is ended: the client sends and doesn't read.
const INPUT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum input of one run of the worker.
const WORKER_RUN_BYTES: usize = 1024 * 1024;
/// Maximum number of packets in one run of the worker.
const WORKER_RUN_PACKETS: usize = 256;
/// Maximum number of batches of replies that wait while another is being sent.
const MAX_QUEUED_REPLY_BATCHES: usize = 1;

/// Signals from a connection to its channels, and limits that they share.
#[derive(Clone)]
pub(super) struct ShutdownSignals {
    /// Cancelled when the connection ends now; a channel cancels it to end its connection.
    pub(super) closing: CancellationToken,
    /// Cancelled when the server stops: a channel ends once no handle is open and no request runs.
    pub(super) stop: CancellationToken,
    /// Maximum time for which a reply may wait for the client to read it.
    pub(super) client_timeout: Duration,
    /// Blocking work of all channels: while some runs, the session isn't idle.
    pub(super) blocking_work: TaskTracker,
    /// Kind of the connection's end; `None` while it is open.
    pub(super) disconnect_kind: watch::Receiver<Option<DisconnectKind>>,
}

/// Kind of a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DisconnectKind {
    /// The client sent SSH_MSG_DISCONNECT.
    ByClient,
    /// It was lost, or the server ended it.
    Lost,
}

/// Reason for a channel's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelEnd {
    /// The client sent EOF, or the server stops: all requests are answered.
    Completed,
    /// The client closed the channel or disconnected: all requests that it sent are done.
    ClosedByClient,
    /// The connection is over.
    ConnectionClosed,
    /// The client violated the protocol.
    ProtocolError,
    /// The client sends and doesn't read replies.
    ClientStalled,
}

type SendFuture = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send>>;
type WorkerTask = JoinHandle<(Box<ChannelWorker>, WorkerOutcome)>;

struct ChannelLoop {
    signals: ShutdownSignals,
    read: ChannelReadHalf,
    write: Arc<ChannelWriteHalf<Msg>>,
    /// Delivers the worker once the client has requested the subsystem.
    worker_receiver: Option<oneshot::Receiver<Box<ChannelWorker>>>,
    idle_worker: Option<Box<ChannelWorker>>,
    running_worker: Option<WorkerTask>,
    /// Work that the worker has not done yet of the packets that it was given.
    pending: PendingWork,
    open_handles: usize,
    input: PacketInput,
    eof: bool,
    /// Whether the client reads no more replies; requests that it sent before are still carried out.
    client_closed: bool,
    /// Whether replies are dropped.
    discards_replies: bool,
    reply_queue: VecDeque<Bytes>,
    sending: Option<(SendFuture, Instant)>,
}

/// Serves a channel until it ends. The worker arrives through `worker_receiver`; input before it is dropped.
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
            // Sending comes first: it frees the queue of replies, which bounds what `run_worker` may do.
            self.send_next();
            if let Some(end) = self.run_worker() {
                return end;
            }
            let busy = self.running_worker.is_some() || self.sending.is_some();
            let stopping = self.signals.stop.is_cancelled();
            // Here all input is answered: `run_worker` stops only for lack of packets, for a blocking run or behind a
            // reply. EOF may have arrived long before, right behind the last request.
            if !busy && (self.eof || stopping && self.open_handles == 0) {
                return if self.client_closed { ChannelEnd::ClosedByClient } else { ChannelEnd::Completed };
            }
            // Always while a reply is being sent: if russh blocked on this channel's full buffer, it would not read the
            // window adjustments that the reply waits for.
            let accepts_input = self.input.len() < INPUT_PAUSE_BYTES || self.sending.is_some();
            tokio::select! {
                () = self.signals.closing.cancelled() => return ChannelEnd::ConnectionClosed,
                send_end = wait_for_send(&mut self.sending) => {
                    self.sending = None;
                    match send_end {
                        // The client reads no more; requests that it sent before it closed are still carried out.
                        Some(ChannelEnd::ConnectionClosed) => self.discard_replies(),
                        Some(end) => return end,
                        None => {}
                    }
                }
                finished = wait_for_worker(&mut self.running_worker) => {
                    self.running_worker = None;
                    // The worker panicked and took its handles with it: their uploads are discarded.
                    let Ok((worker, outcome)) = finished else { return ChannelEnd::ProtocolError };
                    self.idle_worker = Some(worker);
                    if let Some(end) = self.apply_outcome(outcome) { return end }
                }
                message = self.read.wait(), if accepts_input && !self.client_closed => match message {
                    Some(message) => if let Some(end) = self.handle_message(message) { return end },
                    None => if let Some(end) = self.handle_disconnect().await { return end },
                },
                worker = wait_for_start(&mut self.worker_receiver) => self.set_worker(worker),
                // Only wakes the loop, for the check above. Disabled afterwards: it would be ready at once for ever.
                () = self.signals.stop.cancelled(), if !stopping => {}
            }
        }
    }

    fn set_worker(&mut self, worker: Option<Box<ChannelWorker>>) {
        self.worker_receiver = None;
        self.idle_worker = worker;
    }

    /// Handles the connection's end: after SSH_MSG_DISCONNECT, earlier requests are carried out as before an EOF.
    async fn handle_disconnect(&mut self) -> Option<ChannelEnd> {
        let mut disconnect_kind = self.signals.disconnect_kind.clone();
        // The channel alone can't tell a disconnect from a lost connection: the supervisor sees how russh's loop ended.
        // It matters because uploads are committed after the former and discarded after the latter.
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

    /// Notes that the client sends no more requests and reads no more replies.
    fn handle_client_close(&mut self) {
        (self.eof, self.client_closed) = (true, true);
        self.discard_replies();
    }

    fn discard_replies(&mut self) {
        // The reply in flight too: it may wait for a window that the client will never open again.
        (self.discards_replies, self.sending) = (true, None);
        self.reply_queue.clear();
    }

    fn handle_message(&mut self, message: ChannelMsg) -> Option<ChannelEnd> {
        match message {
            ChannelMsg::Data { data } => {
                // The worker was sent before this data arrived, but `select!` picks branches at random. Without this,
                // SSH_FXP_INIT could be taken for data before the subsystem and be dropped.
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
            // russh and `handler` answer everything else: window adjustments, channel requests.
            _ => None,
        }
    }

    fn apply_outcome(&mut self, outcome: WorkerOutcome) -> Option<ChannelEnd> {
        (self.pending, self.open_handles) = (outcome.pending, outcome.open_handles);
        // Queued even after a protocol error: `send_close` still sends the replies to the requests before it.
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
            // One deadline for the batch: reading a few bytes now and then does not extend it.
            self.sending = Some((sending, Instant::now() + self.signals.client_timeout));
        }
    }

    /// Runs the worker on queued input: on this thread, or on a blocking thread where the next request takes long.
    fn run_worker(&mut self) -> Option<ChannelEnd> {
        while self.reply_queue.len() < MAX_QUEUED_REPLY_BATCHES {
            // This loop does not await while requests keep coming, so that it has to look itself.
            if self.signals.closing.is_cancelled() {
                return Some(ChannelEnd::ConnectionClosed);
            }
            let mut worker = self.idle_worker.take()?;
            // Packets that the last run left over come first. Feeding more here would let the worker's queue grow.
            let fed = if self.pending == PendingWork::Nothing { self.feed_worker(&mut worker) } else { Ok(true) };
            // The worker itself moves to the other thread: requests of a channel never run at once or out of order.
            if self.pending == PendingWork::Blocking {
                self.running_worker = Some(self.signals.blocking_work.spawn_blocking(move || {
                    let outcome = worker.run_blocking();
                    (worker, outcome)
                }));
                return None;
            }
            let outcome = if fed == Ok(true) { Some(worker.run()) } else { None };
            // Before any return: `shut_down` commits or discards its handles.
            self.idle_worker = Some(worker);
            match (fed, outcome) {
                (Err(error), _) => {
                    tracing::debug!(%error, "invalid SFTP packet");
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

    /// Moves packets from the input to the worker; returns whether there were any.
    fn feed_worker(&mut self, worker: &mut ChannelWorker) -> Result<bool, InvalidPacketLength> {
        let (mut bytes, mut packets) = (0, 0);
        while bytes < WORKER_RUN_BYTES && packets < WORKER_RUN_PACKETS {
            let frame = match self.input.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                // The packets before the invalid one are answered first; the next run returns the error.
                Err(_) if packets > 0 => break,
                Err(error) => return Err(error),
            };
            bytes += frame.len();
            packets += 1;
            worker.push(frame);
        }
        Ok(packets > 0)
    }

    /// Commits open uploads where the client ended the channel in order, and closes the channel where it still reads;
    /// otherwise waits for running work and discards the uploads.
    async fn shut_down(mut self, end: ChannelEnd) {
        match end {
            ChannelEnd::Completed => {
                // Commits come before the exit status, which reports whether all succeeded.
                let all_committed = self.commit_open_handles().await;
                self.send_close(u32::from(!all_committed)).await;
            }
            ChannelEnd::ClosedByClient => {
                // Some libraries never send SSH_FXP_CLOSE: what they were told is written has to be stored.
                self.commit_open_handles().await;
            }
            // No commit: an upload of a client that sends garbage may be incomplete.
            ChannelEnd::ProtocolError => self.send_close(1).await,
            ChannelEnd::ClientStalled => {
                tracing::debug!("SFTP session ended: the client reads no replies");
                // The whole connection: closing the channel would wait behind the replies that nobody reads.
                self.signals.closing.cancel();
            }
            ChannelEnd::ConnectionClosed => {}
        }
        // Input is read no further, and russh's loop must not block on this channel's buffer.
        drop(self.read);
        let worker = match self.running_worker.take() {
            // A blocking run can't be aborted. Copies and hashes watch `closing` and end soon; a commit is completed.
            Some(task) => task.await.ok().map(|(worker, _)| worker),
            None => self.idle_worker.take(),
        };
        if let Some(worker) = worker {
            // Dropping the handles removes staged files from disk, which blocks.
            let discarded = tokio::task::spawn_blocking(move || drop(worker)).await;
            tracing::trace!(ok = discarded.is_ok(), "SFTP channel ended");
        }
    }

    /// Closes the handles of a channel that ended in order, as OpenSSH's server keeps their content. Returns whether
    /// all uploads were committed.
    async fn commit_open_handles(&mut self) -> bool {
        let Some(mut worker) = self.idle_worker.take() else { return true };
        let closed = tokio::task::spawn_blocking(move || worker.close_handles()).await;
        closed.unwrap_or(false)
    }

    async fn send_close(&mut self, status: u32) {
        let write = self.write.clone();
        let queued = std::mem::take(&mut self.reply_queue);
        let sending = self.sending.take();
        // In this order (RFC 4254 sections 5.3 and 6.10): clients read no data after EOF, and no exit status after
        // CLOSE.
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
                // Read and dropped: russh must not block on this channel's buffer while it has the above to send.
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
