//! Who makes a request to the registry, and whether it may do so. This module owns the reading of credentials; [`crate::ecr`] decides.
//! Invariant: every decision is recorded.

use super::addresses::account_at;
use super::error::RegistryError;
use crate::answers::header_text;
use crate::ecr::error::Place;
use crate::ecr::{Action, EcrError, Principal, TokenError};
use crate::shared::Shared;
use crate::state::State;
use base64::Engine;
use http::{HeaderMap, header};
use std::net::SocketAddr;

/// The longest password that is looked up, in bytes.
const MAX_PASSWORD: usize = 4096;

/// The caller of a request.
#[derive(Debug)]
pub(super) struct Caller {
    principal: Principal,
    /// The account id of the registry that the caller has connected to.
    pub(super) account: String,
}

/// The account id of the registry at the address `local`.
pub(super) fn account(shared: &Shared, local: SocketAddr) -> &str {
    account_at(&shared.options, shared.options.listen, local)
}

/// The query has the signature that ECR made for the address of this layer, and its time is not over.
pub(super) fn is_signed_address(
    shared: &Shared,
    account: &str,
    name: &str,
    digest: &str,
    query: &[(String, String)],
) -> bool {
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (Some(expires), Some(signature)) =
        (find("expires").and_then(|text| text.parse::<u64>().ok()), find("signature"))
    else {
        return false;
    };
    let path = format!("{account}/{name}/{digest}");
    let is_right = shared.keys.is_address_signature(&path, expires, signature);
    is_right && expires as f64 > shared.read(State::ecr_time)
}

/// The caller of a request that came in at the address `local`.
pub(super) fn caller(shared: &Shared, headers: &HeaderMap, local: SocketAddr) -> Result<Caller, RegistryError> {
    let account = account(shared, local).to_owned();
    let realm = format!("http://{}/", SocketAddr::new(local.ip().to_canonical(), local.port()));
    let Some((user, password)) = basic(header_text(headers, header::AUTHORIZATION.as_str())) else {
        return Err(RegistryError::unauthorized(&realm, "no basic auth credentials"));
    };
    let found = shared.read(|state| state.ecr.principal(&user, &password, state.ecr_time()));
    match found {
        Ok(principal) => Ok(Caller { principal, account }),
        Err(error @ TokenError::Expired) => Err(RegistryError::denied(error.to_string())),
        Err(error @ TokenError::Unknown) => Err(RegistryError::unauthorized(&realm, &error.to_string())),
    }
}

/// User and password of the header `Authorization`.
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 2 * MAX_PASSWORD {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

impl Caller {
    /// The caller may do this in a repository of the registry, which exists.
    pub(super) fn may(&self, shared: &Shared, action: Action, repository: &str) -> Result<(), RegistryError> {
        let decide = |state: &mut State| state.authorize_ecr(&self.principal, action, &self.account, repository);
        // Nobody waits for a line of the log.
        Ok(shared.change_if(|state| (decide(state), false))?)
    }

    /// The caller may do this in a repository. Nothing is recorded.
    pub(super) fn is_permitted(&self, shared: &Shared, action: Action, repository: &str) -> bool {
        shared.read(|state| state.ecr.permit(&self.principal, action, &self.account, repository).is_ok())
    }

    /// Before a pull: see [`State::pull_through`].
    pub(super) fn pull_through(&self, state: &mut State, repository: &str, reference: &str) -> Result<bool, EcrError> {
        let place = Place { account: self.account.clone(), repository: repository.to_owned() };
        state.pull_through(&self.principal, &place, reference)
    }

    /// The caller may list the repositories of the registry.
    pub(super) fn may_describe(&self, shared: &Shared) -> Result<(), RegistryError> {
        let action = Action::DESCRIBE_REPOSITORIES;
        let decide = |state: &mut State| state.permit_ecr(&self.principal, action, &self.account, "*");
        Ok(shared.change_if(|state| (decide(state), false))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_user_and_password() {
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let pair = |value: &str| basic(value).map(|(user, password)| format!("{user}/{password}"));
        assert_eq!(pair(&format!("Basic {}", encoded("AWS:a:b"))).as_deref(), Some("AWS/a:b"));
        assert_eq!(pair(&format!("basic {}", encoded("AWS:"))).as_deref(), Some("AWS/"));
        let long = format!("Basic {}", encoded(&format!("AWS:{}", "x".repeat(2 * MAX_PASSWORD))));
        let no_pair = format!("Basic {}", encoded("AWS"));
        for value in ["", "Basic", "Basic !", "Bearer QVdTOmE=", &long, &no_pair] {
            assert_eq!(pair(value), None, "{value}");
        }
    }
}
