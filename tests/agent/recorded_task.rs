//! One run of an agent with the recorded task and the recorded messages. Everything that the agent sent is kept, and the tests
//! in `golden*` compare it.

use super::difference::golden;
use super::limits::has_cgroupfs_1;
use super::rig::{LIMIT, Plan, Rig};
use ecs_core::model::Secret;
use ecs_local::{Options, Record, Source, State, TaskStatus};
use ecs_testing::docker::{docker, inspect};
use ecs_testing::registry::Registry;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::OnceCell;

/// Everything that was captured. Names that differ in each run are replaced by the recorded ones.
#[derive(Debug)]
pub(crate) struct Life {
    /// All calls and messages, from the first start to the end.
    pub(crate) records: Vec<Record>,
    /// The number of records when the second process started.
    pub(crate) restart: u64,
    /// The instance identity document as the metadata gives it.
    pub(crate) document: String,
    /// `docker inspect` of both containers, running.
    pub(crate) web: Value,
    pub(crate) side: Value,
    /// `docker volume inspect` of the task's volumes, running.
    pub(crate) volumes: Value,
    /// Files of the task's control group and their content while the task runs; `None` on a host whose control groups are of
    /// another kind.
    pub(crate) cgroup: Option<Value>,
    /// Introspection: path with query, status, content type, body.
    pub(crate) answers: Vec<(String, u16, String, Value)>,
    /// Answers about statistics at the task metadata endpoint: status, content type and body, by the names of the recordings.
    pub(crate) statistics: BTreeMap<&'static str, Value>,
    /// ARNs of the short tasks: exit code, start failure, pull failure, refused pull, secret failure.
    pub(crate) short: [String; 5],
    names: Vec<(String, String)>,
}

/// The captured run, which all tests share; `None` without Docker.
pub(crate) async fn life() -> Option<&'static Life> {
    static LIFE: OnceCell<Option<Life>> = OnceCell::const_new();
    LIFE.get_or_init(live).await.as_ref()
}

/// ARN of the recorded task, as recorded.
pub(crate) const TASK: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/319892675625455485f5c720b4cd7692";
const SHORT: [&str; 5] = ["exit_code", "start_failure", "pull_failure", "pull_refused", "secret_failure"];

fn options(options: &mut Options, registry: &Registry) {
    options.instance_id = "i-0abcdef0123456789".to_owned();
    let ecr = ecs_local::Registry::new(&registry.host, "AWS", Secret::from("ecr-password"));
    options.registry = Some(ecr);
}

