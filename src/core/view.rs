//! Makes the view: a snapshot of the state for readers, without environment variables, settings and credentials.

use super::container::{self, Next, Wait};
use super::state::{
    ContainerState, Key, NetworkOperationKind, NetworkStatus, OperationKind, PendingOperation, State, TaskState,
};
use super::{admission, credentials, dependency, network};
use crate::model::attachment::Device;
use crate::model::view::{ContainerView, TaskView, View};
use crate::model::waiting::{Blocker, Waiting};
use crate::model::{ContainerSpec, ContainerStatus, PortBinding, RoleKind, TaskArn, TaskStatus, Timestamp};
use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A snapshot for readers.
pub fn view(state: &State, now: Timestamp) -> View {
    view_after(&View::default(), state, &BTreeSet::new(), now)
}

/// A snapshot for readers. It shares with `previous` the views of the tasks that show nothing new. `changed` names the
/// documents that have changed since `previous` was made.
///
/// What a task waits for may depend on other tasks and on the time, so it is computed again for every task.
pub fn view_after(previous: &View, state: &State, changed: &BTreeSet<Key>, now: Timestamp) -> View {
    let ledger = LazyCell::new(|| admission::Ledger::new(state));
    let mut earlier = previous.tasks.iter().peekable();
    let tasks = state.tasks.values().map(|task| {
        let waits = waits(state, &ledger, task, now);
        while earlier.next_if(|shown| shown.arn < task.spec.arn).is_some() {}
        let shown = earlier.next_if(|shown| shown.arn == task.spec.arn);
        let is_same = |shown: &&Arc<TaskView>| {
            let has_same_live_facts =
                shown.unreported_since == task.live.unreported_since && has_same_processes(shown, task);
            shown.waits == waits && !is_changed(changed, &task.spec.arn) && has_same_live_facts
        };
        match shown.filter(is_same) {
            Some(shown) => Arc::clone(shown),
            None => Arc::new(task_view(task, waits)),
        }
    });
    View { is_incomplete: state.host.lost, at: now, tasks: tasks.collect() }
}

/// The processes of containers are in no document, so a document that is the same does not mean that they are.
fn has_same_processes(shown: &TaskView, task: &TaskState) -> bool {
    let processes = task.pairs().map(|(_, container)| &container.live.process);
    shown.containers.iter().map(|container| &container.process).eq(processes)
}

fn is_changed(changed: &BTreeSet<Key>, task: &TaskArn) -> bool {
    changed.iter().any(|key| matches!(key, Key::Task(arn) if arn == task))
}

fn task_view(task: &TaskState, waits: Vec<Waiting>) -> TaskView {
    TaskView {
        arn: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        service_name: task.spec.service_name.clone(),
        launch_type: task.spec.launch_type.clone(),
        cpu_micros: task.spec.cpu_micros,
        memory: task.spec.memory,
        associations: task.spec.associations.clone(),
        network: task.spec.network,
        interfaces: task.spec.interfaces.clone(),
        local_address: task.network.local_address,
        network_is_up: task.network.status == NetworkStatus::Up,
        fault_injection: task.spec.fault_injection,
        roles: credentials::served(task).collect(),
        desired: task.desired,
        known: task.known,
        pull_started_at: task.pull_started_at,
        pull_stopped_at: task.pull_stopped_at,
        execution_stopped_at: task.execution_stopped_at,
        unreported_since: task.live.unreported_since,
        waits,
        containers: task.pairs().map(|(spec, container)| container_view(task, spec, container)).collect(),
    }
}

fn container_view(task: &TaskState, spec: &ContainerSpec, container: &ContainerState) -> ContainerView {
    let from_definition = || {
        spec.ports.iter().map(|port| PortBinding {
            container_port: port.container_port,
            host_port: port.host_port,
            bind_ip: String::new(),
            protocol: port.protocol,
        })
    };
    ContainerView {
        kind: spec.kind,
        name: spec.name.clone(),
        arn: spec.arn.clone(),
        endpoint_id: Some(&spec.endpoint_id).filter(|id| !id.as_str().is_empty()).cloned(),
        runtime_id: container.runtime_id.clone(),
        process: container.live.process.clone(),
        runtime_name: task.spec.runtime_name(&spec.name),
        image: spec.image.clone(),
        image_id: container.image_id.clone(),
        desired: desired(task, container),
        known: container.known,
        created_at: container.created_at.clone(),
        started_at: container.started_at.clone(),
        finished_at: container.finished_at.clone(),
        cpu: spec.cpu,
        memory: spec.memory,
        ports_are_bound: !container.bindings.is_empty(),
        ports: if container.bindings.is_empty() { from_definition().collect() } else { container.bindings.clone() },
        mounts: container.mounts.clone(),
        networks: container.networks.clone(),
        labels: container.labels.clone(),
        log: spec.log.clone(),
        restarts: spec.restart.as_ref().map(|_| container.restarts.count),
        has_health_check: spec.health_check,
        health: container.health,
        health_since: container.health_since,
        health_check: container.health_check.clone(),
        exit_code: container.exit_code,
        changed_at: container.changed_at,
    }
}

