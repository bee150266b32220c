//! Turns events into facts: writes each fact into the state and returns the tasks that it concerns. It never decides what to do
//! next.

use super::backoff;
use super::desired;
use super::effect::{Effect, Message};
use super::event::{Event, Outcome, Output, PayloadTask};
use super::policy::{Policy, PullBehavior};
use super::state::{
    Container, HostState, Key, MAX_REMOVALS, OperationKind, OperationOwner, PendingOperation, Retry, State, TaskState,
};
use super::step::Step;
use super::{
    attachments, credentials, dependency, image, inventory, network, rebuild, report, resource, restart, seen,
};
use crate::model::{
    Ack, ContainerStatus, FailureKind, Observation, OpError, RoleKind, RunState, TaskArn, TaskStatus, Timestamp,
};
use std::collections::BTreeSet;

/// Writes one event into the state and returns the tasks to plan again.
pub(super) fn apply(state: &mut State, now: Timestamp, event: Event, out: &mut Step) -> BTreeSet<TaskArn> {
    let Some(event) = rebuild::hold(state, event) else { return BTreeSet::new() };
    let touched = match event {
        Event::Payload { tasks, seq, ack } => payload(state, now, tasks, seq, ack, out),
        Event::Manifest { timeline, running, ack } => manifest(state, timeline, &running, ack, out),
        Event::StopVerificationAck { message_id, tasks } => stop_confirmed(state, &message_id, tasks),
        // Many tasks are planned again, but few of their documents change.
        Event::CredentialsArrived { task, ids, ack } => {
            return credentials::arrived(state, task.as_ref(), ids, ack, out);
        }
        // The documents of the tasks do not change.
        Event::Attachments { attachments, ack } => {
            return attachments::announced(state, now, attachments, ack, out);
        }
        Event::Interfaces(addresses) => return attachments::seen(state, now, addresses, out),
        Event::Observed(seen) => observed(state, now, &seen),
        Event::Removed { task, container, runtime_id, exit_code } => {
            let step = state.steps;
            touch(state, &task, |state_task| {
                let Some(index) = state_task.index_of(&container) else { return };
                let container = &mut state_task.containers[index].state;
                if container.runtime_id.as_ref() == Some(&runtime_id) {
                    if container.observed == Some(RunState::Running) && !container.is_stopped() {
                        container.exit_code = container.exit_code.or(exit_code);
                    }
                    seen::removed(state_task, index, now, step);
                }
            })
        }
        Event::EventsMissed => {
            state.inventory.events_missed = true;
            BTreeSet::new()
        }
        Event::Completed { op, outcome } => match state.ops.remove(&op) {
            None => BTreeSet::new(), // stale: the operation was cancelled or belongs to an earlier process
            Some(OperationOwner::Inventory) => return listed(state, now, outcome, out),
            Some(OperationOwner::Images) => return image::completed(state, now, outcome, out),
            Some(OperationOwner::Orphan(name)) => {
                inventory::orphan_completed(state, now, &name, &outcome);
                BTreeSet::new()
            }
            Some(OperationOwner::Network(arn)) => return network::completed(state, now, arn, outcome, out),
            Some(OperationOwner::Attachment(arn)) => {
                attachments::completed(state, now, &arn, &outcome, out);
                BTreeSet::new()
            }
            Some(OperationOwner::Report(arn)) => touch(state, &arn, |task| report::completed(task, now, &outcome)),
            Some(OperationOwner::Resource(arn, name)) => {
                touch(state, &arn, |task| resource::completed(task, &name, now, outcome))
            }
            Some(OperationOwner::Container(arn, index)) => container_completed(state, now, arn, index, outcome, out),
        },
        Event::Tick => BTreeSet::new(),
    };
    out.changed.extend(touched.iter().cloned().map(Key::Task));
    touched
}

/// Changes the task with this ARN, and returns the ARN; nothing happens if the task is unknown.
fn touch(state: &mut State, arn: &TaskArn, write: impl FnOnce(&mut TaskState)) -> BTreeSet<TaskArn> {
    match state.tasks.get_mut(arn) {
        Some(task) => {
            write(task);
            BTreeSet::from([arn.clone()])
        }
        None => BTreeSet::new(),
    }
}

