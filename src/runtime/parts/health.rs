//! The facts behind `/health`, and their sources.
//!
//! Owns the facts only; [`ecs_core::agent_health`] decides which of them are healthy. Every fact is a
//! point in time, so a part that hangs is found by the age of its fact: it need not report its own failure.

use crate::docker::Docker;
use crate::host::firewall::METADATA_ADDRESS;
use crate::http::{self, Serving};
use crate::runtime::parts::spot::Recommendations;
use crate::runtime::supervisor::PartResult;
use crate::websocket::{Contact, Seen};
use ecs_core::agent_health::{HealthFacts, Stage, Step, agent_health};
use ecs_core::model::agent_health::AgentHealth;
use ecs_core::model::{Bridges, Timestamp};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Interval between pings of Docker.
const DOCKER_INTERVAL: Duration = Duration::from_secs(15);
/// How many bridges a person is warned about.
const MAX_WARNINGS: usize = 64;

/// The agent's health, shared by the parts that report facts and by those that answer requests.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    started: Instant,
    facts: Arc<Mutex<HealthFacts>>,
    contact: Contact,
    telemetry: Contact,
    metadata_port: Serving,
    recommendations: Arc<Recommendations>,
}

impl Health {
    /// The health of a process that starts now.
    pub(crate) fn started() -> Self {
        let facts = Arc::new(Mutex::new(HealthFacts::starting(Timestamp::default())));
        Self {
            started: Instant::now(),
            facts,
            contact: Contact::default(),
            telemetry: Contact::default(),
            metadata_port: Serving::default(),
            recommendations: Arc::default(),
        }
    }

    /// The record that the ACS session keeps of its contact with ACS.
    pub(crate) fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// The record that the TCS session keeps of its contact with TCS.
    pub(crate) fn telemetry(&self) -> Contact {
        self.telemetry.clone()
    }

    /// The record of the port of the task metadata server.
    pub(crate) fn metadata_port(&self) -> Serving {
        self.metadata_port.clone()
    }

    /// EC2's recommendations to replace this Spot instance, and their number.
    pub(crate) fn recommendations(&self) -> Arc<Recommendations> {
        self.recommendations.clone()
    }

    /// Records that the start has reached this step. Time in a warm pool does not count as part of the start.
    pub(crate) fn step(&self, step: Step) {
        self.change(|facts, now| {
            if facts.stage == Stage::Starting(Step::WarmPool) {
                facts.started = now;
            }
            facts.stage = Stage::Starting(step);
        });
    }

    /// Records that the instance is registered and the parts of the agent start. A warm pool may have taken hours, so all time
    /// limits begin anew.
    pub(crate) fn running(&self) {
        self.change(|facts, now| {
            *facts = HealthFacts { stage: Stage::Running, docker_answer: Some(now), ..HealthFacts::starting(now) };
        });
    }

    /// Records that the core loop has completed a turn, or an attempt of one.
    pub(crate) fn core_turned(&self) {
        self.change(|facts, now| facts.core_turn = Some(now));
    }

    /// Records whether an attempt to write the state has succeeded.
    pub(crate) fn state_written(&self, success: bool) {
        self.change(|facts, now| {
            facts.state_failing = (!success).then(|| facts.state_failing.unwrap_or(now));
        });
    }

    /// Records that Docker has answered.
    pub(crate) fn docker_answered(&self) {
        self.change(|facts, now| facts.docker_answer = Some(now));
    }

