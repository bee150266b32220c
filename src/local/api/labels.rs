//! What ECS refuses of attributes and tags: characters, lengths, numbers. This module owns these rules, apart from the agent's, which warn
//! of the same. Invariant: an error names the attribute or the key, and shows no value.

use crate::api_error::ApiError;
use ecs_core::model::text::{cleaned, cut};
use serde_json::Value;

/// Upper limits: custom attributes of an instance, characters of a name or value, tags of a resource, characters of a key and of a value.
const MAX_ATTRIBUTES: usize = 10;
const MAX_ATTRIBUTE: usize = 128;
pub(super) const MAX_TAGS: usize = 50;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;
/// Maximum length of a name in an error, in bytes.
const MAX_SHOWN: usize = 60;
/// How the names of attributes begin that the agent makes itself. They do not count as custom ones.
const AGENT_PREFIXES: [&str; 3] = ["ecs.", "com.amazonaws.ecs.", "ecs-agent."];

/// Checks the attributes of a registration.
///
/// # Errors
/// `InvalidParameterException` if there are too many custom ones, or one has a form that ECS refuses.
pub(super) fn check_attributes(attributes: &Value) -> Result<(), ApiError> {
    let is_name = |c: char| c.is_alphanumeric() || "-_./\\".contains(c);
    let is_value = |c: char| is_name(c) || "@: ".contains(c);
    let mut custom = 0;
    for attribute in attributes.as_array().into_iter().flatten() {
        let (name, value) = (text(attribute, "name"), text(attribute, "value"));
        if !(1..=MAX_ATTRIBUTE).contains(&name.chars().count()) || !name.chars().all(is_name) {
            return Err(ApiError::invalid(format!(
                "The attribute name {} is invalid: use 1 to {MAX_ATTRIBUTE} letters, digits and -_./\\",
                shown(name)
            )));
        }
        if value.chars().count() > MAX_ATTRIBUTE || value.trim() != value || !value.chars().all(is_value) {
            return Err(ApiError::invalid(format!(
                "The value of the attribute {} is invalid: use up to {MAX_ATTRIBUTE} letters, digits, spaces inside and -_./\\@:",
                shown(name)
            )));
        }
        custom += usize::from(!AGENT_PREFIXES.iter().any(|start| name.starts_with(start)));
    }
    match custom {
        0..=MAX_ATTRIBUTES => Ok(()),
        _ => Err(ApiError::invalid(format!(
            "There are {custom} custom attributes: at most {MAX_ATTRIBUTES} are allowed."
        ))),
    }
}

/// Checks the tags of a request.
///
/// # Errors
/// `InvalidParameterException` if there are too many, or one has a form that ECS refuses.
pub(super) fn check_tags(tags: &Value) -> Result<(), ApiError> {
    let tags = tags.as_array().map_or(&[][..], Vec::as_slice);
    check_count(tags.len())?;
    let is_letter = |c: char| c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "+-=._:/@".contains(c);
    for tag in tags {
        let (key, value) = (text(tag, "key"), text(tag, "value"));
        let is_reserved = |text: &str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"));
        let fits = |text: &str, max| text.chars().count() <= max && text.chars().all(is_letter);
        if is_reserved(key) || is_reserved(value) {
            return Err(ApiError::invalid(format!(
                "The tag {} is invalid: no key and no value may begin with aws:",
                shown(key)
            )));
        }
        if key.is_empty() || !fits(key, MAX_KEY) {
            return Err(ApiError::invalid(format!(
                "The tag key {} is invalid: use 1 to {MAX_KEY} letters, digits, spaces and +-=._:/@",
                shown(key)
            )));
        }
        if !fits(value, MAX_VALUE) {
            return Err(ApiError::invalid(format!(
                "The value of the tag {} is invalid: use up to {MAX_VALUE} letters, digits, spaces and +-=._:/@",
                shown(key)
            )));
        }
    }
    Ok(())
}

/// Checks the number of tags of a resource.
///
/// # Errors
/// `InvalidParameterException` if there are too many.
pub(super) fn check_count(tags: usize) -> Result<(), ApiError> {
    match tags {
        0..=MAX_TAGS => Ok(()),
        _ => Err(ApiError::invalid(format!("There are {tags} tags: a resource has at most {MAX_TAGS}."))),
    }
}

fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object[member].as_str().unwrap_or_default()
}

fn shown(name: &str) -> String {
    format!("`{}`", cut(&cleaned(name), MAX_SHOWN))
}

