//! Checks the settings after `--` of `up` before anything is started. The agent itself says what is wrong with them, and which values
//! are in effect: this module owns the question to its `check-config`, and which answers count. Invariant: an agent that does not answer
//! is no error.

use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The time limit for the agent's answer.
const LIMIT: Duration = Duration::from_secs(30);

/// The report of the agent's program about its settings, with the given ones; `null` if there is none.
pub(super) async fn report(program: &Path, given: &[(String, String)]) -> Value {
    let mut command = Command::new(program);
    command.args(["check-config", "-json"]).envs(given.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let Ok(Ok(output)) = timeout(LIMIT, command.output()).await else { return Value::Null };
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Checks the given settings. `program` is the agent's, which lists all settings.
///
/// # Errors
/// The problems, one a line. An invalid value would be replaced by the agent's default, and a wrong name would be ignored.
pub(super) fn check(program: &Path, report: &Value, given: &[(String, String)]) -> Result<(), String> {
    let found = problems(program, report, given);
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

/// The value of a setting that is in effect; `None`: the report does not have it.
pub(super) fn effective<'r>(report: &'r Value, name: &str) -> Option<&'r str> {
    let checks = report["checks"].as_array().into_iter().flatten();
    let mut settings = checks.flat_map(|check| check["effective"].as_array().into_iter().flatten());
    settings.find(|setting| setting["setting"] == name)?["value"].as_str()
}

/// The problems with these settings, in words. The environment of `up` itself is not theirs.
fn problems(program: &Path, report: &Value, given: &[(String, String)]) -> Vec<String> {
    let all = report["checks"].as_array().into_iter().flatten();
    let all = all.flat_map(|check| check["problems"].as_array().into_iter().flatten());
    let counts = |problem: &&Value| {
        let is_given = given.iter().any(|(name, _)| problem["setting"] == name.as_str());
        is_given && problem["place"] == "environment" && problem["severity"] != "note"
    };
    let text = |problem: &Value| {
        let part = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
        // The agent means its own help.
        let expected = part("expected").replace("`ecs-agent help`", &format!("`{} help`", program.display()));
        format!("{}: {}; expected {expected}", part("setting"), part("found"))
    };
    all.filter(counts).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect()
    }

    #[test]
    fn a_wrong_value_and_a_wrong_name_are_explained() {
        let problem = |setting: &str, severity: &str, place: &str| json!({"setting": setting, "severity": severity, "place": place, "found": "`x`", "expected": "a name that `ecs-agent help` lists; did you mean z?"});
        let report = json!({"checks": [{"problems": [
            problem("ECS_LOGLEVL", "warning", "environment"),
            problem("ECS_NOTED", "note", "environment"),
            problem("ECS_LOGLEVL", "warning", "/etc/ecs/ecs.config:3"),
            problem("ECS_OWN", "warning", "environment"),
        ]}]});
        let agent = Path::new("/opt/ecs-agent");
        let found = problems(agent, &report, &given(&["ECS_LOGLEVL", "ECS_NOTED"]));
        assert_eq!(found, ["ECS_LOGLEVL: `x`; expected a name that `/opt/ecs-agent help` lists; did you mean z?"]);
        assert!(problems(agent, &Value::Null, &given(&["A"])).is_empty());
    }

    #[tokio::test]
    async fn an_agent_without_such_a_command_is_no_error() {
        for program in ["/bin/false", "/no/such/agent"] {
            let report = report(Path::new(program), &given(&["A"])).await;
            assert_eq!(
                (&report, check(Path::new(program), &report, &given(&["A"]))),
                (&Value::Null, Ok(())),
                "{program}"
            );
        }
    }
}
