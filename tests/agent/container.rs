//! The agent as a container: the image of `examples/docker`, started by the command of `systemd/README.md`.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::{Options, TaskStatus};
use ecs_testing::docker::{Image, docker, inspect, unique};
use ecs_testing::registry::{Registry, basic};
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
        let directory = rig.directory.path().display();
        let env_file = format!("--env-file={directory}/ecs.config");
        let data = format!("--volume={directory}/host/data:/data");
        let logs = format!("--volume={directory}/log:/log");
        let mut arguments = page();
        for argument in &mut arguments {
            *argument = match argument.as_str() {
                "ecs-agent" => self.name.clone(),
                "ecs-agent:latest" => self.image.clone(),
                "--env-file=/etc/ecs/ecs.config" => env_file.clone(),
                "--volume=/var/lib/ecs/data:/data" => data.clone(),
                "--volume=/var/log/ecs:/log" => logs.clone(),
                // Where Docker may not raise limits, as in some virtual machines, the capability does the same.
                "--ulimit=nice=35" if !may_raise_limits() => "--cap-add=SYS_NICE".to_owned(),
                other => other.to_owned(),
            };
        }
        for path in [&env_file, &data, &logs] {
            assert!(arguments.contains(path), "{arguments:?}");
        }
        // The image checks its health every 30 s, which is too long for a test.
        arguments.insert(1, "--health-interval=1s".to_owned());
        docker(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Runs the image with these flags, and without a metadata service. The agent reads the file of `rig`.
    fn run_with(&self, rig: &Rig, flags: &[&str]) {
        let env_file = format!("--env-file={}/ecs.config", rig.directory.path().display());
        let first = ["run", "--detach", "--name", &self.name, &env_file];
        docker(&[&first, flags, &[&self.image, "-blackhole-ec2-metadata"]].concat());
    }

    /// Waits for a line of the log, and returns it.
    async fn line(&self, part: &str) -> String {
        until(part, LIMIT, async || self.log().lines().find(|line| line.contains(part)).map(str::to_owned)).await
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

/// The words of the command of the page, without `docker`.
fn page() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/README.md")).unwrap();
    let script = include_str!("../../examples/docker/build");
    assert!(script.contains("${1:-ecs-agent:latest}"), "the script names the image as the page does");
    let command = |text: &str, end: &str| {
        let start = text.find("docker run --name ecs-agent ").expect("the command");
        let block = &text[start..start + text[start..].find(end).unwrap()];
        let words = block.split_whitespace().skip(1).filter(|word| !word.starts_with('\\'));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let words = command(&page, "```");
    assert_eq!(words.last().map(String::as_str), Some("ecs-agent:latest"));
    assert_eq!(words[..words.len() - 1], command(script, "$image\nDONE"), "the script prints the same");
    words
}

/// The same lines as for the daemon, except for the state directory, which is the image's own.
fn settings(rig: &Rig) -> String {
    let lines = rig.environment.iter().filter(|(name, _)| {
        name.starts_with("AWS_") || name == "NO_PROXY" || name == "ECS_CLUSTER" || name == "ECS_BACKEND_HOST"
    });
    lines.map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn may_raise_limits() -> bool {
    Command::new("prlimit").args(["--nice=35", "true"]).output().is_ok_and(|output| output.status.success())
}

/// What begins the only message about what the container lacks.
const LACKS: &str = "the container of this agent lacks something of its host";

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
    let mut file = settings(&rig);
    file.push_str(&format!(
        "# credentials\nECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={data}\nECS_LOGLEVEL=debug\n\
         ECS_HOST_DATA_DIR={}/host\nECS_MANAGE_FIREWALL=false\n",
        rig.directory.path().display()
    ));
    std::fs::write(rig.directory.path().join("ecs.config"), file).unwrap();
    container.run(&rig);
    rig.registered().await;
    let log = container.log();
    assert!(
        !log.contains("level=warn") && !log.contains("level=error"),
        "the command of the page lacks nothing: {log}"
    );

    let image = rig.image();
    let arn = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let group = inspect(&id)["HostConfig"]["CgroupParent"].take();
    assert!(group.as_str().unwrap().contains("ecs"), "it is in the group of its task: {group}");
    container.healthy().await;
    docker(&["exec", &container.name, "/agent", "-healthcheck"]); // the command of the Go agent's image
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
    assert!(!log.contains("Docker is asked for those of such containers"), "it sees the counters: {log}");
    assert!(!log.contains(&basic("me", PASSWORD)) && !log.contains(PASSWORD));
    Image::remove_locally(&image);
}

/// Somebody who starts the image without a flag reads once what is missing, with flags that are those of the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_container_says_at_once_what_it_lacks() {
    let Some(rig) = Rig::without_agent("bare container", Plan::default()).await else { return };
    let container = Container::build();
    std::fs::write(rig.directory.path().join("ecs.config"), "AWS_DEFAULT_REGION=us-west-2\n").unwrap();
    container.run_with(&rig, &[]);
    let warning = container.line(LACKS).await;
    container.line("Could not connect to docker daemon").await;
    let log = container.log();
    assert_eq!(log.matches(LACKS).count(), 1, "{log}");
    let is_own = |word: &&String| {
        word.starts_with("--")
            && !["--name", "--detach", "--restart=", "--env-file="].iter().any(|other| word.starts_with(other))
    };
    let flags = page();
    let mut missing: Vec<&String> =
        flags.iter().filter(is_own).filter(|flag| !warning.contains(flag.as_str())).collect();
    // Docker gives containers the host's users unless it maps them, and with cgroup v1 the host's view of control groups.
    missing.retain(|flag| !["--userns=host", "--cgroupns=host"].contains(&flag.as_str()));
    assert_eq!(missing, Vec::<&String>::new(), "{warning}");
}

/// Tasks with network interfaces of their own need more of the host, which the warning names.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_says_what_networks_of_tasks_need() {
    let Some(rig) = Rig::without_agent("networks in a container", Plan::default()).await else { return };
    let lines = "AWS_DEFAULT_REGION=us-west-2\nECS_ENABLE_TASK_ENI=true\n";
    std::fs::write(rig.directory.path().join("ecs.config"), lines).unwrap();
    let awsvpc = "no tasks in network mode awsvpc are placed here (ECS_ENABLE_TASK_ENI)";
    let container = Container::build();
    container.run_with(&rig, &[]);
    let warning = container.line(LACKS).await;
    let missing = format!("CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE, the host's processes: {awsvpc}");
    assert!(warning.contains(&missing) && warning.contains("--cap-add=SYS_PTRACE"), "{warning}");
    drop(container);
    let container = Container::build();
    let rights = ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"].map(|right| format!("--cap-add={right}"));
    let mut flags: Vec<&str> = rights.iter().map(String::as_str).collect();
    flags.push("--volume=/proc:/host/proc:ro");
    container.run_with(&rig, &flags);
    let warning = container.line(LACKS).await;
    assert!(!warning.contains(awsvpc), "{warning}");
}

