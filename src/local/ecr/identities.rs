//! The users and roles that have a policy, and the access keys of users. Invariants: there are at most [`MAX_IDENTITIES`]; no
//! secret is stored here. Administrators may do everything, and so may a role without a policy; a user may do what its policy
//! allows.

use super::error::EcrError;
use super::policy::{Decision, Policy, Request};
use super::principal::{Kind, Principal, is_name, is_reserved, role_arn, role_parts, user_arn};
use crate::keys::Signer;
use std::collections::BTreeMap;

/// Maximum number of users and roles with a policy.
pub(crate) const MAX_IDENTITIES: usize = 500;

/// A user or a role with a policy.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The account id.
    pub(crate) account: String,
    /// The user's name; `None`: it is a role.
    pub(crate) user: Option<String>,
    pub(crate) policy: Policy,
    /// The access key id of a user; `None` for a role, whose keys are temporary.
    pub(crate) access_key_id: Option<String>,
}

/// All users and roles with a policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    /// By ARN.
    entries: BTreeMap<String, Identity>,
    /// The callers of permanent access keys, by access key id.
    keys: BTreeMap<String, Principal>,
}

impl Identities {
    /// All identities, by ARN.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Identity)> {
        self.entries.iter().map(|(arn, identity)| (arn.as_str(), identity))
    }

    /// Adds a user, or changes its policy. `access_key_id` is for a new user. Returns its access key id.
    ///
    /// # Errors
    /// When the name is wrong or taken, or there are too many.
    pub(crate) fn put_user(
        &mut self,
        account: &str,
        name: &str,
        policy: Policy,
        access_key_id: &str,
    ) -> Result<String, EcrError> {
        if !is_name(name) || is_reserved(name) {
            let constraint = "1 to 64 letters, digits and characters of _+=,.@-, and not `administrator`";
            return Err(EcrError::invalid("user", constraint));
        }
        let arn = user_arn(account, name);
        let known = self.entries.get(&arn).and_then(|identity| identity.access_key_id.clone());
        let access_key_id = known.unwrap_or_else(|| access_key_id.to_owned());
        let (account, user) = (account.to_owned(), Some(name.to_owned()));
        self.keys.insert(access_key_id.clone(), Principal::user(&account, name));
        let identity = Identity { account, user, policy, access_key_id: Some(access_key_id.clone()) };
        self.put(arn, identity).inspect_err(|_| drop(self.keys.remove(&access_key_id)))?;
        Ok(access_key_id)
    }

    /// Gives a role a policy. `role` is its name or its ARN. Returns the ARN.
    ///
    /// # Errors
    /// When the name is wrong, or there are too many.
    pub(crate) fn put_role(&mut self, account: &str, role: &str, policy: Policy) -> Result<String, EcrError> {
        let (account, arn) = match role_parts(role) {
            Some((account, _)) => (account.to_owned(), role.to_owned()),
            None if is_name(role) => (account.to_owned(), role_arn(account, role)),
            None => return Err(EcrError::invalid("role", "the ARN of a role, or its name")),
        };
        self.put(arn.clone(), Identity { account, user: None, policy, access_key_id: None })?;
        Ok(arn)
    }

    fn put(&mut self, arn: String, identity: Identity) -> Result<(), EcrError> {
        if self.entries.len() >= MAX_IDENTITIES && !self.entries.contains_key(&arn) {
            return Err(EcrError::Limit(format!("There are {MAX_IDENTITIES} users and roles with a policy already.")));
        }
        self.entries.insert(arn, identity);
        Ok(())
    }

    /// Removes a user with its access key, or the policy of a role. Returns whether there was one.
    pub(crate) fn remove(&mut self, arn: &str) -> bool {
        let Some(identity) = self.entries.remove(arn) else { return false };
        if let Some(access_key_id) = identity.access_key_id {
            self.keys.remove(&access_key_id);
        }
        true
    }

    /// The caller whose signature was checked; `None`: its user was removed. `own` is the account of this session, `is_account`
    /// says which others there are.
    pub(crate) fn caller(&self, signer: &Signer, own: &str, is_account: impl Fn(&str) -> bool) -> Option<Principal> {
        match signer {
            Signer::User { account } => {
                let account = account.as_deref().filter(|account| is_account(account));
                Some(Principal::administrator(account.unwrap_or(own)))
            }
            Signer::Identity(access_key_id) => self.keys.get(access_key_id).cloned(),
            Signer::Role { role, session } => Some(Principal::role(role, session, own)),
            Signer::Service { service, source_account, source_arn } => {
                Some(Principal::service(service, source_account.as_deref(), source_arn.as_deref()))
            }
        }
    }

    /// What the caller's own policies say of a request.
    pub(crate) fn decide(&self, request: &Request<'_>) -> Decision {
        let entry = self.entries.get(request.principal.identity_arn());
        match (request.principal.kind(), entry) {
            (Kind::Administrator, _) | (Kind::Role(_), None) => Decision::Allowed,
            (Kind::Service { .. }, _) | (Kind::User, None) => Decision::NotMentioned,
            (Kind::User | Kind::Role(_), Some(identity)) => identity.policy.decide(request),
        }
    }
}
