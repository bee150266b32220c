//! One connection from its first message to its end (spec `acs.md` §2, §3).
//!
//! Owns the connection's timers. It opens no connection and interprets no message; `ending` knows the meaning of its end. The
//! invariant: reading and writing do not wait for each other. If the peer stops reading, answers are lost, but no messages; if the agent
//! takes no messages, reading stops (TCP then slows the peer down), but the timer for the age of the connection runs on.
//!
//! The Go agent's read deadline of 3 minutes has no counterpart here: [`Timing::inactivity`](super::timing::Timing) is stricter
//! in every case.

use super::ending::{End, NextStep, after_close, after_error, close_frame_for, expired, log_broken};
use super::exchange::{Exchange, is_logged};
use super::protocol::{Protocol, Read};
use super::timing::{Timing, with_jitter};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// Time limit for writing one message.
const WRITE_LIMIT: Duration = Duration::from_secs(180);
/// Time limit for sending the close frame, and for the reader to learn why a write failed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Maximum number of messages that wait to be written. A longer queue would not help, since the peer counts missing heartbeats.
const MAX_ANSWERS: usize = 64;

/// Why the writer has stopped.
enum WriteEnd {
    /// A close frame was sent; no frame may follow it.
    Closed,
    /// Writing failed with this error.
    Failed(SocketError),
    /// The peer did not read for too long.
    TimedOut,
}

/// What the writer has to write.
enum Answer {
    /// These frames.
    Frames(Vec<Message>),
    /// The texts of a message of the agent. They are made when it is their turn, since a signature ages. The permit is given back
    /// when all of them are written.
    Texts(Pin<Box<dyn Future<Output = Vec<String>> + Send>>, OwnedSemaphorePermit),
}

impl Answer {
    async fn frames(self) -> (Vec<Message>, Option<OwnedSemaphorePermit>) {
        match self {
            Self::Frames(frames) => (frames, None),
            Self::Texts(texts, permit) => (texts.await.into_iter().map(Message::text).collect(), Some(permit)),
        }
    }
}

/// The next message of the agent, once there is a permit for it; `None`: there will be no more.
async fn next_outgoing<M>(
    permits: &Arc<Semaphore>,
    outbox: &mut mpsc::Receiver<M>,
) -> Option<(M, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    Some((outbox.recv().await?, permit))
}

/// Reads messages and answers them until the connection ends.
pub(super) async fn converse<P, S>(socket: WebSocketStream<S>, timing: &Timing, exchange: &mut Exchange<P>) -> NextStep
where
    P: Protocol,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, stream) = socket.split();
    let (answers, queue) = mpsc::channel(MAX_ANSWERS);
    let now = Instant::now();
    let conversation = Conversation {
        stream,
        answers,
        // A message that waits in the agent's queue is not lost with the connection, so the writer takes one at a time.
        permits: Arc::new(Semaphore::new(if P::OUTGOING_WAITS { 1 } else { Semaphore::MAX_PERMITS })),
        timing,
        inactive_at: now + with_jitter(timing.inactivity),
        expires: now + with_jitter(timing.lifetime),
        pending: None,
        closing: false,
        dropped: 0,
    };
    let end = conversation.run(write_answers(&mut sink, queue), exchange).await;
    if let Some(frame) = end.close {
        // If the close frame does not get through in time, the peer notices the end of the stream.
        let _sent = timeout(CLOSE_LIMIT, sink.send(Message::Close(frame))).await;
    }
    end.next
}

/// Writes the queued answers in order.
async fn write_answers<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Answer>,
) -> WriteEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(answer) = queue.recv().await {
        let (messages, _permit) = answer.frames().await;
        for message in messages {
            let is_last = message.is_close();
            match timeout(WRITE_LIMIT, sink.send(message)).await {
                Ok(Ok(())) if is_last => return WriteEnd::Closed,
                Ok(Ok(())) => {}
                Ok(Err(error)) => return WriteEnd::Failed(error),
                Err(_elapsed) => return WriteEnd::TimedOut,
            }
        }
    }
    WriteEnd::Closed
}

