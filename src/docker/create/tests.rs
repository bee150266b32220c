use super::*;
use serde_json::json;

/// The container `web` of the recorded payload, reduced to the parts that this agent supports.
pub(super) fn web() -> CreateRequest {
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

pub(super) fn context<'a>(host_ports: &'a [u16], image_env: &'a [String]) -> CreateContext<'a> {
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
        selinux: false,
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
fn the_metadata_file_is_where_the_go_agent_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/container_metadata_file_mount.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let recorded = golden["Binds"][0].as_str().unwrap();
    let (source, target) = recorded.split_once(':').unwrap();
    let mut request = web();
    let (source, target) = (source.to_owned(), target.to_owned());
    request.spec.metadata_file = Some(ecs_core::model::task::MetadataMount { source, target });
    let created = created(&request);
    // The Go agent mounts it so that the container may write.
    assert_eq!(created["HostConfig"]["Binds"].as_array().unwrap().last().unwrap(), &json!(format!("{recorded}:ro")));
    let variable = format!("ECS_CONTAINER_METADATA_FILE={}", golden["ECS_CONTAINER_METADATA_FILE"].as_str().unwrap());
    assert!(created["Env"].as_array().unwrap().contains(&json!(variable)));
}

#[test]
fn the_metadata_file_is_mounted_last_and_read_only() {
    let mut request = web();
    request.spec.engine_settings.host_config = r#"{"Binds": ["/own:/own"]}"#.to_owned();
    request.spec.environment.0.insert("ECS_CONTAINER_METADATA_FILE".to_owned(), "forged".to_owned());
    request.spec.metadata_file = Some(ecs_core::model::task::MetadataMount {
        source: "/var/lib/ecs/data/metadata/judge/abc/web".to_owned(),
        target: "/opt/ecs/metadata/19914ea9".to_owned(),
    });
    let mount = "/var/lib/ecs/data/metadata/judge/abc/web:/opt/ecs/metadata/19914ea9:ro";
    for (selinux, end) in [(false, ""), (true, ",Z")] {
        let context = CreateContext { selinux, ..context(&[28480, 32768], &[]) };
        let created = serde_json::to_value(body(&request, &values(), &context).unwrap()).unwrap();
        let binds = created["HostConfig"]["Binds"].as_array().unwrap();
        assert_eq!(binds.last().unwrap(), &json!(format!("{mount}{end}")), "{binds:?}");
        assert!(binds.contains(&json!("/own:/own")), "{binds:?}");
        let variable = json!("ECS_CONTAINER_METADATA_FILE=/opt/ecs/metadata/19914ea9/ecs-container-metadata.json");
        assert!(created["Env"].as_array().unwrap().contains(&variable));
    }
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

/// The variable equals the recorded one, whatever the task definition says.
#[test]
fn a_task_role_leads_to_its_credentials() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/credentials_uri.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let uri = golden[ROLE_VARIABLE].as_str().unwrap();
    let mut request = CreateRequest { role_id: Some("11111111-2222-3333-4444-555555555555".into()), ..web() };
    request.spec.environment.0.insert(ROLE_VARIABLE.to_owned(), "/v2/credentials/forged".to_owned());
    let body = created(&request);
    let variables: Vec<&str> = body["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(variables.contains(&format!("{ROLE_VARIABLE}={uri}").as_str()), "{variables:?}");
    let inspected = json!({"Config": {"Env": body["Env"]}, "HostConfig": body["HostConfig"]});
    let ids = given_ids(&inspected);
    assert_eq!((ids.role, ids.endpoint, ids.execution_role), (request.role_id, Some(request.spec.endpoint_id), None));
    assert_eq!(given_ids(&json!({"Config": {"Env": null}})), GivenIds::default());
    let huge = format!("{ROLE_VARIABLE}=/v2/credentials/{}", "x".repeat(MAX_ID + 1));
    assert_eq!(given_ids(&json!({"Config": {"Env": [huge, "A=b", 7]}})), GivenIds::default());
}

#[test]
fn the_awslogs_driver_gets_the_execution_role() {
    let with = |log: &str, id: Option<&str>| {
        let mut request = CreateRequest { log_role_id: id.map(Into::into), ..web() };
        request.spec.logs_with_execution_role = true;
        request.spec.engine_settings.host_config = format!(r#"{{"LogConfig": {log}}}"#);
        request
    };
    for log in [
        r#"{"Type": "awslogs"}"#,
        r#"{"Type": "awslogs", "Config": null}"#,
        r#"{"Type": "awslogs", "Config": {"awslogs-group": "g"}}"#,
    ] {
        let body = created(&with(log, Some("id")));
        assert_eq!(body["HostConfig"]["LogConfig"]["Config"]["awslogs-credentials-endpoint"], "/v2/credentials/id");
        let ids = given_ids(&json!({"Config": {}, "HostConfig": body["HostConfig"]}));
        assert_eq!(ids.execution_role, Some("id".into()));
    }
    let failure = body(&with(r#"{"Type": "awslogs"}"#, None), &values(), &context(&[28480, 32768], &[])).unwrap_err();
    assert_eq!(failure.to_string(), "HostConfigError: No execution credentials set for the task");
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
    let table =
        [(0, 0, 2, Value::Null), (1, 3, 2, minimum.clone()), (1, 4, 2, minimum), (999_999, 8, 262_144, json!(8 << 20))];
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
