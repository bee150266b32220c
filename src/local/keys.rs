//! The access keys of this control plane: the token of its user, and the temporary keys of roles. This module owns the token and
//! everything that is derived from it; [`super::signature`] checks signatures. Invariant: nothing is stored for a role. The
//! secret and session token of a role are computed from the access key id, so the number of keys needs no limit.

use super::ids::new_id;
use aws_sigv4::sign::v4::calculate_signature;
use ecs_core::model::Secret;
use subtle::ConstantTimeEq;

/// The beginning of a role's access key id, as in AWS. All other ids are names that the user chose.
const ROLE_PREFIX: &str = "ASIA";
/// Random characters in a role's access key id.
const RANDOM_LENGTH: usize = 12;
/// Characters at the end of a role's access key id that show which session made it.
const MARK_LENGTH: usize = 4;

/// The token, and the keys that are derived from it.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    token: Secret,
}

/// Temporary keys of a role, with a session token, as in AWS.
pub(super) struct RoleKeys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    pub(super) session_token: Secret,
}

impl Keys {
    /// The keys of a session with this token; `None`: a random one.
    pub(super) fn new(token: Option<Secret>) -> Self {
        Self { token: token.filter(|token| !token.is_empty()).unwrap_or_else(|| Secret::new(new_id())) }
    }

    /// The token itself.
    pub(super) fn token(&self) -> &Secret {
        &self.token
    }

    /// The text equals the token.
    pub(super) fn is_token(&self, text: &str) -> bool {
        is_equal(text, self.token.expose())
    }

    /// New keys for a role.
    pub(super) fn role(&self) -> RoleKeys {
        let random = &new_id().to_uppercase()[..RANDOM_LENGTH];
        self.role_of(&format!("{ROLE_PREFIX}{random}{}", self.mark(random)))
    }

    fn role_of(&self, access_key_id: &str) -> RoleKeys {
        RoleKeys {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(self.derived("secret", access_key_id)),
            session_token: Secret::new(self.derived("session", access_key_id)),
        }
    }

    /// The secret of an access key id; `None`: this session did not make such keys. Keys of a role are valid only with their
    /// session token.
    pub(super) fn secret(&self, access_key_id: &str, session_token: &str) -> Option<Secret> {
        let Some(rest) = access_key_id.strip_prefix(ROLE_PREFIX) else { return Some(self.token.clone()) };
        let (random, mark) = rest.split_at_checked(RANDOM_LENGTH)?;
        let role = self.role_of(access_key_id);
        let is_ours = is_equal(mark, &self.mark(random)) & is_equal(session_token, role.session_token.expose());
        is_ours.then_some(role.secret_access_key)
    }

    /// The access key id belongs to a role, not to the user.
    pub(super) fn is_role(access_key_id: &str) -> bool {
        access_key_id.starts_with(ROLE_PREFIX)
    }

    fn mark(&self, random: &str) -> String {
        self.derived("id", random)[..MARK_LENGTH].to_uppercase()
    }

    fn derived(&self, purpose: &str, text: &str) -> String {
        calculate_signature(self.token.expose(), format!("ecs-local {purpose} {text}").as_bytes())
    }
}

/// Compares in constant time, so that the time does not show how much of the texts is equal.
pub(super) fn is_equal(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_role_are_good_in_their_session_only() {
        let (keys, other) = (Keys::new(Some("a token".into())), Keys::new(None));
        let role = keys.role();
        let (id, session) = (role.access_key_id.as_str(), role.session_token.expose());
        assert_eq!(id.len(), 20, "{id}");
        assert_eq!(keys.secret(id, session), Some(role.secret_access_key.clone()));
        assert_eq!(keys.secret(id, ""), None, "without its session token");
        assert_eq!(keys.secret(id, keys.role().session_token.expose()), None, "with the session token of another");
        assert_eq!(other.secret(id, session), None, "of another session");
        assert_eq!(keys.secret("ASIA", ""), None);
        assert_eq!(keys.secret("ASIAäöüäöüäöü", ""), None);
        assert!(Keys::is_role(id) && !Keys::is_role("local"));
        assert_ne!(keys.role().access_key_id, role.access_key_id);
    }

    #[test]
    fn a_name_of_the_user_has_the_token_as_its_secret() {
        let keys = Keys::new(Some("a token".into()));
        assert_eq!(keys.secret("local", ""), Some("a token".into()));
        assert!(keys.is_token("a token"));
        assert!(!keys.is_token("a toke") && !keys.is_token("a tokem") && !keys.is_token(""));
    }

    #[test]
    fn a_session_without_a_token_makes_one_up() {
        let (first, second) = (Keys::new(None), Keys::new(Some("".into())));
        assert_eq!((first.token().expose().len(), second.token().expose().len()), (32, 32));
        assert!(!first.is_token(second.token().expose()));
    }
}
