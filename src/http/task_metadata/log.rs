//! Error answers: a JSON string, and a line in the log that names no id in full.

use crate::http::answer::{encoded, json_body};
use crate::http::json;
use axum::http::StatusCode;
use axum::response::Response;
use std::borrow::Cow;

/// How much of an id is shown in the log, in bytes.
const SHOWN: usize = 8;

/// An error answer with this text. `kind` is the request type in the log. `id` is the id in the path of the request; in the log it
/// is cut, since who knows an id may ask for what it leads to.
pub(super) fn refused(status: StatusCode, text: &str, kind: &str, id: &str) -> Response {
    let shown = if id.len() > SHOWN { Cow::Owned(text.replace(id, &cut(id))) } else { Cow::Borrowed(text) };
    let (status, logged) = encoded(status, &shown, kind);
    let body = if *shown == *text { Some(logged) } else { json::encode(&text).ok().map(Into::into) };
    json_body(status, body.unwrap_or_default())
}

fn cut(id: &str) -> String {
    format!("{}…", &id[..id.floor_char_boundary(SHOWN)])
}
