//! From a task on the wire to the task of the model, or to a refusal with its reason (spec `acs.md` §6, `task-engine.md` §5.1).
//!
//! Pure: ids come from the caller. It decides nothing about running; it only makes sure that whatever reaches the core can be run
//! as asked. The invariant: a task is either translated whole or refused; nothing in it is silently left out.

use super::unsupported;
use super::wire;
use crate::model::task::{
    Condition, Dependency, EcrAuth, EngineSettings, Environment, HostMount, Link, PortMapping, RegistryAuth,
};
use crate::model::{ContainerName, ContainerSpec, CredentialsId, Protocol, Span, TaskArn, TaskSpec, TaskStatus};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// One task of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadTask {
    /// Run it, as far as `desired` says.
    Run {
        /// What to run.
        spec: Box<TaskSpec>,
        /// How far ECS wants it.
        desired: TaskStatus,
    },
    /// Stop it, known or not.
    Stop(TaskArn),
    /// It cannot be run: report it STOPPED with this reason.
    Refused(Refusal),
}

/// Why a task is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The task, if it named itself.
    pub arn: Option<TaskArn>,
    /// The reason for ECS.
    pub reason: String,
}

/// Translates one task. `new_id` gives each container its random endpoint id.
pub(super) fn task(value: &Value, new_id: &mut dyn FnMut() -> String) -> PayloadTask {
    let arn = value.get("arn").and_then(Value::as_str).filter(|arn| !arn.is_empty()).map(TaskArn::from);
    let refuse = |reason: String| PayloadTask::Refused(Refusal { arn: arn.clone(), reason });
    let Some(known_arn) = arn.clone() else { return refuse(invalid("the task has no ARN")) };
    let desired = match desired_status(value) {
        Ok(TaskStatus::Stopped) => return PayloadTask::Stop(known_arn),
        Ok(desired) => desired,
        Err(cause) => return refuse(invalid(&cause)),
    };
    let wire: wire::Task = match serde_json::from_value(value.clone()) {
        Ok(wire) => wire,
        Err(error) => return refuse(invalid(&shape(&error))),
    };
    if let Some(what) = unsupported::in_task(&wire) {
        return refuse(format!("UnsupportedTaskError: {what}"));
    }
    match spec(wire, new_id) {
        Ok(spec) => PayloadTask::Run { spec: Box::new(spec), desired },
        Err(cause) => refuse(invalid(&cause)),
    }
}

/// Compat: the spelling is the reference's, and people search for it.
fn invalid(cause: &str) -> String {
    format!("UnrecogniedTaskError: Error loading task - {cause}")
}

/// What serde found, without the value it found: that may be the customer's secret.
fn shape(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find("expected"), text.starts_with("invalid")) {
        (Some(at), true) => format!("a member has the wrong type or value: {}", &text[at..]),
        _ => "a member has the wrong type or value".to_owned(),
    }
}

fn desired_status(task: &Value) -> Result<TaskStatus, String> {
    match task.get("desiredStatus") {
        None => Ok(TaskStatus::None),
        Some(Value::String(status)) => match status.as_str() {
            "RUNNING" => Ok(TaskStatus::Running),
            "STOPPED" | "DEAD" => Ok(TaskStatus::Stopped),
            "NONE" | "UNKNOWN" => Ok(TaskStatus::None),
            "CREATED" => Ok(TaskStatus::Created),
            "MANIFEST_PULLED" => Ok(TaskStatus::ManifestPulled),
            _ => Err("unrecognized desiredStatus".to_owned()),
        },
        Some(_) => Err("desiredStatus is not a string".to_owned()),
    }
}

