//! Callers: administrators, users, sessions of roles, and AWS services. This module owns the forms of their ARNs. Invariant: a
//! caller holds no secret and no policy; its policy is looked up at each request, so that a change counts at once.

use super::names::is_account;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest name of a user, a role or a session, in bytes, as in IAM.
const MAX_NAME: usize = 64;
/// The longest ARN of a role, in bytes: IAM's paths have up to 512 characters.
const MAX_ROLE_ARN: usize = 620;
/// The longest ARN, in bytes, as in IAM.
pub(crate) const MAX_ARN: usize = 2048;
/// The name of an account's administrator.
const ADMINISTRATOR: &str = "administrator";

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Principal {
    kind: Kind,
    /// The account id; empty for a service.
    account: Arc<str>,
    /// The ARN that errors show; of a service, its name.
    arn: Arc<str>,
}

/// What a caller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// An account's administrator, who may do everything that no policy denies.
    Administrator,
    /// A user with a policy.
    User,
    /// A session of the role with this ARN.
    Role(Arc<str>),
    /// An AWS service, on behalf of this account and this resource; `None`: of nothing in particular.
    #[serde(rename_all = "camelCase")]
    Service { source_account: Option<Arc<str>>, source_arn: Option<Arc<str>> },
}

impl Principal {
    /// The administrator of an account.
    pub(crate) fn administrator(account: &str) -> Self {
        let arn = format!("arn:aws:iam::{account}:user/{ADMINISTRATOR}").into();
        Self { kind: Kind::Administrator, account: account.into(), arn }
    }

    /// A user of an account.
    pub(crate) fn user(account: &str, name: &str) -> Self {
        Self { kind: Kind::User, account: account.into(), arn: user_arn(account, name).into() }
    }

    /// A session of a role. A text that is no ARN of a role names a role of the account `own`.
    pub(crate) fn role(role: &str, session: &str, own: &str) -> Self {
        let (account, path) = role_parts(role).unwrap_or((own, role));
        let name = cleaned(path.rsplit('/').next().unwrap_or(path));
        let arn = match role_parts(role) {
            Some(_) => role.to_owned(),
            None => role_arn(account, &name),
        };
        let shown = format!("arn:aws:sts::{account}:assumed-role/{name}/{}", cleaned(session));
        Self { kind: Kind::Role(arn.into()), account: account.into(), arn: shown.into() }
    }

    /// An AWS service, such as `codebuild.amazonaws.com`.
    pub(crate) fn service(name: &str, source_account: Option<&str>, source_arn: Option<&str>) -> Self {
        let kind =
            Kind::Service { source_account: source_account.map(Arc::from), source_arn: source_arn.map(Arc::from) };
        Self { kind, account: "".into(), arn: name.into() }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The account id; empty for a service.
    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// The ARN that errors and records show; of a service, its name.
    pub(crate) fn arn(&self) -> &str {
        &self.arn
    }

    /// The ARN to which policies belong: for the session of a role, that of the role.
    pub(crate) fn identity_arn(&self) -> &str {
        match &self.kind {
            Kind::Role(arn) => arn,
            _ => &self.arn,
        }
    }

    pub(crate) fn is_service(&self) -> bool {
        matches!(self.kind, Kind::Service { .. })
    }
}

/// The ARN of a user.
pub(crate) fn user_arn(account: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:user/{name}")
}

/// The ARN of a role.
pub(crate) fn role_arn(account: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:role/{name}")
}

/// The account and the path with the name of a role's ARN; `None`: it is none.
pub(crate) fn role_parts(arn: &str) -> Option<(&str, &str)> {
    let (account, path) = arn.strip_prefix("arn:aws:iam::")?.split_once(":role/")?;
    (is_account(account) && arn.len() <= MAX_ROLE_ARN && path.split('/').all(is_name)).then_some((account, path))
}

/// The text is the name of a user or a role.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_letter)
}

/// The text is the name of an AWS service, such as `codebuild.amazonaws.com`.
pub(crate) fn is_service_name(text: &str) -> bool {
    let is_letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-".contains(&c);
    let ends = [".amazonaws.com", ".amazonaws.com.cn"];
    text.len() <= 255
        && text.bytes().all(is_letter)
        && ends.iter().any(|end| text.len() > end.len() && text.ends_with(end))
}

/// The text is the ARN of a resource: six parts, no spaces, and not too long.
pub(crate) fn is_arn(text: &str) -> bool {
    let has_parts = text.starts_with("arn:") && text.splitn(6, ':').count() == 6;
    has_parts && text.len() <= MAX_ARN && text.bytes().all(|c| c.is_ascii_graphic())
}

/// The name is that of an account's administrator, which always exists.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == ADMINISTRATOR
}

fn is_letter(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"_+=,.@-".contains(&c)
}

/// The text as a name: without letters that names do not have.
fn cleaned(text: &str) -> String {
    let name: String = text.chars().filter(|c| u8::try_from(*c).is_ok_and(is_letter)).take(MAX_NAME).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_shows_role_and_session() {
        let role = Principal::role("arn:aws:iam::123456789012:role/team/execRole", "0a1b", "999999999999");
        assert_eq!(role.arn(), "arn:aws:sts::123456789012:assumed-role/execRole/0a1b");
        assert_eq!(role.identity_arn(), "arn:aws:iam::123456789012:role/team/execRole");
        assert_eq!(role.account(), "123456789012");
    }

    #[test]
    fn any_text_becomes_a_role_of_the_own_account() {
        for (text, name) in [("web", "web"), ("", "unnamed"), ("a/b c\n\"", "bc"), ("arn:aws:iam::1:role/x", "x")] {
            let role = Principal::role(text, "s", "123456789012");
            assert_eq!(role.identity_arn(), format!("arn:aws:iam::123456789012:role/{name}"), "{text}");
        }
        let long = Principal::role(&"x".repeat(5000), &"y".repeat(5000), "123456789012");
        assert!(long.arn().len() < 200, "{}", long.arn());
    }

    #[test]
    fn an_arn_is_short_and_has_six_parts() {
        let (begin, long) = ("arn:aws:codebuild:us-west-2:123456789012:", "x".repeat(MAX_ARN));
        assert!(is_arn(&format!("{begin}project/app")) && is_arn("arn:aws:s3:::bucket"));
        for wrong in ["", "arn:aws:s3", "x", "arn:aws:s3:::a b", "arn:aws:s3:::a\x1b", "arn:aws:s3:::ä"] {
            assert!(!is_arn(wrong), "{wrong}");
        }
        assert!(is_arn(&format!("{begin}{}", &long[begin.len()..])) && !is_arn(&format!("{begin}{long}")));
    }

    #[test]
    fn a_service_has_no_account() {
        let service = Principal::service("codebuild.amazonaws.com", Some("123456789012"), None);
        assert_eq!((service.account(), service.arn(), service.is_service()), ("", "codebuild.amazonaws.com", true));
        let other = Principal::administrator("123456789012");
        assert_eq!((other.identity_arn(), other.is_service()), ("arn:aws:iam::123456789012:user/administrator", false));
    }
}