#[cfg(test)]
mod tests {
    use super::super::ecs;
    use super::*;
    use crate::site::Site;
    use crate::state::State;
    use serde_json::json;

    fn refused(operation: &str, body: &Value) -> Option<String> {
        let error = ecs(&mut State::new(Site::example(), "default"), operation, body).err()?;
        assert_eq!((error.status, error.code.as_str()), (400, "InvalidParameterException"), "{}", error.message);
        Some(error.message)
    }

    #[test]
    fn a_registration_has_attributes_that_ecs_accepts() {
        let long = |length: usize| "x".repeat(length);
        for (name, value, wanted) in [
            ("rack", "r7", None),
            ("stack.a/b\\c_d-1", "a@b:c d", None),
            (&long(128), &long(128), None),
            ("a", "", None),
            ("bad name!", "c", Some("The attribute name `bad name!` is invalid")),
            ("", "c", Some("The attribute name `` is invalid")),
            (&long(129), "c", Some("is invalid: use 1 to 128")),
            ("a", " hunter2", Some("The value of the attribute `a` is invalid")),
            ("a", "hunter2+", Some("The value of the attribute `a` is invalid")),
            ("a", &long(129), Some("use up to 128")),
        ] {
            let found = refused("RegisterContainerInstance", &json!({"attributes": [{"name": name, "value": value}]}));
            let fits = match wanted {
                Some(wanted) => found.as_ref().is_some_and(|text| text.contains(wanted) && !text.contains("hunter2")),
                None => found.is_none(),
            };
            assert!(fits, "{name}={value}: {found:?}");
        }
        let many = |count: usize, start: &str| {
            let list: Vec<Value> = (0..count).map(|n| json!({"name": format!("{start}{n}")})).collect();
            refused("RegisterContainerInstance", &json!({"attributes": list}))
        };
        assert_eq!((many(10, "n"), many(200, "ecs.capability.n")), (None, None));
        assert!(many(11, "n").unwrap().contains("11 custom attributes: at most 10"));
    }

    #[test]
    fn no_call_takes_tags_that_ecs_refuses() {
        let definition = json!([{"name": "a", "image": "i", "memory": 8}]);
        for operation in ["RegisterContainerInstance", "TagResource", "RegisterTaskDefinition"] {
            let with = |tags: Value| {
                let mut body = json!({"tags": tags});
                match operation {
                    "TagResource" => body["resourceArn"] = json!("arn"),
                    "RegisterTaskDefinition" => {
                        (body["family"], body["containerDefinitions"]) = (json!("f"), definition.clone())
                    }
                    _ => {}
                }
                refused(operation, &body)
            };
            for (key, value, wanted) in [
                ("team", "blue +-=._:/@", None),
                ("größe", "", None),
                ("aws:x", "c", Some("The tag `aws:x` is invalid: no key")),
                ("a", "aWs:hunter2", Some("The tag `a` is invalid: no key")),
                ("", "c", Some("The tag key `` is invalid")),
                ("a#", "c", Some("The tag key `a#` is invalid")),
                ("a", "hunter2#", Some("The value of the tag `a` is invalid")),
            ] {
                let found = with(json!([{"key": key, "value": value}]));
                let fits = match wanted {
                    Some(wanted) => {
                        found.as_ref().is_some_and(|text| text.contains(wanted) && !text.contains("hunter2"))
                    }
                    None => found.is_none(),
                };
                assert!(fits, "{operation} {key}={value}: {found:?}");
            }
            let many = |count: usize| (0..count).map(|n| json!({"key": n.to_string()})).collect::<Vec<_>>();
            assert_eq!(with(many(50).into()), None);
            assert!(with(many(51).into()).unwrap().contains("51 tags"), "{operation}");
        }
    }

    #[test]
    fn tags_that_are_added_count_with_the_others() {
        let mut state = State::new(Site::example(), "default");
        let mut tag = |from: usize, to: usize| {
            let tags: Vec<Value> = (from..to).map(|n| json!({"key": n.to_string(), "value": "x"})).collect();
            ecs(&mut state, "TagResource", &json!({"resourceArn": "arn", "tags": tags}))
        };
        assert!(tag(0, 40).is_ok() && tag(30, 50).is_ok());
        assert_eq!(tag(50, 51).unwrap_err().code, "InvalidParameterException");
        let listed = ecs(&mut state, "ListTagsForResource", &json!({"resourceArn": "arn"})).unwrap();
        assert_eq!(listed["tags"].as_array().unwrap().len(), 50);
    }
}
