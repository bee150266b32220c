//! The real core runs tasks in a world whose operations take a known time.

use super::records::MAX_FINISHED;
use super::*;
use ecs_core::model::observation::{GivenIds, LastCheck};
use ecs_core::model::{Failure, Observation, RunState, Span, TaskSpec, TextMap};
use ecs_core::state::HostState;
use ecs_core::{Operation, PayloadTask, Policy};
use serde_json::{Value, json};
use std::collections::VecDeque;

const ID: &str = "319892675625455485f5c720b4cd7692";

fn arn(number: usize) -> String {
    format!("arn:aws:ecs:us-west-2:123456789012:task/default/{:032x}", number + 1)
}

fn spec(arn: &str, containers: &[&str]) -> TaskSpec {
    let container = |name: &&str| {
        let json = json!({"name": name, "image": "busybox:1", "essential": true, "endpoint_id": ""});
        serde_json::from_value(json).unwrap()
    };
    TaskSpec {
        arn: arn.into(),
        family: "web".to_owned(),
        version: "7".to_owned(),
        containers: containers.iter().map(container).collect(),
        ..TaskSpec::default()
    }
}

/// How many seconds each kind of operation takes.
fn took(operation: &Operation) -> u64 {
    match operation {
        Operation::ResolveDigest(_) => 1,
        Operation::Pull(_) => 20,
        Operation::Create(_) => 3,
        Operation::Start(_) => 4,
        Operation::Stop { .. } => 5,
        Operation::Report(_) => 6,
        _ => 0,
    }
}

