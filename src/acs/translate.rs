//! Translates a task on the wire into a task of the model, or into a refusal with its reason (spec `acs.md` §6, `task-engine.md`
//! §5.1).
//!
//! Pure: the caller supplies ids. It does not decide when a task runs; it only ensures that every task which reaches the core
//! can be run as requested. The invariant: a task is either translated completely or refused; no part is silently left out.

pub(super) mod credential_specs;
mod docker_config;
mod env_files;
mod gpu;
pub(super) mod interfaces;
mod limits;
mod log_router;
mod metadata_file;
mod namespaces;
mod ports;
mod proxy;
mod reason;
mod secrets;
mod volumes;

use super::host::HostFacts;
use super::limits::MAX_CONTAINERS;
use super::unsupported;
use super::wire;
use crate::input::json::{self, Raw};
use docker_config::{json_object, log_settings, memory_reservation};
use ecs_core::model::task::{
    Association, Condition, Dependency, EcrAuth, EngineSettings, Environment, Link, Mount, Namespace, NetworkMode,
    RegistryAuth, RestartPolicy, Runtime, SecretAuth, VolumesFrom,
};
use ecs_core::model::text::cleaned;
use ecs_core::model::{
    ContainerKind, ContainerName, ContainerSpec, CredentialsId, EndpointId, ResourceKind, Span, TaskArn, TaskSpec,
    TaskStatus,
};
use limits::Limits;
use reason::TaskError;
use serde_json::Value;
use std::collections::BTreeSet;
use volumes::Volumes;

pub(super) use reason::invalid;

/// One task of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceivedTask {
    /// A task to run.
    Run(Box<TaskSpec>),
    /// A task that is not to run yet; ECS sends it again when it is to run.
    Later(TaskArn),
    /// A task to stop, with the names of its containers. The agent may not know it.
    Stop(TaskArn, Vec<ContainerName>),
    /// A task that cannot be run; it is reported STOPPED with the reason.
    Refused(Refusal),
}

/// Why a task is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The ARN of the task; `None` if the message has none for it.
    pub arn: Option<TaskArn>,
    /// The reason that is reported to ECS.
    pub reason: String,
    /// True: the task cannot be read, so its payload is not acknowledged (spec `acs.md` §4.2).
    pub is_malformed: bool,
}

/// Translates one task. `new_id` gives each container its random endpoint id.
pub(super) fn task(raw: Raw<'_>, host: &HostFacts, new_id: &mut dyn FnMut() -> String) -> ReceivedTask {
    let named = wire::id(raw, "arn").ok().filter(|arn| !arn.is_empty()).map(TaskArn::from);
    let refusal = |reason: String, is_malformed| {
        ReceivedTask::Refused(Refusal { arn: named.clone(), reason: cleaned(&reason), is_malformed })
    };
    let malformed = |cause: &str| refusal(invalid(cause), true);
    let Some(arn) = named.clone() else { return malformed("the task has no ARN") };
    let desired = match desired_status(raw) {
        Ok(TaskStatus::Stopped) => return ReceivedTask::Stop(arn, container_names(raw)),
        Ok(desired) => desired,
        Err(cause) => return malformed(&cause),
    };
    let wire: wire::Task = match wire::decode(raw) {
        Ok(wire) => wire,
        Err(cause) => return malformed(&cause),
    };
    if wire.containers.len() > MAX_CONTAINERS {
        let count = wire.containers.len();
        return refusal(invalid(&format!("the task has {count} containers, more than {MAX_CONTAINERS}")), false);
    }
    if let Some(what) = unsupported::in_task(&wire, host) {
        return refusal(format!("UnsupportedTaskError: {what}"), false);
    }
    let read = volumes::read(&wire, host).and_then(|volumes| {
        let limits = limits::read(&wire, host)?;
        spec(wire, volumes, limits, host, new_id)
    });
    match read {
        Ok(_) if desired < TaskStatus::Running => ReceivedTask::Later(arn),
        Ok(spec) => ReceivedTask::Run(Box::new(spec)),
        Err(error) => {
            let (reason, is_malformed) = error.reason_for(arn.as_str());
            refusal(reason, is_malformed)
        }
    }
}

