//! Keeps the session with TCS: publishes metrics, the health of containers and the state of the instance every 20 seconds (spec
//! `tcs.md` §3 to §6).
//!
//! Owns the cadence, and the check of Docker at each heartbeat of ACS. What is published comes from the statistics and the view.
//! The invariant: nothing waits for TCS. What cannot be sent waits here, within bounds, and then is dropped.

use super::control_plane::{ControlPlane, Signals};
use super::statistics::Statistics;
use crate::ecs::endpoint::PollEndpointCache;
use crate::runtime::execute::edges::Edges;
use crate::runtime::supervisor::PartResult;
use crate::tcs::health::task_health;
use crate::tcs::metrics::Interval;
use crate::tcs::status::Checks;
use crate::tcs::waiting::Waiting;
use crate::tcs::{Dated, Incoming, Outgoing, session};
use crate::websocket::{self, Contact, EndpointError};
use ecs_core::model::view::{TaskView, View};
use ecs_core::model::{ContainerStatus, TaskStatus, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The time between two publications.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long the session waits for the first connection to ACS.
const HEAD_START: Duration = Duration::from_secs(5);
/// How long there is no connection after ACS reported that the instance is not registered.
const DEREGISTERED_PAUSE: Duration = Duration::from_secs(60);
/// How long Docker may take to answer the check of the instance.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// The part of the agent that talks to TCS.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    settings: session::Settings,
    endpoints: Arc<PollEndpointCache>,
    edges: Arc<Edges>,
    view: watch::Receiver<Arc<View>>,
    acs: Arc<Signals>,
    statistics: Arc<Statistics>,
    /// The state of the instance. It outlives a restart of this part.
    checks: Arc<Mutex<Checks>>,
}

/// What waits to be published, and when the next publication is due. It outlives a connection.
struct Publisher {
    tick: tokio::time::Interval,
    waiting: Waiting,
    is_status_due: bool,
    /// Nothing was published yet.
    is_first: bool,
    /// Messages were dropped since the session last took one.
    is_dropping: bool,
}

impl Publisher {
    fn new() -> Self {
        let mut tick = interval(INTERVAL);
        // After a pause (of a virtual machine, for example), one interval is longer; the next ones are not shorter.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tick, waiting: Waiting::default(), is_status_due: false, is_first: true, is_dropping: false }
    }

    fn has_messages(&self) -> bool {
        self.is_status_due || !self.waiting.is_empty()
    }
}

impl Telemetry {
    /// The session beside that with ACS, for the same instance. `contact` is for the agent's health.
    pub(crate) fn beside(
        control: &ControlPlane,
        contact: Contact,
        view: watch::Receiver<Arc<View>>,
        statistics: Arc<Statistics>,
    ) -> Self {
        let known = control.settings.clone();
        let settings = session::Settings {
            cluster: known.cluster,
            container_instance: known.container_instance,
            agent_version: known.agent_version,
            agent_hash: known.agent_hash,
            docker_version: known.docker_version,
            connection: websocket::session::Settings { timing: session::timing(), contact, ..known.connection },
        };
        let edges = control.edges.clone();
        let checks = Arc::new(Mutex::new(Checks::started(wall_now(&edges))));
        let (endpoints, acs) = (control.endpoints.clone(), control.signals.clone());
        Self { settings, endpoints, edges, view, acs, statistics, checks }
    }

