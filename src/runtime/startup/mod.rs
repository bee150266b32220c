//! The start, from the configuration to the running parts. [`build`] has the order, `steps` has most of the steps.
//!
//! The order is the Go agent's (`golden/startup.order.json`): identity of the instance, Docker, saved state, registration.
//!
//! Reading order: this file, `steps`, `settings` (the configuration and the host's offers become the settings of the core and
//! of the edges), `offers` (what this host offers to tasks), `instance`, `metadata` (the client of the metadata service,
//! needed before the configuration is complete), `container_form` (what a container of the agent lacks), `ownership` (the lock on the engine, and whose containers are ours).

pub(super) mod container_form;
pub(super) mod instance;
pub(super) mod metadata;
pub(super) mod offers;
pub(super) mod ownership;
pub(super) mod settings;
pub(super) mod steps;

use super::clock::Clock;
use super::core_loop::{self, CoreLoop};
use super::execute::edges::Edges;
use super::execute::executor::Executor;
use super::execute::pulls::Pulls;
use super::execute::registry_credentials::Registries;
use super::parts::control_plane::{self, ControlPlane};
use super::parts::telemetry::Telemetry;
use super::parts::{self, Early};
use super::supervisor::Supervisor;
use super::timing::Timing;
use super::{Fatal, Options, trace};
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::roles::RoleStore;
use crate::aws::services::ecr::EcrTokens;
use crate::aws::services::registry_secret::RegistrySecrets;
use crate::config::{Config, Problem, Severity};
use crate::docker;
use crate::docker::{AuthMap, Docker};
use crate::host::firewall;
use crate::http;
use crate::network::Network;
use crate::resources::Resources;
use crate::store::Identity;
use aws_credential_types::provider::SharedCredentialsProvider;
use container_form::ContainerForm;
use ecs_core::agent_health::Step;
use ecs_core::model::Bridges;
use ecs_core::{Event, State};
use instance::Instance;
use metadata::Metadata;
use offers::{Host, Offers};
use ownership::Ownership;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Capacity of the core loop's queue, in events. Senders wait while it is full.
const INBOX: usize = 1024;
/// Capacity of the queue of answers that wait for the ACS connection.
const OUTBOX: usize = 256;

/// Starts the agent: from the configuration to the running parts.
pub(super) async fn build(
    config: Config,
    options: Options,
    metadata: Metadata,
    mut early: Early,
) -> Result<Supervisor, Fatal> {
    let (config, imds) = (&config, metadata.0);
    let health = early.health.clone();
    let form = ContainerForm::check(config).await;
    steps::cloud_init(config, &imds, steps::CLOUD_INIT_RESULT.as_ref()).await?;
    let mut instance = instance::instance(config, &imds).await?;
    health.step(Step::Docker);
    let docker = steps::docker(config, &instance.region).await;
    health.docker_answered();
    health.step(Step::State);
    let ownership = Arc::new(Ownership::take(config, options, &docker).await?);
    early.keep_lock(ownership.clone());
    early.change_host(config, &form);
    let (store, loaded) = steps::state(config, &instance).await?;
    let (docker, mut store, owners) = ownership.identify(config, docker, store, &loaded).await?;
    let host = Host::probe(config, &docker, &form, &instance).await?;
    steps::warm_pool(config, &imds, &health).await?;
    health.step(Step::Registration);
    let (sdk, credentials) = steps::clients(config, options, &instance.region).await?;
    let (ecs, signing, contact) = (sdk.ecs(credentials.clone()), sdk.signing(), health.contact());
    let tags = steps::tags(config, &instance, &credentials, &sdk).await?;
    let identity =
        steps::register(config, &mut instance, tags, &ecs, &host.offers, &mut store, loaded.identity).await?;
    let policy = ecs_core::Policy { owners, ..settings::policy(config, &host.offers.gpus)? };
    let state = ecs_core::recover(policy, loaded.host, loaded.tasks);
    let clock = Arc::new(Clock::started(state.latest_moment().unwrap_or_default(), sd_notify::watchdog_enabled()));
    let edges = Arc::new(Edges {
        docker,
        resources: Resources::new(sdk.clone(), settings::resources(config, &identity, &instance)),
        registries: registries(config, sdk.clone(), credentials.clone()),
        roles: RoleStore::default(),
        ecs: ecs.clone(),
        report: settings::report(config, &identity),
        clock: clock.clone(),
        stop_timeout: config.container_stop_timeout,
        network: Network::new(settings::networks::settings(config)),
        cgroups: host.cgroups.clone(),
        match_shared_volumes: config.shared_volume_match_full_config,
        ownership,
        metrics: Arc::default(),
    });
    let ((inbox, events), (to_acs, from_core)) = (mpsc::channel::<Event>(INBOX), mpsc::channel(OUTBOX));
    let pulls = Pulls::new(clock.clone());
    // Readers see the saved state from the first answer on, not only after the core loop's first step.
    let (view, readers) = watch::channel(Arc::new(ecs_core::view(&state, clock.now())));

    let core = CoreLoop {
        inbox: events,
        trace: trace::Trace::restored(&state),
        timing: timing(config, &mut early, &identity, &instance.region, &state, &edges),
        state,
        store,
        view,
        executor: Executor::new(edges.clone(), pulls.clone(), inbox.clone(), to_acs.clone()),
        clock,
        unwritten: core_loop::Unwritten::default(),
        health: health.clone(),
    };
    let connection = settings::acs::connection(config, &instance.region, options, credentials, signing, contact);
    let control = ControlPlane {
        settings: settings::acs::session(config, &instance, &identity, &host, connection),
        endpoints: control_plane::endpoints(ecs.clone(), &identity, &instance),
        edges: edges.clone(),
        inbox: inbox.clone(),
        signals: Arc::default(),
    };
    let statistics = parts::serve_containers(&mut early, config, sdk, &identity, &instance, &edges, &readers).await;
    let telemetry = Telemetry::beside(&control, health.telemetry(), readers.clone(), statistics);
    early.open_ports(config, &identity, &readers, &pulls, core.timing.timings(), &edges, &inbox, &to_acs);
    early.watch_spot(parts::spot::Watch::new(config, imds, ecs, &identity, health.recommendations()));
    Ok(parts::supervise(early, core, control, telemetry, from_core, edges, inbox, readers, pulls, config))
}

