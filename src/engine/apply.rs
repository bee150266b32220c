//! Event to facts. Writes what is now known into the state and says which tasks it concerns; never decides what to do next.

use super::backoff;
use super::desired;
use super::effect::Effect;
use super::event::{Event, Outcome, Output, PayloadTask};
use super::policy::{Policy, PullBehavior};
use super::state::{HostState, Operation, OperationKind, Owner, Retry, State, TaskState};
use super::{Key, Step, credentials, dependency, image, inventory, rebuild, report, resource, restart};
use crate::model::{Ack, ContainerStatus, Failure, FailureKind, Observation, RunState, TaskArn, TaskStatus, Timestamp};
use std::collections::BTreeSet;

/// After this many unknown outcomes of a create or start that turned out not to have happened, the container is given up. (The
/// reference gives it up after the first, though nothing was refused; a busy engine has more than one chance here.)
const MOST_DOUBTS: u32 = 3;

/// Writes one fact into the state; the tasks to plan again.
pub(super) fn apply(state: &mut State, now: Timestamp, event: Event, out: &mut Step) -> BTreeSet<TaskArn> {
    let Some(event) = rebuild::hold(state, event) else { return BTreeSet::new() };
    let touched = match event {
        Event::Payload { tasks, seq, ack } => payload(state, now, tasks, seq, ack, out),
        Event::Manifest { timeline, running, ack } => manifest(state, timeline, &running, ack, out),
        Event::StopConfirmed { message_id, tasks } => stop_confirmed(state, &message_id, tasks),
        // Many tasks look again at what they wait for; few of them are other than before.
        Event::CredentialsArrived { task, ids, ack } => {
            return credentials::arrived(state, task.as_ref(), ids, ack, out);
        }
        Event::Observed(seen) => observed(state, now, &seen),
        Event::Gone { task, container, runtime_id, exit_code } => {
            let step = state.steps;
            touch(state, &task, |state_task| {
                let Some(index) = state_task.index_of(&container) else { return };
                let container = &mut state_task.containers[index];
                if container.runtime_id.as_ref() == Some(&runtime_id) {
                    if container.observed == Some(RunState::Running) && !container.over() {
                        container.exit_code = container.exit_code.or(exit_code);
                    }
                    vanished(state_task, index, now, step);
                }
            })
        }
        Event::ObservationsLost => {
            state.inventory.wanted = true;
            BTreeSet::new()
        }
        Event::Completed { op, outcome } => match state.ops.remove(&op) {
            None => BTreeSet::new(), // stale: cancelled, or of a life before
            Some(Owner::Inventory) => return inventory::completed(state, now, outcome, out),
            Some(Owner::Images) => return image::completed(state, now, outcome, out),
            Some(Owner::Orphan(name)) => {
                inventory::orphan_completed(state, now, &name, &outcome);
                BTreeSet::new()
            }
            Some(Owner::Report(arn)) => touch(state, &arn, |task| report::completed(task, now, &outcome)),
            Some(Owner::Resource(arn, name)) => {
                touch(state, &arn, |task| resource::completed(task, &name, now, outcome))
            }
            Some(Owner::Container(arn, index)) => container_completed(state, now, arn, index, outcome, out),
        },
        Event::Tick => BTreeSet::new(),
    };
    out.changed.extend(touched.iter().cloned().map(Key::Task));
    touched
}

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
            // A task we know is not changed by sending it again: this is what makes redelivery harmless. Only the credentials
            // that came with it are the ones to use now.
            (Some(known), PayloadTask::Run(spec)) => {
                spec.execution_credentials.iter().for_each(|id| credentials::replace(known, id));
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
    out.effects.extend(ack.map(Effect::Ack));
    touched
}

fn new_task(task: PayloadTask, arrival: u64, now: Timestamp) -> TaskState {
    match task {
        PayloadTask::Run(spec) if dependency::solvable(&spec) => TaskState::new(*spec, arrival, now),
        PayloadTask::Run(spec) => {
            let reason = format!("Task dependencies cannot be resolved, taskArn: {}", spec.arn);
            let credentials = spec.execution_credentials.clone();
            let stopped = TaskState::stopped(spec.arn, Some(reason), arrival, now);
            TaskState { execution_credentials: credentials, ..stopped } // they came with it and go with it
        }
        PayloadTask::Refused { arn, reason } => TaskState::stopped(arn, Some(reason), arrival, now),
        // Not known (any more): ECS is told that it and all of its containers are stopped, which is so.
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
        return BTreeSet::new(); // older than what we know; not even acknowledged (spec `acs.md` §4.4)
    }
    state.host.seq = timeline;
    out.changed.insert(Key::Host);
    state.asked_manifest = Some(ack.message_id.clone());
    let doubted: Vec<TaskArn> = state
        .tasks
        .values()
        // A task may have stopped without anybody wanting it to: all its containers ended, none of them essential.
        .filter(|task| task.desired == TaskStatus::Running && task.known != TaskStatus::Stopped)
        .filter(|task| !running.contains(&task.spec.arn))
        .map(|task| task.spec.arn.clone())
        .collect();
    let (message_id, cluster) = (ack.message_id.clone(), ack.cluster.clone());
    out.effects.push(Effect::Ack(ack));
    if !doubted.is_empty() {
        out.effects.push(Effect::AskToStop { message_id, cluster, tasks: doubted });
    }
    BTreeSet::new()
}

