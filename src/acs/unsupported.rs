//! What this version of the agent cannot do, found in a task (spec `acs.md` §6).
//!
//! Owns the list: one line for each feature, deleted when the feature is built. It judges no values. The invariant: whatever is on
//! this list is not advertised by `ecs::attributes`, so ECS should not send it; if it does, the task says why it stopped.

use super::translate::member;
use super::wire;
use serde_json::{Map, Value};

/// The first thing in the task that is not supported, as a sentence.
pub(super) fn in_task(task: &wire::Task) -> Option<String> {
    let checks = [
        (task.cpu != 0.0, "a task-level cpu limit"),
        (task.memory != 0, "a task-level memory limit"),
        (!matches!(task.network_mode.as_str(), "" | "bridge" | "host" | "none"), "the network mode of the task"),
        (!task.elastic_network_interfaces.is_empty(), "an elastic network interface"),
        (task.proxy_configuration.is_some(), "a proxy configuration"),
        (task.role_credentials.is_some(), "a task role"),
        (!task.pid_mode.is_empty(), "pidMode"),
        (!task.ipc_mode.is_empty(), "ipcMode"),
        (!task.associations.is_empty(), "an association"),
        (task.attachments.iter().any(is_acted_on), "an attachment"),
        (task.enable_fault_injection, "fault injection"),
    ];
    if let Some((_, what)) = checks.iter().find(|(found, _)| *found) {
        return Some(format!("{what} is not supported by this version of the agent"));
    }
    for volume in &task.volumes {
        if let Some(what) = in_volume(volume) {
            return Some(format!("{what} is not supported by this version of the agent (volume {})", volume.name));
        }
    }
    task.containers.iter().find_map(|container| {
        let what = in_container(container)?;
        Some(format!("{what} is not supported by this version of the agent (container {})", container.name))
    })
}

/// The reference ignores attachments of other types.
fn is_acted_on(attachment: &wire::Attachment) -> bool {
    matches!(attachment.attachment_type.as_str(), "serviceconnectdetail" | "amazonebs" | "s3files")
}

fn in_volume(volume: &wire::Volume) -> Option<String> {
    match (volume.kind.as_str(), &volume.host) {
        ("" | "host", Some(host)) if host.source_path.is_empty() => Some("a host volume without sourcePath".to_owned()),
        ("" | "host", Some(_)) => None,
        ("" | "host", None) => Some("a host volume without host member".to_owned()),
        (kind, _) => Some(format!("a volume of type {kind}")),
    }
}

fn in_container(container: &wire::Container) -> Option<String> {
    let checks = [
        (!container.environment_files.is_empty(), "an environment file"),
        (!container.secrets.is_empty(), "a secret"),
        (!container.volumes_from.is_empty(), "volumesFrom"),
        (container.port_mappings.iter().any(|port| !port.container_port_range.is_empty()), "a container port range"),
        (container.firelens_configuration.is_some(), "a FireLens configuration"),
        (
            log_driver(&container.docker_config.host_config).as_deref() == Some("awsfirelens"),
            "the awsfirelens log driver",
        ),
        (!container.managed_agents.is_empty(), "a managed agent"),
        (!container.credential_specs.is_empty(), "a credential spec"),
        (!container.logs_auth_strategy.is_empty(), "a log driver with the execution role"),
    ];
    checks.iter().find(|(found, _)| *found).map(|(_, what)| (*what).to_owned())
}

fn log_driver(host_config: &str) -> Option<String> {
    let object: Map<String, Value> = serde_json::from_str(host_config).ok()?;
    let Value::Object(log) = member(&object, "LogConfig")? else { return None };
    member(log, "Type")?.as_str().map(str::to_owned)
}
