//! JSON answers: status, headers, body, and the log lines about errors.
//!
//! Owns no shapes. Invariant: a panic while answering ends one connection, not the server.

use super::json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;
use std::fmt::{Display, Write as _};
use std::panic::AssertUnwindSafe;

/// One JSON answer. `kind` is the request type in the log.
pub(crate) fn json_answer(status: StatusCode, value: &impl Serialize, kind: &str) -> Response {
    let (status, body) = encoded(status, value, kind);
    json_body(status, body)
}

/// The body of a JSON answer, and its status. Errors are logged with their body, which must not hold a secret. The Go agent logs
/// them all as errors; here a client's mistake is logged at debug level only, so that it cannot fill the agent's log.
pub(crate) fn encoded(status: StatusCode, value: &impl Serialize, kind: &str) -> (StatusCode, Bytes) {
    let (status, body) = match json::encode(value) {
        Ok(body) => (status, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned()),
    };
    let code = status.as_u16();
    if status.is_server_error() {
        tracing::error!(
            "HTTP response status code is '{code}', request type is: {kind}, and response in JSON is {body}"
        );
    } else if status.is_client_error() {
        tracing::debug!(
            "HTTP response status code is '{code}', request type is: {kind}, and response in JSON is {body}"
        );
    }
    (status, body.into())
}

/// An answer with this body, which is JSON.
pub(crate) fn json_body(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// An answer with this text.
pub(crate) fn plain_text(status: StatusCode, text: &'static str) -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(header::CONTENT_TYPE, plain)], text).into_response()
}

/// The text as the value of a header; empty if it cannot be in one.
pub(crate) fn header_text(text: impl Display) -> HeaderValue {
    // Room for an address and a port. Text that grows byte by byte is allocated again and again.
    let mut value = String::with_capacity(64);
    let _ = write!(value, "{text}");
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""))
}

/// Turns a panic while answering into an empty 500 that ends the connection. The server keeps running.
pub(crate) async fn catch_panic(server: &str, answer: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("panic while answering a request to {server}");
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONNECTION, "close")]).into_response()
        }
    }
}