fn payload(
    state: &mut State,
    now: Timestamp,
    tasks: Vec<PayloadTask>,
    seq: i64,
    ack: Option<Ack>,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    let mut touched = BTreeSet::new();
    if seq > state.host.seq {
        state.host.seq = seq;
        out.changed.insert(Key::Host);
    }
    for task in tasks {
        let arn = match &task {
            PayloadTask::Run(spec) => &spec.arn,
            PayloadTask::Stop(arn, _) | PayloadTask::Refused { arn, .. } => arn,
        };
        touched.insert(arn.clone());
        match (state.tasks.get_mut(arn), task) {
            (Some(known), PayloadTask::Stop(..)) => known.desired = TaskStatus::Stopped,
            // If ECS sends a known task again, the task is not changed; only the credentials that came with it replace the
            // earlier ones.
            (Some(known), PayloadTask::Run(spec)) => {
                spec.execution_credentials.iter().for_each(|id| credentials::replace(known, RoleKind::Execution, id));
                spec.role_credentials.iter().for_each(|id| credentials::replace(known, RoleKind::Task, id));
                rebuild::complete(known, *spec);
            }
            (Some(_), PayloadTask::Refused { .. }) => {}
            (None, task) => {
                state.host.arrivals += 1;
                out.changed.insert(Key::Host);
                let new = new_task(task, state.host.arrivals, now);
                state.tasks.insert(new.spec.arn.clone(), Box::new(new));
            }
        }
    }
    out.effects.extend(ack.map(|ack| Effect::Send(Message::Ack(ack))));
    touched
}

fn new_task(task: PayloadTask, arrival: u64, now: Timestamp) -> TaskState {
    match task {
        PayloadTask::Run(spec) if dependency::is_solvable(&spec) => TaskState::new(*spec, arrival, now),
        PayloadTask::Run(spec) => {
            let reason = format!("Task dependencies cannot be resolved, taskArn: {}", spec.arn);
            let stopped = TaskState::stopped(spec.arn, Some(reason), arrival, now);
            let (execution_credentials, role_credentials) = (spec.execution_credentials, spec.role_credentials);
            TaskState { execution_credentials, role_credentials, ..stopped } // so that they are dropped with the task
        }
        PayloadTask::Refused { arn, reason } => TaskState::stopped(arn, Some(reason), arrival, now),
        // The task is unknown, or has been removed from the state. It does not run, so it and all of its containers are reported
        // as stopped.
        PayloadTask::Stop(arn, containers) => {
            TaskState { never_known: containers, ..TaskState::stopped(arn, None, arrival, now) }
        }
    }
}

fn manifest(
    state: &mut State,
    timeline: i64,
    running: &BTreeSet<TaskArn>,
    ack: Ack,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    if timeline <= state.host.seq {
        return BTreeSet::new(); // outdated, and not even acknowledged (spec `acs.md` §4.4)
    }
    state.host.seq = timeline;
    out.changed.insert(Key::Host);
    state.last_manifest = Some(ack.message_id.clone());
    let unlisted: Vec<TaskArn> = state
        .tasks
        .values()
        // A task may also have stopped by itself: all its containers ended, none of them essential.
        .filter(|task| task.desired == TaskStatus::Running && task.known != TaskStatus::Stopped)
        .filter(|task| !running.contains(&task.spec.arn))
        .map(|task| task.spec.arn.clone())
        .collect();
    let (message_id, cluster) = (ack.message_id.clone(), ack.cluster.clone());
    out.effects.push(Effect::Send(Message::Ack(ack)));
    if !unlisted.is_empty() {
        out.effects.push(Effect::Send(Message::VerifyStop { message_id, cluster, tasks: unlisted }));
    }
    BTreeSet::new()
}

fn stop_confirmed(state: &mut State, message_id: &str, tasks: Vec<TaskArn>) -> BTreeSet<TaskArn> {
    if message_id.is_empty() || state.last_manifest.as_deref() != Some(message_id) {
        return BTreeSet::new();
    }
    state.last_manifest = None;
    let known = tasks.into_iter().flat_map(|arn| touch(state, &arn, |task| task.desired = TaskStatus::Stopped));
    known.collect()
}

