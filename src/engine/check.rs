//! Invariants of the state, as code. Tests check them after every step, debug builds too.

use super::admission;
use super::state::{Owner, State, TaskState};
use crate::model::{RunState, TaskStatus};

/// The first invariant that does not hold, in words.
///
/// # Errors
/// The broken invariant and the task it is broken for.
pub fn check(state: &State) -> Result<(), String> {
    for (arn, task) in &state.tasks {
        check_task(state, task).map_err(|broken| format!("{arn}: {broken}"))?;
    }
    for (op, owner) in &state.ops {
        let is_waited_for = match owner {
            Owner::Container(arn, index) => state
                .tasks
                .get(arn)
                .is_some_and(|task| task.containers[*index].operation.is_some_and(|operation| operation.id == *op)),
            Owner::Report(arn) => {
                state.tasks.get(arn).is_some_and(|task| task.report.as_ref().is_some_and(|report| report.op == *op))
            }
            Owner::Inventory => state.inventory.in_flight.is_some_and(|(id, _)| id == *op),
            Owner::Orphan(name) => state.orphans.get(name).is_some_and(|orphan| orphan.op == Some(*op)),
        };
        require(is_waited_for, "an operation is in flight that nobody waits for")?;
    }
    require(admission::ledger_holds(state), "more of the host is given out than there is, or a port twice")
}

fn check_task(state: &State, task: &TaskState) -> Result<(), String> {
    require(task.spec.containers.len() == task.containers.len(), "containers differ from their specification")?;
    require(task.sent <= task.known, "ECS was told more than is known of the task")?;
    require(
        matches!(task.desired, TaskStatus::Running | TaskStatus::Stopped),
        "desired is neither running nor stopped",
    )?;
    require(!task.ran || task.known >= TaskStatus::Running, "a task that ran is known as less")?;
    if let Some(report) = &task.report {
        require(state.ops.contains_key(&report.op), "a report in flight has no owner")?;
    }
    for (spec, container) in task.pairs() {
        let named = |what: &str| format!("{what} (container {})", spec.name);
        require(container.sent <= container.known, &named("ECS was told more than is known"))?;
        require(!container.removed || container.observed.is_none(), &named("removed, and still seen"))?;
        require(container.observed.is_none() || container.create_asked, &named("seen, but never asked for"))?;
        require(!container.ran || container.running_since.is_some(), &named("ran, but nobody knows since when"))?;
        require(
            container.observed != Some(RunState::Exited) || container.over(),
            &named("seen to have ended, but not known as stopped"),
        )?;
        require(
            !task.reduced || container.create_asked || container.over(),
            &named("rebuilt, and still to be created"),
        )?;
        if let Some(operation) = container.operation {
            require(state.ops.contains_key(&operation.id), &named("an operation in flight has no owner"))?;
        }
    }
    require(
        task.known != TaskStatus::Stopped || task.containers.iter().all(super::state::ContainerState::over),
        "a stopped task has a container that is not",
    )
}

fn require(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
