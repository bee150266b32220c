//! The state of one container.
//!
//! Owns three statuses that must not be confused: `known` is the status that the container has reached, `observed` is the state
//! that Docker last showed, `sent` is the last status that ECS has accepted. Invariant: `known` never goes back.

use super::operation::{OperationKind, PendingOperation};
use super::restarts::{NoRestart, Restarts, is_earlier};
use super::retry::Retry;
use crate::model::observation::{LastCheck, Mount, Network};
use crate::model::usage::Process;
use crate::model::{
    ContainerStatus, CredentialsId, Failure, Health, Observation, PortBinding, RunState, RuntimeId, TextMap, Timestamp,
    is_default,
};
use serde::{Deserialize, Serialize};

/// The state of one container of a task.
///
/// A task's document holds one `ContainerState` for each container and is written whenever one of them changes. So fields with
/// their default value are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The status that the container has reached, which is reported to ECS. It never goes back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub known: ContainerStatus,
    /// The state in which Docker last showed the container. Unlike `known`, it may go back, and the agent reacts to that.
    /// `None`: the container does not exist, or has not been seen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub observed: Option<RunState>,
    /// The last status of the container that ECS has accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sent: ContainerStatus,
    /// The container has been seen running at least once in this task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ran: bool,
    /// The creation has been requested, so there may be something to remove.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_asked: bool,
    /// The container does not exist in Docker any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub removed: bool,
    /// The restarts of the container by its restart policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: Restarts,
    /// Why the container cannot go on, or how it failed at its end; `None` if nothing failed. A later failure does not replace
    /// the first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure: Option<Failure>,
    /// Why the digest could not be resolved or the image could not be pulled; `None` if nothing failed. It matters only if the
    /// creation then finds no image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pull_failure: Option<Failure>,
    /// Docker's id of the container; `None` before the creation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime_id: Option<RuntimeId>,
    /// Digest of the image, from its reference or from the registry; `None` if it is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Option<String>,
    /// Digest of the local image that the container was created from; `None` if it is not known. It is reported if `digest` is
    /// missing, but causes no report by itself: a failed pull may have left an old image in use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_digest: Option<String>,
    /// Id of the image (`sha256:…`); empty before the creation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub image_id: String,
    /// Exit code of the last run; `None` if the container has not run and ended, or the code is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exit_code: Option<i32>,
    /// The last result of the health check.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Health,
    /// When `health` last changed; `None` if it never has, or if an earlier version of the agent saw it change.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_since: Option<Timestamp>,
    /// The health check after which `health` last changed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_check: LastCheck,
    /// When the container was first seen running, by the agent's clock; `None` before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub running_since: Option<Timestamp>,
    /// Time of the creation as Docker writes it; `None` if it is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub created_at: Option<String>,
    /// Time of the start as Docker writes it; `None` if it is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub started_at: Option<String>,
    /// Time of the last end as Docker writes it; `None` if it is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub finished_at: Option<String>,
    /// When `known` last changed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub changed_at: Timestamp,
    /// Published ports as Docker bound them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bindings: Vec<PortBinding>,
    /// Mounts of the container as Docker shows them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// The container's last address in Docker's default network; `None` if it never had one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: Option<String>,
    /// The container's first known labels, without those that this agent uses for itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: TextMap,
    /// The networks that the container was last connected to; empty if they are not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub networks: Vec<Network>,
    /// The id of the task role's credentials that the container was created with; `None`: [`TaskInfo::role_id`].
    ///
    /// [`TaskInfo::role_id`]: crate::model::TaskInfo::role_id
    #[serde(default, skip_serializing_if = "is_default")]
    pub role_id: Option<CredentialsId>,
    /// The same for the task execution role.
    #[serde(default, skip_serializing_if = "is_default")]
    pub execution_role_id: Option<CredentialsId>,
    /// The part of the state that is kept in memory only.
    #[serde(skip)]
    pub live: LiveContainer,
}

