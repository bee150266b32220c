//! Health checks that would hurt the container engine (spec `task-engine.md` §9).
//!
//! Owns which check of a container is not passed on to the engine. It runs no check. The invariant: a check that ends or overloads the
//! engine, and with it other tasks, fails the container it belongs to and nothing else.
//!
//! | the check | what Docker makes of it | here |
//! |---|---|---|
//! | `["CMD"]` | engines before May 2026 panic: every container of the host ends | refused |
//! | `["CMD-SHELL"]` | a shell without a command: never healthy | refused |
//! | `[]` | that of the image | refused: a task definition that has a check names its command |
//! | no `Test` at all | that of the image, which is judged like one of the task definition | as Docker |
//! | an interval below 100 ms, given and not 0 | the engine is busy with nothing else | refused |
//! | `["NONE"]`, whatever follows | none | as Docker |
//! | another first word | none, and a warning in the engine's log | as Docker |
//! | empty words after `CMD` | never healthy | as Docker |

use bollard::models::HealthConfig;
use serde_json::{Map, Value};

/// The shortest time between two checks, in nanoseconds. ECS allows no less than five seconds.
const MIN_INTERVAL: i64 = 100_000_000;

/// What is wrong with the check a container would have, as a reason for its owner. `config` is the container's, `image_test` the
/// command of its image's own check.
pub(super) fn flaw(config: &Map<String, Value>, image_test: &[String]) -> Option<String> {
    let check: HealthConfig =
        config.get("Healthcheck").and_then(|check| serde_json::from_value(check.clone()).ok()).unwrap_or_default();
    let (test, origin) = match &check.test {
        Some(test) if test.is_empty() => {
            return Some("the health check has an empty list in place of a command".to_owned());
        }
        Some(test) => (test.as_slice(), "the health check"),
        None => (image_test, "the health check of the image"),
    };
    if let [kind] = test
        && matches!(kind.as_str(), "CMD" | "CMD-SHELL")
    {
        return Some(format!("{origin} has no command after {kind}"));
    }
    let intervals = [("interval", check.interval), ("start interval", check.start_interval)];
    let short = intervals.into_iter().find(|(_, time)| time.is_some_and(|time| (1..MIN_INTERVAL).contains(&time)));
    short.map(|(name, _)| format!("the {name} of the health check is below {} ms", MIN_INTERVAL / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(check: Value, image: &[&str]) -> String {
        let config = json!({"Healthcheck": check}).as_object().unwrap().clone();
        let image: Vec<String> = image.iter().map(|word| (*word).to_owned()).collect();
        flaw(&config, &image).unwrap_or_default()
    }

    #[test]
    fn a_check_that_hurts_the_engine_is_refused() {
        let no_list = "the health check has an empty list in place of a command";
        for (test, wanted) in [
            (json!(["CMD"]), "the health check has no command after CMD"),
            (json!(["CMD-SHELL"]), "the health check has no command after CMD-SHELL"),
            (json!([]), no_list),
        ] {
            assert_eq!(judged(json!({"Test": test}), &["CMD", "true"]), wanted);
        }
        for (name, wanted) in [("Interval", "interval"), ("StartInterval", "start interval")] {
            let text = judged(json!({"Test": ["CMD", "true"], name: 99_999_999}), &[]);
            assert_eq!(text, format!("the {wanted} of the health check is below 100 ms"));
        }
    }

    #[test]
    fn the_image_s_own_check_counts_where_the_task_names_none() {
        let wanted = "the health check of the image has no command after CMD";
        assert_eq!(judged(Value::Null, &["CMD"]), wanted);
        assert_eq!(judged(json!({"Interval": 1_000_000_000}), &["CMD"]), wanted);
        assert_eq!(flaw(&Map::new(), &["CMD-SHELL".to_owned()]).unwrap(), wanted.replace("CMD", "CMD-SHELL"));
        assert_eq!(judged(json!({"Test": ["NONE"]}), &["CMD"]), "");
        assert_eq!(judged(json!({"Test": ["CMD", "true"]}), &["CMD"]), "");
        assert_eq!(judged(Value::Null, &["CMD", "true"]) + &judged(Value::Null, &[]), "");
    }

    #[test]
    fn what_docker_takes_without_harm_is_passed_on() {
        for test in [
            json!(["CMD", "true"]),
            json!(["CMD", ""]),
            json!(["CMD-SHELL", ""]),
            json!(["NONE"]),
            json!(["NONE", "true"]),
            json!(["true"]),
            json!(["cmd"]),
            json!([""]),
        ] {
            assert_eq!(judged(json!({"Test": test, "Interval": 100_000_000, "StartInterval": 0}), &[]), "", "{test}");
        }
    }
}
