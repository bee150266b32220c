//! GetAuthorizationToken: the password of `docker login`. Invariant: only this answer holds the password, in base64 as in AWS.

use super::call::{Call, shown, texts};
use crate::api::request::Answer;
use crate::ecr::Action;
use crate::ecr::error::EcrError;
use crate::ecr::tokens::USER;
use crate::ids::new_id;
use crate::options::{Options, Registry};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Maximum number of accounts in a request, as in ECR.
const MAX_REGISTRIES: usize = 10;

/// GetAuthorizationToken. The token is for all registries that the caller may use; `registryIds` only says which addresses the
/// answer names.
pub(super) fn get(call: &mut Call<'_>, options: &Options) -> Answer {
    // A service has no policy of its own; what it may do with the token is up to the policies of repositories.
    match call.caller.is_service() {
        true => call.state.log_action(call.caller, Action::GET_AUTHORIZATION_TOKEN.name(), "*", true),
        false => call.permit_registry(Action::GET_AUTHORIZATION_TOKEN)?,
    }
    let asked = texts(call.body, "registryIds", MAX_REGISTRIES)?;
    if let Some(registry) = &options.registry {
        let address = format!("{}://{}", if registry.tls { "https" } else { "http" }, registry.address);
        let Registry { user, password, token_ttl, .. } = registry;
        let expires_at = call.state.time() + token_ttl.as_secs_f64();
        let entry = entry(user, password.expose(), expires_at, &address);
        return Ok(json!({"authorizationData": [entry]}));
    }
    let ecr = &call.state.ecr;
    let own = if call.caller.is_service() { ecr.own_account() } else { call.caller.account() };
    let accounts: Vec<String> =
        if asked.is_empty() { vec![own] } else { asked }.into_iter().map(str::to_owned).collect();
    let mut addresses = Vec::new();
    for account in accounts {
        let Some(registry) = call.state.ecr.registry(&account) else {
            let known: Vec<&str> = call.state.ecr.accounts().collect();
            let constraint = format!("there is no account {} here; there are: {}", shown(&account), known.join(", "));
            return Err(EcrError::invalid("registryIds", constraint).into());
        };
        addresses.push(format!("http://{}", registry.host));
    }
    let password = format!("{}{}", new_id(), new_id());
    let ttl = options.token_ttl.as_secs_f64();
    call.state.ecr.add_token(call.caller.clone(), &password, call.now, ttl);
    // The caller's clock is that of AWS, which the clock of ECR may be ahead of.
    let expires_at = call.state.time() + ttl;
    let entry = |address: &String| entry(USER, &password, expires_at, address);
    Ok(json!({"authorizationData": addresses.iter().map(entry).collect::<Vec<_>>()}))
}

fn entry(user: &str, password: &str, expires_at: f64, address: &str) -> Value {
    json!({
        "authorizationToken": STANDARD.encode(format!("{user}:{password}")),
        "expiresAt": expires_at,
        "proxyEndpoint": address,
    })
}
