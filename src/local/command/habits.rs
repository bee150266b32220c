//! What people type by habit: words and options of Docker, Compose and other programs, and files of other programs. This module knows
//! what is meant, and says what to do instead. Invariant: it is asked only when something is wrong, so nothing that works changes.

use serde_json::Value;

/// The text about something that does not exist, with what to do instead.
pub(super) fn hinted(what: &str, hint: &str) -> String {
    let continues = hint.starts_with(|first: char| first.is_lowercase() || first == '`');
    let between = if continues { ": " } else { ". " };
    format!("{what}{between}{hint}")
}

/// What to do instead of a command that does not exist; `None`: it is no habit that is known.
pub(super) fn command(word: &str) -> Option<&'static str> {
    Some(match word {
        "run" | "start" | "create" | "deploy" => "a task is run by `ecs-local up TASK.json`",
        "down" | "stop" | "kill" | "rm" => {
            "`up` stops its task with Ctrl-C. `ecs-local clean` removes what earlier sessions left"
        }
        "prune" | "clear" | "reset" => "Did you mean `clean`?",
        "ps" | "ls" | "list" | "status" => "`ecs-local top --once` lists the containers of tasks",
        "stats" | "htop" | "usage" => "Did you mean `top`?",
        "logs" | "exec" | "attach" => {
            "`up` shows states and output itself. For a session of `serve`, ask the `aws ecs` commands, and `docker logs`"
        }
        "server" | "daemon" => "Did you mean `serve`?",
        "-v" => "Did you mean `-V`?",
        _ => return None,
    })
}

/// What to do instead of an argument of `serve` or `up` that does not exist; `None`: it is no habit that is known.
pub(super) fn argument(argument: &str, is_serve: bool) -> Option<String> {
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    let is_variable = !argument.starts_with('-') && argument.contains('=');
    let text = match name {
        "-f" | "--file" | "--task" | "--task-definition" if !is_serve => {
            "the file has no option: ecs-local up TASK.json"
        }
        "-d" | "--detach" | "--background" => {
            "it stays in the foreground: `nohup` and `&` of the shell keep it running"
        }
        "-e" | "--env" | "--environment" if !is_serve => {
            "settings of the agent follow `--`; the variables of a container are in its `environment`"
        }
        "-p" | "--port" | "--publish" if is_serve => "`--listen 127.0.0.1:PORT` sets the port",
        "-p" | "--port" | "--publish" => {
            "ports of containers are in `portMappings`; `--listen` is for the control plane"
        }
        "-q" => "Did you mean `--quiet`?",
        "-v" => "Did you mean `-V`?",
        "--rm" if !is_serve => "the containers are removed in any case; `--remove-volumes` removes the shared volumes",
        "--agent" | "--agent-log" | "--remove-volumes" if is_serve => {
            "only `up` has it: the agent of `serve` is your own"
        }
        "--" if is_serve => "the agent of `serve` is your own: it has its settings in its environment",
        _ if is_variable && !is_serve => return Some(format!("settings of the agent follow `--`: -- {name}=...")),
        _ if !argument.starts_with('-') && is_serve => "`serve` runs no task: ecs-local up TASK.json",
        _ if !argument.starts_with('-') => "`up` takes one task definition",
        _ => return None,
    };
    Some(text.to_owned())
}

/// How to get a task definition as JSON.
const DESCRIBE: &str = "take the output of `aws ecs describe-task-definition`, or the JSON tab of the console";

/// What to do with a text that is no JSON, but YAML; `None`: it does not look like YAML.
pub(super) fn yaml(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next()?;
    let is_key = |line: &str| {
        let key = line.split_once(':').map_or("", |(key, _)| key);
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    if first != "---" && !is_key(first) && !first.starts_with("- ") {
        return None;
    }
    let is_compose = first.starts_with("services:") || lines.any(|line| line.starts_with("services:"));
    Some(match is_compose {
        true => format!("it is a Compose file, not a task definition: {DESCRIBE}"),
        false => format!("it is YAML: {DESCRIBE}"),
    })
}

/// What to do with JSON of another program; `None`: it may be a task definition.
pub(super) fn foreign(value: &Value) -> Option<String> {
    if let Value::Array(items) = value
        && items.iter().any(|item| item.get("image").is_some())
    {
        return Some(
            "it is a list of containers, as Terraform has it. Wrap it: \
             jq '{family: \"web\", containerDefinitions: .}' FILE | ecs-local up -"
                .to_owned(),
        );
    }
    let has = |name: &str| value.get(name).is_some();
    if let Some(name) = ["containerDefinitions", "container_definitions"].iter().find(|name| is_packed(&value[**name]))
    {
        return Some(format!(
            "its {name} are a string that holds JSON, as Terraform has them. Unpack them: \
             jq '.containerDefinitions = (.{name} | fromjson) | del(.container_definitions)' FILE | ecs-local up -"
        ));
    }
    if has("containerDefinitions") {
        return None;
    }
    let what = match () {
        () if has("services") => "a Compose file",
        () if has("Resources") || has("Properties") => "a CloudFormation template",
        () if has("taskDefinitionArns") => "a list of names",
        () if has("tasks") => "a description of tasks",
        () => return None,
    };
    Some(format!("it is {what}, not a task definition: {DESCRIBE}"))
}

/// The value is a string with an array in it.
fn is_packed(value: &Value) -> bool {
    value.as_str().is_some_and(|text| serde_json::from_str::<Vec<Value>>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_other_programs_are_recognised() {
        for (value, wanted) in [
            (json!([{"name": "a", "image": "i"}]), "containerDefinitions: .}'"),
            (
                json!({"family": "f", "containerDefinitions": "[{\"image\": \"i\"}]"}),
                "(.containerDefinitions | fromjson)",
            ),
            (json!({"container_definitions": "[]"}), "(.container_definitions | fromjson)"),
            (json!({"services": {"web": {}}}), "a Compose file"),
            (json!({"Type": "AWS::ECS::TaskDefinition", "Properties": {}}), "a CloudFormation template"),
            (json!({"Resources": {}}), "a CloudFormation template"),
            (json!({"taskDefinitionArns": []}), "describe-task-definition"),
        ] {
            let text = foreign(&value).unwrap_or_default();
            assert!(text.contains(wanted), "{value}: {text}");
        }
        for value in [
            json!({"containerDefinitions": [], "services": 1}),
            json!({"family": "f", "containerDefinitions": "hunter2"}),
            json!([1]),
            json!({}),
        ] {
            assert_eq!(foreign(&value), None, "{value}");
        }
    }

    #[test]
    fn yaml_is_no_broken_json() {
        assert!(yaml("# mine\nversion: '3'\nservices:\n  web:\n").unwrap().contains("a Compose file"));
        for text in ["family: web\n", "---\nfamily: web", "- name: a\n"] {
            assert!(yaml(text).unwrap().starts_with("it is YAML: "), "{text}");
        }
        for text in ["{\"a\": 1", "hunter2", "[1", "", "// family: web", "\"family\": 1", "http //x: y"] {
            assert_eq!(yaml(text), None, "{text}");
        }
    }
}
