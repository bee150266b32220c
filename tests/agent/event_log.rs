//! Docker's own record of the events of a cluster's containers, and the laws that the reports to ECS must obey, compared with
//! it.

use super::rig::{LIMIT, Rig};
use ecs_local::Task;
use ecs_testing::wait::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// One event of a container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerEvent {
    pub(crate) task: String,
    pub(crate) container: String,
    pub(crate) action: String,
    pub(crate) exit_code: Option<i64>,
    /// Seconds since the epoch.
    pub(crate) at: f64,
}

/// Docker's event stream, recorded independently of the agent and of any proxy.
#[derive(Debug)]
pub(crate) struct EventLog {
    recorder: Child,
    path: PathBuf,
}

/// How far the times of Docker and of the control plane may differ, in seconds. Both use this host's clock, but the control
/// plane's times are in whole milliseconds.
const CLOCK_STEP: f64 = 0.002;

impl EventLog {
    /// Begins to record; call it before the first task.
    pub(crate) fn begin(rig: &Rig) -> Self {
        let path = rig.directory.path().join("docker-events");
        let label = format!("label=com.amazonaws.ecs.cluster={}", rig.cluster.name);
        let mut command = Command::new("docker");
        command.args(["events", "--since", "1s", "--format", "{{json .}}", "--filter", &label]);
        for action in ["create", "start", "die", "destroy"] {
            command.args(["--filter", &format!("event={action}")]);
        }
        let recorder = command.stdout(File::create(&path).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        Self { recorder, path }
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Vec<ContainerEvent> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        // The last line may be incomplete.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter_map(|event| container_event(&event))
            .collect()
    }

    /// Waits until every container that was created has been removed, and returns all events.
    pub(crate) async fn all_removed(&self) -> Vec<ContainerEvent> {
        let count =
            |events: &[ContainerEvent], action: &str| events.iter().filter(|event| event.action == action).count();
        until("the last container to go", LIMIT, async || {
            let events = self.events();
            (count(&events, "create") == count(&events, "destroy")).then_some(events)
        })
        .await
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        let _ = self.recorder.kill();
        let _ = self.recorder.wait();
    }
}

fn container_event(event: &Value) -> Option<ContainerEvent> {
    let attribute = |name: &str| event["Actor"]["Attributes"][name].as_str();
    Some(ContainerEvent {
        task: attribute("com.amazonaws.ecs.task-arn")?.to_owned(),
        container: attribute("com.amazonaws.ecs.container-name")?.to_owned(),
        action: event["Action"].as_str()?.to_owned(),
        exit_code: attribute("exitCode").and_then(|code| code.parse().ok()),
        at: event["timeNano"].as_f64()? / 1e9,
    })
}

/// The agent's reports about tasks, collected before the control plane's log forgets them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    last: u64,
    /// Reports by the ARN of the task: the time in seconds since the epoch, and the status.
    by_task: BTreeMap<String, Vec<(f64, String)>>,
}

impl Reports {
    /// Takes the reports that arrived since the last call.
    pub(crate) fn collect(&mut self, rig: &Rig) {
        let last = self.last;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let more: Vec<_> = rig.server.read(|state| {
            let new = state.submissions().filter(|record| record.number > last);
            new.map(|r| (r.number, r.at, text(&r.body["task"]), text(&r.body["status"]))).collect()
        });
        for (number, at, task, status) in more {
            self.last = number;
            self.by_task.entry(task).or_default().push((at, status));
        }
    }
}

/// Checks the laws for one task that has ended. `codes`: exit codes of containers that ended by themselves.
pub(crate) fn check_task(task: &Task, events: &[ContainerEvent], reports: &Reports, codes: &[(&str, i64)]) {
    let own: Vec<&ContainerEvent> = events.iter().filter(|event| event.task == task.arn).collect();
    let empty = Vec::new();
    let reported = reports.by_task.get(&task.arn).unwrap_or(&empty);
    let details = || format!("{:#?}\nreported {reported:#?}\nevents {own:#?}", task.containers);

    // Each status is reported once, in order. A report whose answer was lost with the agent is repeated, never out of order.
    let mut order: Vec<&str> = reported.iter().map(|(_, status)| status.as_str()).collect();
    order.dedup();
    let rank = |status: &str| ["PENDING", "RUNNING", "STOPPED"].iter().position(|known| *known == status);
    assert!(order.is_sorted_by(|a, b| rank(a) < rank(b)), "out of order: {}", details());
    assert_eq!(order.last(), Some(&"STOPPED"), "{}", details());

    let reported_at = |status: &str| reported.iter().find(|(_, known)| known == status).map(|(at, _)| *at);
    for container in &task.containers {
        let find = |action: &str| -> Vec<&&ContainerEvent> {
            own.iter().filter(|event| event.container == container.name && event.action == action).collect()
        };
        let (created, started, died) = (find("create"), find("start"), find("die"));
        assert!(created.len() <= 1 && started.len() <= 1 && died.len() <= 1, "doubled: {}", details());
        assert_eq!(started.len(), died.len(), "still there: {}", details());
        let code = died.first().and_then(|event| event.exit_code);
        assert_eq!(container.exit_code, code, "exit code of {}: {}", container.name, details());
        if let (Some(death), Some(reported)) = (died.first(), reported_at("STOPPED")) {
            assert!(death.at <= reported + CLOCK_STEP, "STOPPED before it stopped: {}", details());
        }
        // A container that is not essential may never have started: the task was stopped in between, and runs until the others
        // have ended.
        if let (Some(start), Some(reported)) = (started.first(), reported_at("RUNNING")) {
            assert!(start.at <= reported + CLOCK_STEP, "RUNNING before it ran: {}", details());
        }
    }
    let has_run = own.iter().any(|event| event.action == "start");
    assert!(has_run || reported_at("RUNNING").is_none(), "RUNNING and it never ran: {}", details());
    for (name, wanted) in codes {
        assert_eq!(task.container(name).and_then(|found| found.exit_code), Some(*wanted), "{}", details());
        // Of several containers, the essential one may end before the others have started: then the task never ran as a whole.
        assert!(reported_at("RUNNING").is_some() || task.containers.len() > 1, "it ran: {}", details());
    }
}
