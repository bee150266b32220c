//! The network of a task in mode `awsvpc`: when it is set up in the namespace of the pause container, and when it is torn down.
//!
//! Owns [`TaskState::network`](super::state::NetworkState). The task gets an address on the bridge when it is admitted, before its
//! pause container is created, so that the labels of its containers name it. The network is set up as soon as the pause
//! container runs; no other container is started before that. Meanwhile the others are pulled, and created in its namespace. It is
//! torn down when all other containers have ended, before the pause container is stopped, and again when the task has ended, because
//! a set-up without an answer may have been carried out late. Both operations may be repeated: what is there already, or gone
//! already, is success. Invariants: an address belongs to one task until nothing of its network is left; a network that is set up is
//! not touched at a restart of the agent. Source: spec `networking.md` §4.

use super::backoff;
use super::dependency;
use super::desired;
use super::effect::{Effect, Operation};
use super::event::Outcome;
use super::planning::Planning;
use super::state::{
    AttachmentRecord, ContainerState, Key, NetworkOperationKind, NetworkStatus, OperationKind, OperationOwner,
    PendingNetworkOperation, Resource, Retry, State, TaskState, is_earlier,
};
use super::step::Step;
use super::{attachments, local_address};
use crate::model::task::{ContainerKind, NetworkMode};
use crate::model::{
    ContainerNetwork, ContainerStatus, FailureKind, NetworkRequest, OpError, ResourceStatus, RunState, Span, TaskArn,
    TaskStatus, Timestamp,
};
use std::collections::BTreeSet;

/// After this many consecutive unknown or temporary failures, a set-up ends the task, and a tear-down is given up. The kernel
/// removes the rest with the namespace, and gives the interfaces back to the host. An operation that was not attempted, because an
/// earlier one has not ended, does not count.
const MAX_TRIES: u32 = 3;

/// The pause before an operation that was not attempted, because an earlier one has not ended, is requested again.
const BUSY_PAUSE: Span = Span::secs(1);

/// How long an operation is requested again while an earlier one has not ended, from its first request. A set-up and a tear-down
/// have the time that the Go agent gives them. Nothing but the task's address waits for the clean-up, so that outlasts the threads
/// of the edge, which are given up after 90 s.
fn patience(kind: NetworkOperationKind) -> Span {
    match kind {
        NetworkOperationKind::SetUp => Span::secs(60),
        NetworkOperationKind::TearDown => Span::secs(30),
        NetworkOperationKind::CleanUp => Span::secs(120),
    }
}

