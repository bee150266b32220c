//! Policy documents: who may do what. This module owns their form and their meaning. Invariant: a policy that is accepted is
//! evaluated as a whole; whatever cannot be evaluated here is refused by name.

use super::condition::{self, Condition};
use super::pattern::{is_match, is_match_in_any_case};
use super::principals::{Naming, Principals};
use super::request::Request;
use crate::ecr::action::ALL_ACTIONS;
use crate::ecr::names::shortened;
use crate::ecr::strict_json;
use crate::suggestion::did_you_mean;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The largest policy, in bytes, as in ECR.
pub(crate) const MAX_POLICY: usize = 10_240;
/// The members of a document.
const DOCUMENT_MEMBERS: [&str; 3] = ["Version", "Id", "Statement"];
/// The members of a statement.
const STATEMENT_MEMBERS: [&str; 9] =
    ["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

/// A policy, of an identity or of a repository. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    text: Arc<str>,
    statements: Arc<[Statement]>,
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A statement denies it.
    Denied,
    /// A statement allows it to the caller itself.
    Allowed,
    /// A statement allows it to the caller's account, whose own policies decide.
    Delegated,
    /// No statement is about it.
    NotMentioned,
}

/// What a policy belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Identity,
    Repository,
}

#[derive(Clone, Debug)]
struct Statement {
    is_allow: bool,
    principals: Principals,
    actions: Patterns,
    resources: Patterns,
    conditions: Vec<Condition>,
}

/// Patterns, one of which must match; negated: none of which may match.
#[derive(Clone, Debug)]
struct Patterns {
    is_negated: bool,
    patterns: Vec<String>,
}

impl Policy {
    /// Reads the policy of a user or a role.
    ///
    /// # Errors
    /// What is wrong with it, or what cannot be evaluated here.
    pub(crate) fn for_identity(text: &str) -> Result<Self, String> {
        Self::read(text, Owner::Identity)
    }

    /// Reads the policy of a repository.
    ///
    /// # Errors
    /// What is wrong with it, or what cannot be evaluated here.
    pub(crate) fn for_repository(text: &str) -> Result<Self, String> {
        Self::read(text, Owner::Repository)
    }

    /// The document, as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What the policy says of a request.
    pub(crate) fn decide(&self, request: &Request<'_>) -> Decision {
        let mut decision = Decision::NotMentioned;
        for statement in self.statements.iter() {
            let naming = statement.naming(request);
            match (naming, statement.is_allow) {
                (Naming::Missing, _) => {}
                (_, false) => return Decision::Denied,
                (Naming::Direct, true) => decision = Decision::Allowed,
                (Naming::ByAccount, true) if decision == Decision::NotMentioned => decision = Decision::Delegated,
                (Naming::ByAccount, true) => {}
            }
        }
        decision
    }

    fn read(text: &str, owner: Owner) -> Result<Self, String> {
        if text.len() > MAX_POLICY {
            return Err(format!("the document must have at most {MAX_POLICY} bytes"));
        }
        let document = strict_json::read(text)?;
        let members = document.as_object().ok_or("the document is not a JSON object")?;
        check_members(members, &DOCUMENT_MEMBERS)?;
        match members.get("Version").map(Value::as_str) {
            None | Some(Some("2012-10-17" | "2008-10-17")) => {}
            Some(_) => return Err("Version: 2012-10-17 or 2008-10-17".to_owned()),
        }
        let statements = match members.get("Statement") {
            Some(Value::Array(statements)) if !statements.is_empty() => statements.as_slice(),
            Some(statement @ Value::Object(_)) => std::slice::from_ref(statement),
            _ => return Err("Statement: a statement, or an array of statements".to_owned()),
        };
        let read = |(at, statement)| {
            Statement::read(statement, owner).map_err(|problem| format!("Statement[{at}]: {problem}"))
        };
        let statements = statements.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.into(), statements: statements.into() })
    }
}

