//! Pulls as a whole: behaviours, one pull for many tasks, failing registries, and the progress that is shown meanwhile.
//!
//! In tests with a proxy in front of the registry, Docker must reach this process. Their names contain `on_the_hosts_network`.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use ecs_local::{Task, TaskStatus};
use ecs_testing::docker::{Image, docker, has_containerd_store};
use ecs_testing::docker_proxy::DockerProxy;
use ecs_testing::registry::Registry;
use ecs_testing::registry_front::{Fault, RegistryFront};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::time::Duration;

/// Exit code and reason of a task's only container.
fn end(task: &Task) -> (Option<i64>, String) {
    let container = &task.containers[0];
    (container.exit_code, container.reason.clone().unwrap_or_default())
}

async fn stopped(rig: &Rig, arn: &str) -> (Option<i64>, String) {
    end(&rig.task(arn, TaskStatus::Stopped).await)
}

fn run(rig: &Rig, image: &str, command: &str) -> String {
    rig.server.run_task(&one_container(image, command)).unwrap()
}

/// Waits until the agent shows that the task waits for something that `probe` accepts.
async fn waits<T>(rig: &Rig, arn: &str, what: &str, mut probe: impl FnMut(&Value) -> Option<T>) -> T {
    until(what, LIMIT, async || {
        let shown = rig.introspect("/v1/debug/tasks").await;
        let task = shown["Tasks"].as_array()?.iter().find(|task| task["Arn"] == arn)?;
        task["Waits"].as_array()?.iter().find_map(&mut probe)
    })
    .await
}

/// The number of requests to Docker that fetch `image` or look it up.
fn asked(proxy: &DockerProxy, image: &str) -> usize {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    let is_pull = |line: &&String| line.contains("/images/create?") || line.contains("/distribution/");
    proxy.seen().iter().filter(is_pull).filter(|line| line.contains(name)).count()
}

