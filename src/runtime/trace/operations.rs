//! Logs the beginning and the end of each operation: what it works on, the attempt, and when a failed one is tried again.
//!
//! The texts of the operations that the Go agent logs too are its own (spec `logging.md` §4). Invariant: every line about a
//! failure names the task, the container, the image and the attempt, as far as the operation has them.

use super::labels::Labels;
use ecs_core::model::image::ImageWork;
use ecs_core::model::{Failure, FailureKind, OpError, OpId, RunState, TaskStatus, Timestamp};
use ecs_core::state::{OperationOwner, Retry};
use ecs_core::{Event, Operation, Output, State};
use std::collections::BTreeMap;

/// The operations that were begun and have not ended.
#[derive(Debug, Default)]
pub(super) struct Operations {
    begun: BTreeMap<OpId, Subject>,
}

/// What an operation does, and what it works on. `None` or empty: it works on none.
#[derive(Clone, Debug)]
struct Subject {
    texts: &'static Texts,
    owner: Option<OperationOwner>,
    labels: Labels,
    image: String,
    docker_id: String,
    /// The number of attempts so far, with this one.
    attempt: u32,
}

/// The lines about one kind of operation.
#[derive(Debug)]
struct Texts {
    begins: &'static str,
    ended: &'static str,
    failed: &'static str,
    /// The operation changes something. Others are details for developers, unless they fail.
    changes: bool,
}

const fn texts(changes: bool, begins: &'static str, ended: &'static str, failed: &'static str) -> Texts {
    Texts { begins, ended, failed, changes }
}

static RESOLVE: Texts = texts(
    false,
    "Resolving the digest of an image",
    "Resolved the digest of an image",
    "Failed to resolve the digest of an image",
);
static PULL: Texts = texts(
    true,
    "Pulling image for container concurrently",
    "Finished pulling image for container",
    "Failed to pull image for container",
);
static CREATE: Texts = texts(true, "Creating container", "Created container", "Failed to create container");
static START: Texts = texts(true, "Starting container", "Started container", "Failed to start container");
static STOP: Texts = texts(true, "Stopping container", "Stopped container", "Failed to stop container");
static INSPECT: Texts = texts(false, "Inspecting container", "Inspected container", "Failed to inspect container");
static REMOVE: Texts = texts(true, "Removing container", "Removed container", "Failed to remove container");
static CREATE_RESOURCE: Texts =
    texts(true, "Creating a task's resource", "Created a task's resource", "Failed to create a task's resource");
static REMOVE_RESOURCE: Texts =
    texts(true, "Removing a task's resource", "Removed a task's resource", "Failed to remove a task's resource");
static RENEW_RESOURCE: Texts =
    texts(true, "Renewing a task's resource", "Renewed a task's resource", "Failed to renew a task's resource");
static INVENTORY: Texts =
    texts(false, "Listing all containers", "Listed all containers", "Failed to list all containers");
static IMAGES: Texts = texts(false, "Cleaning up images", "Cleaned up images", "Failed to clean up images");
static REPORT: Texts =
    texts(true, "Sending state change to ECS", "ECS accepted the state change", "Could not submit task state change");
static SET_UP_NETWORK: Texts = texts(
    true,
    "Setting up the network of the task",
    "Set up the network of the task",
    "Failed to set up the network of the task",
);
static TEAR_DOWN_NETWORK: Texts = texts(
    true,
    "Tearing down the network of the task",
    "Tore down the network of the task",
    "Failed to tear down the network of the task",
);
static REPORT_ATTACHMENT: Texts = texts(
    true,
    "Reporting an attachment to ECS",
    "ECS accepted the report of an attachment",
    "Could not report an attachment",
);
/// There was no need to pull.
const CACHED: &str = "The image is on this host";
/// ECS refused the report for good.
const REFUSED_REPORT: &str = "Unretriable error sending state change to ECS";
/// ECS does not know yet that a task has stopped, which would be cleaned up otherwise.
const BLOCKED_CLEANUP: &str = "Blocking cleanup until the task has been reported stopped";

