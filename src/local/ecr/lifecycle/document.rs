//! The documents of lifecycle policies: their form and the rules that AWS documents for them. Invariant: the rules of an accepted
//! document are in the order of their priorities, and each can be carried out here.

use crate::ecr::error::EcrError;
use crate::ecr::names::shortened;
use crate::ecr::strict_json;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The lengths that ECR allows for a document, in bytes.
const TEXT_LENGTHS: RangeInclusive<usize> = 100..=30_720;
/// Maximum number of rules, as in ECR.
const MAX_RULES: usize = 50;
/// Maximum number of wildcards in a tag pattern, as in ECR.
const MAX_WILDCARDS: usize = 4;
/// Maximum number of prefixes and patterns of all rules: each is compared with every tag.
const MAX_PATTERNS: usize = 100;
/// The longest prefix or pattern of tags, in bytes: that of a tag.
const MAX_PATTERN: usize = 300;

/// An accepted document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LifecyclePolicy {
    /// The document, as it was given.
    pub(crate) text: Arc<str>,
    /// The rules, lowest priority number first.
    pub(crate) rules: Arc<[Rule]>,
    /// When the rules were last carried out, in seconds since the epoch; `None`: not yet.
    pub(crate) evaluated_at: Option<f64>,
}

/// A rule that expires images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u64,
    pub(crate) tags: TagSelection,
    pub(crate) limit: Limit,
}

/// The images that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TagSelection {
    Any,
    Untagged,
    /// Images of which, for each of these patterns with `*`, some tag matches.
    Tagged(Vec<String>),
}

/// The images that a rule expires, of those that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// All but this number of the youngest.
    Count(u64),
    /// Those that were pushed more than this number of days ago.
    Days(u64),
}

/// What is wrong with a document.
type Problem = String;

impl LifecyclePolicy {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it, in ECR's form.
    pub(crate) fn read(text: &str) -> Result<Self, EcrError> {
        let (min, max) = (TEXT_LENGTHS.start(), TEXT_LENGTHS.end());
        let length = |constraint: String| Err(EcrError::invalid("lifecyclePolicyText", constraint));
        if text.len() < *min {
            return length(format!("Member must have length greater than or equal to {min}"));
        }
        if text.len() > *max {
            return length(format!("Member must have length less than or equal to {max}"));
        }
        let rules = rules(text).map_err(|problem| {
            EcrError::invalid("LifecyclePolicyText", format!("Lifecycle policy validation failure: {problem}"))
        })?;
        Ok(Self { text: text.into(), rules: rules.into(), evaluated_at: None })
    }
}

fn rules(text: &str) -> Result<Vec<Rule>, Problem> {
    let unmapped = "Could not map policyString into LifecyclePolicy.";
    let document = strict_json::read(text).map_err(|problem| format!("{unmapped} {problem}"))?;
    let members = document.as_object().ok_or(unmapped)?;
    check_members(members, &["rules"], &[])?;
    let given = members["rules"].as_array().ok_or("`rules` must be an array of rules")?;
    if given.is_empty() || given.len() > MAX_RULES {
        return Err(format!("a policy has 1 to {MAX_RULES} rules"));
    }
    let mut rules = Vec::new();
    for (at, rule) in given.iter().enumerate() {
        rules.push(Rule::read(rule).map_err(|problem| format!("{problem} (rules[{at}])"))?);
    }
    rules.sort_by_key(|rule| rule.priority);
    check_together(&rules)?;
    Ok(rules)
}

/// Checks what rules demand of each other. They are in the order of their priorities.
fn check_together(rules: &[Rule]) -> Result<(), Problem> {
    if let Some(pair) = rules.windows(2).find(|pair| pair[0].priority == pair[1].priority) {
        return Err(format!("rulePriority must be unique: two rules have {}", pair[0].priority));
    }
    if rules.iter().filter(|rule| rule.tags == TagSelection::Untagged).count() > 1 {
        return Err("Only one rule can select Untagged images per storage class.".to_owned());
    }
    let (last, others) = rules.split_last().ok_or("a policy has rules")?;
    if others.iter().any(|rule| rule.tags == TagSelection::Any) {
        let again = if last.tags == TagSelection::Any { "Only one rule can select Any images; " } else { "" };
        return Err(format!("{again}a rule with tagStatus any must have the highest rulePriority"));
    }
    let patterns = |rule: &Rule| if let TagSelection::Tagged(patterns) = &rule.tags { patterns.len() } else { 0 };
    if rules.iter().map(patterns).sum::<usize>() > MAX_PATTERNS {
        return Err(format!("all rules together have at most {MAX_PATTERNS} prefixes and patterns here"));
    }
    let mut seen = BTreeSet::new();
    for rule in rules {
        if let TagSelection::Tagged(patterns) = &rule.tags
            && !seen.insert(patterns.iter().collect::<BTreeSet<_>>())
        {
            return Err("The set of rules must contain a unique set of tag prefixes and patterns".to_owned());
        }
    }
    Ok(())
}

