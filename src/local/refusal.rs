//! Carries out the fault of a call: an error, a broken answer, or no answer. [`super::faults`] owns the queue of faults.

use super::answers::{Reply, error_answer, text_answer, typed_answer};
use super::api_error::ApiError;
use super::faults::Fault;
use super::records::Source;
use super::shared::Shared;
use axum::body::Body;
use bytes::Bytes;
use http::{Response, header};
use std::io;

/// The reply that the client gets instead of the call's answer; `None`: the call takes effect, perhaps after a delay.
pub(super) async fn refusal(shared: &Shared, operation: &str, fault: Option<&Fault>) -> Option<Reply> {
    let error = match fault? {
        Fault::Throttle => ApiError::new(400, "ThrottlingException", "Rate exceeded"),
        Fault::ServerError => ApiError::new(500, "ServerException", "Service Unavailable. Please try again later."),
        Fault::AccessDenied => {
            ApiError::new(400, "AccessDeniedException", "User is not authorized to perform this action")
        }
        Fault::Error(status, code, message) => ApiError::new(*status, code, message.clone()),
        Fault::Slow(wait) => {
            tokio::time::sleep(*wait).await;
            return None;
        }
        Fault::LoseAnswer => return None,
        Fault::Malformed => return Some(Reply::Answer(text_answer(200, "{\"this is\": not JSON"))),
        Fault::Empty => return Some(Reply::Answer(text_answer(200, ""))),
        Fault::Page(status) => {
            return Some(Reply::Answer(typed_answer(
                *status,
                "text/html",
                "<html><body>Sign in</body></html>".to_owned(),
            )));
        }
        Fault::Truncated => return Some(Reply::Answer(half_an_answer())),
        Fault::Drop => return Some(Reply::Cut),
    };
    shared.change(|state| state.record(Source::ApiError, operation, error.body()));
    Some(Reply::Answer(error_answer(&error)))
}

/// An answer with a shorter body than its length header promises.
fn half_an_answer() -> Response<Body> {
    let parts = [Ok(Bytes::from_static(b"{\"acknow")), Err(io::Error::other("cut on purpose"))];
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter(parts)));
    response.headers_mut().insert(header::CONTENT_LENGTH, 1000.into());
    response
}
