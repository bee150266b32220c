//! The resources of a task that the container engine does not provide: secrets, environment files, the configuration of a log
//! router, Kerberos tickets, metadata files. Control groups are in [`cgroup`](crate::cgroup).
//!
//! Owns their creation and removal, and the values that exist in memory only. The core decides when they are created and
//! removed. Invariants: the value of a secret or of an environment file is never on disk; creation and removal may be
//! repeated.
//!
//! Reading order: `settings`, [`vault`] (the values in memory), [`env_file`], [`log_router`] with `router_config` (the text of
//! its file), [`metadata_file`], `own_files` (how files are written), `credential_specs` with `credentials_fetcher`.

mod credential_specs;
mod credentials_fetcher;
pub mod env_file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod log_router;
pub mod metadata_file;
mod own_files;
mod router_config;
mod settings;
pub mod vault;

use crate::aws::client::sdk::Sdk;
use crate::aws::identity::roles::RoleCredentials;
use crate::aws::services::{secrets_manager, ssm};
use crate::lane::{Lane, Settings as LaneSettings};
use credentials_fetcher::CredentialsFetcher;
use ecs_core::model::metadata_file::MetadataFile;
use ecs_core::model::resource::{SecretKey, SecretProvider, SecretTarget};
use ecs_core::model::{CreateRequest, Failure, ResourceKind, ResourceRequest, SecretValues, TaskArn, Tickets};
use std::time::Duration;
use tokio::sync::Semaphore;
use vault::{Content, Vault};

pub use settings::{InstanceFacts, Settings};

/// How many resources are created at the same time. Each needs several calls to AWS, and a burst of tasks should not be
/// throttled.
const AT_ONCE: usize = 16;
/// How many calls to the credentials fetcher run at the same time. Secrets have a limit of their own, so they do not wait if it
/// hangs.
const TICKETS_AT_ONCE: usize = 4;
/// Threads for files on paths from task definitions.
const NAMED_FILES: LaneSettings = LaneSettings { threads: 4, spare: 8, limit: Duration::from_secs(10) };
/// Threads for the agent's own files, on the disk of its data directory.
const OWN_FILES: LaneSettings = LaneSettings { threads: 4, spare: 4, limit: Duration::from_secs(30) };

/// Creates and removes resources, and holds the values in memory.
#[derive(Debug)]
pub struct Resources {
    sdk: Sdk,
    settings: Settings,
    fetcher: CredentialsFetcher,
    vault: Vault,
    /// Permits for creating resources.
    creating: Semaphore,
    /// Permits for calls to the credentials fetcher.
    fetching: Semaphore,
    /// Threads for files on paths from task definitions.
    named_files: Lane,
    /// Threads for the agent's own files.
    own_files: Lane,
}

impl Resources {
    /// Connects to nothing yet: calls begin when a task needs a resource.
    pub fn new(sdk: Sdk, settings: Settings) -> Self {
        Self {
            fetcher: CredentialsFetcher::new(settings.credentials_fetcher.clone()),
            sdk,
            settings,
            vault: Vault::default(),
            creating: Semaphore::new(AT_ONCE),
            fetching: Semaphore::new(TICKETS_AT_ONCE),
            named_files: Lane::new("files of task definitions", NAMED_FILES),
            own_files: Lane::new("files for containers", OWN_FILES),
        }
    }

    /// Creates a resource: loads secrets or environment files into memory, with the task's execution role, or writes the files
    /// of a log router. Other kinds are created by other edges and need nothing here.
    ///
    /// # Errors
    /// The reason with which the task ends, or a retryable failure.
    pub async fn create(&self, request: &ResourceRequest, role: Option<&RoleCredentials>) -> Result<(), Failure> {
        let turn = self.creating.acquire().await; // never closed, so this cannot fail
        let content = match &request.spec.kind {
            ResourceKind::Secrets(keys) => self.secrets(keys, role).await?,
            ResourceKind::EnvironmentFiles(files) => {
                Content::EnvironmentFiles(env_file::fetch(&self.sdk, files, role).await?)
            }
            ResourceKind::LogRouter(router) => {
                let external = log_router::external(&self.sdk, router, role).await?;
                drop(turn); // no secret waits for a disk
                return log_router::create(&self.settings, &self.own_files, request, router, external).await;
            }
            ResourceKind::Cgroup(_) | ResourceKind::Volume(_) | ResourceKind::CredentialSpecs(_) => return Ok(()),
        };
        self.vault.put(&request.task, &request.spec.name, content)
    }

