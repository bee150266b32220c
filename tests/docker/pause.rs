//! The pause container: its image is made, removed and replaced, and other containers use its namespaces.

use crate::{connect, request, settings};
use ecs_agent::docker::{Docker, pause_image};
use ecs_core::model::task::Namespace;
use ecs_core::model::{ContainerKind, CreateRequest, RunState, SecretValues, Span};
use ecs_testing::docker::{Cluster, Image, TempDir, available, docker, inspect, unique};
use ecs_testing::wait::until;
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

fn pause(cluster: &str, name: &str) -> CreateRequest {
    let mut pause = request(cluster, name, pause_image(), &[], json!({"ipc": "Shareable", "kind": "Pause"}));
    (pause.spec.command, pause.spec.memory) = (None, 0);
    assert_eq!(pause.spec.kind, ContainerKind::Pause);
    pause
}

fn id_of(image: &str) -> String {
    let output = Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", image]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A single test, since the image has the same name for all tests on a host.
#[tokio::test]
async fn the_pause_image_is_there_whenever_it_is_needed() {
    if !available("the_pause_image_is_there_whenever_it_is_needed") {
        return;
    }
    let image = Image::make(&format!("{}:1", unique("ecs-test-image")), &[]);
    let theirs = Image::make(&format!("{}:1", unique("ecs-test-image")), &[r#"ENTRYPOINT ["sleep", "600"]"#]);
    let directory = TempDir::new("ecs-test-pause");
    let _made = Image { reference: pause_image().to_owned() };
    let cluster = Cluster::new();
    Image::remove_locally(pause_image());
    let edge = connect(&cluster.name).await;

    edge.create(&pause(&cluster.name, "first"), &SecretValues::default()).await.unwrap();
    let ours = id_of(pause_image());
    assert!(!ours.is_empty());
    docker(&["rm", &pause(&cluster.name, "first").runtime_name]);
    Image::remove_locally(pause_image());
    assert_eq!(id_of(pause_image()), "");
    let paused = pause(&cluster.name, "pause");
    edge.create(&paused, &SecretValues::default()).await.unwrap();
    assert_eq!(edge.start(&paused.runtime_name).await.unwrap().state, RunState::Running);
    others_live_in_its_namespaces(&edge, &cluster.name, &image.reference, &paused).await;
    let began = Instant::now();
    let stopped = edge.stop(&paused.runtime_name, Span::secs(30)).await.unwrap().unwrap();
    assert_eq!((stopped.state, stopped.exit_code), (RunState::Exited, Some(137)));
    assert!(began.elapsed() < Duration::from_secs(15), "it is killed without a SIGTERM first: {:?}", began.elapsed());

    // The operator's archive is preferred to the image made here; a file that is not an archive is not used.
    edge.remove(&paused.runtime_name).await.unwrap();
    Image::remove_locally(pause_image());
    docker(&["tag", &theirs.reference, pause_image()]);
    let archive = directory.path().join("pause.tar");
    docker(&["save", "-o", &archive.to_string_lossy(), pause_image()]);
    for (bytes, wanted) in
        [(std::fs::read(&archive).unwrap(), id_of(&theirs.reference)), (b"no archive".to_vec(), String::new())]
    {
        Image::remove_locally(pause_image());
        std::fs::write(&archive, bytes).unwrap();
        let mut settings = settings(ecs_testing::docker::ENDPOINT, &cluster.name);
        settings.pause_archive.clone_from(&archive);
        let edge = Docker::connect(settings).await.unwrap();
        edge.create(&pause(&cluster.name, "archived"), &SecretValues::default()).await.unwrap();
        let loaded = id_of(pause_image());
        assert!(if wanted.is_empty() {
            !loaded.is_empty() && loaded != id_of(&theirs.reference)
        } else {
            loaded == wanted
        });
        docker(&["rm", &pause(&cluster.name, "archived").runtime_name]);
    }
}

async fn others_live_in_its_namespaces(edge: &Docker, cluster: &str, image: &str, pause: &CreateRequest) {
    assert_eq!(inspect(&pause.runtime_name)["HostConfig"]["NetworkMode"], "none");
    // An orphan becomes a child of process 1, which must reap it.
    let script = "cat /proc/1/comm; (sleep 0.2 &); sleep 1; cat /proc/[0-9]*/stat";
    let mut first = request(cluster, "first", image, &["sh", "-c", script], json!({}));
    let mut second = request(cluster, "second", image, &["sh", "-c", "cat /dev/shm/note"], json!({}));
    for (request, script) in [(&mut first, Some("echo from the first > /dev/shm/note")), (&mut second, None)] {
        (request.spec.pid, request.spec.ipc) = (Namespace::Pause, Namespace::Pause);
        request.pause = Some(pause.runtime_name.clone());
        if let (Some(script), Some(command)) = (script, request.spec.command.as_mut()) {
            command[2] = format!("{script}; {}", command[2]);
        }
        edge.create(request, &SecretValues::default()).await.unwrap();
        edge.start(&request.runtime_name).await.unwrap();
        let name = &request.runtime_name;
        let ended = async || edge.inspect(name).await.unwrap().filter(|seen| seen.state == RunState::Exited);
        assert_eq!(until("the container", LIMIT, ended).await.exit_code, Some(0), "{}", docker(&["logs", name]));
    }
    let output = docker(&["logs", &first.runtime_name]);
    assert!(output.starts_with("pause\n"), "{output}");
    assert!(output.contains("(cat) ") && !output.contains(") Z "), "{output}");
    assert_eq!(docker(&["logs", &second.runtime_name]), "from the first");
}
