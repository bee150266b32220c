//! Secrets and environment files: from SSM, Secrets Manager and S3, which the control plane imitates, to real containers.

use super::difference::Kind::{MayBeExtra, Value as Other};
use super::difference::{Allowed, assert_same, golden};
use super::registries::{all_output, assert_nowhere, exit_codes, images_gone};
use super::rig::{LIMIT, Plan, Rig, shell};
use ecs_local::{Fault, Record, Source, TaskStatus};
use ecs_testing::docker::{Cluster, Image, TempDir, available, inspect, one_agent};
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::123456789012:role/execRole";
const SECRET: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:judge-AbCdEf";
const VALUES: [&str; 4] = ["ssm-hunter2-value", "asm-hunter2-value", "file-hunter2-value", "7m"];

/// Puts values into SSM, Secrets Manager and S3.
fn fill(rig: &Rig) {
    rig.server.put_parameter("/judge/ssm", VALUES[0].into()).unwrap();
    rig.server.put_parameter("/judge/size", VALUES[3].into()).unwrap();
    let object = json!({"password": VALUES[1], "port": 1_000_000});
    rig.server.put_secret("judge", object.to_string().as_str().into()).unwrap();
    let first = format!("# comment\nFROM_FILE={}\nPLAIN=file\nBOTH=first\nFROM_SSM=file\n", VALUES[2]);
    rig.server.put_object("judge-bucket", "app.env", first.as_str().into()).unwrap();
    rig.server.put_object("judge-bucket", "dir/more.env", "BOTH=second\nMORE = two words \r\n".into()).unwrap();
}

/// A task whose container ends with exit code 0 if its environment is right.
fn task(image: &str) -> Value {
    let checks = [
        ("FROM_SSM", VALUES[0]),
        ("FROM_ASM", VALUES[1]),
        ("PORT", "1e+06"),
        ("PLAIN", "definition"),
        ("FROM_FILE", VALUES[2]),
        ("BOTH", "first"),
    ];
    // In two pieces, so that the command itself does not contain the value, which must appear nowhere.
    let pieces = |value: &str| value.replacen('-', "-''", 1);
    let checks: Vec<_> = checks.iter().map(|(name, value)| format!("test \"${name}\" = '{}'", pieces(value))).collect();
    let mut container = shell("main", image, &checks.join(" && "));
    container["environment"] = json!([{"name": "PLAIN", "value": "definition"}]);
    container["secrets"] = json!([
        {"name": "FROM_SSM", "valueFrom": "/judge/ssm"},
        {"name": "FROM_ASM", "valueFrom": format!("{SECRET}:password::")},
        {"name": "PORT", "valueFrom": format!("{SECRET}:port::")},
    ]);
    container["environmentFiles"] = json!([
        {"type": "s3", "value": "arn:aws:s3:::judge-bucket/app.env"},
        {"type": "s3", "value": "arn:aws:s3:::judge-bucket/dir/more.env"},
    ]);
    container["logConfiguration"] = json!({
        "logDriver": "json-file", "secretOptions": [{"name": "max-size", "valueFrom": "/judge/size"}],
    });
    json!({"family": "secrets", "executionRoleArn": ROLE, "containerDefinitions": [container]})
}

fn calls(rig: &Rig, name: &str) -> Vec<Record> {
    let is_call = |record: &&Record| record.source == Source::Api && record.name == name;
    rig.server.read(|state| state.records().filter(is_call).cloned().collect())
}

