//! Space on the disk: above the limit, a pull waits until images that no task uses have been removed.

use super::rig::{LIMIT, Plan, Rig};
use ecs_testing::docker::Image;
use ecs_testing::wait::until;
use std::process::Command;

fn is_here(image: &str) -> bool {
    Command::new("docker").args(["image", "inspect", image]).output().unwrap().status.success()
}

/// If no image can be removed, the image is pulled all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_onto_a_full_disk_makes_room_first() {
    let environment = [
        ("ECS_IMAGE_DISK_HIGH_PERCENT", "1"),
        ("ECS_DISABLE_IMAGE_CLEANUP", "true"),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"),
    ];
    let Some(mut rig) = Rig::start("disk room", Plan { environment: &environment, ..Plan::default() }).await else {
        return;
    };
    let image = |name: &str| rig.registry.push_busybox(name, &[]);
    let (first, second) = (image("test/first:1"), image("test/second:1"));
    rig.lives_once(&first, 3, "there is nothing to remove").await;
    until("the clean-up of the task", LIMIT, async || rig.containers().is_empty().then_some(())).await;
    assert!(is_here(&first), "it is young, and nothing was pulled since");

    // The agent's record of the image survives a restart. The need for disk space does too: the first pull asks for it again.
    assert!(rig.terminate().success());
    rig.start_agent();
    rig.registered().await;
    rig.lives_once(&second, 4, "room was made for it").await;
    assert!(!is_here(&first) && is_here(&second), "{}", rig.log());
    Image::remove_locally(&second);
}
