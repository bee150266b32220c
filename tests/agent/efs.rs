//! Volumes of EFS and S3 Files that a volume plugin mounts with the task role, asked for by real Docker.
//!
//! The plugin is played: it asks for the role's credentials as `mount.efs` does, but mounts a plain directory.

use super::rig::{FOREVER, LIMIT, shell};
use super::roles::{Scene, ask_on_host, is_apart};
use ecs_local::{Fault, TaskStatus};
use ecs_testing::volume_plugin::VolumePlugin;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::time::Duration;

const ROLE: &str = "arn:aws:iam::123456789012:role/filesRole";
const FILES: &str = "arn:aws:s3files:us-west-2:123456789012:file-system/fs-0123456789abcdef0";

/// A host with the plugin, with peers of credentials checked.
async fn scene(test: &str) -> Option<(VolumePlugin, Scene)> {
    if !is_apart(test) {
        return None;
    }
    let plugin = VolumePlugin::start();
    let more = [
        ("ECS_VOLUME_PLUGIN_CAPABILITIES", r#"["efsAuth"]"#),
        ("ECS_CREDENTIALS_PEER_CHECK", "enforce"),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"),
    ];
    Some((plugin, Scene::start_with(test, &more).await?))
}

fn volumes() -> Value {
    let efs = json!({
        "fileSystemId": "fs-0123456789abcdef0", "rootDirectory": "/", "transitEncryption": "ENABLED", "transitEncryptionPort": 20049,
        "authorizationConfig": {"accessPointId": "fsap-0123", "iam": "ENABLED"},
    });
    let s3_files = json!({"fileSystemArn": FILES, "rootDirectory": "/a", "transitEncryptionPort": 20050,
        "accessPointArn": format!("{FILES}/access-point/fsap-9")});
    json!([{"name": "data", "efsVolumeConfiguration": efs}, {"name": "objects", "s3filesVolumeConfiguration": s3_files}])
}

#[tokio::test(flavor = "multi_thread")]
async fn efs_and_s3_files_are_mounted_with_the_task_role() {
    let Some((plugin, scene)) = scene("efs").await else { return };
    let command = format!("echo one > /data/f; echo two > /objects/f; {FOREVER}");
    let mut container = shell("main", &scene.image.reference, &command);
    container["mountPoints"] = json!([
        {"sourceVolume": "data", "containerPath": "/data"}, {"sourceVolume": "objects", "containerPath": "/objects"},
    ]);
    let definition = json!({"family": "files", "networkMode": "bridge", "taskRoleArn": ROLE,
        "containerDefinitions": [container], "volumes": volumes()});
    // ECS places such a task only on an instance with the attributes.
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let uri = scene.exec(&id, "echo $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");

    let asked: Vec<Value> = plugin.calls("Create").into_iter().map(|body| body["Opts"].clone()).collect();
    let recorded = super::difference::golden("efs/volumes");
    for name in ["everything", "s3files"] {
        let recorded = recorded[name]["plugin_calls"][0]["body"]["Opts"].to_string();
        let wanted = recorded.replace("/v2/credentials/11111111-2222-3333-4444-555555555555", &uri);
        let wanted: Value = serde_json::from_str(&wanted).unwrap();
        assert!(asked.contains(&wanted), "{name}: {wanted} in {asked:?}");
    }
    assert_eq!(asked.len(), 2);
    let key = ask_on_host(&uri).body["AccessKeyId"].clone();
    let fetched = plugin.fetched();
    assert!(fetched.len() >= 2, "{fetched:?}");
    for fetched in fetched {
        assert_eq!((&fetched.path, &fetched.body["RoleArn"], &fetched.body["AccessKeyId"]), (&uri, &json!(ROLE), &key));
    }
    until("the files", LIMIT, async || {
        let read = scene.dockerd.docker(&["exec", &id, "cat", "/data/f", "/objects/f"]);
        (read.as_deref() == Some("one\ntwo")).then_some(())
    })
    .await;
    scene.rig.server.stop_task(&arn, "end").unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
    until("the removal of both volumes", LIMIT, async || (plugin.calls("Remove").len() == 2).then_some(())).await;

    // The plugin names the path in its error.
    plugin.refuse(true);
    let arn = scene.rig.server.run_task(&definition).unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
    let shown = format!("{:?}", scene.rig.reports(&arn));
    assert!(
        shown.contains("credentials at http://169.254.170.2/v2/credentials/") && shown.contains("-REDACTED"),
        "{shown}"
    );
    let id = plugin.fetched().last().unwrap().path.rsplit('/').next().unwrap().to_owned();
    assert!(id.len() > 8 && !shown.contains(&id) && !scene.rig.log().contains(&id), "{id}");
}

/// The plugin gets the path of the network namespace that the containers of the task share, which exists by then with its interface.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_mounted_in_the_network_of_the_task() {
    let test = "efs in a network";
    if !is_apart(test) {
        return;
    }
    let plugin = VolumePlugin::start();
    let more = [("ECS_VOLUME_PLUGIN_CAPABILITIES", r#"["efsAuth"]"#), ("ECS_ENABLE_TASK_ENI", "true")];
    let Some(scene) = Scene::start_with(test, &more).await else { return };
    let mut container = shell("main", &scene.image.reference, FOREVER);
    container["mountPoints"] = json!([
        {"sourceVolume": "data", "containerPath": "/data"}, {"sourceVolume": "objects", "containerPath": "/objects"},
    ]);
    let definition = json!({"family": "files", "networkMode": "awsvpc", "taskRoleArn": ROLE,
        "containerDefinitions": [container], "volumes": volumes()});
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let asked: Vec<Value> = plugin.calls("Create").into_iter().map(|body| body["Opts"]["o"].clone()).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let main = std::fs::read_link(format!("/proc/{}/ns/net", scene.dockerd.inspect(&id)["Pid"])).unwrap();
    for options in &asked {
        let (before, path) = options.as_str().unwrap().rsplit_once(",netns=").unwrap();
        assert!(before.starts_with("tls,") && before.contains(",iam,awscredsuri=/v2/credentials/"), "{before}");
        assert_eq!(std::fs::read_link(path).unwrap(), main, "{path}");
    }
    scene.rig.server.stop_task(&arn, "end").unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
}

/// A container is started again only when the agent has the credentials with which its volume is mounted, also if the agent has
/// lost its state. The path in the volume stays the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_mounts_with_the_role_after_credentials_arrive() {
    let Some((plugin, mut scene)) = scene("efs again").await else { return };
    let mut container = shell("main", &scene.image.reference, FOREVER);
    container["mountPoints"] = json!([{"sourceVolume": "data", "containerPath": "/data"}]);
    container["restartPolicy"] = json!({"enabled": true, "ignoredExitCodes": [], "restartAttemptPeriod": 1});
    let mut role = json!({"credentialsId": "11111111-2222-3333-4444-555555555555", "roleArn": ROLE, "expiration": "2099-01-01T00:00:00Z"});
    scene.rig.server.put_role_keys(&mut role);
    let mut volume = volumes()[0].clone();
    volume["type"] = json!("efs");
    // Sent directly: no task definition may ask for so short a period.
    let arn = scene.rig.server.send_task(json!({
        "family": "again", "version": "1", "desiredStatus": "RUNNING", "networkMode": "bridge", "containers": [container],
        "volumes": [volume], "roleCredentials": role,
    }));
    let arn = arn.unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    for loses_state in [false, true] {
        tokio::time::sleep(Duration::from_millis(1_200)).await; // a shorter run is not repeated
        scene.rig.kill();
        scene.rig.server.fail_next("acs", 1_000, &Fault::ServerError);
        if loses_state {
            // How long a container ran is not known if it ended meanwhile.
            std::fs::remove_file(scene.rig.directory.path().join("data/ecs-agent.redb")).unwrap();
            scene.rig.start_agent();
            let knows = async || scene.rig.ask("/v1/tasks").await["Tasks"][0].is_object().then_some(());
            until("the rebuilt task", LIMIT, knows).await;
            tokio::time::sleep(Duration::from_millis(1_200)).await; // the run counts from then on
        }
        let before = plugin.fetched().len();
        scene.dockerd.docker(&["kill", &id]).unwrap();
        if !loses_state {
            scene.rig.start_agent();
        }
        let waits = async || {
            let tasks = scene.rig.ask("/v1/debug/tasks").await.to_string();
            tasks.contains("waits for ECS to send the credentials of its task role").then_some(())
        };
        until("the wait", LIMIT, waits).await;
        assert_eq!(plugin.fetched().len(), before);
        scene.rig.server.clear_faults();
        let mounted = until("the next mount", LIMIT, async || plugin.fetched().get(before).cloned()).await;
        assert_eq!(
            (mounted.path.as_str(), &mounted.body["RoleArn"]),
            ("/v2/credentials/11111111-2222-3333-4444-555555555555", &json!(ROLE))
        );
        until("the restart", LIMIT, async || (scene.dockerd.inspect(&id)["Running"] == true).then_some(())).await;
    }
    scene.rig.server.stop_task(&arn, "end").unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
}
