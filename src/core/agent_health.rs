//! Defines when the agent is healthy. No other file decides that.
//!
//! | situation | verdict |
//! |---|---|
//! | the core loop has not completed a turn for over a minute | not healthy: core loop |
//! | the state cannot be written | not healthy: state |
//! | Docker has not answered for over a minute | not healthy: Docker |
//! | ACS has sent nothing for over five minutes | not healthy: ACS |
//! | the agent is reconnecting to ACS, and the last message is younger | healthy |
//! | TCS has sent nothing for over five minutes, even if it takes connections | healthy, but mentioned: ECS gets no metrics and no health of containers |
//! | port 51679 has been closed for over ten seconds, since the registration | not healthy: task metadata |
//! | EC2 has recommended to replace this Spot instance | healthy, but mentioned: an interruption has become more probable |
//! | ECS reports that the instance is not registered | not healthy: ACS, with the word "deregistered" |
//! | the agent has been starting for less than five minutes | healthy |
//! | the agent waits in a warm pool, however long | healthy |
//! | the agent has been starting for over five minutes | not healthy, with what it waits for |
//! | the agent waits because several starts in a row have failed quickly | not healthy: start |
//!
//! In the first five minutes, a check that has never passed counts as passed: a booting host needs time to start Docker and the
//! network. Once a check has passed, its own limit applies.

use crate::model::agent_health::{AgentHealth, Check, Subject};
use crate::model::{Span, Timestamp};

/// The longest time between two turns of the core loop. An idle loop completes a turn every 15 seconds. The watchdog of the
/// systemd unit has the same limit.
const CORE_LOOP: Span = Span::secs(60);
/// The longest time without an answer of Docker, which is asked every 15 seconds.
const DOCKER: Span = Span::secs(60);
/// The longest time without a message of ACS, which sends a heartbeat about every minute.
const ACS: Span = Span::secs(300);
/// The longest time without a message of TCS, which sends a heartbeat about every minute, and acknowledges all that it gets.
const TELEMETRY: Span = Span::secs(300);
/// The longest time for which the port of the task metadata server may be closed. A restart of the server takes a second.
const METADATA_PORT: Span = Span::secs(10);
/// The longest time that a start may take.
const START: Span = Span::secs(300);

/// What the agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The agent is starting and is at this step.
    Starting(Step),
    /// The agent is registered and runs tasks.
    Running,
}

/// A step of the start that may take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The agent waits because it has failed soon after each of its last starts.
    QuickFailures,
    /// The agent asks the instance metadata service.
    Metadata,
    /// The agent waits for Docker.
    Docker,
    /// The agent opens the state on disk.
    State,
    /// The agent waits until Auto Scaling puts the instance into service.
    WarmPool,
    /// The agent gets credentials and registers with ECS.
    Registration,
}

impl Step {
    fn subject(self) -> Subject {
        match self {
            Self::Docker => Subject::Docker,
            Self::State => Subject::State,
            Self::QuickFailures | Self::Metadata | Self::WarmPool | Self::Registration => Subject::Start,
        }
    }

    fn waits_for(self) -> &'static str {
        match self {
            Self::QuickFailures => "waits, because its last starts have failed soon",
            Self::Metadata => "waits for the instance metadata service",
            Self::Docker => "waits for Docker to answer",
            Self::State => "waits until the state on disk can be read and written",
            Self::WarmPool => "in a warm pool: waits for service",
            Self::Registration => "waits for credentials and the registration with ECS",
        }
    }
}

