//! The parts that run beside the core loop until the agent stops. The supervisor owns them, and restarts each one that ends.
//!
//! Reading order: `early` (what runs before the registration; the ports), `firewall`, `task_metadata`, `faults` and `protection`
//! (work for containers), `statistics`, `control_plane`, `telemetry` with `measured`, `docker_events`, `interfaces`, `health`, `spot`,
//! `runtime_stats`, `diagnostics`, `metrics`.

pub(super) mod control_plane;
pub(super) mod diagnostics;
pub(super) mod docker_events;
pub(super) mod early;
pub(super) mod faults;
pub(super) mod firewall;
pub(super) mod health;
mod interfaces;
mod measured;
pub(super) mod metrics;
mod own_thread;
pub(super) mod protection;
mod runtime_stats;
pub(super) mod spot;
pub(super) mod statistics;
pub(super) mod task_metadata;
pub(super) mod telemetry;

use super::core_loop::CoreLoop;
use super::execute::edges::Edges;
use super::execute::pulls::Pulls;
use super::startup::instance::Instance;
use super::supervisor::{Policy, Supervisor};
use crate::acs;
use crate::aws::client::sdk::Sdk;
use crate::config::Config;
use crate::host::fault::Faults;
use crate::host::program::Programs;
use crate::http::task_metadata::Work;
use crate::store::Identity;
use control_plane::ControlPlane;
pub(super) use early::Early;
use ecs_core::Event;
use ecs_core::model::view::View;
use ecs_core::model::with_causes;
use sd_notify::NotifyState;
use statistics::Statistics;
use std::sync::Arc;
use telemetry::Telemetry;
use tokio::sync::{Notify, mpsc, watch};

/// Starts all parts that need the registration, the core loop among them.
#[expect(clippy::too_many_arguments, reason = "the agent's parts meet only here")]
pub(super) fn supervise(
    early: Early,
    core: CoreLoop,
    control: ControlPlane,
    telemetry: Telemetry,
    from_core: mpsc::Receiver<acs::Outgoing>,
    edges: Arc<Edges>,
    inbox: mpsc::Sender<Event>,
    readers: watch::Receiver<Arc<View>>,
    pulls: Pulls,
    config: &Config,
) -> Supervisor {
    let Early { mut supervisor, stop, health, bridges, rules, .. } = early;
    // The core loop owns the state and cannot be restarted in this process; the next process starts it again.
    let (mut core, stop_core) = (Some(core), stop.clone());
    supervisor.add("core", Policy::Fatal, move || {
        let (core, stop) = (core.take(), stop_core.clone());
        async move {
            let core = core.ok_or("it has ended already")?;
            core.run(stop, watchdog()).await.map_err(|error| with_causes(&error))
        }
    });
    // Also if this host offers no networks now: attachments may have been announced before.
    if config.task_eni && !config.external {
        let (found, signals, stop_watch) = (inbox.clone(), control.signals.clone(), stop.clone());
        supervisor.add("network interfaces", Policy::Restart, move || {
            interfaces::watch(found.clone(), signals.clone(), stop_watch.clone())
        });
    }
    let (outbox, stop_acs) = (Arc::new(tokio::sync::Mutex::new(from_core)), stop.clone());
    supervisor.add("acs", Policy::Restart, move || {
        let (control, outbox, stop) = (control.clone(), outbox.clone(), stop_acs.clone());
        async move { control.run(outbox, stop).await }
    });
    let stop_tcs = stop.clone();
    supervisor.add("tcs", Policy::Restart, move || telemetry.clone().run(stop_tcs.clone()));
    let reopened = Arc::new(Notify::new());
    let (watched, reopens, stop_events) = (edges.clone(), reopened.clone(), stop.clone());
    supervisor.add("docker events", Policy::Restart, move || {
        docker_events::watch(watched.clone(), inbox.clone(), reopens.clone(), rules.clone(), stop_events.clone())
    });
    let (bridges, stop_health) = (Arc::new(bridges), stop.clone());
    supervisor.add("docker health", Policy::Restart, move || {
        let (edges, health, bridges) = (edges.clone(), health.clone(), bridges.clone());
        let (reopened, stop) = (reopened.clone(), stop_health.clone());
        async move { health::watch_docker(&edges.docker, &health, &bridges, &reopened, stop).await }
    });
    supervisor.add("diagnostics", Policy::Restart, move || {
        diagnostics::on_signal(readers.clone(), pulls.clone(), stop.clone())
    });
    supervisor
}

/// Opens the port for containers, and starts the parts that work for them. Returns the statistics of containers.
pub(super) async fn serve_containers(
    early: &mut Early,
    config: &Config,
    sdk: Sdk,
    identity: &Identity,
    instance: &Instance,
    edges: &Arc<Edges>,
    view: &watch::Receiver<Arc<View>>,
) -> Arc<Statistics> {
    let directory = config.checkpoint.then_some(config.data_dir.as_path());
    let (operations, keeper) = faults::keeper(Faults::restored(Programs::default(), directory).await, view.clone());
    let protection = protection::Protection::new(sdk, identity.cluster.clone(), edges.clone());
    let work = Work { protection: Arc::new(protection), faults: Arc::new(operations) };
    early.keep_faults(keeper);
    let statistics = Arc::new(Statistics::restored(config).await);
    if !statistics.is_disabled() {
        early.keep_statistics(statistics::Watch::new(statistics.clone(), view.clone(), edges.clone()));
    }
    let sources = task_metadata::sources(config, identity, instance, view.clone(), edges, work, statistics.clone());
    early.open_task_metadata(sources);
    statistics
}

/// The function that notifies systemd: its first call says that the agent is up, each later one that the core loop is alive.
/// Without systemd it does nothing.
fn watchdog() -> impl FnMut() {
    let mut is_up = false;
    move || {
        let state: &[NotifyState<'_>] = match is_up {
            true => &[NotifyState::Watchdog],
            false => &[NotifyState::Ready, NotifyState::Status("Registered with ECS")],
        };
        is_up = true;
        let _ = sd_notify::notify(state);
    }
}
