//! The periodic clean-up of images and containers. The clean-up looks at everything in Docker, so the test has a dockerd of its
//! own.
//!
//! The configuration allows at most one cycle in ten minutes. So the agent runs in this process, with the operator's
//! configuration and a shorter time between two cycles.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_agent::config::{Environment, Role, Sources};
use ecs_agent::runtime::{self, Early, Fatal, Metadata, Options};
use ecs_core::model::Span;
use ecs_local::{Fault, TaskStatus};
use ecs_testing::dockerd::Dockerd;
use ecs_testing::registry::Registry;
use ecs_testing::wait::until;
use serde_json::json;
use std::collections::BTreeSet;
use tokio::task::JoinSet;

/// An agent that ends when it is dropped.
async fn agent(rig: &mut Rig) -> JoinSet<Result<(), Fatal>> {
    rig.expects_another();
    // The previous agent may hold the state file for a moment after its end.
    until("an agent to start", LIMIT, async || {
        let mut agent = JoinSet::new();
        agent.spawn(process(rig));
        tokio::select! {
            () = rig.registered() => Some(agent),
            _ = agent.join_next() => None,
        }
    })
    .await
}

fn process(rig: &Rig) -> impl Future<Output = Result<(), Fatal>> + use<> {
    let sources = Sources::open(Environment::new(rig.environment.iter().cloned()), Role::default());
    let mut config = sources.load(None).config.unwrap();
    config.image_cleanup_interval = Span::secs(1);
    let metadata = Metadata::new(&config, Options::default()).unwrap();
    async move {
        let early = Early::begin(ecs_agent::runtime::logging::LogControl::default());
        {
            let signals = runtime::StopSignals::catch().unwrap();
            runtime::run(config, Options::default(), metadata, early, signals).await
        }
    }
}

fn listed(dockerd: &Dockerd, arguments: &[&str]) -> BTreeSet<String> {
    let listed = dockerd.docker(arguments).expect("the daemon answers");
    listed.lines().map(str::to_owned).collect()
}

/// Names of all images.
fn images(dockerd: &Dockerd) -> BTreeSet<String> {
    listed(dockerd, &["images", "--format", "{{.Repository}}:{{.Tag}}"])
}

/// Images that the agent did not pull are removed only if the operator allows it.
#[tokio::test(flavor = "multi_thread")]
async fn unused_images_are_removed_on_the_hosts_network() {
    let Some(dockerd) = Dockerd::start(false).await else { return };
    let endpoint = dockerd.endpoint();
    let mirror = Registry::start(&[]);
    let environment = [
        ("DOCKER_HOST", endpoint.as_str()),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"),
        ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", "1s"),
        ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", "1s"),
    ];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("image clean-up", plan).await else { return };
    let origin = rig.registry.host.clone();
    let mut set = |name: &str, value: String| rig.environment.push((name.to_owned(), value));
    set("ECS_IMAGE_REGISTRY_MIRRORS", json!({&origin: format!("{}/hub", mirror.host)}).to_string());
    set("ECS_EXCLUDE_UNTRACKED_IMAGE", format!("{}/test/excluded:1,other/excluded:1", mirror.host));
    // There is no mirror for this registry, so its images are pulled from it directly.
    let push = |name: &str| mirror.push_busybox(name, &[]);
    let ended = rig.registry.push_busybox("test/ended:1", &[]);
    let (excluded, runs) = (push("test/excluded:1"), push("test/runs:1"));
    mirror.push_busybox("hub/test/ended:1", &["ENV CODE=7"]);
    let (foreign, busy, spared) = (push("test/foreign:1"), push("test/busy:1"), push("test/spared:1"));
    for image in [&foreign, &busy, &spared] {
        dockerd.docker(&["pull", "-q", image]).expect("it is pulled");
    }
    let (foreign_too, spared_too) = ("other/name:1".to_owned(), "other/excluded:1".to_owned());
    for (image, name) in [(&foreign, &foreign_too), (&spared, &spared_too)] {
        dockerd.docker(&["tag", image, name]).expect("it is tagged");
    }
    let run = |image: &str, command: &str| {
        let arguments = ["run", "-d", "--network=none", image, "sh", "-c", command];
        dockerd.docker(&arguments).expect("it is started")
    };
    let (over, stays) = (run(&foreign, "exit 0"), run(&busy, FOREVER));

    let network_none = |rig: &Rig, image: &str, command: &str| {
        let mut definition = one_container(image, command);
        definition["networkMode"] = json!("none");
        rig.server.run_task(&definition).unwrap()
    };
    let mut process = agent(&mut rig).await;
    for (image, code) in [(&ended, 7), (&excluded, 8)] {
        let task = rig.task(&network_none(&rig, image, "exit ${CODE:-8}"), TaskStatus::Stopped).await;
        assert_eq!(task.containers[0].exit_code, Some(code), "from the mirror, if there is one: {task:?}");
    }
    rig.task(&network_none(&rig, &runs, FOREVER), TaskStatus::Running).await;
    // An image that is being removed is listed without a name for a moment.
    let left = async |wanted: &BTreeSet<String>| {
        let what = format!("nothing but {wanted:?} to be left");
        until(&what, LIMIT, async || (images(&dockerd) == *wanted).then_some(())).await;
    };
    let kept = BTreeSet::from([excluded, runs, busy, spared, spared_too]);
    let others = BTreeSet::from([foreign, foreign_too]);
    // The image of the task that has ended is removed, together with its name at the mirror.
    left(&(&others | &kept)).await;
    process.shutdown().await;

    rig.environment.push(("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP".to_owned(), "true".to_owned()));
    let _process = agent(&mut rig).await;
    left(&kept).await;
    let containers = listed(&dockerd, &["ps", "-aq", "--no-trunc"]);
    assert!(!containers.contains(&over) && containers.contains(&stays), "{containers:?}");
}

/// The lines that operators of the Go agent search for: a task whose end ECS does not know is not cleaned up, and no metrics are sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_that_waits_for_ecs_is_logged() {
    let environment = [("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"), ("ECS_DISABLE_METRICS", "true")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = Rig::start("blocked clean-up", plan).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    assert!(rig.log().contains("msg=\"Metrics disabled on the instance.\""), "{}", rig.log());
    rig.server.fail_next("SubmitTaskStateChange", 1000, &Fault::ServerError);
    rig.server.stop_task(&arn, "enough").unwrap();
    let line = "msg=\"Blocking cleanup until the task has been reported stopped\"";
    until("the line", LIMIT, async || rig.log().contains(line).then_some(())).await;
    assert!(!rig.containers().is_empty(), "the container is kept");
    let id = arn.rsplit('/').next().unwrap();
    assert!(rig.log().lines().any(|text| text.contains(line) && text.contains(&format!("task={id}"))), "{}", rig.log());
    rig.server.clear_faults();
    until("the clean-up", LIMIT, async || rig.containers().is_empty().then_some(())).await;
}
