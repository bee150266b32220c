//! Calls of AWS APIs over HTTP: checks the signature and the permission, takes the fault of a call, and has it carried out. This
//! module owns the order of these steps; [`super::api`] owns the meaning of calls. Invariant: nothing is carried out for a caller
//! who is unknown or may not call it.

use super::answers::{Reply, error_answer, header_text, json_answer, loggable, typed_answer};
use super::api;
use super::api_error::ApiError;
use super::demand;
use super::ec2;
use super::ecr::Principal;
use super::faults::Fault;
use super::objects::kind_of;
use super::options::Options;
use super::records::Source;
use super::refusal::refusal;
use super::shared::Shared;
use super::signature::{self, Refused};
use super::state::State;
use super::time::now;
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use std::sync::Arc;

/// The services that have any call here.
const SERVICES: &str = "ECS (clusters, container instances, task definitions and tasks), ECR, Secrets Manager (GetSecretValue), SSM \
    (GetParameters), EC2 (DescribeTags) and S3 (GetObject)";
/// The beginning of a target of ECR.
const ECR_TARGET: &str = "AmazonEC2ContainerRegistry_V";

/// Checks the signature of a request and returns its caller.
pub(super) fn caller(shared: &Shared, request: &Request<Bytes>) -> Result<Principal, Refused> {
    let time = shared.read(|state| state.ec2.time(now()));
    let signer = signature::check(request, &shared.keys, time)?;
    Ok(shared.read(|state| state.ecr.caller(&signer))?)
}

/// One call of EC2, whose protocol has forms as requests and XML as answers.
async fn ec2_call(shared: &Shared, request: &Request<Bytes>) -> Reply {
    let form: Vec<(String, String)> = url::form_urlencoded::parse(request.body()).into_owned().collect();
    let action = form.iter().find(|(name, _)| name == "Action").map_or("", |(_, action)| action.as_str());
    let caller = match caller(shared, request) {
        Ok(caller) => caller,
        Err(refused) => {
            let error = refused.ec2_error();
            shared.change(|state| state.record(Source::ApiError, action, error.body()));
            return Reply::Answer(typed_answer(error.status, "text/xml;charset=UTF-8", ec2::error_body(&error)));
        }
    };
    let fault = shared.change(|state| state.faults.take(action));
    let error = match &fault {
        Some(Fault::Throttle) => Some(ApiError::new(503, "RequestLimitExceeded", "Request limit exceeded.")),
        Some(Fault::ServerError) => Some(ApiError::new(500, "InternalError", "An internal error has occurred")),
        Some(Fault::AccessDenied) => {
            Some(ApiError::new(403, "UnauthorizedOperation", "You are not authorized to perform this operation."))
        }
        _ => None,
    };
    if error.is_none()
        && let Some(reply) = refusal(shared, action, fault.as_ref()).await
    {
        return reply;
    }
    let answer = shared.change(|state| {
        let body = form.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<serde_json::Map<_, _>>();
        state.record_request(Source::Api, action, body.into(), loggable(request.headers()));
        let allowed = error.map_or_else(|| permitted(state, &caller, action), Err);
        let answer = allowed.and_then(|()| state.ec2.call(&shared.options.instance_id, &form));
        if let Err(error) = &answer {
            state.record(Source::ApiError, action, error.body());
        }
        answer
    });
    match answer {
        Ok(_) if fault == Some(Fault::LoseAnswer) => Reply::Cut,
        Ok(text) => Reply::Answer(typed_answer(200, "text/xml;charset=UTF-8", text)),
        Err(error) => Reply::Answer(typed_answer(error.status, "text/xml;charset=UTF-8", ec2::error_body(&error))),
    }
}

/// The caller may make a call of EC2.
fn permitted(state: &mut State, caller: &Principal, action: &str) -> Result<(), ApiError> {
    let demands = demand::ec2_demand(action);
    state.permit_call(caller, &demands).map_err(|error| ApiError::new(403, "UnauthorizedOperation", error.message))
}

