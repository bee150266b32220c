//! The `Principal` of a statement in a repository's policy. Invariant: an entry that no caller could ever match is refused.

use crate::ecr::names::{is_account, shortened};
use crate::ecr::principal::{Principal, is_name, is_service_name};
use serde_json::Value;

/// Maximum length of an entry, in bytes.
const MAX_ENTRY: usize = 2048;

/// Callers to which a statement applies.
#[derive(Clone, Debug)]
enum Entry {
    Anyone,
    /// All callers of the account with this id.
    Account(String),
    /// The user, the role or the session with this ARN.
    Arn(String),
    /// The AWS service with this name.
    Service(String),
}

/// The `Principal` of a statement.
#[derive(Clone, Debug)]
pub(super) struct Principals(Vec<Entry>);

/// How a statement names a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Not at all.
    Missing,
    /// By its account, which decides itself.
    ByAccount,
    /// Itself.
    Direct,
}

impl Principals {
    /// Everyone, as in the policy of an identity, which belongs to its caller anyway.
    pub(super) fn anyone() -> Self {
        Self(vec![Entry::Anyone])
    }

    /// Reads the member of a statement.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        if value == "*" {
            return Ok(Self::anyone());
        }
        let members = value.as_object().filter(|members| !members.is_empty());
        let members = members.ok_or("Principal: `*`, or an object with AWS or Service")?;
        let mut entries = Vec::new();
        for (kind, values) in members {
            if kind != "AWS" && kind != "Service" {
                let kind = shortened(kind, 100);
                return Err(format!("Principal.{kind}: only AWS and Service are evaluated here"));
            }
            let values = match values {
                Value::Array(values) if !values.is_empty() => values.as_slice(),
                Value::Array(_) => return Err(format!("Principal.{kind}: the list is empty")),
                value => std::slice::from_ref(value),
            };
            for value in values {
                let text =
                    value.as_str().ok_or_else(|| format!("Principal.{kind}: a string, or an array of strings"))?;
                let entry = if kind == "AWS" { aws(text) } else { service(text) };
                entries
                    .push(entry.map_err(|problem| format!("Principal.{kind}: `{}`: {problem}", shortened(text, 200)))?);
            }
        }
        Ok(Self(entries))
    }

    /// How these entries name the caller: the closest way of all.
    pub(super) fn naming(&self, principal: &Principal) -> Naming {
        let naming = |entry: &Entry| match entry {
            Entry::Anyone => Naming::Direct,
            Entry::Account(account) if account == principal.account() => Naming::ByAccount,
            Entry::Arn(arn)
                if !principal.is_service() && [principal.arn(), principal.identity_arn()].contains(&arn.as_str()) =>
            {
                Naming::Direct
            }
            Entry::Service(name) if principal.is_service() && name == principal.arn() => Naming::Direct,
            _ => Naming::Missing,
        };
        let namings: Vec<Naming> = self.0.iter().map(naming).collect();
        [Naming::Direct, Naming::ByAccount].into_iter().find(|way| namings.contains(way)).unwrap_or(Naming::Missing)
    }
}

fn aws(text: &str) -> Result<Entry, &'static str> {
    if text == "*" {
        return Ok(Entry::Anyone);
    }
    if is_account(text) {
        return Ok(Entry::Account(text.to_owned()));
    }
    let wanted = "an account id, or the ARN of an account (…:root), a user, a role or a session of a role";
    if text.contains(['*', '?', '$']) {
        return Err(
            "wildcards and variables are not allowed in the ARN of a principal: use aws:PrincipalArn in a condition",
        );
    }
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", "aws", service, "", account, resource] = parts[..] else { return Err(wanted) };
    if !is_account(account) || text.len() > MAX_ENTRY {
        return Err(wanted);
    }
    match (service, resource.split_once('/')) {
        ("iam", None) if resource == "root" => Ok(Entry::Account(account.to_owned())),
        ("iam", Some(("user" | "role", path))) if path.split('/').all(is_name) => Ok(Entry::Arn(text.to_owned())),
        ("sts", Some(("assumed-role", path))) if path.split('/').count() == 2 && path.split('/').all(is_name) => {
            Ok(Entry::Arn(text.to_owned()))
        }
        _ => Err(wanted),
    }
}

fn service(text: &str) -> Result<Entry, &'static str> {
    match is_service_name(text) {
        true => Ok(Entry::Service(text.to_owned())),
        false => Err("the name of an AWS service, such as codebuild.amazonaws.com"),
    }
}
