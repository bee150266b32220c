//! Tests for secrets, environment files, credential specs and log routers.

use super::{HostFacts, ReceivedTask, reason, recorded, spec_of, task, with_networks};
use crate::input::json::Raw;
use ecs_core::model::resource::{
    EnvironmentFile, ExternalConfig, LogRouterKind, LogRouterSpec, SecretKey, SecretProvider, SecretTarget,
};
use ecs_core::model::task::{Condition, Dependency};
use ecs_core::model::{ResourceKind, TaskSpec};
use serde_json::{Value, json};

/// The resource with this name, and the containers that need it.
fn resource<'a>(spec: &'a TaskSpec, name: &str) -> (&'a ResourceKind, Vec<&'a str>) {
    let found = spec.resources.iter().find(|resource| resource.name == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {:?}", spec.resources));
    (&found.kind, found.needed_by.iter().map(|name| name.as_str()).collect())
}

fn key(provider: SecretProvider, value_from: &str) -> SecretKey {
    SecretKey { provider, value_from: value_from.to_owned(), region: "us-west-2".to_owned() }
}

#[test]
fn the_recorded_task_needs_its_secrets_and_its_file() {
    let spec = spec_of(&recorded());
    let names: Vec<&str> = spec.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["cgroup", "volume_scratch", "volume_anon", "envfile_web", "ssmsecret", "asmsecret"]);
    let ssm = key(SecretProvider::Ssm, "/judge/ssm");
    let arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:judge-AbCdEf";
    let asm = key(SecretProvider::SecretsManager, arn);
    assert_eq!(resource(&spec, "ssmsecret"), (&ResourceKind::Secrets(vec![ssm.clone()]), vec!["web"]));
    assert_eq!(resource(&spec, "asmsecret"), (&ResourceKind::Secrets(vec![asm.clone()]), vec!["web"]));
    let file = EnvironmentFile { arn: "arn:aws:s3:::judge-bucket/app.env".to_owned() };
    assert_eq!(resource(&spec, "envfile_web"), (&ResourceKind::EnvironmentFiles(vec![file]), vec!["web"]));
    let uses: Vec<_> =
        spec.containers[0].secrets.iter().map(|used| (used.name.as_str(), &used.key, used.target)).collect();
    assert_eq!(uses, [("FROM_SSM", &ssm, SecretTarget::Environment), ("FROM_ASM", &asm, SecretTarget::Environment)]);
}

#[test]
fn credential_specs_share_a_resource_and_prefer_the_member() {
    let host = HostFacts { credential_specs: true, ..HostFacts::default() };
    let translated = |specs: [Value; 2], option: &str| {
        let mut payload = recorded();
        for (container, specs) in payload["containers"].as_array_mut().unwrap().iter_mut().zip(specs) {
            container["credentialSpecs"] = specs;
        }
        let host_config = json!({"SecurityOpt": ["label:x", option]}).to_string();
        payload["containers"][0]["dockerConfig"]["hostConfig"] = json!(host_config);
        task(Raw::new(&payload.to_string()), &host, &mut String::new)
    };
    let spec_of = |specs: [Value; 2], option: &str| match translated(specs, option) {
        ReceivedTask::Run(spec) => *spec,
        other => panic!("{other:?}"),
    };
    let found = |specs: [Value; 2], option: &str| {
        let spec = spec_of(specs, option);
        let per_container: Vec<_> = spec.containers.iter().map(|container| container.credential_spec.clone()).collect();
        let resource = spec.resources.iter().find(|resource| resource.name == "credentialspec").cloned();
        (per_container, resource.map(|resource| (resource.kind, resource.needed_by.len())))
    };
    let (joined, domainless) = ("credentialspec:file://a", "credentialspecdomainless:file://b");
    let some = |text: &str| Some(text.to_owned());
    let specs = |all: &[&str]| ResourceKind::CredentialSpecs(all.iter().map(|spec| (*spec).to_owned()).collect());
    assert_eq!(found([json!([]), json!([])], "label:y"), (vec![None, None], None));
    let both = [json!(["x", domainless, joined]), json!([joined])];
    let wanted = (vec![some(domainless), some(joined)], Some((specs(&[joined, domainless]), 2)));
    assert_eq!(found(both, joined), wanted);
    let option = (vec![some(joined), None], Some((specs(&[joined]), 1)));
    assert_eq!(found([json!([]), json!([])], joined), option);
    let needs = |specs: ResourceKind| specs.needs_execution_role();
    assert!(!needs(specs(&[joined])) && needs(specs(&[joined, domainless])));
    assert!(needs(specs(&["credentialspec:arn:aws:s3:::b/k"])));

    for wrong in ["x", "credentialspec=file://x", "credentialspecother:file://x"] {
        let ReceivedTask::Refused(refusal) = translated([json!([wrong]), json!([])], "label:y") else {
            panic!("{wrong}")
        };
        let wanted = format!(
            "UnrecogniedTaskError: Error loading task - the credential spec {wrong} of web starts with neither credentialspec: nor \
             credentialspecdomainless:"
        );
        assert_eq!(refusal.reason, wanted);
    }
}

