//! Effect to call to exactly one outcome: also after a panic, a timeout and a lost answer.
//!
//! It decides nothing. Each kind of call has a bound on how many are at work at once; the calls themselves carry their time-outs.

use super::edges::Edges;
use super::pulls::Pulls;
use super::resources;
use crate::acs;
use crate::core::{Effect, Event, Message, Operation, Output};
use crate::ecs::report;
use crate::model::image::ImageWork;
use crate::model::{Failure, Observation, OpError, OpId, StateChange};
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

/// Calls to the container engine at once, other than pulls: so many for each processor, within bounds. Docker starts containers no
/// faster with more of them; with too many for its processors it is slower.
const ENGINE_CALLS_PER_CPU: usize = 6;
const ENGINE_CALLS: RangeInclusive<usize> = 8..=16;
/// A call counts as one of them for this long. One that takes longer waits for something else than a processor, such as a file system
/// that does not answer; others shall not wait with it. (The Go agent knows no bound at all.)
const AT_WORK: Duration = Duration::from_secs(20);
/// A stop counts this long. Then Docker only waits for the container, for up to its whole grace.
const STOP_AT_WORK: Duration = Duration::from_secs(1);
/// State changes on their way at once (spec `ecs-api.md` §3).
const REPORTS: usize = 10;

/// Runs effects.
#[derive(Debug)]
pub(super) struct Executor {
    edges: Arc<Edges>,
    inbox: mpsc::Sender<Event>,
    acs: mpsc::Sender<acs::Outgoing>,
    calls: JoinSet<OpId>,
    running: BTreeMap<OpId, AbortHandle>,
    pulls: Pulls,
    engine_calls: Arc<Semaphore>,
    /// Stops do not queue behind starts that hang.
    stops: Arc<Semaphore>,
    reports: Arc<Semaphore>,
}

impl Executor {
    /// Outcomes go to `inbox`; what is said to ACS goes to `acs`.
    pub(super) fn new(
        edges: Arc<Edges>,
        pulls: Pulls,
        inbox: mpsc::Sender<Event>,
        acs: mpsc::Sender<acs::Outgoing>,
    ) -> Self {
        let at_once = engine_calls(std::thread::available_parallelism().map_or(1, usize::from));
        Self {
            edges,
            inbox,
            acs,
            calls: JoinSet::new(),
            running: BTreeMap::new(),
            pulls,
            engine_calls: Arc::new(Semaphore::new(at_once)),
            stops: Arc::new(Semaphore::new(at_once)),
            reports: Arc::new(Semaphore::new(REPORTS)),
        }
    }

    /// Calls that have not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Forgets calls that have ended.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = self.calls.try_join_next() {
            // An error is an aborted call: `start` has taken it from the map already.
            if let Ok(op) = ended {
                self.running.remove(&op);
            }
        }
    }

    /// Starts an effect; returns at once.
    pub(super) fn start(&mut self, effect: Effect) {
        match effect {
            Effect::Do(op, operation) => self.begin(op, operation),
            Effect::Cancel(op) => {
                if let Some(call) = self.running.remove(&op) {
                    call.abort();
                }
            }
            Effect::Send(Message::Ack(ack)) => self.say(acs::Outgoing::Ack(ack)),
            Effect::Send(Message::AckCredentials(ack)) => self.say(acs::Outgoing::CredentialsAck(ack)),
            Effect::Send(Message::VerifyStop { message_id, cluster, tasks }) => {
                self.say(acs::Outgoing::StopVerification { message_id, cluster, candidates: tasks });
            }
            Effect::ForgetCredentials(id) => {
                self.edges.roles.remove(&id);
                self.edges.registries.forget(&id);
            }
        }
    }

    fn begin(&mut self, op: OpId, operation: Operation) {
        let (edges, pulls, calls) = (self.edges.clone(), self.pulls.clone(), self.engine_calls.clone());
        match operation {
            // The Docker edge bounds both itself: who waits for another's call takes up nothing.
            Operation::ResolveDigest(image) => {
                self.run(op, None, "resolve digest", async move { pulls.digest(edges, op, image).await })
            }
            Operation::Pull(image) => self.run(op, None, "pull", async move { pulls.pull(edges, op, image).await }),
            Operation::Create(request) => self.run(op, None, "create", async move {
                with_permit_for(AT_WORK, &calls, async {
                    resources::create_container(&edges, &request).await.map(seen)
                })
                .await
            }),
            Operation::Start(target) => self.run(op, None, "start", async move {
                with_permit_for(AT_WORK, &calls, async { edges.docker.start(&target).await.map(seen) }).await
            }),
            Operation::Stop { target, grace } => {
                let stops = self.stops.clone();
                self.run(op, None, "stop", async move {
                    let grace = grace.unwrap_or(edges.stop_timeout);
                    let stop = async { edges.docker.stop(&target, grace).await.map(maybe_seen) };
                    with_permit_for(STOP_AT_WORK, &stops, stop).await
                });
            }
            Operation::Inspect(target) => self.run(op, None, "inspect", async move {
                with_permit_for(AT_WORK, &calls, async { edges.docker.inspect(&target).await.map(maybe_seen) }).await
            }),
            Operation::Remove(target) => self.run(op, None, "remove", async move {
                let remove = async { edges.docker.remove(&target).await.map(|()| Output::Nothing) };
                with_permit_for(AT_WORK, &calls, remove).await
            }),
            Operation::CreateResource(request) => {
                self.run(op, None, "create resource", async move { resources::create(&edges, &request).await })
            }
            Operation::RemoveResource(request) => {
                self.run(op, None, "remove resource", async move { resources::remove(&edges, &request).await })
            }
            Operation::RenewResource(request) => {
                self.run(op, None, "renew resource", async move { resources::renew(&edges, &request).await })
            }
            Operation::Inventory => {
                self.run(op, calls, "inventory", async move { edges.docker.inventory().await.map(Output::Inventory) })
            }
            Operation::CleanImages(work) => {
                self.run(op, calls, "image clean-up", async move { clean_images(&edges, work).await });
            }
            Operation::Report(change) => {
                let reports = self.reports.clone();
                self.run(op, reports, "report", async move { submit(&edges, *change).await });
            }
        }
    }

    /// What cannot be said is lost: ECS sends its message again when it misses the answer.
    fn say(&self, message: acs::Outgoing) {
        if self.acs.try_send(message).is_err() {
            tracing::warn!("an answer to ACS is dropped: the connection does not take it; ECS will ask again");
        }
    }

    fn run(
        &mut self,
        op: OpId,
        limit: impl Into<Option<Arc<Semaphore>>>,
        what: &'static str,
        call: impl Future<Output = Result<Output, OpError>> + Send + 'static,
    ) {
        let (inbox, limit) = (self.inbox.clone(), limit.into());
        let handle = self.calls.spawn(async move {
            let _permit = match &limit {
                Some(limit) => limit.acquire().await.ok(), // never closed, so this cannot fail
                None => None,
            };
            let result = AssertUnwindSafe(call).catch_unwind().await;
            let outcome = result.unwrap_or_else(|_panic| {
                Err(OpError::Unknown(Failure::permanent("InternalError", format!("the agent failed in {what}"))))
            });
            match &outcome {
                Ok(_) => tracing::debug!(%op, what, "done"),
                Err(OpError::Failed(why)) => tracing::warn!(%op, what, %why, "failed"),
                Err(OpError::Unknown(why)) => tracing::warn!(%op, what, %why, "outcome unknown"),
            }
            // The loop is gone only when the agent ends; then nobody waits for this.
            let _ = inbox.send(Event::Completed { op, outcome }).await;
            op
        });
        self.running.insert(op, handle);
    }
}