struct Conversation<'a, S> {
    stream: SplitStream<WebSocketStream<S>>,
    /// The queue of the writer; each entry is one answer.
    answers: mpsc::Sender<Answer>,
    /// The number of messages of the agent that may be in the queue.
    permits: Arc<Semaphore>,
    timing: &'a Timing,
    /// When the connection is given up, unless a message that can be decoded arrives before.
    inactive_at: Instant,
    /// When the connection is replaced because of its age.
    expires: Instant,
    /// An answer of the agent that does not fit into the queue yet.
    pending: Option<Answer>,
    /// True once our close frame is queued; the peer's close frame is awaited.
    closing: bool,
    /// Number of messages so far that were malformed, of unknown types, or complaints.
    dropped: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<'_, S> {
    async fn run<P: Protocol>(mut self, writer: impl Future<Output = WriteEnd>, exchange: &mut Exchange<P>) -> End {
        tokio::pin!(writer);
        let mut writing = true;
        let (cancel, inbox, answers) = (exchange.cancel.clone(), exchange.inbox.clone(), self.answers.clone());
        loop {
            let end = tokio::select! {
                () = cancel.cancelled() => Some(End { next: NextStep::Stop, close: Some(None) }),
                received = self.stream.next(), if exchange.has_room() => self.received(received, exchange),
                write_end = &mut writer, if writing => {
                    writing = false;
                    self.write_ended(P::PEER, &write_end)
                }
                outgoing = next_outgoing(&self.permits, &mut exchange.outbox),
                    if self.pending.is_none() && !(P::OUTGOING_WAITS && self.closing) => match outgoing {
                    Some((outgoing, permit)) => {
                        let protocol = exchange.protocol.clone();
                        let texts = Box::pin(async move { protocol.write(outgoing).await });
                        self.pending = Some(Answer::Texts(texts, permit));
                        None
                    }
                    None => Some(End::without_frame(NextStep::Stop)),
                },
                permit = answers.reserve(), if self.pending.is_some() => {
                    match (permit, self.pending.take()) {
                        (Ok(permit), Some(answer)) => permit.send(answer),
                        _ => tracing::debug!("an answer to {} is dropped: the connection is closing", P::PEER),
                    }
                    None
                }
                permit = inbox.reserve(), if exchange.has_messages() => match permit {
                    Ok(permit) => {
                        let was_paused = !exchange.has_room();
                        exchange.deliver(permit);
                        if was_paused {
                            self.restart_inactivity(); // reading was paused on this side
                        }
                        None
                    }
                    Err(_closed) => Some(End::without_frame(NextStep::Stop)),
                },
                () = sleep_until(self.inactive_at), if exchange.has_room() => {
                    Some(self.silent(exchange))
                }
                () = sleep_until(self.expires), if !self.closing => {
                    self.expire(P::PEER);
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Restarts the timer after a valid message. After our close frame only the close frame of the peer counts.
    fn restart_inactivity(&mut self) {
        if !self.closing {
            self.inactive_at = Instant::now() + with_jitter(self.timing.inactivity);
        }
    }

    /// The end of a connection on which the peer is silent.
    fn silent<P: Protocol>(&self, exchange: &Exchange<P>) -> End {
        if exchange.is_logged() {
            tracing::warn!("{} Connection hasn't had any activity for too long; closing connection", P::PEER);
        }
        if P::CLOSES_SILENT && !self.closing {
            End { next: NextStep::Reconnect, close: Some(Some(expired())) }
        } else {
            End::without_frame(NextStep::ReconnectLater)
        }
    }

    fn expire(&mut self, peer: &str) {
        tracing::info!("the connection to {peer} has reached its maximum age and is replaced");
        self.queue_answer(peer, vec![Message::Close(Some(expired()))]);
        self.restart_inactivity();
        self.closing = true;
    }

    /// Queues an answer. If the queue is full, the answer is dropped: a peer that does not read answers does not miss them.
    fn queue_answer(&self, peer: &str, answer: Vec<Message>) {
        if !self.closing && self.answers.try_send(Answer::Frames(answer)).is_err() {
            tracing::warn!("an answer to {peer} is dropped: the peer does not read");
        }
    }

    /// Handles the end of the writer. After a failed write, the reader gets a moment to find out why the connection ended.
    fn write_ended(&mut self, peer: &str, write_end: &WriteEnd) -> Option<End> {
        match write_end {
            WriteEnd::Closed => None,
            WriteEnd::Failed(error) => {
                tracing::warn!(%error, "an answer to {peer} could not be written");
                self.closing = true;
                self.inactive_at = self.inactive_at.min(Instant::now() + CLOSE_LIMIT);
                None
            }
            WriteEnd::TimedOut => {
                let limit_s = WRITE_LIMIT.as_secs();
                tracing::warn!(limit_s, "{peer} does not read answers: the connection is given up");
                Some(End::without_frame(NextStep::ReconnectLater))
            }
        }
    }

    fn received<P: Protocol>(
        &mut self,
        received: Option<Result<Message, SocketError>>,
        exchange: &mut Exchange<P>,
    ) -> Option<End> {
        match received {
            // The websocket layer marks text as binary, so that its bytes need not be UTF-8.
            Some(Ok(Message::Binary(bytes))) => self.handle_message(&bytes, exchange),
            Some(Ok(Message::Text(text))) => self.handle_message(text.as_bytes(), exchange),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(frame))) => {
                // The library has queued the close frame in answer; polling the stream once writes it, as far as possible
                // without waiting.
                let _flushed = self.stream.next().now_or_never();
                let (code, reason) =
                    frame.as_ref().map_or((1005, ""), |frame| (frame.code.into(), frame.reason.as_str()));
                if code == 1000 && exchange.is_logged() {
                    tracing::info!(reason, "{} WebSocket connection closed for a valid reason", P::PEER);
                } else if exchange.is_logged() {
                    tracing::info!(code, reason, "{} WebSocket connection closed", P::PEER);
                }
                return Some(End::without_frame(after_close(code, reason)));
            }
            None => return Some(End::without_frame(NextStep::Reconnect)),
            Some(Err(error)) => {
                let next = after_error(&error);
                if next == NextStep::Reconnect && exchange.is_logged() {
                    tracing::info!("the connection to {} ended without a close frame", P::PEER);
                } else if exchange.is_logged() {
                    log_broken(P::PEER, &error);
                }
                return Some(End { next, close: close_frame_for(&error).map(Some) });
            }
        }
        None
    }

    /// Counts a message that does not restart the timer; their number so far if it is to be logged.
    fn count_dropped<P: Protocol>(&mut self, exchange: &Exchange<P>) -> Option<u32> {
        self.dropped = self.dropped.saturating_add(1);
        (is_logged(self.dropped) && exchange.is_logged()).then_some(self.dropped)
    }

    fn handle_message<P: Protocol>(&mut self, bytes: &[u8], exchange: &mut Exchange<P>) {
        match exchange.protocol.read(bytes) {
            Read::Answer(answer, note) => {
                self.queue_answer(P::PEER, vec![Message::text(answer)]);
                if let Some(note) = note {
                    tracing::warn!("{note}");
                }
            }
            Read::Heartbeat(answer, message) => {
                self.queue_answer(P::PEER, vec![Message::text(answer)]);
                exchange.push_if_idle(message);
            }
            Read::Deliver(message, note) => {
                if let Some(note) = note {
                    tracing::error!("{note}");
                }
                exchange.push(message, bytes.len());
                if !exchange.has_room() {
                    tracing::debug!("reading from {} is paused until the agent takes the queued messages", P::PEER);
                }
            }
            Read::Note(note) => tracing::warn!("{note}"),
            Read::Accept => {}
            Read::Invalid(why) => {
                tracing::error!(error = why, "a message of {} is invalid and is not acknowledged", P::PEER);
            }
            Read::Complaint(why) => {
                if let Some(so_far) = self.count_dropped(exchange) {
                    tracing::warn!(so_far, reason = why, "{} does not accept a message of the agent", P::PEER);
                }
                return;
            }
            Read::Drop(why) => {
                if let Some(so_far) = self.count_dropped(exchange) {
                    tracing::warn!(bytes = bytes.len(), so_far, reason = why, "a message of {} was dropped", P::PEER);
                }
                return;
            }
        }
        exchange.message_received();
        self.restart_inactivity();
    }
}
