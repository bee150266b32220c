//! Carries out operations on network faults, and removes the faults of tasks that have ended.
//!
//! The operations run here and not in the server's connections, so that a client that goes away leaves no fault half made.
//! Invariant: a fault of a task that cannot run any more is removed; what fails is tried again.

use crate::backoff::{Backoff, Shape};
use crate::host::fault::{FaultResult, Faults, interfaces};
use crate::http::task_metadata::FaultInjector;
use crate::runtime::supervisor::PartResult;
use ecs_core::model::fault::{FaultError, FaultNetwork, FaultOperation, FaultStatus, Interfaces};
use ecs_core::model::view::View;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Time limit for an operation, as in the Go agent.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the answer of an operation may take beyond its limit.
const GRACE: Duration = Duration::from_millis(500);
/// Capacity of the queue of operations. Senders wait while it is full, until their time is over.
const QUEUE: usize = 16;
/// Upper limit of the operations under way. Those in one network wait for each other.
const MAX_AT_ONCE: usize = 16;
/// Pauses between attempts to remove the faults of ended tasks.
const RETRY: Shape = Shape { initial: Duration::from_secs(5), max: Duration::from_secs(300), factor: 2.0, jitter: 0.2 };

/// An operation whose outcome somebody waits for.
#[derive(Debug)]
pub(crate) struct Job {
    network: FaultNetwork,
    operation: FaultOperation,
    deadline: Instant,
    answer: oneshot::Sender<FaultResult>,
}

/// Passes operations on to the part.
#[derive(Clone, Debug)]
pub(crate) struct Operations(mpsc::Sender<Job>);

/// The part, with the receiving end of its queue.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    faults: Arc<Faults>,
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    view: watch::Receiver<Arc<View>>,
}

/// What has ended.
enum Ended {
    Operation,
    /// The removal of faults, and whether it succeeded.
    Removal(bool),
}

/// The two ends of the queue of operations.
pub(crate) fn keeper(faults: Faults, view: watch::Receiver<Arc<View>>) -> (Operations, Keeper) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let jobs = Arc::new(Mutex::new(receiver));
    (Operations(sender), Keeper { faults: Arc::new(faults), jobs, view })
}

impl FaultInjector for Operations {
    fn host_interfaces(&self) -> io::Result<Interfaces> {
        interfaces::defaults()
    }

    fn carry_out(
        &self,
        network: FaultNetwork,
        operation: FaultOperation,
    ) -> BoxFuture<'static, Result<FaultStatus, FaultError>> {
        let (jobs, deadline) = (self.0.clone(), Instant::now() + LIMIT);
        async move {
            let (answer, answered) = oneshot::channel();
            let job = Job { network, operation, deadline, answer };
            let sent = timeout_at(deadline, jobs.send(job)).await.map_err(|_| FaultError::TimedOut)?;
            sent.map_err(|_| FaultError::Failed)?;
            let outcome = timeout_at(deadline + GRACE, answered).await.map_err(|_| FaultError::TimedOut)?;
            outcome.map_err(|_| FaultError::Failed)?
        }
        .boxed()
    }
}

impl Keeper {
    /// Works until `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> PartResult {
        let jobs = Arc::clone(&self.jobs);
        let mut jobs = jobs.lock().await;
        let (mut under_way, mut retry) = (JoinSet::new(), Backoff::new(RETRY));
        // At first the faults of an earlier run are checked.
        let (mut due, mut is_removing) = (Some(Instant::now()), false);
        loop {
            tokio::select! {
                job = jobs.recv(), if under_way.len() < MAX_AT_ONCE => match job {
                    Some(job) => { under_way.spawn(carry_out(Arc::clone(&self.faults), job)); }
                    None => return Err("nobody can ask for faults any more".to_owned()),
                },
                Some(ended) = under_way.join_next() => match ended {
                    Ok(Ended::Removal(is_done)) => {
                        is_removing = false;
                        // A change meanwhile has set another moment.
                        if is_done {
                            retry.reset();
                        } else {
                            due.get_or_insert(Instant::now() + retry.pause());
                        }
                    }
                    // The task may have ended meanwhile, or the rest of a failed start is left.
                    Ok(Ended::Operation) => due = Some(Instant::now()),
                    Err(error) => return Err(format!("an operation failed: {error}")),
                },
                () = at(due.filter(|_| !is_removing)) => {
                    (due, is_removing) = (None, true);
                    under_way.spawn(take_back(Arc::clone(&self.faults), Arc::clone(&self.view.borrow_and_update())));
                }
                changed = self.view.changed() => match changed {
                    Ok(()) if self.faults.is_empty().await => {}
                    Ok(()) => due = Some(Instant::now()),
                    Err(_) => return Err("there are no more views".to_owned()),
                },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

/// Ends at this moment; `None`: never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn carry_out(faults: Arc<Faults>, job: Job) -> Ended {
    let Job { network, operation, deadline, answer } = job;
    let answer = |result| {
        let _gone = answer.send(result);
    };
    faults.carry_out(&network, &operation, deadline, answer).await;
    Ended::Operation
}

async fn take_back(faults: Arc<Faults>, view: Arc<View>) -> Ended {
    Ended::Removal(faults.take_back(|task| view.may_run(task)).await)
}

#[cfg(test)]
mod tests;
