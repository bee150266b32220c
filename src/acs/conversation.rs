//! One connection to ACS from its first message to its end (spec `acs.md` §2, §3).
//!
//! Owns the connection's timers and what its end means. It connects nothing and understands no task. The invariant: reading and
//! writing do not wait for each other. A peer that takes nothing costs answers, never messages; an agent that takes nothing stops
//! the reading (TCP then slows ACS down), never a timer of the connection's age.
//!
//! The Go agent's read deadline of 3 minutes is not here: [`Timing::inactivity`](super::timing::Timing) is stricter in every case.

use super::HostFacts;
use super::decode::{self, Frame};
use super::exchange::Exchange;
use super::timing::{Timing, drawn};
use crate::websocket;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// One message must be written within this.
const WRITE_LIMIT: Duration = Duration::from_secs(180);
/// Saying goodbye may take this long, and so may the reason of a failed write take to arrive.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Answers that wait to be written. More would be of use to nobody: ACS counts missing heartbeats.
const MAX_ANSWERS: usize = 64;

/// What follows the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Connect at once.
    Reconnect,
    /// Connect after the back-off.
    ReconnectLater,
    /// The instance is not registered: connect after a long pause.
    WaitForRegistration,
    /// The session ends.
    Stop,
}

/// How a connection ended.
struct End {
    next: NextStep,
    /// Said to the peer, if it still listens.
    goodbye: Option<Option<CloseFrame>>,
}

impl End {
    fn silent(next: NextStep) -> Self {
        Self { next, goodbye: None }
    }
}

/// Why nothing more can be written.
enum WriteEnd {
    /// A close frame was sent: it is the last one.
    Closed,
    /// This went wrong.
    Failed(SocketError),
    /// The peer took nothing for too long.
    TimedOut,
}

/// Listens and answers until the connection ends.
pub(super) async fn converse<S>(
    socket: WebSocketStream<S>,
    timing: &Timing,
    host: &HostFacts,
    exchange: &mut Exchange,
) -> NextStep
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, stream) = socket.split();
    let (answers, queue) = mpsc::channel(MAX_ANSWERS);
    let now = Instant::now();
    let conversation = Conversation {
        stream,
        answers,
        timing,
        host,
        silent_at: now + drawn(timing.inactivity),
        expires: now + drawn(timing.lifetime),
        pending: None,
        closing: false,
        dropped: 0,
    };
    let end = conversation.run(write_answers(&mut sink, queue), exchange).await;
    if let Some(frame) = end.goodbye {
        // Too late is as good as never: the peer learns of the end by the end.
        let _sent = timeout(CLOSE_LIMIT, sink.send(Message::Close(frame))).await;
    }
    end.next
}