impl Operations {
    /// Notes and logs an operation that begins. `state` is the one after the step that requested it. Returns the names of what it
    /// works for.
    pub(super) fn begin(&mut self, state: &State, op: OpId, operation: &Operation) -> Labels {
        let subject = Subject::new(state, op, operation);
        subject.begins(op, operation);
        let labels = subject.labels.clone();
        self.begun.insert(op, subject);
        labels
    }

    /// Logs that an operation is given up. Its outcome does not matter any more.
    pub(super) fn cancel(&mut self, op: OpId) {
        if let Some(subject) = self.begun.remove(&op) {
            let (task, container, image) =
                (present(&subject.labels.task), present(&subject.labels.container), present(&subject.image));
            let text = subject.texts.begins;
            tracing::info!(task, container, image, "{text} was given up");
        }
    }

    /// The operation that this event ends; `None` if it ends none that was begun.
    pub(super) fn ended(&mut self, event: &Event) -> Option<Ended> {
        let Event::Completed { op, outcome } = event else { return None };
        let subject = self.begun.remove(op)?;
        Some(match outcome {
            Ok(output) => Ended { op: *op, subject, result: Ok(output.into()) },
            Err(error) => Ended { op: *op, subject, result: Err(error.clone()) },
        })
    }
}

/// An operation that has ended. It is logged after the step that took its outcome, which says when it is tried again.
#[derive(Debug)]
pub(crate) struct Ended {
    op: OpId,
    subject: Subject,
    result: Result<Summary, OpError>,
}

/// What a line says about the result of an operation.
#[derive(Debug, Default)]
struct Summary {
    /// Docker's id of the container; empty if there is none.
    docker_id: String,
    /// Docker's name of the container; empty if there is none.
    docker_name: String,
    /// There was no need to pull.
    is_cached: bool,
    /// The container's state; `None` if there is none.
    state: Option<RunState>,
}

impl From<&Output> for Summary {
    fn from(output: &Output) -> Self {
        match output {
            Output::Seen(Some(seen)) => Self {
                docker_id: seen.runtime_id.to_string(),
                docker_name: seen.runtime_name.clone(),
                is_cached: false,
                state: Some(seen.state),
            },
            Output::Cached | Output::Nothing => Self { is_cached: true, ..Self::default() },
            _ => Self::default(),
        }
    }
}

impl Ended {
    /// Logs the end. `state` is the one after the step that took the outcome.
    pub(super) fn log(self, state: &State, now: Timestamp) {
        let Self { op, subject, result } = self;
        match result {
            Ok(summary) => match subject.contradiction(&summary) {
                Some(text) => subject.failed(state, Failure::permanent("", text).into(), now),
                None => subject.succeeded(op, &summary),
            },
            Err(error) => subject.failed(state, error, now),
        }
    }
}

