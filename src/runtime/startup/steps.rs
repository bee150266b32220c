//! The steps of the start: cloud-init, the warm pool, tags, AWS clients, Docker, the saved state, the registration.
//!
//! [`build`](super::build) has the order. A step that fails ends the process with an exit code that the service manager
//! understands (spec `registration.md` §1).

use super::instance::Instance;
use super::offers::Offers;
use super::settings::{self, capabilities, cluster, host_resources};
use crate::aws::client::sdk::Sdk;
use crate::aws::client::signing::Signing;
use crate::aws::identity::credentials;
use crate::aws::identity::imds::{Imds, ImdsError};
use crate::aws::identity::lifecycle::{self, WarmPoolError};
use crate::aws::identity::tags;
use crate::backoff::{Backoff, Shape};
use crate::config::{Config, TagSource};
use crate::docker::{Docker, DockerError};
use crate::ecs::attributes::attributes;
use crate::ecs::register::{self, Registration};
use crate::host::lanes::{MAX_FILE, disk, files};
use crate::lane::read_file;
use crate::runtime::parts::health::Health;
use crate::runtime::{Fatal, Options};
use crate::store::{Identity, Loaded, Store, StoreError};
use crate::version;
use aws_credential_types::provider::SharedCredentialsProvider;
use ecs_core::agent_health::Step;
use ecs_core::model::{address, with_causes};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Pauses between attempts to reach Docker.
const DOCKER_RETRY: Shape =
    Shape { initial: Duration::from_secs(1), max: Duration::from_secs(30), factor: 1.5, jitter: 0.2 };
/// Pauses between attempts to write the state.
const DISK_RETRY: Shape =
    Shape { initial: Duration::from_secs(1), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };

/// The state of the Go agent, in its data directory, and that of its early versions.
const GO_STATE: &str = "agent.db";
const OLD_GO_STATE: &str = "ecs_agent_data.json";

/// The file with the result of cloud-init.
pub(crate) const CLOUD_INIT_RESULT: &str = "/var/lib/cloud/data/result.json";

