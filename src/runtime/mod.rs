//! Builds the agent from its parts, and runs them. Read [`run`] first.
//!
//! This is the only module that may import all others. It holds no business rules: an `if` about a task's status belongs in
//! [`crate::core`].
//!
//! Its files are layered. At the bottom: `fatal`, `options`, `clock`, `lanes` and `supervisor`. Above them: the host (`gpu`,
//! `host`, `instance`), `settings`, `ownership`, and `edges`, the targets of all calls. Above these: the parts (`pulls`,
//! `resources`, `executor`, `core_loop`, `control_plane`, `health`, `early` and the others). At the top: `startup` and this file,
//! which no other file here imports.

mod clock;
mod control_plane;
mod core_loop;
mod data_dir;
mod diagnostics;
mod docker_lock;
mod early;
mod edges;
mod executor;
mod fatal;
mod gpu;
mod health;
mod healthcheck;
mod host;
mod instance;
mod lanes;
pub mod logging;
mod memory;
mod options;
mod ownership;
#[cfg(test)]
mod payloads;
mod pulls;
mod registry_credentials;
mod resources;
mod settings;
mod shutdown;
mod spot;
mod start_over;
mod startup;
mod supervisor;
mod trace;

use crate::config::Config;
use crate::core::agent_health::Step;
use crate::core::{self, Event};
use crate::docker::AuthMap;
use crate::ecs::report;
use crate::model::view::View;
use crate::model::with_causes;
use crate::store::Identity;
use crate::{acs, aws, docker};
use aws_credential_types::provider::SharedCredentialsProvider;
use clock::Clock;
use core_loop::CoreLoop;
pub use early::Early;
use edges::Edges;
use executor::Executor;
pub use fatal::Fatal;
pub use healthcheck::{healthcheck, healthcheck_http};
pub use memory::keep_out_of_core_files;
pub use options::Options;
use ownership::Ownership;
use pulls::Pulls;
use registry_credentials::Registries;
pub use shutdown::catch_harmless_signals;
pub use start_over::start_over;
use std::sync::Arc;
use supervisor::{Policy, Supervisor};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Capacity of the core loop's queue, in events. Senders wait while it is full.
const INBOX: usize = 1024;
/// Capacity of the queue of Docker's notices that are not yet passed on to the core loop.
const NOTICES: usize = 256;
/// Capacity of the queue of answers that wait for the ACS connection.
const OUTBOX: usize = 256;

/// The instance metadata service. It is needed before the configuration is complete, because the instance's user data may contain
/// part of the configuration.
#[derive(Debug)]
pub struct Metadata(aws::imds::Imds);

impl Metadata {
    /// Makes the client; sends nothing yet.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn new(config: &Config, options: Options) -> Result<Self, Fatal> {
        let settings = settings::imds(config, options.blackhole_imds);
        aws::imds::Imds::new(settings).map(Self).map_err(|error| Fatal::restartable(with_causes(&error)))
    }

    /// The instance's user data, which may hold configuration; `None` if there is none, or if it cannot be read.
    pub async fn user_data(&self) -> Option<String> {
        match self.0.get("user-data").await {
            Ok(text) => text,
            Err(aws::imds::ImdsError::Blackholed) => None,
            Err(error) => {
                tracing::warn!(%error, "the EC2 user data cannot be read; configuration in it is ignored");
                None
            }
        }
    }
}

/// Runs the agent until a signal stops it.
///
/// # Errors
/// [`Fatal`]: why the agent ended, with the exit code.
pub async fn run(config: Config, options: Options, metadata: Metadata, early: Early) -> Result<(), Fatal> {
    aws::install_tls();
    let stop = early.stop.clone();
    let signals = shutdown::on_signals(stop.clone());
    tokio::pin!(signals);
    // In a task of its own: a start that hangs must not keep a signal from ending the process.
    let mut start = JoinSet::new();
    start.spawn(build(config, options, metadata.0, early));
    let parts = tokio::select! {
        built = start.join_next() => match built {
            Some(Ok(parts)) => parts?,
            Some(Err(_)) | None => return Err(Fatal::restartable("the start failed because of an error in the agent".to_owned())),
        },
        // A stop during the start: the core loop does not run yet, so there is nothing to wind down.
        () = stop.cancelled() => return Ok(()),
        _ = &mut signals => return Ok(()),
    };
    tokio::select! {
        ended = parts.watch(stop.clone()) => ended.map_err(Fatal::restartable),
        _ = &mut signals => Ok(()), // the second signal
    }
}