async fn live() -> Option<Life> {
    let environment = [
        ("ECS_INSTANCE_ATTRIBUTES", r#"{"rack": "r7"}"#),
        ("ECS_CONTAINER_INSTANCE_TAGS", r#"{"team": "blue"}"#),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","awslogs","none"]"#),
        ("ECS_CONTAINER_STOP_TIMEOUT", "1s"),
        ("ECS_ENABLE_TASK_IAM_ROLE", "true"),
        ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true"),
    ];
    let users = [("AWS", "ecr-password")];
    let plan = Plan { users: &users, environment: &environment, options: Some(options) };
    let mut rig = Rig::start("golden", plan).await?;
    let open = Registry::start(&[]);
    let web_image = open.push_busybox("judge/open:latest", &["ENV IMAGE_VAR=from-image", "LABEL judge.variant=open"]);
    let side_image =
        rig.registry.push_busybox("judge/private:latest", &["ENV IMAGE_VAR=from-image", "LABEL judge.variant=private"]);
    let instance = rig.server.read(|state| state.instances()[0].arn.clone());
    first_message_to_tcs(&rig).await;

    put_values(&rig);
    let arn = rig.server.send_task(reduced(&rig, &web_image, &side_image)).unwrap();
    let short = short_tasks(&rig, &web_image);
    let task = rig.task(&arn, TaskStatus::Running).await;
    let [web, side] = ["web", "side"].map(|name| task.container(name).unwrap().runtime_id.clone().unwrap());
    let (inspected_web, inspected_side) = (inspect(&web), inspect(&side));
    let volumes = made_volumes(&inspected_web);
    let volumes = serde_json::from_str(&docker(&[&["volume", "inspect"][..], &volumes].concat())).unwrap();
    let cgroup = has_cgroupfs_1("golden").then(cgroup_files);
    rig.introspect("/").await; // the port is served, by this agent
    let mut answers = introspect(&arn, &web).await;
    send_recorded_messages(&rig, &arn, &instance).await;
    published(&rig).await;
    let statistics = statistics(&inspected_web, &web).await;
    reconnect(&rig).await;
    let closes = |state: &State| state.records().filter(|record| record.source == Source::AcsClose).count();
    let before = rig.server.read(closes);
    rig.terminate();
    rig.wait("the connection to end", |state| (closes(state) > before).then_some(())).await;
    let restart = rig.server.read(|state| state.records().last().unwrap().number);
    rig.start_agent();
    rig.registered().await;
    rig.server.stop_task(&arn, "end of the test").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the stopped task to be shown", LIMIT, async || {
        let stopped = ask(&format!("/v1/tasks?taskarn={arn}")).await;
        (stopped.3["KnownStatus"] == "STOPPED")
            .then(|| answers.push(("stopped".to_owned(), stopped.1, stopped.2, stopped.3)))
    })
    .await;
    for arn in &short {
        rig.task(arn, TaskStatus::Stopped).await;
    }
    let document = identity_document(&rig.server.url()).await;
    let records: Vec<Record> = rig.server.read(|state| state.records().cloned().collect());
    let mut life = Life {
        names: names(&rig, &open, &instance, (&web, &inspected_web), (&side, &inspected_side)),
        records,
        restart,
        document,
        web: inspected_web,
        side: inspected_side,
        volumes,
        cgroup,
        answers,
        statistics,
        short,
    };
    life.name_digests();
    Some(life)
}

/// The recorded task without features of later versions, with this run's images and cluster.
fn reduced(rig: &Rig, web_image: &str, side_image: &str) -> Value {
    let mut task = golden("acs_payload_sent")["message"]["tasks"][0].take();
    task["containers"][1].as_object_mut().unwrap().remove("volumesFrom").unwrap();
    task["arn"] = json!(TASK.replace("/judge/", &format!("/{}/", rig.cluster.name)));
    task["containers"][0]["image"] = json!(web_image);
    task["containers"][1]["image"] = json!(side_image);
    task["containers"][1]["registryAuthentication"]["ecrAuthData"]["endpointOverride"] = json!(rig.server.url());
    rig.server.put_role_keys(&mut task["executionRoleCredentials"]);
    task
}

fn short_tasks(rig: &Rig, image: &str) -> [String; 5] {
    let unknown = image.replace("judge/open:latest", "judge/none:latest");
    let image_and_command = |kind: &str| match kind {
        "exit_code" => (image.to_owned(), json!(["sh", "-c", "exit 42"])),
        "start_failure" => (image.to_owned(), json!(["/no/such/binary"])),
        "pull_failure" => (unknown.clone(), json!(["true"])),
        "secret_failure" => (image.to_owned(), json!(["true"])),
        _ => ("127.0.0.1:5009/judge/none:latest".to_owned(), json!(["true"])),
    };
    SHORT.map(|kind| {
        let (image, command) = image_and_command(kind);
        let mut task = json!({
            "family": "judge-family", "version": "7", "desiredStatus": "RUNNING", "networkMode": "bridge",
            "containers": [{"name": "main", "image": image, "command": command, "cpu": 10, "memory": 32, "essential": true}],
        });
        if kind == "secret_failure" {
            let recorded = golden("acs_payload_sent")["message"]["tasks"][0].take();
            task["executionRoleCredentials"] = recorded["executionRoleCredentials"].clone();
            rig.server.put_role_keys(&mut task["executionRoleCredentials"]);
            task["containers"][0]["secrets"] = recorded["containers"][0]["secrets"].clone();
            task["containers"][0]["secrets"].as_array_mut().unwrap().truncate(1);
            task["containers"][0]["secrets"][0]["valueFrom"] = json!("/judge/none");
        }
        rig.server.send_task(task).unwrap()
    })
}

