//! The invariants of the state, as code. Tests check them after every step; so do debug builds.

use super::admission;
use super::state::{NetworkStatus, OperationOwner, Resource, State, TaskState};
use crate::model::{ResourceStatus, RunState, TaskStatus};
use std::collections::BTreeSet;

/// Checks the invariants and returns the first that does not hold, in words.
///
/// # Errors
/// The broken invariant and the task it is broken for.
pub fn check(state: &State) -> Result<(), String> {
    for (arn, task) in &state.tasks {
        check_task(state, task).map_err(|broken| format!("{arn}: {broken}"))?;
    }
    for (op, owner) in &state.ops {
        let has_waiting_owner = match owner {
            OperationOwner::Container(arn, index) => state.tasks.get(arn).is_some_and(|task| {
                task.containers[*index].state.live.operation.is_some_and(|operation| operation.id == *op)
            }),
            OperationOwner::Resource(arn, name) => state.tasks.get(arn).is_some_and(|task| {
                let resource = task.resource_index(name).map(|index| &task.resources[index].state);
                resource.and_then(|resource| resource.live.operation).is_some_and(|operation| operation.id == *op)
            }),
            OperationOwner::Report(arn) => state
                .tasks
                .get(arn)
                .is_some_and(|task| task.live.report.as_ref().is_some_and(|report| report.op == *op)),
            OperationOwner::Network(arn) => state
                .tasks
                .get(arn)
                .is_some_and(|task| task.live.network.operation.as_ref().is_some_and(|operation| operation.id == *op)),
            OperationOwner::Attachment(arn) => {
                state.attachment_reports.get(arn).is_some_and(|report| report.op == Some(*op))
                    && state.host.attachments.contains_key(arn)
            }
            OperationOwner::Inventory => state.inventory.pending.is_some_and(|(id, _)| id == *op),
            OperationOwner::Images => state.images.operation.as_ref().is_some_and(|(id, _)| id == op),
            OperationOwner::Orphan(name) => state.orphans.get(name).is_some_and(|orphan| orphan.op == Some(*op)),
        };
        require(has_waiting_owner, "a pending operation has no owner that waits for it")?;
    }
    let addresses = || state.tasks.values().filter_map(|task| task.network.local_address);
    let distinct = addresses().collect::<BTreeSet<_>>().len();
    require(distinct == addresses().count(), "two tasks have the same address on the bridge")?;
    require(admission::ledger_holds(state), "more of the host is given out than it has, or a port twice")
}

fn check_task(state: &State, task: &TaskState) -> Result<(), String> {
    for Resource { spec, state: resource } in &task.resources {
        let named = |what: &str| format!("{what} (resource {})", spec.name);
        require(
            resource.known != ResourceStatus::Created || resource.create_asked,
            &named("exists, but was never asked for"),
        )?;
        let holds = resource.tickets.is_none() || resource.known == ResourceStatus::Created;
        require(holds, &named("tickets of a resource that does not exist"))?;
        if let Some(operation) = resource.live.operation {
            require(state.ops.contains_key(&operation.id), &named("a pending operation has no owner"))?;
        }
    }
    require(task.live.wake.is_none_or(|wake| wake >= state.wakes_from), "wakes before `wakes_from`")?;
    require(task.sent <= task.known, "more was sent to ECS than is known of the task")?;
    require(
        matches!(task.desired, TaskStatus::Running | TaskStatus::Stopped),
        "desired is neither running nor stopped",
    )?;
    require(!task.ran || task.known >= TaskStatus::Running, "a task that ran is known as less")?;
    if let Some(report) = &task.live.report {
        require(state.ops.contains_key(&report.op), "a pending report has no owner")?;
    }
    let has_network = !matches!(task.network.status, NetworkStatus::None | NetworkStatus::Over);
    require(!has_network || task.network.local_address.is_some(), "a network without an address on the bridge")?;
    if let Some(operation) = &task.live.network.operation {
        require(state.ops.contains_key(&operation.id), "a pending operation on the network has no owner")?;
    }
    for (spec, container) in task.pairs() {
        let named = |what: &str| format!("{what} (container {})", spec.name);
        require(container.sent <= container.known, &named("more was sent to ECS than is known"))?;
        require(!container.removed || container.observed.is_none(), &named("removed, but still seen"))?;
        require(container.observed.is_none() || container.create_asked, &named("seen, but never asked for"))?;
        require(
            !container.restarts.due || (container.ran && container.observed != Some(RunState::Running)),
            &named("a restart is due, but the container runs or never ran"),
        )?;
        require(!container.ran || container.running_since.is_some(), &named("ran, but without a time of its start"))?;
        require(
            container.observed != Some(RunState::Exited) || container.is_stopped() || container.restarts.due,
            &named("seen to have ended, but not known as stopped"),
        )?;
        require(
            !task.reduced || container.create_asked || container.is_stopped(),
            &named("rebuilt, but still to be created"),
        )?;
        if let Some(operation) = container.live.operation {
            require(state.ops.contains_key(&operation.id), &named("a pending operation has no owner"))?;
        }
    }
    require(
        task.known != TaskStatus::Stopped || task.states().all(super::state::ContainerState::is_stopped),
        "a stopped task has a container that is not",
    )
}