/// The facts that decide whether the agent is healthy. All moments are from one monotonic clock; `None`: it has not happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthFacts {
    /// When the agent started, left a warm pool or was registered, whichever was last.
    pub started: Timestamp,
    /// What the agent is doing.
    pub stage: Stage,
    /// When the core loop last completed a turn.
    pub core_turn: Option<Timestamp>,
    /// Since when the state cannot be written; `None`: the last write succeeded, or there was none.
    pub state_failing: Option<Timestamp>,
    /// When Docker last answered.
    pub docker_answer: Option<Timestamp>,
    /// When ACS last sent something, or the last connection to it was made.
    pub acs_message: Option<Timestamp>,
    /// When ECS reported that this instance is not registered; `None` if it has not, or if a connection was made since.
    pub deregistered: Option<Timestamp>,
    /// When TCS last sent a heartbeat or an acknowledgement. A connection alone does not count: each minute or two, one on which TCS
    /// is silent is replaced.
    pub telemetry_message: Option<Timestamp>,
    /// Since when the port of the task metadata server is closed. In contrast to the other moments, `None` means that it is open.
    pub metadata_port_closed: Option<Timestamp>,
    /// When EC2 last recommended to replace this Spot instance.
    pub rebalance: Option<Timestamp>,
}

impl HealthFacts {
    /// The facts of an agent that starts now.
    pub fn starting(now: Timestamp) -> Self {
        Self {
            started: now,
            stage: Stage::Starting(Step::Metadata),
            core_turn: None,
            state_failing: None,
            docker_answer: None,
            acs_message: None,
            deregistered: None,
            telemetry_message: None,
            metadata_port_closed: None,
            rebalance: None,
        }
    }
}

/// Decides whether the agent is healthy.
pub fn agent_health(facts: &HealthFacts, now: Timestamp) -> AgentHealth {
    match facts.stage {
        Stage::Starting(step) => starting(facts, step, now),
        Stage::Running => {
            let mut checks = vec![
                since(facts, now, Subject::CoreLoop, facts.core_turn, CORE_LOOP, "turn"),
                state(facts, now),
                since(facts, now, Subject::Docker, facts.docker_answer, DOCKER, "answer"),
                acs(facts, now),
                since(facts, now, Subject::Telemetry, facts.telemetry_message, TELEMETRY, "message").not_essential(),
                metadata_port(facts, now),
            ];
            checks.extend(facts.rebalance.map(|at| rebalance(at, now)));
            AgentHealth { stage: "running".to_owned(), checks }
        }
    }
}

fn starting(facts: &HealthFacts, step: Step, now: Timestamp) -> AgentHealth {
    let age = now.since(facts.started);
    let text = format!("{} (started {} ago)", step.waits_for(), seconds(age));
    let is_late = step == Step::QuickFailures || (age > START && step != Step::WarmPool);
    let check = if is_late { Check::unhealthy } else { Check::healthy };
    AgentHealth { stage: step.waits_for().to_owned(), checks: vec![check(step.subject(), text)] }
}

/// A check of something that must happen at least every `limit`. Until it happens for the first time, it may take as long as a
/// start.
fn since(
    facts: &HealthFacts,
    now: Timestamp,
    subject: Subject,
    last: Option<Timestamp>,
    limit: Span,
    what: &str,
) -> Check {
    let (from, limit) = last.map_or((facts.started, limit.max(START)), |last| (last, limit));
    let age = now.since(from);
    if age > limit {
        return Check::unhealthy(subject, format!("no {what} for {}", seconds(age)));
    }
    Check::healthy(
        subject,
        match last {
            Some(_) => format!("last {what} {} ago", seconds(age)),
            None => format!("no {what} yet"),
        },
    )
}

fn state(facts: &HealthFacts, now: Timestamp) -> Check {
    match facts.state_failing {
        None => Check::healthy(Subject::State, "can be written".to_owned()),
        Some(at) => {
            let text = format!("cannot be written for {} (ECS_DATADIR; the log says why)", seconds(now.since(at)));
            Check::unhealthy(Subject::State, text)
        }
    }
}

fn acs(facts: &HealthFacts, now: Timestamp) -> Check {
    match facts.deregistered {
        None => since(facts, now, Subject::Acs, facts.acs_message, ACS, "message"),
        Some(at) => {
            let text = format!("this container instance is deregistered (ECS said so {} ago)", seconds(now.since(at)));
            Check::unhealthy(Subject::Acs, text)
        }
    }
}

