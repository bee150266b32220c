//! The rules for 169.254.170.2, with a real dockerd in the test's own network namespace.
//!
//! The tests change firewall rules, so they run only where `./tests/run` runs the tests of agents: in a network namespace apart.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::{Image, docker, unique};
use ecs_testing::dockerd::Dockerd;
use ecs_testing::wait::until;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// The rules as they are listed if all of them are there.
const CHAINS: [&str; 3] = ["ECS-AGENT-INPUT", "ECS-AGENT-PREROUTING", "ECS-AGENT-OUTPUT"];

/// Whether this process is in a network namespace of its own.
fn is_apart(test: &str) -> bool {
    let apart = std::env::var("ECS_TEST_DOCKER_NETWORK").is_ok_and(|namespace| !namespace.is_empty());
    if !apart {
        eprintln!("SKIPPED {test}: it changes firewall rules, and needs a network namespace of its own (./tests/run)");
    }
    apart
}

fn run(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has_rules() -> bool {
    let rules = run("iptables -w -S") + &run("iptables -w -t nat -S");
    let is_entered = |chain: &str| rules.lines().any(|line| line.ends_with(&format!("-j {chain}")));
    CHAINS.into_iter().all(is_entered) && route_localnet() == "1"
}

fn has_no_rules() -> bool {
    let rules = run("iptables -w -S") + &run("iptables -w -t nat -S") + &run("ip6tables -w -S");
    !rules.contains("ECS-AGENT") && route_localnet() == "0"
}

fn route_localnet() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap().trim().to_owned()
}

/// Answers in the place of the agent's server, unless the agent has one.
fn serve() {
    let Ok(listener) = TcpListener::bind("127.0.0.1:51679") else { return };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n");
        }
    });
}

/// Whether something answers in HTTP at 169.254.170.2, for a client in this container.
fn answers(dockerd: &Dockerd, id: &str) -> bool {
    let ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 169.254.170.2 80";
    dockerd.docker(&["exec", id, "sh", "-c", ask]).is_some_and(|answer| answer.starts_with("HTTP/1."))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_169_254_170_2_while_the_agent_runs() {
    if !is_apart("169.254.170.2") {
        return;
    }
    for command in
        ["ip link add docker0 type bridge", "ip addr add 172.31.77.1/24 dev docker0", "ip link set docker0 up"]
    {
        run(command);
    }
    let Some(mut dockerd) = Dockerd::start(true).await else { return };
    let endpoint = dockerd.endpoint();
    let environment = [
        ("DOCKER_HOST", endpoint.as_str()),
        ("ECS_MANAGE_FIREWALL", "true"),
        ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached"),
    ];
    let Some(mut rig) = Rig::start("firewall", Plan { environment: &environment, ..Plan::default() }).await else {
        return;
    };
    serve();
    // The second dockerd cannot reach the registry of the rig, which is in the other network namespace.
    let image = Image::make(&unique("ecs-test-firewall"), &[]);
    let archive = rig.directory.path().join("image.tar").to_string_lossy().into_owned();
    docker(&["save", "-o", &archive, &image.reference]);
    dockerd.docker(&["load", "-i", &archive]).expect("the image is loaded");
    let definition = json!({"family": "asks", "containerDefinitions": [shell("main", &image.reference, FOREVER)]});
    let arn = rig.server.run_task(&definition).unwrap();
    let id = rig.task(&arn, TaskStatus::Running).await.container("main").unwrap().runtime_id.clone().unwrap();
    until("the rules", LIMIT, async || has_rules().then_some(())).await;
    assert!(answers(&dockerd, &id));
    let mut stream = std::net::TcpStream::connect("169.254.170.2:80").unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1."), "a process of this host: {answer}");

    // A flush, and a restart of Docker, after which the rules are checked at once and not only after a minute.
    run("iptables -w -t nat -F");
    run("iptables -w -F INPUT");
    assert!(!answers(&dockerd, &id));
    dockerd.kill().await;
    dockerd.run().await;
    until("the rules after the restart of Docker", LIMIT, async || has_rules().then_some(())).await;
    until("the container to reach the agent again", LIMIT, async || answers(&dockerd, &id).then_some(())).await;
    assert!(rig.log().contains("Firewall rules were missing and have been put back"), "{}", rig.log());

    // They stay if the agent is killed, and go if it is stopped.
    rig.kill();
    assert!(has_rules());
    rig.start_agent();
    rig.registered().await;
    assert!(rig.terminate().success());
    assert!(has_no_rules(), "{}", rig.log());
    assert!(!answers(&dockerd, &id));
    rig.start_agent();
    rig.registered().await;
    until("the rules of the next agent", LIMIT, async || has_rules().then_some(())).await;
}

/// The agent runs as usual, names the remedy once, and does not touch the rules of others.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_the_right_works_with_rules_of_others() {
    if !is_apart("an agent without CAP_NET_ADMIN") {
        return;
    }
    let environment = [("ECS_MANAGE_FIREWALL", "true")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("no right", plan).await else { return };
    let made = run(&format!("{} host-setup", env!("CARGO_BIN_EXE_ecs-agent")));
    // The host has no default route.
    assert_eq!(made.lines().filter(|line| line.starts_with("made ")).count(), 6, "{made}");
    assert!(has_rules());
    // Nobody runs it again, so some minutes later its record is stale.
    std::fs::remove_file(RECORD).unwrap();
    rig.program = "setpriv".into();
    rig.arguments = vec!["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", env!("CARGO_BIN_EXE_ecs-agent")];
    rig.start_agent();
    rig.registered().await;
    let image = rig.image();
    rig.lives_once(&image, 3, "without rules").await;
    let warnings = rig.log().matches("this process may not change the firewall").count();
    assert_eq!(warnings, 1, "{}", rig.log());
    assert!(rig.terminate().success());
    assert!(has_rules(), "they are not its own");
    let again = run(&format!("{} host-setup", env!("CARGO_BIN_EXE_ecs-agent")));
    assert_eq!(again.lines().filter(|line| line.starts_with("in place ")).count(), 6, "{again}");
    run(&format!("{} host-setup -undo", env!("CARGO_BIN_EXE_ecs-agent")));
    assert!(has_no_rules());
}

/// The record of `host-setup`. Each test of this file has the directory for itself.
const RECORD: &str = "/run/ecs-agent/host-setup.json";

fn record() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(RECORD).unwrap()).unwrap()
}