/// Refuses to start if cloud-init found no user data although the instance has some. In that case `ecs.config` was not written,
/// and the instance would join the wrong cluster (spec `registration.md` §2).
pub(crate) async fn cloud_init(config: &Config, imds: &Imds, result: &Path) -> Result<(), Fatal> {
    let (path, shown) = (result.to_owned(), result.display().to_string());
    let text = files().run(&shown, move || read_file(&path, MAX_FILE)).await;
    let found_nothing = matches!(text, Ok(Ok(text)) if found_no_source(&text));
    if config.external || !found_nothing {
        return Ok(());
    }
    match imds.get("user-data").await {
        Ok(Some(data)) if !data.is_empty() => Err(Fatal::terminal(format!(
            "Cloud-init failure detected: it ran without a data source ({}), but this instance has user data: it was not applied",
            result.display()
        ))),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn found_no_source(result: &[u8]) -> bool {
    let result: serde_json::Value = serde_json::from_slice(result).unwrap_or_default();
    result["v1"]["datasource"] == "DataSourceNone"
}

/// Waits until Auto Scaling puts the instance into service, if the operator has enabled that.
pub(crate) async fn warm_pool(config: &Config, imds: &Imds, health: &Health) -> Result<(), Fatal> {
    if !config.warm_pools_check {
        return Ok(());
    }
    health.step(Step::WarmPool);
    match lifecycle::in_service(imds).await {
        Ok(()) | Err(WarmPoolError::Imds(ImdsError::Blackholed)) => Ok(()),
        Err(error) => Err(Fatal::terminal(with_causes(&error))),
    }
}

/// Tags of the container instance: the EC2 instance's, if the operator wants them, overridden by the operator's own.
pub(crate) async fn tags(
    config: &Config,
    instance: &Instance,
    credentials: &SharedCredentialsProvider,
    sdk: &Sdk,
) -> Result<BTreeMap<String, String>, Fatal> {
    let mut tags = match config.propagate_tags_from {
        TagSource::None => BTreeMap::new(),
        TagSource::Ec2Instance if instance.id.is_empty() => {
            return Err(Fatal::restartable(
                "the tags of the EC2 instance are to be copied, but its id is unknown".to_owned(),
            ));
        }
        TagSource::Ec2Instance => {
            let found = tags::instance_tags(sdk, credentials, &instance.id).await;
            found.map_err(|error| Fatal::restartable(with_causes(&error)))?
        }
    };
    tags.extend(config.container_instance_tags.clone());
    Ok(tags)
}

/// The factory of AWS clients, and the credentials of the instance.
pub(crate) async fn clients(
    config: &Config,
    options: Options,
    region: &str,
) -> Result<(Sdk, SharedCredentialsProvider), Fatal> {
    let signing = Signing::default();
    let settings = settings::aws::sdk(config, options, region, signing.clone());
    let sdk = Sdk::new(settings).map_err(|error| Fatal::restartable(error.to_string()))?;
    let chain = settings::aws::credentials(config, options, region, signing);
    let credentials = credentials::instance_chain(chain, sdk.http())
        .await
        .map_err(|error| Fatal::restartable(format!("no AWS credentials: {error}")))?;
    Ok((sdk, credentials))
}

/// Connects to Docker, and waits without limit until that succeeds, even if Docker's version is unsupported: the operator may be
/// about to replace it. The Go agent ends instead: with exit code 1 (start again) or 5 (stay down).
pub(crate) async fn docker(config: &Config, region: &str) -> Docker {
    let settings = settings::docker(config, region);
    let mut retry = Backoff::new(DOCKER_RETRY);
    loop {
        match Docker::connect(settings.clone()).await {
            Ok(docker) => return docker,
            Err(error @ DockerError::NoVersion(_)) => {
                let pause = retry.pause();
                let (endpoint, retry_in_s) = (address::redacted(&settings.endpoint), crate::backoff::seconds(pause));
                let attempt = retry.attempt();
                tracing::warn!(%error, %endpoint, attempt, retry_in_s, "Could not get supported docker versions.");
                tokio::time::sleep(pause).await;
            }
            Err(error) => {
                let pause = retry.pause();
                let (endpoint, retry_in_s) = (address::redacted(&settings.endpoint), crate::backoff::seconds(pause));
                let attempt = retry.attempt();
                tracing::warn!(%error, %endpoint, attempt, retry_in_s, "Could not connect to docker daemon (DOCKER_HOST); trying again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Opens the state and checks that it belongs to this instance and cluster (spec `state.md` §10).
pub(crate) async fn state(config: &Config, instance: &Instance) -> Result<(Store, Loaded), Fatal> {
    if !config.checkpoint {
        tracing::info!(
            "Checkpointing not enabled; a new container instance will be created each time the agent is run (ECS_CHECKPOINT)"
        );
        let store = Store::in_memory().map_err(|error| Fatal::restartable(error.to_string()))?;
        return Ok((store, Loaded::default()));
    }
    let (mut store, mut loaded) = open_store(&config.data_dir).await?;
    let Some(saved) = &loaded.identity else {
        if has_go_state(&config.data_dir).await {
            tracing::warn!(
                ECS_DATADIR = %config.data_dir.display(),
                "there is a state of the Go agent ({GO_STATE}), which this agent cannot read: it registers a new container instance, and \
                 no agent manages the tasks of the earlier one. To keep them, go back to the Go agent, and drain the instance first"
            );
        }
        return Ok((store, loaded));
    };
    if instance.id.is_empty() && !saved.ec2_instance_id.is_empty() {
        tracing::warn!(
            saved = saved.ec2_instance_id,
            "the id of this instance is unknown; the saved state is assumed to be its own"
        );
    }
    if !saved.ec2_instance_id.is_empty() && !instance.id.is_empty() && saved.ec2_instance_id != instance.id {
        tracing::warn!(
            saved = saved.ec2_instance_id,
            current = instance.id,
            "the saved state belongs to another EC2 instance (an AMI made from a running one?); it is dropped"
        );
        store.clear().map_err(|error| Fatal::restartable(with_causes(&error)))?;
        return Ok((store, Loaded::default()));
    }
    let configured = cluster(config);
    if saved.cluster != configured && loaded.host.lost {
        // Only the small file beside the state is left. Probably the operator removed the state to register the instance anew,
        // as the AWS documentation advises.
        tracing::warn!(
            saved = saved.cluster,
            cluster = configured,
            "the state is gone and ECS_CLUSTER has changed; registering anew"
        );
        store.forget_registration();
        (loaded.identity, loaded.host.seq) = (None, 0);
        return Ok((store, loaded));
    }
    if saved.cluster != configured {
        return Err(Fatal::terminal(format!(
            "the saved state is of cluster '{}', but ECS_CLUSTER names '{configured}'; set it back, or move the \
             content of ECS_DATADIR, {}, away to register anew",
            saved.cluster,
            config.data_dir.display()
        )));
    }
    tracing::info!(cluster = configured, "Cluster was successfully restored");
    Ok((store, loaded))
}

/// The Go agent has had its state in this directory.
async fn has_go_state(directory: &Path) -> bool {
    let (path, shown) = (directory.to_owned(), directory.display().to_string());
    let exists = move || [GO_STATE, OLD_GO_STATE].iter().any(|file| path.join(file).exists());
    files().run(&shown, exists).await.unwrap_or(false)
}

/// Opens the store, and waits until its disk has space. An agent that cannot save its identity must not register: each attempt
/// would create one more container instance.
async fn open_store(directory: &std::path::Path) -> Result<(Store, Loaded), Fatal> {
    let (mut retry, lane) = (Backoff::new(DISK_RETRY), disk());
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

async fn wait_for_disk(error: &StoreError, retry: &mut Backoff) {
    let pause = retry.pause();
    let (error, attempt, retry_in_s) = (with_causes(error), retry.attempt(), crate::backoff::seconds(pause));
    tracing::error!(error, attempt, retry_in_s, "the state cannot be written (ECS_DATADIR); waiting until it can");
    tokio::time::sleep(pause).await;
}

/// Registers the instance, or renews its registration, and saves its identity.
pub(crate) async fn register(
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
        attributes: attributes(&capabilities(config, offers, instance)),
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
    tracing::info!(
        containerInstanceARN = arn,
        cluster = registered.cluster,
        "Registered container instance with cluster!"
    );
    tracing::info!(containerInstanceARN = arn, "Instance registration completed successfully");
    let identity = Identity {
        cluster: cluster(config),
        container_instance_arn: arn,
        // If the id is unknown now, the saved one is kept: it still identifies an AMI that was made from this instance.
        ec2_instance_id: if instance.id.is_empty() { saved_id } else { instance.id.clone() },
        availability_zone: registered.availability_zone,
        agent_version: version::OWN.to_owned(),
    };
    let mut retry = Backoff::new(DISK_RETRY);
    while let Err(error) = store.save_identity(&identity) {
        wait_for_disk(&error, &mut retry).await; // otherwise a restart would register another instance
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_state_of_a_go_agent_is_noticed() {
        let directory = std::env::temp_dir().join(format!("ecs-go-state-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        assert!(!has_go_state(&directory).await && !has_go_state(&directory.join("missing")).await);
        for file in [GO_STATE, OLD_GO_STATE] {
            std::fs::write(directory.join(file), "").unwrap();
            assert!(has_go_state(&directory).await, "{file}");
            std::fs::remove_file(directory.join(file)).unwrap();
        }
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn only_a_cloud_init_without_data_source_is_refused() {
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
