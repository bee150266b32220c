//! Metrics of a real agent on port 51680: the values are right, the series bounded, the port closed to other hosts. `promtool`, which
//! nobody here wrote, judges the page and the files of `examples/prometheus`.

use super::port::{Neighbour, run};
use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::{Fault, Options, TaskStatus};
use ecs_testing::docker_proxy::{Behaviour, DockerProxy};
use ecs_testing::registry::Registry;
use ecs_testing::wait::until;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PORT: u16 = 51680;
const ON: (&str, &str) = ("ECS_ENABLE_PROMETHEUS_METRICS", "true");
/// Both links are up after this; TCS waits five seconds for ACS.
const LINKS: [&str; 2] = ["ecs_agent_link_up{link=\"acs\"}", "ecs_agent_link_up{link=\"tcs\"}"];

/// ACS and TCS send heartbeats every second.
fn quick(options: &mut Options, _: &Registry) {
    options.heartbeat = Duration::from_secs(1);
}

/// One page: its text, and the value of each series.
struct Page {
    text: String,
    values: BTreeMap<String, f64>,
}

impl Page {
    fn parse(text: String) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse::<f64>().unwrap())
        };
        Self { values: samples.map(sample).collect(), text }
    }

    fn get(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("{series} is not in\n{}", self.text))
    }

    fn series(&self) -> Vec<&String> {
        self.values.keys().collect()
    }
}

/// The page; `None`: the port is closed.
async fn page() -> Option<Page> {
    let answer = reqwest::get(format!("http://127.0.0.1:{PORT}/metrics")).await.ok()?;
    assert_eq!(answer.status(), 200);
    Some(Page::parse(answer.text().await.unwrap()))
}

/// Waits until the value of a series meets the condition, and returns that page.
async fn page_where(series: &str, condition: impl Fn(f64) -> bool) -> Page {
    let what = format!("another value of {series}");
    until(&what, LIMIT, async || page().await.filter(|page| condition(page.get(series)))).await
}

/// `promtool`, unless it is not installed.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn promtool() -> Option<String> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/promtool");
    let found = [own, "promtool"].into_iter().find(|program| Command::new(program).arg("--version").output().is_ok());
    if found.is_none() {
        let required = std::env::var("ECS_TEST_REQUIRE_PROMTOOL").is_ok_and(|value| value == "1");
        assert!(!required, "promtool is not installed, and ECS_TEST_REQUIRE_PROMTOOL=1");
        eprintln!("SKIPPED promtool: it is not installed (./tests/run agent does it)");
    }
    found.map(str::to_owned)
}

/// Runs promtool in `examples/prometheus`, with this input; it must find nothing wrong.
fn check(promtool: &str, arguments: &[&str], input: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus");
    let mut command = Command::new(promtool);
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let has_hint = arguments == ["check", "metrics"] && !shown.trim().is_empty();
    assert!(output.status.success() && !has_hint, "promtool {arguments:?}: {shown}");
}

#[test]
fn promtool_accepts_the_examples() {
    let Some(promtool) = promtool() else { return };
    check(&promtool, &["check", "config", "prometheus.yml"], "");
    check(&promtool, &["check", "rules", "rules.yml"], "");
    check(&promtool, &["test", "rules", "rules-test.yml"], "");
}

