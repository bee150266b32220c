//! The only ECR call that the agent makes: GetAuthorizationToken, in front of a real registry. This module owns no images.
//! Invariant: only this answer contains the registry's password, in base64 as in AWS.

use super::request::Answer;
use crate::api_error::ApiError;
use crate::options::Registry;
use crate::state::State;
use crate::time::now;
use base64::Engine;
use serde_json::json;

/// Answers a call of ECR.
pub(super) fn answer(state: &State, registry: Option<&Registry>, operation: &str) -> Answer {
    if operation != "GetAuthorizationToken" {
        return Err(ApiError::unsupported("UnknownOperationException", operation, "ECR", &["GetAuthorizationToken"]));
    }
    let Some(registry) = registry else {
        let message = "This ECR has no registry: start ecs-local with --registry.";
        return Err(ApiError::new(400, "RegistryNotFoundException", message));
    };
    let text = format!("{}:{}", registry.user, registry.password.expose());
    let token = base64::engine::general_purpose::STANDARD.encode(text);
    let proxy = if registry.tls { "https" } else { "http" };
    Ok(json!({"authorizationData": [{
        "authorizationToken": token,
        "expiresAt": now() + registry.token_ttl.as_secs_f64(),
        "proxyEndpoint": format!("{proxy}://{}", registry.address),
        "registryId": state.site.account,
    }]}))
}