    /// What is known of the links to ACS and TCS, each with its label in metrics.
    pub(crate) fn links(&self) -> [(&'static str, Seen); 2] {
        [("acs", self.contact.seen()), ("tcs", self.telemetry.seen())]
    }

    /// The agent's health at this moment.
    pub(crate) fn judge(&self) -> AgentHealth {
        let seen = self.contact.seen();
        let mut facts = *self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.acs_message = seen.last_message.map(|at| self.moment(at));
        facts.deregistered = seen.deregistered.map(|at| self.moment(at));
        facts.telemetry_message = self.telemetry.seen().last_word.map(|at| self.moment(at));
        facts.rebalance = self.recommendations.last().map(|at| self.moment(at));
        facts.metadata_port_closed = self.metadata_port.closed_since().map(|at| self.moment(at));
        agent_health(&facts, self.moment(Instant::now()))
    }

    fn moment(&self, at: Instant) -> Timestamp {
        Timestamp(at.saturating_duration_since(self.started).as_millis() as u64)
    }

    fn change(&self, update: impl FnOnce(&mut HealthFacts, Timestamp)) {
        let now = self.moment(Instant::now());
        update(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner), now);
    }
}

/// Pings Docker regularly, and reads the interfaces of its bridges: networks come and go, and a restarted daemon may have another
/// default bridge. So they are also read after the event stream was opened again (`reopened`).
pub(crate) async fn watch_docker(
    docker: &Docker,
    health: &Health,
    bridges: &watch::Sender<Bridges>,
    reopened: &Notify,
    stop: CancellationToken,
) -> PartResult {
    let watching = async {
        let mut left_out = BTreeSet::new();
        loop {
            match docker.ping().await {
                Ok(()) => {
                    health.docker_answered();
                    read_bridges(docker, bridges, &mut left_out).await;
                }
                Err(error) => tracing::debug!(%error, "Docker does not answer"),
            }
            tokio::select! {
                () = tokio::time::sleep(DOCKER_INTERVAL) => {}
                () = reopened.notified() => {}
            }
        }
    };
    stop.run_until_cancelled(watching).await;
    Ok(())
}