/// An agent's core and its timing, and a Docker that does what it is asked.
struct World {
    state: State,
    timing: Timing,
    now: Timestamp,
    /// Operations that have begun: when they end, and what they are.
    running: Vec<(Timestamp, OpId, Operation)>,
    containers: BTreeMap<String, Observation>,
    observed: Arc<Mutex<Vec<(&'static str, u64)>>>,
    outbox: otlp::Outbox,
    /// Failures of the next pulls.
    pull_failures: VecDeque<OpError>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Clock::started(Timestamp::default(), None));
        // Early enough that nothing here happens in the future.
        Self::restored(Vec::new(), BTreeMap::new(), clock.now() - Span::secs(7_200))
    }

    /// An agent that starts with these tasks.
    fn restored(tasks: Vec<TaskState>, containers: BTreeMap<String, Observation>, now: Timestamp) -> Self {
        let state = ecs_core::recover(Policy::default(), HostState::default(), tasks);
        let (observed, outbox) = (Arc::new(Mutex::new(Vec::new())), otlp::Outbox::default());
        let sink = observed.clone();
        let sink: Sink = Arc::new(move |label, took| sink.lock().unwrap().push((label, took.as_millis() as u64)));
        let timing = Timing::restored(&state, Arc::new(Clock::started(now, None)), sink, Some(outbox.clone()));
        let (running, pull_failures) = (Vec::new(), VecDeque::new());
        let mut world = Self { state, timing, now, running, containers, observed, outbox, pull_failures };
        world.take(Event::Tick);
        world.settle();
        world
    }

    /// A turn of the loop with one event.
    fn take(&mut self, event: Event) {
        self.timing.event(&event, self.now);
        let step = ecs_core::step(&mut self.state, self.now, event);
        self.timing.note(&self.state, &step.changed, self.now);
        for effect in step.effects {
            self.timing.begin(&self.state, &effect, self.now);
            match effect {
                Effect::Do(op, operation) => {
                    self.running.push((self.now + Span::secs(took(&operation)), op, operation));
                }
                Effect::Cancel(op) => self.running.retain(|(_, running, _)| *running != op),
                _ => {}
            }
        }
    }

    /// Goes on until nothing is in progress. Waits of the core for its next attempt are waited for, if they are short.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let next = self.running.iter().enumerate().min_by_key(|(_, (ends, op, _))| (*ends, *op)).map(|(at, _)| at);
            let deadline = ecs_core::next_deadline(&self.state).filter(|at| at.since(self.now) < Span::secs(60));
            match (next, deadline) {
                (Some(at), deadline) if deadline.is_none_or(|deadline| self.running[at].0 <= deadline) => {
                    let (ends, op, operation) = self.running.remove(at);
                    self.now = self.now.max(ends);
                    let outcome = self.outcome(operation);
                    self.take(Event::Completed { op, outcome });
                }
                (_, Some(deadline)) => {
                    self.now = self.now.max(deadline);
                    self.take(Event::Tick);
                }
                (_, None) => return,
            }
        }
        panic!("the world does not come to rest");
    }

    fn outcome(&mut self, operation: Operation) -> Outcome {
        Ok(match operation {
            Operation::ResolveDigest(_) => Output::Digest(Some("sha256:1".to_owned())),
            Operation::Pull(_) => match self.pull_failures.pop_front() {
                Some(failure) => return Err(failure),
                None => Output::Pulled,
            },
            Operation::Create(request) => {
                let seen = observation(&request.task, &request.spec.name, &request.runtime_name);
                self.containers.insert(request.runtime_name.clone(), seen.clone());
                Output::Seen(Some(Box::new(seen)))
            }
            Operation::Start(target) => self.change(&target, RunState::Running),
            Operation::Stop { target, .. } => self.change(&target, RunState::Exited),
            Operation::Inspect(target) => Output::Seen(self.find(&target).cloned().map(Box::new)),
            Operation::Inventory => Output::Inventory(self.containers.values().cloned().collect()),
            _ => Output::Nothing,
        })
    }

    fn find(&mut self, target: &str) -> Option<&mut Observation> {
        self.containers.values_mut().find(|seen| seen.runtime_name == target || seen.runtime_id.as_str() == target)
    }

    fn change(&mut self, target: &str, state: RunState) -> Output {
        let seen = self.find(target).expect("the container exists");
        seen.state = state;
        seen.pid = (state == RunState::Running).then_some(4711);
        seen.started_at = Some("2026-11-30T00:00:00Z".to_owned());
        seen.exit_code = (state == RunState::Exited).then_some(0);
        Output::Seen(Some(Box::new(seen.clone())))
    }

    /// Docker shows that a container is healthy.
    fn heals(&mut self, container: &str) {
        let seen = self.containers.values_mut().find(|seen| seen.container.as_str() == container).unwrap();
        seen.health = Health::Healthy;
        let seen = seen.clone();
        self.take(Event::Observed(Box::new(seen)));
    }

    fn payload(&mut self, task: PayloadTask) {
        self.take(Event::Payload { tasks: vec![task], seq: 1, ack: None });
        self.settle();
    }

    fn run(&mut self, arn: &str, containers: &[&str]) {
        self.payload(PayloadTask::Run(Box::new(spec(arn, containers))));
    }

    fn stop(&mut self, arn: &str) {
        self.payload(PayloadTask::Stop(arn.into(), Vec::new()));
    }

    /// What was observed since the last call, in seconds, sorted.
    fn observed(&self) -> Vec<(&'static str, f64)> {
        let mut observed = std::mem::take(&mut *self.observed.lock().unwrap());
        observed.sort_unstable();
        observed.into_iter().map(|(label, millis)| (label, millis as f64 / 1000.0)).collect()
    }

    /// The spans since the last call.
    fn spans(&self) -> Vec<otlp::Span> {
        self.outbox.take(usize::MAX)
    }

    fn shown(&self, limit: usize) -> Value {
        let view = ecs_core::view(&self.state, self.now);
        let shown = self.timing.timings().shown(&view, limit, &self.timing.clock);
        let finished: Vec<_> = shown.finished.iter().map(|task| json!({"Arn": task.arn, "Timings": task})).collect();
        json!({"Tasks": shown.tasks, "Finished": finished})
    }
}

