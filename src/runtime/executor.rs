//! Effect to call to exactly one outcome: also after a panic, a timeout and a lost answer.
//!
//! It decides nothing. Each kind of call has a bound on how many run at once; the calls themselves carry their time-outs.

use super::clock::Clock;
use super::pulls::Pulls;
use super::registry_credentials::Registries;
use super::resources;
use crate::acs;
use crate::aws::roles::RoleStore;
use crate::docker::Docker;
use crate::ecs::report;
use crate::engine::{Effect, Event, Outcome, Output};
use crate::model::image::ImageWork;
use crate::model::{Failure, Observation, OpError, OpId, Span, StateChange};
use crate::resources::Resources;
use crate::resources::cgroup::Cgroups;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

/// Other calls to the container engine at once; Docker itself gains nothing beyond this.
const ENGINE_CALLS: usize = 16;
/// State changes on their way at once (spec `ecs-api.md` §3).
const REPORTS: usize = 10;

/// What the calls go to.
#[derive(Debug)]
pub(super) struct Edges {
    /// The container engine.
    pub(super) docker: Docker,
    /// Credentials for registries.
    pub(super) registries: Registries,
    /// Secrets, environment files, log routers.
    pub(super) resources: Resources,
    /// Credentials of tasks' roles.
    pub(super) roles: RoleStore,
    /// The ECS API.
    pub(super) ecs: aws_sdk_ecs::Client,
    /// How state changes are said.
    pub(super) report: report::Settings,
    /// Turns the core's moments into wall time.
    pub(super) clock: Arc<Clock>,
    /// Grace of a stop when the task definition says nothing (`ECS_CONTAINER_STOP_TIMEOUT`).
    pub(super) stop_timeout: Span,
    /// Control groups of tasks.
    pub(super) cgroups: Cgroups,
    /// Existing shared volumes must be as asked for (`ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`).
    pub(super) match_shared_volumes: bool,
}

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
        Self {
            edges,
            inbox,
            acs,
            calls: JoinSet::new(),
            running: BTreeMap::new(),
            pulls,
            engine_calls: Arc::new(Semaphore::new(ENGINE_CALLS)),
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
        let (edges, pulls, calls) = (self.edges.clone(), self.pulls.clone(), self.engine_calls.clone());
        match effect {
            // The Docker edge bounds both itself: who waits for another's call takes up nothing.
            Effect::ResolveDigest { op, image } => {
                self.run(op, None, "resolve digest", async move { pulls.digest(edges, op, image).await })
            }
            Effect::Pull { op, image } => self.run(op, None, "pull", async move { pulls.pull(edges, op, image).await }),
            Effect::Create { op, request } => self
                .run(op, calls, "create", async move { resources::create_container(&edges, &request).await.map(seen) }),
            Effect::Start { op, target } => {
                self.run(op, calls, "start", async move { edges.docker.start(&target).await.map(seen) })
            }
            Effect::Stop { op, target, grace } => self.run(op, calls, "stop", async move {
                edges.docker.stop(&target, grace.unwrap_or(edges.stop_timeout)).await.map(maybe_seen)
            }),
            Effect::Inspect { op, target } => {
                self.run(op, calls, "inspect", async move { edges.docker.inspect(&target).await.map(maybe_seen) })
            }
            Effect::Remove { op, target } => self
                .run(op, calls, "remove", async move { edges.docker.remove(&target).await.map(|()| Output::Nothing) }),
            Effect::CreateResource { op, request } => {
                self.run(op, None, "create resource", async move { resources::create(&edges, &request).await })
            }
            Effect::RemoveResource { op, request } => {
                self.run(op, None, "remove resource", async move { resources::remove(&edges, &request).await })
            }
            Effect::RenewResource { op, request } => {
                self.run(op, None, "renew resource", async move { resources::renew(&edges, &request).await })
            }
            Effect::Inventory { op } => {
                self.run(op, calls, "inventory", async move { edges.docker.inventory().await.map(Output::Inventory) })
            }
            Effect::CleanImages { op, work } => {
                self.run(op, calls, "image clean-up", async move { clean_images(&edges, work).await });
            }
            Effect::Report { op, change } => {
                let reports = self.reports.clone();
                self.run(op, reports, "report", async move { submit(&edges, *change).await });
            }
            Effect::Cancel { op } => {
                if let Some(call) = self.running.remove(&op) {
                    call.abort();
                }
            }
            Effect::Ack(ack) => self.say(acs::Outgoing::Ack(ack)),
            Effect::AckCredentials(ack) => self.say(acs::Outgoing::CredentialsAck(ack)),
            Effect::AskToStop { message_id, cluster, tasks } => {
                self.say(acs::Outgoing::StopVerification { message_id, cluster, candidates: tasks });
            }
            Effect::ForgetCredentials { id } => {
                self.edges.roles.remove(&id);
                self.edges.registries.forget(&id);
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
            let outcome = match result {
                Ok(Ok(output)) => Outcome::Done(output),
                Ok(Err(OpError::Failed(failure))) => Outcome::Failed(failure),
                Ok(Err(OpError::Unknown(failure))) => Outcome::Unknown(failure),
                Err(_) => Outcome::Unknown(Failure::permanent("InternalError", format!("the agent failed in {what}"))),
            };
            match &outcome {
                Outcome::Done(_) => tracing::debug!(%op, what, "done"),
                Outcome::Failed(why) => tracing::warn!(%op, what, %why, "failed"),
                Outcome::Unknown(why) => tracing::warn!(%op, what, %why, "outcome unknown"),
            }
            // The loop is gone only when the agent ends; then nobody waits for this.
            let _ = inbox.send(Event::Completed { op, outcome }).await;
            op
        });
        self.running.insert(op, handle);
    }
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
            edges.docker.list_images(ends, disk).await.map(|listing| Output::Images(Box::new(listing)))
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