fn stop_confirmed(state: &mut State, message_id: &str, tasks: Vec<TaskArn>) -> BTreeSet<TaskArn> {
    if message_id.is_empty() || state.asked_manifest.as_deref() != Some(message_id) {
        return BTreeSet::new();
    }
    state.asked_manifest = None;
    let known = tasks.into_iter().flat_map(|arn| touch(state, &arn, |task| task.desired = TaskStatus::Stopped));
    known.collect()
}

fn observed(state: &mut State, now: Timestamp, seen: &Observation) -> BTreeSet<TaskArn> {
    let step = state.steps;
    if !state.policy.owners.owns(seen.owner.as_ref()) {
        return BTreeSet::new();
    }
    touch(state, &seen.task, |task| {
        if let Some(index) = task.index_of(&seen.container).filter(|index| !restart::is_old_news(task, *index, seen)) {
            observe(task, index, seen, now, step);
        }
    })
}

/// Writes what was seen of a container. Facts win: `observed` may go back, `known` does not.
pub(super) fn observe(task: &mut TaskState, index: usize, seen: &Observation, now: Timestamp, step: u64) {
    // Labels can be copied. What was never asked for, as far as is known, is ours if it has the name that only this agent gives.
    if !task.containers[index].create_asked && seen.runtime_name != task.spec.runtime_name(&seen.container) {
        return;
    }
    let container = &mut task.containers[index];
    let is_same = container.runtime_id.as_ref() == Some(&seen.runtime_id);
    if (!is_same && container.observed.is_some()) || (is_same && container.removed) {
        return; // another incarnation, or news from before the removal
    }
    if seen.state == RunState::Created && container.ran && is_same {
        return; // news from before the start
    }
    container.touched = step;
    container.create_asked = true;
    container.removed = false;
    container.pull_failure = None;
    container.observed = Some(seen.state);
    container.remember(seen);
    // The exit code of a run before the last one says nothing of how that ended.
    let is_answered = restart::is_answered(task, index, seen);
    let exit_code = seen.exit_code.filter(|_| !restart::is_earlier_run(task, index, seen));
    restart::remember(task, index, seen);
    if is_answered {
        return;
    }
    let container = &mut task.containers[index];
    let has_run = seen.state == RunState::Running || (seen.state == RunState::Exited && seen.started_at.is_some());
    container.raise(ContainerStatus::Created, now);
    if has_run {
        container.ran = true;
        container.running_since.get_or_insert(now);
        container.raise(ContainerStatus::Running, now);
    }
    if seen.state == RunState::Exited {
        // A container that ended at once did run: the task is `RUNNING` for this moment, and ECS hears of it.
        desired::derive_midway(task, now);
        let is_restarted = has_run && restart::decide(task, index, exit_code, seen.error.as_ref(), now);
        let container = &mut task.containers[index];
        // How it ended is how it ended first: what somebody did with it afterwards is no news of the task.
        if !container.over() || container.exit_code.is_none() {
            container.exit_code = exit_code.or(container.exit_code);
        }
        if is_restarted {
            return;
        }
        if let Some(error) = &seen.error {
            container.fail(error.clone());
        }
        container.raise(ContainerStatus::Stopped, now);
    }
}

/// The engine says that a container does not exist.
pub(super) fn vanished(task: &mut TaskState, index: usize, now: Timestamp, step: u64) {
    let container = &mut task.containers[index];
    container.touched = step;
    let existed = container.observed.take().is_some();
    // Nobody knows how to create one of a task that was rebuilt.
    if (existed || task.reduced) && !container.over() {
        container.fail(Failure::permanent("ContainerVanishedError", "No container matching saved ID found"));
        container.raise(ContainerStatus::Stopped, now);
    }
    if container.over() {
        container.removed = true;
    }
}