/// Reads the interfaces of Docker's bridges. If Docker does not answer, the last known ones stay. `left_out` are the bridges about
/// which a person has been warned.
async fn read_bridges(docker: &Docker, bridges: &watch::Sender<Bridges>, left_out: &mut BTreeSet<String>) {
    let found = match docker.bridges().await {
        Ok(found) => http::with_containers_only(found, |bridge, reason| {
            if left_out.len() < MAX_WARNINGS && left_out.insert(bridge.to_owned()) {
                tracing::warn!(
                    bridge,
                    reason,
                    "containers on this bridge of a Docker network do not reach the agent at {METADATA_ADDRESS}, since other machines \
                     may be on it"
                );
            }
        }),
        Err(error) => {
            tracing::debug!(%error, "Docker does not report its bridges");
            return;
        }
    };
    bridges.send_if_modified(|known| {
        let is_changed = *known != found;
        if is_changed {
            let (default, named) =
                (found.default.as_deref(), found.named.iter().cloned().collect::<Vec<_>>().join(", "));
            tracing::debug!(default, named, "the bridges of Docker's networks");
            *known = found;
        }
        is_changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::agent_health::Subject;

    fn wrong(health: &Health) -> Vec<Subject> {
        let checks = health.judge().checks.into_iter();
        checks.filter(|check| !check.healthy && check.essential).map(|check| check.subject).collect()
    }

    async fn minutes(minutes: u64) {
        tokio::time::advance(Duration::from_secs(minutes * 60 + 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_is_reported_as_the_cause() {
        let health = Health::started();
        let _open = health.metadata_port().open();
        health.step(Step::Docker);
        minutes(4).await;
        assert_eq!(wrong(&health), []);
        minutes(1).await;
        assert_eq!(wrong(&health), [Subject::Docker]);
        health.docker_answered();
        health.running();
        health.core_turned();
        health.contact().connected();
        assert_eq!(wrong(&health), []);
        minutes(1).await;
        assert_eq!(wrong(&health), [Subject::CoreLoop, Subject::Docker]);
        health.core_turned();
        health.docker_answered();
        minutes(4).await;
        health.core_turned();
        health.docker_answered();
        assert_eq!(wrong(&health), [Subject::Acs]);
        health.contact().message_received();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_cannot_be_written_is_the_cause() {
        let health = Health::started();
        let _open = health.metadata_port().open();
        health.running();
        health.state_written(false);
        minutes(1).await;
        health.state_written(false);
        assert!(health.judge().checks.iter().any(|check| check.text.contains("cannot be written for 61 s")));
        health.state_written(true);
        health.docker_answered();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_a_warm_pool_does_not_count() {
        let health = Health::started();
        let _open = health.metadata_port().open();
        health.docker_answered();
        health.step(Step::WarmPool);
        minutes(120).await;
        assert_eq!(wrong(&health), []);
        health.step(Step::Registration);
        assert_eq!(wrong(&health), [], "the instance has just come into service");
        health.running();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn time_limits_begin_anew_at_the_registration() {
        let health = Health::started();
        let _open = health.metadata_port().open();
        health.step(Step::Registration);
        minutes(4).await;
        health.running();
        minutes(2).await;
        assert_eq!(wrong(&health), [Subject::Docker], "Docker has answered before, so its limit is one minute");
        health.docker_answered();
        assert_eq!(wrong(&health), [], "six minutes after the start, two after the registration");
        minutes(3).await;
        health.docker_answered();
        assert_eq!(wrong(&health), [Subject::CoreLoop, Subject::Acs]);
        health.core_turned();
        health.contact().message_received();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_the_deregistration() {
        let health = Health::started();
        let _open = health.metadata_port().open();
        health.running();
        health.contact().deregistered();
        assert_eq!(wrong(&health), [Subject::Acs]);
        health.contact().connected();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recommendation_of_ec2_is_mentioned_and_counted_once() {
        let health = Health::started();
        let _open = health.metadata_port().open();
        health.running();
        health.telemetry().connected();
        let recommendations = health.recommendations();
        assert!(recommendations.note("2026-10-27T08:22:00Z"));
        assert!(!recommendations.note("2026-10-27T08:22:00Z"), "it is announced until the end");
        minutes(1).await;
        health.docker_answered();
        let checks = health.judge().checks;
        let mentioned: Vec<_> = checks.iter().filter(|check| !check.healthy).collect();
        assert_eq!(mentioned.len(), 1, "{checks:?}");
        assert!(mentioned[0].subject == Subject::Spot && mentioned[0].text.contains("(61 s ago)"), "{mentioned:?}");
        assert_eq!(wrong(&health), [], "it is no reason to restart the agent");
        assert!(recommendations.note("2026-10-27T09:00:00Z"));
        assert_eq!(recommendations.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_metadata_port_and_the_telemetry_link_are_checked() {
        let failed = |health: &Health| {
            let checks = health.judge().checks.into_iter().filter(|check| !check.healthy);
            checks.map(|check| check.subject).collect::<Vec<_>>()
        };
        let health = Health::started();
        let open = health.metadata_port().open();
        health.running();
        minutes(6).await;
        let well = |health: &Health| {
            health.core_turned();
            health.docker_answered();
            health.contact().message_received();
        };
        well(&health);
        assert_eq!(failed(&health), [Subject::Telemetry]);
        assert_eq!(wrong(&health), [], "no telemetry is no reason to restart the agent");
        health.telemetry().connected();
        assert_eq!(failed(&health), [Subject::Telemetry], "a connection over which TCS says nothing is of no use");
        health.telemetry().message_received();
        assert_eq!(failed(&health), []);
        // A TCS that falls silent: its connections are replaced each minute or two.
        for _ in 0..5 {
            minutes(1).await;
            health.telemetry().connected();
            well(&health);
        }
        assert_eq!(failed(&health), [Subject::Telemetry]);
        health.telemetry().message_received();
        drop(open);
        minutes(1).await;
        well(&health);
        assert_eq!(wrong(&health), [Subject::TaskMetadata]);
        let _open = health.metadata_port().open();
        assert_eq!(failed(&health), []);
    }
}
