//! The order in which containers start and stop: dependencies, essential containers, refused orders. Docker's own times prove
//! it.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::{Task, TaskStatus};
use ecs_testing::docker::inspect;
use ecs_testing::wait::until;
use serde_json::{Value, json};

/// A shell container that is not essential.
fn aside(name: &str, image: &str, command: &str) -> Value {
    let mut container = shell(name, image, command);
    container["essential"] = json!(false);
    container
}

fn after(mut container: Value, dependency: &str, condition: &str) -> Value {
    container["dependsOn"] = json!([{"containerName": dependency, "condition": condition}]);
    container
}

fn run(rig: &Rig, containers: &[Value]) -> String {
    rig.server.run_task(&json!({"family": "test", "containerDefinitions": containers})).unwrap()
}

/// A time from `docker inspect` in a form that can be compared as text.
fn moment(inspect: &Value, path: &str) -> String {
    let text = inspect.pointer(path).and_then(Value::as_str).unwrap();
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap();
    format!("{seconds}.{fraction:0<9}")
}

fn container(task: &Task, name: &str) -> Value {
    inspect(task.container(name).unwrap().runtime_id.as_deref().unwrap())
}

const CREATED: &str = "/Created";
const STARTED: &str = "/State/StartedAt";
const FINISHED: &str = "/State/FinishedAt";