/// Sends the recorded messages and waits for the answers.
async fn send_recorded_messages(rig: &Rig, task: &str, instance: &str) {
    let addressed = |mut message: Value| {
        message["clusterArn"] = json!(format!("arn:aws:ecs:us-west-2:123456789012:cluster/{}", rig.cluster.name));
        message["containerInstanceArn"] = json!(instance);
        message
    };
    let send = |kind: &str, message: Value| rig.server.send_message(kind, addressed(message)).unwrap();
    let mut role = golden("acs_payload_sent")["message"]["tasks"][0]["roleCredentials"].take();
    role["expiration"] = golden("acs_credentials_ack")["expiration"].clone();
    send("HeartbeatMessage", json!({"messageId": "hb-1", "healthy": true}));
    send(
        "IAMRoleCredentialsMessage",
        json!({"messageId": "cred-1", "taskArn": task, "roleType": "TaskApplication", "roleCredentials": role}),
    );
    send("PerformUpdateMessage", json!({"messageId": "up-1", "updateInfo": {"location": "s3://x", "signature": "00"}}));
    let later = i64::from(u32::MAX); // above every sequence number of this run
    send("TaskManifestMessage", json!({"messageId": "man-1", "timeline": later, "tasks": []}));
    for (kind, id) in [
        ("HeartbeatAckRequest", "hb-1"),
        ("IAMRoleCredentialsAckRequest", "cred-1"),
        ("NackRequest", "up-1"),
        ("TaskStopVerificationMessage", "man-1"),
    ] {
        let answered = |state: &State| state.acs_messages(kind).any(|message| message["messageId"] == id).then_some(());
        rig.wait(kind, answered).await;
    }
}

/// Waits until each kind of message was published over TCS.
/// The values that the recorded task reads.
fn put_values(rig: &Rig) {
    rig.server.put_parameter("/judge/ssm", "ssm-value".into()).unwrap();
    rig.server.put_secret("judge", "asm-value".into()).unwrap();
    rig.server.put_object("judge-bucket", "app.env", "FROM_FILE=file-value\nSHARED=file\n".into()).unwrap();
}

/// The Go agent was idle when it published for the first time.
async fn first_message_to_tcs(rig: &Rig) {
    let is_published = |record: &Record| record.source == Source::TcsIn;
    rig.wait("the first message to TCS", |state| state.records().any(is_published).then_some(())).await;
}

async fn published(rig: &Rig) {
    let is_whole = |record: &Record| match record.name.as_str() {
        "PublishMetricsRequest" => {
            let containers = record.body["taskMetrics"].as_array().into_iter().flatten();
            containers.filter_map(|task| task["containerMetrics"].as_array()).any(|list| list.len() == 2)
        }
        "PublishHealthRequest" => record.body["tasks"][0]["containers"][0]["healthStatus"] == "HEALTHY",
        _ => record.body["statuses"][0]["status"] == "OK",
    };
    for name in ["PublishMetricsRequest", "PublishHealthRequest", "PublishInstanceStatusRequest"] {
        let is_sent = |record: &Record| record.source == Source::TcsIn && record.name == name && is_whole(record);
        rig.wait(name, |state| state.records().any(is_sent).then_some(())).await;
    }
}

async fn reconnect(rig: &Rig) {
    let connects = |state: &State| state.records().filter(|record| record.source == Source::AcsConnect).count();
    let before = rig.server.read(connects);
    rig.server.drop_sockets();
    rig.wait("the next connection", |state| (connects(state) > before).then_some(())).await;
}

