//! The result of `-healthcheck` for a real agent, and which addresses answer before its registration.

use super::port::{run, status};
use super::rig::{LIMIT, Plan, Rig};
use super::two_agents::Running;
use ecs_local::Fault;
use ecs_testing::docker::TempDir;
use ecs_testing::docker_proxy::{Behaviour, DockerProxy};
use ecs_testing::wait::until;
use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_ecs-agent");
/// A user who is not root.
const USER: &str = "54321";

/// The command that starts a program as this user.
fn setpriv(user: &str) -> [&str; 6] {
    ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
}

/// `ecs-agent -healthcheck` on this host.
pub(crate) fn healthcheck(flag: &str) -> (Option<i32>, String) {
    asks(&[AGENT, flag])
}

fn asks(words: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(words[0])
        .args(&words[1..])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("ECS_CONFIG_FILE", "/dev/null"), ("ECS_AGENT_CONFIG_FILE_PATH", "/dev/null")])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Waits until the health check has this result; returns how long that took.
async fn says(code: i32, part: &str, limit: Duration) -> Duration {
    let began = Instant::now();
    let mut last = (None, String::new());
    while began.elapsed() < limit {
        last = healthcheck("-healthcheck");
        if last.0 == Some(code) && last.1.contains(part) {
            return began.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("waited {limit:?} for {code} {part:?}; last: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_a_waiting_agent_from_none() {
    let proxy = DockerProxy::start();
    proxy.behave(Behaviour::Down);
    let endpoint = proxy.endpoint();
    let plan = Plan { environment: &[("DOCKER_HOST", &endpoint)], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("health of a start", plan).await else { return };
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(1) && text.contains("no agent answers"), "{code:?} {text}");
    rig.start_agent();
    says(0, "waits for Docker to answer", LIMIT).await;
    // As with the Go agent, the port is open only once the agent has registered.
    port_is_closed();
    assert_eq!(healthcheck("-healthcheck=http").0, Some(1));
    let (asked, shown) = run(&["curl", "-s", "--abstract-unix-socket", "ecs-agent/health", "http://localhost/health"]);
    assert!(asked && shown.contains("\"Stage\":\"waits for Docker to answer\""), "{shown}");
    let as_user = [&setpriv(USER)[..], &[AGENT, "-healthcheck"]].concat();
    if is_root() {
        let (code, text) = asks(&as_user);
        assert!(code == Some(0) && text.contains("waits for Docker"), "root is believed: {code:?} {text}");
    }
    // The socket goes with its process, and the next process gets it at once.
    rig.kill();
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(1) && text.contains("no agent answers"), "{code:?} {text}");
    rig.start_agent();
    says(0, "waits for Docker to answer", LIMIT).await;
    port_is_closed();
    proxy.behave(Behaviour::Clear);
    rig.registered().await;
    says(0, "healthy: running", LIMIT).await;
    assert_eq!(healthcheck("-healthcheck=http").0, Some(0));
}

fn port_is_closed() {
    for host in ["127.0.0.1:51678", "[::1]:51678"] {
        let refused = TcpStream::connect(host).expect_err("nobody listens").kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused, "{host}");
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED what takes a second user: not root");
    }
    is_root
}

/// A real agent of another user. It waits for Docker, and its answers are real.
fn agent_of_another_user(directory: &TempDir) -> Running {
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let (data, empty) = (directory.path().join("data"), directory.path().join("ecs.config"));
    std::fs::write(&empty, "").unwrap();
    let words = [&setpriv(USER)[1..], &[AGENT, "-blackhole-ec2-metadata"]].concat();
    let mut command = Command::new("setpriv");
    command.args(words).env_clear().env("ECS_DATADIR", data).env("AWS_DEFAULT_REGION", "us-west-2");
    command
        .env("ECS_CONFIG_FILE", empty)
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_another_users_socket_does_not_count() {
    if !is_root() {
        return;
    }
    let Some(mut rig) = Rig::without_agent("socket of another user", Plan::default()).await else { return };
    let directory = TempDir::new("ecs-test-other");
    let other = agent_of_another_user(&directory);
    let why =
        format!("@ecs-agent/health (for agents without the port): it belongs to user {USER}, who is neither root");
    says(1, &why, LIMIT).await;
    for (user, code, part) in [(USER, 0, "waits for Docker"), ("54322", 1, "its answer does not count")] {
        let (found, text) = asks(&[&setpriv(user)[..], &[AGENT, "-healthcheck"]].concat());
        assert!(found == Some(code) && text.contains(part), "{user}: {found:?} {text}");
    }
    // The name matters only before the registration. An agent works without it, and takes it when it is free.
    rig.start_agent();
    rig.registered().await;
    says(0, "healthy: running", LIMIT).await;
    assert!(rig.log().contains("socket @ecs-agent/health is taken: process "), "{}", rig.log());
    drop(other);
    let has_name = async || {
        let curl = ["curl", "-s", "--abstract-unix-socket", "ecs-agent/health", "http://localhost/health"];
        run(&curl).1.contains("\"Stage\":\"running\"").then_some(())
    };
    until("the agent to have the name", LIMIT * 2, has_name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_a_connection_holds_costs_no_task() {
    let Some(mut rig) = Rig::without_agent("port taken", Plan::default()).await else { return };
    // The port is held as by a connection that has it as its local port: nobody listens on it.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("0.0.0.0:51678".parse().unwrap()).unwrap();
    rig.start_agent();
    rig.registered().await;
    rig.lives_once(&rig.image(), 5, "without the port").await;
    assert!(rig.log().contains("Error running introspection endpoint: port 51678: "), "{}", rig.log());
    says(0, "healthy: running", LIMIT).await;
    assert_eq!(healthcheck("-healthcheck=http").0, Some(1));
    drop(held);
    let is_open = async || (healthcheck("-healthcheck=http").0 == Some(0)).then_some(());
    until("the port to be tried again", LIMIT * 2, is_open).await;
    assert_eq!(status(&[], "127.0.0.1", &[]), "200");
}

/// Another program has the port where containers get credentials.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_for_containers_is_named_and_tried_again() {
    let Some(mut rig) = Rig::without_agent("port 51679 taken", Plan::default()).await else { return };
    let taken = TcpListener::bind("127.0.0.1:51679").unwrap();
    rig.start_agent();
    rig.registered().await;
    rig.lives_once(&rig.image(), 5, "without the port").await;
    assert!(rig.log().contains("port 51679"), "{}", rig.log());
    says(1, "port 51679", LIMIT).await;
    drop(taken);
    says(0, "healthy: running", LIMIT * 2).await;
}

/// An agent of a user who is not in Docker's group.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_without_permission_is_named_with_the_remedy() {
    if !is_root() {
        return;
    }
    let Some(mut rig) = Rig::without_agent("no permission", Plan::default()).await else { return };
    std::fs::set_permissions(rig.directory.path(), Permissions::from_mode(0o777)).unwrap();
    rig.program = "setpriv".into();
    rig.arguments = [&setpriv(USER)[1..], &[AGENT]].concat();
    rig.start_agent();
    let is_named = async || rig.log().contains("permission denied while trying to connect").then_some(());
    until("the cause", LIMIT, is_named).await;
    let log = rig.log();
    assert!(
        log.contains("docker.sock") && log.contains("add its user (uid 54321) to the group of the socket"),
        "{log}"
    );
    assert_eq!(rig.terminate().code(), Some(0), "it waits for a permission, and is stopped as usual");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_names_docker_when_it_is_silent() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let plan = Plan { environment: &[("DOCKER_HOST", &endpoint)], ..Plan::default() };
    let Some(_rig) = Rig::start("health", plan).await else { return };
    says(0, "healthy: running", LIMIT).await;
    proxy.behave(Behaviour::Hang);
    let took = says(1, "Docker: no answer for", Duration::from_secs(120)).await;
    assert!(took >= Duration::from_secs(40), "a minute since the last answer: {took:?}");
    assert_eq!(healthcheck("-healthcheck=http").0, Some(0), "the Go agent's meaning: something answers");
    let answer = reqwest::get("http://127.0.0.1:51678/health").await.unwrap();
    assert_eq!(answer.status(), 503);
    proxy.behave(Behaviour::Clear);
    says(0, "healthy: running", LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_says_deregistered() {
    let Some(mut rig) = Rig::without_agent("deregistered", Plan::default()).await else { return };
    let gone = Fault::Error(400, "InactiveInstanceException".to_owned(), "it was deregistered".to_owned());
    rig.server.fail_next("DiscoverPollEndpoint", 1, &gone);
    rig.start_agent();
    says(1, "deregistered", LIMIT).await;
}

#[test]
fn another_server_on_the_port_is_no_healthy_agent() {
    let _one = ecs_testing::docker::one_agent();
    let listener = TcpListener::bind("127.0.0.1:51678").unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK").unwrap();
        }
    });
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(1) && text.contains("something other than this agent"), "{code:?} {text}");
    assert_eq!(healthcheck("-healthcheck=http").0, Some(0));
    server.join().unwrap();
}
