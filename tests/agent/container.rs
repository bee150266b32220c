//! The agent as a container: the image of `examples/docker`, started by the command of `systemd/README.md`.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::{Image, docker, inspect, unique};
use ecs_testing::registry::basic;
use ecs_testing::wait::until;
use serde_json::json;
use std::process::Command;

const PASSWORD: &str = r#"with "quotes", {braces} and a = sign"#;

/// The agent's image and container, under names of their own; both are removed when this is dropped.
struct Container {
    name: String,
    image: String,
}

impl Container {
    /// Builds the image around the binary under test.
    fn build() -> Self {
        let name = unique("ecs-test-container");
        let image = format!("{name}:latest");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/docker/build");
        let output = Command::new(script).args(["--binary", env!("CARGO_BIN_EXE_ecs-agent"), &image]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self { name, image }
    }

    /// Runs the command of the page, with this test's names and paths.
    fn run(&self, rig: &Rig) {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/README.md")).unwrap();
        let script = include_str!("../../examples/docker/build");
        assert!(script.contains("${1:-ecs-agent:latest}"), "the script names the image as the page does");
        let start = page.find("docker run --name ecs-agent ").expect("the page has the command");
        let block = &page[start..start + page[start..].find("```").unwrap()];
        assert_eq!(block.split_whitespace().last(), Some("ecs-agent:latest"));
        let directory = rig.directory.path().display();
        let env_file = format!("--env-file={directory}/ecs.config");
        let volume = format!("--volume={directory}/container-data:/data");
        let mut arguments = Vec::new();
        for word in block.split_whitespace().skip(1).filter(|word| *word != "\\") {
            arguments.push(match word {
                "ecs-agent" => self.name.as_str(),
                "ecs-agent:latest" => self.image.as_str(),
                "--env-file=/etc/ecs/ecs.config" => env_file.as_str(),
                "--volume=/var/lib/ecs/data:/data" => volume.as_str(),
                other => other,
            });
        }
        assert!(arguments.contains(&env_file.as_str()) && arguments.contains(&volume.as_str()), "{arguments:?}");
        // The image checks its health every 30 s, which is too long for a test.
        arguments.insert(1, "--health-interval=1s");
        docker(&arguments);
    }

    fn state(&self) -> serde_json::Value {
        inspect(&self.name)["State"].take()
    }

    async fn healthy(&self) {
        until("the container to be healthy", LIMIT, async || {
            (self.state()["Health"]["Status"] == "healthy").then_some(())
        })
        .await;
    }

    fn log(&self) -> String {
        let output = Command::new("docker").args(["logs", &self.name]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the container's log:\n{}", self.log());
        }
        let _ = Command::new("docker").args(["rm", "-fv", &self.name]).output();
        Image::remove_locally(&self.image);
    }
}

/// The agent in a container also runs images of a private registry.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_the_container_form_survives_kill_9() {
    let plan = Plan { users: &[("me", PASSWORD)], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("container", plan).await else { return };
    let container = Container::build();
    let data = json!({&rig.registry.host: {"auth": basic("me", PASSWORD)}});
    // The same lines as for the daemon, except for the state directory, which is the image's own.
    let lines = rig.environment.iter().filter(|(name, _)| {
        name.starts_with("AWS_") || name == "NO_PROXY" || name == "ECS_CLUSTER" || name == "ECS_BACKEND_HOST"
    });
    let mut file: String = lines.map(|(name, value)| format!("{name}={value}\n")).collect();
    file.push_str(&format!(
        "# credentials\nECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={data}\nECS_LOGLEVEL=debug\n"
    ));
    std::fs::write(rig.directory.path().join("ecs.config"), file).unwrap();
    container.run(&rig);
    rig.registered().await;
    let log = container.log();
    let warning = "/container-data of a file system of the host; /var/lib/ecs/data of the host must be mounted there";
    assert!(log.contains(warning), "its data is not where Docker looks for it: {log}");

    let image = rig.image();
    let arn = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    container.healthy().await;
    let checks = container.state()["Health"]["Log"].take();
    let output = checks.as_array().unwrap().last().unwrap()["Output"].as_str().unwrap();
    assert!(output.contains("healthy: running"), "docker inspect shows the cause: {output}");
    // An agent on the host sees it because it mounts `/var/run`.
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(1), "{}", rig.log());
    let first = format!("in container {}", &inspect(&container.name)["Id"].as_str().unwrap()[..12]);
    assert!(rig.log().contains(&first), "{first}: {}", rig.log());

    docker(&["kill", "-s", "KILL", &container.name]);
    assert_eq!(inspect(&id)["State"]["Running"], true, "tasks do not end with the agent");
    docker(&["start", &container.name]);
    container.healthy().await;
    let tasks = until("the task to be known again", LIMIT, async || {
        let tasks = rig.introspect("/v1/tasks").await;
        (tasks["Tasks"][0]["KnownStatus"] == "RUNNING").then_some(tasks)
    })
    .await;
    assert_eq!(tasks["Tasks"].as_array().unwrap().len(), 1, "{tasks}");
    assert_eq!(tasks["Tasks"][0]["Containers"][0]["DockerId"], id.as_str());
    assert_eq!(rig.containers().len(), 1, "it is not doubled");
    assert_eq!(rig.server.read(|state| state.instances().len()), 1, "the same container instance");

    rig.server.stop_task(&arn, "enough").unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(0));
    // An agent that was killed before it recorded ECS's answer reports RUNNING again.
    let mut reported = rig.statuses(&arn);
    reported.dedup();
    assert_eq!(reported, ["PENDING", "RUNNING", "STOPPED"]);
    docker(&["stop", &container.name]);
    assert_eq!(container.state()["ExitCode"], 0, "it ends well when it is stopped");
    let log = container.log();
    assert!(!log.contains(&basic("me", PASSWORD)) && !log.contains(PASSWORD));
    Image::remove_locally(&image);
}
