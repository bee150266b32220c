//! Volumes that are mounted in the network of their task.

use super::*;
use crate::model::resource::{ResourceSpec, VolumeScope, VolumeSpec};
use crate::model::{ResourceKind, ResourceRequest};
use std::collections::BTreeMap;

/// A task whose container mounts a volume in the task's network.
fn with_volume() -> TaskSpec {
    let volume = VolumeSpec {
        runtime_name: "v".to_owned(),
        driver: "plugin".to_owned(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        scope: VolumeScope::Task,
        with_role: false,
        in_network: true,
    };
    let kind = ResourceKind::Volume(volume);
    let resources = vec![ResourceSpec { name: "volume_v".to_owned(), needed_by: vec!["web".into()], kind }];
    TaskSpec { resources, ..awsvpc() }
}

/// The task with the volume arrives, and its pause container is started.
fn with_pause(policy: Policy) -> Scene {
    let mut scene = Scene::new(policy);
    scene.feed(run(with_volume()));
    scene.succeed("create pause");
    scene.succeed("start pause");
    scene
}

fn request(scene: &mut Scene) -> (OpId, Box<ResourceRequest>) {
    let (op, operation) = scene.take("create volume");
    let Operation::CreateResource(request) = operation else { panic!("{operation:?}") };
    (op, request)
}

#[test]
fn a_volume_waits_for_the_network_that_it_is_mounted_in() {
    for pull_upfront in [false, true] {
        let mut scene = with_pause(Policy { pull_upfront, ..Policy::default() });
        if pull_upfront {
            scene.succeed("pull");
        }
        assert!(!scene.is_requested("create volume"), "{:?}", scene.log);
        assert_eq!(scene.wait("web"), "its network is being set up (for 0 s)");
        scene.succeed("set up");
        if !pull_upfront {
            scene.succeed("pull");
        }
        assert!(!scene.is_requested("create web"));
        let (op, request) = request(&mut scene);
        assert_eq!(request.pause_pid, 4711);
        scene.feed(done(op, Output::Nothing));
        scene.succeed("create web");
    }
}

#[test]
fn a_task_whose_network_fails_mounts_nothing() {
    let mut scene = with_pause(Policy::default());
    scene.fail("set up", Failure::permanent("ContainerNetworkingError", "no").into());
    scene.succeed("tear down");
    scene.succeed("stop pause");
    assert_eq!(scene.task().known, TaskStatus::Stopped);
    assert!(!scene.log.iter().any(|what| what == "create volume"), "{:?}", scene.log);
}

/// A restart of the agent forgets the process. A list need not name it.
#[test]
fn the_process_is_looked_for_after_a_restart() {
    for pid in [Some(4712), None] {
        let mut scene = with_pause(Policy::default());
        scene.succeed("set up");
        let mut scene = scene.restart(vec![Observation { pid: None, ..running(PAUSE) }]);
        assert!(!scene.is_requested("create volume") && !scene.is_requested("set up"), "{:?}", scene.log);
        let (op, _) = scene.take("inspect pause");
        scene.feed(done(op, Output::Seen(Some(Box::new(Observation { pid, ..running(PAUSE) })))));
        assert!(!scene.is_requested("inspect pause"), "it is not asked again and again");
        assert_eq!(request(&mut scene).1.pause_pid, pid.unwrap_or(0), "the edge refuses 0");
    }
}

#[test]
fn a_pause_that_was_started_again_mounts_nothing() {
    let mut scene = with_pause(Policy::default());
    scene.succeed("set up");
    scene.fail("create volume", Failure::retryable("", "not now").into());
    scene.observe(PAUSE, RunState::Running, "run-2");
    assert_eq!(scene.task().desired, TaskStatus::Stopped, "its network is lost");
    while scene.now < NOW + Span::secs(10) {
        scene.advance();
        assert!(!scene.is_requested("create volume"), "{:?}", scene.log);
    }
}
