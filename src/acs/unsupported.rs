//! Finds features in a task that this version of the agent does not support (spec `acs.md` §6).
//!
//! Owns the list: one line for each feature, deleted when the feature is built. It does not check values. The invariant: no
//! feature on this list is advertised by `ecs::attributes`, so ECS should not send one; if it does, the task is stopped with a
//! reason.

use super::host::HostFacts;
use super::translate::credential_specs;
use super::wire;
use ecs_core::model::text::cleaned;

/// The network mode of tasks with network interfaces of their own.
const AWSVPC: &str = "awsvpc";

/// The first unsupported feature in the task, as a sentence; `None` if all are supported.
pub(super) fn in_task(task: &wire::Task, host: &HostFacts) -> Option<String> {
    let is_awsvpc = task.network_mode == AWSVPC;
    let network_mode = format!("the network mode {}", cleaned(&task.network_mode));
    let checks = [
        (!matches!(task.network_mode.as_str(), "" | "bridge" | "host" | "none" | AWSVPC), network_mode.as_str()),
        (
            is_awsvpc && !host.task_networks,
            "the network mode awsvpc, which this instance does not offer (the agent's log says why),",
        ),
        (!is_awsvpc && !task.elastic_network_interfaces.is_empty(), "a network interface in another mode than awsvpc"),
        (!is_awsvpc && task.proxy_configuration.is_some(), "a proxy in another network mode than awsvpc"),
        (has_attachment(task, "serviceconnectdetail"), "an attachment of Service Connect"),
        (has_attachment(task, "amazonebs"), "a volume of EBS"),
        (!host.gpus && has_gpu(task), "a GPU, without ECS_ENABLE_GPU_SUPPORT,"),
    ];
    if let Some((_, what)) = checks.iter().find(|(found, _)| *found) {
        return Some(format!("{what} is not supported by this version of the agent"));
    }
    task.containers.iter().find_map(|container| {
        let what = in_container(container, host)?;
        Some(format!("{what} is not supported by this version of the agent (container {})", container.name))
    })
}

/// Whether the task has an attachment of this type. The Go agent ignores all other types.
fn has_attachment(task: &wire::Task, kind: &str) -> bool {
    task.attachments.iter().any(|attachment| attachment.attachment_type == kind)
}

fn has_gpu(task: &wire::Task) -> bool {
    task.associations.iter().any(|association| association.kind == "gpu")
}

/// The first unsupported feature in the container; `None` if all are supported.
fn in_container(container: &wire::Container, host: &HostFacts) -> Option<String> {
    let has_credential_spec = || !matches!(credential_specs::in_container(container), Ok(None));
    let checks = [
        (!container.managed_agents.is_empty(), "ECS Exec (a managed agent)"),
        (!host.credential_specs && has_credential_spec(), "a credential spec, where gMSA (ECS_GMSA_SUPPORTED) is off,"),
    ];
    checks.iter().find(|(found, _)| *found).map(|(_, what)| (*what).to_owned())
}
