//! The users and roles that have a policy, and the access keys of users. Invariants: there are at most [`MAX_IDENTITIES`]; no
//! secret is stored here. Administrators may do everything, and so may a role without a policy; a user may do what its policy
//! allows. As in IAM, a name is unique in its account, in any case of letters and with any path.

use super::error::EcrError;
use super::policy::{Decision, Policy, Request};
use super::principal::{Kind, Principal, is_name, is_reserved, role_arn, role_parts, user_arn};
use std::collections::BTreeMap;

/// Maximum number of users and roles with a policy.
pub(crate) const MAX_IDENTITIES: usize = 500;

/// A user or a role with a policy.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The account id.
    pub(crate) account: String,
    pub(crate) arn: String,
    /// The user's name; `None`: it is a role.
    pub(crate) user: Option<String>,
    pub(crate) policy: Policy,
    /// The access key id of a user; `None` for a role, whose keys are temporary.
    pub(crate) access_key_id: Option<String>,
    /// A directory keeps it. The policy that an option gives is for one session.
    pub(crate) is_kept: bool,
}

/// All users and roles with a policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    /// By ARN without path, in lower case.
    entries: BTreeMap<String, Identity>,
    /// The users of permanent access keys, by access key id.
    keys: BTreeMap<String, Principal>,
}

impl Identities {
    /// All identities.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.entries.values()
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
        let known = self.entries.get(&key(&arn));
        let (name, access_key_id) =
            match known.and_then(|known| Some((known.user.clone()?, known.access_key_id.clone()?))) {
                Some(known) => known,
                None => (name.to_owned(), access_key_id.to_owned()),
            };
        let (account, arn) = (account.to_owned(), user_arn(account, &name));
        let principal = Principal::user(&account, &name);
        let access_key = Some(access_key_id.clone());
        self.put(Identity { account, arn, user: Some(name), policy, access_key_id: access_key, is_kept: true })?;
        self.keys.insert(access_key_id.clone(), principal);
        Ok(access_key_id)
    }

    /// Gives a role a policy. `role` is its name or its ARN. `is_kept`: also for later sessions, if there is a directory. Returns
    /// the ARN.
    ///
    /// # Errors
    /// When the name is wrong, or there are too many.
    pub(crate) fn put_role(
        &mut self,
        account: &str,
        role: &str,
        policy: Policy,
        is_kept: bool,
    ) -> Result<String, EcrError> {
        let (account, arn) = match role_parts(role) {
            Some((account, _)) => (account.to_owned(), role.to_owned()),
            None if is_name(role) => (account.to_owned(), role_arn(account, role)),
            None => return Err(EcrError::invalid("role", "the ARN of a role, or its name")),
        };
        let shown = arn.clone();
        self.put(Identity { account, arn, user: None, policy, access_key_id: None, is_kept })?;
        Ok(shown)
    }

    fn put(&mut self, identity: Identity) -> Result<(), EcrError> {
        let key = key(&identity.arn);
        if self.entries.len() >= MAX_IDENTITIES && !self.entries.contains_key(&key) {
            return Err(EcrError::Limit(format!("There are {MAX_IDENTITIES} users and roles with a policy already.")));
        }
        self.entries.insert(key, identity);
        Ok(())
    }

    /// Removes a user with its access key, or the policy of a role. Returns whether there was one.
    pub(super) fn remove(&mut self, arn: &str) -> bool {
        let Some(identity) = self.entries.remove(&key(arn)) else { return false };
        if let Some(access_key_id) = identity.access_key_id {
            self.keys.remove(&access_key_id);
        }
        true
    }

    /// The user with this permanent access key.
    pub(super) fn owner(&self, access_key_id: &str) -> Option<Principal> {
        self.keys.get(access_key_id).cloned()
    }

    /// The user exists.
    pub(super) fn has_user(&self, user: &Principal) -> bool {
        self.entries.contains_key(&key(user.arn()))
    }

    /// What the caller's own policies say of a request.
    pub(super) fn decide(&self, request: &Request<'_>) -> Decision {
        let entry = self.entries.get(&key(request.principal.identity_arn()));
        match (request.principal.kind(), entry) {
            (Kind::Administrator, _) | (Kind::Role(_), None) => Decision::Allowed,
            (Kind::Service { .. }, _) | (Kind::User, None) => Decision::NotMentioned,
            (Kind::User | Kind::Role(_), Some(identity)) => identity.policy.decide(request),
        }
    }
}

/// The ARN of a user or a role without its path, in lower case.
fn key(arn: &str) -> String {
    let (prefix, path) = arn.split_once('/').unwrap_or((arn, ""));
    format!("{prefix}/{}", path.rsplit('/').next().unwrap_or(path)).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "123456789012";

    fn nothing() -> Policy {
        let text = r#"{"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}"#;
        Policy::for_identity(text).unwrap()
    }

    fn decide(identities: &Identities, caller: &Principal) -> Decision {
        identities.decide(&Request::new(caller, "ecr:PutImage", "*", ACCOUNT))
    }

    #[test]
    fn a_policy_counts_for_a_role_with_any_path() {
        let mut identities = Identities::default();
        let arn = |path: &str| format!("arn:aws:iam::{ACCOUNT}:role/{path}");
        identities.put_role(ACCOUNT, "execRole", nothing(), true).unwrap();
        for path in ["execRole", "service-role/execRole", "a/b/EXECROLE"] {
            let caller = Principal::role(&arn(path), "s", ACCOUNT);
            assert_eq!(decide(&identities, &caller), Decision::Denied, "{path}");
        }
        for role in [arn("other"), arn("execRole/x"), "arn:aws:iam::210987654321:role/execRole".to_owned()] {
            assert_eq!(decide(&identities, &Principal::role(&role, "s", ACCOUNT)), Decision::Allowed, "{role}");
        }
        assert!(identities.remove(&arn("execRole")) && !identities.remove(&arn("execRole")));
    }

    #[test]
    fn a_user_keeps_its_access_key() {
        let mut identities = Identities::default();
        assert_eq!(identities.put_user(ACCOUNT, "alice", nothing(), "AKIA1"), Ok("AKIA1".to_owned()));
        assert_eq!(identities.put_user(ACCOUNT, "Alice", nothing(), "AKIA2"), Ok("AKIA1".to_owned()));
        assert_eq!(identities.owner("AKIA1"), Some(Principal::user(ACCOUNT, "alice")));
        assert_eq!(identities.owner("AKIA2"), None);
        for name in ["", "a b", "administrator", "a/b", &"a".repeat(65)] {
            assert!(identities.put_user(ACCOUNT, name, nothing(), "AKIA3").is_err(), "{name}");
        }
    }

    #[test]
    fn the_number_of_identities_is_bounded() {
        let mut identities = Identities::default();
        for number in 0..MAX_IDENTITIES {
            identities.put_user(ACCOUNT, &format!("user{number}"), nothing(), &format!("AKIA{number}")).unwrap();
        }
        assert!(identities.put_user(ACCOUNT, "more", nothing(), "AKIA").is_err());
        assert_eq!(identities.owner("AKIA"), None);
        assert!(identities.put_user(ACCOUNT, "user0", nothing(), "AKIA").is_ok());
    }
}