/// The values appear nowhere else: not on disk, not in the log, not in reports.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_secrets_and_files_in_their_order() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str()), ("ECS_LOGLEVEL", "debug")];
    let Some(mut rig) = Rig::start("secrets", Plan { environment: &environment, ..Plan::default() }).await else {
        return;
    };
    fill(&rig);
    let image = rig.image();
    let arn = rig.server.run_task(&task(&image)).unwrap();
    let done = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(exit_codes(&done), [Some(0)], "{:?}", done.containers[0].reason);
    let made = inspect(done.containers[0].runtime_id.as_ref().unwrap());
    assert_eq!(made["HostConfig"]["LogConfig"]["Config"]["max-size"], VALUES[3]);
    let environment = made["Config"]["Env"].as_array().unwrap();
    assert!(environment.contains(&json!("MORE = two words ")) && environment.contains(&json!("AWS_REGION=us-west-2")));
    // One call for all parameters, one for each of the two parts of the secret.
    assert_eq!(calls(&rig, "GetParameters").len(), 1);
    assert_eq!(["GetSecretValue", "HeadBucket", "GetObject"].map(|name| calls(&rig, name).len()), [2; 3]);

    // Killed between reading the values and creating the container: they are read again, because they are stored nowhere.
    proxy.hold(&["POST", "/containers/create"], Hold::Before);
    let arn = rig.server.run_task(&task(&image)).unwrap();
    proxy.held().await;
    let on_disk = all_output(&rig).await;
    rig.kill();
    rig.start_agent();
    assert_eq!(exit_codes(&rig.task(&arn, TaskStatus::Stopped).await), [Some(0)]);
    assert_eq!((calls(&rig, "GetParameters").len(), calls(&rig, "GetObject").len()), (3, 6));
    let output = on_disk + &all_output(&rig).await;
    for value in &VALUES[..3] {
        assert_nowhere(&output, "", value);
    }
    images_gone(&[&image]);
}

/// To the agent, a jump of the host's clock looks like a jump of AWS's.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_no_task_with_secrets() {
    let Some(rig) = Rig::start("jumping clock", Plan::default()).await else { return };
    fill(&rig);
    let image = rig.image();
    for ahead in [3 * 3600, -3 * 3600] {
        rig.server.set_clock_ahead(ahead);
        let arn = rig.server.run_task(&task(&image)).unwrap();
        let done = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(exit_codes(&done), [Some(0)], "AWS is {ahead} s ahead: {done:?}");
    }
    assert!(rig.log().contains("signed with the time of AWS"));
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_aws_calls_expired_are_asked_for_again() {
    let Some(rig) = Rig::start("expired credentials", Plan::default()).await else { return };
    let image = rig.image();
    let asked = |rig: &Rig| {
        let is_role_call =
            |record: &&Record| record.source == Source::Imds && record.name.ends_with("/ecsInstanceRole");
        rig.server.read(|state| state.records().filter(is_role_call).count())
    };
    let before = asked(&rig);
    let expired = Fault::Error(400, "ExpiredTokenException".to_owned(), "The security token is expired".to_owned());
    rig.server.fail_next("SubmitTaskStateChange", 4, &expired);
    rig.lives_once(&image, 7, "the reports that were refused are sent again").await;
    assert_eq!(asked(&rig), before + 1, "once a minute at most");
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_read_stops_the_task() {
    let Some(rig) = Rig::start("no secrets", Plan::default()).await else { return };
    fill(&rig);
    let image = rig.image();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut task = task(&image);
        change(&mut task["containerDefinitions"][0]);
        rig.server.run_task(&task).unwrap()
    };
    let stopped = |arn: String| {
        let rig = &rig;
        async move {
            let task = rig.task(&arn, TaskStatus::Stopped).await;
            assert_eq!(task.containers[0].runtime_id, None, "it was never created");
            rig.reports(&arn)
        }
    };
    let arn = with(&|main| main["secrets"] = json!([{"name": "A", "valueFrom": "/judge/none"}]));
    let reports = stopped(arn).await;
    let recorded = golden("submit_task_stopped_secret_failure");
    const RANDOM: [Allowed; 5] = [
        ("task", Other, "random"),
        ("cluster", Other, "the test's"),
        ("executionStoppedAt", Other, "now"),
        ("pullStartedAt", MayBeExtra, "the manifest may have come first, so that the pull had begun"),
        ("pullStoppedAt", MayBeExtra, "the same"),
    ];
    let mut last = reports.last().unwrap().clone();
    // The digest may or may not be known by then.
    last["containers"][0].as_object_mut().unwrap().remove("imageDigest");
    assert_same("secret failure", &recorded[0], &last, &RANDOM);

    let table: [(&str, Value, String); 4] = [
        (
            "secrets",
            json!([{"name": "A", "valueFrom": SECRET.replace("judge", "gone")}]),
            format!(
                "ResourceNotFoundException: The task can't retrieve the secret with ARN '{}' from AWS Secrets Manager. Check whether \
                 the secret exists in the specified Region: operation error Secrets Manager: GetSecretValue, https response error \
                 StatusCode: 400, RequestID: , ResourceNotFoundException: Secrets Manager can't find the specified secret.",
                SECRET.replace("judge", "gone")
            ),
        ),
        (
            "secrets",
            json!([{"name": "A", "valueFrom": format!("{SECRET}:user::")}]),
            "Retrieved secret from Secrets Manager did not contain json key user".to_owned(),
        ),
        (
            "environmentFiles",
            json!([{"type": "s3", "value": "arn:aws:s3:::judge-bucket/none.env"}]),
            "Unable to download env file with key none.env from bucket judge-bucket, error: operation error S3: GetObject, https response \
             error StatusCode: 404, RequestID: , HostID: , NoSuchKey: The specified key does not exist."
                .to_owned(),
        ),
        (
            "environmentFiles",
            json!([{"type": "s3", "value": "arn:aws:s3:::nobody/app.env"}]),
            "Unable to initialize s3 client for bucket nobody, error: bucket not found".to_owned(),
        ),
    ];
    for (member, value, reason) in table {
        let reports = stopped(with(&|main| main[member] = value.clone())).await;
        assert_eq!(reports.last().unwrap()["reason"], reason);
    }
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_stumble_are_asked_again() {
    let plan = Plan { environment: &[("ECS_LOGLEVEL", "debug")], ..Plan::default() };
    let Some(rig) = Rig::start("stumbling secrets", plan).await else { return };
    fill(&rig);
    let image = rig.image();
    for (operation, fault) in [
        ("GetParameters", Fault::Throttle),
        ("GetSecretValue", Fault::ServerError),
        ("GetObject", Fault::Drop),
        ("HeadBucket", Fault::ServerError),
    ] {
        rig.server.fail_next(operation, 1, &fault);
    }
    let arn = rig.server.run_task(&task(&image)).unwrap();
    assert_eq!(exit_codes(&rig.task(&arn, TaskStatus::Stopped).await), [Some(0)]);
    // The edge that calls knows no task.
    let (log, id) = (rig.log(), arn.rsplit('/').next().unwrap());
    let named = log.lines().filter(|line| line.contains("a call failed; trying again"));
    let named = named.filter(|line| line.contains(id) && line.contains("resource"));
    assert!(named.count() >= 3, "{log}");
    images_gone(&[&image]);
}

/// A task with a log router that does nothing: the test listens on its socket.
fn routed(image: &str, kind: &str) -> Value {
    let forever = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let mut app = shell("app", image, "echo to-the-router; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    app["logConfiguration"] = json!({
        "logDriver": "awsfirelens", "options": {"@type": "stdout", "Name": "stdout"},
        "secretOptions": [{"name": "token", "valueFrom": "/judge/ssm"}],
    });
    let mut router = shell("router", image, forever);
    router["firelensConfiguration"] = json!({"type": kind});
    json!({"family": "judge-family", "executionRoleArn": ROLE, "containerDefinitions": [app, router]})
}