/// The next action for the network of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Nothing.
    Nothing,
    /// The network waits.
    Wait(Wait<'a>),
    /// The task gets its address on the bridge.
    GiveAddress,
    /// The pause container must be inspected, because its process is not known.
    Inspect,
    /// All other containers have ended, and the delay before the tear-down begins.
    BeginDelay,
    /// This operation must be started.
    Do(NetworkOperationKind),
    /// Nothing was ever set up, so nothing needs to be torn down.
    Finish,
    /// The task can have no network, for this reason.
    End(&'static str),
}

/// What the network of a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait<'a> {
    /// This pending operation.
    Operation(&'a PendingNetworkOperation),
    /// The next try after a failure, at this moment.
    NextTry(Timestamp),
    /// The device of an attachment.
    Interface(&'a AttachmentRecord),
    /// The delay before the tear-down, until this moment.
    Delay(Timestamp),
}

/// The index of the container whose namespace the network is set up in; `None`: the task has no network of its own.
pub(super) fn pause(task: &TaskState) -> Option<usize> {
    let is_own = task.spec.network == NetworkMode::Awsvpc;
    task.specs().position(|spec| is_own && spec.kind == ContainerKind::Pause)
}

/// This operation on the container with this index may begin, as far as the network is concerned. Docker pulls in the network of the
/// host. The pause container needs the address, since its labels name it, and another one is created in its namespace while the
/// network is set up there. Only a start needs the network. Compat: in the Go agent, everything waits for the network.
pub(super) fn is_ready_for(task: &TaskState, index: usize, wanted: OperationKind) -> bool {
    let Some(pause) = pause(task) else { return true };
    match wanted {
        OperationKind::ResolveDigest | OperationKind::Pull => true,
        _ if pause == index => task.network.local_address.is_some(),
        OperationKind::Create => task.containers[pause].state.runtime_id.is_some(),
        _ => task.network.status == NetworkStatus::Up && is_run_known(task, pause),
    }
}

/// It is known which run of the pause container this is, or it was looked for in vain.
fn is_run_known(task: &TaskState, pause: usize) -> bool {
    task.live.network.inspected || run(task, pause).is_some()
}

/// Something may be mounted in the network: it is up, and the process of the pause container, which leads to it, is known, or was
/// looked for in vain.
pub(super) fn is_usable(task: &TaskState) -> bool {
    let is_up = task.network.status == NetworkStatus::Up;
    pause(task).is_some_and(|pause| is_up && is_settled_and_runs(task, pause) && is_run_known(task, pause))
}

/// The process of the pause container; 0 if it is not known, or if there is no such container.
pub(super) fn pause_pid(task: &TaskState) -> u32 {
    let process = pause(task).and_then(|pause| task.containers[pause].state.live.process.as_ref());
    process.map_or(0, |process| process.pid)
}

/// The container with this index is the pause container, and must not be stopped before the network is torn down.
pub(super) fn delays_stop(task: &TaskState, index: usize) -> bool {
    pause(task) == Some(index) && (task.live.network.operation.is_some() || is_to_be_torn_down(task, index))
}

/// The network must be torn down before the pause container is stopped. If a pause container that has ended runs again, its
/// namespace is another one, without a network.
fn is_to_be_torn_down(task: &TaskState, pause: usize) -> bool {
    task.network.status.may_exist()
        && !task.containers[pause].state.is_stopped()
        && attempts(task, NetworkOperationKind::TearDown) < MAX_TRIES
}

/// The network namespace that the container with this index is created in.
pub(super) fn namespace(task: &TaskState, index: usize) -> ContainerNetwork {
    let Some(pause) = pause(task) else { return ContainerNetwork::Configured };
    if pause == index {
        return ContainerNetwork::Own(task.spec.interfaces.clone());
    }
    ContainerNetwork::Joined(task.containers[pause].state.runtime_id.clone().unwrap_or_default())
}

/// Nothing of the network is left.
pub(super) fn is_over(task: &TaskState) -> bool {
    pause(task).is_none() || (task.network.status == NetworkStatus::Over && task.live.network.operation.is_none())
}

/// Decides the next action for the network. Planning carries the decision out, and readers see it.
pub(super) fn next<'a>(state: &'a State, task: &'a TaskState, now: Timestamp) -> Next<'a> {
    let Some(pause) = pause(task) else { return Next::Nothing };
    if let Some(operation) = &task.live.network.operation {
        return Next::Wait(Wait::Operation(operation));
    }
    match task.network.status {
        NetworkStatus::Over => Next::Nothing,
        status if task.known == TaskStatus::Stopped && !task.is_seen_running() => match status {
            NetworkStatus::None => Next::Finish,
            _ => when_due(task, NetworkOperationKind::CleanUp, now),
        },
        _ if task.must_stop(pause) => next_toward_stop(state, task, pause, now),
        NetworkStatus::None | NetworkStatus::Requested => next_toward_running(state, task, pause, now),
        NetworkStatus::Up if is_another_run(task, pause) => {
            Next::End("the pause container was started again, and so the network of the task is lost")
        }
        NetworkStatus::Up if is_run_missing(task, pause) => Next::Inspect,
        NetworkStatus::Up | NetworkStatus::TornDown => Next::Nothing,
    }
}

/// Something must be mounted in the network or started there, and after a restart of the agent it is not known whether the pause
/// container still runs as it did when the network was set up.
fn is_run_missing(task: &TaskState, pause: usize) -> bool {
    let is_to_be_mounted =
        |it: &Resource| it.spec.kind.is_mounted_in_network() && it.state.known == ResourceStatus::None;
    let is_to_be_started =
        |it: &ContainerState| !it.is_stopped() && (it.known < ContainerStatus::Running || it.restarts.due);
    let is_needed =
        || task.resources.iter().any(is_to_be_mounted) || task.containers.iter().any(|it| is_to_be_started(&it.state));
    !is_run_known(task, pause) && is_settled_and_runs(task, pause) && is_needed()
}

fn next_toward_running<'a>(state: &'a State, task: &'a TaskState, pause: usize, now: Timestamp) -> Next<'a> {
    if !task.admitted {
        return Next::Nothing;
    }
    if task.network.local_address.is_none() {
        return Next::GiveAddress;
    }
    if !is_settled_and_runs(task, pause) {
        return Next::Nothing;
    }
    if let Some(record) = attachments::awaited(state, task, now) {
        return Next::Wait(Wait::Interface(record));
    }
    match (&task.containers[pause].state.live.process, task.live.network.inspected) {
        (Some(_), _) => when_due(task, NetworkOperationKind::SetUp, now),
        (None, false) => Next::Inspect,
        (None, true) => Next::End("the process of the pause container is not known, so the task can have no network"),
    }
}

fn next_toward_stop<'a>(state: &State, task: &'a TaskState, pause: usize, now: Timestamp) -> Next<'a> {
    let has_reason = is_to_be_torn_down(task, pause) && is_settled_and_runs(task, pause);
    if !has_reason || !dependency::may_stop(task, pause) {
        return Next::Nothing;
    }
    match task.live.network.torn_down_from {
        None if state.policy.pause_cleanup_delay.0 > 0 => return Next::BeginDelay,
        Some(at) if at > now => return Next::Wait(Wait::Delay(at)),
        None | Some(_) => {}
    }
    match (&task.containers[pause].state.live.process, task.live.network.inspected) {
        (None, false) => Next::Inspect,
        _ => when_due(task, NetworkOperationKind::TearDown, now),
    }
}

