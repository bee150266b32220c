//! Checks values that a container gets from AWS, and its log settings: secrets, environment files, registry credentials, log
//! drivers.

use super::super::{ContainerDefinition, FirelensConfiguration, LogConfiguration, NamedSecret, TaskDefinition};
use super::rule::Findings;
use crate::suggestion::did_you_mean;
use std::collections::BTreeSet;

/// Log drivers that a container definition may name (ECS API reference, LogConfiguration).
pub(crate) const LOG_DRIVERS: [&str; 9] =
    ["awsfirelens", "awslogs", "fluentd", "gelf", "journald", "json-file", "logentries", "splunk", "syslog"];
/// Maximum number of environment files of one container.
const MAX_FILES: usize = 10;

/// Checks the log routers, and the containers that need one.
pub(super) fn log_routing(found: &mut Findings, definition: &TaskDefinition) {
    let containers = &definition.container_definitions;
    let routers = containers.iter().filter(|container| container.firelens_configuration.is_some()).count();
    let is_routed = |container: &&ContainerDefinition| {
        container.log_configuration.as_ref().is_some_and(|log| log.log_driver == "awsfirelens")
    };
    let routed = containers.iter().filter(is_routed).count();
    found.require(routers < 2, || "Only one container of a task can have a firelensConfiguration.".to_owned());
    found.require(routers == 0 || routed > 0, || {
        "When a firelensConfiguration object is specified, at least one container has to be configured with the awsfirelens log driver."
            .to_owned()
    });
    found.require(routed == 0 || routers == 1, || {
        "When the awsfirelens log driver is used, one container of the task needs a firelensConfiguration.".to_owned()
    });
}

pub(super) fn container(found: &mut Findings, definition: &TaskDefinition, c: &ContainerDefinition) {
    let has_role = definition.execution_role_arn.is_some();
    let has_options = c.log_configuration.as_ref().is_some_and(|log| !log.secret_options.is_empty());
    for (what, is_used) in [
        ("container secrets", !c.secrets.is_empty()),
        ("environment files", !c.environment_files.is_empty()),
        ("secret options", has_options),
    ] {
        found.require(!is_used || has_role, || {
            format!("When you are specifying {what}, you must also specify a value for 'executionRoleArn'.")
        });
    }
    secrets(found, "secrets", &c.secrets);
    let mut names: BTreeSet<&str> = c.environment.iter().map(|variable| variable.name.as_str()).collect();
    for secret in &c.secrets {
        found.require(names.insert(&secret.name), || {
            format!(
                "The secret name must be unique and not shared with any new or existing environment variables set on the container, such as '{}'.",
                secret.name
            )
        });
    }
    found.require(c.environment_files.len() <= MAX_FILES, || {
        format!("A container can have at most {MAX_FILES} environment files.")
    });
    for file in &c.environment_files {
        let value = &file.value;
        found.require(file.kind == "s3", || format!("Type `{}` of an environment file is invalid: use s3.", file.kind));
        found.require(is_object(value) && value.ends_with(".env"), || {
            format!("Environment file `{value}` must be the ARN of an object in S3 whose name ends in .env.")
        });
    }
    if let Some(log) = &c.log_configuration {
        log_configuration(found, log);
    }
    if let Some(router) = &c.firelens_configuration {
        log_router(found, router);
    }
}

fn log_router(found: &mut Findings, router: &FirelensConfiguration) {
    let kind = &router.kind;
    found.require(["fluentd", "fluentbit"].contains(&kind.as_str()), || {
        format!("FireLens type `{kind}` is invalid: use fluentd or fluentbit.")
    });
    let option = |name: &str| router.options.get(name).map(String::as_str);
    let source = option("config-file-type");
    found.require(source.is_none_or(|source| ["s3", "file"].contains(&source)), || {
        "FireLens option `config-file-type` is invalid: use s3 or file.".to_owned()
    });
    found.require(source.is_none() || option("config-file-value").is_some(), || {
        "FireLens option `config-file-type` needs `config-file-value`.".to_owned()
    });
}

fn log_configuration(found: &mut Findings, log: &LogConfiguration) {
    let driver = log.log_driver.as_str();
    found.require(LOG_DRIVERS.contains(&driver), || {
        let suggestion = did_you_mean(driver, LOG_DRIVERS);
        format!("Log driver `{driver}` is invalid: use one of {}.{suggestion}", LOG_DRIVERS.join(", "))
    });
    if driver == "awslogs" {
        for option in ["awslogs-group", "awslogs-region"] {
            found
                .require(log.options.contains_key(option), || format!("Log driver awslogs requires option: {option}."));
        }
        found.require(!log.options.contains_key("awslogs-stream"), || {
            "Log driver awslogs disallows options: awslogs-stream. Use awslogs-stream-prefix.".to_owned()
        });
    }
    secrets(found, "secretOptions", &log.secret_options);
}