async fn introspect(arn: &str, web: &str) -> Vec<(String, u16, String, Value)> {
    let short = &web[..12];
    let mut answers = Vec::new();
    for (name, path) in [
        ("root", "/".to_owned()),
        ("metadata", "/v1/metadata".to_owned()),
        ("by_arn", format!("/v1/tasks?taskarn={arn}")),
        ("by_dockerid", format!("/v1/tasks?dockerid={web}")),
        ("by_short_dockerid", format!("/v1/tasks?dockerid={short}")),
        ("unknown", "/v1/tasks?taskarn=nope".to_owned()),
        ("short_ambiguous", "/v1/tasks?dockerid=nope".to_owned()),
        ("matches_all", "/v1/tasks?dockerid=".to_owned()),
        ("bad_query", format!("/v1/tasks?taskarn={arn}&dockerid={web}")),
        ("tasks", "/v1/tasks".to_owned()),
    ] {
        let (_, status, kind, body) = ask(&path).await;
        answers.push((name.to_owned(), status, kind, body));
    }
    answers
}

/// Both containers have been read several times by now.
async fn statistics(inspect: &Value, id: &str) -> BTreeMap<&'static str, Value> {
    let endpoint = endpoint_id(inspect);
    let mut answers = BTreeMap::new();
    for (name, path) in [
        ("tmds_v3_stats", format!("/v3/{endpoint}/stats")),
        ("tmds_v4_stats", format!("/v4/{endpoint}/stats")),
        ("tmds_v3_task_stats", format!("/v3/{endpoint}/task/stats")),
        ("tmds_v4_task_stats", format!("/v4/{endpoint}/task/stats")),
        ("tmds_v3_unknown_stats", "/v3/nope/stats".to_owned()),
        ("tmds_v4_unknown_stats", "/v4/nope/stats".to_owned()),
        ("v2_stats", "/v2/stats".to_owned()),
        ("v2_container_stats", format!("/v2/stats/{id}")),
    ] {
        let (_, status, kind, body) = ask_at(51679, &path).await;
        answers.insert(name, json!({"status": status, "content_type": kind, "body": body}));
    }
    answers
}

async fn ask(path: &str) -> (String, u16, String, Value) {
    ask_at(51678, path).await
}

