//! Error answers: a JSON string, and a line in the log that names no id in full.

use crate::http::answer::{encoded, json_body};
use crate::http::json;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::borrow::Cow;

/// How much of an id is shown in the log, in bytes.
const SHOWN: usize = 8;

/// An error answer with this text. `kind` is the request type in the log. `id` is the id in the path of the request.
pub(super) fn refused(status: StatusCode, text: &str, kind: &str, id: &str) -> Response {
    answered(status, &text, &without_id(text, id), kind)
}

/// An answer with this value. If it is an error, `shown` takes its place in the log.
pub(super) fn answered(status: StatusCode, value: &impl Serialize, shown: &impl Serialize, kind: &str) -> Response {
    let (status, _logged) = encoded(status, shown, kind);
    json_body(status, json::encode(value).map(Into::into).unwrap_or_default())
}

/// The text for the log: the id is cut, since who knows it may ask for what it leads to.
pub(super) fn without_id<'a>(text: &'a str, id: &str) -> Cow<'a, str> {
    if id.len() <= SHOWN {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(id, &format!("{}…", &id[..id.floor_char_boundary(SHOWN)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_cut_wherever_it_stands() {
        let id = "d9c8a5df-4e7b-4ed7-8770-7a2d2a53f0ac";
        assert_eq!(without_id(&format!("a {id}, b: {id}"), id), "a d9c8a5df…, b: d9c8a5df…");
        for (text, id) in [("for container: ", ""), ("ID: short", "short"), ("no id", id)] {
            assert_eq!(without_id(text, id), text);
        }
    }
}