/// The status that the container should reach. A container that ended by itself keeps `Running` until its task is to stop.
fn desired(task: &TaskState, container: &ContainerState) -> ContainerStatus {
    match task.desired == TaskStatus::Stopped || container.failure.is_some() {
        true => ContainerStatus::Stopped,
        false => ContainerStatus::Running,
    }
}

/// What the task and its containers wait for. A container that has reached its target status is left out.
fn waits<'a>(
    state: &'a State,
    ledger: &LazyCell<admission::Ledger<'a>, impl FnOnce() -> admission::Ledger<'a>>,
    task: &TaskState,
    now: Timestamp,
) -> Vec<Waiting> {
    if admission::waits(task) {
        let blocker = if state.host.lost { Blocker::Inventory } else { Blocker::HostResources(ledger.shortages(task)) };
        return vec![Waiting { container: None, blocker, since: task.known_at }];
    }
    let containers = task.pairs().enumerate().filter_map(|(index, (spec, container))| {
        if task.has_reached_target(index) {
            return None;
        }
        let Next::Wait(wait) = container::next(state, task, index, now) else { return None };
        let since =
            container.live.operation.map_or(container.changed_at.max(task.known_at), |operation| operation.since);
        let (blocker, since) = match wait {
            Wait::Network => network_blocker(state, task, since, now),
            wait => (blocker(task, index, wait, now), since),
        };
        Some(Waiting { container: Some(spec.name.clone()), blocker, since })
    });
    let mut waits: Vec<Waiting> = containers.collect();
    // The task has ended, and its address on the bridge is not free yet.
    if task.known == TaskStatus::Stopped && !network::is_over(task) {
        let (blocker, since) = network_blocker(state, task, task.known_at, now);
        waits.push(Waiting { container: None, blocker, since });
    }
    waits
}

/// What the network of the task waits for, and since when.
fn network_blocker(state: &State, task: &TaskState, since: Timestamp, now: Timestamp) -> (Blocker, Timestamp) {
    let is_set_up = |kind| kind == NetworkOperationKind::SetUp;
    let what = |is_set_up| if is_set_up { "set up" } else { "torn down" };
    match network::next(state, task, now) {
        network::Next::Wait(network::Wait::Operation(operation)) => {
            (Blocker::Network(Some(operation.id), what(is_set_up(operation.kind))), operation.since)
        }
        network::Next::Wait(network::Wait::Interface(record)) => {
            let Device::Interface(address) = record.device;
            (Blocker::Interface(address, record.expires_at), record.announced_at)
        }
        network::Next::Wait(network::Wait::NextTry(at)) => (Blocker::NextTry(at), since),
        network::Next::Wait(network::Wait::Delay(at)) => (Blocker::NetworkDelay(at), since),
        _ => (Blocker::Network(None, what(task.desired == TaskStatus::Running)), since),
    }
}

/// Adds to a wait its details, for readers.
fn blocker(task: &TaskState, index: usize, wait: Wait, now: Timestamp) -> Blocker {
    match wait {
        Wait::Admission => Blocker::HostResources(Vec::new()), // the task itself shows the shortages
        Wait::Operation(operation) => docker_operation(task, index, operation),
        Wait::NextTry(at) => Blocker::NextTry(at),
        Wait::Inventory => Blocker::Inventory,
        Wait::Dependents => Blocker::Containers(dependency::dependents(task, index), None),
        Wait::Dependencies(until) => Blocker::Containers(dependency::awaited(task, index, now), until),
        Wait::Credentials(role) => {
            let id = match role {
                RoleKind::Task => &task.role_credentials,
                RoleKind::Execution => &task.execution_credentials,
            };
            Blocker::Credentials(role, id.clone().unwrap_or_default())
        }
        Wait::Resource(at) => {
            let op = task.resources[at].state.live.operation.map(|operation| operation.id);
            Blocker::Resource(op, task.resources[at].spec.name.clone())
        }
        Wait::Network => Blocker::Network(None, "set up"), // `network_blocker` has the details
        Wait::ImageRemoval => Blocker::ImageRemoval(task.containers[index].spec.image.clone()),
        Wait::DiskSpace => Blocker::DiskSpace,
    }
}

fn docker_operation(task: &TaskState, index: usize, operation: PendingOperation) -> Blocker {
    let image = || task.containers[index].spec.image.clone();
    let verb = match operation.kind {
        OperationKind::ResolveDigest => return Blocker::Digest(operation.id, image()),
        OperationKind::Pull => return Blocker::Pull(operation.id, image()),
        OperationKind::Create => "create",
        OperationKind::Start => "start",
        OperationKind::Stop => "stop",
        OperationKind::Inspect => "describe",
        OperationKind::Remove => "remove",
    };
    Blocker::Docker(operation.id, verb)
}

#[cfg(test)]
mod tests;
