//! A unary gRPC call over a Unix socket: one request message, and one response message or a status.
//!
//! Owns the framing, the headers and the interpretation of the answer. It does not retry and knows no service. Invariant: a call
//! ends within its time limit, and the size of what it reads is bounded.

use crate::grpc::system_error::system_error;
use bytes::{Buf, Bytes};
use ecs_core::model::text::cleaned;
use futures_util::future::{Either, select};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// The largest response message, in bytes: the limit of other implementations. The real answers are a few paths.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The longest headers and trailers of an answer, in bytes; the text of a failure is one of them.
const MAX_HEADERS: u32 = 64 * 1024;
/// The size of the flag and length before a message, in bytes.
const HEAD: usize = 5;

/// The names of the codes, from 0 on, as Go writes them.
const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const OK: u32 = 0;
const UNKNOWN: u32 = 2;
pub(crate) const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const ABORTED: u32 = 10;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The gRPC status code.
    pub(crate) code: u32,
    /// The text, without control characters.
    pub(crate) message: String,
}

impl Status {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: cleaned(&message.into()) }
    }

    /// The failure is temporary, so another attempt may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        [UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL].contains(&self.code)
    }
}

/// Compat: customers know the text of Go's implementation.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message } = self;
        match CODE_NAMES.get(*code as usize) {
            Some(name) => write!(f, "rpc error: code = {name} desc = {message}"),
            None => write!(f, "rpc error: code = Code({code}) desc = {message}"),
        }
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        let code = match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) => RESOURCE_EXHAUSTED,
            Some(Reason::REFUSED_STREAM) | None => UNAVAILABLE,
            Some(_) => INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}

/// Calls the method at a path (`/package.Service/Method`).
pub(crate) async fn call(socket: &Path, method: &str, message: &[u8], limit: Duration) -> Result<Vec<u8>, Status> {
    let answer = tokio::time::timeout(limit, exchange(socket, method, message, limit)).await;
    answer.unwrap_or_else(|_| Err(Status::new(DEADLINE_EXCEEDED, "context deadline exceeded")))
}

async fn exchange(socket: &Path, method: &str, message: &[u8], limit: Duration) -> Result<Vec<u8>, Status> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let cause = system_error(&error);
        let dialing = format!("transport: Error while dialing: dial unix {}: connect: {cause}", socket.display());
        Status::new(UNAVAILABLE, format!("connection error: desc = \"{dialing}\""))
    })?;
    let (client, connection) = h2::client::Builder::new().max_header_list_size(MAX_HEADERS).handshake(stream).await?;
    match select(pin!(send(client, method, message, limit)), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The peer has closed the connection; data that it sent before can still be read.
        Either::Right((_, answer)) => answer.await,
    }
}

async fn send(client: SendRequest<Bytes>, method: &str, message: &[u8], limit: Duration) -> Result<Vec<u8>, Status> {
    let request = Request::post(format!("http://localhost{method}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", format!("{}m", limit.as_millis()))
        .header("user-agent", "ecs-agent");
    let request = request.body(()).map_err(|error| Status::new(INVALID_ARGUMENT, error.to_string()))?;
    let (answer, mut body) = client.ready().await?.send_request(request, false)?;
    body.send_data(Bytes::from_owner(framed(message)), true)?;
    read_answer(answer.await?).await
}

/// A frame: the flag for "not compressed", the length, and the message.
fn framed(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + message.len()));
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

async fn read_answer(answer: Response<RecvStream>) -> Result<Vec<u8>, Status> {
    let (head, mut body) = answer.into_parts();
    // An answer without a body has the status in its headers.
    if let Some(status) = status(&head.headers) {
        return Err(status);
    }
    if !head.status.is_success() {
        let code = if head.status.as_u16() == 404 { UNIMPLEMENTED } else { UNAVAILABLE };
        return Err(Status::new(code, format!("unexpected HTTP status code received from server: {}", head.status)));
    }
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.remaining())?;
        if bytes.len() + data.len() > HEAD + MAX_MESSAGE {
            return Err(Status::new(
                RESOURCE_EXHAUSTED,
                format!("grpc: received message larger than max ({MAX_MESSAGE})"),
            ));
        }
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    match status(&trailers) {
        Some(Status { code: OK, .. }) => unframed(&bytes),
        Some(status) => Err(status),
        None => Err(Status::new(INTERNAL, "server closed the stream without sending trailers")),
    }
}

/// The status in `grpc-status` and `grpc-message`; `None` = there is none.
fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let code = headers.get("grpc-status")?;
    let code = code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN);
    Some(Status::new(code, unescaped(text("grpc-message").unwrap_or_default())))
}

/// Decodes percent encoding: `%XX` is a byte.
fn unescaped(text: &str) -> String {
    let (mut rest, mut bytes) = (text.as_bytes(), Vec::new());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unframed(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    match bytes {
        [0, a, b, c, d, message @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() => {
            Ok(message.to_vec())
        }
        _ => Err(Status::new(INTERNAL, "the answer is not one message that is not compressed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_in_go() {
        let mut headers = HeaderMap::new();
        assert_eq!(status(&headers), None);
        for (code, message, wanted) in [
            ("13", "ERROR: 100%25 of it, %C3%A4%2", "rpc error: code = Internal desc = ERROR: 100% of it, ä%2"),
            ("16", "%zz", "rpc error: code = Unauthenticated desc = %zz"),
            ("17", "", "rpc error: code = Code(17) desc = "),
            ("x", "y", "rpc error: code = Unknown desc = y"),
            ("13", "a%0Aforged%1B[2J", "rpc error: code = Internal desc = a forged [2J"),
        ] {
            headers.insert("grpc-status", code.parse().unwrap());
            headers.insert("grpc-message", message.parse().unwrap());
            assert_eq!(status(&headers).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn a_status_of_megabytes_is_cut() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "13".parse().unwrap());
        headers.insert("grpc-message", "%0a".repeat(1 << 20).parse().unwrap());
        assert_eq!(status(&headers).unwrap().message, "");
        headers.insert("grpc-message", "x".repeat(3 << 20).parse().unwrap());
        assert_eq!(status(&headers).unwrap().message.len(), ecs_core::model::text::MAX_TEXT);
    }

    #[test]
    fn a_frame_holds_one_message() {
        assert_eq!(framed(b"abc")[..], *b"\0\0\0\0\x03abc");
        assert_eq!(unframed(b"\0\0\0\0\x03abc").unwrap(), b"abc");
        assert_eq!(unframed(b"\0\0\0\0\0").unwrap(), b"");
        for bytes in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\0", b"\0\0\0\0\x03ab", b"\0\0\0\0\x01ab"] {
            assert_eq!(unframed(bytes).unwrap_err().code, INTERNAL);
        }
    }
}
