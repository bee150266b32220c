//! Translates a [`CreateRequest`] to the body of Docker's create call. A pure function.
//!
//! Owns the mapping of spec `docker-mapping.md` §2 to §8, with the files below it. The sources in order, of which later ones
//! take precedence: the model, the payload's own settings, control group and namespaces, ECS labels. Invariant: the ECS labels
//! are always this agent's, since recovery finds containers by nothing else. Reading order: this file, `merge` (the payload's
//! own settings), `namespaces`, `network`, `ports`, `accelerator`, `health_check`, `ticket`, `log` with `log_endpoint`.

pub(super) mod accelerator;
pub(super) mod health_check;
pub(super) mod log;
pub(super) mod log_endpoint;
pub(super) mod merge;
pub(super) mod namespaces;
mod network;
pub(super) mod ports;
pub(super) mod ticket;

use super::api::error::config_error;
use super::outline;
use crate::input::json;
use bollard::models::{ContainerConfig, ContainerCreateBody, HealthConfig, HostConfig, PortBinding};
use ecs_core::model::observation::GivenIds;
use ecs_core::model::task::{METADATA_FILE, Mount, PortRange};
use ecs_core::model::text::CREDENTIALS_PATH;
use ecs_core::model::{
    ContainerKind, ContainerSpec, CreateRequest, CredentialsId, Failure, OwnerMark, Protocol, SecretValues,
};
use merge::overlay;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

pub(super) const LABEL_TASK: &str = "com.amazonaws.ecs.task-arn";
pub(super) const LABEL_CONTAINER: &str = "com.amazonaws.ecs.container-name";
pub(super) const LABEL_FAMILY: &str = "com.amazonaws.ecs.task-definition-family";
pub(super) const LABEL_VERSION: &str = "com.amazonaws.ecs.task-definition-version";
pub(super) const LABEL_CLUSTER: &str = "com.amazonaws.ecs.cluster";

/// Docker refuses a smaller memory limit.
const MIN_MEMORY_BYTES: i64 = 4 * 1024 * 1024;
/// The kernel accepts at least 2, and Docker would turn 0 into 1024.
const CPU_SHARES: std::ops::RangeInclusive<u32> = 2..=262_144;
const METADATA_HOST: &str = "http://169.254.170.2";
/// The variable by which a program in the container finds the credentials of the task role.
const ROLE_VARIABLE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
/// The variable with the container's own id at its end, and the rest of its value.
const ENDPOINT: &str = "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/";
/// Maximum length of an id that is read from a container, in bytes.
const MAX_ID: usize = 1024;

/// Everything that the body depends on besides the request.
#[derive(Debug)]
pub(super) struct CreateContext<'a> {
    /// The name of the cluster, for the label.
    pub(super) cluster: &'a str,
    /// This agent's mark, for the labels; `None` = the agent has no identity.
    pub(super) owner: Option<&'a OwnerMark>,
    /// The agent's region; `None` = no region is injected.
    pub(super) region: Option<&'a str>,
    /// The names of the variables that the image sets.
    pub(super) image_env: &'a [String],
    /// The image's own health check; `None` = the image has none.
    pub(super) image_health_check: Option<&'a HealthConfig>,
    /// The host port of each port mapping, in the order of the mappings.
    pub(super) host_ports: &'a [u16],
    /// The parent control group: that of the task; `None` = the task has none.
    pub(super) cgroup_parent: Option<&'a str>,
    /// The first host port of each range, in the order of the ranges.
    pub(super) range_starts: &'a [u16],
    /// The operator's labels for pause containers.
    pub(super) pause_labels: &'a BTreeMap<String, String>,
    /// The name of the runtime for containers with GPUs.
    pub(super) nvidia_runtime: &'a str,
    /// Containers request GPUs from the engine as devices.
    pub(super) requests_gpus: bool,
    /// The engine labels files for SELinux.
    pub(super) selinux: bool,
    /// The instance has no IPv4 address.
    pub(super) ipv6_only: bool,
    /// How the engine sends logs to log routers.
    pub(super) log_driver: log::Driver<'a>,
}

