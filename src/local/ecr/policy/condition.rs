//! Conditions of a statement. Invariant: a condition that is accepted is evaluated; operators, keys and values that this module
//! does not know are refused by name when the policy is read.

use super::pattern::{is_arn_match, is_match};
use super::request::{KEYS, Request};
use crate::ecr::names::shortened;
use crate::suggestion::did_you_mean;
use serde_json::Value;

/// How a fact is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    EqualInAnyCase,
    Like,
    Arn,
    Bool,
}

/// One line of a condition block.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    /// `None`: the operator is `Null`, which asks whether the fact is missing.
    comparison: Option<Comparison>,
    is_negated: bool,
    /// The condition holds if the fact is missing (`…IfExists`).
    if_exists: bool,
    /// The fact's key in lower case.
    key: String,
    values: Vec<String>,
}

/// The operators, how they compare, and whether they are negated.
const OPERATORS: [(&str, Option<Comparison>, bool); 12] = [
    ("StringEquals", Some(Comparison::Equal), false),
    ("StringNotEquals", Some(Comparison::Equal), true),
    ("StringEqualsIgnoreCase", Some(Comparison::EqualInAnyCase), false),
    ("StringNotEqualsIgnoreCase", Some(Comparison::EqualInAnyCase), true),
    ("StringLike", Some(Comparison::Like), false),
    ("StringNotLike", Some(Comparison::Like), true),
    ("ArnEquals", Some(Comparison::Arn), false),
    ("ArnNotEquals", Some(Comparison::Arn), true),
    ("ArnLike", Some(Comparison::Arn), false),
    ("ArnNotLike", Some(Comparison::Arn), true),
    ("Bool", Some(Comparison::Bool), false),
    ("Null", None, false),
];

/// Reads the condition block of a statement.
///
/// # Errors
/// What is wrong with it, with its place in the statement.
pub(super) fn read(block: &Value) -> Result<Vec<Condition>, String> {
    let block = block.as_object().filter(|block| !block.is_empty()).ok_or("Condition: an object of operators")?;
    let mut conditions = Vec::new();
    for (name, facts) in block {
        let (operator, if_exists) = name.strip_suffix("IfExists").map_or((name.as_str(), false), |name| (name, true));
        let found = OPERATORS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(operator));
        let Some((known, comparison, is_negated)) = found.filter(|(_, found, _)| found.is_some() || !if_exists) else {
            let suggestion = did_you_mean(operator, OPERATORS.map(|(name, ..)| name));
            let (name, all) = (shortened(name, 100), OPERATORS.map(|(name, ..)| name).join(", "));
            return Err(format!("Condition.{name}: this operator is not evaluated here.{suggestion} There are: {all}"));
        };
        let facts = facts.as_object().filter(|facts| !facts.is_empty());
        let facts = facts.ok_or_else(|| format!("Condition.{known}: an object of keys and values"))?;
        for (key, values) in facts {
            let place = format!("Condition.{known}.{}", shortened(key, 100));
            let condition = Condition {
                comparison: *comparison,
                is_negated: *is_negated,
                if_exists,
                key: known_key(key).map_err(|problem| format!("{place}: {problem}"))?,
                values: texts(values).ok_or_else(|| format!("{place}: a string, or an array of strings"))?,
            };
            condition.check().map_err(|problem| format!("{place}: {problem}"))?;
            conditions.push(condition);
        }
    }
    Ok(conditions)
}

fn known_key(key: &str) -> Result<String, String> {
    let lower = key.to_lowercase();
    match KEYS.contains(&lower.as_str()) {
        true => Ok(lower),
        false => {
            let suggestion = did_you_mean(key, KEYS);
            Err(format!("this key is not evaluated here.{suggestion} There are: {}", KEYS.join(", ")))
        }
    }
}

/// The values of a condition: texts, or what JSON has for them.
fn texts(values: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    match values {
        Value::Array(values) if !values.is_empty() => values.iter().map(text).collect(),
        Value::Array(_) => None,
        value => text(value).map(|text| vec![text]),
    }
}

impl Condition {
    fn check(&self) -> Result<(), String> {
        let is_bool = |value: &String| value == "true" || value == "false";
        let is_arn = |value: &String| value == "*" || value.starts_with("arn:") && value.splitn(6, ':').count() == 6;
        if self.values.iter().any(|value| value.contains("${")) {
            return Err("policy variables (${…}) are not evaluated here".to_owned());
        }
        match self.comparison {
            None | Some(Comparison::Bool) if !self.values.iter().all(is_bool) => Err("`true` or `false`".to_owned()),
            Some(Comparison::Arn) if !self.values.iter().all(is_arn) => {
                Err("an ARN has six parts with colons between them; each may contain * and ?".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The condition holds for this request.
    pub(super) fn holds(&self, request: &Request<'_>) -> bool {
        let fact = request.fact(&self.key);
        let Some(comparison) = self.comparison else {
            let is_missing = if fact.is_none() { "true" } else { "false" };
            return self.values.iter().any(|value| value == is_missing);
        };
        match fact {
            // As in IAM, a negated comparison with a missing fact holds.
            None => self.if_exists || self.is_negated,
            Some(fact) => self.is_negated != self.values.iter().any(|value| comparison.holds(value, fact)),
        }
    }
}

impl Comparison {
    fn holds(self, value: &str, fact: &str) -> bool {
        match self {
            Self::Equal | Self::Bool => value == fact,
            Self::EqualInAnyCase => value.eq_ignore_ascii_case(fact),
            Self::Like => is_match(value, fact),
            Self::Arn => value == "*" || is_arn_match(value, fact),
        }
    }
}
