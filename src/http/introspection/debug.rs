//! `/v1/debug/tasks`: what every task waits for, and where its time went, as data. The Go agent has no such path, and the list of
//! commands does not name it.
//!
//! Owns the JSON shapes. Invariant: like every answer of this server, this one shows no settings and no credentials. The error
//! text of a registry appears in the form in which ECS would receive it.

use super::timing::{Finished, TaskTiming, Timings};
use ecs_core::model::view::View;
use ecs_core::model::waiting::{Blocker, PullProgress, Shortage, Waiting};
use ecs_core::model::{OpId, TaskArn, Timestamp};
use serde::Serialize;
use std::sync::Arc;

/// Looks up the progress of a pull or of a digest look-up by its operation; `None` if no such operation is in progress.
pub type PullLookup = Arc<dyn Fn(OpId) -> Option<PullProgress> + Send + Sync>;

/// The whole answer: `{"Tasks":[…],"Finished":[…]}`
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tasks<'a> {
    tasks: Vec<Task<'a>>,
    /// Tasks that ECS knows to have stopped, the newest first. Those that are not cleaned up are among `tasks` too.
    finished: Vec<Finished<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Task<'a> {
    arn: &'a TaskArn,
    desired_status: String,
    known_status: String,
    waits: Vec<Wait<'a>>,
    /// When the task and its containers got how far.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<&'a TaskTiming>,
}

/// One wait of a task or of one of its containers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wait<'a> {
    /// The name of the container that waits; left out if the whole task waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    /// The kind of the blocker, see [`Blocker::kind`].
    r#for: &'static str,
    /// The wait in words.
    text: String,
    /// Seconds since [`Waiting::since`].
    age_seconds: u64,
    /// The image that must be pulled, looked up or removed first.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    /// The names of the containers that the container waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<&'a str>,
    /// Seconds until the wait for other containers or for an interface is given up; `None` if it has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    gives_up_in_seconds: Option<u64>,
    /// The resource of the task that must be created first.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    /// The resources that the host has too little of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lacks: Vec<Lack<'a>>,
    /// Seconds until the next try after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_in_seconds: Option<u64>,
    /// The progress of the pull or digest look-up, if one is in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pull: Option<Pull>,
}

/// A resource of the host of which a task needs more than is free.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Lack<'a> {
    what: &'static str,
    wanted: &'a str,
    free: &'a str,
    held_by: &'a [TaskArn],
}

impl<'a> Lack<'a> {
    fn new(shortage: &'a Shortage) -> Self {
        Self { what: shortage.what, wanted: &shortage.wanted, free: &shortage.free, held_by: &shortage.held_by }
    }
}

/// The progress of a pull, with the members of [`PullProgress`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pull {
    phase: &'static str,
    age_seconds: u64,
    attempt: u32,
    attempts: u32,
    layers: u32,
    layers_done: u32,
    bytes: u64,
    bytes_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u64>,
    /// Seconds since the engine last reported progress; `None` before the first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_in_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_ends_in_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
}

impl<'a> Tasks<'a> {
    pub(super) fn new(view: &'a View, pulls: &PullLookup, times: &'a Timings, now: Timestamp) -> Self {
        let times_of_tasks = times.tasks.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let tasks = view.tasks.iter().zip(times_of_tasks).map(|(task, timings)| Task {
            arn: &task.arn,
            desired_status: task.desired.to_string(),
            known_status: task.known.to_string(),
            waits: task.waits.iter().map(|wait| Wait::new(wait, pulls, now)).collect(),
            timings,
        });
        Self { tasks: tasks.collect(), finished: times.finished.iter().map(Finished::new).collect() }
    }
}

impl<'a> Wait<'a> {
    fn new(wait: &'a Waiting, pulls: &PullLookup, now: Timestamp) -> Self {
        let progress = wait.blocker.op().and_then(|op| pulls(op));
        let progress_text =
            progress.as_ref().map(|progress| format!(": {}", progress.describe(now))).unwrap_or_default();
        let (mut image, mut resource, mut containers, mut lacks) = (None, None, Vec::new(), Vec::new());
        let (mut next_try, mut gives_up) = (None, None);
        match &wait.blocker {
            Blocker::Digest(_, name) | Blocker::Pull(_, name) | Blocker::ImageRemoval(name) => {
                image = Some(name.as_str())
            }
            Blocker::Containers(awaited, until) => {
                containers = awaited.iter().map(|awaited| awaited.container.as_str()).collect();
                gives_up = until.map(|at| seconds_until(at, now));
            }
            Blocker::HostResources(shortages) => lacks = shortages.iter().map(Lack::new).collect(),
            Blocker::NextTry(at) => next_try = Some(seconds_until(*at, now)),
            Blocker::Resource(_, name) => resource = Some(name.as_str()),
            Blocker::Interface(_, until) => gives_up = Some(seconds_until(*until, now)),
            Blocker::Network(..) | Blocker::NetworkDelay(_) => {}
            Blocker::Credentials(..) | Blocker::DiskSpace | Blocker::Docker(..) | Blocker::Inventory => {}
        }
        Self {
            container: wait.container.as_ref().map(|name| name.as_str()),
            r#for: wait.blocker.kind(),
            text: format!("{}{progress_text}", wait.describe(now)),
            age_seconds: seconds_since(wait.since, now),
            image,
            containers,
            gives_up_in_seconds: gives_up,
            resource,
            lacks,
            next_try_in_seconds: next_try,
            pull: progress.map(|progress| Pull::new(progress, now)),
        }
    }
}