/// What lacks only a part reads only of that part, and no other line repeats it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_socket_only_reads_no_other_warning() {
    let Some(rig) = Rig::without_agent("socket only", Plan::default()).await else { return };
    let container = Container::build();
    std::fs::write(rig.directory.path().join("ecs.config"), "AWS_DEFAULT_REGION=us-west-2\n").unwrap();
    // An operator who only changes the image has a directory of the Go agent.
    std::fs::create_dir_all(rig.directory.path().join("go")).unwrap();
    std::fs::write(rig.directory.path().join("go/agent.db"), "x").unwrap();
    let data = format!("--volume={}/go:/data", rig.directory.path().display());
    container.run_with(&rig, &["--network=none", "--volume=/var/run/docker.sock:/var/run/docker.sock", &data]);
    let warning = container.line(LACKS).await;
    assert!(
        warning.contains("only /var/run/docker.sock is mounted") && !warning.contains("waits for Docker"),
        "{warning}"
    );
    container.line("there is a state of the Go agent (agent.db), which this agent cannot read").await;
    // The steps that meet what is missing are over.
    container.line("Fault injection capability not enabled").await;
    let log = container.log();
    let repeats = ["firewall", "169.254.170.2", "FireLens", "CPU and memory limits"];
    for line in log.lines().filter(|line| line.contains("level=warn") && !line.contains(LACKS)) {
        assert!(!repeats.iter().any(|part| line.contains(part)), "{line}");
    }
}

