//! What a person can do when a task does not fit on an instance. This module owns the texts. Invariant: it changes no decision.

/// The remedy for each required attribute. A `*` at the end stands for any rest, which replaces the `{}` of the text.
const ATTRIBUTES: [(&str, &str); 29] = [
    (
        "com.amazonaws.ecs.capability.task-iam-role-network-host",
        "start the agent with ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true, or remove `taskRoleArn`",
    ),
    (
        "com.amazonaws.ecs.capability.task-iam-role",
        "start the agent with ECS_ENABLE_TASK_IAM_ROLE=true, or remove `taskRoleArn`",
    ),
    (
        "com.amazonaws.ecs.capability.logging-driver.awsfirelens",
        "a log router needs an agent that offers awsfirelens: use another `logDriver`",
    ),
    (
        "com.amazonaws.ecs.capability.logging-driver.awslogs",
        "remove `logConfiguration`, or start the agent with awslogs in ECS_AVAILABLE_LOGGING_DRIVERS, as in [\"json-file\",\"awslogs\"]: \
         it needs AWS credentials in dockerd",
    ),
    (
        "com.amazonaws.ecs.capability.logging-driver.*",
        "start the agent with {} in ECS_AVAILABLE_LOGGING_DRIVERS, as in [\"json-file\",\"{}\"], or use another `logDriver`",
    ),
    (
        "com.amazonaws.ecs.capability.privileged-container",
        "start the agent without ECS_DISABLE_PRIVILEGED, or remove `privileged`",
    ),
    ("com.amazonaws.ecs.capability.ecr-auth", "the agent needs a newer Docker"),
    ("com.amazonaws.ecs.capability.docker-remote-api.*", "the agent needs a Docker with API version {}"),
    (
        "ecs.capability.task-cpu-mem-limit",
        "the agent cannot limit whole tasks here (its log says why): set `cpu` and `memory` of containers instead of the task",
    ),
    (
        "ecs.capability.task-eni",
        "start the agent with ECS_ENABLE_TASK_ENI=true, as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN (its log says what it lacks), \
         or use network mode bridge, host or none",
    ),
    (
        "ecs.capability.pid-ipc-namespace-sharing",
        "the agent has no image for the pause container (its log says why): remove `pidMode` and `ipcMode`",
    ),
    ("ecs.capability.aws-appmesh", "start the agent with ECS_ENABLE_TASK_ENI=true, or remove `proxyConfiguration`"),
    ("ecs.capability.efs", "the agent offers no EFS volumes: use another volume"),
    (
        "ecs.capability.efsAuth",
        "install amazon-ecs-volume-plugin and start the agent with ECS_VOLUME_PLUGIN_CAPABILITIES=[\"efsAuth\"], \
         or remove `transitEncryption` and `authorizationConfig`",
    ),
    (
        "ecs.capability.storage.s3-files",
        "install amazon-ecs-volume-plugin and start the agent with ECS_VOLUME_PLUGIN_CAPABILITIES=[\"efsAuth\"], \
         or use another volume",
    ),
    (
        "ecs.capability.docker-plugin.*",
        "install the volume plugin {} in Docker and restart the agent, or use `driver` local",
    ),
    (
        "ecs.capability.execution-role-awslogs",
        "start the agent with ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE=true, or use another `logDriver`",
    ),
    ("ecs.capability.execution-role-ecr-pull", "the agent needs a newer Docker"),
    ("ecs.capability.secrets.*", "the agent is too old for `secrets`: use environment variables"),
    ("ecs.capability.firelens.*", "the agent offers no log router of type {}: use another `logDriver`"),
    (
        "ecs.capability.gmsa-domainless",
        "start the agent with ECS_GMSA_SUPPORTED=true and CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA, beside a credentials fetcher",
    ),
    (
        "ecs.capability.gmsa",
        "start the agent with ECS_GMSA_SUPPORTED=true and ECS_DOMAIN_JOINED_LINUX_INSTANCE=true, beside a credentials fetcher",
    ),
    (
        "ecs.capability.container-health-check",
        "start the agent without ECS_DISABLE_DOCKER_HEALTH_CHECK, or remove `healthCheck`",
    ),
    ("ecs.capability.container-ordering", "the agent is too old for `dependsOn`"),
    ("ecs.capability.container-restart-policy", "the agent is too old for `restartPolicy`"),
    ("ecs.capability.private-registry-authentication.*", "the agent is too old for `repositoryCredentials`"),
    ("ecs.capability.env-files.s3", "the agent is too old for `environmentFiles`"),
    ("ecs.capability.network.container-port-range", "the agent is too old for `containerPortRange`"),
    ("*", "the agent does not offer {}: remove what needs it from the task definition"),
];