impl Statement {
    fn read(statement: &Value, owner: Owner) -> Result<Self, String> {
        let members = statement.as_object().ok_or("a statement is a JSON object")?;
        check_members(members, &STATEMENT_MEMBERS)?;
        let is_allow = match members.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err("Effect: Allow or Deny".to_owned()),
        };
        if members.get("Sid").is_some_and(|sid| !sid.is_string()) {
            return Err("Sid: a string".to_owned());
        }
        let principals = principals(members, owner)?;
        let actions = Patterns::read(members, "Action", "NotAction")?.ok_or("Action or NotAction is needed")?;
        let member = if actions.is_negated { "NotAction" } else { "Action" };
        let checked = actions.patterns.iter().try_for_each(|pattern| check_action(pattern, owner));
        checked.map_err(|problem| format!("{member}: {problem}"))?;
        let resources = match (Patterns::read(members, "Resource", "NotResource")?, owner) {
            (Some(resources), Owner::Identity) => resources,
            (None, Owner::Identity) => return Err("Resource or NotResource is needed".to_owned()),
            (Some(_), Owner::Repository) => {
                return Err("Resource: a repository's policy has none; it is about its repository".to_owned());
            }
            (None, Owner::Repository) => Patterns { is_negated: false, patterns: vec!["*".to_owned()] },
        };
        let conditions = members.get("Condition").map(condition::read).transpose()?.unwrap_or_default();
        Ok(Self { is_allow, principals, actions, resources, conditions })
    }

    /// How the statement names the caller, if it is about the request.
    fn naming(&self, request: &Request<'_>) -> Naming {
        let is_about = self.actions.hold(|pattern| is_match_in_any_case(pattern, request.action))
            && self.resources.hold(|pattern| is_match(pattern, request.resource))
            && self.conditions.iter().all(|condition| condition.holds(request));
        if is_about { self.principals.naming(request.principal) } else { Naming::Missing }
    }
}

fn principals(members: &Map<String, Value>, owner: Owner) -> Result<Principals, String> {
    if members.contains_key("NotPrincipal") {
        return Err("NotPrincipal: this is not evaluated here".to_owned());
    }
    match (members.get("Principal"), owner) {
        (None, Owner::Identity) => Ok(Principals::anyone()),
        (Some(_), Owner::Identity) => Err("Principal: the policy of an identity has none".to_owned()),
        (None, Owner::Repository) => Err("Principal is needed".to_owned()),
        (Some(value), Owner::Repository) => Principals::read(value),
    }
}

impl Patterns {
    /// Reads one of two members; `None`: neither is there.
    fn read(members: &Map<String, Value>, name: &str, negated: &str) -> Result<Option<Self>, String> {
        let (name, is_negated, value) = match (members.get(name), members.get(negated)) {
            (Some(_), Some(_)) => return Err(format!("{name} and {negated} exclude each other")),
            (Some(value), None) => (name, false, value),
            (None, Some(value)) => (negated, true, value),
            (None, None) => return Ok(None),
        };
        let values = match value {
            Value::Array(values) if !values.is_empty() => values.as_slice(),
            Value::Array(_) => return Err(format!("{name}: the list is empty")),
            value => std::slice::from_ref(value),
        };
        let text = |value: &Value| value.as_str().map(str::to_owned).filter(|text| !text.is_empty());
        let patterns: Option<Vec<String>> = values.iter().map(text).collect();
        let patterns = patterns.ok_or_else(|| format!("{name}: a string, or an array of strings"))?;
        if patterns.iter().any(|pattern| pattern.contains("${")) {
            return Err(format!("{name}: policy variables (${{…}}) are not evaluated here"));
        }
        if name.ends_with("Resource")
            && let Some(wrong) = patterns.iter().find(|pattern| *pattern != "*" && pattern.splitn(6, ':').count() < 6)
        {
            return Err(format!("{name}: `{}` is neither an ARN nor `*`", shortened(wrong, 200)));
        }
        Ok(Some(Self { is_negated, patterns }))
    }

    fn hold(&self, is_match: impl Fn(&str) -> bool) -> bool {
        self.is_negated != self.patterns.iter().any(|pattern| is_match(pattern))
    }
}

/// An action is `*`, or a service and a name with a colon between them. A repository's policy has only actions of ECR.
fn check_action(pattern: &str, owner: Owner) -> Result<(), String> {
    let shown = shortened(pattern, 100);
    if pattern == "*" {
        return Ok(());
    }
    let is_service = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let parts = pattern.split_once(':').filter(|(service, name)| is_service(service) && !name.is_empty());
    let (service, name) = parts.ok_or_else(|| format!("`{shown}` is no action, such as ecr:BatchGetImage"))?;
    if owner == Owner::Identity {
        return Ok(());
    }
    if !service.eq_ignore_ascii_case("ecr") {
        return Err(format!("`{shown}` is no action of ECR"));
    }
    match ALL_ACTIONS.iter().any(|known| is_match_in_any_case(name, known)) {
        true => Ok(()),
        false => {
            let suggestion = did_you_mean(name, ALL_ACTIONS.iter().copied());
            Err(format!("ECR has no action `{shown}`.{suggestion}"))
        }
    }
}

/// All members are known.
fn check_members(members: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let suggestion = did_you_mean(name, known.iter().copied());
            Err(format!("{}: there is no such member.{suggestion}", shortened(name, 100)))
        }
    }
}
