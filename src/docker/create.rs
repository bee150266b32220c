//! Translates a [`CreateRequest`] to the body of Docker's create call. A pure function.
//!
//! Owns the mapping of spec `docker-mapping.md` §2 to §8, except for logs, which are in `log` and `log_endpoint`. The sources in
//! order, of which later ones take precedence: the model, the payload's own settings, control group and namespaces, ECS labels.
//! Invariant: the ECS labels are always this agent's, since recovery finds containers by nothing else.

pub(super) mod accelerator;
pub(super) mod health_check;
pub(super) mod log;
pub(super) mod log_endpoint;
pub(super) mod merge;
pub(super) mod namespaces;
pub(super) mod ports;
pub(super) mod ticket;

use super::api::error::config_error;
use super::outline;
use bollard::models::{ContainerConfig, ContainerCreateBody, HealthConfig, HostConfig, PortBinding};
use ecs_core::model::task::{Mount, PortRange};
use ecs_core::model::{ContainerKind, ContainerSpec, CreateRequest, Failure, OwnerMark, Protocol, SecretValues};
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
    ticket::apply(&mut host, request)?;
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
    set_labels(&mut config, request, context);

    config.insert("HostConfig".to_owned(), Value::Object(host));
    serde_json::from_value(Value::Object(config))
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
    let id = &spec.endpoint_id;
    env.insert("ECS_CONTAINER_METADATA_URI", format!("{METADATA_HOST}/v3/{id}"));
    env.insert("ECS_CONTAINER_METADATA_URI_V4", format!("{METADATA_HOST}/v4/{id}"));
    env.insert("ECS_AGENT_URI", format!("{METADATA_HOST}/api/{id}"));
    Ok(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
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
mod tests {
    use super::*;
    use serde_json::json;

    /// The container `web` of the recorded payload, reduced to the parts that this agent supports.
    fn web() -> CreateRequest {
        let spec = json!({
            "name": "web", "image": "localhost:5001/judge/open:latest", "essential": true,
            "command": ["httpd", "-f", "-p", "80", "-h", "/www"],
            "environment": {"A": "1", "SHARED": "definition"},
            "cpu": 128, "memory": 64,
            "ports": [
                {"container_port": 80, "host_port": 28480, "protocol": "tcp"},
                {"container_port": 81, "host_port": 0, "protocol": "udp"},
            ],
            "mounts": [{"host_path": "/srv", "container_path": "/host", "read_only": true}],
            "health_check": true,
            "engine_settings": {
                "config": r#"{"Labels": {"my": "label", "com.amazonaws.ecs.cluster": "forged"}, "User": "root",
                    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1000000000, "Timeout": 1000000000, "Retries": 2}}"#,
                "host_config": r#"{"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}], "CapAdd": ["NET_ADMIN"],
                    "Tmpfs": {"/t": "size=1m"}, "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}}"#,
            },
            "endpoint_id": "d9c8a5df-4e7b-4ed7-8770-7a2d2a53f0ac",
        });
        CreateRequest {
            task: "arn:aws:ecs:us-west-2:123456789012:task/judge/319892675625455485f5c720b4cd7692".into(),
            family: "judge-family".into(),
            version: "7".into(),
            runtime_name: "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101".into(),
            spec: serde_json::from_value(spec).unwrap(),
            ..CreateRequest::default()
        }
    }

    fn context<'a>(host_ports: &'a [u16], image_env: &'a [String]) -> CreateContext<'a> {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        CreateContext {
            cluster: "judge",
            owner: None,
            region: Some("us-west-2"),
            image_env,
            image_health_check: None,
            host_ports,
            cgroup_parent: None,
            range_starts: &[],
            pause_labels: &NO_LABELS,
            nvidia_runtime: "nvidia",
            requests_gpus: false,
            ipv6_only: false,
            log_driver: log::Driver { is_async: true, server: "20.10.24" },
        }
    }

    /// The values that the recorded task gets from SSM, Secrets Manager and S3.
    fn values() -> SecretValues {
        let secrets = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect::<BTreeMap<_, _>>()
        };
        SecretValues {
            environment: secrets(&[("FROM_ASM", "asm-value"), ("FROM_SSM", "ssm-value")]),
            log_options: secrets(&[]),
            environment_files: vec![secrets(&[("FROM_FILE", "file-value"), ("SHARED", "file")])],
        }
    }

    fn created(request: &CreateRequest) -> Value {
        serde_json::to_value(body(request, &values(), &context(&[28480, 32768], &[])).unwrap()).unwrap()
    }

    #[test]
    fn the_body_equals_that_of_the_go_agent() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/docker_inspect_web.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let created = created(&web());
        for field in ["Cmd", "ExposedPorts", "Healthcheck", "Image", "User"] {
            assert_eq!(created[field], golden["Config"][field], "{field}");
        }
        for field in ["CapAdd", "CpuShares", "LogConfig", "Memory", "Tmpfs", "Ulimits"] {
            assert_eq!(created["HostConfig"][field], golden["HostConfig"][field], "{field}");
        }
        for port in ["80/tcp", "81/udp"] {
            let wanted = &golden["HostConfig"]["PortBindings"][port][0]["HostPort"];
            assert_eq!(created["HostConfig"]["PortBindings"][port], json!([{"HostPort": wanted}]));
        }
        assert_eq!(created["HostConfig"]["Binds"], json!(["/srv:/host:ro"]));
        let mut labels = golden["Config"]["Labels"].clone();
        labels.as_object_mut().unwrap().remove("judge.variant"); // the image's own
        labels[outline::LABEL] = json!(outline::write(&web().outline)); // ours, for a lost state
        assert_eq!(created["Labels"], labels);
        let not_yet = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "PATH", "IMAGE_VAR"];
        let mut env: Vec<&str> = golden["Config"]["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        env.retain(|line| !not_yet.contains(&line.split('=').next().unwrap()));
        env.sort_unstable();
        assert_eq!(created["Env"], json!(env));
    }

    #[test]
    fn no_region_is_injected_if_the_task_or_image_sets_one() {
        let mut request = web();
        let with = |request: &CreateRequest, image: &[String]| {
            let body = body(request, &SecretValues::default(), &context(&[], image)).unwrap();
            body.env.unwrap().iter().any(|line| line == "AWS_REGION=us-west-2")
        };
        assert!(with(&request, &[]));
        assert!(!with(&request, &["AWS_DEFAULT_REGION".into()]));
        request.spec.environment.0.insert("AWS_REGION".into(), String::new());
        assert!(!with(&request, &[]));
    }

    #[test]
    fn secrets_win_over_variables_and_variables_over_files() {
        let secrets = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect::<BTreeMap<_, _>>()
        };
        let mut request = web();
        request.spec.environment.0 = BTreeMap::from([("A".into(), "plain".into()), ("B".into(), "plain".into())]);
        let values = SecretValues {
            environment: secrets(&[("A", "secret"), ("EMPTY", "")]),
            log_options: secrets(&[("tag", "t0ken")]),
            environment_files: vec![
                secrets(&[("A", "1"), ("B", "1"), ("C", "1"), ("EMPTY", "1")]),
                secrets(&[("C", "2"), ("AWS_REGION", "")]),
            ],
        };
        let body = body(&request, &values, &context(&[1, 2], &[])).unwrap();
        let env = body.env.unwrap();
        let own: Vec<_> = env.iter().filter(|line| !line.starts_with("ECS_")).collect();
        assert_eq!(own, ["A=secret", "AWS_REGION=", "B=plain", "C=1", "EMPTY="]);
        let options = body.host_config.unwrap().log_config.unwrap().config.unwrap();
        assert_eq!((options["tag"].as_str(), options["max-size"].as_str()), ("t0ken", "1m"));
    }

    #[test]
    fn a_container_gets_the_address_of_its_log_router() {
        let mut request = web();
        request.spec.log_routing = Some(ecs_core::model::resource::LogRouting {
            router: Some("router".into()),
            socket: "/s".to_owned(),
            tag: "t".to_owned(),
            buffer_limit: None,
        });
        request.router_address = Some("172.17.0.2".to_owned());
        let created = created(&request);
        assert_eq!(created["HostConfig"]["LogConfig"]["Type"], "fluentd");
        let env = created["Env"].as_array().unwrap();
        assert!(env.contains(&json!("FLUENT_HOST=172.17.0.2")) && env.contains(&json!("FLUENT_PORT=24224")), "{env:?}");
    }

    #[test]
    fn limits_of_cpu_and_memory() {
        let minimum = json!(4 << 20); // 4 MiB
        let table = [
            (0, 0, 2, Value::Null),
            (1, 3, 2, minimum.clone()),
            (1, 4, 2, minimum),
            (999_999, 8, 262_144, json!(8 << 20)),
        ];
        for (cpu, memory, shares, bytes) in table {
            let mut request = web();
            (request.spec.cpu, request.spec.memory) = (cpu, memory);
            let created = created(&request);
            assert_eq!(created["HostConfig"]["CpuShares"], json!(shares));
            assert_eq!(created["HostConfig"]["Memory"], bytes);
        }
    }

    #[test]
    fn links_are_set_and_a_non_blocking_log_is_bounded() {
        let mut request = web();
        request.links = vec![("ecs-f-1-db-00".into(), "db".into())];
        request.spec.engine_settings.host_config =
            r#"{"logconfig": {"type": "awslogs", "config": {"mode": "non-blocking"}}}"#.into();
        let created = created(&request);
        assert_eq!(created["HostConfig"]["Links"], json!(["ecs-f-1-db-00:db"]));
        assert_eq!(created["HostConfig"]["LogConfig"]["Config"]["max-buffer-size"], json!("10m"));
    }

    #[test]
    fn an_impossible_create_gives_a_reason() {
        type Break = fn(&mut CreateRequest);
        let table: [(Break, &str); 4] = [
            (
                |r| r.spec.engine_settings.config.clear(),
                "DockerClientConfigError: docker health check is nil while container health check type is DOCKER",
            ),
            (
                |r| r.spec.engine_settings.config = "{".into(),
                "DockerClientConfigError: Unable decode given docker config: ",
            ),
            (
                |r| r.spec.engine_settings.host_config = r#"{"Memory": "x"}"#.into(),
                "HostConfigError: Unable to decode given host config: json: cannot unmarshal string",
            ),
            (
                |r| r.spec.mounts[0].source.clear(),
                "HostConfigError: Unable to resolve volume mounts; invalid path: web ;  -> /host",
            ),
        ];
        for (make_invalid, text) in table {
            let mut request = web();
            make_invalid(&mut request);
            let failure = body(&request, &SecretValues::default(), &context(&[1, 2], &[])).unwrap_err().to_string();
            assert!(failure.starts_with(text), "{failure}");
        }
    }

    #[test]
    fn port_ranges_and_volumes_from_other_containers() {
        let mut request = web();
        request.spec.ports.truncate(1);
        let range = |first, last, protocol| PortRange { first, last, protocol };
        request.spec.port_ranges = vec![range(7000, 7002, Protocol::Udp), range(7000, 7000, Protocol::Tcp)];
        request.volumes_from = vec![("ecs-a".into(), false), ("ecs-b".into(), true)];
        let context = CreateContext { range_starts: &[40_000, 50_000], ..context(&[28480], &[]) };
        let created = serde_json::to_value(body(&request, &SecretValues::default(), &context).unwrap()).unwrap();
        let bound = |port: u16| json!([{"HostPort": port.to_string()}]);
        let wanted = json!({
            "80/tcp": bound(28480), "7000/udp": bound(40_000), "7001/udp": bound(40_001), "7002/udp": bound(40_002),
            "7000/tcp": bound(50_000),
        });
        assert_eq!(created["HostConfig"]["PortBindings"], wanted);
        let exposed: Vec<&String> = created["ExposedPorts"].as_object().unwrap().keys().collect();
        assert_eq!(exposed, ["7000/tcp", "7000/udp", "7001/udp", "7002/udp", "80/tcp"]);
        assert_eq!(created["HostConfig"]["VolumesFrom"], json!(["ecs-a", "ecs-b:ro"]));
    }

    #[test]
    fn the_owner_is_this_agent_whatever_the_payload_says() {
        let mut request = web();
        request.spec.engine_settings.config =
            r#"{"Labels": {"ecs-agent.owner": "forged", "ecs-agent.data-dir": "forged", "my": "label"}}"#.to_owned();
        request.spec.health_check = false;
        let mark = OwnerMark { id: "us".into(), data_directory: "8:1 /data".to_owned() };
        for owner in [Some(&mark), None] {
            let context = CreateContext { owner, ..context(&[8080], &[]) };
            let created = serde_json::to_value(body(&request, &values(), &context).unwrap()).unwrap();
            let label = |name: &str| created["Labels"][name].as_str();
            assert_eq!(label(outline::OWNER), owner.map(|_| "us"));
            assert_eq!(label(outline::PLACE), owner.map(|_| "8:1 /data"));
            assert_eq!(label("my"), Some("label"));
        }
    }

    #[test]
    fn a_pause_container_has_its_labels_and_no_environment() {
        let spec = ContainerSpec {
            name: "~internal~ecs~pause~namespace".into(),
            kind: ContainerKind::Pause,
            image: "pause".to_owned(),
            ipc: ecs_core::model::task::Namespace::Shareable,
            ..ContainerSpec::default()
        };
        let request = CreateRequest { spec, task: "task".into(), ..CreateRequest::default() };
        let labels = [("mine", "1"), (LABEL_TASK, "forged")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = BTreeMap::from(labels);
        let context = CreateContext { pause_labels: &labels, ..context(&[], &[]) };
        let created = serde_json::to_value(body(&request, &SecretValues::default(), &context).unwrap()).unwrap();
        assert_eq!((&created["Env"], &created["StopSignal"]), (&json!([]), &json!("SIGKILL")));
        assert_eq!((&created["Labels"]["mine"], &created["Labels"][LABEL_TASK]), (&json!("1"), &json!("task")));
        assert_eq!(created["HostConfig"]["NetworkMode"], "none");
        assert_eq!(created["HostConfig"]["IpcMode"], "shareable");
        let mut other = web();
        other.spec.health_check = false;
        let created = serde_json::to_value(body(&other, &SecretValues::default(), &context).unwrap()).unwrap();
        assert!(created["Labels"].get("mine").is_none() && created.get("StopSignal").is_none());
    }

    #[test]
    fn a_health_check_that_hurts_the_engine_fails_its_container() {
        let mut request = web();
        request.spec.engine_settings.config = r#"{"healthcheck": {"test": ["CMD"]}}"#.into();
        let refused = |request: &CreateRequest, image: Option<&HealthConfig>| {
            let context = CreateContext { image_health_check: image, ..context(&[1, 2], &[]) };
            body(request, &SecretValues::default(), &context).unwrap_err().to_string()
        };
        let wanted = "DockerClientConfigError: the health check has no command after CMD";
        assert_eq!(refused(&request, None), wanted);
        request.spec.health_check = false;
        assert_eq!(refused(&request, None), wanted, "Docker runs the check even if ECS ignores its result");
        request.spec.engine_settings.config = "{}".into();
        let wanted = "DockerClientConfigError: the health check of the image has no command after CMD";
        let image = HealthConfig { test: Some(vec!["CMD".to_owned()]), ..HealthConfig::default() };
        assert_eq!(refused(&request, Some(&image)), wanted);
    }

    #[test]
    fn the_payload_may_replace_the_whole_environment() {
        let mut request = web();
        request.spec.health_check = false;
        request.spec.engine_settings.config = r#"{"env": ["ONLY=this"], "entrypoint": ["/x"]}"#.into();
        let created = created(&request);
        assert_eq!((&created["Env"], &created["Entrypoint"]), (&json!(["ONLY=this"]), &json!(["/x"])));
    }
}