/// The part of a container's state that is kept in memory only. After a restart of the agent it is empty, except that
/// [`recover`](crate::recover()) sets `unsettled` for each container that the engine may have. The first inventory then
/// shows its state, and planning fills in the rest again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveContainer {
    /// The pending operation; `None` if there is none.
    pub operation: Option<PendingOperation>,
    /// The container must be inspected before any other operation: an outcome was unknown, or the agent has just started.
    pub unsettled: bool,
    /// The container should stop, and this has been planned. Earlier failures then no longer delay its operations.
    pub stopping: bool,
    /// Consecutive failures, and when to try again.
    pub retry: Retry,
    /// The operation whose outcome is unknown, and the failure that applies if it turns out not to have been done; `None` if
    /// there is none.
    pub unknown_outcome: Option<(OperationKind, Failure)>,
    /// Number of consecutive operations that had an unknown outcome and turned out not to have been done.
    pub undone_operations: u32,
    /// A start had an unknown outcome, and may still be carried out.
    pub start_may_follow: bool,
    /// Number of removals that failed; [`MAX_REMOVALS`] after a refusal.
    pub failed_removals: u32,
    /// The number of the last step that did something to the container or learnt something about it. An inventory that was
    /// requested earlier says nothing about the container.
    pub touched: u64,
    /// Why the restart policy did not start the container again when it ended; `None` if it has none, or did.
    pub no_restart: Option<NoRestart>,
    /// What the last failed health check printed; empty if the container is not unhealthy, or has not been inspected since the
    /// agent started.
    pub health_output: String,
    /// The metadata file of the running container has been requested in this process, so it needs no further request.
    pub metadata_written: bool,
    /// The first process of the running container; `None` if the container does not run, or has not been inspected since it
    /// started.
    pub process: Option<Process>,
}

/// After this many failed removals, or a refused one, a late start cannot be excluded, and the container is reported as stopped all
/// the same.
pub const MAX_REMOVALS: u32 = 3;

impl ContainerState {
    /// The container has not run, but a start with an unknown outcome may still be carried out, for example when a busy Docker gets
    /// to it. Only a removal excludes that. (The Go agent reports the container as stopped, and stops it again if it comes.)
    pub fn may_start_late(&self) -> bool {
        let is_unstarted = self.observed == Some(RunState::Created);
        is_unstarted && self.live.start_may_follow && self.live.failed_removals < MAX_REMOVALS
    }

    /// The container has stopped and will not run again.
    pub fn is_stopped(&self) -> bool {
        self.known == ContainerStatus::Stopped
    }

    /// The container does not exist in Docker, and no operation is pending that could create it.
    pub fn is_gone(&self) -> bool {
        self.live.operation.is_none() && !self.live.unsettled && (self.removed || !self.create_asked)
    }

    /// Raises `known`; never lowers it.
    pub fn raise(&mut self, status: ContainerStatus, now: Timestamp) {
        if status > self.known {
            self.known = status;
            self.changed_at = now;
        }
    }