#[tokio::test(flavor = "multi_thread")]
async fn a_container_starts_when_its_condition_is_met() {
    let Some(rig) = Rig::start("conditions", Plan::default()).await else { return };
    let image = rig.image();
    let first = |command: &str| aside("first", &image, command);
    let second = |condition: &str| after(shell("second", &image, FOREVER), "first", condition);
    let mut healthy = first(&format!("sleep 2; echo > /shared/healthy; {FOREVER}"));
    healthy["healthCheck"] = json!({"command": ["CMD-SHELL", "test -e /shared/healthy"], "interval": 5, "timeout": 2});
    healthy["healthCheck"]["retries"] = json!(10);
    let looks = after(shell("second", &image, &format!("ls /shared > /shared/seen; {FOREVER}")), "first", "HEALTHY");
    let mount = |mut container: Value| {
        container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
        container
    };
    let shared = rig.shared("shared");
    let health = json!({
        "family": "health", "containerDefinitions": [mount(looks), mount(healthy)],
        "volumes": [{"name": "shared", "host": {"sourcePath": shared}}],
    });
    let start = run(&rig, &[second("START"), first(FOREVER)]);
    let complete = run(&rig, &[second("COMPLETE"), first("sleep 1; exit 3")]);
    let success = run(&rig, &[second("SUCCESS"), first("sleep 1")]);
    let health = rig.server.run_task(&health).unwrap();
    for (arn, first_reached) in [(&start, STARTED), (&complete, FINISHED), (&success, FINISHED), (&health, STARTED)] {
        let task = rig.task(arn, TaskStatus::Running).await;
        let (first, second) = (container(&task, "first"), container(&task, "second"));
        assert!(moment(&first, first_reached) < moment(&second, CREATED), "{first:#} {second:#}");
    }
    let task = rig.task(&health, TaskStatus::Running).await;
    let first = container(&task, "first");
    assert_eq!(first["State"]["Health"]["Status"], "healthy", "the result of the check is visible");
    let seen = until("the second container to look", LIMIT, async || {
        std::fs::read_to_string(shared.join("seen")).ok().filter(|seen| !seen.is_empty())
    });
    assert_eq!(seen.await, "healthy\nseen\n");
    let task = rig.task(&complete, TaskStatus::Running).await;
    assert_eq!(container(&task, "first")["State"]["ExitCode"], 3);
    let first = task.container("first").unwrap();
    assert_eq!((first.last_status, first.exit_code), (TaskStatus::Stopped, Some(3)), "reported with the task");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_stop_in_the_reverse_order() {
    let Some(rig) = Rig::start("stop order", Plan::default()).await else { return };
    let image = rig.image();
    let containers = [
        shell("base", &image, FOREVER),
        after(shell("middle", &image, FOREVER), "base", "START"),
        after(shell("top", &image, FOREVER), "middle", "START"),
    ];
    let arn = run(&rig, &containers);
    rig.task(&arn, TaskStatus::Running).await;
    rig.server.stop_task(&arn, "enough").unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    let [base, middle, top] = ["base", "middle", "top"].map(|name| moment(&container(&task, name), FINISHED));
    assert!(top < middle && middle < base, "top {top}, middle {middle}, base {base}");
    assert!(task.containers.iter().all(|container| container.exit_code == Some(0)), "{task:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_essential_container_ends_the_task_and_no_other_does() {
    let Some(rig) = Rig::start("essential", Plan::default()).await else { return };
    let image = rig.image();
    let ends = run(&rig, &[shell("essential", &image, "sleep 1; exit 5"), aside("other", &image, FOREVER)]);
    let goes_on = run(&rig, &[shell("essential", &image, FOREVER), aside("other", &image, "exit 6")]);
    let task = rig.task(&ends, TaskStatus::Stopped).await;
    assert_eq!(task.container("essential").unwrap().exit_code, Some(5));
    assert_eq!(task.container("other").unwrap().exit_code, Some(0), "it was stopped");
    assert_eq!(task.stop_code.as_deref(), Some("EssentialContainerExited"));

    rig.task(&goes_on, TaskStatus::Running).await;
    rig.server.stop_task(&goes_on, "enough").unwrap();
    let task = rig.task(&goes_on, TaskStatus::Stopped).await;
    assert_eq!(task.container("other").unwrap().exit_code, Some(6));
    assert_eq!(task.container("essential").unwrap().exit_code, Some(0), "it ran until the task was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dependency_ends_the_task_with_the_known_text() {
    let Some(rig) = Rig::start("failed dependency", Plan::default()).await else { return };
    let image = rig.image();
    let containers = [aside("first", &image, "exit 1"), after(shell("second", &image, FOREVER), "first", "SUCCESS")];
    let arn = run(&rig, &containers);
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    let second = task.container("second").unwrap();
    assert_eq!((second.exit_code, second.runtime_id.as_deref()), (Some(143), None));
    let reason = second.reason.as_deref().unwrap();
    let start = "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency ";
    assert!(reason.starts_with(&format!("{start}[first({image}) (STOPPED->RUNNING)")), "{reason}");
    assert!(reason.contains(&format!(" - Exit: 1] for target [second({image}) (")), "{reason}");
    assert!(reason.ends_with("] as dependency did not exit successfully."), "{reason}");
    assert_eq!(task.container("first").unwrap().exit_code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_dependencies_are_refused() {
    let Some(rig) = Rig::start("impossible orders", Plan::default()).await else { return };
    let image = rig.image();
    let cycle = [after(shell("a", &image, "true"), "b", "START"), after(shell("b", &image, "true"), "a", "START")];
    let unhealthy = [shell("a", &image, "true"), after(shell("b", &image, "true"), "a", "HEALTHY")];
    let unknown = [after(shell("a", &image, "true"), "nobody", "START")];
    for containers in [&cycle[..], &unhealthy[..], &unknown[..]] {
        // ECS itself refuses such definitions; the agent must not rely on that.
        let task = json!({"family": "test", "version": "1", "desiredStatus": "RUNNING", "containers": containers});
        let arn = rig.server.send_task(task).unwrap();
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        let expected = format!("Task dependencies cannot be resolved, taskArn: {arn}");
        assert_eq!(task.stopped_reason, Some(expected));
        assert_eq!(rig.statuses(&arn), ["STOPPED"]);
    }
    assert!(rig.containers().is_empty(), "nothing was made for them");
}