fn secrets(found: &mut Findings, member: &str, secrets: &[NamedSecret]) {
    for secret in secrets {
        found.require(!secret.name.is_empty() && !secret.value_from.is_empty(), || {
            format!("Each of `{member}` needs a `name` and a `valueFrom`.")
        });
    }
}

/// The text is an ARN of an object in S3: `arn:aws:s3:::bucket/key`.
fn is_object(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let head = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
    let path = parts.next().and_then(|path| path.split_once('/'));
    matches!(head, [Some("arn"), Some(_), Some("s3"), Some(""), Some("")])
        && path.is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{verdict, with_first};
    use serde_json::{Value, json};

    fn with_role(container: Value) -> String {
        verdict(|definition| {
            definition["executionRoleArn"] = json!("arn:aws:iam::1:role/x");
            definition["containerDefinitions"][0]
                .as_object_mut()
                .unwrap()
                .extend(container.as_object().unwrap().clone());
        })
    }

    #[test]
    fn values_from_aws_need_the_execution_role() {
        let secret = json!([{"name": "S", "valueFrom": "/name"}]);
        let file = json!([{"value": "arn:aws:s3:::bucket/a/b.env", "type": "s3"}]);
        let log = json!({"logDriver": "splunk", "secretOptions": [{"name": "splunk-token", "valueFrom": "token"}]});
        for (member, value) in [("secrets", secret), ("environmentFiles", file), ("logConfiguration", log)] {
            let container = json!({member: value});
            assert!(
                with_first(container.clone()).contains("must also specify a value for 'executionRoleArn'"),
                "{member}"
            );
            assert_eq!(with_role(container), "", "{member}");
        }
    }

    #[test]
    fn values_are_refused_with_a_reason() {
        let secrets = |list: Value| json!({"secrets": list});
        let file = |value: &str, kind: &str| json!({"environmentFiles": [{"value": value, "type": kind}]});
        let log = |driver: &str| json!({"logConfiguration": {"logDriver": driver}});
        for (container, expected) in [
            (secrets(json!([{"name": "", "valueFrom": "x"}])), "needs a `name` and a `valueFrom`"),
            (secrets(json!([{"name": "S", "valueFrom": ""}])), "needs a `name` and a `valueFrom`"),
            (
                json!({"environment": [{"name": "S", "value": ""}], "secrets": [{"name": "S", "valueFrom": "x"}]}),
                "must be unique and not shared",
            ),
            (file("arn:aws:s3:::bucket/b.env", "file"), "use s3"),
            (file("arn:aws:s3:::bucket/b.txt", "s3"), "ends in .env"),
            (file("arn:aws:s3:::bucket", "s3"), "must be the ARN of an object"),
            (file("s3://bucket/b.env", "s3"), "must be the ARN of an object"),
            (
                json!({"environmentFiles": vec![json!({"value": "arn:aws:s3:::b/k.env", "type": "s3"}); 11]}),
                "at most 10",
            ),
            (log("paper"), "Log driver `paper` is invalid"),
            (log("awslogs"), "requires option: awslogs-group"),
            (log("awsfirelens"), "needs a firelensConfiguration"),
            (json!({"firelensConfiguration": {"type": "fluentbit"}}), "at least one container has to be configured"),
        ] {
            let text = with_role(container.clone());
            assert!(text.contains(expected), "{container}: {text}");
        }
    }

    #[test]
    fn log_routers_are_checked() {
        let with = |router: Value| {
            verdict(|definition| {
                definition["containerDefinitions"][0]["logConfiguration"] = json!({"logDriver": "awsfirelens"});
                definition["containerDefinitions"][1]["firelensConfiguration"] = router;
            })
        };
        assert_eq!(with(json!({"type": "fluentbit", "options": {"enable-ecs-log-metadata": "true"}})), "");
        for (router, expected) in [
            (json!({"type": "logstash"}), "use fluentd or fluentbit"),
            (json!({"type": "fluentd", "options": {"config-file-type": "http"}}), "use s3 or file"),
            (json!({"type": "fluentd", "options": {"config-file-type": "s3"}}), "needs `config-file-value`"),
        ] {
            let text = with(router.clone());
            assert!(text.contains(expected), "{router}: {text}");
        }
    }
}