/// What records when tasks got how far, and sends traces if somebody wants them.
fn timing(
    config: &Config,
    early: &mut Early,
    identity: &Identity,
    region: &str,
    state: &State,
    edges: &Edges,
) -> Timing {
    let (exporter, outbox) = settings::traces::exporter(config, identity, region).unzip();
    early.export_traces(exporter);
    let metrics = edges.metrics.clone();
    Timing::restored(state, edges.clock.clone(), Arc::new(move |phase, took| metrics.phase(phase, took)), outbox)
}

/// All sources of registry credentials.
fn registries(config: &Config, sdk: Sdk, credentials: SharedCredentialsProvider) -> Registries {
    Registries {
        auth: auth_map(config),
        ecr: EcrTokens::new(sdk.clone(), credentials),
        secrets: RegistrySecrets::new(sdk),
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
        if problem.is_note {
            tracing::info!("ECS_ENGINE_AUTH_DATA: {problem}");
        } else {
            tracing::error!("ECS_ENGINE_AUTH_DATA: {problem}");
        }
    }
    for registry in auth.with_newline() {
        tracing::warn!(
            registry,
            "the password in ECS_ENGINE_AUTH_DATA ends in a new line (printf adds none, echo does)"
        );
    }
    auth
}

/// The problems with the operator's registry credentials that the start logs, for a check without a start. Their place is empty.
pub fn registry_problems(config: &Config) -> Vec<Problem> {
    const NAME: &str = "ECS_ENGINE_AUTH_DATA";
    let (Some(auth_type), Some(data)) = (&config.engine_auth_type, &config.engine_auth_data) else {
        return Vec::new();
    };
    let problem = |shape: String, expected: &str, instead: &str, severity: Severity| Problem {
        variable: NAME.to_owned(),
        place: String::new(),
        shape,
        expected: expected.to_owned(),
        instead: instead.to_owned(),
        severity,
    };
    let (auth, found) = AuthMap::parse(auth_type, data);
    let unusable = found.into_iter().map(|found| {
        let severity = if found.is_note { Severity::Notice } else { Severity::Changes };
        problem(found.shape, &found.expected, found.instead, severity)
    });
    let with_newline = auth.with_newline().map(|registry| {
        let shape = format!("the password of registry \"{registry}\" ends in a new line");
        problem(shape, "no new line (printf adds none, echo does)", "it is sent as it is", Severity::Notice)
    });
    unusable.chain(with_newline).collect()
}

/// How long Docker is asked for its bridges by a command.
const BRIDGES_LIMIT: Duration = Duration::from_secs(10);

/// What the firewall's rules depend on, for a command of a person: also if the configuration leaves the rules to others. Docker is
/// asked for its bridges once; if it does not answer, they are as they were `before`, and the default one has the usual name.
pub async fn firewall_settings(config: &Config, before: Bridges) -> firewall::Settings {
    let bridges = async {
        let docker =
            Docker::connect(settings::docker(config, config.region.as_deref().unwrap_or_default())).await.ok()?;
        let found = docker.bridges().await.ok()?;
        Some(http::with_containers_only(found, |_, _| {}))
    };
    let bridges = tokio::time::timeout(BRIDGES_LIMIT, bridges).await.ok().flatten().unwrap_or(before);
    firewall::Settings { bridges, ..parts::firewall::settings(config) }
}

/// The attributes that a registration would send, one per line: the name, and the value if there is one.
///
/// # Errors
/// The offers of this host cannot be determined. A registration would fail as well.
pub async fn attributes_text(config: &Config, metadata: &Metadata) -> Result<String, Fatal> {
    crate::aws::install_tls();
    // A person waits for the answer, so there is one attempt only.
    let docker = Docker::connect(settings::docker(config, config.region.as_deref().unwrap_or_default())).await;
    let docker = docker.map_err(|error| Fatal::restartable(format!("Could not connect to docker daemon: {error}")))?;
    let [vpc_id, subnet_id] = instance::place(config, &metadata.0).await?;
    let instance = Instance { vpc_id, subnet_id, ..Instance::default() };
    let offers = Offers::assumed(config, &docker, &instance).await?;
    let attributes = crate::ecs::attributes::attributes(&settings::capabilities(config, &offers, &instance));
    let lines = attributes.into_iter().map(|attribute| match attribute.value {
        Some(value) => format!("{}\t{value}\n", attribute.name),
        None => format!("{}\n", attribute.name),
    });
    Ok(lines.collect())
}