fn desired_status(task: Raw<'_>) -> Result<TaskStatus, String> {
    let Some(status) = task.member("desiredStatus") else { return Ok(TaskStatus::None) };
    let status: String = status.decode().map_err(|_| "desiredStatus is not a string")?;
    match status.as_str() {
        "RUNNING" => Ok(TaskStatus::Running),
        "STOPPED" | "DEAD" => Ok(TaskStatus::Stopped),
        "NONE" | "UNKNOWN" => Ok(TaskStatus::None),
        "CREATED" => Ok(TaskStatus::Created),
        "MANIFEST_PULLED" => Ok(TaskStatus::ManifestPulled),
        _ => Err("unrecognized desiredStatus".to_owned()),
    }
}

/// The readable names of the containers. A task can be stopped even if the rest of it is malformed.
fn container_names(task: Raw<'_>) -> Vec<ContainerName> {
    let containers = task.member("containers").and_then(Raw::items).into_iter().flatten().map_while(Result::ok);
    let names = containers.take(MAX_CONTAINERS).filter_map(|container| wire::id(container, "name").ok());
    let mut seen = BTreeSet::new();
    names.filter(|name| !name.is_empty() && seen.insert(name.clone())).map(ContainerName::from).collect()
}

fn spec(
    mut task: wire::Task,
    volumes: Volumes,
    limits: Limits,
    host: &HostFacts,
    new_id: &mut dyn FnMut() -> String,
) -> Result<TaskSpec, TaskError> {
    let mut names = BTreeSet::new();
    for container in &task.containers {
        if container.name.is_empty() {
            return Err("a container has no name".into());
        }
        if !names.insert(container.name.clone()) {
            return Err(format!("the container name {} is not unique", container.name).into());
        }
    }
    if names.is_empty() {
        return Err("the task has no containers".into());
    }
    let network = network(&task.network_mode);
    let interfaces = interfaces::all(&task.elastic_network_interfaces)?;
    // The Go agent runs such a task without a way out of the host, which ECS did not ask for: it gives each such task an interface.
    if network == NetworkMode::Awsvpc && interfaces.is_empty() {
        return Err("the network mode is awsvpc, and the task has no network interface".into());
    }
    let proxy = task.proxy_configuration.as_ref().map(proxy::rules).transpose()?;
    let role_credentials = credentials_id(task.role_credentials.as_ref(), "roleCredentials")?;
    let execution_credentials = credentials_id(task.execution_role_credentials.as_ref(), "executionRoleCredentials")?;
    let env_files = env_files::resources(&mut task.containers)?;
    let router = log_router::requested(&mut task.containers, &task.arn)?;
    let containers = task.containers.into_iter().map(|wire| container(wire, &names, &volumes, new_id().into()));
    let (mut containers, arn) = (containers.collect::<Result<Vec<_>, _>>()?, TaskArn::from(task.arn));
    let associations = task.associations.iter().map(association).collect();
    gpu::assign(&mut containers, &task.associations, host).map_err(TaskError::Resource)?;
    let mut resources: Vec<_> = limits.resource.into_iter().chain(volumes.resources).chain(env_files).collect();
    resources.extend(log_router::set_up(router, &arn, host, network, &mut containers)?);
    // The log router is set up first, since the size of its buffer depends on its own memory limit only.
    for container in containers.iter_mut().filter(|container| container.memory == 0) {
        container.memory = limits.for_containers;
    }
    resources.extend(secrets::resources(&containers));
    metadata_file::add(&mut containers, &arn, host, new_id);
    resources.extend(credential_specs::resource(&containers));
    namespaces::share(&mut containers, network, &task.pid_mode, &task.ipc_mode, new_id)?;
    // Here, so that the pause container is included.
    for cgroup in resources.iter_mut().filter(|resource| matches!(resource.kind, ResourceKind::Cgroup(_))) {
        cgroup.needed_by = containers.iter().map(|container| container.name.clone()).collect();
    }
    Ok(TaskSpec {
        arn,
        family: task.family,
        version: task.version,
        service_name: task.service_name,
        launch_type: task.launch_type,
        network,
        interfaces,
        proxy,
        fault_injection: task.enable_fault_injection,
        cpu_micros: limits.cpu_micros,
        memory: limits.memory,
        associations,
        containers,
        resources,
        execution_credentials,
        role_credentials,
        has_role: false,
        leases: Vec::new(),
        local_address: None,
    })
}