    /// Gets Kerberos tickets for the task's credential specs. Each call gets new ones.
    ///
    /// # Errors
    /// The reason with which the task ends, or a retryable failure. Tickets already received are given back.
    pub async fn tickets(&self, specs: &[String], role: Option<&RoleCredentials>) -> Result<Tickets, Failure> {
        // Before waiting for a turn: a path may hang, and that must not delay the tickets of other tasks.
        let documents = credential_specs::documents(&self.sdk, &self.named_files, specs, role).await?;
        let _turn = self.fetching.acquire().await; // never closed, so this cannot fail
        credential_specs::create(&self.sdk, &self.fetcher, &documents, role).await
    }

    /// Renews the tickets that would otherwise expire.
    ///
    /// # Errors
    /// Some tickets may not be renewed.
    pub async fn renew(&self, tickets: &Tickets, role: Option<&RoleCredentials>) -> Result<(), Failure> {
        let _turn = self.fetching.acquire().await; // never closed, so this cannot fail
        credential_specs::renew(&self.sdk, &self.fetcher, &tickets.accounts, role).await
    }

    async fn secrets(&self, keys: &[SecretKey], role: Option<&RoleCredentials>) -> Result<Content, Failure> {
        let (parameters, secrets): (Vec<_>, Vec<_>) =
            keys.iter().cloned().partition(|key| key.provider == SecretProvider::Ssm);
        let mut found = std::collections::BTreeMap::new();
        if !parameters.is_empty() {
            found.append(&mut ssm::parameters(&self.sdk, &parameters, role).await?);
        }
        if !secrets.is_empty() {
            found.append(&mut secrets_manager::secrets(&self.sdk, &secrets, role).await?);
        }
        Ok(Content::Secrets(found))
    }

    /// Removes a resource: drops its values from memory, removes the files of a log router, or gives tickets back.
    ///
    /// # Errors
    /// A file cannot be removed, or a ticket cannot be given back.
    pub async fn remove(&self, request: &ResourceRequest) -> Result<(), Failure> {
        match &request.spec.kind {
            ResourceKind::LogRouter(_) => log_router::remove(&self.settings, &self.own_files, &request.task).await,
            ResourceKind::Secrets(_) | ResourceKind::EnvironmentFiles(_) => {
                self.vault.remove(&request.task, &request.spec.name);
                Ok(())
            }
            ResourceKind::CredentialSpecs(_) => {
                let _turn = self.fetching.acquire().await; // never closed, so this cannot fail
                let leases = request.tickets.as_ref().map_or(&[][..], |tickets| &tickets.leases);
                credential_specs::give_back(&self.fetcher, leases).await
            }
            ResourceKind::Cgroup(_) | ResourceKind::Volume(_) => Ok(()),
        }
    }

    /// Completes the metadata file of a running container. A failure is logged.
    pub async fn complete_metadata_file(&self, file: MetadataFile) {
        metadata_file::complete(&self.settings, &self.own_files, file).await;
    }

    /// Writes the first form of the container's metadata file. Returns the request, without the file if it could not be written:
    /// Docker would mount an empty directory.
    pub async fn with_metadata_file(&self, mut request: CreateRequest) -> CreateRequest {
        if request.spec.metadata_file.is_some()
            && !metadata_file::begin(&self.settings, &self.own_files, &request).await
        {
            request.spec.metadata_file = None;
        }
        request
    }

    /// Removes the metadata files of a task. A failure is logged.
    pub async fn remove_metadata_files(&self, task: &TaskArn) {
        metadata_file::remove(&self.settings, &self.own_files, task).await;
    }

    /// The values with which a container is created.
    ///
    /// # Errors
    /// A value that the container needs is not in memory.
    pub fn values(&self, request: &CreateRequest) -> Result<SecretValues, Failure> {
        let (task, spec) = (&request.task, &request.spec);
        let mut values = SecretValues::default();
        for used in &spec.secrets {
            let secrets = self.vault.secrets(task, resource_of(used.key.provider));
            let secrets = secrets.ok_or_else(|| missing(used.key.provider))?;
            // Compat: like the Go agent, uses an empty text for a secret without a value.
            let value = secrets.get(&used.key).cloned().unwrap_or_default();
            match used.target {
                SecretTarget::Environment => values.environment.insert(used.name.clone(), value),
                SecretTarget::LogOption if value.is_empty() => None,
                SecretTarget::LogOption => values.log_options.insert(used.name.clone(), value),
            };
        }
        let own = env_file::resource_of(&spec.name);
        if request.resources.contains(&own) {
            let files = self.vault.environment_files(task, &own);
            values.environment_files = files.ok_or_else(|| {
                let text = "unable to read the environment files of the container: they are not in memory";
                Failure::permanent("ResourceInitializationError", text)
            })?;
        }
        Ok(values)
    }
}

/// The name of the resource that holds the secrets of a provider.
fn resource_of(provider: SecretProvider) -> &'static str {
    match provider {
        SecretProvider::Ssm => "ssmsecret",
        SecretProvider::SecretsManager => "asmsecret",
    }
}

