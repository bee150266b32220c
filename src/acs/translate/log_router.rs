//! The log router of a task, FireLens (spec `resources.md` §6.1, `docker-mapping.md` §8.2).
//!
//! Pure. Owns the effects of a `firelensConfiguration` and of the log driver `awsfirelens` on a task: a resource, mounts,
//! dependencies, and the container that gets the secret log options. The invariant: afterwards only the router has the secret
//! log options of the containers that log to it.

use super::docker_config::json_object;
use super::reason::TaskError;
use crate::acs::host::HostFacts;
use crate::acs::wire;
use crate::input::json::member;
use ecs_core::model::resource::{
    ExternalConfig, LogOutput, LogRouterKind, LogRouterSpec, LogRouting, ResourceSpec, SecretTarget, SecretUse,
};
use ecs_core::model::task::{Condition, Dependency, Mount, NetworkMode};
use ecs_core::model::{ContainerName, ContainerSpec, ResourceKind, TaskArn};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const DRIVER: &str = "awsfirelens";
/// The log option that is for Docker's log driver, not for the router.
const BUFFER_LIMIT: &str = "log-driver-buffer-limit";
const SOCKET: &str = "/socket/fluent.sock";
/// Maximum length in bytes of a socket path in the kernel; with a longer path, no log line would ever arrive.
const MAX_SOCKET_PATH: usize = 107;
/// The buffer size in MiB for a router without a memory limit.
const DEFAULT_BUFFER: u32 = 25;

/// The log router that a task requests.
pub(super) struct RouterRequest {
    container: ContainerName,
    kind: LogRouterKind,
    adds_metadata: bool,
    external: Option<ExternalConfig>,
}

/// The requested log router; `None` if the task has none.
pub(super) fn requested(containers: &mut [wire::Container], task: &str) -> Result<Option<RouterRequest>, TaskError> {
    let mut routers = containers
        .iter_mut()
        .filter_map(|wire| Some((ContainerName::from(wire.name.as_str()), wire.firelens_configuration.take()?)));
    let Some((container, wire)) = routers.next() else { return Ok(None) };
    if let Some((second, _)) = routers.next() {
        return Err(format!("{container} and {second} cannot both be the log router of the task").into());
    }
    let parsed = options(&wire).map_err(|cause| {
        // The Go agent finds this error when it accepts the task, and reports it without another prefix.
        let start = format!("resource cannot be initialized for task {task}: unable to initialize firelens resource");
        TaskError::Reason(format!("{start}: error parsing firelens options: {cause}"))
    })?;
    let (kind, adds_metadata, external) = parsed;
    Ok(Some(RouterRequest { container, kind, adds_metadata, external }))
}

/// The kind of the router, whether it adds ECS metadata to log lines, and the customer's own configuration.
fn options(wire: &wire::FirelensConfiguration) -> Result<(LogRouterKind, bool, Option<ExternalConfig>), String> {
    let kind = match wire.kind.as_str() {
        "fluentd" => LogRouterKind::Fluentd,
        "fluentbit" => LogRouterKind::Fluentbit,
        other => return Err(format!("unsupported firelens config type {other}")),
    };
    // Compat: the texts that Go's ParseBool accepts as true; any other text is false.
    let is_true = |text: &String| ["1", "t", "T", "TRUE", "true", "True"].contains(&text.as_str());
    let adds_metadata = wire.options.get("enable-ecs-log-metadata").is_none_or(is_true);
    let value = wire.options.get("config-file-value").filter(|value| !value.is_empty());
    let missing = || "option config-file-type is specified but config-file-value is not specified".to_owned();
    let external = match wire.options.get("config-file-type").map(String::as_str) {
        None => None,
        Some("s3") => Some(ExternalConfig::S3(value.ok_or_else(missing)?.clone())),
        Some("file") => Some(ExternalConfig::File(value.ok_or_else(missing)?.clone())),
        Some(other) => return Err(format!("invalid value {other} is specified for option config-file-type")),
    };
    Ok((kind, adds_metadata, external))
}

/// Routes the logs of all containers with the log driver `awsfirelens` to the router. Returns the router's resource.
pub(super) fn set_up(
    request: Option<RouterRequest>,
    task: &TaskArn,
    host: &HostFacts,
    network: NetworkMode,
    containers: &mut [ContainerSpec],
) -> Result<Option<ResourceSpec>, TaskError> {
    let is_local = network == NetworkMode::Awsvpc;
    let mut logs = containers.iter().map(Log::read).collect::<Result<Vec<_>, _>>()?;
    logs.iter_mut().for_each(|log| log.is_reached |= is_local);
    let index_of = |router: &RouterRequest| containers.iter().position(|container| container.name == router.container);
    let at = request.as_ref().and_then(index_of);
    let (Some(request), Some(at)) = (request, at) else {
        return match logs.iter().position(|log| log.driver == DRIVER) {
            None => Ok(None),
            Some(index) => {
                let name = &containers[index].name;
                Err(format!("the log driver of {name} is {DRIVER}, but the task has no log router").into())
            }
        };
    };
    if logs[at].driver == DRIVER {
        return Err(format!("the log router {} cannot send its log to itself", request.container).into());
    }
    let directory = format!("{}/data/firelens/{}", host.host_data_dir.trim_end_matches('/'), task.task_id());
    if directory.len() + SOCKET.len() > MAX_SOCKET_PATH && logs.iter().any(|log| log.driver == DRIVER) {
        let text =
            format!("{directory}{SOCKET} is too long for the name of the log router's socket (ECS_HOST_DATA_DIR)");
        return Err(text.into());
    }
    // A router that waits for other containers is not waited for: the containers might wait for each other.
    let is_awaited = containers[at].depends_on.is_empty();
    let (mut outputs, mut secrets) = (Vec::new(), Vec::new());
    for (index, log) in logs.iter().enumerate().filter(|(_, log)| log.driver == DRIVER) {
        let container = &mut containers[index];
        secrets.extend(route(container, log, index, task, &request, &directory, &mut outputs));
        let has_dependency = container.depends_on.iter().any(|dependency| dependency.container == request.container);
        if is_awaited && !has_dependency {
            container.depends_on.push(Dependency { container: request.container.clone(), condition: Condition::Start });
        }
    }
    let router = &mut containers[at];
    let spec = LogRouterSpec {
        kind: request.kind,
        container: request.container.clone(),
        user: user(router)?,
        listens: logs[at].is_reached,
        is_local,
        buffer: buffer(router),
        adds_metadata: request.adds_metadata,
        adds_instance: router.environment.0.get("AWS_EXECUTION_ENV").is_some_and(|text| text == "AWS_ECS_EC2"),
        external: request.external,
        outputs,
    };
    router.secrets.extend(secrets);
    router.mounts.extend(mounts(&spec, &directory));
    if spec.kind == LogRouterKind::Fluentd {
        router.environment.0.insert("FLUENT_UID".to_owned(), "0".to_owned());
    }
    Ok(Some(ResourceSpec {
        name: "firelens".to_owned(),
        needed_by: vec![request.container],
        kind: ResourceKind::LogRouter(spec),
    }))
}

