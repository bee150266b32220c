//! What every request passes before its route is chosen: the cleaning of its path, and the limits of its address.
//!
//! Owns the decoding of paths. As with the Go agent, the path is decoded first and cleaned afterwards, so `/v3/x%2Ftask` is the
//! path `/v3/x/task`. The routes get the decoded path, with those characters encoded that a URI cannot contain.

use super::audit::{Event, Request as Audited};
use super::limiter::TooMany;
use super::sources::Sources;
use super::subject::Subject;
use crate::http::answer::{catch_panic, header_text, plain_text};
use crate::http::{Answers, RemoteAddress, path};
use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;

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

const LIMIT: HeaderName = HeaderName::from_static("x-rate-limit-limit");
const DURATION: HeaderName = HeaderName::from_static("x-rate-limit-duration");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-rate-limit-request-forwarded-for");
const REMOTE_ADDRESS: HeaderName = HeaderName::from_static("x-rate-limit-request-remote-addr");

/// The routes, behind everything that each request passes.
pub(super) fn guarded(routes: Router, sources: Arc<Sources>) -> Answers {
    let routes = Answers::from(routes);
    Answers::new(move |request| {
        let (routes, sources) = (routes.clone(), Arc::clone(&sources));
        async move { catch_panic("the task metadata endpoint", passed(&routes, &sources, request)).await }
    })
}

/// Passes a request on to the routes, or answers it.
async fn passed(routes: &Answers, sources: &Sources, mut request: Request) -> Response {
    sources.requests.all.increment();
    let Some(decoded) = decoded(request.uri().path()) else {
        return plain_text(StatusCode::BAD_REQUEST, "400 Bad Request");
    };
    if let Some(clean) = path::cleaned(&decoded) {
        return moved(&clean, request.uri().query());
    }
    let Some(uri) = with_path(request.uri(), &decoded) else {
        return plain_text(StatusCode::BAD_REQUEST, "400 Bad Request");
    };
    let peer = request.extensions().get::<RemoteAddress>().map(|remote| remote.address);
    let headers = limit_headers(sources, request.headers(), peer);
    let mut answer = match sources.refused(&request, &decoded, peer) {
        Some(refused) => refused,
        None => {
            *request.uri_mut() = uri;
            routes.answer(request).await
        }
    };
    for (name, value) in headers {
        // A route with a limit of its own has these headers too. They come second.
        let own: Vec<HeaderValue> = answer.headers().get_all(&name).into_iter().cloned().collect();
        answer.headers_mut().insert(&name, value);
        for value in own {
            answer.headers_mut().append(&name, value);
        }
    }
    answer
}

impl Sources {
    /// Counts the request. Returns the answer if it came too early.
    fn refused(&self, request: &Request, path: &str, peer: Option<SocketAddr>) -> Option<Response> {
        let (address, now) = (peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip()), Instant::now());
        let subject = Subject::from_path(path, request.uri().query(), &self.tasks);
        let is_guess = matches!(subject, Subject::Unknown) && !self.tasks.view().is_incomplete;
        let taken = self.limiter.take(address, subject.key(), now);
        let taken = if is_guess { taken.and_then(|()| self.guesses.take(address, None::<()>, now)) } else { taken };
        taken.err().map(|too_many| self.refuse(too_many, request, path, peer))
    }

    fn refuse(&self, too_many: TooMany, request: &Request, path: &str, peer: Option<SocketAddr>) -> Response {
        self.requests.throttled.increment();
        if too_many.is_logged {
            let user_agent = request.headers().get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
            self.audit.write(&Audited {
                status: StatusCode::TOO_MANY_REQUESTS.as_u16(),
                peer,
                path: &super::subject::shown(path),
                user_agent: &String::from_utf8_lossy(user_agent),
                task: None,
                event: Event::TooMany,
            });
        }
        let retry_after = [(header::RETRY_AFTER, HeaderValue::from(too_many.retry_after))];
        let text = plain_text(StatusCode::TOO_MANY_REQUESTS, "You have reached maximum request limit.");
        (retry_after, text).into_response()
    }
}

/// The headers about the limits, which every answer of a route has.
fn limit_headers(sources: &Sources, asked: &HeaderMap, peer: Option<SocketAddr>) -> [(HeaderName, HeaderValue); 4] {
    let forwarded = asked.get("x-forwarded-for").cloned().unwrap_or(HeaderValue::from_static(""));
    [
        (LIMIT, sources.shown_limit.clone()),
        (DURATION, HeaderValue::from_static("1")),
        (FORWARDED_FOR, forwarded),
        (REMOTE_ADDRESS, peer.map_or(HeaderValue::from_static(""), header_text)),
    ]
}

/// The path without its escapes; `None` if one of them is invalid. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn decoded(path: &str) -> Option<Cow<'_, str>> {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let is_valid = path.split('%').skip(1).all(is_escape);
    is_valid.then(|| percent_decode_str(path).decode_utf8_lossy())
}

/// The same address with this decoded path; `None` if it cannot be written as a URI.
pub(super) fn with_path(uri: &Uri, decoded: &str) -> Option<Uri> {
    let path = Cow::from(utf8_percent_encode(decoded, ENCODED));
    if path == uri.path() && uri.authority().is_none() {
        return Some(uri.clone());
    }
    PathAndQuery::try_from(with_query(&path, uri.query())).ok().map(Uri::from)
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// A permanent redirect that keeps the query.
fn moved(path: &str, query: Option<&str>) -> Response {
    let path = Cow::from(utf8_percent_encode(path, ENCODED));
    match HeaderValue::from_str(&with_query(&path, query)) {
        Ok(location) => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response(),
        Err(_) => plain_text(StatusCode::BAD_REQUEST, "400 Bad Request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_written_back() {
        for (raw, expected, written) in [
            ("/v3/x%2Ftask", Some("/v3/x/task"), "/v3/x/task"),
            ("/v3/%2e%2e/v4", Some("/v3/../v4"), "/v3/../v4"),
            ("/v3/%252e", Some("/v3/%2e"), "/v3/%252e"),
            ("/v3/a%20b%3Fc%23", Some("/v3/a b?c#"), "/v3/a%20b%3Fc%23"),
            ("/v3/%ff", Some("/v3/\u{fffd}"), "/v3/%EF%BF%BD"),
            ("/v3/%0d%0a", Some("/v3/\r\n"), "/v3/%0D%0A"),
            ("/v3/%zz", None, ""),
            ("/v3/%4", None, ""),
        ] {
            assert_eq!(decoded(raw).as_deref(), expected, "{raw}");
            let uri = expected.and_then(|path| with_path(&"/old?a=%20".parse().unwrap(), path));
            assert_eq!(uri.map(|uri| uri.to_string()), expected.map(|_| format!("{written}?a=%20")), "{raw}");
        }
    }
}
