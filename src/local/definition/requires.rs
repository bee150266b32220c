//! The attributes that an instance must have before a task of a definition is placed on it. This module owns the table from
//! settings to attribute names. Invariant: a definition without special settings requires nothing.

use super::{ContainerDefinition, TaskDefinition, Volume};
use std::collections::BTreeSet;

/// The two prefixes of attribute names.
const C: &str = "com.amazonaws.ecs.capability.";
const E: &str = "ecs.capability.";

/// Names of the required attributes (spec `registration.md` §6), in order.
///
/// `ecr` decides whether an image comes from ECR.
pub(crate) fn required_attributes(definition: &TaskDefinition, ecr: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut need = |prefix: &str, name: &str| {
        names.insert(format!("{prefix}{name}"));
    };
    if definition.task_role_arn.is_some() {
        need(C, "task-iam-role");
        if definition.network_mode() == "host" {
            need(C, "task-iam-role-network-host");
        }
    }
    if definition.cpu.is_some() || definition.memory.is_some() {
        need(E, "task-cpu-mem-limit");
    }
    if definition.network_mode() == "awsvpc" {
        need(E, "task-eni");
    }
    if definition.pid_mode.is_some() || definition.ipc_mode.is_some() {
        need(E, "pid-ipc-namespace-sharing");
    }
    if definition.enable_fault_injection == Some(true) {
        need(E, "fault-injection");
    }
    if definition.proxy_configuration.is_some() {
        need(E, "aws-appmesh");
    }
    for volume in &definition.volumes {
        if volume.efs_volume_configuration.is_some() {
            need(E, "efs");
        }
        if is_efs_of_the_plugin(volume) {
            need(E, "efsAuth");
        }
        if volume.s3files_volume_configuration.is_some() {
            need(E, "storage.s3-files");
        }
        if let Some(docker) = &volume.docker_volume_configuration {
            // The agent writes a dot for a colon, because an attribute's name must not contain a colon.
            need(E, &format!("docker-plugin.{}", docker.driver.as_deref().unwrap_or("local").replace(':', ".")));
        }
    }
    for container in &definition.container_definitions {
        container_needs(container, definition.execution_role_arn.is_some(), ecr(&container.image), &mut need);
    }
    names.into_iter().collect()
}

/// EFS with encryption, an access point or IAM authorization. An agent without the volume plugin cannot mount it.
fn is_efs_of_the_plugin(volume: &Volume) -> bool {
    let Some(efs) = &volume.efs_volume_configuration else { return false };
    efs.transit_encryption.as_deref() == Some("ENABLED") || efs.authorization_config.is_some()
}

fn container_needs(c: &ContainerDefinition, execution_role: bool, ecr: bool, need: &mut impl FnMut(&str, &str)) {
    if let Some(log) = &c.log_configuration {
        need(C, &format!("logging-driver.{}", log.log_driver));
        if log.log_driver == "awslogs" && execution_role {
            need(E, "execution-role-awslogs");
        }
    }
    let log_secrets =
        c.log_configuration.iter().flat_map(|log| &log.secret_options).map(|s| (s, "bootstrap.log-driver"));
    for (secret, place) in c.secrets.iter().map(|secret| (secret, "environment-variables")).chain(log_secrets) {
        let store = if secret.value_from.contains(":secretsmanager:") { "asm" } else { "ssm" };
        need(E, &format!("secrets.{store}.{place}"));
    }
    if let Some(kind) = c.firelens_configuration.as_ref().map(|firelens| firelens.kind.as_str()) {
        need(E, &format!("firelens.{kind}"));
    }
    for spec in &c.credential_specs {
        need(E, if spec.starts_with("credentialspecdomainless:") { "gmsa-domainless" } else { "gmsa" });
    }
    let used = [
        (ecr, C, "ecr-auth"),
        (ecr && execution_role, E, "execution-role-ecr-pull"),
        (c.privileged == Some(true), C, "privileged-container"),
        (c.health_check.is_some(), E, "container-health-check"),
        (!c.depends_on.is_empty(), E, "container-ordering"),
        (c.restart_policy.is_some(), E, "container-restart-policy"),
        (c.repository_credentials.is_some(), E, "private-registry-authentication.secretsmanager"),
        (!c.environment_files.is_empty(), E, "env-files.s3"),
        (c.port_mappings.iter().any(|port| port.container_port_range.is_some()), E, "network.container-port-range"),
        (c.memory_reservation.is_some(), C, "docker-remote-api.1.21"),
        (c.system_controls.as_ref().is_some_and(|controls| !controls.is_empty()), C, "docker-remote-api.1.21"),
    ];
    for (is_used, prefix, name) in used {
        if is_used {
            need(prefix, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn needs(definition: serde_json::Value) -> Vec<String> {
        required_attributes(&serde_json::from_value(definition).unwrap(), |image| image.starts_with("ecr/"))
    }

    #[test]
    fn a_plain_definition_requires_nothing() {
        let plain = json!({"family": "f", "containerDefinitions": [{"name": "a", "image": "busybox", "memory": 16}]});
        assert_eq!(needs(plain), Vec::<String>::new());
    }

    #[test]
    fn volumes_require_what_mounts_them() {
        let needs_volume = |volume: serde_json::Value| {
            needs(
                json!({"family": "f", "containerDefinitions": [{"name": "a", "image": "busybox"}], "volumes": [volume]}),
            )
        };
        let efs = |more: serde_json::Value| {
            let mut efs = json!({"fileSystemId": "fs-12345678"});
            efs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            needs_volume(json!({"name": "v", "efsVolumeConfiguration": efs}))
        };
        assert_eq!(efs(json!({})), ["ecs.capability.efs"]);
        assert_eq!(efs(json!({"transitEncryption": "DISABLED"})), ["ecs.capability.efs"]);
        for more in [json!({"transitEncryption": "ENABLED"}), json!({"authorizationConfig": {"accessPointId": "a"}})] {
            assert_eq!(efs(more), ["ecs.capability.efs", "ecs.capability.efsAuth"]);
        }
        let s3_files = json!({"name": "v", "s3filesVolumeConfiguration": {"fileSystemArn": "arn"}});
        assert_eq!(needs_volume(s3_files), ["ecs.capability.storage.s3-files"]);
    }

    #[test]
    fn settings_require_their_attributes() {
        let full = json!({
            "enableFaultInjection": true,
            "family": "f", "executionRoleArn": "arn:aws:iam::1:role/x", "cpu": "256",
            "containerDefinitions": [{
                "name": "a", "image": "ecr/app", "privileged": true,
                "healthCheck": {"command": ["CMD", "true"]},
                "logConfiguration": {"logDriver": "awslogs"},
                "secrets": [{"name": "S", "valueFrom": "/ssm/name"}],
            }],
        });
        assert_eq!(
            needs(full),
            [
                "com.amazonaws.ecs.capability.ecr-auth",
                "com.amazonaws.ecs.capability.logging-driver.awslogs",
                "com.amazonaws.ecs.capability.privileged-container",
                "ecs.capability.container-health-check",
                "ecs.capability.execution-role-awslogs",
                "ecs.capability.execution-role-ecr-pull",
                "ecs.capability.fault-injection",
                "ecs.capability.secrets.ssm.environment-variables",
                "ecs.capability.task-cpu-mem-limit",
            ]
        );
    }
}