/// One row: the behaviour, and the outcome for an image that is not on this host and for one that is, with the registry up and
/// down.
type Row = (&'static str, [Fate; 4]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The image is pulled from the registry, and the container runs.
    Pulled,
    /// No registry is asked. The container runs with the image on this host.
    Unasked,
    /// The pull fails. The container runs with the image on this host, and no failure is reported.
    RunsAnyway,
    /// The task stops with the registry's reason.
    Refused,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pull_behaviour_with_and_without_image_and_registry() {
    use Fate::{Pulled, Refused, RunsAnyway, Unasked};
    const TABLE: [Row; 4] = [
        ("default", [Pulled, Pulled, Refused, RunsAnyway]),
        ("always", [Pulled, Pulled, Refused, Refused]),
        // An image that was here before the agent is pulled once, too.
        ("once", [Pulled, Pulled, Refused, Refused]),
        ("prefer-cached", [Pulled, Unasked, Refused, Unasked]),
    ];
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    // The look-up of the digest makes nine attempts in any case; the pull after it has a short limit.
    let environment = [("DOCKER_HOST", endpoint.as_str()), ("ECS_IMAGE_PULL_TIMEOUT", "3s")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("behaviours", plan).await else { return };
    let mut away = Registry::start(&[]);
    let push = |registry: &Registry, case: &str| {
        TABLE.map(|(behaviour, _)| registry.push_busybox(&format!("test/{behaviour}-{case}"), &[]))
    };
    let images =
        [push(&rig.registry, "new"), push(&rig.registry, "here"), push(&away, "new-away"), push(&away, "here-away")];
    for image in images[1].iter().chain(&images[3]) {
        docker(&["pull", "-q", image]);
    }
    away.stop();
    for (row, (behaviour, fates)) in TABLE.into_iter().enumerate() {
        rig.environment.push(("ECS_IMAGE_PULL_BEHAVIOR".to_owned(), behaviour.to_owned()));
        rig.start_agent();
        rig.registered().await;
        let arns = [0, 1, 2, 3].map(|case| run(&rig, &images[case][row], "exit 7"));
        for (case, (arn, fate)) in arns.iter().zip(fates).enumerate() {
            let (code, reason) = stopped(&rig, arn).await;
            let image = &images[case][row];
            let what = format!("{image} {fate:?}: {code:?} {reason}");
            assert_eq!(code, (fate != Refused).then_some(7), "{what}");
            let refusal = reason.starts_with("CannotPullImageManifestError: Error response from daemon: Get \"http://")
                && reason.ends_with("connect: connection refused");
            assert!(if fate == Refused { refusal } else { reason.is_empty() }, "{what}");
            assert_eq!(asked(&proxy, image) > 0, fate != Unasked, "{what}");
            let reports = rig.reports(arn);
            assert_eq!(json!(reports).to_string().contains("CannotPull"), fate == Refused, "{reports:#?}");
            // The digest is the registry's, or that of the image on this host; the latter is not reported before the container
            // runs.
            let has_digest = reports.last().unwrap()["containers"][0]["imageDigest"].is_string();
            assert_eq!(has_digest, fate != Refused, "{what}: {reports:#?}");
            assert!(fate != RunsAnyway || rig.statuses(arn) == ["RUNNING", "STOPPED"], "{reports:#?}");
            let has_times = reports.last().unwrap()["pullStartedAt"].is_number();
            assert!(fate == Refused || has_times == (fate != Unasked), "{what}: {reports:#?}");
        }
        if behaviour == "once" {
            remembered_after_a_restart(&mut rig, &proxy, [&images[0][row], &images[1][row]]).await;
        }
        assert!(rig.terminate().success());
    }
    images.iter().flatten().for_each(|image| Image::remove_locally(image));
}

async fn remembered_after_a_restart(rig: &mut Rig, proxy: &DockerProxy, images: [&String; 2]) {
    let before = images.map(|image| asked(proxy, image));
    rig.kill();
    rig.start_agent();
    rig.registered().await;
    for (image, before) in images.into_iter().zip(before) {
        let arn = run(rig, image, "exit 7");
        assert_eq!(stopped(rig, &arn).await, (Some(7), String::new()));
        assert_eq!(asked(proxy, image), before, "{image} was pulled once");
        assert!(rig.reports(&arn).iter().all(|report| report["pullStartedAt"].is_null()), "nothing was pulled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_tasks_pull_their_image_once_on_the_hosts_network() {
    const TASKS: usize = 20;
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let plan = Plan { environment: &[("DOCKER_HOST", endpoint.as_str())], ..Plan::default() };
    let Some(rig) = Rig::start("one pull", plan).await else { return };
    let front = RegistryFront::start(&rig.registry.host).await;
    let image = front.image(&rig.image());
    front.inject(&["/blobs/"], usize::MAX, Fault::Hang);
    if has_containerd_store() {
        // This store pushes an OCI manifest, for which Docker does not look at the configuration. The pull is by digest.
        front.inject(&["/manifests/latest "], usize::MAX, Fault::Hang);
    }
    let mut small = one_container(&image, "exit 0");
    small["containerDefinitions"][0]["memory"] = json!(20);
    let arns: Vec<String> = (0..TASKS).map(|_| rig.server.run_task(&small).unwrap()).collect();
    // Otherwise Docker looks at the image's configuration for the digest.
    for (step, attempts) in [("digest", 9), ("pull", 5)] {
        for arn in &arns {
            let pull = waits(&rig, arn, step, |wait| {
                (wait["For"] == step && wait["Pull"]["Attempt"] == 1).then(|| wait["Pull"].clone())
            });
            let pull = pull.await;
            assert_eq!(pull["Attempts"], attempts, "{pull}");
        }
        if step == "digest" {
            front.release();
        }
    }
    let calls = |what: &str| proxy.seen().iter().filter(|line| line.contains(what)).count();
    assert_eq!((calls("/distribution/"), calls("/images/create?")), (1, 1));
    // The pull continues without the task that asked first.
    rig.server.stop_task(&arns[0], "enough").unwrap();
    assert_eq!(stopped(&rig, &arns[0]).await.0, None);
    front.clear();
    for arn in &arns[1..] {
        assert_eq!(stopped(&rig, arn).await, (Some(0), String::new()));
        let last = rig.reports(arn).pop().unwrap();
        let times = [&last["pullStartedAt"], &last["pullStoppedAt"]].map(|time| time.as_f64().unwrap());
        assert!(times[0] < times[1], "{last}");
    }
    assert_eq!((calls("/distribution/"), calls("/images/create?")), (1, 1), "and nobody asked again");
    Image::remove_locally(&image);
}

/// While a pull waits, the agent shows the failure.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_failures_of_registries_are_outlived() {
    let Some(rig) = Rig::start("trouble", Plan::default()).await else { return };
    let front = RegistryFront::start(&rig.registry.host).await;
    let [limited, cut, garbage] =
        ["limited", "cut", "garbage"].map(|name| front.image(&rig.registry.push_busybox(&format!("test/{name}"), &[])));
    // The containerd image store shows the progress of each MiB.
    let slow = front.image(&rig.registry.push_larger("test/slow", 6 << 20));
    let unknown = format!("{}/test/unknown:1", front.host);
    let message = "retry-after: 4s, allowed: 44000/minute";
    let limit = Fault::Refuse("429 Too Many Requests", "TOOMANYREQUESTS", message.to_owned());
    front.inject(&["GET ", "/limited/manifests/"], 1, limit);
    front.inject(&["/cut/blobs/"], 1, Fault::Cut(400));
    front.inject(&["/slow/blobs/"], usize::MAX, Fault::Slow(64 * 1024, Duration::from_millis(40)));
    front.inject(&["/garbage/manifests/"], usize::MAX, Fault::Garbage("{\"schemaVersion\":"));
    let ends = [&limited, &cut, &slow, &garbage, &unknown].map(|image| run(&rig, image, "exit 3"));
    let twin = run(&rig, &limited, "exit 3");

    let limit_shown = |wait: &Value| {
        let is_limited = wait["Pull"]["Phase"] == "rate-limited" && wait["Pull"]["LimitEndsInSeconds"].as_u64()? <= 4;
        is_limited.then(|| wait["Text"].as_str().unwrap_or_default().to_owned())
    };
    let text = waits(&rig, &ends[0], "the end of the limit", limit_shown).await;
    assert!(text.contains("toomanyrequests") && text.contains("the registry's limit ends in"), "{text}");
    let moving = |wait: &Value| {
        let percent = wait["Pull"]["Percent"].as_u64().filter(|percent| (1..100).contains(percent))?;
        (wait["Pull"]["Bytes"].as_u64()? > 0).then_some(percent)
    };
    let first = waits(&rig, &ends[2], "progress", moving).await;
    waits(&rig, &ends[2], "more progress", |wait| moving(wait).filter(|percent| *percent > first)).await;
    let last_failure = |wait: &Value| {
        let text = wait["Pull"]["LastFailure"].as_str()?.to_owned();
        text.contains("manifest unknown").then_some(text)
    };
    waits(&rig, &ends[4], "the reason while it waits", last_failure).await;
    signal_and_find(&rig, "waits_for").await;

    for arn in &ends[..3] {
        assert_eq!(stopped(&rig, arn).await, (Some(3), String::new()));
    }
    for arn in &ends[3..] {
        let (code, reason) = stopped(&rig, arn).await;
        assert!(code.is_none() && reason.starts_with("CannotPullImageManifestError: "), "{reason}");
    }
    let tasks = rig.introspect("/v1/tasks").await;
    assert!(!tasks.to_string().contains("Pull"), "what the Go agent shows stays as it is: {tasks}");
    let log = rig.log();
    let logged = |text: &str| log.lines().filter(|line| line.contains(&limited) && line.contains(text)).count();
    assert_eq!((logged("the registry limits the rate of requests"), logged("a pull failed")), (1, 0));
    // The registry's edge knows no tasks; its lines name those that wait.
    let ids = [&ends[0], &twin].map(|arn| arn.rsplit('/').next().unwrap());
    let named = format!("task=\"{}, {}\" container=main", ids[0], ids[1]);
    assert!(logged(&named) > 0, "{named}\n{log}");
    [&limited, &cut, &slow].iter().for_each(|image| Image::remove_locally(image));
}

/// The next start pulls again, so the end of the agent does not use up its grace period for a pull.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_stop_waits_for_no_pull() {
    let Some(mut rig) = Rig::start("stop in a pull", Plan::default()).await else { return };
    let front = RegistryFront::start(&rig.registry.host).await;
    let slow = front.image(&rig.registry.push_larger("test/slow-stop", 6 << 20));
    front.inject(&["/slow-stop/blobs/"], usize::MAX, Fault::Slow(256 * 1024, Duration::from_millis(500)));
    let arn = run(&rig, &slow, "exit 3");
    waits(&rig, &arn, "the pull", |wait| (wait["Pull"]["Bytes"].as_u64()? > 0).then_some(())).await;
    let began = std::time::Instant::now();
    assert!(rig.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?} of 5 s of grace", began.elapsed());
    rig.start_agent();
    assert_eq!(stopped(&rig, &arn).await, (Some(3), String::new()));
    Image::remove_locally(&slow);
}

/// Sends SIGUSR1, which writes what tasks wait for to the log.
async fn signal_and_find(rig: &Rig, text: &str) {
    let signalled = std::process::Command::new("kill").args(["-USR1", &rig.pid().to_string()]).status().unwrap();
    assert!(signalled.success());
    until("the log to say what is waited for", LIMIT, async || rig.log().contains(text).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_rate_limit_spares_local_images() {
    let Some(rig) = Rig::start("cached limit", Plan::default()).await else { return };
    let front = RegistryFront::start(&rig.registry.host).await;
    let image = front.image(&rig.image());
    docker(&["pull", "-q", &image]);
    let limit = Fault::Refuse("429 Too Many Requests", "TOOMANYREQUESTS", "retry-after: 1h".to_owned());
    front.inject(&["/manifests/"], usize::MAX, limit);
    let arn = run(&rig, &image, "exit 3");
    assert_eq!(stopped(&rig, &arn).await, (Some(3), String::new()));
    Image::remove_locally(&image);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_containers_that_wait_are_pulled_upfront() {
    let plan = Plan { environment: &[("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", "true")], ..Plan::default() };
    let Some(rig) = Rig::start("upfront", plan).await else { return };
    let mut away = Registry::start(&[]);
    let (image, later, cached) =
        (rig.image(), rig.registry.push_busybox("test/later", &[]), away.push_busybox("x", &[]));
    docker(&["pull", "-q", &cached]);
    away.stop();
    let missing = format!("{}/no/such:1", rig.registry.host);
    let after = |image: &str, command: &str| {
        let mut dependent = shell("dependent", image, command);
        dependent["dependsOn"] = json!([{"containerName": "main", "condition": "START"}]);
        dependent
    };
    let pair = |command: &str, dependent: Value| {
        let definition =
            json!({"family": "upfront", "containerDefinitions": [shell("main", &image, command), dependent]});
        rig.server.run_task(&definition).unwrap()
    };
    let mut ordered = after(&later, "exit 0");
    ordered["dependsOn"][0]["condition"] = json!("COMPLETE");
    let mut patient = shell("main", &image, FOREVER);
    patient["essential"] = json!(false);
    let definition = json!({"family": "upfront", "containerDefinitions": [patient, ordered]});
    let waiting = rig.server.run_task(&definition).unwrap();
    until("the dependent's image", LIMIT, async || {
        let listed = docker(&["images", "-q", &later]);
        (!listed.is_empty()).then_some(())
    })
    .await;
    let held = waits(&rig, &waiting, "its container", |wait| {
        (wait["Container"] == "dependent" && wait["For"] == "containers").then(|| wait["Containers"].clone())
    })
    .await;
    assert_eq!(held, json!(["main"]), "only the pull went ahead");
    rig.server.stop_task(&waiting, "enough").unwrap();

    let (served, nowhere) = (pair(FOREVER, after(&cached, "exit 4")), pair(FOREVER, after(&missing, "exit 4")));
    let task = rig.task(&served, TaskStatus::Stopped).await;
    assert_eq!((task.containers[1].exit_code, &task.containers[1].reason), (Some(4), &None), "{task:?}");
    let reports = rig.reports(&served);
    assert!(!json!(reports).to_string().contains("CannotPull"), "it ran, so its pull is not reported: {reports:#?}");
    let task = rig.task(&nowhere, TaskStatus::Stopped).await;
    let reason = task.containers[1].reason.clone().unwrap_or_default();
    let why = if has_containerd_store() { "not found" } else { "manifest unknown" };
    assert!(reason.starts_with("CannotPull") && reason.contains(why), "{task:?}");
    rig.task(&waiting, TaskStatus::Stopped).await;
    [&image, &later, &cached].iter().for_each(|image| Image::remove_locally(image));
}
