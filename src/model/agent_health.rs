//! How the agent itself is: what `/health` and `-healthcheck` say. Containers have their own [`Health`](super::Health).

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The start, until the instance is registered.
    Start,
    /// The loop that decides.
    CoreLoop,
    /// The state on disk.
    State,
    /// The container engine.
    Docker,
    /// The connection to the control plane.
    Acs,
}

impl Subject {
    /// For people and for JSON.
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

/// The result of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub subject: Subject,
    /// False: this is why the agent is not healthy.
    pub healthy: bool,
    /// What was seen, in a few words.
    pub text: String,
}

impl Check {
    /// Nothing is wrong.
    pub fn healthy(subject: Subject, text: String) -> Self {
        Self { subject, healthy: true, text }
    }

    /// Something is wrong.
    pub fn unhealthy(subject: Subject, text: String) -> Self {
        Self { subject, healthy: false, text }
    }
}

/// The whole verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentHealth {
    /// What the agent is doing, e.g. `running`.
    pub stage: String,
    /// Each look.
    pub checks: Vec<Check>,
}

impl AgentHealth {
    /// True if nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|check| check.healthy)
    }
}