/// The network mode; `unsupported` has refused those that are not listed here.
fn network(mode: &str) -> NetworkMode {
    match mode {
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        "awsvpc" => NetworkMode::Awsvpc,
        _ => NetworkMode::Bridge,
    }
}

/// The id of a role's credentials; `None`: the task has no such role. `member` is the name of the role in the payload.
fn credentials_id(role: Option<&wire::RoleCredentials>, member: &str) -> Result<Option<CredentialsId>, TaskError> {
    let Some(role) = role else { return Ok(None) };
    if role.credentials_id.is_empty() || role.role_arn.is_empty() {
        return Err(TaskError::Malformed(format!("{member} without id or role")));
    }
    Ok(Some(role.credentials_id.as_str().into()))
}

fn container(
    wire: wire::Container,
    names: &BTreeSet<String>,
    volumes: &Volumes,
    endpoint_id: EndpointId,
) -> Result<ContainerSpec, TaskError> {
    json_object(&wire.docker_config.config, "config")?;
    let host_config = json_object(&wire.docker_config.host_config, "hostConfig")?;
    let credential_spec = credential_specs::in_container(&wire)?;
    let links = wire.links.iter().map(|text| link(text, names)).collect::<Result<Vec<_>, _>>();
    let links = links.map_err(TaskError::Resource)?;
    let volumes_from =
        wire.volumes_from.iter().map(|source| volumes_from(source, names)).collect::<Result<Vec<_>, _>>();
    let volumes_from = volumes_from.map_err(TaskError::Resource)?;
    let depends_on = wire.depends_on.iter().map(dependency).collect::<Result<Vec<_>, _>>();
    let mut depends_on = depends_on.map_err(TaskError::Malformed)?;
    let sources = volumes_from.iter().map(|source| (&source.container, Condition::Create));
    for (container, condition) in sources.chain(links.iter().map(|link| (&link.container, Condition::Start))) {
        let implied = Dependency { container: container.clone(), condition };
        if !depends_on.contains(&implied) {
            depends_on.push(implied);
        }
    }
    let ports = ports::all(&wire.port_mappings).map_err(TaskError::Malformed)?;
    let command = match overridden_command(wire.overrides.as_ref()).map_err(TaskError::Malformed)? {
        Some(command) => Some(command),
        None => wire.command,
    };
    Ok(ContainerSpec {
        command,
        kind: ContainerKind::Normal,
        ports: ports.single,
        port_ranges: ports.ranges,
        pid: Namespace::Own,
        ipc: Namespace::Own,
        gpus: Vec::new(),
        runtime: Runtime::Default,
        mounts: wire.mount_points.iter().map(|point| mount(point, volumes)).collect::<Result<_, _>>()?,
        registry_auth: registry_auth(wire.registry_authentication).map_err(TaskError::Malformed)?,
        name: ContainerName::from(wire.name),
        arn: wire.container_arn,
        image: wire.image,
        essential: wire.essential,
        entry_point: wire.entry_point,
        environment: Environment(wire.environment),
        cpu: wire.cpu,
        memory: wire.memory,
        memory_reservation: memory_reservation(&host_config),
        links,
        volumes_from,
        secrets: secrets::uses(wire.secrets)?,
        credential_spec,
        log_routing: None,
        // Compat: any other value means nothing.
        logs_with_execution_role: wire.logs_auth_strategy == "ExecutionRole",
        log: log_settings(&host_config),
        metadata_file: None,
        restart: restart_policy(wire.restart_policy),
        depends_on,
        start_timeout: (wire.start_timeout > 0).then(|| Span::secs(wire.start_timeout)),
        stop_timeout: (wire.stop_timeout > 0).then(|| Span::secs(wire.stop_timeout)),
        health_check: wire.health_check_type == "docker",
        engine_settings: EngineSettings {
            api_version: wire.docker_config.version,
            config: wire.docker_config.config,
            host_config: wire.docker_config.host_config,
        },
        endpoint_id,
    })
}

fn association(wire: &wire::Association) -> Association {
    Association {
        kind: wire.kind.clone(),
        name: wire.name.clone(),
        containers: wire.containers.iter().map(|name| name.as_str().into()).collect(),
        content: wire.content.value.clone(),
    }
}

