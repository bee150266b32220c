//! Reads the task definition of `ecs-local up`. This module owns the forms that it may have: the input of
//! RegisterTaskDefinition, the output of DescribeTaskDefinition, and the console's JSON tab. Invariant: an error shows no value
//! of the file.

use super::{files, habits};
use crate::ecr::strict_json;
use crate::objects::kind_of;
use serde_json::{Value, json};
use std::path::Path;

/// Members that ECS adds to a registered definition. RegisterTaskDefinition does not take them.
const READ_ONLY: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "deregisteredAt",
    "deleteRequestedAt",
    "registeredBy",
];

/// Reads the text of a file as input for RegisterTaskDefinition. The path is for the errors.
pub(super) fn read(path: &Path, text: &str) -> Result<Value, String> {
    let shown = files::shown(path);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(format!("{shown} is empty"));
    }
    let value = strict_json::parse(text).map_err(|error| {
        // Which of the two would count, nobody can see.
        if error.is_data() {
            return format!("{shown}: {error}");
        }
        let why = habits::yaml(text).unwrap_or_else(|| no_json(&error));
        format!("{shown} is not JSON: {why}")
    })?;
    definition(value).map_err(|problem| format!("{shown}: {problem}"))
}

fn definition(mut value: Value) -> Result<Value, String> {
    if let Some(problem) = habits::foreign(&value) {
        return Err(problem);
    }
    if value.get("taskDefinition").is_some_and(Value::is_null) && value.get("containerDefinitions").is_none() {
        return Err("its taskDefinition is null: there is no such task definition".to_owned());
    }
    if value["taskDefinition"].is_object() && value.get("containerDefinitions").is_none() {
        let tags = value["tags"].take();
        value = value["taskDefinition"].take();
        if value.get("tags").is_none() && tags.is_array() {
            value["tags"] = tags;
        }
    }
    // What was wrapped may be foreign, too.
    if let Some(problem) = habits::foreign(&value) {
        return Err(problem);
    }
    let Value::Object(members) = &mut value else {
        return Err(format!(
            "a task definition is an object: {{ \"family\": ..., \"containerDefinitions\": [ ... ] }}, not {}",
            kind_of(&value)
        ));
    };
    members.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    Ok(value)
}

/// A container of the definition asks for GPUs.
pub(super) fn needs_gpus(definition: &Value) -> bool {
    let containers = definition["containerDefinitions"].as_array().into_iter().flatten();
    let mut requirements =
        containers.flat_map(|container| container["resourceRequirements"].as_array().into_iter().flatten());
    requirements.any(|requirement| requirement["type"] == json!("GPU"))
}

/// Place and cause of an error, in words.
fn no_json(error: &serde_json::Error) -> String {
    const CAUSES: [(&str, &str); 10] = [
        ("trailing comma", "there is a comma too many"),
        ("expected `,` or `}`", "a comma or } is missing"),
        ("expected `,` or `]`", "a comma or ] is missing"),
        ("expected `:`", "a colon is missing"),
        ("key must be a string", "the name of a member must be in double quotes; JSON has no comments"),
        ("expected value", "there is no value; a string must be in double quotes, and JSON has no comments"),
        ("expected ident", "there is no value; a string must be in double quotes"),
        ("EOF", "the file ends before everything is closed: a bracket or a quote is missing"),
        ("control character", "a line break or tab in a string must be written as \\n or \\t"),
        ("trailing characters", "there is more after the end of the object"),
    ];
    let text = error.to_string();
    let cause = CAUSES.iter().find(|(part, _)| text.contains(part)).map_or("this is no JSON", |(_, words)| words);
    format!("line {}, column {}: {cause}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_described_definition_is_taken_wrapped_or_not() {
        let described = json!({
            "taskDefinitionArn": "arn:aws:ecs:us-west-2:1:task-definition/web:7", "family": "web", "revision": 7, "status": "ACTIVE",
            "requiresAttributes": [{"name": "x"}], "compatibilities": ["EC2"], "registeredAt": "2026-01-01T00:00:00Z",
            "registeredBy": "arn:aws:iam::1:root", "placementConstraints": [], "containerDefinitions": [{"name": "a"}],
        });
        let wanted = json!({"family": "web", "placementConstraints": [], "containerDefinitions": [{"name": "a"}]});
        assert_eq!(definition(described.clone()), Ok(wanted.clone()));
        let tagged = json!({"taskDefinition": described, "tags": [{"key": "a", "value": "b"}]});
        let found = definition(tagged).unwrap();
        assert_eq!((&found["tags"][0]["key"], &found["family"]), (&json!("a"), &json!("web")));
        assert_eq!(found.as_object().unwrap().len(), 4);
        assert_eq!(definition(wanted.clone()), Ok(wanted));
        assert!(definition(json!([1])).unwrap_err().ends_with("[ ... ] }, not an array"));
    }

    #[test]
    fn a_member_that_occurs_twice_is_named() {
        let read = |text: &str| read(Path::new("t.json"), text);
        let found = read("{\"family\": \"a\",\n \"family\": \"hunter2\"}").unwrap_err();
        assert_eq!(found, "t.json: `family` occurs twice in an object at line 2 column 9");
        let inner = read("{\"containerDefinitions\": [{\"name\": \"a\", \"name\": \"b\"}]}").unwrap_err();
        assert!(inner.contains("`name` occurs twice"), "{inner}");
        let piped = super::read(Path::new(files::STANDARD_INPUT), "[1]").unwrap_err();
        assert!(piped.starts_with("standard input: a task definition is an object"), "{piped}");
        assert!(read("{\"family\": \"a\", \"cpu\": {\"family\": 1}}").is_ok());
    }

    #[test]
    fn what_is_no_json_is_explained_with_its_place() {
        for (text, expected) in [
            ("{\n \"a\": 1,\n}", "line 3, column 1: there is a comma too many"),
            ("{\"a\": 1 \"hunter2\": 2}", "line 1, column 9: a comma or } is missing"),
            ("{\"a\": [1 2]}", "a comma or ] is missing"),
            ("{\"a\" 1}", "a colon is missing"),
            ("{// hunter2\n}", "must be in double quotes"),
            ("{\"a\": hunter2}", "there is no value"),
            ("{\"a\": [1", "the file ends before everything is closed"),
            ("{\"a\": \"hunter2\nx\"}", "must be written as \\n"),
            ("{} hunter2", "there is more after the end"),
        ] {
            let found = no_json(&serde_json::from_str::<Value>(text).unwrap_err());
            assert!(found.contains(expected) && !found.contains("hunter2"), "{text}: {found}");
        }
    }

    #[test]
    fn a_need_for_gpus_is_seen() {
        let with = |requirements: Value| json!({"containerDefinitions": [{}, {"resourceRequirements": requirements}]});
        assert!(needs_gpus(&with(json!([{"type": "GPU", "value": "1"}]))));
        assert!(!needs_gpus(&with(json!([]))) && !needs_gpus(&json!({"containerDefinitions": "x"})));
    }
}
