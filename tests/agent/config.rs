//! The agent's configuration as an operator sees it: the file, its mistakes, flags, endpoints and proxies.

use super::rig::{Plan, Rig, one_container};
use ecs_local::{Source, TaskStatus};
use ecs_testing::docker::{Image, TempDir};
use ecs_testing::http_proxy::{HttpProxy, NAME};
use ecs_testing::self_signed_front::TlsFront;
use ecs_testing::wait::until;
use std::path::Path;
use std::process::{Command, Output};

/// Stands in every value below that may be a secret: it must not appear in any output.
const MARKER: &str = "hunter2";

/// Runs the agent with this file and no other variables.
fn agent(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ecs-agent"))
        .args(arguments)
        .env_clear()
        .env("ECS_CONFIG_FILE", file)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn write(directory: &TempDir, lines: &str) -> std::path::PathBuf {
    let path = directory.path().join("ecs.config");
    std::fs::write(&path, lines).unwrap();
    path
}

#[test]
fn all_mistakes_are_reported_at_once_without_a_secret() {
    let directory = TempDir::new("ecs-test-config");
    let lines = [
        "ECS_CLUSTR=hunter2",
        "ECS_BACKEND_HOST=ftp://me:hunter2@h",
        "ECS_INSTANCE_ATTRIBUTES={\"a\":hunter2}",
        "ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\",\"coffee\"]",
        "ECS_ENGINE_AUTH_TYPE=docker",
        "ECS_ENGINE_AUTH_DATA='{\"r.io\":{\"password\":\"hunter2\"}}'",
        "ECS_RESERVED_MEMORY=lots",
        "export ECS_LOGLEVEL=hunter2",
        "HTTP_PROXY=http://me:hunter2@ bad",
    ];
    let path = write(&directory, &lines.join("\n"));
    // (line, variable, text about it)
    let expected = [
        (1, "ECS_CLUSTR", "did you mean ECS_CLUSTER?"),
        (2, "ECS_BACKEND_HOST", "`ftp://***@h`"),
        (3, "ECS_INSTANCE_ATTRIBUTES", "not valid JSON at column 6"),
        (4, "ECS_AVAILABLE_LOGGING_DRIVERS", "`coffee` is no log driver that ECS knows"),
        (6, "ECS_ENGINE_AUTH_DATA", "in quotation marks (they are part of the value here)"),
        (7, "ECS_RESERVED_MEMORY", "`lots`"),
        (8, "ECS_LOGLEVEL", "a line that begins with export"),
        (9, "HTTP_PROXY", "characters"),
    ];
    for (arguments, code) in [(&[][..], 1), (&["-check-config"], 2)] {
        let output = agent(arguments, &path);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(!printed.contains(MARKER), "{printed}");
        for (line, variable, shape) in expected {
            let place = format!("({}:{line})", path.display());
            // The last line of a start repeats the first fatal problem.
            let is_line = |text: &&str| {
                let is_end = text.contains("the configuration cannot be used");
                !is_end && text.contains(&place) && text.contains(variable) && text.contains(shape)
            };
            assert_eq!(printed.lines().filter(is_line).count(), 1, "{place} {variable} {shape}:\n{printed}");
        }
        assert!(printed.contains("the agent does not start"), "{printed}");
        if code == 1 {
            // The last line says how many problems there are, the first one, and what shows the others.
            let last = printed.lines().last().unwrap_or_default();
            for part in
                ["because of 3 problems, the first: ", "ECS_BACKEND_HOST", ":2)", "see `ecs-agent check-config`"]
            {
                assert!(last.contains(part), "{part}: {last}");
            }
            assert!(last.contains("exit_code=1") && !last.contains("does not start"), "{last}");
        }
    }
}

#[test]
fn flags_answer_without_a_docker_or_an_instance() {
    let directory = TempDir::new("ecs-test-config");
    let data = r#"{"r.io":{"username":"me","password":"hunter2"}}"#;
    let path =
        write(&directory, &format!("ECS_CLUSTER=mine\nECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={data}\n"));
    let table: [(&[&str], i32, &str); 8] = [
        (&["-version"], 0, "Amazon ECS Agent:\n\tVersion: "),
        (&["--version"], 0, "Amazon ECS Agent:\n\tVersion: "),
        (&["--help"], 0, "ECS_ENGINE_AUTH_DATA"),
        (&["-license"], 0, "Apache License"),
        (&["-check-config"], 0, "mine"),
        (&["-nonsense"], 5, "flag provided but not defined: -nonsense"),
        (&["-loglevel"], 5, "flag needs an argument: -loglevel"),
        (&["-k=perhaps"], 5, "invalid value for -k"),
    ];
    for (arguments, code, wanted) in table {
        let output = agent(arguments, &path);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
        assert!(printed.contains(wanted) && !printed.contains(MARKER), "{arguments:?}: {printed}");
    }
    let missing = agent(&[], &directory.path().join("not-there"));
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(text(&missing).contains("not-there"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_alone_is_enough_also_for_the_health_check() {
    let Some(mut rig) = Rig::without_agent("file alone", Plan::default()).await else { return };
    let path = rig.directory.path().join("ecs.config");
    // The address of the ECS API is in the SDK's own variable instead of the agent's.
    let line = |(name, value): &(String, String)| match name.as_str() {
        "ECS_CONFIG_FILE" => String::new(),
        "ECS_BACKEND_HOST" => format!("AWS_ENDPOINT_URL_ECS={value}\n"),
        _ => format!("{name}={value}\n"),
    };
    std::fs::write(&path, rig.environment.iter().map(line).collect::<String>()).unwrap();
    rig.environment = vec![("ECS_CONFIG_FILE".to_owned(), path.to_string_lossy().into_owned())];

    let nobody = agent(&["-healthcheck"], &path);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    rig.start_agent();
    rig.registered().await;
    assert_eq!(rig.introspect("/v1/metadata").await["Cluster"], rig.cluster.name.as_str());
    assert!(agent(&["-healthcheck"], &path).status.success());
    let saved_later = rig.directory.path().join("saved-later.config");
    std::fs::write(&saved_later, "ECS_INSTANCE_ATTRIBUTES={\n").unwrap();
    for unusable in [&saved_later, &rig.directory.path().join("not-there")] {
        let healthy = agent(&["-healthcheck"], unusable);
        assert!(healthy.status.success(), "what the agent runs with counts: {healthy:?}");
    }
    let image = rig.image();
    let arn = rig.server.run_task(&one_container(&image, "exit 6")).unwrap();
    assert_eq!(rig.task(&arn, TaskStatus::Stopped).await.containers[0].exit_code, Some(6));
    assert!(rig.terminate().success());
    assert_eq!(agent(&["-healthcheck"], &path).status.code(), Some(1));
    Image::remove_locally(&image);
}

/// The calls and the websocket use the proxy; the metadata is read directly.
#[tokio::test(flavor = "multi_thread")]
async fn all_but_the_metadata_goes_through_the_proxy() {
    let Some(mut rig) = Rig::without_agent("proxy", Plan::default()).await else { return };
    let proxy = HttpProxy::start().await;
    let port = rig.server.url().rsplit(':').next().unwrap().to_owned();
    // 0.0.0.0 leads to this host, but does not look like a loopback address.
    let elsewhere = format!("http://0.0.0.0:{port}");
    let set = |rig: &mut Rig, name: &str, value: &str| rig.environment.push((name.to_owned(), value.to_owned()));
    set(&mut rig, "HTTP_PROXY", &proxy.url(MARKER));
    set(&mut rig, "NO_PROXY", "");
    set(&mut rig, "ECS_BACKEND_HOST", &format!("http://{NAME}:{port}"));
    set(&mut rig, "AWS_EC2_METADATA_SERVICE_ENDPOINT", &elsewhere);
    rig.start_agent();
    rig.registered().await;
    let seen = proxy.seen();
    let count = |start: &str| seen.iter().filter(|line| line.starts_with(start)).count();
    assert!(count(&format!("POST http://{NAME}:{port}/ ")) >= 1, "{seen:#?}");
    assert_eq!(count(&format!("GET http://{NAME}:{port}/acs/ws?")), 1, "{seen:#?}");
    assert!(!seen.iter().any(|line| line.contains("/latest/")), "{seen:#?}");
    let metadata = |state: &ecs_local::State| state.records().any(|record| record.source == Source::Imds);
    assert!(rig.server.read(metadata), "the metadata was read, directly");
    rig.kill();

    // An address that NO_PROXY excludes is reached without the proxy.
    let before = proxy.seen().len();
    set(&mut rig, "NO_PROXY", "example.com, 0.0.0.0/8");
    set(&mut rig, "ECS_BACKEND_HOST", &elsewhere);
    rig.start_agent();
    rig.registered().await;
    rig.introspect("/v1/metadata").await;
    rig.kill();
    assert_eq!(proxy.seen().len(), before, "{:#?}", proxy.seen());

    // For https, the agent asks the same proxy for a tunnel.
    set(&mut rig, "ECS_BACKEND_HOST", &format!("https://{NAME}"));
    rig.start_agent();
    let tunnel = format!("CONNECT {NAME}:443 ");
    until("a tunnel", super::rig::LIMIT, async || {
        proxy.seen().iter().any(|line| line.starts_with(&tunnel)).then_some(())
    })
    .await;
    assert!(!rig.log().contains(MARKER), "the proxy's password is not logged");
}

/// The body of the agent's registration.
fn registration(rig: &Rig) -> serde_json::Value {
    let body = |state: &ecs_local::State| {
        let record = state.records().rfind(|record| record.name == "RegisterContainerInstance")?;
        Some(record.body.clone())
    };
    rig.server.read(body).expect("a registration")
}

fn attribute<'a>(registration: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    let attributes = registration["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|attribute| attribute["name"] == name)?;
    Some(found["value"].as_str().unwrap_or_default())
}

const USER_DATA: &str = r#"{"ECSAgentConfiguration": {
    "InstanceAttributes": {"from": "user-data"},
    "ContainerInstanceTags": {"tagged": "user-data"},
    "ReservedPorts": [1001],
    "ReservedMemory": 64,
    "Clutser": "nobody"
}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_json_file_and_user_data_count_below_the_environment() {
    let options = |options: &mut ecs_local::Options, _: &_| options.user_data = Some(USER_DATA.to_owned());
    let Some(mut rig) = Rig::without_agent("documents", Plan { options: Some(options), ..Plan::default() }).await
    else {
        return;
    };
    let path = rig.directory.path().join("ecs.config.json");
    std::fs::write(
        &path,
        r#"{"InstanceAttributes": {"from": "file"}, "ReservedPorts": [1002], "ReservedPortsUDP": [1003]}"#,
    )
    .unwrap();
    rig.environment.push(("ECS_AGENT_CONFIG_FILE_PATH".to_owned(), path.to_string_lossy().into_owned()));
    rig.environment.push(("ECS_INSTANCE_ATTRIBUTES".to_owned(), r#"{"from": "environment"}"#.to_owned()));
    rig.start_agent();
    rig.registered().await;
    let body = registration(&rig);
    assert_eq!(attribute(&body, "from"), Some("environment"));
    assert_eq!(body["tags"][0]["value"], "user-data");
    let resource = |name: &str| {
        let resources = body["totalResources"].as_array().unwrap().iter();
        resources.filter(|resource| resource["name"] == name).map(|resource| resource["stringSetValue"].clone()).next()
    };
    assert_eq!(resource("PORTS"), Some(serde_json::json!(["1002"])));
    assert_eq!(resource("PORTS_UDP"), Some(serde_json::json!(["1003"])));
    let log = rig.log();
    assert!(log.contains("Clutser (EC2 user data:6): not a field") && log.contains("did you mean Cluster?"), "{log}");
    rig.kill();

    // A value in the file that cannot be read keeps the agent from starting. The log has its name, line and shape.
    std::fs::write(&path, format!("{{\n\"EngineAuthType\": \"docker\",\n\"DockerStopTimeout\": \"{MARKER}\"}}"))
        .unwrap();
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(1));
    let log = rig.log();
    let expected = format!("DockerStopTimeout ({}:3): a string of 7 characters", path.display());
    assert!(log.contains(&expected) && !log.contains(MARKER), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_document_metadata_gives_the_region() {
    let options = |options: &mut ecs_local::Options, _: &_| {
        options.user_data = Some(r#"{"ECSAgentConfiguration": {"NoIID": true}}"#.to_owned());
    };
    let Some(mut rig) = Rig::without_agent("NoIID", Plan { options: Some(options), ..Plan::default() }).await else {
        return;
    };
    rig.environment.retain(|(name, _)| name != "AWS_DEFAULT_REGION");
    rig.start_agent();
    rig.registered().await;
    let body = registration(&rig);
    assert_eq!(
        (body["instanceIdentityDocument"].as_str(), body["instanceIdentityDocumentSignature"].as_str()),
        (Some(""), Some(""))
    );
    let document = |state: &ecs_local::State| state.records().any(|record| record.name.contains("instance-identity"));
    assert!(!rig.server.read(document), "the document was not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_instance_uses_its_profile_and_no_metadata() {
    let Some(mut rig) = Rig::without_agent("external", Plan::default()).await else { return };
    let directory = rig.directory.path().to_owned();
    let profile =
        |name: &str, secret: &str| format!("[{name}]\naws_access_key_id=AKIA{name}\naws_secret_access_key={secret}\n");
    let keys = profile("other", "wrong") + &profile("mine", rig.server.token().expose());
    std::fs::write(directory.join("credentials"), keys).unwrap();
    let file = directory.join("ecs.config");
    let lines = [
        "ECS_EXTERNAL=true",
        "AWS_PROFILE=mine",
        "AWS_SHARED_CREDENTIALS_FILE=@/credentials",
        "AWS_CONFIG_FILE=@/none",
    ];
    std::fs::write(&file, lines.join("\n").replace('@', &directory.to_string_lossy())).unwrap();
    rig.start_agent();
    rig.registered().await;
    let body = registration(&rig);
    assert_eq!(attribute(&body, "ecs.capability.external"), Some(""));
    assert!(attribute(&body, "ecs.cpu-architecture").is_some());
    assert_eq!(body["instanceIdentityDocument"], "");
    let metadata = |state: &ecs_local::State| state.records().any(|record| record.source == Source::Imds);
    assert!(!rig.server.read(metadata), "an external instance has no metadata");
    let environment = std::fs::read(format!("/proc/{}/environ", rig.pid())).unwrap();
    assert!(
        String::from_utf8_lossy(&environment).contains("AWS_PROFILE=mine"),
        "the SDK sees what stood in the file only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_the_agent_are_written_if_they_are_wanted() {
    let Some(mut rig) = Rig::without_agent("runtime statistics", Plan::default()).await else { return };
    let (document, stats) = (rig.directory.path().join("config.json"), rig.directory.path().join("stats.log"));
    let settings = serde_json::json!({"EnableRuntimeStats": true, "RuntimeStatsLogFile": stats});
    std::fs::write(&document, settings.to_string()).unwrap();
    rig.environment.push(("ECS_AGENT_CONFIG_FILE_PATH".to_owned(), document.to_string_lossy().into_owned()));
    rig.start_agent();
    rig.registered().await;
    let written = async || std::fs::read_to_string(&stats).ok().filter(|text| text.ends_with('\n'));
    let text = ecs_testing::wait::until("a line", super::rig::LIMIT, written).await;
    let names: Vec<&str> =
        text.trim().split(", ").filter_map(|member| member.split_once('=')).map(|(name, _)| name).collect();
    let wanted = [
        "Time",
        "HeapMemoryInUse",
        "GoroutineCount",
        "UpTime",
        "ReadMemStatsOverhead",
        "ResidentMemory",
        "ThreadCount",
        "OpenFiles",
        "CPUTime",
    ];
    assert_eq!(names, wanted, "{text}");
    assert!(!rig.log().contains("HeapMemoryInUse"), "it is no event of the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_believes_is_taken_with_the_flag_only() {
    let Some(mut rig) = Rig::without_agent("-k", Plan::default()).await else { return };
    let port = rig.server.url().rsplit(':').next().unwrap().parse().unwrap();
    let front = TlsFront::before(port).await;
    rig.environment.push(("ECS_BACKEND_HOST".to_owned(), front.url.clone()));
    rig.environment.push(("AWS_MAX_ATTEMPTS".to_owned(), "1".to_owned()));
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(1));
    let registered = |state: &ecs_local::State| !state.instances().is_empty();
    assert!(!rig.server.read(registered), "nothing was sent");
    rig.arguments = vec!["-k"];
    rig.start_agent();
    rig.registered().await;
    assert!(rig.log().contains("TLS CERTIFICATES ARE NOT VERIFIED"), "{}", rig.log());
}