/// What to do about an attribute that an instance lacks.
pub(super) fn for_attribute(name: &str) -> String {
    let rest = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.strip_prefix(beginning).map(str::to_owned),
        None => (pattern == name).then(String::new),
    };
    ATTRIBUTES
        .iter()
        .find_map(|(pattern, text)| Some(text.replace("{}", &rest(pattern)?)))
        .unwrap_or_else(|| name.to_owned())
}

/// What to do about too little CPU or memory, or about a taken port or GPU. `what` is as in `RESOURCE:MEMORY`.
pub(super) fn for_resource(what: &str, instance_has: u64) -> &'static str {
    match (what, instance_has) {
        ("CPU", _) => "lower `cpu` of the containers or of the task, or stop other tasks",
        ("MEMORY", _) => {
            "lower `memory` or `memoryReservation`, stop other tasks, or start the agent with a lower ECS_RESERVED_MEMORY"
        }
        ("GPU", 0) => {
            "the agent needs the list of GPUs in /var/lib/ecs/gpu/nvidia-gpu-info.json (see examples/tasks.md), and \
             ECS_ENABLE_GPU_SUPPORT=true, which `ecs-local up` sets"
        }
        ("GPU", _) => "ask for fewer GPUs, or stop other tasks",
        _ => "use another `hostPort`, or 0 for any free port; ECS_RESERVED_PORTS lists the ports that no task gets",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{TaskDefinition, required_attributes};
    use serde_json::json;

    #[test]
    fn the_remedy_names_the_setting_or_the_member() {
        for (attribute, part) in [
            ("com.amazonaws.ecs.capability.logging-driver.splunk", "[\"json-file\",\"splunk\"]"),
            ("com.amazonaws.ecs.capability.logging-driver.awslogs", "it needs AWS credentials in dockerd"),
            ("com.amazonaws.ecs.capability.task-iam-role-network-host", "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true"),
            ("ecs.capability.task-eni", "use network mode bridge, host or none"),
            ("ecs.capability.docker-plugin.rexray", "install the volume plugin rexray"),
            ("ecs.capability.secrets.asm.environment-variables", "`secrets`"),
            ("ecs.capability.unheard-of", "does not offer ecs.capability.unheard-of"),
        ] {
            let remedy = for_attribute(attribute);
            assert!(remedy.contains(part), "{attribute}: {remedy}");
        }
        assert!(for_resource("GPU", 0).contains("ECS_ENABLE_GPU_SUPPORT=true"));
        assert!(for_resource("PORTS", 0).contains("`hostPort`"));
    }

    /// An attribute that a definition may require has a text of its own.
    #[test]
    fn every_required_attribute_has_a_remedy() {
        let definition = json!({
            "family": "f", "taskRoleArn": "r", "executionRoleArn": "r", "networkMode": "awsvpc", "cpu": "1", "pidMode": "task",
            "proxyConfiguration": {"containerName": "a"},
            "volumes": [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "f", "authorizationConfig": {}}},
                {"name": "w", "dockerVolumeConfiguration": {}}, {"name": "s", "s3filesVolumeConfiguration": {"fileSystemArn": "f"}}],
            "containerDefinitions": [{
                "name": "a", "image": "ecr/i", "memoryReservation": 4, "privileged": true, "logConfiguration": {"logDriver": "awslogs"},
                "healthCheck": {"command": ["CMD", "true"]}, "dependsOn": [{"containerName": "a", "condition": "START"}],
                "restartPolicy": {"enabled": true}, "repositoryCredentials": {"credentialsParameter": "p"},
                "environmentFiles": [{"type": "s3", "value": "v"}], "portMappings": [{"containerPortRange": "1-2"}],
                "secrets": [{"name": "n", "valueFrom": "f"}], "firelensConfiguration": {"type": "fluentbit"},
                "credentialSpecs": ["credentialspec:x", "credentialspecdomainless:y"],
            }],
        });
        let definition: TaskDefinition = serde_json::from_value(definition).unwrap();
        let required = required_attributes(&definition, |image| image.starts_with("ecr/"));
        assert!(required.len() >= 20, "{required:?}");
        for name in required {
            assert!(!for_attribute(&name).contains(&name), "{name} has only the general text");
        }
    }
}