/// What one task leaves behind, once it runs.
fn check_one_task(page: &Page, rig: &Rig) {
    for (series, expected) in [
        ("ecs_agent_tasks{status=\"RUNNING\"}", 1.0),
        ("ecs_agent_tasks{status=\"STOPPED\"}", 0.0),
        ("ecs_agent_containers{status=\"RUNNING\"}", 1.0),
        ("ecs_agent_instance_registered", 1.0),
        ("ecs_agent_link_connections_total{link=\"acs\"}", 1.0),
        ("ecs_agent_link_connections_total{link=\"tcs\"}", 1.0),
        ("ecs_agent_pulls_total{outcome=\"pulled\"}", 1.0),
        ("ecs_agent_pulls_total{outcome=\"failed\"}", 0.0),
        ("ecs_agent_pulls_running", 0.0),
        ("ecs_agent_pull_seconds_count", 1.0),
        ("ecs_agent_reports_total{outcome=\"invalid\"}", 0.0),
        ("ecs_agent_reports_waiting", 0.0),
        ("ecs_agent_reports_oldest_age_seconds", 0.0),
        ("ecs_agent_docker_call_seconds_count{operation=\"create\"}", 1.0),
        ("ecs_agent_docker_call_seconds_count{operation=\"start\"}", 1.0),
        ("ecs_agent_docker_call_seconds_count{operation=\"stop\"}", 0.0),
        ("ecs_agent_docker_call_errors_total{operation=\"create\",reason=\"timeout\"}", 0.0),
        ("ecs_agent_queue_capacity{queue=\"core\"}", 1024.0),
        ("ecs_agent_store_commits_failed_total", 0.0),
        ("ecs_agent_log_lines_dropped_total{queue=\"log\"}", 0.0),
    ] {
        assert!((page.get(series) - expected).abs() < 1e-9, "{series}: {}, not {expected}", page.get(series));
    }
    let accepted = rig.server.submissions().len() as f64;
    assert!((page.get("ecs_agent_reports_total{outcome=\"accepted\"}") - accepted).abs() < 1e-9, "{accepted}");
    let file = std::fs::metadata(rig.directory.path().join("data/ecs-agent.redb")).unwrap().len() as f64;
    assert!((page.get("ecs_agent_store_file_bytes") - file).abs() < 1e-9, "{file}");
    for (series, above, below) in [
        ("ecs_agent_docker_last_answer_age_seconds", 0.0, 20.0),
        ("ecs_agent_link_last_message_age_seconds{link=\"acs\"}", 0.0, 10.0),
        ("ecs_agent_store_commit_seconds_count", 1.0, 1e6),
        ("process_open_fds", 5.0, 200.0),
        ("process_resident_memory_bytes", 4e6, 2e8),
        ("process_threads", 2.0, 50.0),
        ("process_cpu_seconds_total", 0.0, 60.0),
    ] {
        let value = page.get(series);
        assert!((above..below).contains(&value), "{series}: {value}");
    }
    let wrong: Vec<_> = page
        .values
        .iter()
        .filter(|(name, value)| name.starts_with("ecs_agent_check_passed") && **value < 1.0)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_shows_the_work_and_no_name() {
    let plan = Plan { environment: &[ON], options: Some(quick), ..Plan::default() };
    let Some(rig) = Rig::start("metrics", plan).await else { return };
    let image = rig.image();
    let first = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    rig.task(&first, TaskStatus::Running).await;
    page_where(LINKS[1], |up| up > 0.0).await;
    let page = page_where("ecs_agent_reports_waiting", |waiting| waiting < 1.0).await;
    assert!(page.get(LINKS[0]) > 0.0);
    check_one_task(&page, &rig);
    if let Some(promtool) = promtool() {
        check(&promtool, &["check", "metrics"], &page.text);
    }

    // Thirty more tasks: the series stay the same, and nothing that a task has is in any of them.
    let more: Vec<_> = (0..30).map(|_| rig.server.run_task(&one_container(&image, FOREVER)).unwrap()).collect();
    for arn in &more {
        rig.task(arn, TaskStatus::Running).await;
    }
    let many = page_where("ecs_agent_tasks{status=\"RUNNING\"}", |running| running > 30.0).await;
    assert_eq!(many.series(), page.series());
    let registry = image.split('/').next().unwrap();
    let mut names = vec!["main", "busybox", "127.0.0.1", registry, rig.cluster.name.as_str(), "arn:"];
    names.extend(more.iter().filter_map(|arn| arn.rsplit('/').next()));
    for name in names {
        assert!(!many.text.contains(name), "{name}\n{}", many.text);
    }
    rig.server.stop_task(&first, "enough").unwrap();
    rig.task(&first, TaskStatus::Stopped).await;
    let stopped = page_where("ecs_agent_tasks{status=\"STOPPED\"}", |stopped| stopped > 0.0).await;
    assert!((stopped.get("ecs_agent_docker_call_seconds_count{operation=\"stop\"}") - 1.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_shows_whose_fault_it_is() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [ON, ("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { environment: &environment, options: Some(quick), ..Plan::default() };
    let Some(rig) = Rig::start("metrics of faults", plan).await else { return };
    let image = rig.image();
    rig.server.fail_next("SubmitTaskStateChange", 1_000, &Fault::ServerError);
    let arn = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    let page = page_where("ecs_agent_reports_oldest_age_seconds", |age| age > 2.0).await;
    assert!(page.get("ecs_agent_reports_waiting") > 0.0);
    page_where("ecs_agent_reports_total{outcome=\"failed\"}", |failed| failed > 0.0).await;
    rig.server.clear_faults();
    rig.task(&arn, TaskStatus::Running).await;
    let page = page_where("ecs_agent_reports_waiting", |waiting| waiting < 1.0).await;
    assert!(page.get("ecs_agent_reports_oldest_age_seconds") < 1e-9);

    proxy.behave(Behaviour::Hang);
    let timeout = "ecs_agent_docker_call_errors_total{operation=\"ping\",reason=\"timeout\"}";
    page_where(timeout, |count| count > 0.0).await;
    page_where("ecs_agent_docker_last_answer_age_seconds", |age| age > 6.0).await;
    page_where("ecs_agent_docker_calls_running", |running| running > 0.0).await;
    proxy.behave(Behaviour::Clear);
    page_where("ecs_agent_docker_last_answer_age_seconds", |age| age < 4.0).await;

    rig.server.fail_next("acs", 1_000, &Fault::ServerError);
    rig.server.drop_sockets();
    page_where(LINKS[0], |up| up < 1.0).await;
    rig.server.clear_faults();
    let page = page_where(LINKS[0], |up| up > 0.0).await;
    assert!(page.get("ecs_agent_link_connections_total{link=\"acs\"}") > 1.0);
    assert_eq!(rig.statuses(&arn).iter().filter(|status| *status == "RUNNING").count(), 1);
}

/// The status of the page at `host`, asked from another network namespace; `000`: no answer.
fn status(neighbour: &Neighbour, host: &str) -> String {
    let url = format!("http://{host}:{PORT}/metrics");
    let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", &url];
    run(&[&["ip", "netns", "exec", &neighbour.name][..], &curl].concat()).1
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_served_only_if_asked_for() {
    let Some(mut rig) = Rig::start("metrics from elsewhere", Plan { environment: &[ON], ..Plan::default() }).await
    else {
        return;
    };
    until("the page", LIMIT, page).await;
    let Some(neighbour) = Neighbour::new() else { return };
    let ours = "198.18.51.1";
    assert_eq!(status(&neighbour, ours), "000");
    assert!(TcpStream::connect((ours, PORT)).is_err(), "it listens on 127.0.0.1 alone");
    assert!(rig.terminate().success());
    rig.environment.push(("ECS_ALLOW_OFFHOST_PROMETHEUS_ACCESS".to_owned(), "true".to_owned()));
    rig.start_agent();
    rig.registered().await;
    until("the page", LIMIT, page).await;
    assert_eq!(status(&neighbour, ours), "200", "so the host was reachable before");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_is_opened_only_if_asked_for_and_once_it_is_free() {
    let Some(mut rig) = Rig::start("port of metrics", Plan::default()).await else { return };
    assert!(TcpStream::connect(("127.0.0.1", PORT)).is_err(), "nothing listens without the setting");
    assert!(rig.terminate().success());
    let stranger = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    rig.environment.push((ON.0.to_owned(), ON.1.to_owned()));
    rig.start_agent();
    rig.registered().await;
    let image = rig.image();
    rig.lives_once(&image, 3, "while the port is taken").await;
    let log = rig.log();
    let line = log.lines().find(|line| line.contains("Error running metrics endpoint")).unwrap_or(&log);
    assert!(line.contains("port 51680 of 127.0.0.1") && line.contains("another program"), "{line}");
    drop(stranger);
    let page = until("the page", LIMIT, page).await;
    assert!(page.get("ecs_agent_pulls_total{outcome=\"pulled\"}") > 0.0);
}
