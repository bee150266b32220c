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
    /// The connection over which ECS gets metrics and health.
    Telemetry,
    /// The port of the task metadata server, where containers get credentials.
    TaskMetadata,
    /// What EC2 recommends for this Spot instance.
    Spot,
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
            Self::Telemetry => "telemetry",
            Self::TaskMetadata => "task metadata",
            Self::Spot => "Spot instance",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub subject: Subject,
    /// The check passed.
    pub healthy: bool,
    /// If the check fails, the agent is not healthy. Otherwise it is only mentioned: the agent does its work without it.
    pub essential: bool,
    /// What the check found, in a few words.
    pub text: String,
}

impl Check {
    /// A check that passed.
    pub fn healthy(subject: Subject, text: String) -> Self {
        Self { subject, healthy: true, essential: true, text }
    }

    /// The same check, but the agent is healthy without it.
    #[must_use]
    pub fn not_essential(self) -> Self {
        Self { essential: false, ..self }
    }

    /// A check that failed.
    pub fn unhealthy(subject: Subject, text: String) -> Self {
        Self { subject, healthy: false, essential: true, text }
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
    /// True if all essential checks passed.
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|check| check.healthy || !check.essential)
    }
}