/// A field that is left out if it is empty.
fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Subject {
    fn new(state: &State, op: OpId, operation: &Operation) -> Self {
        let owner = state.ops.get(&op).cloned();
        let mut subject = Self {
            texts: texts_of(operation),
            labels: Labels::default(),
            image: String::new(),
            docker_id: String::new(),
            attempt: owner.as_ref().and_then(|owner| retry(state, owner)).map_or(0, |retry| retry.attempts) + 1,
            owner,
        };
        match &subject.owner {
            Some(OperationOwner::Container(arn, index)) => {
                subject.labels.task = arn.task_id().to_owned();
                if let Some((spec, container)) = state.tasks.get(arn).and_then(|task| task.pairs().nth(*index)) {
                    subject.labels.container = spec.name.to_string();
                    subject.image = spec.image.clone();
                    subject.docker_id = container.runtime_id.as_ref().map(ToString::to_string).unwrap_or_default();
                }
            }
            Some(OperationOwner::Resource(arn, name)) => {
                (subject.labels.task, subject.labels.resource) = (arn.task_id().to_owned(), name.clone());
            }
            Some(OperationOwner::Report(arn) | OperationOwner::Network(arn)) => {
                subject.labels.task = arn.task_id().to_owned();
            }
            Some(OperationOwner::Attachment(attachment)) => {
                let task = state.host.attachments.get(attachment).and_then(|record| record.kind.task());
                subject.labels.task = task.map(|arn| arn.task_id().to_owned()).unwrap_or_default();
                subject.labels.resource.clone_from(attachment);
            }
            Some(OperationOwner::Orphan(id)) => {
                subject.docker_id = id.clone();
                if let Some(orphan) = state.orphans.get(id) {
                    subject.labels.task = orphan.task.task_id().to_owned();
                    subject.labels.container = orphan.container.to_string();
                }
            }
            Some(OperationOwner::Inventory | OperationOwner::Images) | None => {}
        }
        match operation {
            Operation::CleanImages(ImageWork::RemoveImage { id, .. }) => subject.image.clone_from(id),
            // The container may have been given up in the same step.
            Operation::ResolveDigest(request) | Operation::Pull(request) => subject.image.clone_from(&request.image),
            _ => {}
        }
        subject
    }

    fn begins(&self, op: OpId, operation: &Operation) {
        let (task, container, image) =
            (present(&self.labels.task), present(&self.labels.container), present(&self.image));
        let (docker_id, resource) = (present(&self.docker_id), present(&self.labels.resource));
        // The first attempt is the usual one.
        let attempt = (self.attempt > 1).then_some(self.attempt);
        let text = self.texts.begins;
        match operation {
            Operation::Create(request) => {
                let docker_name = request.runtime_name.as_str();
                tracing::info!(task, container, image, dockerName = docker_name, attempt, "{text}");
            }
            Operation::Report(change) => {
                let (status, reason) = (change.status.backend(), present(&change.reason));
                let containers = change.containers.len();
                tracing::info!(task, status, containers, reason, attempt, "{text}");
            }
            _ if self.texts.changes => {
                tracing::info!(task, container, image, resource, dockerId = docker_id, attempt, "{text}");
            }
            _ => tracing::debug!(op = op.0, task, container, image, resource, dockerId = docker_id, attempt, "{text}"),
        }
    }

    /// What is wrong with a success; `None` if nothing is. Docker may report success for a container that it did not change.
    fn contradiction(&self, summary: &Summary) -> Option<&'static str> {
        match summary.state {
            Some(RunState::Created) if std::ptr::eq(self.texts, &raw const START) => {
                Some("Docker reports success, but the container was not started")
            }
            Some(RunState::Running) if std::ptr::eq(self.texts, &raw const STOP) => {
                Some("Docker reports success, but the container runs")
            }
            _ => None,
        }
    }

    fn succeeded(&self, op: OpId, summary: &Summary) {
        let (task, container, image) =
            (present(&self.labels.task), present(&self.labels.container), present(&self.image));
        let (resource, name) = (present(&self.labels.resource), present(&summary.docker_name));
        let docker_id = present(&summary.docker_id).or(present(&self.docker_id));
        let is_pull = std::ptr::eq(self.texts, &raw const PULL);
        let text = if is_pull && summary.is_cached { CACHED } else { self.texts.ended };
        if self.texts.changes {
            tracing::info!(task, container, image, resource, dockerId = docker_id, dockerName = name, "{text}");
        } else {
            tracing::debug!(op = op.0, task, container, image, resource, dockerId = docker_id, "{text}");
        }
    }

    /// `state` is the one after the step that took the failure.
    fn failed(&self, state: &State, error: OpError, now: Timestamp) {
        let (task, container, image) =
            (present(&self.labels.task), present(&self.labels.container), present(&self.image));
        let (docker_id, resource) = (present(&self.docker_id), present(&self.labels.resource));
        let is_report = std::ptr::eq(self.texts, &raw const REPORT);
        let (outcome, failure) = match error {
            OpError::Failed(failure) => (None, failure),
            OpError::Unknown(failure) => (Some("unknown: it may have been done"), failure),
        };
        let retry = self.owner.as_ref().and_then(|owner| retry(state, owner));
        let retry = retry.filter(|retry| retry.not_before > now);
        let retry_in_s = retry.map(|retry| retry.not_before.since(now).0 as f64 / 1000.0);
        // As the core decides: an unknown outcome is tried again, whatever the kind of the failure.
        let is_final = is_report && outcome.is_none() && failure.kind != FailureKind::Retryable;
        let (text, error) = (if is_final { REFUSED_REPORT } else { self.texts.failed }, failure.to_string());
        // The edge makes and logs several attempts to look at a registry within one operation.
        let has_attempts = [&raw const PULL, &raw const RESOLVE].iter().all(|texts| !std::ptr::eq(self.texts, *texts));
        let attempt = has_attempts.then_some(self.attempt);
        // The agent's own lists of containers and images concern no task. While Docker is away they fail again and again.
        let is_own = [&raw const INVENTORY, &raw const IMAGES].iter().any(|texts| std::ptr::eq(self.texts, *texts));
        // An operation that was not attempted is requested again each second. The earlier one had its line.
        let is_busy = failure.kind == FailureKind::Busy && retry.is_some();
        if is_busy || is_own && !self.attempt.is_power_of_two() {
            tracing::debug!(task, attempt, outcome, error, retry_in_s, "{text}");
            return;
        }
        tracing::warn!(
            task,
            container,
            image,
            resource,
            dockerId = docker_id,
            attempt,
            outcome,
            error,
            retry_in_s,
            "{text}"
        );
        if is_report && !is_final && self.blocks_cleanup(state, now) {
            tracing::warn!(task, attempt, retry_in_s, "{BLOCKED_CLEANUP}");
        }
    }

    /// The task of this report has stopped, and would be cleaned up by now if ECS knew that.
    fn blocks_cleanup(&self, state: &State, now: Timestamp) -> bool {
        let Some(OperationOwner::Report(arn)) = &self.owner else { return false };
        state.tasks.get(arn).is_some_and(|task| {
            task.known == TaskStatus::Stopped
                && task.sent != TaskStatus::Stopped
                && now >= task.known_at + state.policy.cleanup_wait
        })
    }
}