impl Pull {
    fn new(progress: PullProgress, now: Timestamp) -> Self {
        Self {
            phase: progress.phase.as_str(),
            age_seconds: seconds_since(progress.since, now),
            attempt: progress.attempt,
            attempts: progress.attempts,
            layers: progress.layers,
            layers_done: progress.layers_done,
            bytes: progress.bytes,
            bytes_total: progress.bytes_total,
            percent: progress.percent(),
            quiet_seconds: progress.last_progress.map(|at| seconds_since(at, now)),
            next_try_in_seconds: progress.next_try.map(|at| seconds_until(at, now)),
            limit_ends_in_seconds: progress.limit_ends.map(|at| seconds_until(at, now)),
            last_failure: progress.failure,
        }
    }
}

/// Seconds from a past moment until now.
fn seconds_since(at: Timestamp, now: Timestamp) -> u64 {
    now.since(at).0 / 1000
}

/// Seconds from now until a future moment.
fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    at.since(now).0.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::task::{Condition, NetworkMode};
    use ecs_core::model::view::TaskView;
    use ecs_core::model::waiting::{Awaited, PullPhase, Requirement};
    use ecs_core::model::{ContainerStatus, Health, MacAddress, RoleKind, TaskStatus};
    use serde_json::json;

    /// One wait for each of most kinds of blockers.
    fn waits() -> Vec<Waiting> {
        let since = Timestamp(90_000);
        let wait = |name: &str, blocker| Waiting { container: Some(name.into()), blocker, since };
        let app = Awaited {
            container: "app".into(),
            requirement: Requirement::Condition(Condition::Healthy),
            known: ContainerStatus::Running,
            health: Health::Unhealthy,
            health_output: "nope".to_owned(),
            exit_code: None,
        };
        let shortage = Shortage {
            what: "CPU units",
            wanted: "2048".to_owned(),
            free: "512".to_owned(),
            held_by: vec!["arn:aws:ecs:us-west-2:1:task/c/0123".into()],
        };
        vec![
            wait("a", Blocker::Pull(OpId(7), "r.io/app:1".to_owned())),
            wait("b", Blocker::Containers(vec![app], Some(Timestamp(130_000)))),
            wait("c", Blocker::Credentials(RoleKind::Execution, "secret-id".into())),
            Waiting { container: None, blocker: Blocker::NextTry(Timestamp(101_200)), since },
            Waiting { container: None, blocker: Blocker::HostResources(vec![shortage]), since },
            wait("d", Blocker::Resource(None, "volume".to_owned())),
            wait("e", Blocker::Interface(MacAddress([10, 0, 0, 0, 0, 1]), Timestamp(220_000))),
        ]
    }

    /// The progress of the pull with the operation id 7.
    fn pulls() -> PullLookup {
        Arc::new(|op| {
            let progress = PullProgress {
                phase: PullPhase::RateLimited,
                since: Timestamp(95_000),
                attempt: 2,
                attempts: 5,
                bytes: 1,
                bytes_total: 4,
                failure: Some("toomanyrequests".to_owned()),
                next_try: Some(Timestamp(130_000)),
                limit_ends: Some(Timestamp(128_500)),
                ..PullProgress::default()
            };
            (op == OpId(7)).then_some(progress)
        })
    }

    #[test]
    fn waits_are_shown_as_data() {
        let task = TaskView {
            arn: "arn".into(),
            family: "f".to_owned(),
            version: "1".to_owned(),
            network: NetworkMode::default(),
            fault_injection: false,
            desired: TaskStatus::Running,
            waits: waits(),
            ..TaskView::default()
        };
        let view = super::super::tests::view_of(vec![task]);
        let shown = serde_json::to_value(Tasks::new(&view, &pulls(), &Timings::default(), Timestamp(100_000))).unwrap();
        let task = &shown["Tasks"][0];
        assert_eq!((&task["Arn"], &task["KnownStatus"]), (&json!("arn"), &json!("NONE")));
        let pull = json!({
            "Phase": "rate-limited", "AgeSeconds": 5, "Attempt": 2, "Attempts": 5, "Layers": 0, "LayersDone": 0,
            "Bytes": 1, "BytesTotal": 4, "Percent": 25, "NextTryInSeconds": 30, "LimitEndsInSeconds": 29,
            "LastFailure": "toomanyrequests",
        });
        let text = "waits for its image r.io/app:1: rate-limited for 5 s, attempt 2 of 5, next try in 30 s, \
                    the registry's limit ends in 29 s, last failure: toomanyrequests";
        let wanted = json!([
            {"Container": "a", "For": "pull", "Text": text, "AgeSeconds": 10, "Image": "r.io/app:1", "Pull": pull},
            {
                "Container": "b", "For": "containers", "AgeSeconds": 10, "Containers": ["app"], "GivesUpInSeconds": 30,
                "Text": "waits for app to be HEALTHY (it is RUNNING, UNHEALTHY: 'nope')",
            },
            {
                "Container": "c", "For": "credentials", "AgeSeconds": 10,
                "Text": "waits for ECS to send the credentials of its execution role",
            },
            {"For": "next-try", "Text": "waits for the next try", "AgeSeconds": 10, "NextTryInSeconds": 2},
            {
                "For": "host-resources", "AgeSeconds": 10,
                "Text": "waits for its share of the host: 2048 CPU units (512 free; held by 0123)",
                "Lacks": [{"What": "CPU units", "Wanted": "2048", "Free": "512", "HeldBy": ["arn:aws:ecs:us-west-2:1:task/c/0123"]}],
            },
            {"Container": "d", "For": "resource", "Text": "waits for the task's resource volume", "AgeSeconds": 10, "Resource": "volume"},
            {
                "Container": "e", "For": "interface", "AgeSeconds": 10, "GivesUpInSeconds": 120,
                "Text": "the interface 0a:00:00:00:00:01 has not appeared for 10 s; it expires in 2 min",
            },
        ]);
        assert_eq!(task["Waits"], wanted);
    }
}
