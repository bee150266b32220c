//! RegisterContainerInstance (spec `registration.md` §4, §5).
//!
//! Owns the request, the creation of the `default` cluster, the retries and the class of every error. It gathers no facts (the
//! caller supplies them as [`Registration`]) and does not exit the process. The invariant: success means that ECS returned an
//! ARN and accepted every attribute as sent, except those that only identify this program.

use super::attributes::{self, Attribute};
use super::body_edit::BodyEdit;
use super::text_of;
use crate::aws::identity::document::SignedDocument;
use crate::backoff::{Backoff, Shape};
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::register_container_instance::{
    RegisterContainerInstanceError, RegisterContainerInstanceOutput,
};
use aws_sdk_ecs::types::{self, ContainerInstance, PlatformDevice, PlatformDeviceType, Resource, Tag};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const DEFAULT_CLUSTER: &str = "default";
/// The pauses between attempts.
const RETRY: Shape = Shape { initial: Duration::from_secs(3), max: Duration::from_secs(192), factor: 2.0, jitter: 0.2 };
/// How long an attempt is repeated while ECS throttles or fails.
const PATIENCE: Duration = Duration::from_secs(3600);
/// CPU units of one logical CPU.
const UNITS_PER_CPU: u32 = 1024;

/// The facts that the request contains.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The cluster as configured; `None`: the cluster `default`, which is created if it does not exist.
    pub cluster: Option<String>,
    /// The ARN of an earlier registration, which this one renews; `None` for the first registration.
    pub container_instance: Option<String>,
    /// The instance identity document and its signature; `None`: both are sent empty.
    pub identity: Option<SignedDocument>,
    /// The resources of the host that tasks may use.
    pub resources: HostResources,
    /// The ids of the GPUs that tasks may use.
    pub gpus: Vec<String>,
    /// `ECS_INSTANCE_ATTRIBUTES`; sent by the first registration only.
    pub custom_attributes: BTreeMap<String, String>,
    /// The attributes of this agent and host, in order.
    pub attributes: Vec<Attribute>,
    /// The tags of the container instance.
    pub tags: BTreeMap<String, String>,
    /// The idempotency token: random, and the same for all attempts of one process, so that they lead to one registration.
    pub client_token: String,
}

impl Registration {
    fn names_this_program(&self) -> bool {
        self.attributes.iter().any(Attribute::is_own)
    }

    fn without_own_attributes(&self) -> Self {
        let mut without = self.clone();
        without.attributes.retain(|attribute| !attribute.is_own());
        without
    }
}

/// The resources that the host offers to tasks.
#[derive(Clone, Debug, Default)]
pub struct HostResources {
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory for tasks in MiB, see [`memory_for_tasks`].
    pub memory_mib: u32,
    /// Reserved TCP ports, in the operator's order.
    pub tcp_ports: Vec<u16>,
    /// Reserved UDP ports, in the operator's order.
    pub udp_ports: Vec<u16>,
}

/// The result of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// ARN of the container instance.
    pub container_instance: String,
    /// The cluster of the instance: as configured, or `default`.
    pub cluster: String,
    /// Name of the availability zone; empty if ECS did not return one.
    pub availability_zone: String,
}

/// Why the instance is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A new attempt would fail too. The process exits with code 5 and is not restarted.
    #[error("Agent will terminally exit, unable to register container instance: {0}")]
    Terminal(String),
    /// A restarted process may succeed. The process exits with code 1.
    #[error("Unable to register as a container instance with ECS: {0}")]
    Restart(String),
}

impl RegisterError {
    /// The exit code for the service manager.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Terminal(_) => 5,
            Self::Restart(_) => 1,
        }
    }
}

/// Memory for tasks in MiB: the memory of the host (in bytes) less the reserved memory (in MiB).
///
/// # Errors
/// Fails if more memory is reserved than the host has.
pub fn memory_for_tasks(total_bytes: u64, reserved_mib: u32) -> Result<u32, RegisterError> {
    let total = total_bytes / (1024 * 1024);
    let left = total.checked_sub(u64::from(reserved_mib)).ok_or_else(|| {
        RegisterError::Restart(format!("reserved memory ({reserved_mib} MiB) is more than the host has ({total} MiB)"))
    })?;
    Ok(u32::try_from(left).unwrap_or(u32::MAX))
}

/// Registers the instance, or renews its registration. Retries for up to an hour while ECS throttles or fails.
///
/// # Errors
/// Fails if ECS refuses the registration or changes an attribute, if no usable answer arrives, or if the cluster `default`
/// cannot be created.
pub async fn register(client: &aws_sdk_ecs::Client, registration: &Registration) -> Result<Registered, RegisterError> {
    register_with(client, registration, RETRY, PATIENCE).await
}

