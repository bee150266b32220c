//! Logs what the core learns, decides and does: `operations` each operation, this file each status change with its reason.

mod labels;
mod operations;
mod waits;

use ecs_core::model::attachment::{Attachment, Device};
use ecs_core::model::view::View;
use ecs_core::model::{ContainerStatus, Health, RuntimeId, TaskArn, TaskStatus, Timestamp};
use ecs_core::state::{ContainerState, NoRestart, TaskState};
use ecs_core::{Effect, Event, Key, Message, PayloadTask, State};
pub(crate) use labels::Labels;
use operations::{Ended, Operations};
use std::collections::{BTreeMap, BTreeSet};

/// What was logged last.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    tasks: BTreeMap<TaskArn, Statuses>,
    operations: Operations,
}

/// The statuses of a task that were logged last.
#[derive(Clone, Debug)]
struct Statuses {
    known: TaskStatus,
    desired: TaskStatus,
    is_removing: bool,
    is_admitted: bool,
    containers: Vec<ContainerFacts>,
}

/// The facts about a container that were logged last.
#[derive(Clone, Copy, Debug, Default)]
struct ContainerFacts {
    known: ContainerStatus,
    health: Health,
    /// Number of restarts by the restart policy.
    restarts: u32,
    no_restart: Option<NoRestart>,
}

impl Trace {
    /// Treats the statuses of restored tasks as logged.
    pub(crate) fn restored(state: &State) -> Self {
        if !state.tasks.is_empty() {
            let containers: usize = state.tasks.values().map(|task| task.containers.len()).sum();
            tracing::info!(tasks = state.tasks.len(), containers, "Restored from checkpoint file");
        }
        let tasks = state.tasks.values().map(|task| (task.spec.arn.clone(), Statuses::from_task(task))).collect();
        Self { tasks, operations: Operations::default() }
    }

    /// Logs an effect that begins. `state` is the one after the step that requested it. Returns the names for the lines that its
    /// call logs.
    pub(crate) fn begin(&mut self, state: &State, effect: &Effect) -> Labels {
        match effect {
            Effect::Do(op, operation) => return self.operations.begin(state, *op, operation),
            Effect::Cancel(op) => self.operations.cancel(*op),
            Effect::Send(_) | Effect::ForgetCredentials(_) | Effect::WriteMetadata(_) | Effect::RemoveMetadata(_) => {}
        }
        Labels::default()
    }

    /// Logs an event that is about to be taken. If it ends an operation, that is logged after the step ([`Self::taken`]).
    pub(crate) fn event(&mut self, event: &Event) -> Option<Ended> {
        match event {
            Event::Payload { tasks, seq, .. } => {
                tracing::debug!(tasks = tasks.len(), seqnum = seq, "Received task payload");
                for task in tasks {
                    let (arn, desired) = match task {
                        PayloadTask::Run(spec) => (&spec.arn, TaskStatus::Running),
                        PayloadTask::Stop(arn, _) | PayloadTask::Refused { arn, .. } => (arn, TaskStatus::Stopped),
                    };
                    let task = arn.task_id();
                    tracing::debug!(task, desiredStatus = %desired, seqnum = seq, "Managed task got acs event");
                }
            }
            Event::Manifest { timeline, running, .. } => {
                tracing::debug!(tasks = running.len(), seqnum = timeline, "Task manifest");
            }
            Event::StopVerificationAck { message_id, tasks } => {
                tracing::info!(messageID = message_id, tasks = tasks.len(), "ECS confirms that these tasks must stop");
            }
            Event::CredentialsArrived { task, .. } => {
                tracing::debug!(task = task.as_ref().map(|(arn, _)| arn.task_id()), "Credentials have arrived");
            }
            Event::Attachments { attachments, .. } => {
                for Attachment { arn, kind, device: Device::Interface(address), .. } in attachments {
                    let task = kind.task().map(TaskArn::task_id);
                    tracing::info!(task, attachment = arn, mac = %address, "ECS attaches a network interface");
                }
            }
            Event::Interfaces(addresses) => {
                tracing::debug!(interfaces = addresses.len(), "Network interfaces on the host");
            }
            Event::Observed(seen) => tracing::debug!(
                task = seen.task.task_id(),
                container = seen.container.as_str(),
                dockerId = seen.runtime_id.as_str(),
                dockerName = seen.runtime_name,
                state = %seen.state,
                health = %seen.health,
                containerExitCode = seen.exit_code,
                "Docker shows a container"
            ),
            Event::Removed { task, container, runtime_id, exit_code } => tracing::debug!(
                task = task.task_id(),
                container = container.as_str(),
                dockerId = runtime_id.as_str(),
                containerExitCode = exit_code,
                "A container was removed"
            ),
            Event::EventsMissed => tracing::debug!("Events of Docker may have been missed"),
            Event::Completed { .. } | Event::Tick => {}
        }
        self.operations.ended(event)
    }