/// The pause container runs, and nothing is done to it.
fn is_settled_and_runs(task: &TaskState, pause: usize) -> bool {
    let pause = &task.containers[pause].state;
    pause.observed == Some(RunState::Running) && !pause.live.unsettled && pause.live.operation.is_none()
}

/// The pause container has been started again since the network was set up.
fn is_another_run(task: &TaskState, pause: usize) -> bool {
    let (Some(now), Some(then)) = (run(task, pause), &task.network.run) else { return false };
    is_settled_and_runs(task, pause) && is_earlier(then, &now)
}

/// The start of the pause container's run, as Docker writes it; `None` if it does not run, or the time is not known.
fn run(task: &TaskState, pause: usize) -> Option<String> {
    let process = task.containers[pause].state.live.process.as_ref()?;
    (!process.started_at.is_empty()).then(|| process.started_at.as_ref().to_owned())
}

/// The operation, unless it failed a moment ago.
fn when_due<'a>(task: &TaskState, kind: NetworkOperationKind, now: Timestamp) -> Next<'a> {
    match retry(task, kind) {
        Some(retry) if retry.not_before > now => Next::Wait(Wait::NextTry(retry.not_before)),
        Some(_) | None => Next::Do(kind),
    }
}

fn retry(task: &TaskState, kind: NetworkOperationKind) -> Option<Retry> {
    (task.live.network.last == Some(kind)).then_some(task.live.network.retry)
}

/// Number of consecutive failures of this operation.
fn attempts(task: &TaskState, kind: NetworkOperationKind) -> u32 {
    retry(task, kind).map_or(0, |retry| retry.attempts)
}

/// Carries out the next action for the network; true if the task has changed so that other facts of it may follow.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) -> bool {
    if next(planning.state, task, planning.now) == Next::BeginDelay {
        task.live.network.torn_down_from = Some(planning.now + planning.state.policy.pause_cleanup_delay);
    }
    match next(planning.state, task, planning.now) {
        Next::Nothing | Next::BeginDelay | Next::Wait(Wait::Operation(_)) => false,
        Next::Wait(wait) => {
            let at = match wait {
                Wait::NextTry(at) | Wait::Delay(at) => at,
                Wait::Interface(record) => record.expires_at,
                Wait::Operation(operation) => operation.since,
            };
            planning.is_time(at);
            false
        }
        Next::GiveAddress => {
            if let Err(reason) = local_address::give(planning.state, task, planning.out) {
                desired::end(task, &reason);
            }
            true
        }
        Next::Inspect => {
            task.live.network.inspected = true;
            if let Some(pause) = pause(task) {
                task.containers[pause].state.live.unsettled = true;
            }
            true
        }
        Next::Finish => {
            task.network.status = NetworkStatus::Over;
            local_address::take_back(planning.state, task, planning.out);
            true
        }
        Next::End(reason) => {
            desired::end(task, reason);
            true
        }
        Next::Do(kind) => {
            begin(task, kind, planning);
            false
        }
    }
}