async fn register_with(
    client: &aws_sdk_ecs::Client,
    registration: &Registration,
    retry: Shape,
    patience: Duration,
) -> Result<Registered, RegisterError> {
    let configured = registration.cluster.as_deref().filter(|cluster| !cluster.is_empty());
    let cluster = configured.unwrap_or(DEFAULT_CLUSTER);
    tracing::info!(cluster, containerInstanceARN = registration.container_instance, "Registering Instance with ECS");
    let mut answer = call_patiently(client, registration, cluster, retry, patience).await;
    if configured.is_none() && answer.as_ref().is_err_and(is_cluster_missing) {
        tracing::info!(cluster = DEFAULT_CLUSTER, "Creating the cluster");
        let not_created = |error: String| format!("cluster '{DEFAULT_CLUSTER}' cannot be created: {error}");
        let created = client.create_cluster().cluster_name(DEFAULT_CLUSTER).send().await;
        created.map_err(|error| match error.code() {
            Some("InvalidParameterException" | "ClientException") => {
                RegisterError::Terminal(not_created(text_of(&error)))
            }
            Some(_) | None => RegisterError::Restart(not_created(text_of(&error))),
        })?;
        answer = call_patiently(client, registration, cluster, retry, patience).await;
    }
    // ECS limits the number of attributes of an instance, so those that only identify this program are left out if necessary.
    let without;
    let mut registration = registration;
    if registration.names_this_program() && answer.as_ref().is_err_and(is_invalid) {
        let error = answer.as_ref().err().map(text_of).unwrap_or_default();
        tracing::warn!(
            cluster,
            error,
            "Instance registration attempt with an invalid parameter; it is repeated without the attributes {}*",
            attributes::OWN
        );
        without = registration.without_own_attributes();
        registration = &without;
        answer = call_patiently(client, registration, cluster, retry, patience).await;
    }
    let output = answer.map_err(|error| classify(&error, cluster, registration.container_instance.is_some()))?;
    // An answer from a proxy instead of ECS gives no information about the attributes.
    let nothing = || RegisterError::Restart("the answer names no container instance".to_owned());
    let instance = output.container_instance.ok_or_else(nothing)?;
    accept(registration, cluster, &instance)
}

type CallError = SdkError<RegisterContainerInstanceError>;

async fn call_patiently(
    client: &aws_sdk_ecs::Client,
    registration: &Registration,
    cluster: &str,
    retry: Shape,
    patience: Duration,
) -> Result<RegisterContainerInstanceOutput, CallError> {
    let give_up = Instant::now() + patience;
    let mut backoff = Backoff::new(retry);
    loop {
        match call(client, registration, cluster).await {
            Err(error) if is_temporary(&error) => {
                let pause = backoff.pause();
                if Instant::now() + pause >= give_up {
                    return Err(error);
                }
                let retry_in_s = crate::backoff::seconds(pause);
                let (error, attempt) = (text_of(&error), backoff.attempt());
                tracing::warn!(cluster, %error, attempt, retry_in_s, "Unable to register as a container instance with ECS; trying again");
                tokio::time::sleep(pause).await;
            }
            result => return result,
        }
    }
}

async fn call(
    client: &aws_sdk_ecs::Client,
    registration: &Registration,
    cluster: &str,
) -> Result<RegisterContainerInstanceOutput, CallError> {
    let identity = registration.identity.clone().unwrap_or_default();
    let tags: Vec<Tag> =
        registration.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
    let gpu = |id: &String| PlatformDevice::builder().id(id).r#type(PlatformDeviceType::Gpu).build();
    let gpus = registration.gpus.iter().map(gpu).collect::<Result<Vec<_>, _>>();
    let gpus = gpus.expect("both members that are required were just given");
    client
        .register_container_instance()
        .cluster(cluster)
        .set_container_instance_arn(registration.container_instance.clone())
        .instance_identity_document(identity.document)
        .instance_identity_document_signature(identity.signature)
        .set_total_resources(Some(resources(&registration.resources)))
        .set_attributes(Some(wire_attributes(registration)))
        .set_platform_devices(Some(gpus).filter(|gpus| !gpus.is_empty()))
        .set_tags(Some(tags).filter(|tags| !tags.is_empty()))
        .customize()
        .interceptor(BodyEdit { value: registration.client_token.clone(), edit: complete })
        .send()
        .await
}

/// Adds the idempotency token, and removes the zeros that the SDK sends for unset numbers of a resource.
fn complete(body: &mut Map<String, Value>, client_token: &str) {
    body.insert("clientToken".to_owned(), client_token.into());
    let resources = body.get_mut("totalResources").and_then(Value::as_array_mut);
    for resource in resources.into_iter().flatten().filter_map(Value::as_object_mut) {
        resource.retain(|_, value| value.as_f64() != Some(0.0));
    }
}

