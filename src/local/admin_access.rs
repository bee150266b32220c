//! The part of `/_local/` about access: accounts, users and roles with policies, keys of sessions, and the actions of callers.
//! [`super::admin`] checks the token before. Invariant: a policy is accepted as a whole or refused with the place of its fault.

use super::ecr::error::EcrError;
use super::ecr::identities::Identity;
use super::ecr::names::is_account;
use super::ecr::policy::Policy;
use super::ecr::principal::{MAX_ARN, is_arn, is_name, is_service_name, role_arn, role_parts, user_arn};
use super::keys::Signer;
use super::shared::Shared;
use super::state::State;
use serde::Deserialize;
use serde_json::{Value, json};

/// The paths of GET, for suggestions.
pub(super) const GET_PATHS: [&str; 3] = ["accounts", "actions", "identities"];
/// The paths of POST, for suggestions.
pub(super) const POST_PATHS: [&str; 4] = ["actions/clear", "identities", "identities/remove", "sessions"];

/// A user or a role with its policy.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IdentityRequest {
    /// The account id; `None`: the session's own.
    account: Option<String>,
    /// The user's name; `None`: it is a role.
    user: Option<String>,
    /// The role's name or ARN; `None`: it is a user.
    role: Option<String>,
    /// The policy, as a document or as its text.
    policy: Value,
}

/// A session of a role, or the call of a service.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionRequest {
    /// The role's ARN; `None`: it is a service.
    role: Option<String>,
    /// The name of the role's session; `None`: `session`.
    session: Option<String>,
    /// The service's name, such as `codebuild.amazonaws.com`; `None`: it is a role.
    service: Option<String>,
    /// The account on whose behalf the service calls.
    source_account: Option<String>,
    /// The resource on whose behalf the service calls.
    source_arn: Option<String>,
}

/// The answer to a GET; `None`: there is no such path.
pub(super) fn get(shared: &Shared, path: &str) -> Option<Value> {
    match path {
        "accounts" => Some(shared.read(accounts)),
        "actions" => Some(shared.read(|state| state.actions.show())),
        "identities" => Some(shared.read(|state| {
            let identities: Vec<Value> = state.ecr.identities().iter().map(show).collect();
            json!({"identities": identities})
        })),
        _ => None,
    }
}

/// All accounts with the addresses of their registries.
fn accounts(state: &State) -> Value {
    let account = |account: &str| {
        let host = state.ecr.registry(account).map(|registry| registry.host.clone());
        json!({"account": account, "registry": host, "accessKeyId": account})
    };
    json!({"accounts": state.ecr.accounts().map(account).collect::<Vec<_>>()})
}

fn show(identity: &Identity) -> Value {
    let policy: Value = serde_json::from_str(identity.policy.text()).unwrap_or_default();
    json!({"arn": identity.arn, "account": identity.account, "policy": policy, "accessKeyId": identity.access_key_id})
}

/// Adds a user or changes its policy, or gives a role a policy.
pub(super) fn put_identity(shared: &Shared, request: &IdentityRequest) -> Result<Value, String> {
    let document = match &request.policy {
        Value::String(text) => text.clone(),
        document => document.to_string(),
    };
    let policy = Policy::for_identity(&document).map_err(|problem| format!("policy: {problem}"))?;
    let named_account = request.role.as_deref().and_then(role_parts).map(|(account, _)| account.to_owned());
    let account = named_account.or_else(|| request.account.clone()).unwrap_or_else(|| shared.options.account.clone());
    let put = |state: &mut State| match (&request.user, &request.role) {
        (Some(_), Some(_)) | (None, None) => Err("needed: user, or role, and not both".to_owned()),
        _ if state.ecr.registry(&account).is_none() => Err(no_account(state)),
        (Some(user), None) => {
            let new = shared.keys.new_access_key_id();
            let id = state.ecr.identities_mut().put_user(&account, user, policy, &new).map_err(text)?;
            let secret = shared.keys.secret_of_id(&id);
            let arn = user_arn(&account, user);
            Ok(json!({"arn": arn, "accessKeyId": id, "secretAccessKey": secret.expose()}))
        }
        (None, Some(role)) => {
            let arn = state.ecr.identities_mut().put_role(&account, role, policy, true).map_err(text)?;
            Ok(json!({"arn": arn}))
        }
    };
    shared.change(put)
}

fn no_account(state: &State) -> String {
    let known: Vec<&str> = state.ecr.accounts().collect();
    format!("account: there is no such account; there are: {}", known.join(", "))
}

fn text(error: EcrError) -> String {
    error.to_string()
}

/// Removes a user, or the policy of a role.
pub(super) fn remove_identity(shared: &Shared, body: &Value) -> Result<Value, String> {
    let arn = body["arn"].as_str().ok_or("arn: the ARN of a user or a role")?;
    match shared.change(|state| state.ecr.remove_identity(arn)) {
        true => Ok(json!({"ok": true, "note": "a role without a policy may do everything here"})),
        false => {
            Err("arn: there is no user or role with this ARN and a policy; GET /_local/identities lists them"
                .to_owned())
        }
    }
}

/// New keys of a role's session or of a service.
pub(super) fn session(shared: &Shared, request: &SessionRequest) -> Result<Value, String> {
    let signer = match (&request.role, &request.service) {
        (Some(role), None) if request.source_account.is_none() && request.source_arn.is_none() => {
            let session = request.session.as_deref().unwrap_or("session");
            role_signer(shared, role, session)?
        }
        (None, Some(service)) if request.session.is_none() => service_signer(service, request)?,
        _ => return Err("needed: role (and session), or service (and sourceAccount, sourceArn)".to_owned()),
    };
    let keys = shared.keys.temporary(&signer);
    Ok(json!({
        "accessKeyId": keys.access_key_id,
        "secretAccessKey": keys.secret_access_key.expose(),
        "sessionToken": keys.session_token.expose(),
    }))
}

fn role_signer(shared: &Shared, role: &str, session: &str) -> Result<Signer, String> {
    let arn = if is_name(role) { role_arn(&shared.options.account, role) } else { role.to_owned() };
    let (account, _) = role_parts(&arn).ok_or("role: the ARN of a role, or the name of one of the own account")?;
    if !is_name(session) {
        return Err("session: 1 to 64 letters, digits and characters of _+=,.@-".to_owned());
    }
    match shared.read(|state| state.ecr.registry(account).is_some().then_some(()).ok_or_else(|| no_account(state))) {
        Ok(()) => Ok(Signer::role(&arn, session)),
        Err(problem) => Err(problem),
    }
}

fn service_signer(service: &str, request: &SessionRequest) -> Result<Signer, String> {
    if !is_service_name(service) {
        return Err("service: the name of an AWS service, such as codebuild.amazonaws.com".to_owned());
    }
    let (account, arn) = (request.source_account.as_deref(), request.source_arn.as_deref());
    if !account.is_none_or(is_account) {
        return Err("sourceAccount: an account id of 12 digits".to_owned());
    }
    if !arn.is_none_or(is_arn) {
        return Err(format!("sourceArn: an ARN of six parts, up to {MAX_ARN} bytes without spaces"));
    }
    Ok(Signer::service(service, account, arn))
}
