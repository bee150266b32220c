//! What every request passes before its route is chosen: the cleaning of its path.
//!
//! Owns the decoding of paths. As with the Go agent, the path is decoded first and cleaned afterwards, so `/v3/x%2Ftask` is the
//! path `/v3/x/task`. The routes get the decoded path, with those characters encoded that a URI cannot contain.

use crate::http::answer::{catch_panic, plain_text};
use crate::http::path;
use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The characters of a decoded path that are encoded again.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The routes, behind everything that each request passes.
pub(super) fn guarded(routes: Router) -> Router {
    Router::new().fallback(async move |request: Request| {
        let answer = passed(routes.clone(), request);
        catch_panic("the task metadata endpoint", answer).await
    })
}

/// Passes a request on to the routes, or answers it.
async fn passed(routes: Router, mut request: Request) -> Response {
    let Some(decoded) = decoded(request.uri().path()) else {
        return plain_text(StatusCode::BAD_REQUEST, "400 Bad Request");
    };
    if let Some(clean) = path::cleaned(&decoded) {
        return moved(&clean, request.uri().query());
    }
    match with_path(request.uri(), &decoded) {
        Some(uri) => *request.uri_mut() = uri,
        None => return plain_text(StatusCode::BAD_REQUEST, "400 Bad Request"),
    }
    match TowerToHyperService::new(routes).call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// The path without its escapes; `None` if one of them is invalid. Bytes that are not UTF-8 become U+FFFD.
fn decoded(path: &str) -> Option<String> {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let is_valid = path.split('%').skip(1).all(is_escape);
    is_valid.then(|| percent_decode_str(path).decode_utf8_lossy().into_owned())
}

/// The same address with this decoded path; `None` if it cannot be written as a URI.
fn with_path(uri: &Uri, decoded: &str) -> Option<Uri> {
    let path = encoded(decoded, uri.query());
    PathAndQuery::try_from(path).ok().map(Uri::from)
}

fn encoded(path: &str, query: Option<&str>) -> String {
    let path = utf8_percent_encode(path, ENCODED).to_string();
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

/// A permanent redirect that keeps the query.
fn moved(path: &str, query: Option<&str>) -> Response {
    match HeaderValue::from_str(&encoded(path, query)) {
        Ok(location) => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response(),
        Err(_) => plain_text(StatusCode::BAD_REQUEST, "400 Bad Request"),
    }
}