fn metadata_port(facts: &HealthFacts, now: Timestamp) -> Check {
    let Some(at) = facts.metadata_port_closed else {
        return Check::healthy(Subject::TaskMetadata, "port 51679 is open".to_owned());
    };
    // During the start the port is closed, however long that takes.
    let age = now.since(at.max(facts.started));
    let check = if age > METADATA_PORT { Check::unhealthy } else { Check::healthy };
    check(Subject::TaskMetadata, format!("port 51679 is closed for {} (the log says why)", seconds(age)))
}

fn rebalance(at: Timestamp, now: Timestamp) -> Check {
    let text =
        format!("EC2 has recommended to replace it ({} ago); it may soon be interrupted", seconds(now.since(at)));
    Check::unhealthy(Subject::Spot, text).not_essential()
}

fn seconds(span: Span) -> String {
    format!("{} s", span.0 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(10_000_000);

    fn ago(secs: u64) -> Timestamp {
        NOW - Span::secs(secs)
    }

    /// The facts of a healthy agent that has run for an hour.
    fn well() -> HealthFacts {
        HealthFacts {
            stage: Stage::Running,
            core_turn: Some(ago(15)),
            docker_answer: Some(ago(15)),
            acs_message: Some(ago(60)),
            telemetry_message: Some(ago(60)),
            ..HealthFacts::starting(ago(3600))
        }
    }

    fn step(step: Step, started_secs: u64) -> HealthFacts {
        HealthFacts { stage: Stage::Starting(step), ..HealthFacts::starting(ago(started_secs)) }
    }

    /// The failed checks in one line; empty if the agent is healthy.
    fn wrong(facts: &HealthFacts) -> String {
        let checks = agent_health(facts, NOW).checks;
        let wrong = checks.into_iter().filter(|check| !check.healthy);
        wrong.map(|check| format!("{}: {}", check.subject.as_str(), check.text)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn an_agent_at_work_is_healthy() {
        assert_eq!(wrong(&well()), "");
        assert!(agent_health(&well(), NOW).is_healthy());
    }

    #[test]
    fn a_core_loop_that_stands_still_is_the_cause() {
        assert_eq!(wrong(&HealthFacts { core_turn: Some(ago(60)), ..well() }), "");
        assert_eq!(wrong(&HealthFacts { core_turn: Some(ago(61)), ..well() }), "core loop: no turn for 61 s");
    }

    #[test]
    fn a_state_that_cannot_be_written_is_the_cause() {
        let facts = HealthFacts { state_failing: Some(ago(2)), ..well() };
        assert_eq!(wrong(&facts), "state: cannot be written for 2 s (ECS_DATADIR; the log says why)");
    }

    #[test]
    fn docker_is_the_cause_after_a_minute() {
        assert_eq!(wrong(&HealthFacts { docker_answer: Some(ago(60)), ..well() }), "");
        assert_eq!(wrong(&HealthFacts { docker_answer: Some(ago(61)), ..well() }), "Docker: no answer for 61 s");
    }

    #[test]
    fn acs_is_the_cause_after_five_minutes() {
        assert_eq!(wrong(&HealthFacts { acs_message: Some(ago(301)), ..well() }), "ACS: no message for 301 s");
    }

    #[test]
    fn a_reconnect_under_way_is_healthy() {
        assert_eq!(wrong(&HealthFacts { acs_message: Some(ago(300)), ..well() }), "");
    }

    #[test]
    fn a_dead_telemetry_link_is_mentioned_and_no_more() {
        let facts = HealthFacts { telemetry_message: Some(ago(300)), ..well() };
        assert_eq!(wrong(&facts), "");
        let facts = HealthFacts { telemetry_message: Some(ago(301)), ..well() };
        assert_eq!(wrong(&facts), "telemetry: no message for 301 s");
        assert!(agent_health(&facts, NOW).is_healthy());
        let never = HealthFacts { telemetry_message: None, ..well() };
        assert_eq!(wrong(&never), "telemetry: no message for 3600 s");
    }

    #[test]
    fn a_recommendation_to_replace_the_instance_is_mentioned() {
        let facts = HealthFacts { rebalance: Some(ago(9)), ..well() };
        assert_eq!(
            wrong(&facts),
            "Spot instance: EC2 has recommended to replace it (9 s ago); it may soon be interrupted"
        );
        assert!(agent_health(&facts, NOW).is_healthy());
        assert!(agent_health(&well(), NOW).checks.iter().all(|check| check.subject != Subject::Spot));
    }

    #[test]
    fn a_closed_metadata_port_is_the_cause_after_ten_seconds() {
        assert_eq!(wrong(&HealthFacts { metadata_port_closed: Some(ago(10)), ..well() }), "");
        let facts = HealthFacts { metadata_port_closed: Some(ago(11)), ..well() };
        assert_eq!(wrong(&facts), "task metadata: port 51679 is closed for 11 s (the log says why)");
        assert!(!agent_health(&facts, NOW).is_healthy());
    }

    #[test]
    fn a_port_closed_during_a_long_start_has_ten_seconds() {
        let after = |seconds| HealthFacts { started: ago(seconds), metadata_port_closed: Some(ago(3600)), ..well() };
        assert_eq!(wrong(&after(10)), "");
        assert_eq!(wrong(&after(11)), "task metadata: port 51679 is closed for 11 s (the log says why)");
    }

    #[test]
    fn a_deregistered_instance_is_not_healthy() {
        let facts = HealthFacts { acs_message: Some(ago(10)), deregistered: Some(ago(5)), ..well() };
        assert_eq!(wrong(&facts), "ACS: this container instance is deregistered (ECS said so 5 s ago)");
        let young = HealthFacts { started: ago(20), ..facts };
        assert!(wrong(&young).contains("deregistered"), "also in the first five minutes");
    }

    #[test]
    fn a_warm_pool_is_healthy_however_long() {
        assert_eq!(wrong(&step(Step::WarmPool, 86_400)), "");
    }

    #[test]
    fn the_first_five_minutes_are_healthy() {
        for waiting in [Step::Metadata, Step::Docker, Step::State, Step::Registration] {
            assert_eq!(wrong(&step(waiting, 300)), "", "{waiting:?}");
        }
        let young = HealthFacts { stage: Stage::Running, ..HealthFacts::starting(ago(300)) };
        assert_eq!(wrong(&young), "", "nothing has been right yet");
    }

    #[test]
    fn a_lost_check_counts_even_in_the_first_minutes() {
        let young = HealthFacts { started: ago(120), ..well() };
        assert_eq!(wrong(&HealthFacts { docker_answer: Some(ago(90)), ..young }), "Docker: no answer for 90 s");
        assert_eq!(wrong(&HealthFacts { core_turn: Some(ago(90)), ..young }), "core loop: no turn for 90 s");
    }

    #[test]
    fn a_wait_after_quick_failures_is_not_healthy_from_its_start() {
        let cause = "start: waits, because its last starts have failed soon (started 1 s ago)";
        assert_eq!(wrong(&step(Step::QuickFailures, 1)), cause);
    }

    #[test]
    fn a_start_that_takes_longer_says_what_it_waits_for() {
        for (waiting, cause) in [
            (Step::Metadata, "start: waits for the instance metadata service (started 301 s ago)"),
            (Step::Docker, "Docker: waits for Docker to answer (started 301 s ago)"),
            (Step::State, "state: waits until the state on disk can be read and written (started 301 s ago)"),
            (Step::Registration, "start: waits for credentials and the registration with ECS (started 301 s ago)"),
        ] {
            assert_eq!(wrong(&step(waiting, 301)), cause);
        }
        let never = HealthFacts { acs_message: None, ..well() };
        assert_eq!(wrong(&never), "ACS: no message for 3600 s");
    }

    #[test]
    fn all_causes_are_named_at_once() {
        let facts = HealthFacts { docker_answer: Some(ago(100)), acs_message: Some(ago(400)), ..well() };
        assert_eq!(wrong(&facts), "Docker: no answer for 100 s; ACS: no message for 400 s");
    }
}