async fn ask_at(port: u16, path: &str) -> (String, u16, String, Value) {
    let answer = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.unwrap();
    let (status, kind) = (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap().to_owned());
    (path.to_owned(), status, kind, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn identity_document(server: &str) -> String {
    let url = format!("{server}/latest/dynamic/instance-identity/document");
    let client = reqwest::Client::new();
    let ask = client.put(format!("{server}/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = ask.send().await.unwrap().text().await.unwrap();
    client.get(url).header("x-aws-ec2-metadata-token", token).send().await.unwrap().text().await.unwrap()
}

/// This run's names and the recorded ones, in the order of replacement.
fn names(
    rig: &Rig,
    open: &Registry,
    instance: &str,
    (web, web_inspect): (&str, &Value),
    (side, side_inspect): (&str, &Value),
) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (old_web, old_side) = (golden("docker_inspect_web"), golden("docker_inspect_side"));
    let old = golden("introspection_tasks");
    let old = |index: usize| text(&old["body"]["Tasks"][0]["Containers"][index]["DockerId"]);
    let (old_web_id, old_side_id) = (old(0), old(1));
    let recorded = golden("discover_poll_endpoint");
    let mut names = vec![
        (docker(&["info", "--format", "{{.DockerRootDir}}"]), "/var/lib/docker".to_owned()),
        (
            format!("DockerVersion: {}", docker(&["version", "--format", "{{.Server.Version}}"])),
            text(&golden("acs_connect")["query"]["dockerVersion"]),
        ),
        (instance.to_owned(), text(&recorded["body"]["containerInstance"])),
        (web.to_owned(), old_web_id.clone()),
        (side.to_owned(), old_side_id.clone()),
        (web[..12].to_owned(), old_web_id[..12].to_owned()),
        (side[..12].to_owned(), old_side_id[..12].to_owned()),
        (rig.cluster.name.clone(), "judge".to_owned()),
        (open.host.clone(), "localhost:5001".to_owned()),
        (rig.registry.host.clone(), "localhost:5000".to_owned()),
        (rig.server.url().replace("http://", ""), "127.0.0.1:14566".to_owned()),
    ];
    for (ours, old) in [(web_inspect, &old_web), (side_inspect, &old_side)] {
        for member in ["Name", "Image"] {
            let bare = |value: &Value| text(&value[member]).trim_start_matches('/').to_owned();
            names.push((bare(ours), bare(old)));
        }
        names.push((endpoint_id(ours), endpoint_id(old)));
        let made = made_volumes(ours).into_iter().zip(made_volumes(old));
        names.extend(made.map(|(ours, old)| (ours.to_owned(), old.to_owned())));
    }
    names
}

/// The volumes the agent made for a container, in the order of its mounts.
fn made_volumes(inspect: &Value) -> Vec<&str> {
    let binds = inspect["HostConfig"]["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str);
    binds.filter_map(|bind| bind.split(':').next()).filter(|source| !source.starts_with('/')).collect()
}

fn cgroup_files() -> Value {
    let id = TASK.rsplit('/').next().unwrap();
    let recorded = golden("task_cgroup");
    let read = |path: &String| {
        let text = std::fs::read_to_string(path.replace("<task-id>", id)).unwrap_or_default();
        (path.clone(), json!(text.trim()))
    };
    recorded.as_object().unwrap().keys().map(read).collect::<serde_json::Map<_, _>>().into()
}

fn endpoint_id(inspect: &Value) -> String {
    let variables = inspect["Config"]["Env"].as_array().unwrap().iter().filter_map(Value::as_str);
    let uri = variables.filter_map(|variable| variable.strip_prefix("ECS_AGENT_URI=")).next().unwrap();
    uri.rsplit('/').next().unwrap().to_owned()
}

impl Life {
    fn name_digests(&mut self) {
        let recorded = golden("submit_task_pending");
        let pending = self.reports(TASK).remove(0);
        for name in ["web", "side"] {
            let digest = |body: &Value| {
                let list = body["containers"].as_array().unwrap().clone();
                let container = list.into_iter().find(|container| container["containerName"] == name).unwrap();
                container["imageDigest"].as_str().unwrap().to_owned()
            };
            self.names.push((digest(&pending), digest(&recorded["body"])));
        }
    }

    /// A value with the recorded names instead of this run's.
    pub(crate) fn renamed(&self, value: &Value) -> Value {
        let mut text = value.to_string();
        for (ours, recorded) in &self.names {
            text = text.replace(ours, recorded);
        }
        serde_json::from_str(&text).unwrap()
    }

    /// Bodies of SubmitTaskStateChange for a task, in order.
    pub(crate) fn reports(&self, arn: &str) -> Vec<Value> {
        let calls = self.records.iter().filter(|record| record.source == Source::Api);
        let reports = calls.filter(|record| record.name == "SubmitTaskStateChange");
        reports
            .map(|record| self.renamed(&record.body))
            .filter(|body| body["task"] == self.renamed(&json!(arn)))
            .collect()
    }

    /// All calls of an operation, with headers.
    pub(crate) fn calls(&self, operation: &str) -> Vec<&Record> {
        self.records.iter().filter(|record| record.source == Source::Api && record.name == operation).collect()
    }

    /// All messages of that type that the agent published over TCS.
    pub(crate) fn published(&self, kind: &str) -> Vec<Value> {
        let messages = self.records.iter().filter(|record| record.source == Source::TcsIn && record.name == kind);
        messages.map(|record| self.renamed(&record.body)).collect()
    }

    /// All messages of the agent of that type.
    pub(crate) fn messages(&self, kind: &str) -> Vec<Value> {
        let messages = self.records.iter().filter(|record| record.source == Source::AcsIn && record.name == kind);
        messages.map(|record| self.renamed(&record.body)).collect()
    }
}
