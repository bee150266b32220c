//! The parts that run from the start of the process, and the ports of introspection and task metadata, which open after the
//! registration.
//!
//! Before the registration the ports are closed, like the Go agent's. `/health` is also served on a socket, from the start of
//! the process to its end, so that `-healthcheck` can tell a waiting agent from a missing one.

use super::faults::Keeper;
use super::firewall::{self, Rules};
use super::health::Health;
use super::metrics::{Queues, Sources};
use super::own_thread;
use super::runtime_stats;
use super::spot;
use super::statistics::Watch;
use super::statistics::saving::keep_saved;
use crate::acs;
use crate::config::Config;
use crate::http::{self, Address, Answers, Audience, Serving};
use crate::http::{introspection, metrics, task_metadata};
use crate::otlp::Exporter;
use crate::runtime::clock::Clock;
use crate::runtime::execute::edges::Edges;
use crate::runtime::execute::pulls::Pulls;
use crate::runtime::logging::LogControl;
use crate::runtime::startup::container_form::ContainerForm;
use crate::runtime::startup::ownership::Ownership;
use crate::runtime::supervisor::{Policy, Supervisor};
use crate::runtime::timing::Timings;
use crate::store::Identity;
use ecs_core::Event;
use ecs_core::model::Bridges;
use ecs_core::model::view::View;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Where a server runs.
#[derive(Clone, Copy, Debug)]
enum Threads {
    /// On the threads that most of the agent shares.
    Shared,
    /// On a thread of its own.
    Own,
}

/// The parts that need no configuration, and the supervisor to which the other parts are added.
#[derive(Debug)]
pub struct Early {
    pub(crate) supervisor: Supervisor,
    pub(crate) stop: CancellationToken,
    pub(crate) health: Health,
    /// Docker's bridges, as far as they are known.
    pub(crate) bridges: watch::Sender<Bridges>,
    /// The firewall's rules.
    pub(crate) rules: Arc<Rules>,
    /// The agent is in a container with a network of its own.
    has_own_network: bool,
    /// The log of this process, for metrics.
    pub(crate) log: LogControl,
    /// The requests to the task metadata server so far.
    pub(crate) requests: Arc<task_metadata::Requests>,
}

impl Early {
    /// Starts to serve `/health` on its socket. `log` is the log of this process.
    pub fn begin(log: LogControl) -> Self {
        let (bridges, _) = watch::channel(Bridges::default());
        let mut early = Self {
            supervisor: Supervisor::default(),
            stop: CancellationToken::new(),
            health: Health::started(),
            bridges,
            rules: Arc::default(),
            has_own_network: false,
            log,
            requests: Arc::default(),
        };
        let routes = introspection::health_router(early.health_lookup());
        let socket = Address::Socket(introspection::HEALTH_SOCKET);
        let settings = http::Settings::new("health", socket);
        early.serve(settings, Audience::host_only(), routes.into(), Serving::default(), Threads::Shared);
        early
    }

    /// Renews the lock from the moment it is held: the wait in a warm pool may take hours.
    pub(crate) fn keep_lock(&mut self, ownership: Arc<Ownership>) {
        let stop = self.stop.clone();
        self.supervisor.add("docker lock", Policy::Restart, move || {
            let (ownership, stop) = (ownership.clone(), stop.clone());
            async move { ownership.keep(stop).await }
        });
    }

    /// Starts what changes this host: after the lock, since an agent that must not work with the engine changes nothing.
    pub(crate) fn change_host(&mut self, config: &Config, form: &ContainerForm) {
        self.has_own_network = form.has_own_network();
        self.keep_firewall(config, form.lacks_rules());
        self.keep_runtime_stats(config);
    }

    /// Makes the firewall's rules, and keeps them. `lacks_rules`: this process can do neither, and has said so, unless somebody else has
    /// made them.
    fn keep_firewall(&mut self, config: &Config, lacks_rules: bool) {
        if !config.manage_firewall {
            self.rules.leave_to_others();
            return;
        }
        let settings = (!lacks_rules).then(|| firewall::settings(config));
        let (rules, bridges, stop) = (self.rules.clone(), self.bridges.subscribe(), self.stop.clone());
        self.supervisor.add("firewall", Policy::Restart, move || {
            let (rules, settings, bridges, stop) = (rules.clone(), settings.clone(), bridges.clone(), stop.clone());
            async move { rules.keep(settings, bridges, stop).await }
        });
    }