/// Builds the body of the create call.
pub(super) fn body(
    request: &CreateRequest,
    values: &SecretValues,
    context: &CreateContext<'_>,
) -> Result<ContainerCreateBody, Failure> {
    let settings = &request.spec.engine_settings;

    let mut host = to_map(&host_config(request, context)?)?;
    overlay::<HostConfig>(&mut host, &settings.host_config)
        .map_err(|error| host_error(format!("Unable to decode given host config: {error}")))?;
    if let Some(parent) = context.cgroup_parent {
        host.insert("CgroupParent".to_owned(), Value::from(parent));
    }
    namespaces::apply(&mut host, request);
    network::apply_to_host(&mut host, request);
    ticket::apply(&mut host, request)?;
    mount_metadata(&mut host, request, context.selinux);
    log::use_execution_role(&mut host, request, request.log_role_id.as_ref().map(credentials_path))?;
    log::route(&mut host, request, context.log_driver);
    log_endpoint::apply(&mut host, context.region.unwrap_or_default(), context.ipv6_only, context.log_driver.server);
    bound_log_buffer(&mut host);
    log::add_secret_options(&mut host, values);

    let mut config = to_map(&config(request, values, context)?)?;
    overlay::<ContainerConfig>(&mut config, &settings.config)
        .map_err(|error| config_error(format!("Unable decode given docker config: {error}")))?;
    if request.spec.health_check && !config.contains_key("Healthcheck") {
        return Err(config_error("docker health check is nil while container health check type is DOCKER".to_owned()));
    }
    if let Some(problem) = health_check::problem(&config, context.image_health_check) {
        return Err(config_error(problem));
    }
    network::apply_to_config(&mut config, request);
    set_labels(&mut config, request, context);

    config.insert("HostConfig".to_owned(), Value::Object(host));
    // Decoded as above: another way of decoding `HostConfig` alone would be 75 KB of code.
    json::decode(&Value::Object(config))
        .map_err(|_| config_error("Unable decode given docker config: settings do not fit together".to_owned()))
}

fn to_map<T: serde::Serialize>(typed: &T) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(typed) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) | Err(_) => Err(config_error("the container's settings cannot be written as JSON".to_owned())),
    }
}

fn host_error(text: String) -> Failure {
    Failure::permanent("HostConfigError", text)
}

fn host_config(request: &CreateRequest, context: &CreateContext<'_>) -> Result<HostConfig, Failure> {
    let spec = &request.spec;
    let binds = spec.mounts.iter().map(|mount| bind(spec, mount)).collect::<Result<Vec<_>, _>>()?;
    let links = request.links.iter().map(|(name, alias)| format!("{name}:{alias}")).collect::<Vec<_>>();
    let memory = i64::from(spec.memory) * 1024 * 1024;
    let bindings = port_bindings(spec, context);
    let volumes_from = request.volumes_from.iter().map(|(name, read_only)| with_mode(name, *read_only));
    let volumes_from: Vec<_> = volumes_from.collect();
    Ok(HostConfig {
        links: (!links.is_empty()).then_some(links),
        binds: (!binds.is_empty()).then_some(binds),
        volumes_from: (!volumes_from.is_empty()).then_some(volumes_from),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        runtime: accelerator::runtime(spec.runtime, context.nvidia_runtime).map_err(host_error)?,
        device_requests: accelerator::device_requests(spec, context.requests_gpus),
        memory: (memory > 0).then_some(memory.max(MIN_MEMORY_BYTES)),
        cpu_shares: Some(i64::from(spec.cpu.clamp(*CPU_SHARES.start(), *CPU_SHARES.end()))),
        ..HostConfig::default()
    })
}