/// The container's environment variables of these names, as an object.
fn variables(inspect: &Value, names: &[&str]) -> Value {
    let all = inspect["Config"]["Env"].as_array().unwrap().iter().filter_map(|line| line.as_str()?.split_once('='));
    all.filter(|(name, _)| names.contains(name)).map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_files_a_log_goes_to_its_router() {
    let environment =
        [("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"), ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "0s")];
    let Some(mut rig) = Rig::without_agent("router", Plan { environment: &environment, ..Plan::default() }).await
    else {
        return;
    };
    let host_dir = rig.directory.path().to_string_lossy().into_owned();
    const UNSEEN: &str = "log routers (FireLens) get no configuration";
    rig.start_agent();
    rig.registered().await;
    assert_eq!(rig.log().matches(UNSEEN).count(), 1, "its data is not in /var/lib/ecs/data");
    assert!(rig.terminate().success());
    rig.environment.push(("ECS_HOST_DATA_DIR".to_owned(), host_dir.clone()));
    rig.start_agent();
    rig.registered().await;
    assert_eq!(rig.log().matches(UNSEEN).count(), 1, "now Docker sees it");
    fill(&rig);
    let image = rig.image();
    for (kind, name) in [("fluentbit", "firelens_fluentbit"), ("fluentd", "firelens_fluentd")] {
        let recorded = golden(name);
        let arn = rig.server.run_task(&routed(&image, kind)).unwrap();
        let id = arn.rsplit('/').next().unwrap();
        let files = rig.directory.path().join("data/firelens").join(id);
        until("the socket's directory", LIMIT, async || files.join("socket").is_dir().then_some(())).await;
        let listener = tokio::net::UnixListener::bind(files.join("socket/fluent.sock")).unwrap();
        let task = rig.task(&arn, TaskStatus::Running).await;
        let line = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            while !String::from_utf8_lossy(&received).contains("to-the-router") {
                assert!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut received).await.unwrap() > 0);
            }
        };
        tokio::time::timeout(LIMIT, line).await.expect("the line of the app arrives");

        let inspected = |name: &str| inspect(task.container(name).unwrap().runtime_id.as_ref().unwrap());
        let (app, router) = (inspected("app"), inspected("router"));
        let old = recorded["task_arn"].as_str().unwrap().rsplit('/').next().unwrap();
        let as_recorded = |text: &str| {
            let text = text.replace(&host_dir, "/var/lib/ecs").replace(id, old).replace(&rig.cluster.name, "judge");
            text.replace("judge-family:1", "judge-family:7").replace("judge-family:2", "judge-family:7")
        };
        let config = as_recorded(&app["HostConfig"]["LogConfig"].to_string());
        assert_eq!(serde_json::from_str::<Value>(&config).unwrap(), recorded["app_LogConfig"]);
        let address = &router["NetworkSettings"]["IPAddress"];
        assert_eq!(
            variables(&app, &["FLUENT_HOST", "FLUENT_PORT"]),
            json!({"FLUENT_HOST": address, "FLUENT_PORT": "24224"})
        );
        let binds = as_recorded(&router["HostConfig"]["Binds"].to_string());
        assert_eq!(serde_json::from_str::<Value>(&binds).unwrap(), recorded["router_Binds"]);
        let mut own = recorded["router_env"].clone();
        own["token_0"] = json!(VALUES[0]);
        assert_eq!(variables(&router, &["FLUENT_UID", "token_0"]), own);
        let written = as_recorded(&std::fs::read_to_string(files.join("config/fluent.conf")).unwrap());
        let place = if kind == "fluentd" { "    token \"#{ENV['token_0']}\"\n" } else { "    token ${token_0}\n" };
        assert!(written.contains(place), "{written}");
        // The example's container has the variable that names the instance, the recorded one has not.
        let without: String =
            written.replace(place, "").split_inclusive('\n').filter(|line| !line.contains("ec2_instance_id")).collect();
        assert_eq!(without, recorded["generated_configuration"].as_str().unwrap());
        rig.server.stop_task(&arn, "enough").unwrap();
        rig.task(&arn, TaskStatus::Stopped).await;
        until("the router's files to go with the task", LIMIT, async || (!files.exists()).then_some(())).await;
    }
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_needs_three_directories() {
    if !available("ecs-local up with secrets") {
        return;
    }
    let _one_agent = tokio::task::spawn_blocking(one_agent).await.unwrap();
    let (directory, cluster) = (TempDir::new("ecs-test-up"), Cluster::new());
    let image = Image::make(&format!("{}:1", cluster.name), &[]);
    let put = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("parameters/team/key", "from-ssm\n");
    put("secrets/hub", r#"{"password": "from-asm"}"#);
    put("buckets/config/app.env", "FILE=from-s3\n");
    let mut container = shell("main", &image.reference, "echo $KEY $PASSWORD $FILE");
    container["secrets"] = json!([
        {"name": "KEY", "valueFrom": "/team/key"},
        {"name": "PASSWORD", "valueFrom": SECRET.replace("judge", "hub") + ":password::"},
    ]);
    container["environmentFiles"] = json!([{"type": "s3", "value": "arn:aws:s3:::config/app.env"}]);
    let definition = json!({"family": "laptop", "executionRoleArn": ROLE, "containerDefinitions": [container]});
    put("task.json", &definition.to_string());
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_ecs-local"))
        .args(["up", &at("task.json"), "--cluster", &cluster.name])
        .args(["--parameters", &at("parameters"), "--secrets", &at("secrets"), "--buckets", &at("buckets")])
        .args(["--", "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached", "ECS_CONFIG_FILE=/dev/null"])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends with its task").unwrap();
    let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("main | from-ssm from-asm from-s3"), "{printed}\n{complaint}");
    assert!(output.status.success(), "{printed}\n{complaint}");
}
