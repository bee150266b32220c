//! The health of the agent itself, as `/health` and `-healthcheck` show it. Containers have their own [`Health`](super::Health).

/// The subject of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The start of the agent, until the instance is registered.
    Start,
    /// The loop that runs the core.
    CoreLoop,
    /// The state on disk.
    State,
    /// Docker, the container engine.
    Docker,
    /// The connection to the control plane.
    Acs,
}

impl Subject {
    /// The name for people and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::CoreLoop => "core loop",
            Self::State => "state",
            Self::Docker => "Docker",
            Self::Acs => "ACS",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub subject: Subject,
    /// The check passed. One failed check makes the agent unhealthy.
    pub healthy: bool,
    /// What the check found, in a few words.
    pub text: String,
}

impl Check {
    /// A check that passed.
    pub fn healthy(subject: Subject, text: String) -> Self {
        Self { subject, healthy: true, text }
    }

    /// A check that failed.
    pub fn unhealthy(subject: Subject, text: String) -> Self {
        Self { subject, healthy: false, text }
    }
}

/// The health of the agent: all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentHealth {
    /// What the agent is doing, e.g. `running`.
    pub stage: String,
    /// The results of all checks.
    pub checks: Vec<Check>,
}

impl AgentHealth {
    /// True if all checks passed.
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|check| check.healthy)
    }
}
