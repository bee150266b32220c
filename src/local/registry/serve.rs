//! Answers requests to the registry: reads path and caller, and passes on to the handler. Invariant: a request without a valid token
//! learns nothing.

use super::access::{account, caller, is_signed_address};
use super::answers::Answer;
use super::call::Call;
use super::error::{RegistryError, add_version};
use super::route::{NoRoute, Route, route};
use super::{blob_requests, listings, manifest_requests, upload_requests};
use crate::answers::Reply;
use crate::bodies::RequestBody;
use crate::faults::Fault;
use crate::owner::Connection;
use crate::refusal::refusal;
use crate::shared::Shared;
use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode, header};
use serde_json::json;
use std::sync::Arc;

/// The name under which faults of the registry are set.
const FAULTS: &str = "registry";

/// Answers one request.
pub(crate) async fn answer(shared: &Arc<Shared>, parts: Parts, body: Body) -> Reply {
    let mut body = RequestBody::new(body);
    let kind = route(parts.uri.path()).ok().and_then(|route| route.kind_for(&parts.method));
    let names = [kind.unwrap_or(FAULTS), FAULTS];
    let fault = shared.change_if(|state| {
        let fault = state.faults.take_first(&names);
        let is_taken = fault.is_some();
        (fault, is_taken)
    });
    match refused(shared, fault.as_ref()).await {
        Some(Reply::Answer(mut response)) => {
            body.discard().await;
            add_version(&mut response);
            return Reply::Answer(response);
        }
        Some(Reply::Cut) => return Reply::Cut,
        None => {}
    }
    let answered = respond(shared, &parts, &mut body).await;
    if fault == Some(Fault::LoseAnswer) {
        return Reply::Cut;
    }
    let mut response = match answered {
        Ok(answer) => answer.into_response(),
        Err(error) => {
            body.discard().await;
            error.into_response()
        }
    };
    add_version(&mut response);
    Reply::Answer(response)
}

/// The reply of a fault in the registry's own form; `None`: the request is answered as usual, perhaps after a delay.
async fn refused(shared: &Shared, fault: Option<&Fault>) -> Option<Reply> {
    let error = match fault? {
        Fault::Throttle => RegistryError::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "Rate exceeded"),
        Fault::ServerError => RegistryError::internal("Service Unavailable. Please try again later."),
        Fault::AccessDenied => RegistryError::denied("User is not authorized to perform this action"),
        Fault::Error(status, code, message) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST);
            RegistryError::new(status, code.clone(), message.clone())
        }
        other => return refusal(shared, FAULTS, Some(other)).await,
    };
    Some(Reply::Answer(error.into_response()))
}

async fn respond(shared: &Arc<Shared>, parts: &Parts, body: &mut RequestBody) -> Result<Answer, RegistryError> {
    // A connection without addresses does not exist.
    let local = parts.extensions.get::<Connection>().map_or(shared.options.listen, |connection| connection.local);
    let route = route(parts.uri.path());
    let query = parts.uri.query().unwrap_or_default();
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if let (&Method::GET, Ok(Route::Blob(name, digest))) = (&parts.method, &route) {
        let account = account(shared, local);
        if is_signed_address(shared, account, name, digest, &query) {
            return blob_requests::get_signed(shared, account, name, digest, &parts.headers).await;
        }
    }
    // Before anything else is said about the path.
    let caller = caller(shared, &parts.headers, local)?;
    let route = route.map_err(|reason| match reason {
        NoRoute::Unknown => RegistryError::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "There is no such path"),
        NoRoute::BadName => {
            RegistryError::new(StatusCode::BAD_REQUEST, "NAME_INVALID", "The path holds no name of a repository")
        }
    })?;
    let name = route.name().unwrap_or_default();
    let call = Call { shared, caller: &caller, name, headers: &parts.headers, query };
    dispatch(&call, &parts.method, route, body).await
}

async fn dispatch(
    call: &Call<'_>,
    method: &Method,
    route: Route<'_>,
    body: &mut RequestBody,
) -> Result<Answer, RegistryError> {
    match (method.as_str(), route) {
        ("GET" | "HEAD", Route::Base) => Ok(Answer::json("application/json", &json!({}))),
        ("GET", Route::Catalog) => listings::catalog(call),
        ("GET", Route::Tags(_)) => listings::tags(call),
        ("GET", Route::Referrers(_, digest)) => listings::referrers(call, digest),
        ("HEAD", Route::Blob(_, digest)) => blob_requests::head(call, digest),
        ("GET", Route::Blob(_, digest)) => blob_requests::get(call, digest).await,
        ("POST", Route::Uploads(_)) => upload_requests::begin(call, body).await,
        ("PATCH", Route::Upload(_, id)) => upload_requests::append(call, id, body).await,
        ("PUT", Route::Upload(_, id)) => upload_requests::complete(call, id, body).await,
        ("GET", Route::Upload(_, id)) => upload_requests::status(call, id).await,
        ("DELETE", Route::Upload(_, id)) => upload_requests::cancel(call, id),
        ("HEAD", Route::Manifest(_, reference)) => manifest_requests::get(call, reference, false).await,
        ("GET", Route::Manifest(_, reference)) => manifest_requests::get(call, reference, true).await,
        ("PUT", Route::Manifest(_, reference)) => manifest_requests::put(call, reference, body).await,
        ("DELETE", Route::Manifest(_, reference)) => manifest_requests::delete(call, reference).await,
        (_, route) => {
            let message = format!("The registry has {} for this path", route.methods());
            Err(RegistryError::unsupported(message).with(header::ALLOW, route.methods()))
        }
    }
}
