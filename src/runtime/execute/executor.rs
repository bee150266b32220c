//! Turns each effect into a call and each call into exactly one outcome, even after a panic, a timeout or a lost answer.
//!
//! Decides nothing. The number of concurrent calls of each kind is limited; the calls themselves have their own time limits.

use super::edges::Edges;
use super::networks;
use super::pulls::Pulls;
use super::resources;
use crate::acs;
use crate::ecs::report::{self, SubmitError};
use crate::metrics::{Metrics, ReportOutcome};
use crate::runtime::trace::Labels;
use ecs_core::model::image::ImageWork;
use ecs_core::model::resource::Lifetime;
use ecs_core::model::{Failure, Observation, OpError, OpId, StateChange};
use ecs_core::{Effect, Event, Message, Operation, Output};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

/// Concurrent calls to the container engine for each processor, other than pulls. More calls do not make Docker start containers
/// faster; too many for its processors make it slower.
const ENGINE_CALLS_PER_CPU: usize = 6;
/// Bounds of the number of concurrent calls, whatever the number of processors.
const ENGINE_CALLS: RangeInclusive<usize> = 8..=16;
/// A call counts as one of the concurrent calls for at most this long. A call that takes longer does not wait for a processor
/// but for something else, such as a file system that does not answer; the other calls must not wait with it. (The Go agent
/// does not limit the number of calls at all.)
const PERMIT_TIME: Duration = Duration::from_secs(20);
/// A stop counts as a concurrent call for at most this long. After that, Docker only waits for the container to end, for up to
/// the whole grace period.
const STOP_PERMIT_TIME: Duration = Duration::from_secs(1);
/// Concurrent reports of state changes (spec `ecs-api.md` §3).
const REPORTS: usize = 10;

/// The call of an operation. It is boxed: without that, each kind of operation would have code of its own to be started, and would be
/// copied over the stack several times, tens of kilobytes each time.
type Call = BoxFuture<'static, Result<Output, OpError>>;

/// Carries out effects.
#[derive(Debug)]
pub(crate) struct Executor {
    edges: Arc<Edges>,
    inbox: mpsc::Sender<Event>,
    acs: mpsc::Sender<acs::Outgoing>,
    /// Each call returns its operation; `None` if it has none, since nothing waits for its outcome.
    calls: JoinSet<Option<OpId>>,
    /// The calls that can still be cancelled, by their operation.
    running: BTreeMap<OpId, AbortHandle>,
    /// Those of them that only wait for a registry or AWS, and that the next start begins again without a loss.
    repeatable: BTreeSet<OpId>,
    pulls: Pulls,
    engine_calls: Arc<Semaphore>,
    /// Stops have a limit of their own, so that they do not queue behind starts that hang.
    stops: Arc<Semaphore>,
    reports: Arc<Semaphore>,
}

impl Executor {
    /// Outcomes are sent to `inbox`, messages for ACS to `acs`.
    pub(crate) fn new(
        edges: Arc<Edges>,
        pulls: Pulls,
        inbox: mpsc::Sender<Event>,
        acs: mpsc::Sender<acs::Outgoing>,
    ) -> Self {
        let max_calls = engine_calls(std::thread::available_parallelism().map_or(1, usize::from));
        Self {
            edges,
            inbox,
            acs,
            calls: JoinSet::new(),
            running: BTreeMap::new(),
            repeatable: BTreeSet::new(),
            pulls,
            engine_calls: Arc::new(Semaphore::new(max_calls)),
            stops: Arc::new(Semaphore::new(max_calls)),
            reports: Arc::new(Semaphore::new(REPORTS)),
        }
    }

