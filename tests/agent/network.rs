//! Failures of the network: invalid answers, a proxy that refuses, a wrong clock. Each failure has the expected result, each
//! status is reported once and in order, and the introspection port answers meanwhile.

use super::health::healthcheck;
use super::rig::{FOREVER, Plan, Rig, WHOLE_LIFE, one_container};
use ecs_local::{Fault, InstanceStatus, Source, State, TaskStatus};
use ecs_testing::docker::{Image, docker};
use ecs_testing::http_proxy::{HttpProxy, NAME};
use ecs_testing::wait::until;
use serde_json::json;
use std::time::Duration;

const SUBMIT: &str = "SubmitTaskStateChange";
const LOGIN: &str = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_loses_no_report() {
    let Some(rig) = Rig::start("answers that are none", Plan::default()).await else { return };
    let image = rig.image();
    let faults = [Fault::Empty, Fault::Page(200), Fault::Page(502), Fault::Page(407), Fault::Truncated];
    for (code, fault) in (1..).zip(faults) {
        rig.server.fail_next(SUBMIT, 2, &fault);
        let before = rig.server.submissions().len();
        rig.lives_once(&image, code, &format!("{fault:?}")).await;
        assert!(rig.server.submissions().len() >= before + 2, "{fault:?}");
        let shown = rig.introspect("/v1/tasks").await;
        assert_eq!(shown["Tasks"].as_array().unwrap().len(), code as usize, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ecs_tasks_go_on_and_introspection_answers() {
    let Some(rig) = Rig::start("without ECS", Plan::default()).await else { return };
    let image = rig.image();
    let arn = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    // Nothing works any more: the connection is cut and cannot be made again.
    rig.server.fail_next("*", 1000, &Fault::Drop);
    rig.server.fail_next("acs", 1000, &Fault::Page(503));
    rig.server.drop_sockets();
    let metadata = rig.introspect("/v1/metadata").await;
    assert_eq!(metadata["Cluster"], rig.cluster.name.as_str());
    let name = rig.containers().remove(0);
    docker(&["stop", "--time", "5", &name]);
    let shown = until("introspection to show the end", super::rig::LIMIT, async || {
        let shown = rig.introspect(&format!("/v1/tasks?taskarn={arn}")).await;
        (shown["KnownStatus"] == "STOPPED").then_some(shown)
    })
    .await;
    assert_eq!(shown["Containers"][0]["Name"], "main");
    assert_eq!(rig.statuses(&arn), WHOLE_LIFE[..2], "it has not been reported yet");
    rig.server.clear_faults();
    rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(rig.statuses(&arn), WHOLE_LIFE);
    rig.registered().await;
    rig.lives_once(&image, 3, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_asked_for_until_there_is_an_answer() {
    let Some(mut rig) = Rig::without_agent("no endpoint", Plan::default()).await else { return };
    for fault in [Fault::Empty, Fault::AccessDenied, Fault::Page(200), Fault::Malformed, Fault::Drop] {
        rig.server.fail_next("DiscoverPollEndpoint", 1, &fault);
    }
    rig.start_agent();
    rig.registered().await;
    assert_eq!(rig.introspect("/v1/metadata").await["Cluster"], rig.cluster.name.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_hours_off_is_corrected_by_what_aws_says() {
    let Some(mut rig) = Rig::without_agent("wrong clock", Plan::default()).await else { return };
    let image = rig.image();
    rig.server.set_clock_ahead(5 * 3600);
    rig.start_agent();
    rig.registered().await;
    rig.lives_once(&image, 1, "five hours behind").await;
    // Both clocks are set right; then AWS is behind, and the connection is made again under that time.
    for (code, ahead) in [(2, 0), (3, -7200)] {
        rig.server.set_clock_ahead(ahead);
        let connects = |state: &State| state.records().filter(|r| r.source == Source::AcsConnect).count();
        let before = rig.server.read(connects);
        rig.server.drop_sockets();
        rig.wait("a new connection", |state| (connects(state) > before).then_some(())).await;
        rig.lives_once(&image, code, &format!("AWS is {ahead} s ahead")).await;
    }
    assert!(rig.log().contains("signed with the time of AWS"), "{}", rig.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_or_is_gone_is_outlived() {
    const MARKER: &str = "hunter2-of-the-proxy";
    let Some(mut rig) = Rig::without_agent("refusing proxy", Plan::default()).await else { return };
    let proxy = HttpProxy::start().await;
    let port = rig.server.url().rsplit(':').next().unwrap().to_owned();
    for (name, value) in [
        ("HTTP_PROXY", proxy.url(MARKER)),
        ("ECS_BACKEND_HOST", format!("http://{NAME}:{port}")),
        ("NO_PROXY", String::new()),
    ] {
        rig.environment.push((name.to_owned(), value));
    }
    // During the start, the agent exits and must be started again.
    for answer in [LOGIN, ""] {
        proxy.refuse_with(Some(answer));
        rig.start_agent();
        assert_eq!(rig.ended().code(), Some(1), "{}", rig.log());
    }
    proxy.refuse_with(None);
    rig.start_agent();
    rig.registered().await;
    // The proxy replaces 127.0.0.1 with its own name in all traffic.
    let image = rig.image().replace("127.0.0.1", "localhost");
    rig.lives_once(&image, 1, "through the proxy").await;
    // After the start, reports wait.
    let arn = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    let container = rig.task(&arn, TaskStatus::Running).await.container("main").unwrap().runtime_id.clone().unwrap();
    for answer in [LOGIN, ""] {
        proxy.refuse_with(Some(answer));
        let before = proxy.seen().len();
        rig.server.drop_sockets();
        until("refused connections", super::rig::LIMIT, async || (proxy.seen().len() > before + 1).then_some(())).await;
        rig.introspect("/v1/metadata").await;
    }
    docker(&["stop", "--time", "5", &container]);
    proxy.refuse_with(None);
    rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(rig.statuses(&arn), WHOLE_LIFE);
    assert!(!rig.log().contains(MARKER), "the proxy's password is not logged");
    Image::remove_locally(&image);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_announced_end_of_a_spot_instance_drains_it() {
    let plan = Plan { environment: &[("ECS_ENABLE_SPOT_INSTANCE_DRAINING", "true")], ..Plan::default() };
    let Some(rig) = Rig::start("spot", plan).await else { return };
    let status = |state: &State| state.instances()[0].status;
    rig.server.set_metadata("spot/instance-action", Some("<html>Sign in</html>"));
    let looks = |state: &State| state.records().filter(|r| r.name == "meta-data/spot/instance-action").count();
    let before = rig.server.read(looks);
    rig.wait("two more looks", |state| (looks(state) >= before + 2).then_some(())).await;
    assert_eq!(rig.server.read(status), InstanceStatus::Active, "that was no notice");
    rig.server.fail_next("UpdateContainerInstancesState", 2, &Fault::AccessDenied);
    rig.server.set_metadata("spot/instance-action", Some(r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#));
    rig.wait("the instance to drain", |state| (status(state) == InstanceStatus::Draining).then_some(())).await;
}

const REBALANCE: &str = "events/recommendations/rebalance";

/// It is logged, counted and mentioned once, and drains only if the operator wants that.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_recommendation_drains_only_on_request() {
    let Some(mut rig) = Rig::without_agent("rebalance", Plan::default()).await else { return };
    let status = |state: &State| state.instances()[0].status;
    let looks = |state: &State| state.records().filter(|r| r.name == format!("meta-data/{REBALANCE}")).count();
    let life_cycle = |state: &State| state.records().any(|r| r.name == "meta-data/instance-life-cycle");
    // Only a Spot instance is asked about.
    rig.start_agent();
    rig.registered().await;
    rig.wait("the life cycle to be asked", |state| life_cycle(state).then_some(())).await;
    assert!(rig.terminate().success());
    assert_eq!(rig.server.read(looks), 0);

    rig.server.set_metadata("instance-life-cycle", Some("spot"));
    rig.server.set_metadata(REBALANCE, Some("<html>Sign in</html>"));
    rig.start_agent();
    rig.registered().await;
    rig.wait("a look", |state| (looks(state) >= 1).then_some(())).await;
    rig.server.set_metadata(REBALANCE, Some(r#"{"noticeTime": "2026-10-27T08:22:00Z"}"#));
    let line = "EC2 recommends to replace this Spot instance";
    until("a line of the log", super::rig::LIMIT, async || rig.log().contains(line).then_some(())).await;
    let before = rig.server.read(looks);
    rig.wait("one more look", |state| (looks(state) > before).then_some(())).await;
    let log = rig.log();
    let lines: Vec<&str> = log.lines().filter(|each| each.contains(line)).collect();
    assert!(lines.len() == 1 && lines[0].contains("count=1"), "{lines:?}");
    let health = rig.ask("/health").await;
    let mentioned = health["Checks"].as_array().unwrap().iter().find(|check| check["Name"] == "Spot instance").unwrap();
    assert_eq!((&mentioned["Healthy"], &health["Healthy"]), (&json!(false), &json!(true)), "{health}");
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(0) && text.contains("Spot instance: EC2 has recommended to replace it"), "{code:?} {text}");
    assert_eq!(rig.server.read(status), InstanceStatus::Active, "that is left to Auto Scaling");
    assert!(rig.terminate().success());

    rig.environment.push(("ECS_ENABLE_REBALANCE_DRAINING".to_owned(), "true".to_owned()));
    rig.server.fail_next("UpdateContainerInstancesState", 2, &Fault::AccessDenied);
    rig.start_agent();
    rig.registered().await;
    rig.wait("the instance to drain", |state| (status(state) == InstanceStatus::Draining).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_the_ec2_instance_are_those_of_the_container_instance() {
    let mut environment = vec![("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", "ec2_instance")];
    environment.push(("ECS_CONTAINER_INSTANCE_TAGS", r#"{"team": "blue", "own": "1"}"#));
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("EC2 tags", plan).await else { return };
    rig.environment.push(("AWS_ENDPOINT_URL_EC2".to_owned(), rig.server.url()));
    rig.server.set_instance_tags(&[("team", "red"), ("Name", "b + é"), ("aws:autoscaling:groupName", "x")]);
    rig.server.fail_next("DescribeTags", 1, &Fault::AccessDenied);
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(1), "{}", rig.log());
    assert!(rig.log().contains("UnauthorizedOperation"), "{}", rig.log());
    rig.server.fail_next("DescribeTags", 2, &Fault::Throttle);
    rig.start_agent();
    rig.registered().await;
    let call = rig.server.read(|state| {
        let register = |r: &&ecs_local::Record| r.source == Source::Api && r.name == "RegisterContainerInstance";
        state.records().rfind(register).unwrap().body["tags"].clone()
    });
    let expected = [("Name", "b + é"), ("own", "1"), ("team", "blue")];
    assert_eq!(call, json!(expected.map(|(key, value)| json!({"key": key, "value": value}))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_in_a_warm_pool_registers_when_in_service() {
    let plan = Plan { environment: &[("ECS_WARM_POOLS_CHECK", "true")], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("warm pool", plan).await else { return };
    let target = "autoscaling/target-lifecycle-state";
    rig.server.set_metadata(target, Some("Warmed:Stopped"));
    rig.start_agent();
    until("it to wait", super::rig::LIMIT, async || rig.log().contains("Warmed:Stopped").then_some(())).await;
    assert_eq!(rig.server.read(|state| state.instances().len()), 0);
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(0) && text.contains("in a warm pool: waits for service"), "{code:?} {text}");
    let refused = std::net::TcpStream::connect("127.0.0.1:51678").expect_err("it is not registered").kind();
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    rig.kill();
    rig.server.set_metadata(target, Some("InService"));
    rig.start_agent();
    rig.registered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_the_place_of_the_metadata_does_not_cost_the_state() {
    let keys = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "the token")];
    let options = |options: &mut ecs_local::Options, _: &_| options.token = Some("the token".into());
    let plan = Plan { environment: &keys, options: Some(options), ..Plan::default() };
    let Some(mut rig) = Rig::start("page for metadata", plan).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    assert!(rig.terminate().success());
    // The agent asks for the token, the id and the zone five times each.
    rig.server.fail_next("imds", 11, &Fault::Page(200));
    rig.start_agent();
    rig.registered().await;
    let shown = rig.introspect(&format!("/v1/tasks?taskarn={arn}")).await;
    assert_eq!(shown["KnownStatus"], "RUNNING");
    assert_eq!(rig.server.read(|state| state.instances().len()), 1, "the same container instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_ten_reports_at_a_time_wait_for_each_other() {
    let Some(rig) = Rig::start("slow ECS", Plan::default()).await else { return };
    let image = rig.image();
    rig.server.fail_next(SUBMIT, 30, &Fault::Slow(Duration::from_millis(300)));
    let tasks: Vec<_> = (0..12).map(|_| rig.server.run_task(&one_container(&image, "exit 4")).unwrap()).collect();
    for arn in &tasks {
        rig.task(arn, TaskStatus::Stopped).await;
        let reported = rig.statuses(arn);
        assert!(reported == WHOLE_LIFE || reported == WHOLE_LIFE[1..], "{reported:?}");
    }
}