/// Starts the agent: from the configuration to the running parts.
async fn build(config: Config, options: Options, imds: aws::imds::Imds, mut early: Early) -> Result<Supervisor, Fatal> {
    let config = &config;
    let (health, stop) = (early.health.clone(), early.stop.clone());
    startup::cloud_init(config, &imds, startup::CLOUD_INIT_RESULT.as_ref()).await?;
    let mut instance = instance::instance(config, &imds).await?;
    health.step(Step::Docker);
    let docker = startup::docker(config, &instance.region).await;
    health.docker_answered();
    health.step(Step::State);
    let ownership = Arc::new(Ownership::take(config, options, &docker).await?);
    early.keep_lock(ownership.clone());
    let (store, loaded) = startup::state(config, &instance).await?;
    let (docker, mut store, owners) = ownership.identify(config, docker, store, &loaded).await?;
    data_dir::check(&config.docker_host, &config.data_dir, &config.host_data_dir).await;
    let host = host::Host::probe(config, &docker).await?;
    startup::warm_pool(config, &imds, &health).await?;
    health.step(Step::Registration);
    let (sdk, credentials) = startup::clients(config, options, &instance.region).await?;
    let (ecs, signing) = (sdk.ecs(credentials.clone()), sdk.signing());
    let tags = startup::tags(config, &instance, &credentials, &sdk).await?;
    let offers = &host.offers;
    let identity = startup::register(config, &mut instance, tags, &ecs, offers, &mut store, loaded.identity).await?;
    let policy = core::Policy { owners, ..settings::policy(config, &offers.gpus)? };
    let state = core::recover(policy, loaded.host, loaded.tasks);
    let clock = Arc::new(Clock::started(state.latest_moment().unwrap_or_default(), sd_notify::watchdog_enabled()));
    let edges = Arc::new(Edges {
        docker,
        resources: startup::resources(config, sdk.clone(), &identity.cluster, &instance.id),
        registries: registries(config, sdk, credentials.clone()),
        roles: aws::roles::RoleStore::default(),
        ecs: ecs.clone(),
        report: report_settings(config, &identity),
        clock: clock.clone(),
        stop_timeout: config.container_stop_timeout,
        cgroups: host.cgroups.clone(),
        match_shared_volumes: config.shared_volume_match_full_config,
        ownership,
    });
    let (inbox, events) = mpsc::channel::<Event>(INBOX);
    let (to_acs, from_core) = mpsc::channel::<acs::Outgoing>(OUTBOX);
    let pulls = Pulls::new(clock.clone());
    // Readers see the saved state from the first answer on, not only after the core loop's first step.
    let (view, readers) = watch::channel(Arc::new(core::view(&state, clock.now())));

    let core = CoreLoop {
        inbox: events,
        trace: trace::Trace::restored(&state),
        state,
        store,
        view,
        executor: Executor::new(edges.clone(), pulls.clone(), inbox.clone(), to_acs),
        clock,
        unwritten: core_loop::Unwritten::default(),
        health: health.clone(),
    };
    let control = control_plane::ControlPlane {
        settings: acs::session::Settings {
            contact: health.contact(),
            ..control_plane::settings(config, &instance, &identity, &host, options, credentials, signing)
        },
        endpoints: control_plane::endpoints(ecs.clone(), &identity, &instance),
        edges: edges.clone(),
        inbox: inbox.clone(),
    };
    early.open_port(config.offhost_introspection, &identity, readers.clone(), pulls.clone(), edges.clock.clone());
    let spot = config.spot_draining.then(|| spot::Watch::new(imds, ecs, &identity));
    let mut supervisor = supervise(early, core, control, from_core, edges, inbox, readers, pulls);
    if let Some(spot) = spot {
        supervisor.add("spot", Policy::Restart, move || spot.clone().run(stop.clone()));
    }
    Ok(supervisor)
}

/// Settings for the reports of state changes to ECS.
fn report_settings(config: &Config, identity: &Identity) -> report::Settings {
    report::Settings {
        cluster: identity.cluster.clone(),
        exclude_ipv6_bindings: config.exclude_ipv6_port_binding,
        ipv6_only: false,
    }
}

/// All sources of registry credentials.
fn registries(config: &Config, sdk: aws::sdk::Sdk, credentials: SharedCredentialsProvider) -> Registries {
    Registries {
        auth: auth_map(config),
        ecr: aws::ecr::EcrTokens::new(sdk.clone(), credentials),
        secrets: aws::registry_secret::RegistrySecrets::new(sdk),
        mirrors: docker::Mirrors::new(&config.image_registry_mirrors),
    }
}

