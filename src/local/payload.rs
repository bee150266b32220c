//! Translates a task definition and overrides to the task in a payload, as ECS sends it. This module owns the translation (spec
//! `acs.md` §6, `docker-mapping.md` §3); it decides nothing. Invariant: a payload has the shape of
//! `tests/golden/acs_payload_sent.json`, and settings that only Docker understands are in `dockerConfig`.

use super::definition::{ContainerDefinition, ProxyConfiguration, TaskDefinition, Volume, without_nulls};
use super::ids::new_id;
use super::need::Need;
use super::role_credentials::{credentials, task_credentials};
use super::site::Site;
use super::tasks::{Task, TaskContainer, TaskStatus};
use super::time::now;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const MIB: u64 = 1024 * 1024;
/// A second in nanoseconds, Docker's unit of time.
const SECOND: u64 = 1_000_000_000;
/// The default of `restartAttemptPeriod`, in seconds: how long a container must have run to be started again.
const RESTART_PERIOD: u32 = 300;

/// The input for a new task.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// The definition with overrides of environment and resources applied.
    pub(super) definition: &'a TaskDefinition,
    pub(super) definition_arn: &'a str,
    /// The definition's revision in its family.
    pub(super) revision: u32,
    /// Commands from the overrides, by container name.
    pub(super) commands: &'a BTreeMap<String, Vec<String>>,
    /// The cluster's name.
    pub(super) cluster: &'a str,
    pub(super) instance_arn: &'a str,
    /// The overrides of the call, as DescribeTasks shows them.
    pub(super) overrides: Value,
    pub(super) group: &'a str,
    /// `startedBy` of the call.
    pub(super) started_by: Option<&'a str>,
    /// Ids of the instance's GPUs that no task has.
    pub(super) gpus: &'a [String],
}

impl Launch<'_> {
    /// For each GPU of the task: the name of the container that gets it, and the GPU's id.
    fn assigned_gpus(&self) -> impl Iterator<Item = (&str, &str)> {
        let containers = self.definition.container_definitions.iter();
        let names =
            containers.flat_map(|container| std::iter::repeat_n(container.name.as_str(), container.gpu_count()));
        names.zip(self.gpus.iter().map(String::as_str))
    }

    fn associations(&self) -> Option<Vec<Value>> {
        let association =
            |(container, gpu): (&str, &str)| json!({"name": gpu, "type": "gpu", "containers": [container]});
        let all: Vec<_> = self.assigned_gpus().map(association).collect();
        (!all.is_empty()).then_some(all)
    }
}

/// Makes a task with its payload.
pub(super) fn task(site: &Site, launch: &Launch<'_>) -> Task {
    let definition = launch.definition;
    let id = site.new_task_id();
    let arn = site.arn(&format!("task/{}/{id}", launch.cluster));
    let mut containers = Vec::new();
    let mut payloads = Vec::new();
    for container in &definition.container_definitions {
        let container_arn = site.arn(&format!("container/{}/{}", launch.cluster, new_id()));
        payloads.push(container_payload(site, launch, container, &container_arn, &id));
        containers.push(new_container(container, container_arn));
    }
    let payload = without_nulls(json!({
        "arn": arn,
        "taskClusterArn": site.arn(&format!("cluster/{}", launch.cluster)),
        "containers": payloads,
        "cpu": definition.cpu_limit().map(|units| units as f64 / 1024.0),
        "memory": definition.memory_limit(),
        "desiredStatus": "RUNNING",
        "family": definition.family,
        "version": launch.revision.to_string(),
        "group": launch.group,
        "launchType": "EC2",
        "networkMode": definition.network_mode(),
        "pidMode": definition.pid_mode,
        "ipcMode": definition.ipc_mode,
        "overrides": "{}",
        "proxyConfiguration": definition.proxy_configuration.as_ref().map(proxy),
        "associations": launch.associations(),
        "attachments": attachments(site, definition),
        "enableFaultInjection": definition.enable_fault_injection,
        "taskDefinitionAccountId": site.account,
        "volumes": definition.volumes.iter().map(volume).collect::<Vec<_>>(),
        "roleCredentials": definition.task_role_arn.as_deref().map(|role| task_credentials(site, role, &id)),
        "executionRoleCredentials": definition.execution_role_arn.as_deref().map(|role| credentials(site, role, &id)),
    }));
    Task {
        arn,
        cluster: launch.cluster.to_owned(),
        instance_arn: launch.instance_arn.to_owned(),
        definition_arn: launch.definition_arn.to_owned(),
        last_status: TaskStatus::Pending,
        desired_status: TaskStatus::Running,
        containers,
        stop_code: None,
        stopped_reason: None,
        payload,
        group: launch.group.to_owned(),
        family: definition.family.clone(),
        started_by: launch.started_by.map(str::to_owned),
        overrides: launch.overrides.clone(),
        cpu: definition.cpu_units().to_string(),
        memory: definition.memory_mib().to_string(),
        need: Need {
            gpus: launch.assigned_gpus().map(|(_, gpu)| gpu.to_owned()).collect(),
            ..Need::from_definition(definition)
        },
        protected_until: None,
        version: 1,
        created_at: now(),
        started_at: None,
        stopping_at: None,
        stopped_at: None,
        agent_times: Map::new(),
        interface: None,
    }
}

