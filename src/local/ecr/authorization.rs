//! Callers and what they may do: the join of identities, tokens and the policies of repositories. This module changes no
//! repository. Invariant: a policy is looked up at each request, so that a change of it counts at once, for tokens too.

use super::access;
use super::action::Action;
use super::error::{Denial, EcrError};
use super::identities::Identities;
use super::policy::{Policy, Request};
use super::principal::{Kind, Principal};
use super::service::Ecr;
use super::tokens::TokenError;
use crate::keys::Signer;

/// Nobody is the caller of a request, although its signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoCaller {
    /// The access key id is an account id, but there is no such account here.
    UnknownAccount(String),
    /// The user was removed.
    Removed,
}

impl Ecr {
    /// The caller whose signature was checked.
    ///
    /// # Errors
    /// When there is no such account, or the user was removed.
    pub(crate) fn caller(&self, signer: &Signer) -> Result<Principal, NoCaller> {
        match signer {
            Signer::User { account: None } => Ok(Principal::administrator(&self.own)),
            Signer::User { account: Some(account) } => match self.registries.contains_key(account) {
                true => Ok(Principal::administrator(account)),
                false => Err(NoCaller::UnknownAccount(account.clone())),
            },
            Signer::Identity(access_key_id) => self.identities.owner(access_key_id).ok_or(NoCaller::Removed),
            Signer::Role { role, session } => Ok(Principal::role(role, session, &self.own)),
            Signer::Service { service, source_account, source_arn } => {
                Ok(Principal::service(service, source_account.as_deref(), source_arn.as_deref()))
            }
        }
    }

    /// Users and roles with a policy.
    pub(crate) fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Users and roles with a policy, for a change.
    pub(crate) fn identities_mut(&mut self) -> &mut Identities {
        self.touch();
        &mut self.identities
    }

    /// Removes a user with its access key and tokens, or the policy of a role. Returns whether there was one.
    pub(crate) fn remove_identity(&mut self, arn: &str) -> bool {
        let is_removed = self.identities.remove(arn);
        if is_removed {
            self.touch();
            self.tokens.remove_user(arn);
        }
        is_removed
    }

    /// Adds a token of a caller, who logs in with the user name `AWS` and this password. It is valid from `now` for `ttl`
    /// seconds.
    pub(crate) fn add_token(&mut self, principal: Principal, password: &str, now: f64, ttl: f64) {
        self.touch();
        self.tokens.add(principal, password, now, ttl);
    }

    /// The caller of `docker`, by user name and password of a token.
    ///
    /// # Errors
    /// When it is no token, its user was removed, or its time is over.
    pub(crate) fn principal(&self, user: &str, password: &str, now: f64) -> Result<Principal, TokenError> {
        let principal = self.tokens.principal(user, password, now)?;
        match principal.kind() {
            Kind::User if !self.identities.has_user(&principal) => Err(TokenError::Unknown),
            _ => Ok(principal),
        }
    }

    /// The caller may perform the action on the repository, and it exists. This records nothing.
    ///
    /// # Errors
    /// The missing permission, or else that there is no such repository: nobody learns what exists without a permission.
    pub(crate) fn authorize(
        &self,
        caller: &Principal,
        action: Action,
        account: &str,
        repository: &str,
    ) -> Result<(), EcrError> {
        self.permit(caller, action, account, repository).map_err(EcrError::Denied)?;
        match self.find(account, repository) {
            Some(_) => Ok(()),
            None => Err(self.missing(account, repository, action.is_pull())),
        }
    }

    /// The caller may perform the action on the repository, whether it exists or not.
    ///
    /// # Errors
    /// The missing permission.
    pub(crate) fn permit(
        &self,
        caller: &Principal,
        action: Action,
        account: &str,
        repository: &str,
    ) -> Result<(), Denial> {
        let arn = self.arn(account, repository);
        let policy = self.find(account, repository).and_then(|repository| repository.policy.as_ref());
        self.decide(&Request::new(caller, action.name(), &arn, account), policy)
    }

    /// The caller may perform the request on a resource with this policy; `None`: the resource has none.
    ///
    /// # Errors
    /// The missing permission.
    pub(crate) fn decide(&self, request: &Request<'_>, policy: Option<&Policy>) -> Result<(), Denial> {
        access::decide(request, self.identities.decide(request), policy)
    }
}