/// Answers one call of an AWS API: a JSON API (awsJson1.1), or EC2.
pub(super) async fn answer(shared: &Arc<Shared>, request: &Request<Bytes>) -> Reply {
    let target = header_text(request.headers(), "x-amz-target");
    let (service, operation) = target.split_once('.').unwrap_or((target, ""));
    let is_form = header_text(request.headers(), "content-type").starts_with("application/x-www-form-urlencoded");
    if is_form && target.is_empty() {
        return ec2_call(shared, request).await;
    }
    let caller = match caller(shared, request) {
        Ok(caller) => caller,
        Err(refused) => {
            let error = refused.error();
            shared.change(|state| state.record(Source::ApiError, operation, error.body()));
            return Reply::Answer(error_answer(&error));
        }
    };
    let fault = shared.change(|state| state.faults.take(operation));
    if let Some(reply) = refusal(shared, operation, fault.as_ref()).await {
        return reply;
    }
    let text = if request.body().is_empty() { b"{}" } else { request.body().as_ref() };
    let body = match serde_json::from_slice::<Value>(text) {
        Ok(body @ Value::Object(_)) => body,
        other => {
            let found = other.map(|body| format!(", but {}", kind_of(&body))).unwrap_or_default();
            let message = format!("The body is not a JSON object{found}.");
            return Reply::Answer(error_answer(&ApiError::new(400, "SerializationException", message)));
        }
    };
    let headers = loggable(request.headers());
    shared.change(|state| state.record_request(Source::Api, operation, logged(&body), headers));
    let answer = match service.starts_with(ECR_TARGET) && api::waits(operation) {
        true => api::wait(shared, &caller, operation, &body).await,
        false => performed(shared, &caller, (service, operation), &body).await,
    };
    if let Err(error) = &answer {
        shared.change(|state| state.record(Source::ApiError, operation, error.body()));
    }
    match (fault, answer) {
        (Some(Fault::LoseAnswer), _) => Reply::Cut,
        (_, Ok(answer)) => Reply::Answer(json_answer(200, &answer)),
        (_, Err(error)) => Reply::Answer(error_answer(&error)),
    }
}

/// Carries out a call whose caller is known, and waits until what it has changed of the registry is on disk.
async fn performed(shared: &Shared, caller: &Principal, target: (&str, &str), body: &Value) -> Result<Value, ApiError> {
    let performed = shared.change_durably(|state| perform(state, &shared.options, caller, target, body)).await;
    performed.map_err(|error| ApiError::new(500, "ServerException", error.to_string()))?
}

/// Carries out a call whose caller is known.
fn perform(
    state: &mut State,
    options: &Options,
    caller: &Principal,
    (service, operation): (&str, &str),
    body: &Value,
) -> Result<Value, ApiError> {
    if service.starts_with(ECR_TARGET) {
        return api::ecr(state, options, caller, operation, body);
    }
    let demands = demand::demands(state, service, operation, body);
    state.permit_call(caller, &demands)?;
    if service.starts_with("AmazonEC2ContainerServiceV") {
        api::ecs(state, operation, body)
    } else if service == "secretsmanager" {
        api::secrets_manager(state, operation, body)
    } else if service == "AmazonSSM" {
        api::ssm(state, operation, body)
    } else {
        let message = format!("`{service}.{operation}` is not supported here. The services are {SERVICES}.");
        Err(ApiError::new(400, "UnknownOperationException", message))
    }
}

/// The body of a call for the log: without the bytes of a layer.
fn logged(body: &Value) -> Value {
    let Some(blob) = body["layerPartBlob"].as_str() else { return body.clone() };
    let members = body.as_object().into_iter().flatten().filter(|(name, _)| *name != "layerPartBlob");
    let mut logged: Value =
        members.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into();
    logged["layerPartBlob"] = json!(format!("{} characters", blob.len()));
    logged
}
