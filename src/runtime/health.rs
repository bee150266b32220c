//! The facts behind `/health`, and where they come from.
//!
//! Owns the facts and writes nothing else; what is healthy is [`core::agent_health`](crate::core::agent_health)'s decision. Every
//! fact is a moment, so a part that stops writing its own becomes the cause by itself.

use super::supervisor::PartResult;
use crate::acs::Contact;
use crate::core::agent_health::{HealthFacts, Stage, Step, agent_health};
use crate::docker::Docker;
use crate::introspection;
use crate::model::Timestamp;
use crate::model::agent_health::AgentHealth;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two questions whether Docker is there.
const DOCKER_EVERY: Duration = Duration::from_secs(15);

/// How the agent is; shared by those who know and those who ask.
#[derive(Clone, Debug)]
pub(super) struct Health {
    started: Instant,
    facts: Arc<Mutex<HealthFacts>>,
    contact: Contact,
}

impl Health {
    /// Of a process that starts now.
    pub(super) fn started() -> Self {
        let facts = Arc::new(Mutex::new(HealthFacts::starting(Timestamp::default())));
        Self { started: Instant::now(), facts, contact: Contact::default() }
    }

    /// For the session with ACS.
    pub(super) fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// The start has come to this step. Its time does not run in a warm pool.
    pub(super) fn step(&self, step: Step) {
        self.change(|facts, now| {
            if facts.stage == Stage::Starting(Step::WarmPool) {
                facts.started = now;
            }
            facts.stage = Stage::Starting(step);
        });
    }

    /// The instance is registered, and the parts of the agent begin. A warm pool may have taken hours: what nobody asked for
    /// meanwhile has its whole time from now on.
    pub(super) fn runs(&self) {
        self.change(|facts, now| {
            *facts = HealthFacts { stage: Stage::Running, docker_answer: Some(now), ..HealthFacts::starting(now) };
        });
    }

    /// The core loop has completed a turn, or a try of one.
    pub(super) fn core_turned(&self) {
        self.change(|facts, now| facts.core_turn = Some(now));
    }

    /// How an attempt to write the state ended.
    pub(super) fn state_written(&self, success: bool) {
        self.change(|facts, now| {
            facts.state_failing = (!success).then(|| facts.state_failing.unwrap_or(now));
        });
    }

    /// Docker has answered.
    pub(super) fn docker_answered(&self) {
        self.change(|facts, now| facts.docker_answer = Some(now));
    }

    /// The verdict now.
    pub(super) fn judge(&self) -> AgentHealth {
        let seen = self.contact.seen();
        let mut facts = *self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.acs_word = seen.last_message.map(|at| self.moment(at));
        facts.deregistered = seen.deregistered.map(|at| self.moment(at));
        agent_health(&facts, self.moment(Instant::now()))
    }

    fn moment(&self, at: Instant) -> Timestamp {
        Timestamp(at.saturating_duration_since(self.started).as_millis() as u64)
    }

    fn change(&self, how: impl FnOnce(&mut HealthFacts, Timestamp)) {
        let now = self.moment(Instant::now());
        how(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner), now);
    }
}

/// Asks Docker again and again whether it is there, and for the interface of its default bridge: at the start, when `reopened` says
/// that the stream of events was opened anew (a daemon that was started again may have another bridge), and when it answers after
/// a question that it did not answer.
pub(super) async fn watch_docker(
    docker: &Docker,
    health: &Health,
    bridge: &watch::Sender<Option<String>>,
    reopened: &Notify,
    stop: CancellationToken,
) -> PartResult {
    let watching = async {
        let mut is_bridge_known = false;
        loop {
            match docker.ping().await {
                Ok(()) => health.docker_answered(),
                Err(error) => {
                    tracing::debug!(%error, "Docker does not answer");
                    is_bridge_known = false;
                }
            }
            if !is_bridge_known {
                is_bridge_known = learn_bridge(docker, bridge).await;
            }
            tokio::select! {
                () = tokio::time::sleep(DOCKER_EVERY) => {}
                () = reopened.notified() => is_bridge_known = false,
            }
        }
    };
    stop.run_until_cancelled(watching).await;
    Ok(())
}

/// True if Docker has answered. While it does not, the name it said last is kept.
async fn learn_bridge(docker: &Docker, bridge: &watch::Sender<Option<String>>) -> bool {
    match docker.default_bridge().await {
        Ok(name) => {
            bridge.send_if_modified(|known| {
                let is_news = *known != name;
                if is_news {
                    tracing::debug!(
                        bridge = name,
                        "containers on this bridge are served on port {}",
                        introspection::PORT
                    );
                    *known = name;
                }
                is_news
            });
            true
        }
        Err(error) => {
            tracing::debug!(%error, "Docker does not say which its default bridge is");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::agent_health::Subject;

    fn wrong(health: &Health) -> Vec<Subject> {
        let checks = health.judge().checks.into_iter();
        checks.filter(|check| !check.healthy).map(|check| check.subject).collect()
    }

    async fn minutes(minutes: u64) {
        tokio::time::advance(Duration::from_secs(minutes * 60 + 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_falls_silent_becomes_the_cause() {
        let health = Health::started();
        health.step(Step::Docker);
        minutes(4).await;
        assert_eq!(wrong(&health), []);
        minutes(1).await;
        assert_eq!(wrong(&health), [Subject::Docker]);
        health.docker_answered();
        health.runs();
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
    async fn a_failing_state_is_the_cause_until_it_is_written() {
        let health = Health::started();
        health.runs();
        health.state_written(false);
        minutes(1).await;
        health.state_written(false);
        assert!(health.judge().checks.iter().any(|check| check.text.contains("cannot be written for 61 s")));
        health.state_written(true);
        health.docker_answered();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn hours_in_a_warm_pool_are_no_silence() {
        let health = Health::started();
        health.docker_answered();
        health.step(Step::WarmPool);
        minutes(120).await;
        assert_eq!(wrong(&health), []);
        health.step(Step::Registration);
        assert_eq!(wrong(&health), [], "it has just come into service");
        health.runs();
        assert_eq!(wrong(&health), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_registration_begins_five_minutes_for_what_was_not_there() {
        let health = Health::started();
        health.step(Step::Registration);
        minutes(4).await;
        health.runs();
        minutes(2).await;
        assert_eq!(wrong(&health), [Subject::Docker], "it was there, so it has one minute");
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
        health.runs();
        health.contact().deregistered();
        assert_eq!(wrong(&health), [Subject::Acs]);
        health.contact().connected();
        assert_eq!(wrong(&health), []);
    }
}