/// Makes a task from a payload that was written by hand. The task is tracked like any other, and its payload is sent unchanged,
/// except that a payload without an `arn` gets one.
pub(super) fn scripted_task(site: &Site, cluster: &str, instance_arn: &str, mut payload: Value, at: f64) -> Task {
    if !payload["arn"].is_string() && payload.is_object() {
        payload["arn"] = json!(site.arn(&format!("task/{cluster}/{}", site.new_task_id())));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let containers = payload["containers"].as_array().into_iter().flatten().map(|container| TaskContainer {
        name: text(&container["name"]),
        image: text(&container["image"]),
        essential: container["essential"] == true,
        last_status: TaskStatus::Pending,
        exit_code: None,
        reason: None,
        runtime_id: None,
        image_digest: None,
        network_bindings: Vec::new(),
        health_status: "UNKNOWN".to_owned(),
        arn: text(&container["containerArn"]),
        cpu: container["cpu"].as_u64().unwrap_or(0).to_string(),
        memory: container["memory"].as_u64().map(|mib| mib.to_string()),
        memory_reservation: None,
        health_check: container["healthCheckType"] == "docker",
    });
    let need = Need::from_payload(&payload);
    Task {
        arn: text(&payload["arn"]),
        cluster: cluster.to_owned(),
        instance_arn: instance_arn.to_owned(),
        definition_arn: String::new(),
        last_status: TaskStatus::Pending,
        desired_status: TaskStatus::parse(payload["desiredStatus"].as_str().unwrap_or_default())
            .unwrap_or(TaskStatus::Running),
        containers: containers.collect(),
        stop_code: None,
        stopped_reason: None,
        group: "scripted".to_owned(),
        family: text(&payload["family"]),
        started_by: None,
        overrides: json!({}),
        cpu: need.cpu.to_string(),
        memory: need.memory.to_string(),
        need,
        protected_until: None,
        version: 1,
        created_at: at,
        started_at: None,
        stopping_at: None,
        stopped_at: None,
        agent_times: Map::new(),
        interface: None,
        payload,
    }
}

fn new_container(container: &ContainerDefinition, arn: String) -> TaskContainer {
    TaskContainer {
        name: container.name.clone(),
        image: container.image.clone(),
        essential: container.essential,
        last_status: TaskStatus::Pending,
        exit_code: None,
        reason: None,
        runtime_id: None,
        image_digest: None,
        network_bindings: Vec::new(),
        health_status: "UNKNOWN".to_owned(),
        arn,
        cpu: container.cpu.to_string(),
        memory: container.memory.map(|mib| mib.to_string()),
        memory_reservation: container.memory_reservation.map(|mib| mib.to_string()),
        health_check: container.health_check.is_some(),
    }
}

fn container_payload(site: &Site, launch: &Launch<'_>, c: &ContainerDefinition, arn: &str, task_id: &str) -> Value {
    let definition = launch.definition;
    let mut environment: BTreeMap<&str, &str> = BTreeMap::from([("AWS_EXECUTION_ENV", "AWS_ECS_EC2")]);
    environment.extend(c.environment.iter().map(|variable| (variable.name.as_str(), variable.value.as_str())));
    let overrides = launch.commands.get(&c.name).map_or_else(|| json!({}), |command| json!({"command": command}));
    let execution_role = definition.execution_role_arn.is_some();
    let registry = site.registry_account(&c.image).map(|account| {
        json!({"type": "ecr", "ecrAuthData": {
            "registryId": account, "region": site.region, "endpointOverride": site.url, "useExecutionRole": execution_role,
        }})
    });
    let private = c.repository_credentials.as_ref().map(|credentials| {
        json!({"type": "asm", "asmAuthData": {
            "credentialsParameter": credentials.credentials_parameter,
            "region": region_of(site, &credentials.credentials_parameter),
        }})
    });
    let awslogs = c.log_configuration.as_ref().is_some_and(|log| log.log_driver == "awslogs");
    json!({
        "name": c.name,
        "containerArn": arn,
        "image": c.image,
        "command": c.command,
        "entryPoint": c.entry_point,
        "cpu": c.cpu,
        "memory": c.memory.unwrap_or(0),
        "environment": environment,
        "environmentFiles": (!c.environment_files.is_empty()).then_some(&c.environment_files),
        "essential": c.essential,
        "links": c.links,
        "mountPoints": c.mount_points,
        "volumesFrom": c.volumes_from,
        "portMappings": c.port_mappings.iter().map(|port| json!({
            "containerPort": (port.container_port != 0).then_some(port.container_port),
            "containerPortRange": port.container_port_range,
            "hostPort": port.host_port,
            "protocol": port.protocol,
        })).collect::<Vec<_>>(),
        "dependsOn": (!c.depends_on.is_empty()).then_some(&c.depends_on),
        "startTimeout": c.start_timeout,
        "stopTimeout": c.stop_timeout,
        "healthCheckType": c.health_check.as_ref().map(|_| "docker"),
        "overrides": overrides.to_string(),
        "registryAuthentication": private.or(registry),
        "logsAuthStrategy": (awslogs && execution_role).then_some("ExecutionRole"),
        "secrets": secrets(site, c),
        "firelensConfiguration": c.firelens_configuration,
        "credentialSpecs": (!c.credential_specs.is_empty()).then_some(&c.credential_specs),
        "restartPolicy": c.restart_policy.as_ref().map(|policy| json!({
            "enabled": policy.enabled,
            "ignoredExitCodes": policy.ignored_exit_codes,
            "restartAttemptPeriod": policy.restart_attempt_period.unwrap_or(RESTART_PERIOD),
        })),
        "dockerConfig": {
            "config": without_nulls(config(c)).to_string(),
            "hostConfig": without_nulls(host_config(definition, c, task_id)).to_string(),
            "version": "1.17",
        },
    })
}

/// The region of an ARN; the site's region for any other name.
fn region_of<'a>(site: &'a Site, name: &'a str) -> &'a str {
    name.strip_prefix("arn:")
        .and_then(|arn| arn.split(':').nth(2))
        .filter(|region| !region.is_empty())
        .unwrap_or(&site.region)
}

fn secrets(site: &Site, c: &ContainerDefinition) -> Option<Vec<Value>> {
    let sent = |secret: &super::definition::NamedSecret, target: &str| {
        let provider = if secret.value_from.contains(":secretsmanager:") { "asm" } else { "ssm" };
        json!({
            "name": secret.name, "valueFrom": secret.value_from, "provider": provider, "region": region_of(site, &secret.value_from),
            "containerPath": "", "target": target,
            "type": if target == "CONTAINER" { "ENVIRONMENT_VARIABLE" } else { "BOOTSTRAP" },
        })
    };
    let log = c.log_configuration.iter().flat_map(|log| &log.secret_options).map(|secret| sent(secret, "LOG_DRIVER"));
    let all: Vec<_> = c.secrets.iter().map(|secret| sent(secret, "CONTAINER")).chain(log).collect();
    (!all.is_empty()).then_some(all)
}

/// Docker's `Config` of a container.
fn config(c: &ContainerDefinition) -> Value {
    let health = c.health_check.as_ref().map(|check| {
        json!({
            "Test": check.command,
            "Interval": u64::from(check.interval) * SECOND,
            "Timeout": u64::from(check.timeout) * SECOND,
            "Retries": check.retries,
            "StartPeriod": check.start_period.map(|seconds| u64::from(seconds) * SECOND),
        })
    });
    json!({
        "User": c.user,
        "WorkingDir": c.working_directory,
        "Hostname": c.hostname,
        "Labels": c.docker_labels,
        "Healthcheck": health,
        "OpenStdin": c.interactive,
        "Tty": c.pseudo_terminal,
        "NetworkDisabled": c.disable_networking,
    })
}

/// Docker's `HostConfig` of a container.
fn host_config(definition: &TaskDefinition, c: &ContainerDefinition, task_id: &str) -> Value {
    let linux = c.linux_parameters.as_ref();
    let hosts = c
        .extra_hosts
        .as_ref()
        .map(|hosts| hosts.iter().map(|host| format!("{}:{}", host.hostname, host.ip_address)).collect::<Vec<_>>());
    let ulimits = c.ulimits.as_ref().map(|limits| {
        let ulimit = |limit: &super::definition::Ulimit| json!({"Name": limit.name, "Soft": limit.soft_limit, "Hard": limit.hard_limit});
        limits.iter().map(ulimit).collect::<Vec<_>>()
    });
    let sysctls = c.system_controls.as_ref().map(|controls| {
        let named =
            controls.iter().filter_map(|control| Some((control.namespace.as_deref()?, control.value.as_deref()?)));
        named.collect::<BTreeMap<_, _>>()
    });
    let swap = linux
        .and_then(|linux| linux.max_swap)
        .zip(c.memory)
        .map(|(swap, memory)| (u64::from(swap) + u64::from(memory)) * MIB);
    let mut host = json!({
        "NetworkMode": definition.network_mode(),
        "Privileged": c.privileged,
        "ReadonlyRootfs": c.readonly_root_filesystem,
        "Dns": c.dns_servers,
        "DnsSearch": c.dns_search_domains,
        "ExtraHosts": hosts,
        "SecurityOpt": c.docker_security_options,
        "Ulimits": ulimits,
        "Sysctls": sysctls,
        "LogConfig": c.log_configuration.as_ref().map(|log| log_config(log, &c.name, task_id)),
        "MemoryReservation": c.memory_reservation.map(|mib| u64::from(mib) * MIB),
        "MemorySwap": swap,
    });
    for (name, value) in linux.map(linux_parameters).unwrap_or_default() {
        host[name] = value;
    }
    host
}

/// Docker's `LogConfig`. Docker has no `awslogs-stream-prefix`: ECS makes the stream's name from it (API reference,
/// LogConfiguration).
fn log_config(log: &super::definition::LogConfiguration, container: &str, task_id: &str) -> Value {
    let mut options = log.options.clone();
    if log.log_driver == "awslogs"
        && let Some(prefix) = options.remove("awslogs-stream-prefix")
    {
        options.insert("awslogs-stream".to_owned(), format!("{prefix}/{container}/{task_id}"));
    }
    json!({"Type": log.log_driver, "Config": options})
}

fn linux_parameters(linux: &super::definition::LinuxParameters) -> Vec<(&'static str, Value)> {
    let capabilities =
        |pick: fn(&super::definition::Capabilities) -> &Vec<String>| linux.capabilities.as_ref().map(pick);
    let device = |device: &super::definition::Device| {
        let letters = [("read", 'r'), ("write", 'w'), ("mknod", 'm')];
        let given = |word: &str| {
            device.permissions.is_empty() || device.permissions.iter().any(|permission| permission == word)
        };
        let permissions: String = letters.iter().filter(|(word, _)| given(word)).map(|(_, letter)| letter).collect();
        json!({
            "PathOnHost": device.host_path,
            "PathInContainer": device.container_path.as_ref().unwrap_or(&device.host_path),
            "CgroupPermissions": permissions,
        })
    };
    let tmpfs: BTreeMap<_, _> = linux
        .tmpfs
        .iter()
        .map(|mount| {
            let options: Vec<_> =
                mount.mount_options.iter().cloned().chain([format!("size={}m", mount.size)]).collect();
            (mount.container_path.as_str(), options.join(","))
        })
        .collect();
    let devices: Vec<_> = linux.devices.iter().map(device).collect();
    vec![
        ("CapAdd", json!(capabilities(|capabilities| &capabilities.add))),
        ("CapDrop", json!(capabilities(|capabilities| &capabilities.drop))),
        ("Devices", json!((!devices.is_empty()).then_some(devices))),
        ("Init", json!(linux.init_process_enabled)),
        ("ShmSize", json!(linux.shared_memory_size.map(|mib| u64::from(mib) * MIB))),
        ("Tmpfs", json!((!tmpfs.is_empty()).then_some(tmpfs))),
        // Swappiness has no meaning without `maxSwap` (API reference, LinuxParameters).
        ("MemorySwappiness", json!(linux.max_swap.and(linux.swappiness))),
    ]
}

fn volume(volume: &Volume) -> Value {
    let host = volume.host.as_ref().and_then(|host| host.source_path.as_deref()).filter(|path| !path.is_empty());
    let mut payload = json!({"name": volume.name});
    if let Some(docker) = &volume.docker_volume_configuration {
        payload["type"] = json!("docker");
        payload["dockerVolumeConfiguration"] = json!({
            "scope": docker.scope.as_deref().unwrap_or("task"),
            "autoprovision": docker.autoprovision.unwrap_or(false),
            "driver": docker.driver.as_deref().unwrap_or("local"),
            "driverOpts": docker.driver_opts,
            "labels": docker.labels,
        });
    } else if let Some(efs) = &volume.efs_volume_configuration {
        payload["type"] = json!("efs");
        payload["efsVolumeConfiguration"] = json!(efs);
    } else {
        payload["type"] = json!("host");
        payload["host"] = host.map_or_else(|| json!({}), |path| json!({"sourcePath": path}));
    }
    payload
}

/// The attachments of a task: its volumes of S3 Files. In the list of volumes such a volume has only its name.
fn attachments(site: &Site, definition: &TaskDefinition) -> Option<Vec<Value>> {
    let attachment = |volume: &Volume| {
        let files = volume.s3files_volume_configuration.as_ref()?;
        let properties = [
            ("volumeId", files.file_system_id().map(str::to_owned)),
            ("volumeName", Some(volume.name.clone())),
            ("s3FilesRootDirectory", files.root_directory.clone()),
            ("s3FilesTransitEncryptionPort", files.transit_encryption_port.map(|port| port.to_string())),
            ("s3FilesAccessPointId", files.access_point_id().map(str::to_owned)),
        ];
        let properties =
            properties.into_iter().filter_map(|(name, value)| Some(json!({"name": name, "value": value?})));
        Some(json!({
            "attachmentArn": site.arn(&format!("attachment/{}", new_id())),
            "attachmentType": "s3files",
            "attachmentProperties": properties.collect::<Vec<_>>(),
        }))
    };
    let all: Vec<_> = definition.volumes.iter().filter_map(attachment).collect();
    (!all.is_empty()).then_some(all)
}

/// The proxy configuration of a payload, which has the properties as an object.
fn proxy(proxy: &ProxyConfiguration) -> Value {
    let properties: BTreeMap<&str, &str> =
        proxy.properties.iter().map(|property| (property.name.as_str(), property.value.as_str())).collect();
    json!({"type": proxy.kind, "containerName": proxy.container_name, "properties": properties})
}

#[cfg(test)]
mod tests;
