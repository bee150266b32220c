//! Mirrors with and without an image, and registries from which an image cannot be pulled: unknown certificate, no listener, no
//! such image.

use super::registries::{PASSWORD, all_output, assert_nowhere, exit_codes, images_gone, reason, run, start_with};
use super::rig::{Plan, Rig, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::{Image, docker};
use ecs_testing::registry::{Registry, bridge_address};
use serde_json::json;

/// The image from the mirror has the name of the task definition.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_the_mirror_or_else_from_its_registry() {
    let Some(mut rig) = Rig::without_agent("mirrors", Plan::default()).await else { return };
    let mirror = Registry::start(&[("me", PASSWORD)]);
    let origin = rig.registry.host.clone();
    let both = rig.registry.push_busybox("test/both:1", &["ENV FROM=origin"]);
    let mirrored = mirror.push_busybox("hub/test/both:1", &["ENV FROM=mirror"]);
    let lacking = rig.registry.push_busybox("test/lacking:1", &["ENV FROM=origin"]);
    [&both, &mirrored, &lacking].into_iter().for_each(|image| Image::remove_locally(image));
    let auth = json!({&mirror.host: {"username": "me", "password": PASSWORD}});
    let lines = format!(
        "ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={auth}\nECS_IMAGE_REGISTRY_MIRRORS={}\n",
        json!({&origin: format!("{}/hub", mirror.host)})
    );
    start_with(&mut rig, &lines).await;
    let from = "case $FROM in mirror) exit 7;; origin) exit 8;; esac";
    let arns = [&both, &lacking].map(|image| rig.server.run_task(&one_container(image, from)).unwrap());
    let task = rig.task(&arns[0], TaskStatus::Stopped).await;
    assert_eq!(exit_codes(&task), [Some(7)], "{task:?}");
    let names = docker(&["image", "inspect", "--format", "{{join .RepoDigests \" \"}}", &both]);
    let at_mirror = format!("{}/hub/test/both@", mirror.host);
    let digest = names.split(' ').find_map(|name| name.strip_prefix(&at_mirror)).unwrap().to_owned();
    let reported = json!(rig.reports(&arns[0])).to_string();
    assert!(reported.contains(&digest), "the mirror's digest {digest} is reported:  {reported}");
    assert_eq!(task.containers[0].image, both, "the task definition is as it was");
    let task = rig.task(&arns[1], TaskStatus::Stopped).await;
    assert_eq!(exit_codes(&task), [Some(8)], "{task:?}");
    let output = all_output(&rig).await;
    assert_eq!(
        output.matches("the mirror failed; the registry itself is used").count(),
        1,
        "not asked for the pull again"
    );
    assert!(output.contains(&format!("source=\"ECS_ENGINE_AUTH_DATA entry {}\"", mirror.host)));
    assert_nowhere(&output, "me", PASSWORD);
    assert!(rig.terminate().success());

    // The image is on this host by now: its digest is found although it is not that of its own registry.
    start_with(&mut rig, &format!("{lines}ECS_IMAGE_PULL_BEHAVIOR=once\n")).await;
    rig.registry.stop();
    let arn = rig.server.run_task(&one_container(&both, from)).unwrap();
    assert_eq!(exit_codes(&rig.task(&arn, TaskStatus::Stopped).await), [Some(7)]);
    assert!(json!(rig.reports(&arn)).to_string().contains(&digest));
    images_gone(&[&both, &mirrored, &lacking]);
}

/// A registry that is not trusted, one that is not there, and one without the image.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_names_a_registry_that_gives_no_image() {
    let plan = Plan { users: &[("me", PASSWORD)], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("registry faults", plan).await else { return };
    // Docker looks at certificates everywhere but on loopback.
    let bridge = bridge_address();
    let (untrusted, mut gone) = (Registry::listening(&bridge, &[], true), Registry::start(&[]));
    gone.stop();
    let auth = json!({&rig.registry.host: {"username": "me", "password": PASSWORD}});
    let lines = format!("ECS_IMAGE_PULL_BEHAVIOR=always\nECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={auth}\n");
    start_with(&mut rig, &lines).await;
    let table = [
        (format!("{}/app:1", untrusted.host), "x509: certificate signed by unknown authority"),
        (format!("{}/app:1", gone.host), "connect: connection refused"),
        (format!("{}/no/such:1", rig.registry.host), "manifest unknown: manifest unknown"),
    ];
    let arns: Vec<_> = table.iter().map(|(image, _)| run(&rig, &[image])).collect();
    for (arn, (image, end)) in arns.iter().zip(&table) {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        let reason = reason(&task);
        let is_right = reason.starts_with("CannotPullImageManifestError: Error response from daemon: ");
        assert!(is_right && reason.ends_with(end), "{image}: {reason}");
        assert_eq!(exit_codes(&task), [None]);
    }
    assert_nowhere(&all_output(&rig).await, "me", PASSWORD);
}