fn engine_calls(cpus: usize) -> usize {
    (cpus * ENGINE_CALLS_PER_CPU).clamp(*ENGINE_CALLS.start(), *ENGINE_CALLS.end())
}

/// Runs a call that begins with work and may go on with waiting: the permit is given back when the work is over.
async fn with_permit_for<T>(work: Duration, limit: &Semaphore, call: impl Future<Output = T>) -> T {
    let permit = limit.acquire().await.ok(); // never closed, so this cannot fail
    let mut call = std::pin::pin!(call);
    if let Ok(result) = tokio::time::timeout(work, &mut call).await {
        return result;
    }
    drop(permit);
    call.await
}

fn seen(observation: Observation) -> Output {
    Output::Seen(Some(Box::new(observation)))
}

fn maybe_seen(observation: Option<Observation>) -> Output {
    Output::Seen(observation.map(Box::new))
}

async fn clean_images(edges: &Edges, work: ImageWork) -> Result<Output, OpError> {
    match work {
        ImageWork::List { ends, disk } => {
            let mut listing = edges.docker.list_images(ends, disk).await?;
            if ends {
                listing.running_owners = edges.ownership.running().await;
            }
            Ok(Output::Images(Box::new(listing)))
        }
        ImageWork::RemoveImage { id, names } => {
            // What came from a mirror has its name there, too. That goes first: if the image stays, it stays under the name of tasks, by
            // which it is found again.
            let at_mirror = names.iter().filter_map(|name| edges.registries.mirrors.name_of(name));
            let names: Vec<String> = at_mirror.chain(names.iter().cloned()).collect();
            edges.docker.remove_image(&id, &names).await?;
            tracing::info!(id, ?names, "image removed");
            Ok(Output::Nothing)
        }
        ImageWork::RemoveContainer(id) => {
            edges.docker.remove_foreign(&id).await?;
            tracing::info!(%id, "container that is not of a task removed");
            Ok(Output::Nothing)
        }
    }
}

async fn submit(edges: &Edges, mut change: StateChange) -> Result<Output, OpError> {
    for at in [&mut change.pull_started_at, &mut change.pull_stopped_at, &mut change.execution_stopped_at] {
        *at = at.map(|at| edges.clock.wall(at));
    }
    report::submit(&edges.ecs, &edges.report, &change).await?;
    tracing::info!(
        task = change.task.task_id(),
        status = change.status.backend(),
        containers = change.containers.len(),
        reason = change.reason,
        "reported to ECS"
    );
    Ok(Output::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_is_given_no_more_at_once_than_its_processors_can_take() {
        let given = [1, 2, 3, 4, 64].map(engine_calls);
        assert_eq!(given, [8, 12, 16, 16, 16]);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_only_wait_keep_no_other_from_its_turn() {
        let limit = Semaphore::new(1);
        let begun = tokio::time::Instant::now();
        let slow = with_permit_for(STOP_AT_WORK, &limit, tokio::time::sleep(Duration::from_secs(30)));
        let next = async {
            tokio::task::yield_now().await;
            with_permit_for(STOP_AT_WORK, &limit, async { assert_eq!(limit.available_permits(), 0) }).await;
            begun.elapsed()
        };
        let ((), waited) = tokio::join!(slow, next);
        assert_eq!(waited, STOP_AT_WORK);
        assert_eq!((begun.elapsed(), limit.available_permits()), (Duration::from_secs(30), 1));
    }
}