fn observation(task: &TaskArn, container: &ecs_core::model::ContainerName, name: &str) -> Observation {
    Observation {
        task: task.clone(),
        container: container.clone(),
        owner: None,
        runtime_name: name.to_owned(),
        runtime_id: format!("id-of-{name}").into(),
        state: RunState::Created,
        pid: None,
        exit_code: None,
        error: None,
        health: Health::Unknown,
        last_check: LastCheck::default(),
        created_at: None,
        finished_at: None,
        started_at: None,
        bindings: Vec::new(),
        mounts: Vec::new(),
        address: None,
        labels: TextMap::default(),
        networks: Vec::new(),
        image_id: String::new(),
        image_digest: None,
        health_output: String::new(),
        ids: GivenIds::default(),
        outline: None,
    }
}

/// Each span as its name, its container, the path of names from the root to its parent, and its length in seconds. The parents
/// must be among `known`.
fn tree(spans: &[otlp::Span], known: &[otlp::Span]) -> Vec<(&'static str, String, String, u64)> {
    let parent = |span: &otlp::Span| known.iter().find(|other| Some(other.id) == span.parent);
    let path = |span: &otlp::Span| {
        let mut names = Vec::new();
        let mut at = span;
        while at.parent.is_some() {
            at = parent(at).unwrap_or_else(|| panic!("{} has no parent", at.name));
            names.insert(0, at.name);
        }
        names.join("/")
    };
    let container = |span: &otlp::Span| {
        let found = span.attributes.iter().find(|(key, _)| *key == "container.name");
        found.map_or_else(String::new, |(_, value)| match value {
            otlp::Value::Text(text) => text.clone(),
            otlp::Value::Number(number) => number.to_string(),
        })
    };
    let length = |span: &otlp::Span| (span.end_millis - span.start_millis) / 1000;
    spans.iter().map(|span| (span.name, container(span), path(span), length(span))).collect()
}

#[test]
fn a_whole_life_is_recorded_observed_and_exported() {
    let mut world = World::new();
    let arn = format!("arn:aws:ecs:us-west-2:123456789012:task/default/{ID}");
    world.run(&arn, &["app"]);
    let wanted = [
        ("create", 3.0),
        ("digest", 1.0),
        ("pull", 20.0),
        ("received_to_admitted", 0.0),
        ("received_to_running", 28.0),
        ("report", 6.0),
        ("start", 4.0),
    ];
    assert_eq!(world.observed(), wanted);
    let first = world.spans();
    let within = "task start/container".to_owned();
    let named = |name, path: &str, seconds| (name, "app".to_owned(), path.to_owned(), seconds);
    let wanted = [
        ("task start", String::new(), String::new(), 34),
        ("admission", String::new(), "task start".to_owned(), 0),
        named("container", "task start", 28),
        named("digest", &within, 1),
        named("pull", &within, 20),
        named("create", &within, 3),
        named("start", &within, 4),
        ("report", String::new(), "task start".to_owned(), 6),
    ];
    assert_eq!(tree(&first, &first), wanted);
    assert!(first.iter().all(|span| span.trace == u128::from_str_radix(ID, 16).unwrap().to_be_bytes()));
    assert!(first.iter().all(|span| span.error.is_none()));

    world.now = world.now + Span::secs(30);
    world.heals("app");
    assert_eq!(world.observed(), [("healthy", 36.0)]);
    let healthy = world.spans();
    assert_eq!(tree(&healthy, &[first.clone(), healthy.clone()].concat()), [named("healthy", &within, 36)]);

    world.now = world.now + Span::secs(86_400 * 365);
    world.stop(&arn);
    assert_eq!(world.observed(), [("report", 6.0), ("stop", 5.0)]);
    let last = world.spans();
    let wanted = [
        ("task stop", String::new(), "task start".to_owned(), 11),
        named("stop", "task start/task stop", 5),
        ("report", String::new(), "task start/task stop".to_owned(), 6),
    ];
    assert_eq!(tree(&last, &[first, last.clone()].concat()), wanted);
}

