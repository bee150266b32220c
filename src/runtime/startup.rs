//! From a configuration to everything the agent needs to run: who it is, its state, its registration.
//!
//! The order is the Go agent's (`golden/startup.order.json`): identity of the instance, Docker, saved state, registration. What fails
//! here ends the process with the exit code the service manager knows (spec `registration.md` §1).

use super::gpu::Gpus;
use super::health::Health;
use super::host::{self, Host, Offers};
use super::{Fatal, Options};
use crate::acs::HostFacts;
use crate::aws::credentials::{self, Keys};
use crate::aws::identity::{self, SignedDocument};
use crate::aws::imds::{self, Imds, ImdsError};
use crate::aws::lifecycle::{self, WarmPoolError};
use crate::aws::proxy::ProxySettings;
use crate::aws::sdk::{AgentName, Sdk};
use crate::aws::signing::Signing;
use crate::aws::tags;
use crate::config::{Config, ImagePullBehavior, RetryMode, Role, TagSource};
use crate::core::agent_health::Step;
use crate::core::{Capacity, ImagePolicy, Policy, PullBehavior, UntrackedPolicy};
use crate::docker::{self, Docker};
use crate::ecs::attributes::{Capabilities, attributes};
use crate::ecs::register::{self, HostResources, Registration};
use crate::lane::{self, Lane, read_file};
use crate::model::{Owners, Secret, Span, address, with_causes};
use crate::resources::{self, Resources};
use crate::store::{Identity, Loaded, Store, StoreError};
use crate::version;
use aws_credential_types::provider::SharedCredentialsProvider;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cluster an instance is in when the operator names none.
pub(super) const DEFAULT_CLUSTER: &str = "default";
/// Between two tries to reach Docker.
const DOCKER_RETRY: aws_retry::Shape =
    aws_retry::Shape { initial: Duration::from_secs(1), max: Duration::from_secs(30), factor: 1.5, jitter: 0.2 };
/// Where the SSM agent's credentials are for an agent in ecs-init's container, and on the host.
const ROTATING: &str = "/rotatingcreds/credentials";
const ROTATING_ON_HOST: &str = "/root/.aws/credentials";
/// Threads that look at files at the start; each question has some of its own.
const FILES: lane::Settings = lane::Settings { threads: 1, spare: 0, limit: Duration::from_secs(10) };
/// The thread that opens and checks the state. Its file is small, and a disk may be slow.
const STATE: lane::Settings = lane::Settings { threads: 1, spare: 0, limit: Duration::from_secs(120) };
/// Bytes of a file that is read at the start; larger ones are something else.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// Between two tries to write the state.
const DISK_RETRY: aws_retry::Shape =
    aws_retry::Shape { initial: Duration::from_secs(1), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };
/// Where ports are chosen from if the kernel does not say.
const DYNAMIC_PORTS: RangeInclusive<u16> = 49153..=65535;

use crate::aws::backoff as aws_retry;

/// Where files are looked at during the start: a path that hangs is given up, and holds nothing else.
pub(super) fn files() -> Lane {
    Lane::new("files of the start", FILES)
}

/// Where the state is opened and written during the start.
pub(super) fn disk() -> Lane {
    Lane::new("state", STATE)
}

/// Who this instance is, as far as its metadata tells.
#[derive(Debug, Default)]
pub(super) struct Instance {
    /// EC2 instance id; empty if unknown.
    pub(super) id: String,
    /// Region.
    pub(super) region: String,
    /// Availability zone id; empty if unknown.
    pub(super) zone_id: String,
    /// Identity document; `None` for external instances.
    pub(super) document: Option<SignedDocument>,
}

/// Where cloud-init writes how it went.
pub(super) const CLOUD_INIT_RESULT: &str = "/var/lib/cloud/data/result.json";

