//! Helpers for HTTP answers and headers, for all parts of the server.

use super::api_error::ApiError;
use axum::body::Body;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a client gets for its request.
pub(super) enum Reply {
    /// This answer is sent.
    Answer(Response<Body>),
    /// The connection is closed without an answer.
    Cut,
}

/// Headers for the log, without the session token and the signature.
pub(super) fn loggable(headers: &HeaderMap) -> BTreeMap<String, String> {
    let readable = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    readable
        .map(|(name, value)| {
            let value = match name {
                "x-amz-security-token" => "REDACTED",
                "authorization" => value.split("Signature=").next().unwrap_or_default(),
                _ => value,
            };
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// The value of a header; empty if the header is missing or not text.
pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// An answer of a JSON API.
pub(super) fn json_answer(status: u16, body: &Value) -> Response<Body> {
    typed_answer(status, "application/x-amz-json-1.1", body.to_string())
}

/// The answer to a call of a JSON API that failed.
pub(super) fn error_answer(error: &ApiError) -> Response<Body> {
    json_answer(error.status, &error.body())
}

/// An answer of plain text.
pub(super) fn text_answer(status: u16, text: impl Into<String>) -> Response<Body> {
    typed_answer(status, "text/plain", text.into())
}

/// An answer with this content type.
pub(super) fn typed_answer(status: u16, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
