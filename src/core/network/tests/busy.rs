//! Operations that are refused because an earlier one has not ended.

use super::*;

/// A step of the kernel takes 13 s: the first set-up gets no answer, and its thread refuses others until it has ended.
#[test]
fn a_set_up_that_is_refused_as_busy_is_no_attempt() {
    let mut scene = Scene::with_pause(Policy::default());
    let unknown = || OpError::Unknown(Failure::permanent("ContainerNetworkingError", "no answer"));
    let busy = || Failure::busy("ContainerNetworkingError", "an earlier change has not ended").into();
    scene.fail("set up", unknown());
    for _ in 0..5 {
        scene.advance();
        scene.fail("set up", busy());
        assert!(!scene.is_requested("set up") && scene.wait("web").contains("the next try"));
    }
    assert_eq!(scene.task().live.network.retry.attempts, 1, "only the first");
    scene.advance();
    scene.succeed("set up");
    assert_eq!((scene.task().network.status, scene.task().desired), (NetworkStatus::Up, TaskStatus::Running));
}

#[test]
fn an_earlier_change_that_never_ends_is_waited_for_a_while() {
    let busy = || Failure::busy("ContainerNetworkingError", "an earlier change has not ended").into();
    let refuse = |scene: &mut Scene, operation: &str| {
        let first = scene.now;
        loop {
            scene.fail(operation, busy());
            if scene.task().live.network.retry.attempts == MAX_TRIES || scene.is_requested("tear down") {
                return scene.now.since(first);
            }
            while !scene.is_requested(operation) {
                scene.advance();
            }
        }
    };
    let mut scene = Scene::with_pause(Policy::default());
    assert_eq!(refuse(&mut scene, "set up"), Span::secs(60));
    let reason = "ContainerNetworkingError: an earlier change has not ended";
    assert_eq!(scene.task().reason.as_deref(), Some(reason));
    assert_eq!(refuse(&mut scene, "tear down"), Span::secs(30));
    scene.succeed("stop pause");
    let holds = |scene: &Scene| scene.task().network.local_address.is_some();
    assert!(holds(&scene), "until nothing is left");
    assert_eq!(refuse(&mut scene, "tear down"), Span::secs(120));
    assert_eq!((scene.task().network.status, holds(&scene)), (NetworkStatus::Over, false));
}