/// The container was looked at: what was in doubt is decided.
pub(super) fn settle(task: &mut TaskState, index: usize) {
    let container = &mut task.containers[index];
    container.unsettled = false;
    let Some((kind, failure)) = container.doubt.take() else { return };
    let did_not_happen = match kind {
        OperationKind::Create => container.observed.is_none(),
        OperationKind::Start => container.observed == Some(RunState::Created) || container.restarts.due,
        OperationKind::ResolveDigest
        | OperationKind::Pull
        | OperationKind::Stop
        | OperationKind::Inspect
        | OperationKind::Remove => false,
    };
    if !did_not_happen {
        container.doubts = 0;
        return;
    }
    container.doubts += 1;
    if container.doubts >= MOST_DOUBTS {
        container.fail(failure);
    }
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
    let Some(operation) = task.containers[index].operation.take() else { return BTreeSet::new() };
    // What was learnt since it was asked for is newer than what a look found: it is looked at again.
    let is_look = operation.kind == OperationKind::Inspect && matches!(outcome, Outcome::Done(_));
    let is_overtaken = is_look && task.containers[index].touched > operation.asked;
    task.containers[index].touched = step;
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
            let container = &mut task.containers[index];
            match outcome {
                Outcome::Done(_) => {
                    container.removed = true;
                    container.observed = None;
                }
                Outcome::Failed(_) | Outcome::Unknown(_) => {
                    backoff::ENGINE.again(&mut container.retry, now, &arn.0);
                    container.unsettled = true;
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
    operation: Operation,
    outcome: Outcome,
    now: Timestamp,
    policy: &Policy,
    host: &mut HostState,
    out: &mut Step,
) {
    let is_pull = operation.kind == OperationKind::Pull;
    let reached = if is_pull { ContainerStatus::Pulled } else { ContainerStatus::ManifestPulled };
    // An image that was here and was not asked for is no pull.
    if is_pull && !matches!(outcome, Outcome::Done(Output::Nothing)) {
        task.pull_started_at.get_or_insert(operation.since);
        task.pull_stopped_at = Some(now);
    }
    let (spec, container) = (&task.spec.containers[index], &mut task.containers[index]);
    match outcome {
        Outcome::Done(Output::Digest(digest)) => container.digest = digest.or(container.digest.take()),
        // Remembered for `once`, which counts only what came from the registry.
        Outcome::Done(Output::Pulled) => {
            if host.remember_pulled(spec.image.clone()) {
                out.changed.insert(Key::Host);
            }
        }
        // Compat, but not as far as to tell of a failed pull when the container then runs from the image on this host.
        Outcome::Done(
            Output::Nothing
            | Output::Cached
            | Output::Seen(_)
            | Output::Inventory(_)
            | Output::Tickets(_)
            | Output::Images(_),
        ) => {}
        Outcome::Failed(failure) if failure.kind == FailureKind::EndsTask => {
            // Not even a cached image serves: the reference asks for such credentials before anything else.
            desired::end(task, &failure.message);
            return;
        }
        Outcome::Failed(failure) | Outcome::Unknown(failure) => {
            let stops_the_task = match policy.pull {
                PullBehavior::Always | PullBehavior::Once => true,
                // Neither in the registry nor here: no need to pull the others' images (spec `images.md` §4).
                PullBehavior::Default | PullBehavior::PreferCached => {
                    policy.pull_upfront && spec.essential && failure.kind == FailureKind::ImageMissing
                }
            };
            if stops_the_task {
                container.fail(failure.clone());
                task.desired = TaskStatus::Stopped;
            }
            task.containers[index].pull_failure.get_or_insert(failure);
        }
    }
    // Also after a failure: create tells whether a cached image serves (spec `task-engine.md` §4.1).
    task.containers[index].raise(reached, now);
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
        Outcome::Done(Output::Seen(seen)) => {
            match seen {
                Some(seen) => observe(task, index, &seen, now, step),
                None => vanished(task, index, now, step),
            }
            settle(task, index);
            let container = &mut task.containers[index];
            match (kind, container.observed) {
                // Done, says the engine, and nothing has changed: asked again at once, it would be asked for ever. (One that did
                // start and has ended is wanted to stop, if no restart is due, and that begins with no failures.)
                (OperationKind::Stop, Some(RunState::Running))
                | (OperationKind::Start, Some(RunState::Created | RunState::Exited)) => {
                    backoff::ENGINE.again(&mut container.retry, now, &key);
                }
                (OperationKind::Inspect, _) => {}
                _ => container.retry = Retry::default(),
            }
        }
        Outcome::Failed(failure)
            if failure.kind != FailureKind::Retryable
                && matches!(kind, OperationKind::Create | OperationKind::Start) =>
        {
            let container = &mut task.containers[index];
            // A create that failed for want of an image is told with the reason why the image is not there. (The reference tells of
            // the pull whatever the create failed for.)
            let no_image = failure.kind == FailureKind::ImageMissing;
            let cause = if no_image { container.pull_failure.take() } else { None };
            container.fail(cause.unwrap_or(failure));
            // An engine may refuse a start and have started it all the same (spec `task-engine.md` §4.1): it is looked at before it is
            // said to be stopped.
            container.unsettled = kind == OperationKind::Start;
        }
        Outcome::Done(_) | Outcome::Failed(_) | Outcome::Unknown(_) => {
            let container = &mut task.containers[index];
            container.unsettled = true;
            backoff::ENGINE.again(&mut container.retry, now, &key);
            if let Outcome::Unknown(failure) = outcome {
                container.doubt.get_or_insert((kind, failure));
            }
        }
    }
}

#[cfg(test)]
mod messages;
#[cfg(test)]
mod tests;