fn link(text: &str, names: &BTreeSet<String>) -> Result<Link, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (name, alias) = match parts.as_slice() {
        [name] => (*name, *name),
        [name, alias] => (*name, *alias),
        _ => return Err("invalid link format".to_owned()),
    };
    if !names.contains(name) {
        return Err(format!("could not find container for link {text}"));
    }
    Ok(Link { container: name.into(), alias: alias.to_owned() })
}

/// Translates a dependency, even one on a container that is missing in the task: the core reports that.
fn dependency(wire: &wire::DependsOn) -> Result<Dependency, String> {
    let condition = match wire.condition.as_str() {
        "CREATE" => Condition::Create, // not allowed in a task definition, but ECS might send it
        "START" => Condition::Start,
        "COMPLETE" => Condition::Complete,
        "SUCCESS" => Condition::Success,
        "HEALTHY" => Condition::Healthy,
        other => return Err(format!("unrecognized dependsOn condition {other}")),
    };
    Ok(Dependency { container: wire.container_name.as_str().into(), condition })
}

/// The command in `overrides`, which is a JSON object or a text that contains one; `None`: `overrides` or its `command` is
/// missing or null. A value of any other type is an error.
fn overridden_command(overrides: Option<&Value>) -> Result<Option<Vec<String>>, String> {
    let no_object = || "overrides is not a JSON object".to_owned();
    let document = match overrides {
        None => return Ok(None),
        Some(Value::String(text)) => &json::parse(text).map_err(|_| no_object())?,
        Some(other) => other,
    };
    let object = match document {
        Value::Null => return Ok(None),
        Value::Object(object) => object,
        _ => return Err(no_object()),
    };
    let mut command = None;
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        if !name.eq_ignore_ascii_case("command") {
            return Err(format!("unknown member {name} in overrides"));
        }
        command = Some(json::decode(value).map_err(|_| "overrides.command is not an array of strings")?);
    }
    Ok(command)
}

fn volumes_from(wire: &wire::VolumesFrom, names: &BTreeSet<String>) -> Result<VolumesFrom, String> {
    let source = &wire.source_container;
    if !names.contains(source) {
        return Err(format!("could not find volume source container with name {source}"));
    }
    Ok(VolumesFrom { container: source.as_str().into(), read_only: wire.read_only })
}

fn mount(point: &wire::MountPoint, volumes: &Volumes) -> Result<Mount, String> {
    let source = volumes.source(&point.source_volume);
    let source = source.ok_or_else(|| format!("invalid volume referenced: {}", point.source_volume))?;
    Ok(Mount {
        volume: point.source_volume.clone(),
        source: source.to_owned(),
        container_path: point.container_path.clone(),
        read_only: point.read_only,
    })
}

/// Minimum running time of a container before a restart, in seconds, if ECS sends none.
const DEFAULT_ATTEMPT_PERIOD: u64 = 300;

fn restart_policy(wire: wire::RestartPolicy) -> Option<RestartPolicy> {
    let period = match wire.restart_attempt_period {
        0 => DEFAULT_ATTEMPT_PERIOD,
        secs => secs,
    };
    let policy = RestartPolicy { ignored_exit_codes: wire.ignored_exit_codes, attempt_period: Span::secs(period) };
    wire.enabled.then_some(policy)
}

/// The source of the registry credentials. Compat: an unknown type counts as no authentication.
fn registry_auth(wire: Option<wire::RegistryAuthentication>) -> Result<RegistryAuth, String> {
    let Some(wire) = wire else { return Ok(RegistryAuth::Engine) };
    match wire.kind.as_str() {
        "ecr" => {
            let data = wire.ecr_auth_data.ok_or("dockerauth: missing container's ecr auth data")?;
            Ok(RegistryAuth::Ecr(EcrAuth {
                registry_id: data.registry_id,
                region: data.region,
                endpoint_override: data.endpoint_override,
                use_execution_role: data.use_execution_role,
            }))
        }
        "asm" => {
            let data = wire.asm_auth_data.ok_or("dockerauth: missing container's asm auth data")?;
            Ok(RegistryAuth::Secret(SecretAuth { secret: data.credentials_parameter, region: data.region }))
        }
        _ => Ok(RegistryAuth::Engine),
    }
}

#[cfg(test)]
mod tests;