fn spec(task: wire::Task, new_id: &mut dyn FnMut() -> String) -> Result<TaskSpec, String> {
    let mut names = BTreeSet::new();
    for container in &task.containers {
        if container.name.is_empty() {
            return Err("a container has no name".to_owned());
        }
        if !names.insert(container.name.clone()) {
            return Err(format!("the container name {} is not unique", container.name));
        }
    }
    if names.is_empty() {
        return Err("the task has no containers".to_owned());
    }
    let volumes: BTreeMap<&str, &str> = task
        .volumes
        .iter()
        .filter_map(|volume| Some((volume.name.as_str(), volume.host.as_ref()?.source_path.as_str())))
        .collect();
    if task
        .execution_role_credentials
        .as_ref()
        .is_some_and(|role| role.credentials_id.is_empty() || role.role_arn.is_empty())
    {
        return Err("executionRoleCredentials without id or role".to_owned());
    }
    let execution_credentials =
        task.execution_role_credentials.as_ref().map(|role| CredentialsId::from(role.credentials_id.as_str()));
    let containers: Result<Vec<_>, _> =
        task.containers.into_iter().map(|wire| container(wire, &names, &volumes, new_id())).collect();
    Ok(TaskSpec {
        arn: TaskArn::from(task.arn),
        family: task.family,
        version: task.version,
        service_name: task.service_name,
        containers: containers?,
        execution_credentials,
    })
}

fn container(
    wire: wire::Container,
    names: &BTreeSet<String>,
    volumes: &BTreeMap<&str, &str>,
    endpoint_id: String,
) -> Result<ContainerSpec, String> {
    json_object(&wire.docker_config.config, "config")?;
    let host_config = json_object(&wire.docker_config.host_config, "hostConfig")?;
    let links = wire.links.iter().map(|text| link(text, names)).collect::<Result<Vec<_>, _>>()?;
    let mut depends_on = wire.depends_on.iter().map(dependency).collect::<Result<Vec<_>, _>>()?;
    for link in &links {
        let start = Dependency { container: link.container.clone(), condition: Condition::Start };
        if !depends_on.contains(&start) {
            depends_on.push(start);
        }
    }
    let command = match overridden_command(wire.overrides.as_ref())? {
        Some(command) => Some(command),
        None => wire.command,
    };
    Ok(ContainerSpec {
        command,
        ports: wire.port_mappings.iter().map(port).collect::<Result<_, _>>()?,
        mounts: wire.mount_points.iter().map(|point| mount(point, volumes)).collect::<Result<_, _>>()?,
        registry_auth: registry_auth(wire.registry_authentication)?,
        name: ContainerName::from(wire.name),
        image: wire.image,
        essential: wire.essential,
        entry_point: wire.entry_point,
        environment: Environment(wire.environment),
        cpu: wire.cpu,
        memory: wire.memory,
        memory_reservation: memory_reservation(&host_config),
        links,
        depends_on,
        start_timeout: (wire.start_timeout > 0).then(|| Span::secs(wire.start_timeout)),
        stop_timeout: (wire.stop_timeout > 0).then(|| Span::secs(wire.stop_timeout)),
        health_check: wire.health_check_type == "docker",
        engine_settings: EngineSettings {
            config: wire.docker_config.config,
            host_config: wire.docker_config.host_config,
        },
        endpoint_id,
    })
}

/// The object in `text`; empty text is an empty object.
fn json_object(text: &str, what: &str) -> Result<Map<String, Value>, String> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| format!("dockerConfig.{what} is not a JSON object"))
}

/// Docker reads member names in any case.
pub(super) fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn memory_reservation(host_config: &Map<String, Value>) -> u32 {
    let bytes = member(host_config, "MemoryReservation").and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(bytes / (1024 * 1024)).unwrap_or(u32::MAX)
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

/// A dependency on a container that is not in the task is kept: the core reports it.
fn dependency(wire: &wire::DependsOn) -> Result<Dependency, String> {
    let condition = match wire.condition.as_str() {
        "START" => Condition::Start,
        "COMPLETE" => Condition::Complete,
        "SUCCESS" => Condition::Success,
        "HEALTHY" => Condition::Healthy,
        other => return Err(format!("unrecognized dependsOn condition {other}")),
    };
    Ok(Dependency { container: wire.container_name.as_str().into(), condition })
}

/// `overrides` is an object or its JSON text; only `command` may be in it.
fn overridden_command(overrides: Option<&Value>) -> Result<Option<Vec<String>>, String> {
    let object = match overrides {
        None => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| "overrides is not a JSON object")?,
        Some(Value::Object(object)) => object.clone(),
        Some(_) => return Err("overrides is not a JSON object".to_owned()),
    };
    let mut command = None;
    for (name, value) in object {
        match value {
            value if name.eq_ignore_ascii_case("command") => {
                command = serde_json::from_value(value).map_err(|_| "overrides.command is not a list of strings")?;
            }
            _ => return Err(format!("unknown member {name} in overrides")),
        }
    }
    Ok(command)
}

