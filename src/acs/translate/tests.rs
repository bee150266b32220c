mod resources;

use super::*;
use ecs_core::model::Protocol;
use ecs_core::model::task::PortMapping;
use serde_json::json;

fn recorded() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/acs_payload_sent.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    golden["message"]["tasks"][0].clone()
}

fn translate(value: &Value) -> ReceivedTask {
    let mut count = 0;
    task(Raw::new(&value.to_string()), &HostFacts::default(), &mut || {
        count += 1;
        format!("id-{count}")
    })
}

fn reason(value: &Value) -> String {
    match translate(value) {
        ReceivedTask::Refused(refusal) => refusal.reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn spec_of(value: &Value) -> TaskSpec {
    match translate(value) {
        ReceivedTask::Run(spec) => *spec,
        other => panic!("not translated: {other:?}"),
    }
}

#[test]
fn a_role_without_id_or_name_is_malformed() {
    for member in ["roleCredentials", "executionRoleCredentials"] {
        for role in [json!({}), json!({"credentialsId": "x"}), json!({"roleArn": "x"})] {
            let mut task = recorded();
            task[member] = role;
            assert!(reason(&task).ends_with(&format!("{member} without id or role")), "{}", reason(&task));
        }
    }
}

#[test]
fn a_log_driver_may_use_the_execution_role() {
    let uses = |value: Value| {
        let mut task = recorded();
        task["containers"][0]["logsAuthStrategy"] = value;
        spec_of(&task).containers[0].logs_with_execution_role
    };
    assert!(uses(json!("ExecutionRole")));
    for nothing in [json!("executionrole"), json!("execution-role"), json!(""), json!(null)] {
        assert!(!uses(nothing.clone()), "{nothing}");
    }
}

#[test]
fn a_restart_policy_defaults_to_a_period_of_300_s() {
    let policy = |value: Value| {
        let mut task = recorded();
        task["containers"][0]["restartPolicy"] = value;
        spec_of(&task).containers[0].restart.clone()
    };
    let policy_with = |codes: &[i32], secs| {
        Some(RestartPolicy { ignored_exit_codes: codes.to_vec(), attempt_period: Span::secs(secs) })
    };
    assert_eq!(policy(json!({"enabled": true})), policy_with(&[], 300));
    let whole = json!({"enabled": true, "ignoredExitCodes": [0, 255], "restartAttemptPeriod": 60});
    assert_eq!(policy(whole), policy_with(&[0, 255], 60));
    assert_eq!(policy(json!({"enabled": false, "restartAttemptPeriod": 60})), None);
    assert_eq!(policy(json!({})), None);
}

#[test]
fn the_recorded_task_is_translated_whole() {
    let mut task = recorded();
    task["serviceName"] = json!("service");
    let spec = spec_of(&task);
    assert_eq!((spec.service_name.as_str(), spec.arn.as_str()), ("service", task["arn"].as_str().unwrap()));
    assert_eq!((spec.family.as_str(), spec.version.as_str()), ("judge-family", "7"));
    assert_eq!(spec.role_credentials, Some("11111111-2222-3333-4444-555555555555".into()));
    assert_eq!(spec.execution_credentials, Some("66666666-7777-8888-9999-000000000000".into()));
    let [web, side] = spec.containers.as_slice() else { panic!("{} containers", spec.containers.len()) };
    assert_eq!((web.endpoint_id.as_str(), side.endpoint_id.as_str()), ("id-1", "id-2"));
    assert_eq!((web.cpu, web.memory, web.essential, web.health_check), (128, 64, true, true));
    assert_eq!(web.environment.0["SHARED"], "definition");
    let port = |container_port, host_port, protocol| PortMapping { container_port, host_port, protocol };
    assert_eq!(web.ports, [port(80, 28480, Protocol::Tcp), port(81, 0, Protocol::Udp)]);
    let made = |name: &str| ecs_core::model::resource::volume_name(&spec.arn, "judge-family", "7", name);
    let mount = |volume: &str, source: String, container_path: &str, read_only| Mount {
        volume: volume.to_owned(),
        source,
        container_path: container_path.to_owned(),
        read_only,
    };
    let mounts = [
        mount("scratch", made("scratch"), "/scratch", false),
        mount("hostdir", "/srv".to_owned(), "/host", true),
        mount("anon", made("anon"), "/anon", false),
    ];
    assert_eq!(web.mounts, mounts);
    assert_eq!((spec.cpu_micros, spec.memory), (500_000, 256));
    let resources: Vec<_> =
        spec.resources.iter().map(|resource| (resource.name.as_str(), resource.needed_by.len())).collect();
    assert_eq!(resources[..3], [("cgroup", 2), ("volume_scratch", 1), ("volume_anon", 1)]);
    assert!(web.engine_settings.config.contains("Healthcheck") && web.engine_settings.host_config.contains("Ulimits"));
    assert_eq!(side.links, [Link { container: "web".into(), alias: "web".to_owned() }]);
    let on_web = |condition| Dependency { container: "web".into(), condition };
    let waits = [on_web(Condition::Healthy), on_web(Condition::Create), on_web(Condition::Start)];
    assert_eq!(side.depends_on, waits);
    assert_eq!(side.volumes_from, [VolumesFrom { container: "web".into(), read_only: true }]);
    let RegistryAuth::Ecr(auth) = &side.registry_auth else { panic!("{:?}", side.registry_auth) };
    assert_eq!((auth.registry_id.as_str(), auth.use_execution_role), ("123456789012", true));
}

#[test]
fn a_registry_secret_is_named_by_arn_and_region() {
    let auth = |value: Value| {
        let mut task = recorded();
        task["containers"][0]["registryAuthentication"] = value;
        spec_of(&task).containers[0].registry_auth.clone()
    };
    let data = json!({"credentialsParameter": "arn:aws:secretsmanager:r:1:secret:s", "region": "r"});
    let wanted = SecretAuth { secret: "arn:aws:secretsmanager:r:1:secret:s".to_owned(), region: "r".to_owned() };
    assert_eq!(auth(json!({"type": "asm", "asmAuthData": data})), RegistryAuth::Secret(wanted));
    assert_eq!(auth(json!({"type": "other"})), RegistryAuth::Engine);
}

#[test]
fn each_condition_of_a_dependency_is_understood() {
    use Condition::{Complete, Create, Healthy, Start, Success};
    let words =
        [("CREATE", Create), ("START", Start), ("COMPLETE", Complete), ("SUCCESS", Success), ("HEALTHY", Healthy)];
    for (word, condition) in words {
        let mut task = recorded();
        task["containers"][0]["dependsOn"] = json!([{"containerName": "other", "condition": word}]);
        let wanted = Dependency { container: "other".into(), condition };
        assert_eq!(spec_of(&task).containers[0].depends_on[0], wanted, "{word}");
    }
}

#[test]
fn a_task_to_stop_is_never_refused() {
    for status in ["STOPPED", "DEAD"] {
        let mut task = recorded();
        task["desiredStatus"] = json!(status);
        let stopped = |task: &Value, names: &[&str]| {
            let names = names.iter().map(|name| (*name).into()).collect();
            assert_eq!(translate(task), ReceivedTask::Stop(task["arn"].as_str().unwrap().into(), names));
        };
        stopped(&task, &["web", "side"]);
        task["containers"] =
            json!([{"name": "a", "image": 5}, {"name": 7}, {"name": ""}, 9, {"name": "a"}, {"name": "b"}]);
        stopped(&task, &["a", "b"]);
        task["containers"] = json!("nonsense");
        stopped(&task, &[]);
    }
}

#[test]
fn a_task_that_is_not_to_run_yet_is_left_to_ecs() {
    for status in [json!("NONE"), json!("UNKNOWN"), json!("CREATED"), json!("MANIFEST_PULLED"), Value::Null] {
        let mut task = recorded();
        task["desiredStatus"] = status;
        if task["desiredStatus"].is_null() {
            task.as_object_mut().unwrap().remove("desiredStatus"); // as `wire::envelope` yields it
        }
        assert_eq!(translate(&task), ReceivedTask::Later(task["arn"].as_str().unwrap().into()));
    }
    for status in [json!("running"), json!("PAUSED"), json!("")] {
        let mut task = recorded();
        task["desiredStatus"] = status;
        assert!(reason(&task).ends_with("unrecognized desiredStatus"));
    }
    let mut task = recorded();
    task["desiredStatus"] = json!(1);
    assert!(reason(&task).ends_with("desiredStatus is not a string"));
}

#[test]
fn what_task_metadata_shows_is_kept() {
    let mut task = recorded();
    (task["launchType"], task["serviceName"]) = (json!("EXTERNAL"), json!("shop"));
    task["containers"][0]["containerArn"] = json!("arn:container");
    task["associations"] = json!([{
        "name": "dev", "type": "elastic-inference", "containers": ["web"],
        "content": {"encoding": "identity", "value": "{\"token\": 1}"},
    }]);
    let spec = spec_of(&task);
    assert_eq!((spec.launch_type.as_str(), spec.service_name.as_str()), ("EXTERNAL", "shop"));
    assert_eq!(spec.containers[0].arn, "arn:container");
    let log = &spec.containers[0].log;
    assert_eq!((log.driver.as_str(), log.options.get()["max-size"].as_str()), ("json-file", "1m"));
    let association = &spec.associations[0];
    assert_eq!((association.kind.as_str(), association.content.as_str()), ("elastic-inference", "{\"token\": 1}"));
    assert!(!format!("{association:?}").contains("token"));
    let outline = spec.outline();
    assert!(outline.associations.is_empty() && outline.containers[0].log.options.is_empty());
    assert_eq!(spec.info().associations, spec.associations);
}

#[test]
fn a_task_has_its_network_mode_and_may_start_faults() {
    let read = |network: Value, faults: Value| {
        let mut task = recorded();
        (task["networkMode"], task["enableFaultInjection"]) = (network, faults);
        let spec = spec_of(&task);
        assert_eq!((spec.info().network, spec.outline().fault_injection), (spec.network, spec.fault_injection));
        (spec.network, spec.fault_injection)
    };
    assert_eq!(read(json!("host"), json!(true)), (NetworkMode::Host, true));
    assert_eq!(read(json!("none"), json!(false)), (NetworkMode::None, false));
    assert_eq!(read(json!("bridge"), json!(null)), (NetworkMode::Bridge, false));
    assert_eq!(read(json!(null), json!(true)), (NetworkMode::Bridge, true));
}

/// Translates on a host whose tasks may have interfaces of their own.
fn with_networks(value: &Value) -> ReceivedTask {
    let host = HostFacts { task_networks: true, ..HostFacts::default() };
    task(Raw::new(&value.to_string()), &host, &mut || "id".to_owned())
}

#[test]
fn the_recorded_task_with_an_interface_is_translated() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/payload.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut task = golden["sent"]["message"]["tasks"][0].clone();
    let ReceivedTask::Run(spec) = with_networks(&task) else { panic!("{:?}", with_networks(&task)) };
    assert_eq!((spec.network, spec.proxy.as_ref()), (NetworkMode::Awsvpc, None));
    let [interface] = spec.interfaces.as_slice() else { panic!("{:?}", spec.interfaces) };
    assert_eq!(
        (interface.id.as_str(), interface.mac.to_string()),
        ("eni-0000000000000000", "06:00:00:00:01:01".to_owned())
    );
    let names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["web", "side", "~internal~ecs~pause"]);
    let mut with_files = task.clone();
    with_files["volumes"] = json!([{"name": "v", "type": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]);
    let ReceivedTask::Run(spec) = with_networks(&with_files) else { panic!("{:?}", with_networks(&with_files)) };
    assert!(!spec.resources.iter().any(|it| it.kind.is_mounted_in_network()), "Docker mounts it without the plugin");
    task["proxyConfiguration"] = json!({"type": "APPMESH", "containerName": "side", "properties": {
        "IgnoredUID": "1337", "ProxyEgressPort": "15001",
    }});
    let ReceivedTask::Run(spec) = with_networks(&task) else { panic!("{:?}", with_networks(&task)) };
    assert_eq!(spec.proxy.map(|proxy| (proxy.ignored_uid, proxy.egress_port)), Some((Some(1337), 15001)));
    task["elasticNetworkInterfaces"][0]["macAddress"] = json!(null);
    let ReceivedTask::Refused(refusal) = with_networks(&task) else { panic!("it is not refused") };
    let cause = "eni message validation: empty eni mac address in the message";
    assert_eq!((&refusal.reason, refusal.is_malformed), (&invalid(cause), true));
    // The Go agent reports this and starts the task all the same. Here it is over.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/failures.json");
    let failures: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let reported = |case: &str, nth: usize| failures[case]["records"][nth]["body"].clone();
    assert_eq!(reported("interface_without_mac", 1)["reason"], refusal.reason);
    assert_eq!(reported("interface_without_mac", 2)["status"], "RUNNING");
    task["elasticNetworkInterfaces"] = json!([]);
    let ReceivedTask::Refused(refusal) = with_networks(&task) else { panic!("it is not refused") };
    assert_eq!(refusal.reason, invalid("the network mode is awsvpc, and the task has no network interface"));
    assert_eq!(reported("no_interface", 2)["status"], "RUNNING", "the Go agent runs it, without a way out");
}

#[test]
fn every_unsupported_feature_of_a_task_is_refused() {
    let table = [
        (
            "networkMode",
            json!("awsvpc"),
            "the network mode awsvpc, which this instance does not offer (the agent's log says why),",
        ),
        ("networkMode", json!("n\nat"), "the network mode n at"),
        ("elasticNetworkInterfaces", json!([{}]), "a network interface in another mode than awsvpc"),
        ("proxyConfiguration", json!({"type": "APPMESH"}), "a proxy in another network mode than awsvpc"),
        ("attachments", json!([{"attachmentType": "amazonebs"}]), "a volume of EBS"),
        ("attachments", json!([{"attachmentType": "serviceconnectdetail"}]), "an attachment of Service Connect"),
        ("associations", json!([{"type": "gpu"}]), "a GPU, without ECS_ENABLE_GPU_SUPPORT,"),
    ];
    for (name, value, what) in table {
        let mut task = recorded();
        task[name] = value;
        let expected = format!("UnsupportedTaskError: {what} is not supported by this version of the agent");
        assert_eq!(reason(&task), expected);
    }
}

#[test]
fn every_unsupported_feature_of_a_container_is_refused() {
    let gmsa = json!({"hostConfig": "{\"SecurityOpt\": [\"label:x\", \"credentialspecdomainless:file://s.json\"]}"});
    let table = [
        ("managedAgents", json!([{}]), "ECS Exec (a managed agent)"),
        ("credentialSpecs", json!(["x"]), "a credential spec, where gMSA (ECS_GMSA_SUPPORTED) is off,"),
        ("dockerConfig", gmsa, "a credential spec, where gMSA (ECS_GMSA_SUPPORTED) is off,"),
    ];
    for (name, value, what) in table {
        let mut task = recorded();
        task["containers"][0][name] = value;
        let tail = "is not supported by this version of the agent (container web)";
        assert_eq!(reason(&task), format!("UnsupportedTaskError: {what} {tail}"));
    }
}

#[test]
fn invalid_tasks_have_the_go_agents_reason() {
    let table = [
        ("overrides", json!("{\"cpu\": 1}"), "unknown member cpu in overrides"),
        ("overrides", json!(""), "overrides is not a JSON object"),
        ("overrides", json!({"command": 1}), "overrides.command is not an array of strings"),
        ("overrides", json!("[]"), "overrides is not a JSON object"),
        ("overrides", json!(true), "overrides is not a JSON object"),
        ("portMappings", json!([{"protocol": "TCP"}]), "unrecognized protocol TCP"),
        ("portMappings", json!([{}]), "a port mapping has neither containerPort nor containerPortRange"),
        ("dependsOn", json!([{"condition": "SOON"}]), "unrecognized dependsOn condition SOON"),
        ("mountPoints", json!([{"sourceVolume": "none"}]), "invalid volume referenced: none"),
        ("dockerConfig", json!({"config": "[]"}), "dockerConfig.config is not a JSON object"),
        ("dockerConfig", json!({"hostConfig": "{"}), "dockerConfig.hostConfig is not a JSON object"),
        ("registryAuthentication", json!({"type": "ecr"}), "dockerauth: missing container's ecr auth data"),
        ("registryAuthentication", json!({"type": "asm"}), "dockerauth: missing container's asm auth data"),
        ("name", json!("side"), "the container name side is not unique"),
        ("name", json!(""), "a container has no name"),
    ];
    for (name, value, cause) in table {
        let mut task = recorded();
        task["containers"][0][name] = value;
        assert_eq!(reason(&task), format!("UnrecogniedTaskError: Error loading task - {cause}"));
    }
    let mut task = recorded();
    task["containers"][0]["environment"] = json!("expected hunter2");
    assert_eq!(
        reason(&task),
        "UnrecogniedTaskError: Error loading task - json: cannot unmarshal string into containers[0].environment, \
         an object is expected"
    );
    task = recorded();
    task["executionRoleCredentials"]["credentialsId"] = json!("");
    assert!(reason(&task).ends_with("executionRoleCredentials without id or role"));
    assert_eq!(
        translate(&json!({"desiredStatus": "RUNNING"})),
        ReceivedTask::Refused(Refusal { arn: None, reason: invalid("the task has no ARN"), is_malformed: true })
    );
}

#[test]
fn null_counts_as_a_missing_member_everywhere() {
    fn each(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| {
                found.push(format!("{path}/{name}"));
                each(value, &format!("{path}/{name}"), found);
            }),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(at, item)| each(item, &format!("{path}/{at}"), found))
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    each(&recorded(), "", &mut all);
    assert!(all.len() > 60, "{}", all.len());
    for member in all {
        let (parent, name) = member.rsplit_once('/').unwrap();
        let (mut null, mut absent) = (recorded(), recorded());
        *null.pointer_mut(&member).unwrap() = Value::Null;
        if ["/environment", "/labels", "/driverOpts"].iter().any(|map| parent.ends_with(map)) {
            *absent.pointer_mut(&member).unwrap() = json!(""); // Go decodes it as an empty text
        } else {
            absent.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        }
        assert_eq!(translate(&null), translate(&absent), "{member}");
    }
}