fn observed(state: &mut State, now: Timestamp, seen: &Observation) -> BTreeSet<TaskArn> {
    let step = state.steps;
    if !state.policy.owners.owns(seen.owner.as_ref()) {
        return BTreeSet::new();
    }
    touch(state, &seen.task, |task| {
        if let Some(index) = task.index_of(&seen.container).filter(|index| !restart::is_outdated(task, *index, seen)) {
            seen::observe(task, index, seen, now, step);
        }
    })
}

/// An inventory has ended. If the state was lost, the tasks are rebuilt from it first, and the messages that ECS sent meanwhile
/// are applied. Then the inventory is compared with the state. Every task is planned afterwards.
fn listed(state: &mut State, now: Timestamp, outcome: Outcome, out: &mut Step) -> BTreeSet<TaskArn> {
    let Some(listing) = inventory::listed(state, now, outcome) else { return BTreeSet::new() };
    if state.host.lost {
        for event in rebuild::from_containers(state, &listing.seen, now, out) {
            apply(state, now, event, out);
        }
    }
    inventory::compare(state, &listing, now, out)
}

fn container_completed(
    state: &mut State,
    now: Timestamp,
    arn: TaskArn,
    index: usize,
    outcome: Outcome,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    let step = state.steps;
    let State { tasks, policy, host, .. } = state;
    let Some(task) = tasks.get_mut(&arn) else { return BTreeSet::new() };
    let Some(operation) = task.containers[index].state.live.operation.take() else { return BTreeSet::new() };
    // If something was learnt about the container after the inspection was requested, that is newer than its result, so the
    // container is inspected again.
    let is_inspection = operation.kind == OperationKind::Inspect && outcome.is_ok();
    let is_overtaken = is_inspection && task.containers[index].state.live.touched > operation.asked_in_step;
    task.containers[index].state.live.touched = step;
    if is_overtaken {
        return BTreeSet::from([arn]);
    }
    match operation.kind {
        OperationKind::ResolveDigest | OperationKind::Pull => {
            image_completed(task, index, operation, outcome, now, policy, host, out);
        }
        OperationKind::Create | OperationKind::Start | OperationKind::Stop | OperationKind::Inspect => {
            engine_completed(task, index, operation.kind, outcome, now, step);
        }
        OperationKind::Remove => {
            let container = &mut task.containers[index].state;
            match outcome {
                // It has started late and ended before its removal, so how it ended is not known.
                Ok(_) if container.observed == Some(RunState::Running) && !container.is_stopped() => {
                    seen::removed(task, index, now, step);
                }
                Ok(_) => {
                    container.removed = true;
                    container.observed = None;
                }
                Err(error) => {
                    backoff::ENGINE.again(&mut container.live.retry, now, &arn.0);
                    container.live.unsettled = true;
                    container.live.failed_removals = match error {
                        OpError::Failed(failure) if failure.kind != FailureKind::Retryable => MAX_REMOVALS,
                        OpError::Failed(_) | OpError::Unknown(_) => container.live.failed_removals.saturating_add(1),
                    };
                }
            }
        }
    }
    BTreeSet::from([arn])
}

