//! The part of S3 that the agent uses: the head of a bucket, its location, and objects or their first bytes. This module owns
//! the paths and the XML; the objects are in `stored`. Invariant: an object is sent only after its request's signature was
//! checked.

use super::answers::{Reply, header_text, loggable, typed_answer};
use super::api_error::ApiError;
use super::demand;
use super::ecr::Principal;
use super::faults::Fault;
use super::records::Source;
use super::refusal::refusal;
use super::shared::Shared;
use super::signature::{self, Refused};
use super::state::State;
use super::time::now;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use serde_json::json;

/// The parts of an answer: status, further headers, body.
type AnswerParts = (u16, Vec<(&'static str, String)>, String);

/// The answer to calls that this S3 does not have.
const NOT_IMPLEMENTED: &str = "ecs-local has only these calls of S3: HeadBucket, GetBucketLocation, GetObject. The objects are the files of \
                               the directory that --buckets DIR names.";

/// The request is for S3: a HEAD, which no other part of the server has, or a request that is signed for S3.
pub(super) fn is_s3_request(request: &Request<Bytes>) -> bool {
    let is_object_or_bucket = request.uri().path().len() > 1;
    (is_object_or_bucket && request.method() == Method::HEAD) || signature::is_for(request, "s3")
}

/// Answers one request.
pub(super) async fn call(shared: &Shared, request: &Request<Bytes>) -> Reply {
    let path = percent_decoded(request.uri().path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let query = request.uri().query().unwrap_or_default();
    let operation = match (request.method(), key) {
        (&Method::HEAD, "") => "HeadBucket",
        (&Method::GET, "") if query.split('&').any(|part| part.trim_end_matches('=') == "location") => {
            "GetBucketLocation"
        }
        (&Method::GET, key) if !key.is_empty() => "GetObject",
        _ => "",
    };
    let time = shared.read(|state| state.ec2.time(now()));
    let checked = signature::check(request, &shared.keys, time)
        .and_then(|signer| Ok(shared.read(|state| state.ecr.caller(&signer))?));
    // A wrong signature is refused before a fault is taken: faults are for clients that are served.
    let refused = checked.as_ref().err().filter(|why| **why != Refused::Unsigned).map(Refused::s3_error);
    let fault = if refused.is_none() { shared.change(|state| state.faults.take(operation)) } else { None };
    let error = match &fault {
        Some(Fault::Throttle) => Some(ApiError::new(503, "SlowDown", "Please reduce your request rate.")),
        Some(Fault::ServerError) => Some(ApiError::new(500, "InternalError", "We encountered an internal error.")),
        Some(Fault::AccessDenied) => Some(ApiError::new(403, "AccessDenied", "Access Denied")),
        Some(Fault::Error(status, code, message)) => Some(ApiError::new(*status, code, message.clone())),
        _ => None,
    };
    if error.is_none()
        && let Some(reply) = refusal(shared, operation, fault.as_ref()).await
    {
        return reply;
    }
    let found = shared.change(|state| {
        let body = json!({"path": request.uri().path(), "query": query});
        state.record_request(Source::Api, operation, body, loggable(request.headers()));
        let allowed = refused.or(error).map_or_else(
            || checked.as_ref().map_or(Ok(()), |caller| permitted(state, caller, operation, bucket, key)),
            Err,
        );
        let found = allowed.and_then(|()| answer(state, operation, bucket, key, checked.is_ok(), request.headers()));
        if let Err(error) = &found {
            state.record(Source::ApiError, operation, error.body());
        }
        found
    });
    if fault == Some(Fault::LoseAnswer) {
        return Reply::Cut;
    }
    let region = shared.options.region.clone();
    let (status, headers, body) = found.unwrap_or_else(|error| {
        let ApiError { status, code, message, .. } = error;
        (status, Vec::new(), format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
    });
    let mut response =
        typed_answer(status, "application/xml", if operation == "HeadBucket" { String::new() } else { body });
    let shows_region = status != 404 || operation != "HeadBucket";
    add_headers(&mut response, headers.into_iter().chain(shows_region.then_some(("x-amz-bucket-region", region))));
    Reply::Answer(response)
}

/// The caller may do this with the object or the bucket.
fn permitted(state: &mut State, caller: &Principal, operation: &str, bucket: &str, key: &str) -> Result<(), ApiError> {
    let demands = demand::s3_demand(operation, bucket, key);
    state.permit_call(caller, &demands).map_err(|error| ApiError::new(403, "AccessDenied", error.message))
}

fn add_headers(response: &mut Response<Body>, headers: impl Iterator<Item = (&'static str, String)>) {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn answer(
    state: &State,
    operation: &str,
    bucket: &str,
    key: &str,
    is_signed: bool,
    headers: &HeaderMap,
) -> Result<AnswerParts, ApiError> {
    if operation.is_empty() {
        // Clients do not repeat a call after this status.
        return Err(ApiError::new(501, "NotImplemented", NOT_IMPLEMENTED));
    }
    if !state.stored.has_bucket(bucket) {
        return Err(ApiError::new(404, "NoSuchBucket", "The specified bucket does not exist"));
    }
    // As in AWS, an unsigned request shows that the bucket exists, and its region.
    if !is_signed {
        return Err(ApiError::new(403, "AccessDenied", "Access Denied"));
    }
    if operation == "HeadBucket" {
        return Ok((200, Vec::new(), String::new()));
    }
    if operation == "GetBucketLocation" {
        let region = &state.site.region;
        return Ok((200, Vec::new(), format!("<LocationConstraint>{region}</LocationConstraint>")));
    }
    let Some(object) = state.stored.object(bucket, key) else {
        return Err(ApiError::new(404, "NoSuchKey", "The specified key does not exist."));
    };
    part(object.expose(), header_text(headers, "range"))
}

/// The whole text, or its beginning if the header is `bytes=0-<last>`. Other ranges are ignored.
fn part(text: &str, range: &str) -> Result<AnswerParts, ApiError> {
    let Some(last) = range.strip_prefix("bytes=0-").and_then(|last| last.parse::<usize>().ok()) else {
        return Ok((200, Vec::new(), text.to_owned()));
    };
    if text.is_empty() {
        return Err(ApiError::new(416, "InvalidRange", "The requested range is not satisfiable"));
    }
    let end = last.saturating_add(1).min(text.len());
    let span = format!("bytes 0-{}/{}", end - 1, text.len());
    Ok((206, vec![("content-range", span)], String::from_utf8_lossy(&text.as_bytes()[..end]).into_owned()))
}

fn percent_decoded(path: &str) -> String {
    // A plus sign means a space in a form, but not in a path.
    let form = format!("p={}", path.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes()).map(|(_, value)| value.into_owned()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[test]
    fn buckets_and_objects_are_found_by_name_only() {
        let mut state = State::new(Site::example(), "default");
        state.stored.put_object("b", "dir/app.env", "A=1\n".into()).unwrap();
        state.stored.put_object("b", "empty", "".into()).unwrap();
        let mut headers = HeaderMap::new();
        let code = |state: &State, operation: &str, bucket: &str, key: &str, headers: &HeaderMap| {
            answer(state, operation, bucket, key, true, headers).map_err(|error| error.code)
        };
        let unsigned = |operation: &str, bucket: &str, key: &str| {
            answer(&state, operation, bucket, key, false, &HeaderMap::new()).map_err(|error| (error.status, error.code))
        };
        assert_eq!(code(&state, "HeadBucket", "b", "", &headers), Ok((200, Vec::new(), String::new())));
        assert_eq!(code(&state, "HeadBucket", "c", "", &headers), Err("NoSuchBucket".to_owned()));
        for (operation, key) in [("HeadBucket", ""), ("GetBucketLocation", ""), ("GetObject", "dir/app.env")] {
            assert_eq!(unsigned(operation, "b", key), Err((403, "AccessDenied".to_owned())), "{operation}");
        }
        for key in ["dir", "../b/dir/app.env", "dir/../dir/app.env"] {
            assert_eq!(code(&state, "GetObject", "b", key, &headers), Err("NoSuchKey".to_owned()), "{key}");
        }
        assert_eq!(code(&state, "GetObject", "b", "dir/app.env", &headers).unwrap().2, "A=1\n");
        headers.insert("range", "bytes=0-1".parse().unwrap());
        let (status, more, body) = code(&state, "GetObject", "b", "dir/app.env", &headers).unwrap();
        assert_eq!((status, more, body.as_str()), (206, vec![("content-range", "bytes 0-1/4".to_owned())], "A="));
        assert_eq!(code(&state, "GetObject", "b", "empty", &headers), Err("InvalidRange".to_owned()));
        assert_eq!(code(&state, "", "b", "empty", &headers), Err("NotImplemented".to_owned()));
    }

    /// `aws s3 ls` asks for `/`.
    #[test]
    fn a_list_of_buckets_is_a_request_for_s3() {
        let request = |method: &str, signed_for: Option<&str>| {
            let mut request = Request::builder().method(method).uri("/");
            if let Some(service) = signed_for {
                let scope = format!("AWS4-HMAC-SHA256 Credential=local/20261130/us-west-2/{service}/aws4_request");
                request = request.header("authorization", scope + ", SignedHeaders=host, Signature=0");
            }
            request.body(Bytes::new()).unwrap()
        };
        assert!(is_s3_request(&request("GET", Some("s3"))));
        assert!(!is_s3_request(&request("GET", None)) && !is_s3_request(&request("HEAD", None)));
        assert!(!is_s3_request(&request("GET", Some("ecs"))));
        let state = State::new(Site::example(), "default");
        let error = answer(&state, "", "", "", true, &HeaderMap::new()).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (501, "NotImplemented"));
        assert!(error.message.contains("GetObject") && error.message.contains("--buckets DIR"), "{}", error.message);
    }

    #[test]
    fn a_path_is_decoded() {
        assert_eq!(percent_decoded("b/a%20b+c%2B&d=e%C3%A4"), "b/a b+c+&d=eä");
    }
}
