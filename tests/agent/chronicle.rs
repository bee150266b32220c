//! What Docker did with a cluster's containers, told by Docker itself, and the laws that what ECS heard must keep beside it.

use super::rig::{LIMIT, Rig};
use super::support::wait::until;
use ecs_agent::local::Task;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// One event of a container.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) task: String,
    pub(crate) container: String,
    pub(crate) action: String,
    pub(crate) exit_code: Option<i64>,
    /// Seconds since the epoch.
    pub(crate) at: f64,
}

/// Docker's event stream, written down past the agent and any proxy.
#[derive(Debug)]
pub(crate) struct Chronicle {
    recorder: Child,
    path: PathBuf,
}

/// Both clocks are this host's; the control plane's has milliseconds.
const CLOCK_STEP: f64 = 0.002;

impl Chronicle {
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

    /// Everything so far.
    pub(crate) fn deeds(&self) -> Vec<Deed> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        // The last line may not be whole yet.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(|event| deed(&event)).collect()
    }

    /// Waits until every container that was created is destroyed, and gives the whole story.
    pub(crate) async fn closed(&self) -> Vec<Deed> {
        let count = |deeds: &[Deed], action: &str| deeds.iter().filter(|deed| deed.action == action).count();
        until("the last container to go", LIMIT, async || {
            let deeds = self.deeds();
            (count(&deeds, "create") == count(&deeds, "destroy")).then_some(deeds)
        })
        .await
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        let _ = self.recorder.kill();
        let _ = self.recorder.wait();
    }
}

fn deed(event: &Value) -> Option<Deed> {
    let attribute = |name: &str| event["Actor"]["Attributes"][name].as_str();
    Some(Deed {
        task: attribute("com.amazonaws.ecs.task-arn")?.to_owned(),
        container: attribute("com.amazonaws.ecs.container-name")?.to_owned(),
        action: event["Action"].as_str()?.to_owned(),
        exit_code: attribute("exitCode").and_then(|code| code.parse().ok()),
        at: event["timeNano"].as_f64()? / 1e9,
    })
}

/// What the agent said of tasks, collected before the control plane's log forgets it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    last: u64,
    /// Task to what was said of it: when, and the status.
    said: BTreeMap<String, Vec<(f64, String)>>,
}

impl Heard {
    /// Takes what came since the last call.
    pub(crate) fn listen(&mut self, rig: &Rig) {
        let last = self.last;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let more: Vec<_> = rig.server.read(|state| {
            let new = state.submissions().filter(|record| record.number > last);
            new.map(|r| (r.number, r.at, text(&r.body["task"]), text(&r.body["status"]))).collect()
        });
        for (number, at, task, status) in more {
            self.last = number;
            self.said.entry(task).or_default().push((at, status));
        }
    }
}

/// The laws for one task that has ended. `codes`: exit codes of containers that ended by themselves.
pub(crate) fn judge(task: &Task, deeds: &[Deed], heard: &Heard, codes: &[(&str, i64)]) {
    let of_task: Vec<&Deed> = deeds.iter().filter(|deed| deed.task == task.arn).collect();
    let empty = Vec::new();
    let said = heard.said.get(&task.arn).unwrap_or(&empty);
    let story = || format!("{:#?}\nsaid {said:#?}\ndone {of_task:#?}", task.containers);

    // Said once, in order. A report whose answer was lost with the agent is said again, never out of order.
    let mut order: Vec<&str> = said.iter().map(|(_, status)| status.as_str()).collect();
    order.dedup();
    let rank = |status: &str| ["PENDING", "RUNNING", "STOPPED"].iter().position(|known| *known == status);
    assert!(order.is_sorted_by(|a, b| rank(a) < rank(b)), "out of order: {}", story());
    assert_eq!(order.last(), Some(&"STOPPED"), "{}", story());

    let told = |status: &str| said.iter().find(|(_, told)| told == status).map(|(at, _)| *at);
    for container in &task.containers {
        let find = |action: &str| -> Vec<&&Deed> {
            of_task.iter().filter(|deed| deed.container == container.name && deed.action == action).collect()
        };
        let (created, started, died) = (find("create"), find("start"), find("die"));
        assert!(created.len() <= 1 && started.len() <= 1 && died.len() <= 1, "doubled: {}", story());
        assert_eq!(started.len(), died.len(), "still there: {}", story());
        let code = died.first().and_then(|deed| deed.exit_code);
        assert_eq!(container.exit_code, code, "exit code of {}: {}", container.name, story());
        if let (Some(death), Some(told)) = (died.first(), told("STOPPED")) {
            assert!(death.at <= told + CLOCK_STEP, "STOPPED before it stopped: {}", story());
        }
        // One that is not essential may never have started: the task was stopped in between, and runs until the others have ended.
        if let (Some(start), Some(told)) = (started.first(), told("RUNNING")) {
            assert!(start.at <= told + CLOCK_STEP, "RUNNING before it ran: {}", story());
        }
    }
    let has_run = of_task.iter().any(|deed| deed.action == "start");
    assert!(has_run || told("RUNNING").is_none(), "RUNNING and it never ran: {}", story());
    for (name, wanted) in codes {
        assert_eq!(task.container(name).and_then(|found| found.exit_code), Some(*wanted), "{}", story());
        // Of several, the essential one may end before the others have started: then the task never ran as a whole.
        assert!(told("RUNNING").is_some() || task.containers.len() > 1, "it ran: {}", story());
    }
}