/// Refuses to start where cloud-init found no user data although there is some: `ecs.config` was not written then, and the instance
/// would join the wrong cluster (spec `registration.md` §2).
pub(super) async fn cloud_init(config: &Config, imds: &Imds, result: &Path) -> Result<(), Fatal> {
    let (path, shown) = (result.to_owned(), result.display().to_string());
    let text = files().run(&shown, move || read_file(&path, MAX_FILE)).await;
    let found_nothing = matches!(text, Ok(Ok(text)) if found_no_source(&text));
    if config.external || !found_nothing {
        return Ok(());
    }
    match imds.get("user-data").await {
        Ok(Some(data)) if !data.is_empty() => Err(Fatal::terminal(format!(
            "cloud-init ran without a data source ({}), but this instance has user data: it was not applied",
            result.display()
        ))),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn found_no_source(result: &[u8]) -> bool {
    let result: serde_json::Value = serde_json::from_slice(result).unwrap_or_default();
    result["v1"]["datasource"] == "DataSourceNone"
}

/// Waits until Auto Scaling wants the instance in service, if the operator asked for that.
pub(super) async fn warm_pool(config: &Config, imds: &Imds, health: &Health) -> Result<(), Fatal> {
    if !config.warm_pools_check {
        return Ok(());
    }
    health.step(Step::WarmPool);
    match lifecycle::in_service(imds).await {
        Ok(()) | Err(WarmPoolError::Imds(ImdsError::Blackholed)) => Ok(()),
        Err(error) => Err(Fatal::terminal(with_causes(&error))),
    }
}

/// Tags of the container instance: those of the EC2 instance, if they are wanted, and over them the operator's.
pub(super) async fn tags(
    config: &Config,
    instance: &Instance,
    credentials: &SharedCredentialsProvider,
    sdk: &Sdk,
) -> Result<BTreeMap<String, String>, Fatal> {
    let mut tags = match config.propagate_tags_from {
        TagSource::None => BTreeMap::new(),
        TagSource::Ec2Instance if instance.id.is_empty() => {
            return Err(Fatal::restartable(
                "the tags of the EC2 instance are wanted, but its id is unknown".to_owned(),
            ));
        }
        TagSource::Ec2Instance => {
            let found = tags::of_instance(sdk, credentials, &instance.id).await;
            found.map_err(|error| Fatal::restartable(with_causes(&error)))?
        }
    };
    tags.extend(config.container_instance_tags.clone());
    Ok(tags)
}

/// Asks the metadata service.
pub(super) async fn instance(config: &Config, imds: &Imds) -> Result<Instance, Fatal> {
    if config.external {
        let region = config.region.clone().ok_or_else(region_missing)?;
        return Ok(Instance { region, ..Instance::default() });
    }
    let id = known(identity::instance_id(imds).await, "the EC2 instance id is unknown");
    let zone_id = identity::zone_id(imds).await.ok().flatten();
    let document = match config.no_identity_document {
        true => None,
        false => known(identity::document(imds).await, "the instance identity document is unknown"),
    };
    let region = match &config.region {
        Some(region) => region.clone(),
        None if config.no_identity_document => {
            identity::region(imds).await.ok().flatten().ok_or_else(region_missing)?
        }
        None => document.as_ref().and_then(SignedDocument::region).ok_or_else(region_missing)?,
    };
    Ok(Instance { id: id.unwrap_or_default(), region, zone_id: zone_id.unwrap_or_default(), document })
}

/// What the metadata service says; what it does not say is logged, unless the operator wants it not to be asked.
fn known<T>(answer: Result<Option<T>, ImdsError>, otherwise: &str) -> Option<T> {
    match answer {
        Ok(answer) => answer,
        Err(ImdsError::Blackholed) => None,
        Err(error) => {
            tracing::warn!(%error, "{otherwise}");
            None
        }
    }
}

fn region_missing() -> Fatal {
    Fatal::restartable(crate::config::region_missing().to_string())
}

/// Where the metadata service is.
pub(super) fn imds(config: &Config, blackholed: bool) -> imds::Settings {
    let endpoint = Some(config.imds_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    imds::Settings { endpoint, blackholed: blackholed || config.external }
}

/// One way to make clients, and the credentials of the instance.
pub(super) async fn clients(
    config: &Config,
    options: Options,
    region: &str,
) -> Result<(Sdk, SharedCredentialsProvider), Fatal> {
    let signing = Signing::default();
    let settings = crate::aws::sdk::Settings {
        region: region.to_owned(),
        backend_host: config.backend_host.clone(),
        endpoint_url: config.aws_endpoint_url.clone(),
        endpoint_url_ecs: config.aws_endpoint_url_ecs.clone(),
        endpoint_url_ecr: config.aws_endpoint_url_ecr.clone(),
        endpoint_url_secrets_manager: config.aws_endpoint_url_secrets_manager.clone(),
        endpoint_url_ssm: config.aws_endpoint_url_ssm.clone(),
        endpoint_url_s3: config.aws_endpoint_url_s3.clone(),
        endpoint_url_ec2: config.aws_endpoint_url_ec2.clone(),
        dual_stack: config.dual_stack,
        fips: config.fips,
        host_fips: host::is_in_fips_mode(host::FIPS_ENABLED.as_ref()),
        max_attempts: config.max_attempts,
        adaptive_retry: config.retry_mode == RetryMode::Adaptive,
        accept_insecure_cert: options.accept_insecure_cert,
        signing: signing.clone(),
        proxy: proxy(config),
        agent: agent_name(config),
    };
    let sdk = Sdk::new(settings).map_err(|error| Fatal::restartable(error.to_string()))?;
    let keys = config.access_key_id.as_ref().zip(config.secret_access_key.as_ref()).map(|(id, secret)| Keys {
        access_key_id: id.clone(),
        secret_access_key: secret.clone(),
        session_token: config.session_token.clone().unwrap_or_else(|| Secret::from("")),
    });
    let chain = credentials::Settings {
        region: region.to_owned(),
        keys,
        external: config.external,
        rotating_file: PathBuf::from(if options.role == Role::Service { ROTATING_ON_HOST } else { ROTATING }),
        rotating_profile: config.alternate_credential_profile.clone(),
        imds: imds(config, false),
        fips: config.fips,
        dual_stack: config.dual_stack,
        signing,
    };
    let credentials = credentials::instance_chain(chain, sdk.http())
        .await
        .map_err(|error| Fatal::restartable(format!("no AWS credentials: {error}")))?;
    Ok((sdk, credentials))
}

/// What the agent calls itself towards AWS.
pub(super) fn agent_name(config: &Config) -> AgentName {
    AgentName {
        version: version::SPOKEN.to_owned(),
        hash: version::COMMIT.to_owned(),
        os_family: config.detailed_os_family.clone(),
    }
}

/// The operator's proxies.
pub(super) fn proxy(config: &Config) -> ProxySettings {
    let proxy = config.proxy();
    ProxySettings { http: proxy.http, https: proxy.https, no_proxy: proxy.no_proxy }
}

/// Connects to Docker; waits for it as long as it takes, also for one that is too old or too new, which somebody may be about to
/// exchange. The Go agent ends, to be started again (1), or for good (5).
pub(super) async fn docker(config: &Config, region: &str) -> Docker {
    let settings = docker::Settings {
        endpoint: config.docker_host.clone(),
        cluster: cluster(config),
        region: Some(region.to_owned()),
        create_timeout: config.container_create_timeout,
        start_timeout: config.container_start_timeout,
        pull_timeout: config.image_pull_timeout,
        pull_inactivity: config.image_pull_inactivity_timeout,
        manifest_timeout: config.manifest_pull_timeout,
        dynamic_ports: dynamic_ports(config),
        pause_archive: config.pause_archive.clone(),
        pause_labels: config.pause_labels.clone(),
        nvidia_runtime: config.nvidia_runtime.clone(),
        requests_gpus: config.external && config.gpus,
        ipv6_only: false,
        log_router_async: config.firelens_async,
        limits: docker::Limits::default(),
    };
    let mut retry = aws_retry::Backoff::new(DOCKER_RETRY);
    loop {
        match Docker::connect(settings.clone()).await {
            Ok(docker) => return docker,
            Err(error) => {
                let pause = retry.pause();
                let (endpoint, pause_s) = (address::shown(&settings.endpoint), pause.as_secs());
                tracing::warn!(%error, %endpoint, pause_s, "Docker does not answer (DOCKER_HOST); trying again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The configured cluster, or `default`.
pub(super) fn cluster(config: &Config) -> String {
    config.cluster.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_CLUSTER.to_owned())
}

fn dynamic_ports(config: &Config) -> RangeInclusive<u16> {
    let kernel = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut ends = text.split_whitespace().map(str::parse::<u16>);
        Some(ends.next()?.ok()?..=ends.next()?.ok()?)
    };
    match config.dynamic_host_port_range {
        Some(range) => range.first..=range.last,
        None => kernel().unwrap_or(DYNAMIC_PORTS),
    }
}

/// Opens the state and checks that it belongs to this instance and cluster (spec `state.md` §10).
pub(super) async fn state(config: &Config, instance: &Instance) -> Result<(Store, Loaded), Fatal> {
    if !config.checkpoint {
        tracing::info!("state is not kept (ECS_CHECKPOINT): each start registers a new container instance");
        let store = Store::in_memory().map_err(|error| Fatal::restartable(error.to_string()))?;
        return Ok((store, Loaded::default()));
    }
    let (mut store, loaded) = open_store(&config.data_dir).await?;
    let Some(saved) = &loaded.identity else { return Ok((store, loaded)) };
    if instance.id.is_empty() && !saved.ec2_instance_id.is_empty() {
        tracing::warn!(saved = saved.ec2_instance_id, "the state is taken for this instance's, whose id is unknown");
    }
    if !saved.ec2_instance_id.is_empty() && !instance.id.is_empty() && saved.ec2_instance_id != instance.id {
        tracing::warn!(
            saved = saved.ec2_instance_id,
            current = instance.id,
            "the saved state is of another EC2 instance (an image made from a running one?); it is dropped"
        );
        store.clear().map_err(|error| Fatal::restartable(with_causes(&error)))?;
        return Ok((store, Loaded::default()));
    }
    let wanted = cluster(config);
    if saved.cluster != wanted {
        return Err(Fatal::terminal(format!(
            "the saved state is of cluster '{}', but ECS_CLUSTER names '{wanted}'; set it back, or move {} away to register anew",
            saved.cluster,
            config.data_dir.display()
        )));
    }
    Ok((store, loaded))
}

/// Opens the store; waits for space on its disk, since an agent that cannot remember must not register: each try would be one more
/// container instance.
async fn open_store(directory: &std::path::Path) -> Result<(Store, Loaded), Fatal> {
    let (mut retry, lane) = (aws_retry::Backoff::new(DISK_RETRY), disk());
    loop {
        let (path, shown) = (directory.to_owned(), directory.display().to_string());
        let opened = lane.run(&shown, move || Store::open(&path)).await.map_err(|error| {
            Fatal::restartable(format!("the state (ECS_DATADIR) cannot be opened: {}", with_causes(&error)))
        })?;
        match opened {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_full() => wait_for_disk(&error, &mut retry).await,
            Err(error @ StoreError::Newer { .. }) => return Err(Fatal::terminal(with_causes(&error))),
            Err(error) => return Err(Fatal::restartable(with_causes(&error))),
        }
    }
}

async fn wait_for_disk(error: &StoreError, retry: &mut aws_retry::Backoff) {
    let pause = retry.pause();
    let (why, pause_ms) = (with_causes(error), pause.as_millis());
    tracing::error!(why, pause_ms, "the state cannot be written (ECS_DATADIR); waiting until it can");
    tokio::time::sleep(pause).await;
}

/// Registers the instance, or renews its registration, and remembers who it is.
pub(super) async fn register(
    config: &Config,
    instance: &mut Instance,
    tags: BTreeMap<String, String>,
    ecs: &aws_sdk_ecs::Client,
    offers: &Offers,
    store: &mut Store,
    saved: Option<Identity>,
) -> Result<Identity, Fatal> {
    let registration = Registration {
        cluster: config.cluster.clone(),
        container_instance: saved.as_ref().map(|saved| saved.container_instance_arn.clone()),
        identity: instance.document.take(),
        resources: host_resources(config)?,
        custom_attributes: config.instance_attributes.clone(),
        attributes: attributes(&capabilities(config, offers)),
        gpus: offers.gpus.ids.clone(),
        tags,
        client_token: uuid::Uuid::new_v4().to_string(),
    };
    let registered = register::register(ecs, &registration)
        .await
        .map_err(|error| Fatal { code: error.exit_code(), message: with_causes(&error) })?;
    let (arn, saved_id) = match saved {
        Some(saved) => (saved.container_instance_arn, saved.ec2_instance_id),
        None => (registered.container_instance, String::new()),
    };
    tracing::info!(arn, cluster = registered.cluster, "registered");
    let identity = Identity {
        cluster: cluster(config),
        container_instance_arn: arn,
        // Unknown just now: the saved one still tells an image made from this instance.
        ec2_instance_id: if instance.id.is_empty() { saved_id } else { instance.id.clone() },
        availability_zone: registered.availability_zone,
        agent_version: version::OWN.to_owned(),
    };
    let mut retry = aws_retry::Backoff::new(DISK_RETRY);
    while let Err(error) = store.save_identity(&identity) {
        wait_for_disk(&error, &mut retry).await; // not registered once more by a restart
    }
    Ok(identity)
}

/// What this host and its operator allow.
pub(super) fn capabilities(config: &Config, offers: &Offers) -> Capabilities {
    Capabilities {
        docker_api_versions: offers.docker_api_versions.clone(),
        pause_image: docker::makes_pause_image() || offers.pause_archive,
        gpu_driver: offers.gpus.driver.clone(),
        log_drivers: config.logging_drivers.clone(),
        privileged_disabled: config.privileged_disabled,
        selinux: config.selinux_capable,
        apparmor: config.apparmor_capable,
        task_limits: offers.task_limits,
        volume_drivers: offers.volume_drivers.clone(),
        volume_plugin: config.volume_plugin_capabilities.clone(),
        health_check_disabled: config.docker_health_check_disabled,
        os_family_detailed: config.detailed_os_family.clone(),
        agent_version: version::OWN.to_owned(),
        external: config.external,
        gmsa: config.gmsa_in_domain(),
        gmsa_domainless: config.gmsa && offers.credentials_fetcher,
    }
}

fn host_resources(config: &Config) -> Result<HostResources, Fatal> {
    // Those the agent may run on, whatever quota it has itself: its tasks have their own.
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count().max(1));
    let memory = register::memory_for_tasks(total_memory(), u32::from(config.reserved_memory_mib))
        .map_err(|error| Fatal { code: error.exit_code(), message: with_causes(&error) })?;
    Ok(HostResources {
        cpus,
        memory_mib: memory,
        tcp_ports: config.reserved_ports.clone(),
        udp_ports: config.reserved_ports_udp.clone(),
    })
}

/// What a task becomes on this host.
pub(super) fn host_facts(config: &Config, region: &str, host: &Host) -> HostFacts {
    HostFacts {
        region: region.to_owned(),
        host_data_dir: config.host_data_dir.to_string_lossy().into_owned(),
        task_limits: host.offers.task_limits,
        memory_for_containers: config.propagate_task_memory_limit && host.cgroups.is_unified(),
        volume_plugin: config.volume_plugin_capabilities.iter().cloned().collect(),
        is_external: config.external,
        gpus: config.gpus,
        inferentia: config.inferentia,
        credential_specs: config.gmsa,
    }
}

/// What makes secrets, environment files, log routers and Kerberos tickets.
pub(super) fn resources(config: &Config, sdk: Sdk, cluster: &str, instance_id: &str) -> Resources {
    let settings = resources::Settings {
        data_dir: config.data_dir.clone(),
        cluster: cluster.to_owned(),
        instance_id: instance_id.to_owned(),
        credentials_fetcher: config.credentials_fetcher.clone(),
    };
    Resources::new(sdk, settings)
}

/// Bytes of memory of this host; 0 if it cannot be read.
fn total_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Waits and limits of the planner.
pub(super) fn policy(config: &Config, gpus: &Gpus) -> Result<Policy, Fatal> {
    let host = host_resources(config)?;
    Ok(Policy {
        capacity: Capacity {
            cpu: u64::from(host.cpus) * 1024,
            memory: u64::from(host.memory_mib),
            reserved_tcp: host.tcp_ports.into_iter().collect(),
            reserved_udp: host.udp_ports.into_iter().collect(),
            gpus: gpus.ids.iter().cloned().collect(),
        },
        pull: match config.image_pull_behavior {
            ImagePullBehavior::Default => PullBehavior::Default,
            ImagePullBehavior::Always => PullBehavior::Always,
            ImagePullBehavior::Once => PullBehavior::Once,
            ImagePullBehavior::PreferCached => PullBehavior::PreferCached,
        },
        pull_upfront: config.pull_upfront,
        cleanup_wait: config.task_cleanup_wait,
        cleanup_jitter: config.task_cleanup_wait_jitter,
        inventory_every: Span::secs(300),
        images: image_policy(config),
        owners: Owners::default(), // known when the state was read
    })
}

/// Images of agents, which stay whatever the operator says (spec `images.md` §7.4): this one's, as `examples/docker/build` names it, and
/// the Go agent's, to which an operator may want to go back.
const AGENT_IMAGES: [&str; 2] = ["ecs-agent:latest", "amazon/amazon-ecs-agent:latest"];

fn image_policy(config: &Config) -> ImagePolicy {
    let excluded = config.exclude_untracked_images.iter().cloned();
    ImagePolicy {
        enabled: !config.image_cleanup_disabled,
        interval: config.image_cleanup_interval,
        minimum_age: config.image_minimum_cleanup_age,
        per_cycle: u32::try_from(config.images_per_cleanup).unwrap_or(u32::MAX),
        exclude: excluded.chain(AGENT_IMAGES.into_iter().chain([docker::pause_image()]).map(str::to_owned)).collect(),
        untracked: config.untracked_image_cleanup.then(|| UntrackedPolicy {
            // A negative number is none; to the Go agent it means all.
            containers_per_cycle: u32::try_from(config.containers_per_cleanup.max(0)).unwrap_or(u32::MAX),
            minimum_age: config.foreign_image_minimum_cleanup_age,
        }),
        disk: config.image_disk_high_percent.map(|high| {
            let low = config.image_disk_low_percent.unwrap_or(high);
            (high, low.min(high))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_agents_stay_whatever_the_operator_says() {
        let build = include_str!("../../examples/docker/build");
        let named = build.lines().find_map(|line| line.strip_prefix("image=\"${1:-")?.strip_suffix("}\""));
        for exclude in ["", "[\"mine:1\"]"] {
            let variables = [("AWS_DEFAULT_REGION", "us-west-2"), ("ECS_EXCLUDE_UNTRACKED_IMAGE", exclude)];
            let sources = crate::config::Sources::open(crate::config::Environment::new(variables), Role::Agent);
            let policy = image_policy(&sources.load(None).config.expect("it can be used"));
            for name in
                [named.expect("the script has a default"), "amazon/amazon-ecs-agent:latest", docker::pause_image()]
            {
                assert!(policy.exclude.contains(name), "{name}: {:?}", policy.exclude);
            }
        }
    }

    #[test]
    fn only_an_instance_whose_user_data_was_not_found_is_refused() {
        for (result, refused) in [
            (r#"{"v1": {"datasource": "DataSourceNone", "errors": []}}"#, true),
            (r#"{"v1": {"datasource": "DataSourceEc2Local"}}"#, false),
            (r#"{"v1": {}}"#, false),
            ("no JSON", false),
        ] {
            assert_eq!(found_no_source(result.as_bytes()), refused, "{result}");
        }
    }
}