fn missing(provider: SecretProvider) -> Failure {
    let which = match provider {
        SecretProvider::Ssm => "SSM",
        SecretProvider::SecretsManager => "ASM",
    };
    Failure::permanent("DockerClientConfigError", format!("task secret data: unable to fetch {which} Secrets resource"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::resource::{ResourceSpec, SecretUse};
    use ecs_core::model::{ContainerSpec, Secret};
    use std::collections::BTreeMap;

    fn resources() -> Resources {
        Resources::new(Sdk::new(crate::aws::client::sdk::Settings::default()).unwrap(), Settings::default())
    }

    fn key(provider: SecretProvider, name: &str) -> SecretKey {
        SecretKey { provider, value_from: name.to_owned(), region: String::new() }
    }

    fn uses(name: &str, key: SecretKey, target: SecretTarget) -> SecretUse {
        SecretUse { name: name.to_owned(), key, target }
    }

    fn request(secrets: Vec<SecretUse>, resources: &[&str]) -> CreateRequest {
        CreateRequest {
            task: "task".into(),
            spec: ContainerSpec { name: "web".into(), secrets, ..ContainerSpec::default() },
            resources: resources.iter().map(|name| (*name).to_owned()).collect(),
            ..CreateRequest::default()
        }
    }

    #[test]
    fn a_container_gets_its_own_values_and_nobody_else_s() {
        let resources = resources();
        let (user, token) = (key(SecretProvider::Ssm, "/user"), key(SecretProvider::SecretsManager, "token"));
        let held =
            |key: &SecretKey, value: &str| Content::Secrets(BTreeMap::from([(key.clone(), Secret::from(value))]));
        resources.vault.put(&"task".into(), "ssmsecret", held(&user, "me")).unwrap();
        resources.vault.put(&"task".into(), "asmsecret", held(&token, "t0ken")).unwrap();
        resources.vault.put(&"other".into(), "ssmsecret", held(&user, "other")).unwrap();
        let file = BTreeMap::from([("A".to_owned(), Secret::from("1"))]);
        let files = Content::EnvironmentFiles(vec![file.clone()]);
        resources.vault.put(&"task".into(), "envfile_web", files).unwrap();

        let gone = key(SecretProvider::Ssm, "/gone");
        let secrets = vec![
            uses("USER", user, SecretTarget::Environment),
            uses("EMPTY", gone.clone(), SecretTarget::Environment),
            uses("splunk-token", token, SecretTarget::LogOption),
            uses("none", gone, SecretTarget::LogOption),
        ];
        let values = resources.values(&request(secrets, &["ssmsecret", "asmsecret", "envfile_web"])).unwrap();
        let shown = |map: &BTreeMap<String, Secret>| {
            map.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
        };
        assert_eq!(shown(&values.environment), ["EMPTY=", "USER=me"]);
        assert_eq!(shown(&values.log_options), ["splunk-token=t0ken"]);
        assert_eq!(values.environment_files, [file]);
        assert_eq!(resources.values(&request(Vec::new(), &[])).unwrap(), SecretValues::default());
    }

    #[test]
    fn a_value_that_is_not_in_memory_is_an_error() {
        let resources = resources();
        let asks_for = |provider| request(vec![uses("A", key(provider, "x"), SecretTarget::Environment)], &[]);
        let table = [
            (
                asks_for(SecretProvider::Ssm),
                "DockerClientConfigError: task secret data: unable to fetch SSM Secrets resource",
            ),
            (
                asks_for(SecretProvider::SecretsManager),
                "DockerClientConfigError: task secret data: unable to fetch ASM Secrets resource",
            ),
            (
                request(Vec::new(), &["envfile_web"]),
                "ResourceInitializationError: unable to read the environment files of the container: they are not in memory",
            ),
        ];
        for (request, text) in table {
            assert_eq!(resources.values(&request).unwrap_err().to_string(), text);
        }
    }

    #[tokio::test]
    async fn removal_drops_the_values_and_may_be_repeated() {
        let resources = resources();
        resources.vault.put(&"task".into(), "ssmsecret", Content::Secrets(BTreeMap::new())).unwrap();
        let spec = ResourceSpec {
            name: "ssmsecret".to_owned(),
            needed_by: Vec::new(),
            kind: ResourceKind::Secrets(Vec::new()),
        };
        let request = ResourceRequest {
            task: "task".into(),
            family: String::new(),
            version: String::new(),
            spec,
            execution_credentials: None,
            role_id: None,
            pause_pid: 0,
            tickets: None,
        };
        for _ in 0..2 {
            resources.remove(&request).await.unwrap();
            assert!(resources.vault.secrets(&"task".into(), "ssmsecret").is_none());
        }
    }
}