#[test]
fn a_secret_of_two_containers_is_requested_once() {
    let mut task = recorded();
    task["containers"][1]["secrets"] = task["containers"][0]["secrets"].clone();
    task["containers"][1]["secrets"][0]["name"] = json!("splunk-token");
    task["containers"][1]["secrets"][0]["target"] = json!("LOG_DRIVER");
    let spec = spec_of(&task);
    let (ResourceKind::Secrets(keys), needed_by) = resource(&spec, "ssmsecret") else { panic!("no secrets") };
    assert_eq!((keys.len(), needed_by), (1, vec!["web", "side"]));
    assert_eq!(spec.containers[1].secrets[0].target, SecretTarget::LogOption);
}

#[test]
fn an_invalid_secret_or_file_is_refused_with_its_reason() {
    let table = [
        ("secrets", json!([{"valueFrom": "x", "provider": "ssm"}]), "a secret has no name"),
        ("secrets", json!([{"name": "A", "provider": "ssm"}]), "the secret A has no valueFrom"),
        ("secrets", json!([{"name": "A", "valueFrom": "x"}]), "unrecognized provider  of the secret A"),
        (
            "secrets",
            json!([{"name": "A", "valueFrom": "x", "provider": "vault"}]),
            "unrecognized provider vault of the secret A",
        ),
        (
            "secrets",
            json!([{"name": "A", "valueFrom": "x", "provider": "asm", "type": "MOUNT_POINT"}]),
            "unrecognized type MOUNT_POINT of the secret A",
        ),
        (
            "secrets",
            json!([{"name": "A", "valueFrom": "x", "provider": "asm", "target": "HOST"}]),
            "unrecognized target HOST of the secret A",
        ),
        ("environmentFiles", json!([{"type": "http", "value": "x"}]), "unrecognized type http of an environment file"),
        ("secrets", json!([1]), "json: cannot unmarshal number into containers[0].secrets[0], an object is expected"),
        (
            "environmentFiles",
            json!({}),
            "json: cannot unmarshal object into containers[0].environmentFiles, an array is expected",
        ),
    ];
    for (name, value, cause) in table {
        let mut task = recorded();
        task["containers"][0][name] = value;
        let reason = reason(&task);
        assert!(reason.starts_with(&format!("UnrecogniedTaskError: Error loading task - {cause}")), "{reason}");
    }
}

/// A task whose container `app` logs to the log router `router`.
fn routed(kind: &str) -> Value {
    let log = json!({"LogConfig": {"Type": "awsfirelens", "Config": {"@type": "stdout", "Name": "stdout"}}});
    json!({
        "arn": "arn:aws:ecs:us-west-2:123456789012:task/judge/ef6f009dd1e440419ab3e752afb377b5",
        "family": "judge-family", "version": "7", "desiredStatus": "RUNNING",
        "containers": [
            {"name": "app", "image": "i", "dockerConfig": {"hostConfig": log.to_string()}},
            {"name": "router", "image": "i", "memory": 32, "firelensConfiguration": {"type": kind}},
        ],
    })
}

