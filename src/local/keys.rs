//! The access keys of this control plane: the token of its user, the permanent keys of further users, and the temporary keys of
//! roles and services. This module owns the token and everything that is derived from it; [`super::signature`] checks
//! signatures. Invariant: nothing is stored for a key. Its secret is computed from the access key id, and whose temporary key it
//! is stands in the session token, so the number of keys needs no limit.

use super::ids::new_id;
use aws_sigv4::sign::v4::calculate_signature;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ecs_core::model::Secret;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// The beginning of a temporary access key id, as in AWS.
const TEMPORARY_PREFIX: &str = "ASIA";
/// The beginning of a permanent access key id, as in AWS. All other ids are names that the user chose.
const PERMANENT_PREFIX: &str = "AKIA";
/// Characters in an access key id between the prefix and the mark.
const MIDDLE_LENGTH: usize = 12;
/// Characters at the end of an access key id that show which session made it.
const MARK_LENGTH: usize = 4;
/// The longest name or ARN in a session token, in characters.
const MAX_NAME: usize = 2048;

/// The token, and the keys that are derived from it.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    token: Secret,
}

/// Whose key signed a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Signer {
    /// The user of the session, with its token: the administrator of an account.
    User {
        /// The account id, which is the access key id; `None`: the access key id is any other name, and the account the session's
        /// own.
        account: Option<String>,
    },
    /// The identity with this permanent access key id.
    Identity(String),
    /// A session of a role.
    Role {
        /// The role's ARN, as the task definition or the metadata has it.
        role: String,
        /// The name of the session.
        session: String,
    },
    /// An AWS service.
    #[serde(rename_all = "camelCase")]
    Service {
        /// Its name, such as `codebuild.amazonaws.com`.
        service: String,
        /// The account on whose behalf it calls; `None`: of nobody in particular.
        source_account: Option<String>,
        /// The resource on whose behalf it calls; `None`: of nothing in particular.
        source_arn: Option<String>,
    },
}

/// Temporary keys, with a session token, as in AWS.
pub(super) struct TemporaryKeys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    pub(super) session_token: Secret,
}

impl Signer {
    /// A session of a role.
    pub(super) fn role(role: &str, session: &str) -> Self {
        Self::Role { role: bounded(role), session: bounded(session) }
    }

