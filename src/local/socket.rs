//! The server's end of a websocket, for ACS and TCS.

use futures_util::StreamExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The time limit for sending one message.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's end of a websocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Closes the connection properly. Waits for the peer's close frame, at most [`WRITE_TIMEOUT`].
pub(super) async fn close(socket: &mut Socket, code: u16, reason: &str) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
    let _closed = timeout(WRITE_TIMEOUT, async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
}