/// Routes the log of one container to the router. Returns the secrets that the router needs for it.
fn route(
    container: &mut ContainerSpec,
    log: &Log,
    index: usize,
    task: &TaskArn,
    request: &RouterRequest,
    directory: &str,
    outputs: &mut Vec<LogOutput>,
) -> Vec<SecretUse> {
    let mut options = log.options.clone();
    let buffer_limit = options.remove(BUFFER_LIMIT);
    let (own, routed): (Vec<_>, Vec<_>) =
        std::mem::take(&mut container.secrets).into_iter().partition(|used| used.target == SecretTarget::Environment);
    container.secrets = own;
    let secrets = routed.into_iter().map(|used| {
        let variable = format!("{}_{index}", used.name);
        let placeholder = match request.kind {
            LogRouterKind::Fluentd => format!("\"#{{ENV['{variable}']}}\""),
            LogRouterKind::Fluentbit => format!("${{{variable}}}"),
        };
        options.insert(used.name, placeholder);
        SecretUse { name: variable, key: used.key, target: SecretTarget::Environment }
    });
    let secrets = secrets.collect();
    outputs.push(LogOutput { container: container.name.clone(), options });
    container.log_routing = Some(LogRouting {
        router: log.is_reached.then(|| request.container.clone()),
        socket: format!("{directory}{SOCKET}"),
        tag: format!("{}-firelens-{}", container.name, task.task_id()),
        buffer_limit,
    });
    secrets
}

/// The files of the router that are mounted into its container.
fn mounts(router: &LogRouterSpec, directory: &str) -> Vec<Mount> {
    let (config, external) = match router.kind {
        LogRouterKind::Fluentd => ("/fluentd/etc/fluent.conf", "/fluentd/etc/external.conf"),
        LogRouterKind::Fluentbit => ("/fluent-bit/etc/fluent-bit.conf", "/fluent-bit/etc/external.conf"),
    };
    let mount = |source: &str, container_path: &str| Mount {
        volume: String::new(),
        source: format!("{directory}/{source}"),
        container_path: container_path.to_owned(),
        read_only: false,
    };
    let mut mounts = vec![mount("config/fluent.conf", config), mount("socket/", "/var/run/")];
    if matches!(router.external, Some(ExternalConfig::S3(_))) {
        mounts.push(mount("config/external.conf", external));
    }
    mounts
}

/// The buffer size in MiB: half of the router's memory, so that it drops lines before it is killed.
fn buffer(router: &ContainerSpec) -> u32 {
    let memory = if router.memory_reservation > 0 { router.memory_reservation } else { router.memory };
    if memory / 2 == 0 { DEFAULT_BUFFER } else { memory / 2 }
}

/// The user that the router runs as; empty: that of its image.
fn user(router: &ContainerSpec) -> Result<String, TaskError> {
    let config = json_object(&router.engine_settings.config, "config")?;
    Ok(member(&config, "User").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// The log driver and the network mode of a container, from its engine settings.
struct Log {
    driver: String,
    /// The log options; read only for the driver `awsfirelens`.
    options: BTreeMap<String, String>,
    /// True: the container reaches the router by an address: it is on Docker's bridge network, or all containers of the task have the
    /// same network.
    is_reached: bool,
}

impl Log {
    fn read(container: &ContainerSpec) -> Result<Self, String> {
        let host_config = json_object(&container.engine_settings.host_config, "hostConfig")?;
        let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
        let text = |object: &Map<String, Value>, name| {
            member(object, name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let log = object(member(&host_config, "LogConfig"));
        let driver = text(&log, "Type");
        let mut options = BTreeMap::new();
        if driver == DRIVER {
            for (name, value) in object(member(&log, "Config")) {
                let value = match value {
                    Value::String(value) => value,
                    Value::Null => String::new(),
                    _ => return Err(format!("the log option {name} of {} is not a string", container.name)),
                };
                options.insert(name, value);
            }
        }
        let is_reached = matches!(text(&host_config, "NetworkMode").as_str(), "" | "bridge" | "default");
        Ok(Self { driver, options, is_reached })
    }
}