fn require(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::PortMapping;
    use crate::model::{ContainerStatus, OpId, Protocol, ResourceKind, ResourceSpec, Tickets};
    use crate::policy::{Capacity, Policy};
    use crate::sample::{NOW, container, seen, task};
    use crate::state::{OperationKind, Orphan, PendingOperation, PendingReport, ResourceState};

    const OP: OpId = OpId(7);

    /// The check of a valid state with a running task of one container, after a change.
    fn broken_by(change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut task = task(vec![container("a", &[])]);
        (task.known, task.sent, task.admitted, task.ran) = (TaskStatus::Running, TaskStatus::Running, true, true);
        let first = &mut task.containers[0].state;
        (first.known, first.sent) = (ContainerStatus::Running, ContainerStatus::Running);
        (first.observed, first.create_asked, first.ran) = (Some(RunState::Running), true, true);
        first.running_since = Some(NOW);
        let mut state = State { policy: Policy::default(), ..State::default() };
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        change(&mut state);
        check(&state)
    }

    fn check_with(change: impl FnOnce(&mut TaskState)) -> Result<(), String> {
        broken_by(|state| change(state.tasks.get_mut(&"task".into()).unwrap()))
    }

    fn says(broken: &Result<(), String>, what: &str) -> bool {
        broken.as_ref().is_err_and(|text| text.contains(what))
    }

    #[test]
    fn a_broken_task_is_named_with_what_is_broken() {
        assert_eq!(check_with(|_| {}), Ok(()));
        type Change = fn(&mut TaskState);
        let table: [(Change, &str); 14] = [
            (
                |task| {
                    let kind = ResourceKind::CredentialSpecs(Vec::new());
                    let spec = ResourceSpec { name: "r".to_owned(), needed_by: Vec::new(), kind };
                    let state = ResourceState { tickets: Some(Tickets::default()), ..ResourceState::default() };
                    task.resources = vec![Resource { spec, state }];
                },
                "tickets of a resource that does not exist (resource r)",
            ),
            (|task| task.sent = TaskStatus::Stopped, "more was sent to ECS than is known of the task"),
            (|task| task.desired = TaskStatus::Created, "neither running nor stopped"),
            (
                |task| (task.known, task.sent) = (TaskStatus::Created, TaskStatus::Created),
                "a task that ran is known as less",
            ),
            (
                |task| {
                    task.live.report =
                        Some(PendingReport { op: OP, status: TaskStatus::Running, containers: Vec::new() })
                },
                "a pending report has no owner",
            ),
            (
                |task| task.containers[0].state.sent = ContainerStatus::Stopped,
                "more was sent to ECS than is known (container a)",
            ),
            (|task| task.containers[0].state.removed = true, "removed, but still seen"),
            (|task| task.containers[0].state.create_asked = false, "seen, but never asked for"),
            (|task| task.containers[0].state.restarts.due = true, "a restart is due, but the container runs"),
            (|task| task.containers[0].state.running_since = None, "ran, but without a time of its start"),
            (|task| task.containers[0].state.observed = Some(RunState::Exited), "seen to have ended"),
            (
                |task| {
                    task.containers[0].state.live.operation =
                        Some(PendingOperation { id: OP, kind: OperationKind::Stop, since: NOW, asked_in_step: 0 })
                },
                "a pending operation has no owner",
            ),
            (|task| task.known = TaskStatus::Stopped, "a stopped task has a container that is not"),
            (|task| task.sent = TaskStatus::Stopped, "task: "),
        ];
        for (change, text) in table {
            let broken = check_with(change);
            assert!(says(&broken, text), "{text}: {broken:?}");
        }
    }

    #[test]
    fn similar_states_that_are_valid_pass() {
        let table: [fn(&mut TaskState); 5] = [
            |task| (task.desired, task.sent) = (TaskStatus::Stopped, TaskStatus::None),
            |task| (task.containers[0].state.removed, task.containers[0].state.observed) = (true, None),
            |task| (task.containers[0].state.create_asked, task.containers[0].state.observed) = (false, None),
            |task| {
                (task.known, task.containers[0].state.known) = (TaskStatus::Stopped, ContainerStatus::Stopped);
                task.containers[0].state.observed = Some(RunState::Exited);
            },
            |task| (task.ran, task.known, task.sent) = (false, TaskStatus::Created, TaskStatus::None),
        ];
        for (nth, change) in table.into_iter().enumerate() {
            assert_eq!(check_with(change), Ok(()), "{nth}");
        }
    }

    #[test]
    fn each_operation_has_an_owner_that_waits_for_it() {
        let arn = || "task".into();
        let owners = [
            OperationOwner::Container(arn(), 0),
            OperationOwner::Report(arn()),
            OperationOwner::Inventory,
            OperationOwner::Orphan("id".to_owned()),
        ];
        for owner in owners {
            for waits_for in [None, Some(OpId(8)), Some(OP)] {
                let broken = broken_by(|state| {
                    state.ops.insert(OP, owner.clone());
                    let Some(id) = waits_for else { return };
                    let other = OperationOwner::Inventory;
                    state.inventory.pending = (owner == other).then_some((id, 1));
                    let orphan = Orphan::from_observation(&seen("forgotten", "a", "id", RunState::Created));
                    state.orphans.insert("id".to_owned(), Orphan { op: Some(id), ..orphan });
                    let task = state.tasks.get_mut(&arn()).unwrap();
                    if matches!(owner, OperationOwner::Container(..)) {
                        let operation =
                            PendingOperation { id, kind: OperationKind::Stop, since: NOW, asked_in_step: 0 };
                        task.containers[0].state.live.operation = Some(operation);
                    } else if matches!(owner, OperationOwner::Report(_)) {
                        let report = PendingReport { op: id, status: TaskStatus::Stopped, containers: Vec::new() };
                        task.live.report = Some(report);
                    }
                });
                assert_eq!(broken.is_ok(), waits_for == Some(OP), "{owner:?} {waits_for:?} {broken:?}");
            }
        }
    }

    #[test]
    fn the_ledger_is_checked_unless_all_of_it_is_inherited() {
        let over = |inherited: bool, cpu: u64| {
            broken_by(|state| {
                state.policy.capacity = Capacity { cpu, memory: 10, ..Capacity::default() };
                let task = state.tasks.get_mut(&"task".into()).unwrap();
                (task.live.inherited, task.containers[0].spec.cpu) = (inherited, 100);
            })
        };
        let text = "more of the host is given out";
        assert_eq!(over(false, 100), Ok(()));
        assert!(says(&over(false, 99), text));
        assert_eq!(over(true, 99), Ok(()));
        let ports = |protocol: Protocol| {
            broken_by(|state| {
                let port = |protocol| PortMapping { container_port: 80, host_port: 80, protocol };
                let mut task = state.tasks[&"task".into()].clone();
                task.containers[0].spec.ports.push(port(Protocol::Tcp));
                let mut other = task.clone();
                (other.spec.arn, other.containers[0].spec.ports[0]) = ("other".into(), port(protocol));
                state.tasks.extend([task, other].map(|task| (task.spec.arn.clone(), task)));
            })
        };
        assert_eq!(ports(Protocol::Udp), Ok(()));
        assert!(says(&ports(Protocol::Tcp), text));
    }
}