    /// Opens the ports for people and their programs: introspection, and metrics if they are wanted.
    #[expect(clippy::too_many_arguments, reason = "what is shown comes from all parts")]
    pub(crate) fn open_ports(
        &mut self,
        config: &Config,
        identity: &Identity,
        view: &watch::Receiver<Arc<View>>,
        pulls: &Pulls,
        timings: Timings,
        edges: &Arc<Edges>,
        inbox: &mpsc::Sender<Event>,
        to_acs: &mpsc::Sender<acs::Outgoing>,
    ) {
        self.open_port(config, identity, view.clone(), pulls.clone(), timings, edges.clock.clone());
        self.open_metrics(config, view, edges, pulls, inbox, to_acs);
    }

    /// Opens the introspection port; the start is complete. The port is bound when this returns, or a first attempt has
    /// failed: a client that learns afterwards that the agent is up can connect at once. The configuration says where it listens,
    /// and whether clients on other hosts are served.
    fn open_port(
        &mut self,
        config: &Config,
        identity: &Identity,
        view: watch::Receiver<Arc<View>>,
        pulls: Pulls,
        timings: Timings,
        clock: Arc<Clock>,
    ) {
        let shown = introspection::Identity {
            cluster: identity.cluster.clone(),
            container_instance_arn: Some(identity.container_instance_arn.clone()),
            version_text: crate::version::text(),
        };
        let progress: introspection::PullLookup = Arc::new(move |op| pulls.progress(op));
        let wall = clock.clone();
        let times: introspection::TimingLookup = Arc::new(move |view, limit| timings.shown(view, limit, &wall));
        let now: introspection::Clock = Arc::new(move || clock.now());
        let rules = self.rules.clone();
        let host: introspection::HostLookup = Arc::new(move || rules.answer());
        let lookups = introspection::Lookups { pulls: progress, timings: times, clock: now, host };
        let routes = introspection::router(self.health_lookup(), shown, view, lookups);
        // Docker shows clients of a published port, this host too, with the address of its bridge, which is a stranger in there.
        let everybody = config.offhost_introspection || self.has_own_network;
        let audience = Audience::new(everybody, self.bridges.subscribe());
        let port = if config.introspection_on_loopback { Address::Loopback } else { Address::Port };
        let settings = http::Settings::new("introspection", port(introspection::PORT));
        self.serve(settings, audience, routes.into(), Serving::default(), Threads::Shared);
        self.health.running();
    }

    /// Opens the port of the task metadata server, for this host and the containers on Docker's bridges. Like the introspection
    /// port, it is bound when this returns. It has a thread of its own: programs wait for credentials while others start.
    pub(crate) fn open_task_metadata(&mut self, sources: task_metadata::Sources) {
        let settings = task_metadata::settings(Address::Loopback(task_metadata::PORT));
        let audience = Audience::containers(self.bridges.subscribe());
        self.requests = sources.requests();
        let (answers, serving) = (task_metadata::answers(sources), self.health.metadata_port());
        self.serve(settings, audience, answers, serving, Threads::Own);
    }

    /// Opens the port of the metrics, if the configuration asks for it: for this host, or for everybody.
    fn open_metrics(
        &mut self,
        config: &Config,
        view: &watch::Receiver<Arc<View>>,
        edges: &Arc<Edges>,
        pulls: &Pulls,
        inbox: &mpsc::Sender<Event>,
        to_acs: &mpsc::Sender<acs::Outgoing>,
    ) {
        if !config.prometheus_metrics {
            return;
        }
        let (audience, port): (_, fn(u16) -> Address) = match config.offhost_metrics {
            true => (Audience::new(true, self.bridges.subscribe()), Address::Port),
            false => (Audience::host_only(), Address::Loopback),
        };
        let (view, edges, pulls) = (view.clone(), edges.clone(), pulls.clone());
        let (health, rules, requests) = (self.health.clone(), self.rules.clone(), self.requests.clone());
        let queues = Queues { core: inbox.downgrade(), acs: to_acs.downgrade(), log: self.log.clone() };
        let sources = Sources { view, health, edges, pulls, rules, requests, queues };
        let routes = metrics::router(sources.scrape(), config.offhost_metrics);
        let settings = http::Settings::new("metrics", port(metrics::PORT));
        self.serve(settings, audience, routes.into(), Serving::default(), Threads::Shared);
    }