#[test]
fn the_debug_page_shows_moments_and_phases() {
    let mut world = World::new();
    let arn = arn(0);
    world.run(&arn, &["app"]);
    let shown = world.shown(10);
    let task = &shown["Tasks"][0];
    let seconds: Vec<_> = ["Received", "Admitted", "Running", "RunningReported", "StopBegan"]
        .iter()
        .map(|mark| task[*mark]["Seconds"].as_f64())
        .collect();
    assert_eq!(seconds, [Some(0.0), Some(0.0), Some(28.0), Some(34.0), None], "{task:#}");
    let container = &task["Containers"][0];
    assert_eq!((&container["Name"], &container["Running"]["Seconds"]), (&json!("app"), &json!(28.0)));
    let pull = &container["Phases"]["Pull"];
    assert_eq!((&pull["Seconds"], &pull["Attempts"], &pull["Result"]), (&json!(20.0), &json!(1), &Value::Null));
    assert_eq!(task["Restored"], Value::Null);
    let received = world.now - Span::secs(34);
    assert_eq!(task["Received"]["At"], received.rfc3339());
    assert_eq!(shown["Finished"], json!([]));

    world.stop(&arn);
    let shown = world.shown(10);
    assert_eq!(shown["Finished"][0]["Arn"], arn);
    assert_eq!(shown["Finished"][0]["Timings"], shown["Tasks"][0], "it is not cleaned up, so it is in both lists");
    assert_eq!(shown["Tasks"][0]["Containers"][0]["Phases"]["Stop"]["Seconds"], 5.0);
    assert_eq!(world.shown(0)["Finished"], json!([]));
}

#[test]
fn a_pull_counts_with_its_pauses_and_a_failure_ends_the_trace() {
    let mut world = World::new();
    world.pull_failures.push_back(Failure::retryable("CannotPullContainerError", "later").into());
    world.run(&arn(0), &["app"]);
    let task = &world.shown(1)["Tasks"][0];
    let pull = &task["Containers"][0]["Phases"]["Pull"];
    assert!(pull["Attempts"].as_u64() >= Some(1), "{task:#}");
    world.observed();
    world.spans();

    let arn = arn(1);
    let failure = Failure::permanent("CannotPullContainerError", "no such image");
    world.pull_failures.extend([failure.clone().into(), failure.into()]);
    world.take(Event::Payload {
        tasks: vec![PayloadTask::Refused { arn: arn.as_str().into(), reason: "no".to_owned() }],
        seq: 2,
        ack: None,
    });
    world.settle();
    assert_eq!(world.observed(), [("report", 6.0)]);
    let spans = world.spans();
    let root = spans.iter().find(|span| span.parent.is_none()).unwrap();
    assert_eq!((root.name, root.error.as_deref()), ("task start", Some("no")));
}

#[test]
fn what_happened_before_a_restart_is_not_invented() {
    let mut world = World::new();
    let arn = arn(0);
    world.run(&arn, &["app"]);
    let first = world.spans();
    let running_since = world.state.tasks[&arn.as_str().into()].containers[0].state.running_since;
    let tasks: Vec<TaskState> = world.state.tasks.values().map(|task| without_live(task)).collect();
    let now = world.now + Span::secs(1000);
    let mut world = World::restored(tasks, world.containers.clone(), now);
    assert_eq!((world.observed(), world.spans()), (Vec::new(), Vec::new()));
    let task = &world.shown(1)["Tasks"][0];
    assert_eq!(task["Restored"], true);
    for absent in ["Received", "Admitted", "RunningReported", "StopBegan"] {
        assert_eq!(task[absent], Value::Null, "{absent}");
    }
    assert!(task["Running"]["At"].is_string() && task["Running"]["Seconds"].is_null(), "{task:#}");
    let container = &task["Containers"][0];
    assert_eq!(container["Running"]["At"].as_str(), running_since.map(Timestamp::rfc3339).as_deref());
    assert_eq!(container["Phases"], json!({}));

    world.stop(&arn);
    assert_eq!(world.observed(), [("report", 6.0), ("stop", 5.0)]);
    let last = world.spans();
    let names: Vec<_> = tree(&last, &[first, last.clone()].concat()).iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, ["task stop", "stop", "report"], "they fit the trace of the earlier process");
}