/// As with the unit: `host-setup` keeps the rules, and the agent shows what it did. Without rights the agent makes no complaint, with
/// rights it does not touch the rules.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leaves_the_rules_to_host_setup() {
    if !is_apart("the record of host-setup") {
        return;
    }
    let environment = [("ECS_MANAGE_FIREWALL", "true")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("host-setup", plan).await else { return };
    let agent = env!("CARGO_BIN_EXE_ecs-agent");
    run(&format!("{agent} host-setup"));
    assert_eq!((record()["PutBack"].as_u64(), record()["Error"].as_str()), (Some(0), Some("")), "{}", record());
    for program in ["setpriv", agent] {
        rig.program = program.into();
        let lacks = ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", agent];
        rig.arguments = if program == agent { Vec::new() } else { lacks.to_vec() };
        rig.start_agent();
        rig.registered().await;
        run("iptables -w -F INPUT");
        let mended = run(&format!("{agent} host-setup"));
        assert_eq!(mended.lines().filter(|line| line.starts_with("made ")).count(), 1, "{mended}");
        assert!(has_rules());
        assert!(rig.terminate().success());
        assert!(has_rules(), "they are not those of this process");
        assert!(rig.log().contains("Firewall rules are kept outside of this process"), "{}", rig.log());
        for silent in ["may not change the firewall", "Firewall rules are in place", "cannot be made"] {
            assert!(!rig.log().contains(silent), "{silent}: {}", rig.log());
        }
    }
    assert_eq!(
        (record()["PutBack"].as_u64(), &record()["Missing"]),
        (Some(2), &json!(["filter INPUT"])),
        "{}",
        record()
    );
    rig.start_agent();
    rig.registered().await;
    let shown = until("the record to be shown", LIMIT, async || {
        let shown: serde_json::Value =
            reqwest::get("http://127.0.0.1:51678/v1/debug/host").await.ok()?.json().await.ok()?;
        (shown["KeptBy"] == "HostSetup").then_some(shown)
    });
    let shown = shown.await;
    assert_eq!((shown["PutBack"].as_u64(), &shown["Error"]), (Some(2), &json!(null)), "{shown}");
    run(&format!("{agent} host-setup -undo"));
    assert!(has_no_rules() && !std::path::Path::new(RECORD).exists());
    // As the unit runs it: only what was changed is printed, and a failure keeps nothing from starting.
    let quiet = format!("{agent} host-setup -service");
    assert!(run(&quiet).contains("made      filter INPUT: ") && has_rules());
    assert_eq!(run(&quiet), "");
    // Rules that are left to others are removed if they were ours, and are not touched any more.
    let to_others = format!("env ECS_MANAGE_FIREWALL=false {quiet}");
    assert_eq!(run(&to_others), "removed   the rules: ECS_MANAGE_FIREWALL is false\n");
    assert!(has_no_rules() && record()["Rules"].is_null());
    std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    assert_eq!(run(&to_others), "");
    run(&format!("{agent} host-setup -undo -service"));
    assert_eq!(route_localnet(), "1");
    run(&format!("{agent} host-setup -undo"));
    assert_eq!(route_localnet(), "0");
}