/// The operator's registry credentials. Logs their problems, except those that `config` has logged: that one half of the setting
/// is missing, or that it cannot be read at all.
fn auth_map(config: &Config) -> AuthMap {
    let (Some(auth_type), Some(data)) = (&config.engine_auth_type, &config.engine_auth_data) else {
        return AuthMap::default();
    };
    let (auth, problems) = AuthMap::parse(auth_type, data);
    for problem in problems {
        tracing::error!(problem, "ECS_ENGINE_AUTH_DATA");
    }
    for registry in auth.with_newline() {
        tracing::warn!(
            registry,
            "the password in ECS_ENGINE_AUTH_DATA ends in a new line (printf adds none, echo does)"
        );
    }
    auth
}

#[expect(clippy::too_many_arguments, reason = "the agent's parts meet only here")]
fn supervise(
    early: Early,
    core: CoreLoop,
    control: control_plane::ControlPlane,
    from_core: mpsc::Receiver<acs::Outgoing>,
    edges: Arc<Edges>,
    inbox: mpsc::Sender<Event>,
    readers: watch::Receiver<Arc<View>>,
    pulls: Pulls,
) -> Supervisor {
    let Early { mut supervisor, stop, health, bridge } = early;
    // The core loop owns the state and cannot be restarted in this process; the next process starts it again.
    let (mut core, stop_core) = (Some(core), stop.clone());
    supervisor.add("core", Policy::Fatal, move || {
        let (core, stop) = (core.take(), stop_core.clone());
        async move {
            let core = core.ok_or("it has ended already")?;
            core.run(stop, watchdog()).await.map_err(|error| with_causes(&error))
        }
    });
    let (outbox, stop_acs) = (Arc::new(tokio::sync::Mutex::new(from_core)), stop.clone());
    supervisor.add("acs", Policy::Restart, move || {
        let (control, outbox, stop) = (control.clone(), outbox.clone(), stop_acs.clone());
        async move { control.run(outbox, stop).await }
    });
    let reopened = Arc::new(Notify::new());
    let (watched, reopens, stop_events) = (edges.clone(), reopened.clone(), stop.clone());
    supervisor.add("docker events", Policy::Restart, move || {
        watch_docker(watched.clone(), inbox.clone(), reopens.clone(), stop_events.clone())
    });
    let (bridge, stop_health) = (Arc::new(bridge), stop.clone());
    supervisor.add("docker health", Policy::Restart, move || {
        let (edges, health, bridge) = (edges.clone(), health.clone(), bridge.clone());
        let (reopened, stop) = (reopened.clone(), stop_health.clone());
        async move { health::watch_docker(&edges.docker, &health, &bridge, &reopened, stop).await }
    });
    supervisor.add("diagnostics", Policy::Restart, move || {
        diagnostics::on_signal(readers.clone(), pulls.clone(), stop.clone())
    });
    supervisor
}

/// Passes on what the container engine does, as events for the core.
async fn watch_docker(
    edges: Arc<Edges>,
    inbox: mpsc::Sender<Event>,
    reopened: Arc<Notify>,
    stop: CancellationToken,
) -> supervisor::PartResult {
    let (sender, mut notices) = mpsc::channel(NOTICES);
    let pass_on = async {
        while let Some(notice) = notices.recv().await {
            let event = match notice {
                docker::Notice::Seen(observation) => Event::Observed(observation),
                docker::Notice::Removed { task, container, runtime_id, exit_code } => {
                    Event::Removed { task, container, runtime_id, exit_code }
                }
                docker::Notice::EventsMissed => {
                    reopened.notify_one();
                    Event::EventsMissed
                }
            };
            if inbox.send(event).await.is_err() {
                break; // the core loop has ended
            }
        }
    };
    tokio::select! {
        () = edges.docker.watch(sender) => Err("the stream of events has ended".to_owned()),
        () = pass_on => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

/// The attributes that a registration would send, one per line: the name, and the value if there is one.
///
/// # Errors
/// The offers of this host cannot be determined. A registration would fail as well.
pub async fn attributes_text(config: &Config) -> Result<String, Fatal> {
    aws::install_tls();
    let docker = startup::docker(config, config.region.as_deref().unwrap_or_default()).await;
    let offers = host::Offers::assumed(config, &docker).await?;
    let attributes = crate::ecs::attributes::attributes(&settings::capabilities(config, &offers));
    let lines = attributes.into_iter().map(|attribute| match attribute.value {
        Some(value) => format!("{}\t{value}\n", attribute.name),
        None => format!("{}\n", attribute.name),
    });
    Ok(lines.collect())
}

/// The function that notifies systemd: its first call says that the agent is up, each later one that the core loop is alive.
/// Without systemd it does nothing.
fn watchdog() -> impl FnMut() {
    let mut is_up = false;
    move || {
        let state = if is_up { sd_notify::NotifyState::Watchdog } else { sd_notify::NotifyState::Ready };
        is_up = true;
        let _ = sd_notify::notify(&[state]);
    }
}