/// A busy Docker shows that a container has ended, and answers the stop after ECS has accepted STOPPED.
#[test]
fn a_stop_whose_answer_is_late_is_in_the_trace() {
    let mut world = World::new();
    let arn = arn(0);
    world.run(&arn, &["app"]);
    let first = world.spans();
    world.observed();
    world.take(Event::Payload { tasks: vec![PayloadTask::Stop(arn.as_str().into(), Vec::new())], seq: 1, ack: None });
    let now = world.now;
    let stop = world.running.iter_mut().find(|(_, _, operation)| matches!(operation, Operation::Stop { .. })).unwrap();
    stop.0 = now + Span::secs(30);
    world.now = now + Span::secs(2);
    let mut seen = world.containers.values().next().unwrap().clone();
    (seen.state, seen.pid, seen.exit_code) = (RunState::Exited, None, Some(0));
    world.take(Event::Observed(Box::new(seen)));
    world.settle();
    assert!(world.now >= now + Span::secs(30), "the answer came at last");
    let last = world.spans();
    let shown = tree(&last, &[first, last.clone()].concat());
    let shown: Vec<_> = shown.iter().map(|(name, _, _, seconds)| (*name, *seconds)).collect();
    assert_eq!(shown, [("task stop", 8), ("stop", 2), ("report", 6)]);
}

/// A task as the store gives it back.
fn without_live(task: &TaskState) -> TaskState {
    serde_json::from_value(serde_json::to_value(task).unwrap()).unwrap()
}

#[test]
fn a_thousand_ended_tasks_are_kept_in_little_memory() {
    let mut world = World::new();
    for number in 0..MAX_FINISHED + 20 {
        let arn = arn(number);
        world.run(&arn, &["app", "sidecar", "log-router"]);
        world.stop(&arn);
        // It is cleaned up.
        world.state.tasks.clear();
        world.containers.clear();
        world.spans();
        world.timing.note(&world.state, &BTreeSet::from([Key::Task(arn.as_str().into())]), world.now);
    }
    let shown = world.shown(usize::MAX);
    let finished = shown["Finished"].as_array().unwrap();
    assert_eq!(finished.len(), MAX_FINISHED);
    assert_eq!(finished[0]["Arn"], arn(MAX_FINISHED + 19), "the newest is first");
    assert_eq!(finished[MAX_FINISHED - 1]["Arn"], arn(20), "the oldest made room");
    let records = world.timing.records.lock();
    let bytes = records.bytes();
    assert!(records.live.is_empty() && bytes < 512 * 1024, "{bytes} bytes");
    drop(records);
    assert!(world.timing.pending.is_empty());
    eprintln!("{MAX_FINISHED} ended tasks with 3 containers take {bytes} bytes");
}

#[test]
fn a_wall_clock_that_is_set_changes_no_duration() {
    let mut world = World::new();
    let arn = arn(0);
    world.run(&arn, &["app"]);
    let records = world.timing.records.lock();
    let (record, task) = (&records.live[&arn.as_str().into()], &world.state.tasks[&arn.as_str().into()]);
    // An hour is added to each time, and the clock is set back a day between the first and the last.
    let start = record.at(TaskMark::Received).unwrap();
    let wall = |at: Timestamp| if at > start { at - Span::secs(86_400) } else { at + Span::secs(3600) };
    let spans = spans::start(record, task, &wall);
    let root = &spans[0];
    assert_eq!((root.start_millis, root.end_millis - root.start_millis), (start.0 + 3_600_000, 34_000));
}
