//! Finds out whether an unknown member of a document belongs to another level of it: to the task definition instead of a container, or
//! the other way round. This module owns that look at the levels, which it gets from the decoder itself. Invariant: it judges names
//! only, and shows no value.

use super::unreadable::unknown_member;
use serde_json::{Value, json};

/// The lists that make a level of their own, and what a document with such a list and an item of it are called.
const LEVELS: [(&str, &str, &str); 2] = [
    ("containerDefinitions", "task definition", "container"),
    ("containerOverrides", "overrides", "container override"),
];
/// No member has this name.
const PROBE: &str = "?";
/// Many objects have a name, so a wrong one says nothing about the level.
const ANYWHERE: &str = "name";

/// Says where the member belongs; `None`: to no other level. `way`: the names and numbers that lead to the object that it is in.
/// `error`: the decoder's error about a document, empty if there is none.
pub(super) fn remedy(way: &[String], name: &str, error: impl Fn(&Value) -> String) -> Option<String> {
    let members = |probe: &Value| -> Vec<String> {
        let error = error(probe);
        unknown_member(&error).map(|(_, known)| known.map(str::to_owned).collect()).unwrap_or_default()
    };
    let has = |members: &[String], name: &str| members.iter().any(|member| member == name);
    let whole = members(&json!({PROBE: 0}));
    let (list, document, item) = LEVELS.into_iter().find(|(list, ..)| has(&whole, list))?;
    let part = members(&json!({list: [{PROBE: 0}]}));
    let is_in_part = way.first().is_some_and(|first| first == list);
    let is_of_part = has(&part, name);
    if name == ANYWHERE {
        None
    } else if is_in_part && way.len() > 2 && is_of_part {
        Some(format!("`{name}` is a member of the {item}: move it up."))
    } else if !way.is_empty() && has(&whole, name) {
        Some(format!("`{name}` is a member of the {document}: move it up."))
    } else if !is_in_part && is_of_part {
        Some(format!("`{name}` is a member of a {item}: move it into one."))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TaskDefinition, read};
    use serde_json::{Value, json};

    #[test]
    fn a_member_at_the_wrong_level_is_sent_to_its_own() {
        let container = |members: Value| json!({"family": "f", "containerDefinitions": [{"name": "a"}, members]});
        for (definition, wanted) in [
            (
                container(json!({"taskRoleArn": "r"})),
                "[1].taskRoleArn: `taskRoleArn` is a member of the task definition: move it up.",
            ),
            (
                container(json!({"volumes": []})),
                "[1].volumes: `volumes` is a member of the task definition: move it up.",
            ),
            (
                container(json!({"healthCheck": {"command": [], "networkMode": 1}})),
                "of the task definition: move it up.",
            ),
            (
                container(json!({"linuxParameters": {"privileged": true}})),
                "`privileged` is a member of the container: move it up.",
            ),
            (
                container(json!({"linuxParameters": {"memory": 1}})),
                "`memory` is a member of the container: move it up.",
            ),
            (json!({"dependsOn": []}), "dependsOn: `dependsOn` is a member of a container: move it into one."),
            (json!({"volumes": [{"mountPoints": []}]}), "`mountPoints` is a member of a container: move it into one."),
            (json!({"runtimePlatform": {"cpu": "1"}}), "`cpu` is a member of the task definition: move it up."),
            (json!({"name": "a"}), "there is no member `name`. The members here are family,"),
            (container(json!({"dependsOn": [{"name": "a"}]})), "The members here are containerName, condition."),
            (container(json!({"memroy": 1})), "there is no member `memroy`. Did you mean `memory`?"),
        ] {
            let text = read::<TaskDefinition>("It", &definition).unwrap_err();
            assert!(text.contains(wanted), "{definition}: {text}");
        }
    }
}