fn bind(spec: &ContainerSpec, mount: &Mount) -> Result<String, Failure> {
    let (source, target) = (&mount.source, &mount.container_path);
    if source.is_empty() || target.is_empty() {
        let (name, volume) = (&spec.name, &mount.volume);
        return Err(host_error(format!(
            "Unable to resolve volume mounts; invalid path: {name} {volume}; {source} -> {target}"
        )));
    }
    Ok(with_mode(&format!("{source}:{target}"), mount.read_only))
}

/// Mounts the directory of the container's metadata file after all other mounts. Read-only, unlike that of the Go agent: no
/// container has a reason to change what the agent says about it.
fn mount_metadata(host: &mut Map<String, Value>, request: &CreateRequest, selinux: bool) {
    let Some(mount) = &request.spec.metadata_file else { return };
    let bind = format!("{}:{}:ro{}", mount.source, mount.target, if selinux { ",Z" } else { "" });
    match host.entry("Binds").or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(binds) => binds.push(Value::from(bind)),
        none => *none = Value::from(vec![bind]),
    }
}

fn with_mode(what: &str, read_only: bool) -> String {
    format!("{what}{}", if read_only { ":ro" } else { "" })
}

/// The host port of each container port, first for single mappings and then for ranges.
fn port_bindings(spec: &ContainerSpec, context: &CreateContext<'_>) -> HashMap<String, Option<Vec<PortBinding>>> {
    let single = spec
        .ports
        .iter()
        .zip(context.host_ports)
        .map(|(mapping, host)| (mapping.container_port, *host, mapping.protocol));
    let ranges = spec.port_ranges.iter().zip(context.range_starts).flat_map(|(range, start)| {
        (range.first..=range.last).zip(*start..=u16::MAX).map(|(port, host)| (port, host, range.protocol))
    });
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for (port, host, protocol) in single.chain(ranges) {
        // No host address: Docker binds both 0.0.0.0 and ::.
        let binding = PortBinding { host_ip: None, host_port: Some(host.to_string()) };
        bindings.entry(port_key(port, protocol)).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn port_key(port: u16, protocol: Protocol) -> String {
    format!("{port}/{}", protocol.as_str())
}

fn config(
    request: &CreateRequest,
    values: &SecretValues,
    context: &CreateContext<'_>,
) -> Result<ContainerConfig, Failure> {
    let spec = &request.spec;
    let single = spec.ports.iter().map(|mapping| port_key(mapping.container_port, mapping.protocol));
    let each =
        |range: &PortRange| (range.first..=range.last).map(|port| port_key(port, range.protocol)).collect::<Vec<_>>();
    let ports: Vec<_> = single.chain(spec.port_ranges.iter().flat_map(each)).collect();
    let is_pause = spec.kind == ContainerKind::Pause;
    Ok(ContainerConfig {
        image: Some(spec.image.clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entry_point.clone(),
        env: Some(if is_pause { Vec::new() } else { environment(request, values, context)? }),
        // The pause process has nothing to tidy up, and SIGKILL is the only signal that reaches process 1 without a handler.
        stop_signal: is_pause.then(|| "SIGKILL".to_owned()),
        exposed_ports: (!ports.is_empty()).then_some(ports),
        ..ContainerConfig::default()
    })
}

/// The environment as `K=V`, sorted by name. Secrets take precedence over the task definition's plain variables, and these over
/// environment files.
fn environment(
    request: &CreateRequest,
    values: &SecretValues,
    context: &CreateContext<'_>,
) -> Result<Vec<String>, Failure> {
    let spec = &request.spec;
    let mut env: BTreeMap<&str, String> = spec.environment.0.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    env.extend(log::router_variables(request)?);
    env.extend(values.environment.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned())));
    for (name, value) in values.environment_files.iter().flatten() {
        env.entry(name).or_insert_with(|| value.expose().to_owned());
    }
    // If the task or the image sets one of the variables, even to an empty text, no region is injected.
    let region_names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let taken = |name: &str| env.contains_key(name) || context.image_env.iter().any(|key| key == name);
    if let Some(region) = context.region.filter(|_| !region_names.into_iter().any(taken)) {
        env.extend(region_names.map(|name| (name, region.to_owned())));
    }
    let id = spec.endpoint_id.as_str();
    env.insert("ECS_CONTAINER_METADATA_URI", format!("{METADATA_HOST}/v3/{id}"));
    env.insert("ECS_CONTAINER_METADATA_URI_V4", format!("{METADATA_HOST}/v4/{id}"));
    env.insert("ECS_AGENT_URI", format!("{METADATA_HOST}/api/{id}"));
    if let Some(id) = &request.role_id {
        env.insert(ROLE_VARIABLE, credentials_path(id));
    }
    if let Some(mount) = &spec.metadata_file {
        env.insert("ECS_CONTAINER_METADATA_FILE", format!("{}/{METADATA_FILE}", mount.target));
    }
    Ok(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// The path of the credentials with this id.
pub(super) fn credentials_path(id: &CredentialsId) -> String {
    format!("{CREDENTIALS_PATH}{}", id.as_str())
}

/// The ids that a container was created with, from its inspection.
pub(super) fn given_ids(inspected: &Value) -> GivenIds {
    let env = inspected.pointer("/Config/Env").and_then(Value::as_array);
    let variables = || env.into_iter().flatten().filter_map(Value::as_str);
    let id = |text: &'_ str| Some(text).filter(|id| (1..=MAX_ID).contains(&id.len())).map(str::to_owned);
    let role = || {
        variables().find_map(|text| text.strip_prefix(ROLE_VARIABLE)?.strip_prefix('=')?.strip_prefix(CREDENTIALS_PATH))
    };
    let log = inspected.pointer("/HostConfig/LogConfig/Config").and_then(|options| options.get(log::ROLE_OPTION));
    GivenIds {
        endpoint: variables().find_map(|text| text.strip_prefix(ENDPOINT)).and_then(id).map(Into::into),
        role: role().and_then(id).map(Into::into),
        execution_role: log.and_then(|path| path.as_str()?.strip_prefix(CREDENTIALS_PATH)).and_then(id).map(Into::into),
    }
}

/// Sets a buffer size for a non-blocking log. Docker's own default is so small that lines are soon dropped.
fn bound_log_buffer(host: &mut Map<String, Value>) {
    let options = host.get_mut("LogConfig").and_then(|log| log.get_mut("Config")).and_then(Value::as_object_mut);
    if let Some(options) = options
        && options.get("mode").and_then(Value::as_str) == Some("non-blocking")
    {
        options.entry("max-buffer-size").or_insert_with(|| Value::from("10m"));
    }
}

fn set_labels(config: &mut Map<String, Value>, request: &CreateRequest, context: &CreateContext<'_>) {
    let labels = config.entry("Labels").or_insert_with(|| Value::Object(Map::new()));
    let Some(labels) = labels.as_object_mut() else { return };
    if request.spec.kind == ContainerKind::Pause {
        labels.extend(context.pause_labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
    }
    for (key, value) in [
        (LABEL_TASK, request.task.as_str()),
        (LABEL_CONTAINER, request.spec.name.as_str()),
        (LABEL_FAMILY, &request.family),
        (LABEL_VERSION, &request.version),
        (LABEL_CLUSTER, context.cluster),
        (outline::LABEL, &outline::write(&request.outline)),
    ] {
        labels.insert(key.to_owned(), Value::from(value));
    }
    // Removed even if this agent has no mark: a payload must not name an owner.
    let owner =
        context.owner.map(|mark| [(outline::OWNER, mark.id.as_str()), (outline::PLACE, mark.data_directory.as_str())]);
    for key in [outline::OWNER, outline::PLACE] {
        labels.remove(key);
    }
    labels.extend(owner.into_iter().flatten().map(|(key, value)| (key.to_owned(), Value::from(value))));
}

#[cfg(test)]
mod tests;
