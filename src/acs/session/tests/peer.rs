//! An ACS in memory for the session's tests, in paused time: timers of hours pass at once, and nothing depends on a network.

use super::*;
use crate::websocket::NextStep;
use crate::websocket::session::keep_connected;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

/// Capacity in bytes of the connection in memory, in each direction.
pub(super) const CAPACITY: usize = 64 * 1024;

/// The peer's end of one connection.
pub(super) struct Accepted {
    pub(super) line: DuplexStream,
    /// True: no connection was made before this one.
    pub(super) first: bool,
    /// When the session connected.
    pub(super) at: Instant,
}

impl Accepted {
    pub(super) async fn socket(self) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(self.line, Role::Server, None).await
    }
}

/// A running session and the peer's end of it.
pub(super) struct Rig {
    pub(super) accepted: mpsc::UnboundedReceiver<Accepted>,
    /// The results of the next attempts to connect; when none is left, an attempt succeeds.
    pub(super) refusals: Arc<Mutex<VecDeque<NextStep>>>,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) cancel: CancellationToken,
    pub(super) contact: Contact,
    pub(super) session: JoinSet<()>,
}

impl Rig {
    pub(super) fn start() -> Self {
        let (inbox, incoming) = mpsc::channel(1);
        let (outgoing, outbox) = mpsc::channel(256);
        let (accept, accepted) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let refusals = Arc::new(Mutex::new(VecDeque::new()));
        let contact = Contact::default();
        let (refused, exchange) = (
            refusals.clone(),
            Exchange::new(Acs { host: HostFacts::default() }, inbox, outbox, cancel.clone(), contact.clone()),
        );
        let mut session = JoinSet::new();
        session.spawn(async move {
            let connect = |first, _attempt| {
                let (refused, accept) = (refused.lock().unwrap().pop_front(), &accept);
                async move {
                    if let Some(next) = refused {
                        return Err(next);
                    }
                    let (ours, line) = duplex(CAPACITY);
                    accept.send(Accepted { line, first, at: Instant::now() }).unwrap();
                    Ok(crate::websocket::over(ours).await)
                }
            };
            keep_connected(Timing::default(), connect, exchange).await;
        });
        Self { accepted, refusals, incoming, outgoing, cancel, contact, session }
    }

    /// The next connection that the session makes.
    pub(super) async fn next(&mut self) -> Accepted {
        self.accepted.recv().await.expect("the session has ended")
    }

    /// The next message for the agent that is not about the connection, and no heartbeat.
    pub(super) async fn message(&mut self) -> Incoming {
        loop {
            match self.incoming.recv().await.expect("the session has ended") {
                Incoming::Connected | Incoming::Heartbeat => {}
                message => return message,
            }
        }
    }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn heartbeat(id: &str) -> Message {
    Message::text(json!({"type": "HeartbeatMessage", "message": {"messageId": id, "healthy": true}}).to_string())
}

pub(super) fn manifest(timeline: usize) -> Message {
    let message = json!({"messageId": "m", "timeline": timeline, "tasks": []});
    Message::text(json!({"type": "TaskManifestMessage", "message": message}).to_string())
}

/// The next text of the agent; other frames before it are skipped.
pub(super) async fn next_text(socket: &mut WebSocketStream<DuplexStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.expect("the end").expect("no error") {
            return serde_json::from_str(text.as_str()).unwrap();
        }
    }
}

pub(super) async fn expect_heartbeat(socket: &mut WebSocketStream<DuplexStream>, id: &str) {
    assert_eq!(next_text(socket).await, json!({"type": "HeartbeatAckRequest", "message": {"messageId": id}}));
}

/// The close frame that ends the connection.
pub(super) async fn closed(socket: &mut WebSocketStream<DuplexStream>) -> Option<CloseFrame> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => return frame,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}