fn resources(host: &HostResources) -> Vec<Resource> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let integer =
        |name: &str, value: u32| Resource::builder().name(name).r#type("INTEGER").integer_value(number(value)).build();
    let ports = |name: &str, ports: &[u16]| {
        let ports = ports.iter().map(u16::to_string).collect();
        Resource::builder().name(name).r#type("STRINGSET").set_string_set_value(Some(ports)).build()
    };
    vec![
        integer("CPU", host.cpus.saturating_mul(UNITS_PER_CPU)),
        integer("MEMORY", host.memory_mib),
        ports("PORTS", &host.tcp_ports),
        ports("PORTS_UDP", &host.udp_ports),
    ]
}

/// The attributes to send: the custom ones come first, and only in the first registration.
fn sent_attributes(registration: &Registration) -> Vec<Attribute> {
    let first = registration.container_instance.is_none();
    let custom = registration.custom_attributes.iter().filter(|_| first);
    let custom = custom.map(|(name, value)| Attribute::with_value(name, value));
    custom.chain(registration.attributes.iter().cloned()).collect()
}

fn wire_attributes(registration: &Registration) -> Vec<types::Attribute> {
    let wire = |attribute: Attribute| {
        let wire = types::Attribute::builder().name(attribute.name).set_value(attribute.value).build();
        wire.expect("the only member that is required, the name, was just given")
    };
    sent_attributes(registration).into_iter().map(wire).collect()
}

/// Checks the answer of ECS against the request.
fn accept(registration: &Registration, cluster: &str, answer: &ContainerInstance) -> Result<Registered, RegisterError> {
    let returned: BTreeMap<&str, &str> =
        answer.attributes().iter().map(|a| (a.name(), a.value().unwrap_or_default())).collect();
    for sent in sent_attributes(registration) {
        let value = sent.value.as_deref().unwrap_or_default();
        if returned.get(sent.name.as_str()).copied().unwrap_or_default() == value {
            continue;
        }
        // A changed attribute that only identifies this program must not keep the instance from starting.
        if sent.is_own() {
            tracing::warn!(attributeName = sent.name, "ECS returned another value for this attribute than was sent");
        } else {
            return Err(RegisterError::Terminal(format!("ECS did not accept the attribute {}", sent.name)));
        }
    }
    let availability_zone = returned.get("ecs.availability-zone").copied().unwrap_or_default().to_owned();
    // A renewal keeps its ARN, whatever ECS returns.
    let named = answer.container_instance_arn().filter(|arn| !arn.is_empty()).map(str::to_owned);
    let container_instance = registration.container_instance.clone().or(named);
    let container_instance =
        container_instance.ok_or_else(|| RegisterError::Restart("ECS named no container instance".to_owned()))?;
    Ok(Registered { container_instance, cluster: cluster.to_owned(), availability_zone })
}

/// Whether the error is temporary.
fn is_temporary(error: &CallError) -> bool {
    matches!(error.code(), Some("ThrottlingException" | "ServerException" | "LimitExceededException"))
}

fn is_cluster_missing(error: &CallError) -> bool {
    error.code() == Some("ClusterNotFoundException")
        || error.message().is_some_and(|message| message.contains("Cluster not found."))
}

fn is_invalid(error: &CallError) -> bool {
    error.code() == Some("InvalidParameterException") && !is_cluster_missing(error)
}

/// Whether the container instance was deregistered. ECS has no code of its own for it.
fn is_deregistered(error: &CallError) -> bool {
    error.code() == Some("ClientException") && error.message().is_some_and(|message| message.contains(" is inactive"))
}

/// Sorts the error of a call for this cluster.
fn classify(error: &CallError, cluster: &str, renewal: bool) -> RegisterError {
    let type_changed = || {
        let message = error.message().unwrap_or_default();
        renewal && message.contains("Container instance type changes are not supported.")
    };
    let text = format!("cluster '{cluster}': {}", text_of(error));
    match error.code() {
        _ if is_cluster_missing(error) => RegisterError::Restart(format!(
            "{text} Create it (aws ecs create-cluster --cluster-name NAME), or set ECS_CLUSTER to an existing one of this region"
        )),
        _ if renewal && is_deregistered(error) => RegisterError::Terminal(format!(
            "{text} A deregistered container instance cannot be registered again. To register as a new one, stop the agent, move \
             the directory ECS_DATADIR away, and start it again"
        )),
        Some("InvalidParameterException" | "ClientException") => RegisterError::Terminal(text),
        _ if type_changed() => RegisterError::Terminal(text),
        Some(_) | None => RegisterError::Restart(text),
    }
}

#[cfg(test)]
mod tests;