#[expect(clippy::too_many_arguments, reason = "the parts of `State` are borrowed apart")]
fn image_completed(
    task: &mut TaskState,
    index: usize,
    operation: PendingOperation,
    outcome: Outcome,
    now: Timestamp,
    policy: &Policy,
    host: &mut HostState,
    out: &mut Step,
) {
    let is_pull = operation.kind == OperationKind::Pull;
    let reached = if is_pull { ContainerStatus::Pulled } else { ContainerStatus::ManifestPulled };
    // If the image was cached and the registry was not asked, nothing was pulled.
    if is_pull && !matches!(outcome, Ok(Output::Nothing)) {
        task.pull_started_at.get_or_insert(operation.since);
        task.pull_stopped_at = Some(now);
    }
    let Container { spec, state: container } = &mut task.containers[index];
    match outcome {
        Ok(Output::Digest(digest)) => container.digest = digest.or(container.digest.take()),
        // Remembered for `once`, which counts only images that came from the registry.
        Ok(Output::Pulled) => {
            if host.remember_pulled(spec.image.clone()) {
                out.changed.insert(Key::Host);
            }
        }
        // Compat, with one exception: a failed pull is not reported if the container then runs from the cached image.
        Ok(
            Output::Nothing
            | Output::Cached
            | Output::Seen(_)
            | Output::Inventory(_)
            | Output::Tickets(_)
            | Output::Images(_),
        ) => {}
        Err(OpError::Failed(failure)) if failure.kind == FailureKind::EndsTask => {
            // A cached image is not used either: the Go agent requests these credentials before anything else.
            desired::end(task, &failure.message);
            return;
        }
        Err(error) => {
            let failure = error.into_failure();
            let stops_the_task = match policy.pull {
                PullBehavior::Always | PullBehavior::Once => true,
                // The image is neither in the registry nor on this host: the other images need not be pulled (spec `images.md`
                // §4).
                PullBehavior::Default | PullBehavior::PreferCached => {
                    policy.pull_upfront && spec.essential && failure.kind == FailureKind::ImageMissing
                }
            };
            if stops_the_task {
                container.fail(failure.clone());
                task.desired = TaskStatus::Stopped;
            }
            task.containers[index].state.pull_failure.get_or_insert(failure);
        }
    }
    // Also after a failure: the create shows whether there is a cached image (spec `task-engine.md` §4.1).
    task.containers[index].state.raise(reached, now);
}

fn engine_completed(
    task: &mut TaskState,
    index: usize,
    kind: OperationKind,
    outcome: Outcome,
    now: Timestamp,
    step: u64,
) {
    let key = task.spec.arn.0.clone();
    match outcome {
        // A person has started the container again since. An inspection shows the last run, which is stopped, too.
        Ok(Output::Seen(Some(seen))) if kind == OperationKind::Stop && restart::is_earlier_run(task, index, &seen) => {
            task.containers[index].state.live.unsettled = true;
        }
        Ok(Output::Seen(seen)) => {
            match seen {
                Some(seen) => seen::observe(task, index, &seen, now, step),
                None => seen::removed(task, index, now, step),
            }
            seen::settle(task, index);
            let container = &mut task.containers[index].state;
            match (kind, container.observed) {
                // Docker reports success, but nothing has changed. Immediate repetitions could go on for ever, so there is a
                // wait. (A container that did start and has ended must stop unless a restart is due, and a stop begins without
                // failures.)
                (OperationKind::Stop, Some(RunState::Running))
                | (OperationKind::Start, Some(RunState::Created | RunState::Exited)) => {
                    backoff::ENGINE.again(&mut container.live.retry, now, &key);
                }
                (OperationKind::Inspect, _) => {}
                _ => container.live.retry = Retry::default(),
            }
        }
        Err(OpError::Failed(failure))
            if failure.kind != FailureKind::Retryable
                && matches!(kind, OperationKind::Create | OperationKind::Start) =>
        {
            let container = &mut task.containers[index].state;
            // If a create failed because the image is missing, the failure of the pull is reported. (The Go agent reports the
            // failure of the pull whatever the reason of the create's failure.)
            let no_image = failure.kind == FailureKind::ImageMissing;
            let cause = if no_image { container.pull_failure.take() } else { None };
            container.fail(cause.unwrap_or(failure));
            // Docker may report an error for a start and have started the container all the same (spec `task-engine.md` §4.1). So
            // the container is inspected before it is reported as stopped.
            container.live.unsettled = kind == OperationKind::Start;
        }
        Ok(_) | Err(_) => {
            let container = &mut task.containers[index].state;
            container.live.unsettled = true;
            backoff::ENGINE.again(&mut container.live.retry, now, &key);
            if let Err(OpError::Unknown(failure)) = outcome {
                container.live.unknown_outcome.get_or_insert((kind, failure));
            }
        }
    }
}

#[cfg(test)]
mod tests;