fn router(spec: &TaskSpec) -> &LogRouterSpec {
    match resource(spec, "firelens") {
        (ResourceKind::LogRouter(router), needed_by) if needed_by == ["router"] => router,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_router_in_the_network_of_its_task_is_reached_there_only() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/payload.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut task = routed("fluentbit");
    task["networkMode"] = json!("awsvpc");
    task["elasticNetworkInterfaces"] = golden["sent"]["message"]["tasks"][0]["elasticNetworkInterfaces"].clone();
    for container in 0..2 {
        let config = &mut task["containers"][container]["dockerConfig"]["hostConfig"];
        let mut host: Value = serde_json::from_str(config.as_str().unwrap_or("{}")).unwrap();
        host["NetworkMode"] = json!("awsvpc");
        *config = json!(host.to_string());
    }
    let ReceivedTask::Run(spec) = with_networks(&task) else { panic!("{:?}", with_networks(&task)) };
    assert_eq!((router(&spec).listens, router(&spec).is_local), (true, true));
    assert!(spec.containers[0].log_routing.as_ref().unwrap().router.is_some());
}

#[test]
fn the_router_and_the_app_are_configured_as_recorded() {
    for (kind, golden) in [("fluentbit", "firelens_fluentbit"), ("fluentd", "firelens_fluentd")] {
        let path = format!("{}/tests/golden/{golden}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut task = routed(kind);
        task["arn"] = golden["task_arn"].clone();
        let spec = spec_of(&task);
        let [app, container] = spec.containers.as_slice() else { panic!("two containers") };
        let binds: Vec<_> =
            container.mounts.iter().map(|mount| format!("{}:{}", mount.source, mount.container_path)).collect();
        assert_eq!(json!(binds), golden["router_Binds"]);
        assert_eq!(json!(container.environment.0), golden["router_env"]);
        let routing = app.log_routing.as_ref().unwrap();
        let driver = &golden["app_LogConfig"]["Config"];
        assert_eq!(
            (&json!(routing.tag), &json!(format!("unix://{}", routing.socket))),
            (&driver["tag"], &driver["fluentd-address"])
        );
        assert_eq!((routing.router.as_ref().unwrap().as_str(), &routing.buffer_limit), ("router", &None));
        assert_eq!(app.depends_on, [Dependency { container: "router".into(), condition: Condition::Start }]);
        let router = router(&spec);
        assert_eq!(
            (router.listens, router.buffer, router.adds_metadata, router.adds_instance),
            (true, 16, true, false)
        );
        assert_eq!(router.outputs[0].options.len(), 2);
        assert!(!spec.resources[0].kind.needs_execution_role());
    }
}

#[test]
fn secret_options_of_a_routed_log_go_to_the_router() {
    for (kind, place) in [("fluentd", "\"#{ENV['token_0']}\""), ("fluentbit", "${token_0}")] {
        let mut task = routed(kind);
        let secret = |name: &str, target: &str, provider: &str| json!({"name": name, "valueFrom": name, "provider": provider, "target": target, "region": "us-west-2"});
        task["containers"][0]["secrets"] =
            json!([secret("token", "LOG_DRIVER", "ssm"), secret("MINE", "CONTAINER", "asm")]);
        let spec = spec_of(&task);
        let names = |index: usize| {
            spec.containers[index].secrets.iter().map(|used| (used.name.as_str(), used.target)).collect::<Vec<_>>()
        };
        assert_eq!(names(0), [("MINE", SecretTarget::Environment)]);
        assert_eq!(names(1), [("token_0", SecretTarget::Environment)]);
        assert_eq!(resource(&spec, "ssmsecret").1, ["router"]);
        assert_eq!(resource(&spec, "asmsecret").1, ["app"]);
        assert_eq!(router(&spec).outputs[0].options["token"], place);
    }
}

#[test]
fn settings_of_the_router_are_read() {
    let mut task = routed("fluentbit");
    let options = json!({"enable-ecs-log-metadata": "nonsense", "config-file-type": "s3", "config-file-value": "arn:aws:s3:::b/k"});
    task["containers"][1]["firelensConfiguration"]["options"] = options;
    task["containers"][1]["environment"] = json!({"AWS_EXECUTION_ENV": "AWS_ECS_EC2"});
    task["containers"][1]["dockerConfig"] = json!({"config": "{\"user\": \"1000:7\"}", "hostConfig": "{\"MemoryReservation\": 104857600, \"networkmode\": \"host\"}"});
    task["containers"][0]["dockerConfig"]["hostConfig"] = json!(
        "{\"NetworkMode\": \"host\", \"logconfig\": {\"type\": \"awsfirelens\", \"config\": {\"log-driver-buffer-limit\": \"2097152\"}}}"
    );
    let spec = spec_of(&task);
    let router = router(&spec);
    assert_eq!((router.kind, router.user.as_str(), router.buffer), (LogRouterKind::Fluentbit, "1000:7", 50));
    assert_eq!((router.listens, router.adds_metadata, router.adds_instance), (false, false, true));
    assert_eq!(router.external, Some(ExternalConfig::S3("arn:aws:s3:::b/k".to_owned())));
    assert!(resource(&spec, "firelens").0.needs_execution_role() && router.outputs[0].options.is_empty());
    let routing = spec.containers[0].log_routing.as_ref().unwrap();
    assert_eq!((&routing.router, routing.buffer_limit.as_deref()), (&None, Some("2097152")));
    let last = spec.containers[1].mounts.last().unwrap();
    assert!(last.source.ends_with("/config/external.conf") && last.container_path == "/fluent-bit/etc/external.conf");
}

#[test]
fn a_router_that_waits_for_others_is_not_waited_for() {
    let mut task = routed("fluentd");
    task["containers"][1]["dependsOn"] = json!([{"containerName": "app", "condition": "START"}]);
    assert!(spec_of(&task).containers[0].depends_on.is_empty());
    let mut task = routed("fluentd");
    task["containers"][0]["dependsOn"] = json!([{"containerName": "router", "condition": "HEALTHY"}]);
    let wanted = [Dependency { container: "router".into(), condition: Condition::Healthy }];
    assert_eq!(spec_of(&task).containers[0].depends_on, wanted);
}

#[test]
fn a_small_router_has_the_default_buffer() {
    for memory in [0, 1] {
        let mut task = routed("fluentbit");
        task["containers"][1]["memory"] = json!(memory);
        assert_eq!(router(&spec_of(&task)).buffer, 25);
    }
    // The task's memory limits the router too, but does not determine its buffer.
    let mut unlimited = routed("fluentbit");
    (unlimited["memory"], unlimited["containers"][1]["memory"]) = (json!(8192), json!(0));
    let host = HostFacts { memory_for_containers: true, ..HostFacts::default() };
    let ReceivedTask::Run(spec) = task(Raw::new(&unlimited.to_string()), &host, &mut String::new) else {
        panic!("{unlimited}")
    };
    assert_eq!((router(&spec).buffer, spec.containers[1].memory), (25, 8192));
}

#[test]
fn a_socket_with_too_long_a_path_is_refused() {
    let refused = |length: usize| {
        let host = HostFacts { host_data_dir: format!("/{}", "d".repeat(length - 1)), ..HostFacts::default() };
        match task(Raw::new(&routed("fluentd").to_string()), &host, &mut String::new) {
            ReceivedTask::Refused(refusal) => {
                refusal.reason.contains("is too long for the name of the log router's socket")
            }
            _ => false,
        }
    };
    assert_eq!([41, 42].map(refused), [false, true], "a task id has 32 characters");
}

#[test]
fn an_invalid_log_router_is_refused() {
    type Change = fn(&mut Value);
    let start = "resource cannot be initialized for task arn:aws:ecs:us-west-2:123456789012:task/judge/ef6f009dd1e440419ab3e752afb377b5: \
                 unable to initialize firelens resource: error parsing firelens options:";
    let loading = "UnrecogniedTaskError: Error loading task -";
    let table: [(Change, String); 8] = [
        (
            |task| task["containers"][1]["firelensConfiguration"]["type"] = json!("logstash"),
            format!("{start} unsupported firelens config type logstash"),
        ),
        (
            |task| task["containers"][1]["firelensConfiguration"]["options"] = json!({"config-file-type": "http"}),
            format!("{start} invalid value http is specified for option config-file-type"),
        ),
        (
            |task| {
                task["containers"][1]["firelensConfiguration"]["options"] =
                    json!({"config-file-type": "s3", "config-file-value": null})
            },
            format!("{start} option config-file-type is specified but config-file-value is not specified"),
        ),
        (
            |task| drop(task["containers"][1].as_object_mut().unwrap().remove("firelensConfiguration")),
            format!("{loading} the log driver of app is awsfirelens, but the task has no log router"),
        ),
        (
            |task| task["containers"][1]["dockerConfig"] = task["containers"][0]["dockerConfig"].clone(),
            format!("{loading} the log router router cannot send its log to itself"),
        ),
        (
            |task| task["containers"][0]["firelensConfiguration"] = json!({"type": "fluentd"}),
            format!("{loading} app and router cannot both be the log router of the task"),
        ),
        (
            |task| {
                task["containers"][0]["dockerConfig"]["hostConfig"] =
                    json!("{\"LogConfig\": {\"Type\": \"awsfirelens\", \"Config\": {\"retries\": 2}}}")
            },
            format!("{loading} the log option retries of app is not a string"),
        ),
        (
            |task| task["containers"][1]["firelensConfiguration"] = json!("fluentd"),
            format!(
                "{loading} json: cannot unmarshal string into containers[1].firelensConfiguration, an object is expected"
            ),
        ),
    ];
    for (change, wanted) in table {
        let mut task = routed("fluentbit");
        change(&mut task);
        assert_eq!(reason(&task), wanted);
    }
}