fn port(wire: &wire::PortMapping) -> Result<PortMapping, String> {
    let protocol = match wire.protocol.as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(format!("unrecognized protocol {other}")),
    };
    Ok(PortMapping { container_port: wire.container_port, host_port: wire.host_port, protocol })
}

fn mount(point: &wire::MountPoint, volumes: &BTreeMap<&str, &str>) -> Result<HostMount, String> {
    let host_path = volumes.get(point.source_volume.as_str());
    let host_path = host_path.ok_or_else(|| format!("invalid volume referenced: {}", point.source_volume))?;
    Ok(HostMount {
        host_path: (*host_path).to_owned(),
        container_path: point.container_path.clone(),
        read_only: point.read_only,
    })
}

fn registry_auth(wire: Option<wire::RegistryAuthentication>) -> Result<RegistryAuth, String> {
    let Some(wire) = wire.filter(|wire| wire.kind == "ecr") else { return Ok(RegistryAuth::Engine) };
    let data = wire.ecr_auth_data.ok_or("dockerauth: missing container's ecr auth data")?;
    Ok(RegistryAuth::Ecr(EcrAuth {
        registry_id: data.registry_id,
        region: data.region,
        endpoint_override: data.endpoint_override,
        use_execution_role: data.use_execution_role,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recorded() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/acs_payload_sent.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        golden["message"]["tasks"][0].clone()
    }

    /// The recorded task without what this version does not do.
    fn reduced() -> Value {
        let mut task = recorded();
        for name in ["cpu", "memory", "roleCredentials"] {
            task.as_object_mut().unwrap().remove(name);
        }
        task["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] == "hostdir");
        task["containers"][0]["mountPoints"].as_array_mut().unwrap().retain(|mount| mount["sourceVolume"] == "hostdir");
        for name in ["secrets", "environmentFiles"] {
            task["containers"][0].as_object_mut().unwrap().remove(name);
        }
        task["containers"][1].as_object_mut().unwrap().remove("volumesFrom");
        task
    }

    fn translate(value: &Value) -> PayloadTask {
        let mut count = 0;
        task(value, &mut || {
            count += 1;
            format!("id-{count}")
        })
    }

    fn reason(value: &Value) -> String {
        match translate(value) {
            PayloadTask::Refused(refusal) => refusal.reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn spec_of(value: &Value) -> TaskSpec {
        match translate(value) {
            PayloadTask::Run { spec, .. } => *spec,
            other => panic!("not translated: {other:?}"),
        }
    }

    #[test]
    fn the_recorded_task_is_refused_for_its_first_unsupported_feature() {
        let expected = "UnsupportedTaskError: a task-level cpu limit is not supported by this version of the agent";
        assert_eq!(reason(&recorded()), expected);
    }

    #[test]
    fn the_reduced_task_is_translated_whole() {
        let spec = spec_of(&reduced());
        assert_eq!((spec.family.as_str(), spec.version.as_str()), ("judge-family", "7"));
        assert_eq!(spec.execution_credentials, Some("66666666-7777-8888-9999-000000000000".into()));
        let [web, side] = spec.containers.as_slice() else { panic!("{} containers", spec.containers.len()) };
        assert_eq!((web.endpoint_id.as_str(), side.endpoint_id.as_str()), ("id-1", "id-2"));
        assert_eq!((web.cpu, web.memory, web.essential, web.health_check), (128, 64, true, true));
        assert_eq!(web.environment.0["SHARED"], "definition");
        let port = |container_port, host_port, protocol| PortMapping { container_port, host_port, protocol };
        assert_eq!(web.ports, [port(80, 28480, Protocol::Tcp), port(81, 0, Protocol::Udp)]);
        let mount = HostMount { host_path: "/srv".to_owned(), container_path: "/host".to_owned(), read_only: true };
        assert_eq!(web.mounts, [mount]);
        assert!(
            web.engine_settings.config.contains("Healthcheck") && web.engine_settings.host_config.contains("Ulimits")
        );
        assert_eq!(side.links, [Link { container: "web".into(), alias: "web".to_owned() }]);
        let on_web = |condition| Dependency { container: "web".into(), condition };
        assert_eq!(side.depends_on, [on_web(Condition::Healthy), on_web(Condition::Start)]);
        let RegistryAuth::Ecr(auth) = &side.registry_auth else { panic!("{:?}", side.registry_auth) };
        assert_eq!((auth.registry_id.as_str(), auth.use_execution_role), ("123456789012", true));
    }

    #[test]
    fn a_task_to_stop_is_never_refused() {
        for status in ["STOPPED", "DEAD"] {
            let mut task = recorded();
            task["desiredStatus"] = json!(status);
            task["containers"] = json!("nonsense");
            assert_eq!(translate(&task), PayloadTask::Stop(task["arn"].as_str().unwrap().into()));
        }
    }

    #[test]
    fn every_unsupported_feature_of_a_task_is_refused() {
        let table = [
            ("cpu", json!(0.5), "a task-level cpu limit"),
            ("memory", json!(256), "a task-level memory limit"),
            ("networkMode", json!("awsvpc"), "the network mode of the task"),
            ("elasticNetworkInterfaces", json!([{}]), "an elastic network interface"),
            ("proxyConfiguration", json!({"type": "APPMESH"}), "a proxy configuration"),
            ("roleCredentials", json!({"credentialsId": "x"}), "a task role"),
            ("pidMode", json!("host"), "pidMode"),
            ("ipcMode", json!("task"), "ipcMode"),
            ("associations", json!([{"type": "gpu"}]), "an association"),
            ("attachments", json!([{}]), "an attachment"),
            ("enableFaultInjection", json!(true), "fault injection"),
        ];
        for (name, value, what) in table {
            let mut task = reduced();
            task[name] = value;
            let expected = format!("UnsupportedTaskError: {what} is not supported by this version of the agent");
            assert_eq!(reason(&task), expected);
        }
        for (volume, what) in [
            (json!({"name": "v", "host": {}}), "a host volume without sourcePath"),
            (json!({"name": "v"}), "a host volume without host member"),
            (json!({"name": "v", "type": "docker", "dockerVolumeConfiguration": {}}), "a volume of type docker"),
            (json!({"name": "v", "type": "efs"}), "a volume of type efs"),
        ] {
            let mut task = reduced();
            task["volumes"].as_array_mut().unwrap().push(volume);
            let tail = "is not supported by this version of the agent (volume v)";
            assert_eq!(reason(&task), format!("UnsupportedTaskError: {what} {tail}"));
        }
    }

    #[test]
    fn every_unsupported_feature_of_a_container_is_refused() {
        let fire = json!({"hostConfig": "{\"logConfig\": {\"type\": \"awsfirelens\"}}"});
        let table = [
            ("environmentFiles", json!([{"type": "s3"}]), "an environment file"),
            ("secrets", json!([{}]), "a secret"),
            ("volumesFrom", json!([{}]), "volumesFrom"),
            ("portMappings", json!([{"containerPortRange": "1-2"}]), "a container port range"),
            ("firelensConfiguration", json!({}), "a FireLens configuration"),
            ("dockerConfig", fire, "the awsfirelens log driver"),
            ("managedAgents", json!([{}]), "a managed agent"),
            ("credentialSpecs", json!(["x"]), "a credential spec"),
            ("restartPolicy", json!({"enabled": true}), "a restart policy"),
            ("logsAuthStrategy", json!("ExecutionRole"), "a log driver with the execution role"),
            ("registryAuthentication", json!({"type": "asm"}), "registry authentication with Secrets Manager"),
        ];
        for (name, value, what) in table {
            let mut task = reduced();
            task["containers"][0][name] = value;
            let tail = "is not supported by this version of the agent (container web)";
            assert_eq!(reason(&task), format!("UnsupportedTaskError: {what} {tail}"));
        }
    }

    #[test]
    fn invalid_tasks_have_the_references_reason() {
        let table = [
            ("links", json!(["a:b:c"]), "invalid link format"),
            ("links", json!(["nobody:x"]), "could not find container for link nobody:x"),
            ("overrides", json!("{\"cpu\": 1}"), "unknown member cpu in overrides"),
            ("overrides", json!(""), "overrides is not a JSON object"),
            ("overrides", json!({"command": 1}), "overrides.command is not a list of strings"),
            ("portMappings", json!([{"protocol": "TCP"}]), "unrecognized protocol TCP"),
            ("dependsOn", json!([{"condition": "SOON"}]), "unrecognized dependsOn condition SOON"),
            ("mountPoints", json!([{"sourceVolume": "none"}]), "invalid volume referenced: none"),
            ("dockerConfig", json!({"config": "[]"}), "dockerConfig.config is not a JSON object"),
            ("dockerConfig", json!({"hostConfig": "{"}), "dockerConfig.hostConfig is not a JSON object"),
            ("registryAuthentication", json!({"type": "ecr"}), "dockerauth: missing container's ecr auth data"),
            ("name", json!("side"), "the container name side is not unique"),
            ("name", json!(""), "a container has no name"),
        ];
        for (name, value, cause) in table {
            let mut task = reduced();
            task["containers"][0][name] = value;
            assert_eq!(reason(&task), format!("UnrecogniedTaskError: Error loading task - {cause}"));
        }
        for (name, value) in [("cpu", json!(-1)), ("portMappings", json!([{"hostPort": 70000}])), ("image", json!(7))] {
            let mut task = reduced();
            task["containers"][0][name] = value;
            assert!(reason(&task).starts_with("UnrecogniedTaskError: Error loading task - a member has"), "{name}");
        }
        let mut task = reduced();
        task["containers"][0]["environment"] = json!("hunter2-is-the-password");
        assert!(!reason(&task).contains("hunter2"), "{}", reason(&task));
        task = reduced();
        task["executionRoleCredentials"]["credentialsId"] = json!("");
        assert!(reason(&task).ends_with("executionRoleCredentials without id or role"));
        assert_eq!(
            translate(&json!({"desiredStatus": "RUNNING"})),
            PayloadTask::Refused(Refusal { arn: None, reason: invalid("the task has no ARN") })
        );
    }

    #[test]
    fn details_that_are_easy_to_lose() {
        let mut task = reduced();
        task["desiredStatus"] = Value::Null;
        task.as_object_mut().unwrap().remove("desiredStatus");
        task["containers"][0]["overrides"] = json!("{\"command\": [\"other\"]}");
        task["containers"][0]["dockerConfig"]["hostConfig"] = json!("{\"memoryReservation\": 33554432}");
        task["containers"][0]["dependsOn"] = json!([{"containerName": "ghost", "condition": "START"}]);
        task["containers"][0]["stopTimeout"] = json!(7);
        let PayloadTask::Run { spec, desired } = translate(&task) else { panic!("refused") };
        let web = &spec.containers[0];
        assert_eq!(desired, TaskStatus::None);
        assert_eq!(web.command.as_deref(), Some(["other".to_owned()].as_slice()));
        assert_eq!((web.memory_reservation, web.stop_timeout, web.start_timeout), (32, Some(Span::secs(7)), None));
        assert_eq!(web.depends_on[0].container, "ghost".into());
    }
}