    /// Keeps the session until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) -> PartResult {
        // A task is more important than a figure: ACS gets the endpoints, the credentials and the network first.
        let head_start = timeout(HEAD_START, self.acs.connected.notified());
        let _acs_may_be_down = stop.run_until_cancelled(head_start).await;
        // A new instance is not called idle before Docker has shown that no container runs.
        let mut view = self.view.clone();
        let shown = async { view.wait_for(|view| !view.is_incomplete).await.is_ok() };
        let _docker_may_be_down = stop.run_until_cancelled(timeout(INTERVAL, shown)).await;
        let mut publisher = Publisher::new();
        loop {
            tokio::select! {
                ended = self.keep_session(&mut publisher, stop.clone()) => return ended,
                () = self.deregistered() => {}
            }
            tracing::info!("the connection to TCS is closed: this container instance is deregistered");
            if stop.run_until_cancelled(sleep(DEREGISTERED_PAUSE)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits until ACS reports that the instance is not registered. ACS repeats that. If TCS has
    /// said so too, its session has no connection to close, and keeps its growing pauses.
    async fn deregistered(&self) {
        loop {
            self.acs.deregistered.notified().await;
            if self.settings.connection.contact.seen().deregistered.is_none() {
                return;
            }
        }
    }

    async fn keep_session(&self, publisher: &mut Publisher, stop: CancellationToken) -> PartResult {
        let (sender, mut receiver) = mpsc::channel::<Incoming>(1);
        // One message: the others wait in the publisher, where the oldest are dropped.
        let (outbox, to_send) = mpsc::channel::<Dated>(1);
        let discover = || {
            let (endpoints, instance) = (self.endpoints.clone(), self.settings.container_instance.clone());
            async move {
                let found = endpoints.get(&instance).await.map_err(|error| EndpointError::from(&error))?;
                let missing =
                    || EndpointError::Failed("DiscoverPollEndpoint: the answer names no telemetry endpoint".to_owned());
                found.telemetry.clone().ok_or_else(missing)
            }
        };
        let log = async {
            while let Some(Incoming::Connected) = receiver.recv().await {
                tracing::info!("Connected to TCS endpoint");
            }
        };
        tokio::select! {
            () = session::run(self.settings.clone(), discover, sender, to_send, stop.clone()) => {
                if stop.is_cancelled() { Ok(()) } else { Err("the session has ended".to_owned()) }
            }
            () = log => Err("the session takes no messages".to_owned()),
            () = self.publish(publisher, outbox) => Err("the session takes no messages".to_owned()),
            () = self.check_docker() => Ok(()),
        }
    }

    /// Publishes until the session has ended.
    async fn publish(&self, publisher: &mut Publisher, outbox: mpsc::Sender<Dated>) {
        loop {
            tokio::select! {
                _ = publisher.tick.tick() => {
                    self.collect(publisher);
                    // The first status waits for a check, which comes with the first heartbeat of ACS.
                    publisher.is_status_due = !publisher.is_first && self.checks().is_due();
                    publisher.is_first = false;
                }
                permit = outbox.reserve(), if publisher.has_messages() => {
                    let Ok(permit) = permit else { return };
                    publisher.is_dropping = false;
                    if std::mem::take(&mut publisher.is_status_due) {
                        permit.send(Outgoing::Status(self.checks().report()).into());
                    } else if let Some(message) = publisher.waiting.take() {
                        permit.send(message);
                        self.count(publisher, 0);
                    }
                }
            }
        }
    }

    /// Collects what is to be published.
    fn collect(&self, publisher: &mut Publisher) {
        let clock = &self.edges.clock;
        let view = Arc::clone(&self.view.borrow());
        let health = task_health(&view, |at| clock.wall(at));
        let waiting = &mut publisher.waiting;
        let dropped = match self.statistics.gather().into() {
            // After a start, the statistics know no container until Docker has shown it.
            Interval::Idle if !self.statistics.is_disabled() && may_run(&view) => 0,
            Interval::Idle => waiting.push_metrics(Vec::new()),
            Interval::TooLittle => 0,
            Interval::Tasks(tasks) => waiting.push_metrics(tasks),
        };
        let dropped = dropped + waiting.push_health(health);
        self.count(publisher, dropped);
        if dropped > 0 && !std::mem::replace(&mut publisher.is_dropping, true) {
            tracing::warn!("TCS takes no messages: the oldest metrics and health are dropped from now on");
        }
    }

    fn count(&self, publisher: &Publisher, dropped: usize) {
        let metrics = &self.edges.metrics;
        metrics.telemetry_waiting.set(publisher.waiting.len() as u64);
        metrics.telemetry_dropped.add(dropped as u64);
    }

    /// Checks at each heartbeat of ACS whether Docker answers.
    async fn check_docker(&self) {
        loop {
            self.acs.heartbeat.notified().await;
            let answer = timeout(PING_LIMIT, self.edges.docker.ping()).await;
            match &answer {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::info!(%error, "Docker Ping failed; ECS is told that this instance is impaired")
                }
                Err(_) => {
                    let limit_s = PING_LIMIT.as_secs();
                    tracing::info!(
                        limit_s,
                        "Docker does not answer in time; ECS is told that this instance is impaired"
                    );
                }
            }
            self.checks().checked(matches!(answer, Ok(Ok(()))), wall_now(&self.edges));
        }
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether containers run, as far as the agent knows.
fn may_run(view: &View) -> bool {
    let runs = |task: &Arc<TaskView>| {
        let is_measured = task.known < TaskStatus::Stopped && !task.family.is_empty();
        is_measured && task.containers.iter().any(|container| container.known == ContainerStatus::Running)
    };
    view.is_incomplete || view.tasks.iter().any(runs)
}

fn wall_now(edges: &Edges) -> Timestamp {
    edges.clock.wall(edges.clock.now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::view::ContainerView;

    #[test]
    fn an_instance_is_idle_only_if_no_container_can_run() {
        let task = |family: &str, task: TaskStatus, container: ContainerStatus| {
            let containers = vec![ContainerView { known: container, ..ContainerView::default() }];
            TaskView { family: family.to_owned(), known: task, containers, ..TaskView::default() }
        };
        let (running, stopped) = (ContainerStatus::Running, ContainerStatus::Stopped);
        let table = [
            (None, false, false),
            (None, true, true), // the state was lost, and Docker has not been asked yet
            (Some(task("web", TaskStatus::Running, running)), false, true),
            (Some(task("web", TaskStatus::Running, stopped)), false, false),
            (Some(task("web", TaskStatus::Stopped, running)), false, false),
            (Some(task("", TaskStatus::Running, running)), false, false), // not published
        ];
        for (task, is_incomplete, expected) in table {
            let view = View { is_incomplete, tasks: task.into_iter().map(Arc::new).collect(), ..View::default() };
            assert_eq!(may_run(&view), expected, "{view:?}");
        }
    }
}