    /// An AWS service, on behalf of an account and a resource.
    pub(super) fn service(service: &str, source_account: Option<&str>, source_arn: Option<&str>) -> Self {
        let (source_account, source_arn) = (source_account.map(bounded), source_arn.map(bounded));
        Self::Service { service: bounded(service), source_account, source_arn }
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
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

    /// New temporary keys of a role or a service.
    pub(super) fn temporary(&self, signer: &Signer) -> TemporaryKeys {
        let access_key_id = self.marked(TEMPORARY_PREFIX, &new_id().to_uppercase());
        let content = URL_SAFE_NO_PAD.encode(serde_json::to_string(signer).unwrap_or_default());
        TemporaryKeys {
            secret_access_key: self.secret_of_id(&access_key_id),
            session_token: Secret::new(self.session_token(&access_key_id, &content)),
            access_key_id,
        }
    }

    /// The id of a new permanent access key.
    pub(super) fn new_access_key_id(&self) -> String {
        self.marked(PERMANENT_PREFIX, &new_id().to_uppercase())
    }

    /// The secret of an access key id that this session made.
    pub(super) fn secret_of_id(&self, access_key_id: &str) -> Secret {
        Secret::new(self.derived("secret", access_key_id))
    }

    /// The secret of an access key id, and whose it is; `None`: this session did not make such keys. Temporary keys are valid
    /// only with their session token.
    pub(super) fn signer(&self, access_key_id: &str, session_token: &str) -> Option<(Secret, Signer)> {
        if access_key_id.starts_with(TEMPORARY_PREFIX) {
            let (content, _) = session_token.rsplit_once('.')?;
            let is_ours =
                self.has_mark(access_key_id) & is_equal(session_token, &self.session_token(access_key_id, content));
            let signer = is_ours.then(|| URL_SAFE_NO_PAD.decode(content).ok())??;
            return Some((self.secret_of_id(access_key_id), serde_json::from_slice(&signer).ok()?));
        }
        // A user may have an id of AWS in its environment: the token is its secret like that of any other name.
        match access_key_id.starts_with(PERMANENT_PREFIX) && self.has_mark(access_key_id) {
            true => Some((self.secret_of_id(access_key_id), Signer::Identity(access_key_id.to_owned()))),
            false => {
                let account = is_account(access_key_id).then(|| access_key_id.to_owned());
                Some((self.token.clone(), Signer::User { account }))
            }
        }
    }

    /// The signature of an address that may be opened until a time without further credentials.
    pub(super) fn address_signature(&self, path: &str, expires_at: u64) -> String {
        self.derived("address", &format!("{expires_at} {path}"))
    }

    /// The signature of an address is right. The caller checks the time.
    pub(super) fn is_address_signature(&self, path: &str, expires_at: u64, signature: &str) -> bool {
        is_equal(signature, &self.address_signature(path, expires_at))
    }

    fn session_token(&self, access_key_id: &str, content: &str) -> String {
        format!("{content}.{}", self.derived("session", &format!("{access_key_id} {content}")))
    }

    /// An access key id with a mark at its end. `letters` has at least [`MIDDLE_LENGTH`].
    fn marked(&self, prefix: &str, letters: &str) -> String {
        let middle: String = letters.chars().take(MIDDLE_LENGTH).collect();
        format!("{prefix}{middle}{}", self.mark(&middle))
    }

    fn has_mark(&self, access_key_id: &str) -> bool {
        let parts = access_key_id.split_at_checked(TEMPORARY_PREFIX.len());
        let parts = parts.and_then(|(_, rest)| rest.split_at_checked(MIDDLE_LENGTH));
        parts.is_some_and(|(middle, mark)| is_equal(mark, &self.mark(middle)))
    }

    fn mark(&self, middle: &str) -> String {
        self.derived("id", middle)[..MARK_LENGTH].to_uppercase()
    }

    fn derived(&self, purpose: &str, text: &str) -> String {
        calculate_signature(self.token.expose(), format!("ecs-local {purpose} {text}").as_bytes())
    }
}

/// The access key id is an account id: 12 digits.
fn is_account(access_key_id: &str) -> bool {
    access_key_id.len() == 12 && access_key_id.bytes().all(|c| c.is_ascii_digit())
}

/// Compares in constant time, so that the time does not show how much of the texts is equal.
pub(super) fn is_equal(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role() -> Signer {
        Signer::role("arn:aws:iam::123456789012:role/app", "task")
    }

    #[test]
    fn temporary_keys_are_good_in_their_session_only() {
        let (keys, other) = (Keys::new(Some("a token".into())), Keys::new(None));
        let made = keys.temporary(&role());
        let (id, session) = (made.access_key_id.as_str(), made.session_token.expose());
        assert_eq!(id.len(), 20, "{id}");
        assert_eq!(keys.signer(id, session), Some((made.secret_access_key.clone(), role())));
        assert_eq!(keys.signer(id, ""), None, "without its session token");
        assert_eq!(keys.signer(id, keys.temporary(&role()).session_token.expose()), None, "with that of another key");
        assert_eq!(other.signer(id, session), None, "of another session");
        assert_eq!(keys.signer("ASIA", ""), None);
        assert_eq!(keys.signer("ASIAäöüäöüäöü", "."), None);
        assert_ne!(keys.temporary(&role()).access_key_id, made.access_key_id);
    }

    #[test]
    fn a_changed_session_token_is_no_session_token() {
        let keys = Keys::new(None);
        let made = keys.temporary(&role());
        let (_, signature) = made.session_token.expose().rsplit_once('.').unwrap();
        let user = Signer::User { account: None };
        let other = URL_SAFE_NO_PAD.encode(serde_json::to_string(&user).unwrap());
        assert_eq!(keys.signer(&made.access_key_id, &format!("{other}.{signature}")), None);
        assert_eq!(keys.signer(&made.access_key_id, signature), None);
    }

    #[test]
    fn a_mark_separates_permanent_keys_from_names() {
        let (keys, other) = (Keys::new(Some("a token".into())), Keys::new(None));
        let id = keys.new_access_key_id();
        assert_eq!(id.len(), 20, "{id}");
        assert_eq!(keys.signer(&id, ""), Some((keys.secret_of_id(&id), Signer::Identity(id.clone()))));
        let user = Signer::User { account: None };
        assert_eq!(other.signer(&id, "").map(|(_, signer)| signer), Some(user), "a name for another session");
        assert_ne!(keys.secret_of_id(&keys.new_access_key_id()), keys.secret_of_id(&id));
    }

    #[test]
    fn a_name_of_the_user_has_the_token_as_its_secret() {
        let keys = Keys::new(Some("a token".into()));
        for (name, account) in [
            ("local", None),
            ("AKIAIOSFODNN7EXAMPLE", None),
            ("AKIA", None),
            ("", None),
            ("333333444444", Some("333333444444")),
        ] {
            let user = Signer::User { account: account.map(str::to_owned) };
            assert_eq!(keys.signer(name, ""), Some(("a token".into(), user)), "{name}");
        }
        assert!(keys.is_token("a token"));
        assert!(!keys.is_token("a toke") && !keys.is_token("a tokem") && !keys.is_token(""));
    }

    #[test]
    fn the_signature_of_an_address_is_for_its_path_and_time() {
        let keys = Keys::new(None);
        let signature = keys.address_signature("/v2/app/blobs/x", 100);
        assert!(keys.is_address_signature("/v2/app/blobs/x", 100, &signature));
        assert!(!keys.is_address_signature("/v2/app/blobs/y", 100, &signature));
        assert!(!keys.is_address_signature("/v2/app/blobs/x", 101, &signature));
        assert!(!keys.is_address_signature("/v2/app/blobs/x", 100, ""));
    }

    #[test]
    fn a_session_without_a_token_makes_one_up() {
        let (first, second) = (Keys::new(None), Keys::new(Some("".into())));
        assert_eq!((first.token().expose().len(), second.token().expose().len()), (32, 32));
        assert!(!first.is_token(second.token().expose()));
    }
}