    /// What is counted on the way.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.edges.metrics
    }

    /// Number of calls that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.calls.len()
    }

    /// Removes the calls that have ended from the tables.
    pub(crate) fn reap(&mut self) {
        while let Some(ended) = self.calls.try_join_next() {
            // An error means that the call was aborted: it was removed from the tables then.
            if let Ok(Some(op)) = ended {
                self.running.remove(&op);
                self.repeatable.remove(&op);
            }
        }
    }

    /// Aborts the calls that the next start begins again without a loss: the end of the agent does not wait for a registry or AWS.
    pub(crate) fn abort_repeatable(&mut self) {
        for op in std::mem::take(&mut self.repeatable) {
            if let Some(call) = self.running.remove(&op) {
                call.abort();
            }
        }
    }

    /// Waits until a call has ended; its outcome is in the inbox then. Returns at once if there is none.
    pub(crate) async fn ended(&mut self) {
        if let Some(Ok(Some(op))) = self.calls.join_next().await {
            self.running.remove(&op);
            self.repeatable.remove(&op);
        }
    }

    /// Starts an effect. Does not wait for its outcome. Every line that its call logs shows `labels`.
    pub(crate) fn start(&mut self, effect: Effect, labels: &Labels) {
        match effect {
            Effect::Do(op, operation) => {
                if is_repeatable(&operation) {
                    self.repeatable.insert(op);
                }
                labels.span().in_scope(|| self.begin(op, operation, labels));
            }
            Effect::Cancel(op) => {
                self.repeatable.remove(&op);
                if let Some(call) = self.running.remove(&op) {
                    call.abort();
                }
            }
            Effect::Send(Message::Ack(ack)) => self.send(acs::Outgoing::Ack(ack)),
            Effect::Send(Message::AckCredentials(ack)) => self.send(acs::Outgoing::CredentialsAck(ack)),
            Effect::Send(Message::VerifyStop { message_id, cluster, tasks }) => {
                self.send(acs::Outgoing::StopVerification { message_id, cluster, candidates: tasks });
            }
            Effect::ForgetCredentials(id) => {
                self.edges.roles.remove(&id);
                self.edges.registries.forget(&id);
            }
            Effect::WriteMetadata(file) => {
                let edges = self.edges.clone();
                self.calls.spawn(async move {
                    edges.resources.complete_metadata_file(*file).await;
                    None
                });
            }
            Effect::RemoveMetadata(task) => {
                let edges = self.edges.clone();
                self.calls.spawn(async move {
                    edges.resources.remove_metadata_files(&task).await;
                    None
                });
            }
        }
    }

    fn begin(&mut self, op: OpId, operation: Operation, labels: &Labels) {
        let (edges, pulls, calls) = (self.edges.clone(), self.pulls.clone(), self.engine_calls.clone());
        match operation {
            // The Docker edge limits these two itself, because an operation that waits for another one's call uses no
            // connection.
            Operation::ResolveDigest(image) => {
                let labels = labels.clone();
                let digest = async move { pulls.digest(edges, op, labels, image).await };
                self.run(op, None, "resolve digest", digest.boxed());
            }
            Operation::Pull(image) => {
                let labels = labels.clone();
                let pull = async move { pulls.pull(edges, op, labels, image).await };
                self.run(op, None, "pull", pull.boxed());
            }
            Operation::Create(request) => {
                let create = async move { resources::create_container(&edges, *request).await.map(seen) };
                self.run(op, None, "create", with_permit_for(PERMIT_TIME, calls, create.boxed()).boxed());
            }
            Operation::Start(target) => {
                let start = async move { edges.docker.start(&target).await.map(seen) };
                self.run(op, None, "start", with_permit_for(PERMIT_TIME, calls, start.boxed()).boxed());
            }
            Operation::Stop { target, grace } => {
                let grace = grace.unwrap_or(edges.stop_timeout);
                let stop = async move { edges.docker.stop(&target, grace).await.map(maybe_seen) };
                let stops = self.stops.clone();
                self.run(op, None, "stop", with_permit_for(STOP_PERMIT_TIME, stops, stop.boxed()).boxed());
            }
            Operation::Inspect(target) => {
                let inspect = async move { edges.docker.inspect(&target).await.map(maybe_seen) };
                self.run(op, None, "inspect", with_permit_for(PERMIT_TIME, calls, inspect.boxed()).boxed());
            }
            Operation::Remove(target) => {
                let remove = async move { edges.docker.remove(&target).await.map(|()| Output::Nothing) };
                self.run(op, None, "remove", with_permit_for(PERMIT_TIME, calls, remove.boxed()).boxed());
            }
            Operation::CreateResource(request) => {
                let create = async move { resources::create(&edges, &request).await };
                self.run(op, None, "create resource", create.boxed());
            }
            Operation::RemoveResource(request) => {
                let remove = async move { resources::remove(&edges, &request).await };
                self.run(op, None, "remove resource", remove.boxed());
            }
            Operation::RenewResource(request) => {
                let renew = async move { resources::renew(&edges, &request).await };
                self.run(op, None, "renew resource", renew.boxed());
            }
            Operation::SetUpNetwork(request) => {
                self.run(op, None, "set up network", async move { networks::set_up(&edges, &request).await }.boxed());
            }
            Operation::TearDownNetwork(request) => {
                let tear_down = async move { networks::tear_down(&edges, &request).await };
                self.run(op, None, "tear down network", tear_down.boxed());
            }
            Operation::ReportAttachment(change) => {
                let reports = Some(self.reports.clone());
                let report = async move { networks::report(&edges, &change).await };
                self.run(op, reports, "report attachment", report.boxed());
            }
            Operation::Inventory => {
                let inventory = async move { edges.docker.inventory().await.map(Output::Inventory) };
                self.run(op, Some(calls), "inventory", inventory.boxed());
            }
            Operation::CleanImages(work) => {
                self.run(op, Some(calls), "image clean-up", async move { clean_images(&edges, work).await }.boxed());
            }
            Operation::Report(change) => {
                let reports = self.reports.clone();
                self.run(op, Some(reports), "report", async move { submit(&edges, *change).await }.boxed());
            }
        }
    }

    /// Sends a message to ACS. A message that cannot be sent is dropped: ECS repeats its own message when no answer comes.
    fn send(&self, message: acs::Outgoing) {
        if self.acs.try_send(message).is_err() {
            tracing::warn!("an answer to ACS is dropped because too many wait for the connection; ECS will ask again");
        }
    }

    fn run(&mut self, op: OpId, limit: Option<Arc<Semaphore>>, what: &'static str, call: Call) {
        let inbox = self.inbox.clone();
        let call = async move {
            let _permit = match &limit {
                Some(limit) => limit.acquire().await.ok(), // never closed, so this cannot fail
                None => None,
            };
            let result = AssertUnwindSafe(call).catch_unwind().await;
            let outcome = result.unwrap_or_else(|_panic| {
                Err(OpError::Unknown(Failure::permanent("InternalError", format!("the agent failed in {what}"))))
            });
            // The send fails only when the core loop has ended, and then the outcome is not needed.
            let _ = inbox.send(Event::Completed { op, outcome }).await;
            Some(op)
        };
        // The span of the caller names the task.
        self.running.insert(op, self.calls.spawn(call.in_current_span()));
    }
}

