//! What is known of one container.
//!
//! Owns the three statuses that must not be mixed up: what we tell (`known`), what the engine last said (`observed`), what ECS has
//! accepted (`sent`). The invariant: `known` never goes back.

use super::operation::{OperationKind, PendingOperation};
use super::restarts::Restarts;
use super::retry::Retry;
use crate::model::observation::Mount;
use crate::model::{
    ContainerStatus, Failure, Health, Observation, PortBinding, RunState, RuntimeId, Timestamp, is_default,
};
use serde::{Deserialize, Serialize};

/// One container of a task. A document has one for each, and is written with every step of any: what has its default value is left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// What we tell ECS: never goes back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub known: ContainerStatus,
    /// What the engine last said: may go back, and then we act. `None`: it does not exist, or nothing is known of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub observed: Option<RunState>,
    /// Last status ECS accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sent: ContainerStatus,
    /// It ran once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ran: bool,
    /// A create was asked for at some time, so that something may be there to remove.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_asked: bool,
    /// Nothing is left of it in the engine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub removed: bool,
    /// How often it was started again after it ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: Restarts,
    /// Why it cannot go on, or how it ended. The first one stays.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure: Option<Failure>,
    /// Resolving or pulling failed, which matters only if create then finds no image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pull_failure: Option<Failure>,
    /// The engine's id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime_id: Option<RuntimeId>,
    /// Digest of the image: that of its reference, or what the registry said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Option<String>,
    /// Digest of the image on this host that it was created from. Told where there is no other; no news by itself, since a pull
    /// that failed may have left an old one in use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_digest: Option<String>,
    /// Id of the image (`sha256:…`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub image_id: String,
    /// Exit code, once it ran and ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exit_code: Option<i32>,
    /// Result of its health check.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Health,
    /// When it was first seen running, by our clock.
    #[serde(default, skip_serializing_if = "is_default")]
    pub running_since: Option<Timestamp>,
    /// Time of creation in the engine's words.
    #[serde(default, skip_serializing_if = "is_default")]
    pub created_at: Option<String>,
    /// Time of start in the engine's words.
    #[serde(default, skip_serializing_if = "is_default")]
    pub started_at: Option<String>,
    /// When `known` changed last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub changed_at: Timestamp,
    /// Published ports.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bindings: Vec<PortBinding>,
    /// Mounts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Its last address in the engine's default network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: Option<String>,
    /// What is kept in memory only.
    #[serde(skip)]
    pub live: LiveContainer,
}

/// What is kept of a container in memory only. After a restart of the agent it is empty, except that
/// [`recover`](crate::core::recover()) sets `unsettled` for each container that the engine may have. The first inventory then shows how
/// it is, and planning fills in the rest again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveContainer {
    /// What is in flight: at most one.
    pub operation: Option<PendingOperation>,
    /// Nothing is done to it before it was looked at: an outcome was unknown, or the agent has just started.
    pub unsettled: bool,
    /// It has been planned to stop; what failed before that is no reason to wait.
    pub stopping: bool,
    /// Failures in a row, and when to try again.
    pub retry: Retry,
    /// What to say if it turns out that an operation with unknown outcome did not happen.
    pub doubt: Option<(OperationKind, Failure)>,
    /// How often that was so in a row.
    pub doubts: u32,
    /// The step in which we last did or learnt something; an older inventory does not speak for it.
    pub touched: u64,
}

impl ContainerState {
    /// It is known to be stopped.
    pub fn is_stopped(&self) -> bool {
        self.known == ContainerStatus::Stopped
    }

    /// Nothing is left of it in the engine, and nothing is on its way.
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

    /// The first failure stays; later ones are consequences.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Copies what an observation tells beyond the state of the process.
    pub fn remember(&mut self, seen: &Observation) {
        self.runtime_id = Some(seen.runtime_id.clone());
        self.image_id.clone_from(&seen.image_id);
        if seen.image_digest.is_some() {
            self.local_digest.clone_from(&seen.image_digest);
        }
        if seen.created_at.is_some() {
            self.created_at.clone_from(&seen.created_at);
        }
        // Compat: the first start stays, however often it is started again.
        if seen.started_at.is_some() && (self.restarts.count == 0 || self.started_at.is_none()) {
            self.started_at.clone_from(&seen.started_at);
        }
        self.mounts.clone_from(&seen.mounts);
        if !seen.bindings.is_empty() {
            self.bindings.clone_from(&seen.bindings);
        }
        if seen.address.is_some() {
            self.address.clone_from(&seen.address);
        }
        if seen.health != Health::Unknown {
            self.health = seen.health;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::sample::{NOW, seen};
    use crate::model::Span;

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
    fn a_look_that_tells_less_does_not_make_us_forget() {
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
        container.remember(&full);
        assert_eq!(container.runtime_id, Some(RuntimeId::from("id")));
        container.remember(&Observation { started_at: None, ..seen("task", "a", "id", RunState::Exited) });
        assert_eq!((container.health, &container.bindings), (Health::Healthy, &full.bindings));
        assert_eq!((&container.created_at, &container.address), (&full.created_at, &full.address));
        assert_eq!(container.started_at, full.started_at);
        full.health = Health::Unhealthy;
        container.remember(&full);
        assert_eq!(container.health, Health::Unhealthy);
    }

    #[test]
    fn the_first_start_stays_if_the_restart_policy_made_the_next() {
        let started = |restarts: u32, before: Option<&str>| {
            let mut container = ContainerState { started_at: before.map(str::to_owned), ..ContainerState::default() };
            container.restarts.count = restarts;
            let now = Some("now".to_owned());
            container.remember(&Observation { started_at: now, ..seen("task", "a", "id", RunState::Running) });
            container.started_at.unwrap()
        };
        assert_eq!(started(1, Some("then")), "then");
        assert_eq!(started(1, None), "now");
        assert_eq!(started(0, Some("then")), "now", "somebody else started it again");
    }
}