/// Writes what is queued, one answer after the other.
async fn write_answers<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Vec<Message>>,
) -> WriteEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(messages) = queue.recv().await {
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
    answers: mpsc::Sender<Vec<Message>>,
    timing: &'a Timing,
    host: &'a HostFacts,
    silent_at: Instant,
    expires: Instant,
    /// An answer of the agent that waits for a place in the queue.
    pending: Option<Vec<Message>>,
    /// Our close frame is on its way; the peer's is awaited.
    closing: bool,
    /// Messages that were not understood.
    dropped: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<'_, S> {
    async fn run(mut self, writer: impl Future<Output = WriteEnd>, exchange: &mut Exchange) -> End {
        tokio::pin!(writer);
        let mut writing = true;
        let (cancel, inbox, answers) = (exchange.cancel.clone(), exchange.inbox.clone(), self.answers.clone());
        loop {
            let end = tokio::select! {
                () = cancel.cancelled() => Some(End { next: NextStep::Stop, goodbye: Some(None) }),
                received = self.stream.next(), if exchange.has_room() => self.received(received, exchange),
                write_end = &mut writer, if writing => {
                    writing = false;
                    self.write_ended(&write_end)
                }
                outgoing = exchange.outbox.recv(), if self.pending.is_none() => match outgoing {
                    Some(outgoing) => {
                        self.pending = Some(decode::encode(&outgoing).into_iter().map(Message::text).collect());
                        None
                    }
                    None => Some(End::silent(NextStep::Stop)),
                },
                permit = answers.reserve(), if self.pending.is_some() => {
                    match (permit, self.pending.take()) {
                        (Ok(permit), Some(answer)) => permit.send(answer),
                        _ => tracing::debug!("an answer to ACS is dropped: the connection is closing"),
                    }
                    None
                }
                permit = inbox.reserve(), if exchange.has_messages() => match permit {
                    Ok(permit) => {
                        let was_paused = !exchange.has_room();
                        exchange.deliver(permit);
                        if was_paused {
                            self.restart_inactivity(); // the silence was ours
                        }
                        None
                    }
                    Err(_closed) => Some(End::silent(NextStep::Stop)),
                },
                () = sleep_until(self.silent_at), if exchange.has_room() => {
                    tracing::warn!("ACS is silent: the connection is given up");
                    Some(End::silent(NextStep::ReconnectLater))
                }
                () = sleep_until(self.expires), if !self.closing => {
                    self.expire();
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// ACS has said something that counts. After our close frame nothing counts any more but its own.
    fn restart_inactivity(&mut self) {
        if !self.closing {
            self.silent_at = Instant::now() + drawn(self.timing.inactivity);
        }
    }

    fn expire(&mut self) {
        tracing::info!("the connection to ACS is old: it is renewed");
        let reason = "ConnectionExpired: Reconnect to continue".into();
        let close = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason }));
        self.queue_answer(vec![close]);
        self.restart_inactivity();
        self.closing = true;
    }

    /// Queues an answer; one that finds the queue full is lost, for whoever does not take answers does not miss them.
    fn queue_answer(&self, answer: Vec<Message>) {
        if !self.closing && self.answers.try_send(answer).is_err() {
            tracing::warn!("an answer to ACS is dropped: the connection does not take it");
        }
    }

    /// The reader usually learns better than the writer why a connection ended, so it gets a moment.
    fn write_ended(&mut self, write_end: &WriteEnd) -> Option<End> {
        match write_end {
            WriteEnd::Closed => None,
            WriteEnd::Failed(error) => {
                tracing::warn!(%error, "an answer to ACS could not be written");
                self.closing = true;
                self.silent_at = self.silent_at.min(Instant::now() + CLOSE_LIMIT);
                None
            }
            WriteEnd::TimedOut => {
                tracing::warn!(limit_s = WRITE_LIMIT.as_secs(), "ACS takes no answers: the connection is given up");
                Some(End::silent(NextStep::ReconnectLater))
            }
        }
    }

    fn received(&mut self, received: Option<Result<Message, SocketError>>, exchange: &mut Exchange) -> Option<End> {
        match received {
            // Text comes marked as binary, so that its bytes need not be UTF-8.
            Some(Ok(Message::Binary(bytes))) => self.handle_message(&bytes, exchange),
            Some(Ok(Message::Text(text))) => self.handle_message(text.as_bytes(), exchange),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(frame))) => {
                // The answer is queued; one more look at the stream writes it, as far as it can be written now.
                let _flushed = self.stream.next().now_or_never();
                let (code, reason) =
                    frame.as_ref().map_or((1005, ""), |frame| (frame.code.into(), frame.reason.as_str()));
                tracing::info!(code, reason, "ACS closed the connection");
                return Some(End::silent(after_close(code, reason)));
            }
            None => return Some(End::silent(NextStep::Reconnect)),
            Some(Err(error)) => {
                let next = after_error(&error);
                if next == NextStep::Reconnect {
                    tracing::info!("the connection to ACS ended without a close frame");
                } else {
                    log_broken(&error);
                }
                return Some(End { next, goodbye: close_frame_for(&error).map(Some) });
            }
        }
        None
    }

    fn handle_message(&mut self, bytes: &[u8], exchange: &mut Exchange) {
        match decode::frame(bytes, self.host, &mut || uuid::Uuid::new_v4().to_string()) {
            Frame::Answer(answer, note) => {
                self.queue_answer(vec![Message::text(answer)]);
                if let Some(note) = note {
                    tracing::warn!("{note}");
                }
            }
            Frame::Deliver(message, note) => {
                if let Some(note) = note {
                    tracing::error!("{note}");
                }
                exchange.push(message, bytes.len());
                if !exchange.has_room() {
                    tracing::debug!("ACS is not read until the agent has taken what it said");
                }
            }
            Frame::Note(note) => tracing::warn!("{note}"),
            Frame::Invalid(why) => tracing::error!(why, "a message of ACS is not valid: it is not acknowledged"),
            Frame::Drop(why) => {
                self.dropped = self.dropped.saturating_add(1);
                if is_worth_a_line(self.dropped) {
                    let so_far = self.dropped;
                    tracing::warn!(bytes = bytes.len(), so_far, why, "a message of ACS was dropped");
                }
                return;
            }
        }
        exchange.contact.message_received();
        self.restart_inactivity();
    }
}

/// Nonsense without end is not to fill the disk: every one of the first ten, then rarely.
fn is_worth_a_line(count: u32) -> bool {
    count <= 10 || count.is_power_of_two()
}

fn log_broken(error: &SocketError) {
    if matches!(error, SocketError::Capacity(_)) {
        let limit = websocket::MAX_MESSAGE;
        tracing::error!(limit, "ACS sent a message that is too long: the connection is given up");
    } else {
        tracing::warn!(%error, "the connection to ACS broke");
    }
}

/// What the peer did wrong, in its own protocol.
fn close_frame_for(error: &SocketError) -> Option<CloseFrame> {
    let code = match error {
        SocketError::Capacity(_) => CloseCode::Size,
        SocketError::Utf8(_) => CloseCode::Invalid, // the reason of a close frame
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        SocketError::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    Some(CloseFrame { code, reason: "".into() })
}

pub(super) fn after_close(code: u16, reason: &str) -> NextStep {
    if reason.contains("InactiveInstanceException") {
        return NextStep::WaitForRegistration;
    }
    match code {
        1000 | 1001 | 1006 | 1011 => NextStep::Reconnect,
        _ => NextStep::ReconnectLater,
    }
}

/// A connection that ends without a close frame counts as code 1006; so does one whose TLS ends without `close_notify`.
pub(super) fn after_error(error: &SocketError) -> NextStep {
    match error {
        SocketError::ConnectionClosed | SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            NextStep::Reconnect
        }
        SocketError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => NextStep::Reconnect,
        _ => NextStep::ReconnectLater,
    }
}