#[test]
fn null_in_overrides_and_lists_is_not_set_or_empty() {
    let command = |overrides: Value| {
        let mut task = recorded();
        task["containers"][0]["command"] = json!(["own", null]);
        task["containers"][0]["overrides"] = overrides;
        spec_of(&task).containers[0].command.clone().unwrap()
    };
    for nothing in [json!(null), json!("null"), json!("{}"), json!({"command": null}), json!("{\"command\": null}")] {
        assert_eq!(command(nothing), ["own", ""]);
    }
    assert_eq!(command(json!({"command": ["x", null]})), ["x", ""]);
    assert_eq!(command(json!("{\"command\": [\"\\ud83d\"]}")), ["\u{fffd}"]);
}

#[test]
fn integers_may_be_written_as_floats() {
    let text = recorded().to_string();
    assert!(text.contains(r#""memory":64,"#) && text.contains(r#""hostPort":28480"#), "{text}");
    let odd =
        text.replace(r#""memory":64,"#, r#""memory":6.4e1,"#).replace(r#""hostPort":28480"#, r#""hostPort":28480.0"#);
    let spec = |text: &str| task(Raw::new(text), &HostFacts::default(), &mut || String::new());
    assert_eq!(spec(&odd), spec(&text));
}

#[test]
fn empty_engine_settings_are_accepted() {
    for nothing in ["", " ", "null"] {
        let mut task = recorded();
        task["containers"][0]["dockerConfig"] = json!({"config": nothing, "hostConfig": nothing});
        assert!(matches!(translate(&task), ReceivedTask::Run(_)), "{nothing:?}");
    }
}

#[test]
fn only_malformed_tasks_keep_a_payload_unacknowledged() {
    let table = [
        ("cpu", json!("much"), true),
        ("overrides", json!({"command": 1}), true),
        ("portMappings", json!([{"protocol": "TCP"}]), true),
        ("dependsOn", json!([{"condition": "SOON"}]), true),
        ("mountPoints", json!([{"sourceVolume": "none"}]), false),
        ("dockerConfig", json!({"hostConfig": "{"}), false),
        ("links", json!(["nobody"]), false),
    ];
    for (name, value, is_malformed) in table {
        let mut task = recorded();
        task["containers"][0][name] = value;
        let ReceivedTask::Refused(refusal) = translate(&task) else { panic!("{name}") };
        assert_eq!(refusal.is_malformed, is_malformed, "{name}: {}", refusal.reason);
    }
}

#[test]
fn a_task_that_contradicts_itself_has_the_go_agents_reason() {
    let gpu = |containers: Value| json!([{"type": "gpu", "name": "GPU-1", "containers": containers}]);
    let table = [
        ("links", json!(["a:b:c"]), "invalid link format"),
        ("links", json!(["nobody:x"]), "could not find container for link nobody:x"),
        (
            "volumesFrom",
            json!([{"sourceContainer": "nobody"}]),
            "could not find volume source container with name nobody",
        ),
        ("associations", gpu(json!(["x"])), "could not find container with name x for associating GPU GPU-1"),
        ("associations", gpu(json!(["web", "side"])), "could not associate multiple containers to GPU GPU-1"),
    ];
    for (name, value, cause) in table {
        let mut task = recorded();
        let place = if name == "associations" { &mut task } else { &mut task["containers"][0] };
        place[name] = value;
        let arn = task["arn"].as_str().unwrap().to_owned();
        let host = HostFacts { gpus: true, ..HostFacts::default() };
        let ReceivedTask::Refused(refusal) = super::task(Raw::new(&task.to_string()), &host, &mut || String::new())
        else {
            panic!("{name}")
        };
        assert_eq!(refusal.reason, format!("resource cannot be initialized for task {arn}: {cause}"));
    }
}

#[test]
fn a_shared_namespace_adds_a_container_of_the_agent() {
    let mut task = recorded();
    task["pidMode"] = json!("task");
    let spec = spec_of(&task);
    assert_eq!(spec.containers.len(), 3);
    let pause = spec.pause().unwrap();
    assert_eq!((pause.name.as_str(), pause.endpoint_id.as_str()), ("~internal~ecs~pause~namespace", "id-3"));
    assert!(spec.runtime_name(&pause.name).starts_with("ecs-judge-family-7-internalecspausenamespace-"));
    task["containers"][0]["name"] = json!("~internal~ecs~pause~namespace");
    task["containers"][1]["links"] = json!([]);
    task["containers"][1]["volumesFrom"] = json!([]);
    let reason = reason(&task);
    assert!(reason.ends_with("the container name ~internal~ecs~pause~namespace is the agent's own"), "{reason}");
}

#[test]
fn members_that_few_tasks_have_are_translated() {
    let mut task = recorded();
    task["containers"][0]["overrides"] = json!("{\"command\": [\"other\"]}");
    task["containers"][0]["dockerConfig"]["hostConfig"] = json!("{\"memoryReservation\": 33554432}");
    task["containers"][0]["dependsOn"] = json!([{"containerName": "ghost", "condition": "START"}]);
    task["containers"][0]["stopTimeout"] = json!(7);
    task["attachments"] = json!([{"attachmentType": "somethingelse"}]);
    let spec = spec_of(&task);
    let web = &spec.containers[0];
    assert_eq!(web.command.as_deref(), Some(["other".to_owned()].as_slice()));
    assert_eq!((web.memory_reservation, web.stop_timeout, web.start_timeout), (32, Some(Span::secs(7)), None));
    assert_eq!(web.depends_on[0].container, "ghost".into());
}