fn begin(task: &mut TaskState, kind: NetworkOperationKind, planning: &mut Planning<'_>) {
    let (Some(local_address), Some(pause)) = (task.network.local_address, pause(task)) else {
        debug_assert!(false, "a network without an address or a pause container");
        return;
    };
    let id = planning.state.new_op(OperationOwner::Network(task.spec.arn.clone()));
    let container = &task.containers[pause].state;
    let runs = container.observed == Some(RunState::Running);
    let run = run(task, pause).filter(|_| runs);
    let request = Box::new(NetworkRequest {
        task: task.spec.arn.clone(),
        pause: container.runtime_id.clone().unwrap_or_default(),
        pause_pid: container.live.process.as_ref().filter(|_| runs).map_or(0, |process| process.pid),
        interfaces: task.spec.interfaces.clone(),
        local_address,
        proxy: task.spec.proxy.clone(),
    });
    let live = &mut task.live.network;
    if live.last.replace(kind) != Some(kind) {
        // Failures of another operation do not delay this one.
        (live.retry, live.since) = (Retry::default(), planning.now);
    }
    live.operation = Some(PendingNetworkOperation { id, kind, since: planning.now, run });
    let operation = match kind {
        NetworkOperationKind::SetUp => {
            task.network.status = NetworkStatus::Requested;
            Operation::SetUpNetwork(request)
        }
        NetworkOperationKind::TearDown | NetworkOperationKind::CleanUp => Operation::TearDownNetwork(request),
    };
    planning.changed(task);
    planning.out.effects.push(Effect::Do(id, operation));
}

/// Writes the outcome of the pending operation, and returns the task to plan again.
pub(super) fn completed(
    state: &mut State,
    now: Timestamp,
    arn: TaskArn,
    outcome: Outcome,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    // Taken out of the state, so that the task and the rest of the state can be changed.
    let Some(mut task) = state.tasks.remove(&arn) else { return BTreeSet::new() };
    if let Some(operation) = task.live.network.operation.take() {
        match outcome {
            Ok(_) => done(state, &mut task, operation, out),
            Err(error) => failed(state, &mut task, operation.kind, error, now, out),
        }
    }
    state.tasks.insert(arn.clone(), task);
    out.changed.insert(Key::Task(arn.clone()));
    BTreeSet::from([arn])
}

fn done(state: &mut State, task: &mut TaskState, operation: PendingNetworkOperation, out: &mut Step) {
    task.live.network.retry = Retry::default();
    match operation.kind {
        NetworkOperationKind::SetUp => {
            (task.network.status, task.network.run) = (NetworkStatus::Up, operation.run);
        }
        NetworkOperationKind::TearDown => task.network.status = NetworkStatus::TornDown,
        NetworkOperationKind::CleanUp => {
            task.network.status = NetworkStatus::Over;
            local_address::take_back(state, task, out);
        }
    }
}

fn failed(
    state: &mut State,
    task: &mut TaskState,
    kind: NetworkOperationKind,
    error: OpError,
    now: Timestamp,
    out: &mut Step,
) {
    let is_unknown = matches!(error, OpError::Unknown(_));
    let failure = error.into_failure();
    let live = &mut task.live.network;
    if failure.kind != FailureKind::Busy {
        backoff::ENGINE.again(&mut live.retry, now, &task.spec.arn.0);
    } else if now < live.since + patience(kind) {
        live.retry.not_before = now + BUSY_PAUSE; // it was no attempt
        return;
    } else {
        live.retry.attempts = MAX_TRIES;
    }
    let is_given_up = live.retry.attempts >= MAX_TRIES;
    match kind {
        NetworkOperationKind::SetUp if (is_unknown || failure.kind == FailureKind::Retryable) && !is_given_up => {}
        // In the Go agent only the pause container has the reason, so ECS never receives it.
        NetworkOperationKind::SetUp => desired::end(task, &failure.to_string()),
        // The pause container is stopped all the same, and with it goes its namespace.
        NetworkOperationKind::TearDown => {}
        NetworkOperationKind::CleanUp if is_given_up => {
            task.network.status = NetworkStatus::Over;
            local_address::take_back(state, task, out);
        }
        NetworkOperationKind::CleanUp => {}
    }
}

/// Writes the network of a rebuilt task, whose containers have been observed. `is_free`: no other task has its address.
pub(super) fn rebuilt(task: &mut TaskState, is_free: bool) {
    let Some(pause) = pause(task) else { return };
    let ran = |at: usize| task.containers[at].state.ran;
    let others_ran = (0..task.containers.len()).any(|at| at != pause && ran(at));
    // If no container runs, the namespace is gone.
    if !task.is_seen_running() || task.network.local_address.is_none() || !is_free {
        (task.network.status, task.network.local_address) = (NetworkStatus::Over, None);
        return;
    }
    task.network.status = if others_ran { NetworkStatus::Up } else { NetworkStatus::Requested };
    task.network.run = run(task, pause);
}

#[cfg(test)]
mod tests;
