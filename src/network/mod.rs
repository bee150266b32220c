//! The network of tasks with network interfaces of their own (network mode `awsvpc`).
//!
//! A task has the namespace of its pause container. [`Network::set_up`] moves the task's interfaces there and connects the
//! namespace with the bridge `ecs-bridge`, over which the task reaches the agent at 169.254.170.2; [`Network::tear_down`] gives the
//! interfaces back to the host (spec `networking.md` §4 to §7, §10). The Go agent runs plug-in programs for this; here it is netlink
//! alone. [`Watch`] shows which interfaces are on the host.
//!
//! Owns: the bridge, the links `veth…` and `ecs-eth0`, and the names of interfaces that come back. Invariants: each step has a
//! name, and a step whose result is there already succeeds, so that a change that was cut short is repeated as a whole; a change that fails
//! is undone at once; each task has at most one change at a time; no thread of the runtime enters a namespace.

mod ability;
mod check;
mod host;
mod interface;
mod job;
mod kernel;
mod local_link;
mod names;
mod place;
mod proxy;
mod set_up;
mod steps;
mod tear_down;
#[cfg(test)]
mod tests;
mod watch;

pub use ability::{Obstacles, obstacles};
pub use job::{BRIDGE, NetworkError, Settings};
pub use steps::StepFailure;
pub use watch::{Watch, WatchError};

use crate::lane::{self, Lane};
use ecs_core::model::TaskArn;
use ecs_core::model::interface::NetworkRequest;
use job::{Job, Planted};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steps::Steps;
use tokio::time::{Instant, sleep};

/// The time limit of a set-up, and of a tear-down, as in the Go agent (spec `networking.md` §4).
const SET_UP: Duration = Duration::from_secs(60);
const TEAR_DOWN: Duration = Duration::from_secs(30);
/// The time limit of a step. It waits for the kernel's lock, which others hold, too.
const STEP: Duration = Duration::from_secs(20);
/// How often the limits are checked.
const TICK: Duration = Duration::from_millis(250);
/// The threads. The kernel changes one thing at a time, so that more of them are of no use. A thread is given up by the limits above.
const LANE: lane::Settings = lane::Settings { threads: 4, spare: 12, limit: Duration::from_secs(90) };

/// Sets up and tears down the networks of tasks.
#[derive(Debug)]
pub struct Network {
    settings: Arc<Settings>,
    lane: Lane,
    changes: Arc<Changes>,
    /// The time limit of a step.
    step_limit: Duration,
    planted: Planted,
}

/// The changes under way.
type Changes = Mutex<BTreeMap<TaskArn, Arc<Steps>>>;

/// A change under way; dropping it ends it.
#[derive(Debug)]
struct Change {
    task: TaskArn,
    steps: Arc<Steps>,
    changes: Arc<Changes>,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.task);
    }
}

impl Network {
    /// Changes nothing yet.
    pub fn new(settings: Settings) -> Self {
        let lane = Lane::new("networks of tasks", LANE);
        let (settings, changes) = (Arc::new(settings), Arc::default());
        Self { settings, lane, changes, step_limit: STEP, planted: Planted::default() }
    }

    /// Sets up the network of a task. What is there already stays.
    ///
    /// # Errors
    /// [`NetworkError`]. Nothing of the task's network is left then, as far as the error says.
    pub async fn set_up(&self, request: &NetworkRequest) -> Result<(), NetworkError> {
        self.change(request, SET_UP, set_up::run).await
    }

    /// Tears down the network of a task, and gives its interfaces back to the host. It is no error if nothing is there.
    ///
    /// # Errors
    /// [`NetworkError`], for the first step that failed. All others were attempted.
    pub async fn tear_down(&self, request: &NetworkRequest) -> Result<(), NetworkError> {
        self.change(request, TEAR_DOWN, tear_down::run).await
    }

    async fn change(
        &self,
        request: &NetworkRequest,
        limit: Duration,
        work: fn(&Job) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let change = self.begin(&request.task)?;
        let steps = Arc::clone(&change.steps);
        let job = Job {
            settings: Arc::clone(&self.settings),
            request: request.clone(),
            steps: Arc::clone(&steps),
            planted: self.planted.clone(),
        };
        let what = format!("the network of {}", request.task);
        let done = self.lane.run(&what, move || {
            let (result, _ends_after) = (work(&job), change);
            result
        });
        tokio::select! {
            done = done => done?,
            error = overdue(&steps, self.step_limit, limit) => Err(error),
        }
    }

    fn begin(&self, task: &TaskArn) -> Result<Change, NetworkError> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = changes.get(task) {
            let (step, since) = earlier.current();
            return Err(NetworkError::Busy { step, since });
        }
        let steps = Arc::<Steps>::default();
        changes.insert(task.clone(), Arc::clone(&steps));
        Ok(Change { task: task.clone(), steps, changes: Arc::clone(&self.changes) })
    }
}

/// Waits until a step, or the whole, has taken too long. The thread then takes no further step, and undoes what it did.
async fn overdue(steps: &Steps, step_limit: Duration, limit: Duration) -> NetworkError {
    let mut first = None;
    loop {
        sleep(TICK).await;
        let (step, since) = steps.current();
        if step.is_empty() {
            continue; // it waits for a thread
        }
        let began = *first.get_or_insert_with(Instant::now);
        if since >= step_limit || began.elapsed() >= limit {
            steps.give_up();
            return NetworkError::Hangs { step, since };
        }
    }
}