/// Whether the operation changes nothing before it has ended but Docker's store of layers, and so may be aborted at any time.
fn is_repeatable(operation: &Operation) -> bool {
    match operation {
        Operation::Pull(_) | Operation::ResolveDigest(_) => true,
        Operation::CreateResource(request) => request.spec.kind.lifetime() == Lifetime::Process,
        _ => false,
    }
}

fn engine_calls(cpus: usize) -> usize {
    (cpus * ENGINE_CALLS_PER_CPU).clamp(*ENGINE_CALLS.start(), *ENGINE_CALLS.end())
}

/// Runs a call under a permit, which is returned after `work` even if the call still runs: from then on it only waits.
async fn with_permit_for<T>(work: Duration, limit: Arc<Semaphore>, mut call: BoxFuture<'_, T>) -> T {
    let permit = limit.acquire().await.ok(); // never closed, so this cannot fail
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
            // An image that came from a mirror has a second name, the mirror's. That name is removed first: if the image stays
            // after all, it keeps the name that tasks use, and is found again by it.
            let at_mirror = names.iter().filter_map(|name| edges.registries.mirrors.name_at_mirror(name));
            let names: Vec<String> = at_mirror.chain(names.iter().cloned()).collect();
            edges.docker.remove_image(&id, &names).await?;
            tracing::info!(imageID = id, names = names.join(" "), "Image removed");
            Ok(Output::Nothing)
        }
        ImageWork::RemoveContainer(id) => {
            edges.docker.remove_foreign(&id).await?;
            tracing::info!(dockerId = id.as_str(), "Container that belongs to no task removed");
            Ok(Output::Nothing)
        }
    }
}

async fn submit(edges: &Edges, mut change: StateChange) -> Result<Output, OpError> {
    for at in [&mut change.pull_started_at, &mut change.pull_stopped_at, &mut change.execution_stopped_at] {
        *at = at.map(|at| edges.clock.wall(at));
    }
    let submitted = report::submit(&edges.ecs, &edges.report, &change).await;
    edges.metrics.report_ended(match &submitted {
        Ok(()) => ReportOutcome::Accepted,
        Err(SubmitError::Rejected(_)) => ReportOutcome::Invalid,
        Err(SubmitError::Retryable(_)) => ReportOutcome::Failed,
    });
    submitted?;
    Ok(Output::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_calls_depend_on_the_number_of_processors() {
        let limits = [1, 2, 3, 4, 64].map(engine_calls);
        assert_eq!(limits, [8, 12, 16, 16, 16]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_only_waits_returns_its_permit() {
        let limit = Arc::new(Semaphore::new(1));
        let started = tokio::time::Instant::now();
        let sleep = tokio::time::sleep(Duration::from_secs(30));
        let slow = with_permit_for(STOP_PERMIT_TIME, limit.clone(), sleep.boxed());
        let next = async {
            tokio::task::yield_now().await;
            let call = async { assert_eq!(limit.available_permits(), 0) };
            with_permit_for(STOP_PERMIT_TIME, limit.clone(), call.boxed()).await;
            started.elapsed()
        };
        let ((), waited) = tokio::join!(slow, next);
        assert_eq!(waited, STOP_PERMIT_TIME);
        assert_eq!((started.elapsed(), limit.available_permits()), (Duration::from_secs(30), 1));
    }
}