    /// Sets the failure unless there is one: later failures are consequences of the first.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Copies the stored details of an observation, except the run state, the exit code and the error.
    pub fn remember(&mut self, seen: &Observation, now: Timestamp) {
        self.runtime_id = Some(seen.runtime_id.clone());
        self.image_id.clone_from(&seen.image_id);
        self.live.health_output.clone_from(&seen.health_output);
        match (seen.state, seen.pid) {
            (RunState::Running, Some(pid)) => {
                let started_at = seen.started_at.as_deref().unwrap_or_default();
                // Events may arrive in another order, and the process of an earlier run is gone.
                let is_outdated = |known: &Process| is_earlier(started_at, &known.started_at);
                if !self.live.process.as_ref().is_some_and(is_outdated) {
                    self.live.process = Some(Process { pid, started_at: started_at.into() });
                }
            }
            (RunState::Running, None) => {} // a list names no processes
            (RunState::Created | RunState::Exited, _) => self.live.process = None,
        }
        if seen.image_digest.is_some() {
            self.local_digest.clone_from(&seen.image_digest);
        }
        if seen.created_at.is_some() {
            self.created_at.clone_from(&seen.created_at);
        }
        // Compat: after a restart by the policy, the time of the first start is kept.
        if seen.started_at.is_some() && (self.restarts.count == 0 || self.started_at.is_none()) {
            self.started_at.clone_from(&seen.started_at);
        }
        if seen.finished_at.is_some() {
            self.finished_at.clone_from(&seen.finished_at);
        }
        if self.labels.is_empty() {
            self.labels.clone_from(&seen.labels);
        }
        if !seen.networks.is_empty() {
            self.networks.clone_from(&seen.networks);
        }
        self.mounts.clone_from(&seen.mounts);
        if !seen.bindings.is_empty() {
            self.bindings.clone_from(&seen.bindings);
        }
        if seen.address.is_some() {
            self.address.clone_from(&seen.address);
        }
        // Docker calls a container unhealthy when it ends the checks of one that stops: nobody checked it.
        let is_checked = seen.state == RunState::Running && seen.health != Health::Unknown;
        // Compat: what a check printed is kept from the change of the status on, not from each check.
        if is_checked && seen.health != self.health {
            self.health = seen.health;
            self.health_since = Some(now);
            self.health_check.clone_from(&seen.last_check);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;
    use crate::sample::{NOW, seen};

    #[test]
    fn a_status_is_raised_once_and_never_lowered() {
        let mut container = ContainerState::default();
        container.raise(ContainerStatus::Created, NOW);
        assert_eq!((container.known, container.changed_at), (ContainerStatus::Created, NOW));
        let later = NOW + Span::secs(1);
        for same_or_less in [ContainerStatus::Created, ContainerStatus::Pulled] {
            container.raise(same_or_less, later);
            assert_eq!((container.known, container.changed_at), (ContainerStatus::Created, NOW));
        }
    }

    #[test]
    fn an_observation_without_details_erases_none() {
        let mut container = ContainerState::default();
        let mut full = seen("task", "a", "id", RunState::Running);
        full.health = Health::Healthy;
        full.bindings = vec![PortBinding {
            container_port: 80,
            host_port: 8080,
            bind_ip: String::new(),
            protocol: crate::model::Protocol::Tcp,
        }];
        (full.created_at, full.started_at) = (Some("then".to_owned()), Some("later".to_owned()));
        full.address = Some("172.17.0.2".to_owned());
        container.remember(&full, NOW);
        assert_eq!(container.runtime_id, Some(RuntimeId::from("id")));
        container.remember(&Observation { started_at: None, ..seen("task", "a", "id", RunState::Exited) }, NOW);
        assert_eq!((container.health, &container.bindings), (Health::Healthy, &full.bindings));
        assert_eq!((&container.created_at, &container.address), (&full.created_at, &full.address));
        assert_eq!(container.started_at, full.started_at);
        full.health = Health::Unhealthy;
        container.remember(&full, NOW);
        assert_eq!(container.health, Health::Unhealthy);
    }

    /// Docker calls each container with a health check unhealthy when it stops.
    #[test]
    fn a_container_that_does_not_run_keeps_its_health() {
        let with = |state, health| Observation { health, ..seen("task", "a", "id", state) };
        for health in [Health::Healthy, Health::Unhealthy] {
            let mut container = ContainerState::default();
            container.remember(&with(RunState::Running, health), NOW);
            let later = NOW + Span::secs(1);
            for state in [RunState::Exited, RunState::Created] {
                for other in [Health::Healthy, Health::Unhealthy, Health::Unknown] {
                    container.remember(&with(state, other), later);
                    assert_eq!((container.health, container.health_since), (health, Some(NOW)), "{state:?} {other:?}");
                }
            }
        }
        let mut never_checked = ContainerState::default();
        never_checked.remember(&with(RunState::Exited, Health::Unhealthy), NOW);
        assert_eq!((never_checked.health, never_checked.health_since), (Health::Unknown, None));
    }

    #[test]
    fn the_first_start_stays_if_the_restart_policy_made_the_next() {
        let started = |restarts: u32, before: Option<&str>| {
            let mut container = ContainerState { started_at: before.map(str::to_owned), ..ContainerState::default() };
            container.restarts.count = restarts;
            let now = Some("now".to_owned());
            container.remember(&Observation { started_at: now, ..seen("task", "a", "id", RunState::Running) }, NOW);
            container.started_at.unwrap()
        };
        assert_eq!(started(1, Some("then")), "then");
        assert_eq!(started(1, None), "now");
        assert_eq!(started(0, Some("then")), "now", "somebody else started it again");
    }
}
