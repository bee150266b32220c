//! The end of a connection: what it means, and the close frame for it (spec `acs.md` §2). Pure, but for a line in the log.

use super::connect::MAX_MESSAGE;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The action after the end of a connection or of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Connect at once.
    Reconnect,
    /// Connect after the back-off.
    ReconnectLater,
    /// Connect after a long pause: the instance is not registered.
    WaitForRegistration,
    /// End the session.
    Stop,
}

/// How a connection ended.
pub(super) struct End {
    /// The action that follows.
    pub(super) next: NextStep,
    /// The close frame to send, if any; the inner `None` is a close frame without code.
    pub(super) close: Option<Option<CloseFrame>>,
}

impl End {
    /// An end for which no close frame is sent.
    pub(super) fn without_frame(next: NextStep) -> Self {
        Self { next, close: None }
    }
}

/// The reason of a close frame for a connection that is to be replaced.
pub(super) fn expired() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "ConnectionExpired: Reconnect to continue".into() }
}

/// Logs why a connection broke.
pub(super) fn log_broken(peer: &str, error: &SocketError) {
    if matches!(error, SocketError::Capacity(_)) {
        tracing::error!(
            limit_bytes = MAX_MESSAGE,
            "{peer} sent a message that is too long: the connection is given up"
        );
    } else {
        tracing::warn!(%error, "the connection to {peer} broke");
    }
}

/// The close frame that answers the peer's protocol error; `None` if the peer did not cause the error.
pub(super) fn close_frame_for(error: &SocketError) -> Option<CloseFrame> {
    let code = match error {
        SocketError::Capacity(_) => CloseCode::Size,
        SocketError::Utf8(_) => CloseCode::Invalid, // the reason of a close frame
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        SocketError::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    Some(CloseFrame { code, reason: "".into() })
}

/// The action after a close frame with this code and reason.
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
