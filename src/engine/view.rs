//! State to what readers may see. Leaves out environment, settings and credentials.

use super::state::{ContainerState, OperationKind, State, TaskState};
use super::{admission, dependency};
use crate::model::view::{ContainerView, TaskView, View};
use crate::model::{ContainerSpec, PortBinding, Timestamp};

/// A snapshot for readers.
pub fn view(state: &State, now: Timestamp) -> View {
    View { tasks: state.tasks.values().map(|task| task_view(state, task, now)).collect() }
}

fn task_view(state: &State, task: &TaskState, now: Timestamp) -> TaskView {
    TaskView {
        arn: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        desired: task.desired,
        known: task.known,
        waiting_for: waiting_for(state, task, now),
        containers: task.pairs().map(|(spec, container)| container_view(task, spec, container)).collect(),
    }
}

fn container_view(task: &TaskState, spec: &ContainerSpec, container: &ContainerState) -> ContainerView {
    let asked = || {
        spec.ports.iter().map(|port| PortBinding {
            container_port: port.container_port,
            host_port: port.host_port,
            bind_ip: String::new(),
            protocol: port.protocol,
        })
    };
    ContainerView {
        name: spec.name.clone(),
        runtime_id: container.runtime_id.clone(),
        runtime_name: task.spec.runtime_name(&spec.name),
        image: spec.image.clone(),
        image_id: container.image_id.clone(),
        known: container.known,
        created_at: container.created_at.clone(),
        started_at: container.started_at.clone(),
        ports: if container.bindings.is_empty() { asked().collect() } else { container.bindings.clone() },
        mounts: container.mounts.clone(),
        health: container.health,
        exit_code: container.exit_code,
        changed_at: container.changed_at,
    }
}

/// What a task that is not where it should be waits for.
fn waiting_for(state: &State, task: &TaskState, now: Timestamp) -> Option<String> {
    if admission::waits(task) {
        return Some("its share of the host's CPU, memory and ports".to_owned());
    }
    if task.known >= task.desired {
        return None;
    }
    let waits = task.pairs().enumerate().filter_map(|(index, (spec, container))| {
        let what = match container.operation {
            Some(operation) => {
                let verb = match operation.kind {
                    OperationKind::ResolveDigest => "the registry to name the digest",
                    OperationKind::Pull => "its image",
                    OperationKind::Create => "the engine to create it",
                    OperationKind::Start => "the engine to start it",
                    OperationKind::Stop => "the engine to stop it",
                    OperationKind::Inspect => "the engine to describe it",
                    OperationKind::Remove => "the engine to remove it",
                };
                format!("{verb} since {} s", now.since(operation.since).0 / 1000)
            }
            None if container.unsettled && state.inventory.in_flight.is_some() => "an inventory".to_owned(),
            None if container.retry.not_before > now => {
                format!("the next try in {} s", container.retry.not_before.since(now).0 / 1000)
            }
            None if container.over() || container.known == crate::model::ContainerStatus::Running => return None,
            None => match dependency::may_start(task, index, now) {
                dependency::Readiness::Waits(_) => "the containers it depends on".to_owned(),
                dependency::Readiness::Ready | dependency::Readiness::Never(_) => return None,
            },
        };
        Some(format!("{} waits for {what}", spec.name))
    });
    let waits: Vec<String> = waits.collect();
    (!waits.is_empty()).then(|| waits.join("; "))
}