    /// Carries out operations on network faults, and removes those of ended tasks.
    pub(crate) fn keep_faults(&mut self, keeper: Keeper) {
        let stop = self.stop.clone();
        self.supervisor.add("network faults", Policy::Restart, move || keeper.clone().run(stop.clone()));
    }

    /// Reads the counters of containers, and saves what must survive the agent.
    pub(crate) fn keep_statistics(&mut self, watch: Watch) {
        let (stop, statistics) = (self.stop.clone(), watch.statistics());
        self.supervisor.add("statistics file", Policy::Restart, move || keep_saved(statistics.clone(), stop.clone()));
        let stop = self.stop.clone();
        self.supervisor.add("statistics", Policy::Restart, move || watch.clone().run(stop.clone()));
    }

    /// Sends traces, if somebody wants them.
    pub(crate) fn export_traces(&mut self, exporter: Option<Arc<Exporter>>) {
        let (Some(exporter), stop) = (exporter, self.stop.clone()) else { return };
        self.supervisor.add("traces", Policy::Restart, move || {
            let (exporter, stop) = (exporter.clone(), stop.clone());
            async move {
                exporter.run(stop).await;
                Ok(())
            }
        });
    }

    /// Writes figures of the agent itself to a file, if the operator wants that.
    fn keep_runtime_stats(&mut self, config: &Config) {
        let Some(file) = config.runtime_stats_log() else { return };
        let (stats, stop) = (Arc::new(runtime_stats::RuntimeStats::new(file)), self.stop.clone());
        self.supervisor.add("runtime stats", Policy::Restart, move || {
            let (stats, stop) = (stats.clone(), stop.clone());
            async move { stats.keep(stop).await }
        });
    }

    /// Watches what EC2 announces about a Spot instance.
    pub(crate) fn watch_spot(&mut self, watch: spot::Watch) {
        let stop = self.stop.clone();
        self.supervisor.add("spot", Policy::Restart, move || watch.clone().run(stop.clone()));
    }

    fn health_lookup(&self) -> introspection::HealthLookup {
        let health = self.health.clone();
        Arc::new(move || health.judge())
    }

    fn serve(
        &mut self,
        settings: http::Settings,
        audience: Audience,
        answers: Answers,
        serving: Serving,
        threads: Threads,
    ) {
        let http::Settings { name, address, .. } = settings;
        let (stop, mut first) = (self.stop.clone(), Some(http::bind(address)));
        self.supervisor.add(name, Policy::Restart, move || {
            let bound = first.take().unwrap_or_else(|| http::bind(address));
            let (audience, answers, stop) = (audience.clone(), answers.clone(), stop.clone());
            let serving = serving.clone();
            async move {
                let served = async move {
                    let bound = bound.and_then(http::Listener::registered_here);
                    http::run(bound, settings, audience, answers, serving, stop).await;
                };
                match threads {
                    Threads::Own => own_thread::run(name, served).await,
                    Threads::Shared => {
                        served.await;
                        Ok(())
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    #[tokio::test]
    async fn an_address_is_bound_before_its_part_runs() {
        let (name, text) = (format!("ecs-agent/test-{}", uuid::Uuid::new_v4().simple()).leak(), "here");
        let mut early = Early {
            supervisor: Supervisor::default(),
            stop: CancellationToken::new(),
            health: Health::started(),
            bridges: watch::channel(Bridges::default()).0,
            rules: Arc::default(),
            has_own_network: false,
            log: LogControl::default(),
            requests: Arc::default(),
        };
        let routes = Router::new().fallback(async move || text);
        let settings = http::Settings::new("test", Address::Socket(name));
        early.serve(settings, Audience::host_only(), routes.into(), Serving::default(), Threads::Own);
        // The test has not awaited anything, so no part has run yet.
        let address = SocketAddr::from_abstract_name(&*name).unwrap();
        let _connected = UnixStream::connect_addr(&address).unwrap();
        early.stop.cancel();
        early.supervisor.watch(early.stop).await.unwrap();
    }
}