    /// Logs that the core did not take an announcement. `effects` are those of the step that judged it.
    pub(crate) fn announced(effects: &[Effect]) {
        if !effects.iter().any(|effect| matches!(effect, Effect::Send(Message::Ack(_)))) {
            tracing::warn!(
                "too many attachments are under way; ECS gets no acknowledgement and sends its message again later"
            );
        }
    }

    /// Logs the end of an operation. `state` is the one after the step that took its outcome.
    pub(crate) fn taken(ended: Option<Ended>, state: &State, now: Timestamp) {
        if let Some(ended) = ended {
            ended.log(state, now);
        }
    }

    /// Logs what tasks and containers begin to wait for between two views.
    pub(crate) fn waits(last: &View, next: &View) {
        waits::log(last, next);
    }

    /// Logs the statuses that have changed since the last call.
    pub(crate) fn note(&mut self, state: &State, changed: &BTreeSet<Key>) {
        for key in changed {
            let Key::Task(arn) = key else { continue };
            match state.tasks.get(arn) {
                Some(task) => self.note_task(arn, task),
                None => {
                    if self.tasks.remove(arn).is_some() {
                        let task = arn.task_id();
                        tracing::info!(task, "Finished removing task data, removing task from managed tasks");
                    }
                }
            }
        }
    }

    fn note_task(&mut self, arn: &TaskArn, task: &TaskState) {
        let new = Statuses::from_task(task);
        let old = self.tasks.insert(arn.clone(), new.clone()).unwrap_or_else(|| {
            tracing::info!(task = arn.task_id(), taskARN = arn.as_str(), family = task.spec.family, "New task");
            Statuses::initial(new.containers.len())
        });
        let id = arn.task_id();
        if new.is_admitted && !old.is_admitted {
            tracing::info!(task = id, "Host resources consumed, progressing task");
        }
        for ((spec, container), (old, new)) in task.pairs().zip(old.containers.iter().zip(&new.containers)) {
            note_container(id, spec.name.as_str(), container, *old, *new);
        }
        if old.desired != new.desired {
            tracing::info!(task = id, desiredStatus = %new.desired, reason = task.reason, "Task desired status changed");
        }
        if old.known != new.known {
            let (known, previous) = (new.known, old.known);
            tracing::info!(task = id, knownStatus = %known, previousStatus = %previous, reason = task.reason, "Task status changed");
            if known == TaskStatus::Stopped {
                tracing::info!(task = id, "Managed task has reached stopped; waiting for container cleanup");
            }
        }
        if new.is_removing && !old.is_removing {
            tracing::info!(task = id, "Cleaning up task's containers and data");
        }
    }
}

fn note_container(task: &str, name: &str, container: &ContainerState, old: ContainerFacts, new: ContainerFacts) {
    let (docker_id, exit_code) = (container.runtime_id.as_ref().map(RuntimeId::as_str), container.exit_code);
    if old.health != new.health {
        let output = Some(container.live.health_output.as_str()).filter(|output| !output.is_empty());
        let health = new.health;
        if health == Health::Unhealthy {
            tracing::warn!(task, container = name, dockerId = docker_id, %health, output, "Container health changed");
        } else {
            tracing::info!(task, container = name, dockerId = docker_id, %health, "Container health changed");
        }
    }
    if old.restarts != new.restarts {
        let restarts = new.restarts;
        tracing::info!(
            task,
            container = name,
            dockerId = docker_id,
            containerExitCode = exit_code,
            restarts,
            "Restarting container"
        );
    }
    if old.known != new.known {
        let reason = container.failure.as_ref().map(ToString::to_string);
        tracing::info!(
            task,
            container = name,
            dockerId = docker_id,
            containerKnownStatus = %new.known,
            previousStatus = %old.known,
            containerExitCode = exit_code,
            reason,
            "Container status changed"
        );
    }
    if let Some(why) = new.no_restart.filter(|_| old.no_restart != new.no_restart) {
        let reason = why.to_string();
        tracing::info!(
            task,
            container = name,
            dockerId = docker_id,
            containerExitCode = exit_code,
            reason,
            "The restart policy does not start the container again"
        );
    }
}

impl Statuses {
    fn from_task(task: &TaskState) -> Self {
        let facts = |container: &ContainerState| ContainerFacts {
            known: container.known,
            health: container.health,
            restarts: container.restarts.count,
            no_restart: container.live.no_restart,
        };
        Self {
            known: task.known,
            desired: task.desired,
            is_removing: task.live.removing,
            is_admitted: task.admitted,
            containers: task.states().map(facts).collect(),
        }
    }

    /// The statuses of a task that has just arrived.
    fn initial(containers: usize) -> Self {
        Self {
            known: TaskStatus::None,
            desired: TaskStatus::Running,
            is_removing: false,
            is_admitted: false,
            containers: vec![ContainerFacts::default(); containers],
        }
    }
}
