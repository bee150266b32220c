//! What containers learn about themselves: at the task metadata endpoint, and in their metadata files.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use super::roles::Scene;
use ecs_local::TaskStatus;
use ecs_testing::docker::docker;
use ecs_testing::wait::until;
use serde_json::{Value, json};

/// The document at a path of the container's own address, asked for by the container.
fn ask(scene: &Scene, id: &str, version: &str, path: &str) -> Value {
    let variable = if version == "v3" { "ECS_CONTAINER_METADATA_URI" } else { "ECS_CONTAINER_METADATA_URI_V4" };
    let text = scene.exec(id, &format!("wget -qO- ${variable}{path}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A task of one container that runs until it is stopped. Returns its ARN and Docker's id of the container.
async fn run(scene: &Scene, network: &str, more: Value) -> (String, String) {
    let mut container = shell("main", &scene.image.reference, FOREVER);
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let definition = json!({"family": "told", "networkMode": network, "cpu": "256", "memory": "64",
        "containerDefinitions": [container]});
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    (arn, task.container("main").unwrap().runtime_id.clone().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reads_its_own_metadata() {
    let Some(mut scene) = Scene::start("task metadata", "off").await else { return };
    let more = json!({
        "dockerLabels": {"my": "label <1>"}, "portMappings": [{"containerPort": 80}],
        "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
        "healthCheck": {"command": ["CMD-SHELL", "echo fine"], "interval": 5, "timeout": 2, "retries": 1},
    });
    let (arn, web) = run(&scene, "bridge", more).await;
    let (_, on_host) = run(&scene, "host", json!({})).await;
    let instance =
        scene.rig.server.read(|state| state.instances().last().map(|instance| instance.arn.clone())).unwrap();
    let tag = |arn: &str| json!({"resourceArn": arn, "tags": [{"key": "of", "value": arn}]});
    scene.rig.server.call("TagResource", &tag(&arn)).unwrap();

    for round in 0..2 {
        let v4 = ask(&scene, &web, "v4", "");
        assert_eq!(
            (&v4["DockerId"], &v4["Name"], &v4["KnownStatus"]),
            (&json!(web), &json!("main"), &json!("RUNNING"))
        );
        assert_eq!((&v4["LogDriver"], &v4["LogOptions"]), (&json!("json-file"), &json!({"max-size": "1m"})));
        assert_eq!(v4["Labels"]["my"], "label <1>");
        let names: Vec<_> = v4["Labels"].as_object().unwrap().keys().filter(|name| !name.starts_with("com.")).collect();
        assert_eq!(names, ["my"], "no label of the agent itself is shown");
        let address = scene.exec(&web, "hostname -i");
        assert_eq!(v4["Networks"], json!([{"NetworkMode": "bridge", "IPv4Addresses": [address]}]));
        assert_eq!((&v4["Ports"][0]["ContainerPort"], &v4["Ports"][0]["HostIp"]), (&json!(80), &json!("0.0.0.0")));
        let task = ask(&scene, &web, "v4", "/task");
        assert_eq!((&task["TaskARN"], &task["LaunchType"]), (&json!(arn), &json!("EC2")));
        assert_eq!(task["Limits"], json!({"CPU": 0.25, "Memory": 64}));
        assert_eq!(
            (&task["VPCID"], &task["AvailabilityZoneID"]),
            (&json!("vpc-0123456789abcdef0"), &json!("loc1-az1"))
        );
        assert_eq!(task["Containers"].as_array().unwrap().len(), 1);
        let v3 = ask(&scene, &on_host, "v3", "");
        assert_eq!(v3["Networks"], json!([{"NetworkMode": "host", "IPv4Addresses": [""]}]));
        assert_eq!(ask(&scene, &on_host, "v3", "/task")["Containers"][0], v3);
        if round == 0 {
            // The ids are in the containers, so the next agent must know them.
            scene.rig.kill();
            scene.rig.start_agent();
            scene.rig.registered().await;
        }
    }
    let healthy = until("the health", LIMIT, async || {
        Some(ask(&scene, &web, "v4", "")["Health"].clone()).filter(|health| health["status"] == "HEALTHY")
    });
    let health = healthy.await;
    assert_eq!(health["output"], "fine\n");
    assert!(health["statusSince"].as_str().is_some_and(|since| since.ends_with('Z')), "{health}");

    let tagged = ask(&scene, &web, "v4", "/taskWithTags");
    assert_eq!((&tagged["TaskTags"], tagged.get("Errors")), (&json!({"of": arn}), None), "{tagged}");
    let asked = scene.rig.server.read(|state| {
        let calls = state.records().filter(|record| record.name == "ListTagsForResource");
        calls.map(|call| call.body["resourceArn"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(asked, [json!(instance), json!(arn)]);
    scene.rig.server.fail_next("ListTagsForResource", 100, &ecs_local::Fault::AccessDenied);
    let denied = ask(&scene, &web, "v4", "/taskWithTags");
    let fields: Vec<_> = denied["Errors"].as_array().unwrap().iter().map(|error| &error["ErrorField"]).collect();
    assert_eq!(fields, ["ContainerInstanceTags", "TaskTags"]);
}

const FILE: &str = "cat $ECS_CONTAINER_METADATA_FILE";

/// Where the rig's Docker finds the data directory.
async fn with_files(test: &str) -> Option<Rig> {
    let mut rig = Rig::without_agent(test, Plan::default()).await?;
    let directory = rig.directory.path().to_string_lossy().into_owned();
    for (name, value) in [
        ("ECS_ENABLE_CONTAINER_METADATA", "true"),
        ("ECS_HOST_DATA_DIR", &directory),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"),
    ] {
        rig.environment.push((name.to_owned(), value.to_owned()));
    }
    rig.start_agent();
    rig.registered().await;
    Some(rig)
}

fn exec(id: &str, command: &str) -> String {
    docker(&["exec", id, "sh", "-c", command])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_finds_its_metadata_file() {
    let Some(mut rig) = with_files("metadata file").await else { return };
    let image = rig.image();
    let definition = json!({"family": "told", "containerDefinitions": [
        shell("main", &image, FOREVER), shell("side", &image, &format!("{FILE} >/first; {FOREVER}"))]});
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    for name in ["main", "side"] {
        let id = task.container(name).unwrap().runtime_id.clone().unwrap();
        let ready = until("the complete file", LIMIT, async || {
            let text: Value = serde_json::from_str(&exec(&id, FILE)).unwrap(); // never half
            Some(text).filter(|text| text["MetadataFileStatus"] == "READY")
        });
        let text = ready.await;
        assert_eq!((&text["TaskARN"], &text["ContainerName"]), (&json!(arn), &json!(name)), "{text}");
        assert_eq!(
            (&text["ContainerID"], &text["HostPrivateIPv4Address"]),
            (&json!(id), &json!("127.0.0.1")),
            "{text}"
        );
        assert_eq!(text["Networks"][0]["IPv4Addresses"][0], exec(&id, "hostname -i"));
        assert_eq!(exec(&id, "touch $ECS_CONTAINER_METADATA_FILE 2>/dev/null || echo refused"), "refused");
    }
    // The container read its file in its first moment.
    let side = task.container("side").unwrap().runtime_id.clone().unwrap();
    let first: Value = serde_json::from_str(&exec(&side, "cat /first")).unwrap();
    assert_eq!(first["ContainerName"], "side");

    // A kill before the file is complete: the next agent completes it.
    let path = arn.split_once(":task/").unwrap().1;
    let directory = rig.directory.path().join("data/metadata").join(path);
    let file = directory.join("main/ecs-container-metadata.json");
    rig.kill();
    std::fs::write(&file, "{}").unwrap();
    rig.start_agent();
    rig.registered().await;
    let complete = async || std::fs::read_to_string(&file).ok().filter(|text| text.contains("READY"));
    until("the complete file", LIMIT, complete).await;

    rig.server.stop_task(&arn, "end").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the clean-up", LIMIT, async || (!directory.exists()).then_some(())).await;
    assert!(directory.parent().unwrap().exists(), "other tasks of the cluster have their files there");
}

/// A container whose file cannot be written runs without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_without_its_metadata_file() {
    let Some(rig) = with_files("no metadata file").await else { return };
    std::fs::write(rig.directory.path().join("data/metadata"), "in the way").unwrap();
    let definition = super::rig::one_container(&rig.image(), FOREVER);
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    assert_eq!(exec(&id, "echo \"<$ECS_CONTAINER_METADATA_FILE>\"; ls -d /opt/ecs 2>/dev/null || true"), "<>");
    assert!(rig.log().contains("Unable to create metadata for container"), "{}", rig.log());
}