impl Rule {
    fn read(rule: &Value) -> Result<Self, Problem> {
        let members = object(rule)?;
        check_members(members, &["action", "rulePriority", "selection"], &["description"])?;
        if members.get("description").is_some_and(|text| !text.is_string()) {
            return Err("description must be a string".to_owned());
        }
        let action = object(&members["action"])?;
        check_members(action, &["type"], &["targetStorageClass"])?;
        match action["type"].as_str() {
            Some("expire") if !action.contains_key("targetStorageClass") => {}
            Some("transition") => return Err(not_here("the action transition")),
            _ => return Err(not_in_enum(&action["type"], &["expire"])),
        }
        let selection = object(&members["selection"])?;
        let optional = ["countUnit", "storageClass", "tagPatternList", "tagPrefixList"];
        check_members(selection, &["countNumber", "countType", "tagStatus"], &optional)?;
        match selection.get("storageClass").map(Value::as_str) {
            None | Some(Some("standard")) => {}
            Some(Some("archive")) => return Err(not_here("the storage class archive")),
            _ => return Err(not_in_enum(&selection["storageClass"], &["archive", "standard"])),
        }
        let priority = positive(&members["rulePriority"], "rulePriority")?;
        Ok(Self { priority, tags: tag_selection(selection)?, limit: limit(selection)? })
    }
}

fn limit(selection: &Map<String, Value>) -> Result<Limit, Problem> {
    let number = positive(&selection["countNumber"], "countNumber")?;
    let unit = selection.get("countUnit");
    match (selection["countType"].as_str(), unit) {
        (Some("imageCountMoreThan"), None) => Ok(Limit::Count(number)),
        (Some("imageCountMoreThan"), Some(_)) => {
            Err("countUnit is only for countType sinceImagePushed, not for imageCountMoreThan".to_owned())
        }
        (Some("sinceImagePushed"), Some(unit)) if unit == "days" => Ok(Limit::Days(number)),
        (Some("sinceImagePushed"), Some(unit)) => Err(not_in_enum(unit, &["days"])),
        (Some("sinceImagePushed"), None) => Err("countType sinceImagePushed needs countUnit days".to_owned()),
        // In AWS, the first one only archives images, the second one is for archived images.
        (Some(kind @ ("sinceImagePulled" | "sinceImageTransitioned")), _) => {
            Err(not_here(&format!("countType {kind}")))
        }
        _ => Err(not_in_enum(&selection["countType"], &["imageCountMoreThan", "sinceImagePushed"])),
    }
}

fn tag_selection(selection: &Map<String, Value>) -> Result<TagSelection, Problem> {
    let lists = (selection.get("tagPrefixList"), selection.get("tagPatternList"));
    let status = selection["tagStatus"].as_str();
    match (status, lists) {
        (Some("any"), (None, None)) => Ok(TagSelection::Any),
        (Some("untagged"), (None, None)) => Ok(TagSelection::Untagged),
        (Some(status @ ("any" | "untagged")), _) => {
            Err(format!("tagPrefixList and tagPatternList may only be used if tagStatus is tagged, not {status}"))
        }
        (Some("tagged"), (Some(_), Some(_))) => {
            Err("A rule may specify either tagPatternList or tagPrefixList, but not both".to_owned())
        }
        (Some("tagged"), (None, None)) => Err("tagStatus tagged needs a tagPrefixList or a tagPatternList".to_owned()),
        (Some("tagged"), (Some(prefixes), None)) => {
            let prefixes = texts(prefixes, "tagPrefixList")?;
            match prefixes.iter().find(|prefix| prefix.contains(['*', '?'])) {
                Some(prefix) => Err(format!("tagPrefixList: `{prefix}` has a wildcard: use tagPatternList")),
                None => Ok(TagSelection::Tagged(prefixes.iter().map(|prefix| format!("{prefix}*")).collect())),
            }
        }
        (Some("tagged"), (None, Some(patterns))) => {
            let patterns = texts(patterns, "tagPatternList")?;
            match patterns.iter().find(|pattern| pattern.matches('*').count() > MAX_WILDCARDS || pattern.contains('?'))
            {
                Some(pattern) => {
                    Err(format!("tagPatternList: `{pattern}`: a pattern has at most {MAX_WILDCARDS} wildcards (*)"))
                }
                None => Ok(TagSelection::Tagged(patterns)),
            }
        }
        _ => Err(not_in_enum(&selection["tagStatus"], &["any", "tagged", "untagged"])),
    }
}