fn texts_of(operation: &Operation) -> &'static Texts {
    match operation {
        Operation::ResolveDigest(_) => &RESOLVE,
        Operation::Pull(_) => &PULL,
        Operation::Create(_) => &CREATE,
        Operation::Start(_) => &START,
        Operation::Stop { .. } => &STOP,
        Operation::Inspect(_) => &INSPECT,
        Operation::Remove(_) => &REMOVE,
        Operation::CreateResource(_) => &CREATE_RESOURCE,
        Operation::RemoveResource(_) => &REMOVE_RESOURCE,
        Operation::RenewResource(_) => &RENEW_RESOURCE,
        Operation::Inventory => &INVENTORY,
        Operation::CleanImages(_) => &IMAGES,
        Operation::Report(_) => &REPORT,
        Operation::SetUpNetwork(_) => &SET_UP_NETWORK,
        Operation::TearDownNetwork(_) => &TEAR_DOWN_NETWORK,
        Operation::ReportAttachment(_) => &REPORT_ATTACHMENT,
    }
}

/// When the operations of this owner are tried again; `None` if the owner is gone.
fn retry(state: &State, owner: &OperationOwner) -> Option<Retry> {
    let task = |arn| state.tasks.get(arn).map(Box::as_ref);
    Some(match owner {
        OperationOwner::Container(arn, index) => task(arn)?.states().nth(*index)?.live.retry,
        OperationOwner::Resource(arn, name) => {
            task(arn)?.resources.iter().find(|resource| resource.spec.name == *name)?.state.live.retry
        }
        OperationOwner::Report(arn) => task(arn)?.live.report_retry,
        OperationOwner::Network(arn) => task(arn)?.live.network.retry,
        OperationOwner::Attachment(arn) => state.attachment_reports.get(arn)?.retry,
        OperationOwner::Orphan(id) => state.orphans.get(id)?.retry,
        OperationOwner::Inventory => state.inventory.retry,
        OperationOwner::Images => state.images.retry,
    })
}
