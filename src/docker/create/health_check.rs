//! Health checks that would harm the container engine (spec `task-engine.md` §9).
//!
//! Owns the decision which checks are not passed on to the engine. This module runs no check. Invariant: a check that would
//! crash or overload the engine, and with it other tasks, fails its own container and nothing else.
//!
//! | the check | what Docker does with it | this agent |
//! |---|---|---|
//! | `["CMD"]` | engines before May 2026 panic: every container of the host ends | refused |
//! | `["CMD-SHELL"]` | a shell without a command: never healthy | refused |
//! | `[]` | uses the image's check | refused: a task definition that has a check names its command |
//! | no `Test` at all | uses the image's check, which is validated like one of the task definition | as Docker |
//! | an interval below 100 ms, given and not 0 | the engine is busy with nothing else | refused |
//! | an interval that is 0 or absent | uses the image's interval, which is validated as well | as Docker |
//! | `["NONE"]`, whatever follows | no check | as Docker |
//! | another first word | no check, and a warning in the engine's log | as Docker |
//! | empty words after `CMD` | never healthy | as Docker |

use bollard::models::HealthConfig;
use serde_json::{Map, Value};

/// The shortest interval that is passed on, in nanoseconds. ECS itself allows no less than five seconds.
const MIN_INTERVAL: i64 = 100_000_000;
const OWN_CHECK: &str = "the health check";
const IMAGE_CHECK: &str = "the health check of the image";

/// Validates the health check that a container would get; `Some` is the problem, as a reason for the task's owner. `config` is
/// the container's configuration, `image` the image's own check, if any. As in Docker, the image's check supplies the command if
/// the container's check has none, and each interval that is 0 or absent.
pub(crate) fn problem(config: &Map<String, Value>, image: Option<&HealthConfig>) -> Option<String> {
    let own: HealthConfig =
        config.get("Healthcheck").and_then(|check| serde_json::from_value(check.clone()).ok()).unwrap_or_default();
    let none = HealthConfig::default();
    let image = image.unwrap_or(&none);
    let (test, origin) = match &own.test {
        Some(test) if test.is_empty() => {
            return Some("the health check has an empty list in place of a command".to_owned());
        }
        Some(test) => (test.as_slice(), OWN_CHECK),
        None => (image.test.as_deref().unwrap_or_default(), IMAGE_CHECK),
    };
    let kind = test.first().filter(|kind| matches!(kind.as_str(), "CMD" | "CMD-SHELL"))?;
    if test.len() == 1 {
        return Some(format!("{origin} has no command after {kind}"));
    }
    let merged = |own: Option<i64>, image: Option<i64>| match own.filter(|time| *time != 0) {
        Some(time) => (time, OWN_CHECK),
        None => (image.unwrap_or_default(), IMAGE_CHECK),
    };
    let intervals = [
        ("interval", merged(own.interval, image.interval)),
        ("start interval", merged(own.start_interval, image.start_interval)),
    ];
    let short = intervals.into_iter().find(|(_, (time, _))| (1..MIN_INTERVAL).contains(time));
    short.map(|(name, (_, origin))| format!("the {name} of {origin} is below {} ms", MIN_INTERVAL / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(check: Value, image: &[&str]) -> String {
        let config = json!({"Healthcheck": check}).as_object().unwrap().clone();
        problem(&config, Some(&image_check(image))).unwrap_or_default()
    }

    fn image_check(test: &[&str]) -> HealthConfig {
        let test = test.iter().map(|word| (*word).to_owned()).collect();
        HealthConfig { test: Some(test), ..HealthConfig::default() }
    }

    #[test]
    fn the_image_s_intervals_count_where_the_task_has_none() {
        let check = |check: Value| json!({"Healthcheck": check}).as_object().unwrap().clone();
        let short = HealthConfig { interval: Some(1_000_000), ..image_check(&["CMD", "true"]) };
        let early = HealthConfig { start_interval: Some(1_000_000), ..image_check(&["CMD", "true"]) };
        for (image, name) in [(&short, "interval"), (&early, "start interval")] {
            let wanted = format!("the {name} of the health check of the image is below 100 ms");
            let none = [
                json!(null),
                json!({"Test": ["CMD-SHELL", "true"]}),
                json!({"Test": ["CMD", "true"], "Interval": 0, "StartInterval": 0}),
            ];
            for own in none {
                assert_eq!(problem(&check(own.clone()), Some(image)).as_ref(), Some(&wanted), "{own}");
            }
            let own = json!({"Interval": 5_000_000_000_i64, "StartInterval": 5_000_000_000_i64});
            assert_eq!(problem(&check(own), Some(image)), None);
            assert_eq!(problem(&check(json!({"Test": ["NONE"]})), Some(image)), None, "no check runs");
        }
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
        assert_eq!(
            problem(&Map::new(), Some(&image_check(&["CMD-SHELL"]))).unwrap(),
            wanted.replace("CMD", "CMD-SHELL")
        );
        assert_eq!(judged(json!({"Test": ["NONE"]}), &["CMD"]), "");
        assert_eq!(judged(json!({"Test": ["CMD", "true"]}), &["CMD"]), "");
        assert_eq!(judged(Value::Null, &["CMD", "true"]) + &judged(Value::Null, &[]), "");
    }

    #[test]
    fn harmless_checks_are_passed_on() {
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