fn texts(list: &Value, name: &str) -> Result<Vec<String>, Problem> {
    let text = |value: &Value| value.as_str().map(str::to_owned).filter(|text| (1..=MAX_PATTERN).contains(&text.len()));
    let texts: Option<Vec<String>> = list.as_array().and_then(|list| list.iter().map(text).collect());
    let texts = texts.filter(|texts| !texts.is_empty());
    texts.ok_or_else(|| format!("{name} must be an array of strings of 1 to {MAX_PATTERN} bytes"))
}

fn positive(number: &Value, name: &str) -> Result<u64, Problem> {
    match (number.as_u64(), number.as_i64()) {
        (Some(0), _) | (None, Some(_)) => {
            Err(format!("numeric instance is lower than the required minimum (minimum: 1, found: {number})"))
        }
        (Some(number), _) => Ok(number),
        (None, None) => Err(format!("{name} must be a whole number")),
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>, Problem> {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(members) => return Ok(members),
    };
    Err(format!("instance type ({kind}) does not match any allowed primitive type (allowed: [\"object\"])"))
}

/// All required members are there, and no unknown one.
fn check_members(members: &Map<String, Value>, required: &[&str], optional: &[&str]) -> Result<(), Problem> {
    let quoted =
        |names: &[&str]| names.iter().map(|name| format!("\"{}\"", shortened(name, 100))).collect::<Vec<_>>().join(",");
    let missing: Vec<&str> = required.iter().copied().filter(|name| !members.contains_key(*name)).collect();
    if !missing.is_empty() {
        return Err(format!("object has missing required properties ([{}])", quoted(&missing)));
    }
    match members.keys().find(|name| !required.contains(&name.as_str()) && !optional.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(format!(
            "object instance has properties which are not allowed by the schema: ([{}])",
            quoted(&[name.as_str()])
        )),
    }
}

fn not_in_enum(value: &Value, known: &[&str]) -> Problem {
    let known = known.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let value = match value {
        Value::String(text) => shortened(text, 100),
        other => shortened(&other.to_string(), 100),
    };
    format!("instance value ({value}) not found in enum (possible values: [{known}])")
}

/// Images are not archived by this registry.
fn not_here(what: &str) -> Problem {
    format!("{what} belongs to ECR's archive storage, which ecs-local does not have")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(priority: u64, selection: Value) -> Value {
        json!({"rulePriority": priority, "description": "x".repeat(100), "selection": selection, "action": {"type": "expire"}})
    }

    fn untagged() -> Value {
        json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7})
    }

    fn any() -> Value {
        json!({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1})
    }

    fn tagged(prefixes: Value) -> Value {
        json!({"tagStatus": "tagged", "tagPrefixList": prefixes, "countType": "imageCountMoreThan", "countNumber": 1})
    }

    fn problem(rules: Value) -> String {
        LifecyclePolicy::read(&json!({"rules": rules}).to_string()).unwrap_err().to_string()
    }

    #[test]
    fn rules_are_ordered_by_priority() {
        let rules = json!([rule(30, any()), rule(10, untagged()), rule(20, tagged(json!(["prod", "v1"])))]);
        let text = json!({"rules": rules}).to_string();
        let policy = LifecyclePolicy::read(&text).unwrap();
        assert_eq!(policy.text.as_ref(), text);
        let expected = [
            Rule { priority: 10, tags: TagSelection::Untagged, limit: Limit::Days(7) },
            Rule {
                priority: 20,
                tags: TagSelection::Tagged(vec!["prod*".to_owned(), "v1*".to_owned()]),
                limit: Limit::Count(1),
            },
            Rule { priority: 30, tags: TagSelection::Any, limit: Limit::Count(1) },
        ];
        assert_eq!(*policy.rules, expected);
    }

    #[test]
    fn documents_are_refused_with_the_reason() {
        let with = |selection: Value, member: &str, value: Value| {
            let mut selection = selection;
            selection[member] = value;
            json!([rule(1, selection)])
        };
        let action = |action: Value| {
            let mut rule = rule(1, any());
            rule["action"] = action;
            json!([rule])
        };
        for (rules, reason) in [
            (json!("x".repeat(100)), "`rules` must be an array"),
            (json!(["x".repeat(100)]), "instance type (string) does not match"),
            (
                json!([{"rulePriority": 1, "description": "x".repeat(100)}]),
                "missing required properties ([\"action\",\"selection\"])",
            ),
            (json!([rule(0, any())]), "(minimum: 1, found: 0)"),
            (json!([rule(1, untagged()), rule(1, any())]), "rulePriority must be unique"),
            (json!([rule(1, untagged()), rule(2, untagged())]), "Only one rule can select Untagged images"),
            (json!([rule(1, any()), rule(2, untagged())]), "any must have the highest rulePriority"),
            (json!([rule(1, any()), rule(2, any())]), "Only one rule can select Any images"),
            (
                json!([rule(1, tagged(json!(["a", "b"]))), rule(2, tagged(json!(["b", "a"])))]),
                "unique set of tag prefixes",
            ),
            (with(any(), "tagStatus", json!("tagged")), "needs a tagPrefixList or a tagPatternList"),
            (with(any(), "tagStatus", json!("all")), "instance value (all) not found in enum"),
            (with(untagged(), "tagPrefixList", json!(["a"])), "may only be used if tagStatus is tagged"),
            (with(tagged(json!(["a"])), "tagPatternList", json!(["a*"])), "but not both"),
            (with(tagged(json!([])), "countNumber", json!(1)), "tagPrefixList must be an array of strings"),
            (json!([rule(1, tagged(json!(["a*"])))]), "use tagPatternList"),
            (with(any(), "countUnit", json!("days")), "countUnit is only for countType sinceImagePushed"),
            (with(untagged(), "countUnit", json!("weeks")), "possible values: [\"days\"]"),
            (with(any(), "countType", json!("sinceImagePushed")), "needs countUnit days"),
            (with(any(), "countType", json!("sinceImagePulled")), "archive storage, which ecs-local does not have"),
            (with(any(), "countNumber", json!(0)), "found: 0"),
            (with(any(), "countNumber", json!(-5)), "found: -5"),
            (with(any(), "countNumber", json!("5")), "countNumber must be a whole number"),
            (with(any(), "countNumbr", json!(5)), "not allowed by the schema: ([\"countNumbr\"])"),
            (with(any(), "storageClass", json!("archive")), "archive storage"),
            (action(json!({"type": "transition", "targetStorageClass": "archive"})), "archive storage"),
            (
                action(json!({"type": "delete"})),
                "instance value (delete) not found in enum (possible values: [\"expire\"])",
            ),
            (json!(vec![rule(1, any()); MAX_RULES + 1]), "1 to 50 rules"),
            (json!([rule(1, tagged(json!(vec!["a"; MAX_PATTERNS + 1])))]), "at most 100 prefixes and patterns"),
        ] {
            let error = problem(rules);
            assert!(
                error.contains("'Lifecycle policy validation failure: ") && error.contains(reason),
                "{reason}: {error}"
            );
        }
    }

    #[test]
    fn patterns_have_at_most_four_wildcards() {
        let patterns = |patterns: Value| {
            let mut selection = tagged(json!([]));
            selection.as_object_mut().unwrap().remove("tagPrefixList");
            selection["tagPatternList"] = patterns;
            json!({"rules": [rule(1, selection)]}).to_string()
        };
        assert!(LifecyclePolicy::read(&patterns(json!(["*test*1*2*3", "test*1*2*3*"]))).is_ok());
        let error = LifecyclePolicy::read(&patterns(json!(["test*1*2*3*4*5*6"]))).unwrap_err();
        assert!(error.to_string().contains("at most 4 wildcards"), "{error}");
    }

    #[test]
    fn no_json_and_wrong_lengths_are_refused() {
        for (text, reason) in [
            ("{}".to_owned(), "greater than or equal to 100"),
            (" ".repeat(30_721), "less than or equal to 30720"),
            ("x".repeat(100), "Could not map policyString"),
            (format!("{{{}}}", " ".repeat(100)), "missing required properties ([\"rules\"])"),
        ] {
            let error = LifecyclePolicy::read(&text).unwrap_err();
            assert!(error.to_string().contains(reason) && error.code() == "InvalidParameterException", "{error}");
        }
    }
}
