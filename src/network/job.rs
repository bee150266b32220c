//! What a change of a task's network is about, and why it may fail.

use super::steps::{StepFailure, Steps};
use crate::lane::LaneError;
use ecs_core::model::interface::{NetworkRequest, Prefix};
use ecs_netlink::{Fault, Namespace};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The usual name of the bridge between the host and its tasks.
pub const BRIDGE: &str = "ecs-bridge";

/// Settings of the network of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tasks do not reach the instance metadata service (`ECS_AWSVPC_BLOCK_IMDS`).
    pub block_metadata: bool,
    /// Networks that tasks reach over the host (`ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES`).
    pub additional_routes: Vec<Prefix<Ipv4Addr>>,
    /// The name of the bridge.
    pub bridge: String,
    /// Where the processes of the host are: `/proc`, or `/host/proc` in a container.
    pub processes: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        let (bridge, processes) = (BRIDGE.to_owned(), PathBuf::from("/proc"));
        Self { block_metadata: false, additional_routes: Vec::new(), bridge, processes }
    }
}

/// Why a change of a task's network failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A step failed. What had been done is undone, but for what `not_undone` lists.
    #[error("{failure}{}", also(not_undone))]
    Step {
        /// The step that failed.
        failure: StepFailure,
        /// The steps of the way back that failed.
        not_undone: Vec<StepFailure>,
    },
    /// A step got no answer in time. What had been done is undone once the kernel answers.
    #[error("{step}: no answer from the kernel for {} s", since.as_secs())]
    Hangs {
        /// The step.
        step: String,
        /// For how long.
        since: Duration,
    },
    /// An earlier change of the same task's network has not ended.
    #[error("an earlier change of the task's network has not ended: {step} ({} s)", since.as_secs())]
    Busy {
        /// The step of the earlier change.
        step: String,
        /// For how long the step has taken.
        since: Duration,
    },
    /// The work could not begin.
    #[error(transparent)]
    Lane(#[from] LaneError),
}

fn also(failures: &[StepFailure]) -> String {
    failures.iter().map(|failure| format!("; not undone: {failure}")).collect()
}

/// For tests: the namespace of the host, if it is not that of this process, and faults.
#[derive(Clone, Debug, Default)]
pub(super) struct Planted {
    pub(super) host: Option<Arc<Namespace>>,
    pub(super) fault: Option<Fault>,
}

/// What a change needs, on its thread.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) settings: Arc<Settings>,
    pub(super) request: NetworkRequest,
    pub(super) steps: Arc<Steps>,
    pub(super) planted: Planted,
}