/// An older form of AWS's command publishes the port of introspection, and has no `--network=host`.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_published_port_answers() {
    let listen: fn(&mut Options, &Registry) = |options, _| {
        let gateway = docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
        options.listen = format!("{gateway}:0").parse().unwrap();
    };
    let plan = Plan { options: Some(listen), ..Plan::default() };
    let Some(rig) = Rig::without_agent("published port", plan).await else { return };
    let container = Container::build();
    // The metadata service of `ecs-local` answers this host only.
    let keys = format!("AWS_ACCESS_KEY_ID=local\nAWS_SECRET_ACCESS_KEY={}\n", rig.server.token().expose());
    std::fs::write(rig.directory.path().join("ecs.config"), settings(&rig) + &keys).unwrap();
    container.run_with(&rig, &["--volume=/var/run/docker.sock:/var/run/docker.sock", "--publish=127.0.0.1::51678"]);
    container.line("Instance registration completed successfully").await;
    let url = format!("http://{}/v1/metadata", docker(&["port", &container.name, "51678"]));
    let answer = until("an answer at the published port", LIMIT, async || {
        reqwest::get(&url).await.ok()?.error_for_status().ok()?.text().await.ok()
    });
    assert!(answer.await.contains(&rig.cluster.name));
}

/// In a network of its own, which stands for that of a host: the rules are made with the programs of the host.
#[tokio::test(flavor = "multi_thread")]
async fn the_container_form_keeps_the_firewall_rules_itself() {
    let Some(rig) = Rig::without_agent("container firewall", Plan::default()).await else { return };
    let host = Container { name: unique("ecs-test-host"), image: rig.image() };
    // A control plane that never answers keeps the agent at its registration.
    let silent = "while true; do busybox nc -l -p 9999 >/dev/null; done";
    docker(&["run", "--detach", "--name", &host.name, "--network=none", &host.image, "busybox", "sh", "-c", silent]);
    let network = format!("--network=container:{}", host.name);
    let container = Container::build();
    let settings = concat!(
        "AWS_DEFAULT_REGION=us-west-2\nECS_BACKEND_HOST=http://127.0.0.1:9999\n",
        "AWS_ACCESS_KEY_ID=x\nAWS_SECRET_ACCESS_KEY=x\n"
    );
    std::fs::write(rig.directory.path().join("ecs.config"), settings).unwrap();
    let flags = page();
    let is_for_rules = |flag: &&str| {
        ["--cap", "--security", "--volume=/usr", "--volume=/etc"].iter().any(|part| flag.starts_with(part))
    };
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).filter(is_for_rules).collect();
    assert_eq!(flags.len(), 5, "{flags:?}");
    flags.extend([network.as_str(), "--volume=/var/run/docker.sock:/var/run/docker.sock"]);
    container.run_with(&rig, &flags);
    container.line("Firewall rules are in place").await;
    let warning = container.line(LACKS).await;
    assert!(!warning.contains("firewall rules") && !warning.contains("network faults"), "{warning}");
    let process = host.state()["Pid"].as_i64().unwrap();
    let inside = |command: &[&str]| {
        let network = format!("--net=/proc/{process}/ns/net");
        let output = Command::new("nsenter").arg(network).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(
        inside(&["iptables", "-t", "nat", "-S"]).contains("-A ECS-AGENT-OUTPUT -p tcp -j REDIRECT --to-ports 51679")
    );
    assert_eq!(inside(&["cat", "/proc/sys/net/ipv4/conf/all/route_localnet"]).trim(), "1");
    docker(&["stop", &container.name]);
    assert!(!inside(&["iptables", "-t", "nat", "-S"]).contains("ECS-AGENT"), "they go with the agent");
}
