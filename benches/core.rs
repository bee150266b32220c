//! The number of steps per second of the core, for different numbers of tasks. Plain `std`: `cargo bench --bench core`.
//!
//! A step is one event: time passing with nothing due, one observation of a running container, or a whole life of a task
//! (payload, pull, create, start, reports, stop, clean-up). Numbers are for one core, without disk and Docker.

#![expect(clippy::print_stdout, reason = "a bench prints its numbers")]

use ecs_core::model::observation::LastCheck;
use ecs_core::model::{
    ContainerName, ContainerSpec, CreateRequest, Health, Observation, OpId, RunState, RuntimeId, Span, TaskArn,
    TaskSpec, TextMap, Timestamp,
};
use ecs_core::{Effect, Event, Message, Operation, Output, PayloadTask, Policy, State};
use std::time::{Duration, Instant};

/// How long each number is measured: long enough to be steady, short enough for a CI run.
const MEASURE: Duration = Duration::from_millis(700);

fn container(name: &str) -> ContainerSpec {
    let json = format!(r#"{{"name":"{name}","image":"image","essential":true,"endpoint_id":""}}"#);
    serde_json::from_str(&json).expect("all other fields have a default")
}

fn spec(number: usize) -> TaskSpec {
    TaskSpec {
        arn: TaskArn::from(format!("arn:aws:ecs:eu-west-1:123456789012:task/cluster/{number:032x}")),
        family: "family".to_owned(),
        version: "1".to_owned(),
        containers: vec![container("web"), container("side")],
        ..TaskSpec::default()
    }
}

fn seen(task: &TaskArn, container: &ContainerName, runtime_name: &str, state: RunState) -> Observation {
    Observation {
        task: task.clone(),
        container: container.clone(),
        owner: None,
        runtime_name: runtime_name.to_owned(),
        runtime_id: RuntimeId::from(format!("id-{runtime_name}")),
        state,
        pid: (state == RunState::Running).then_some(4711),
        exit_code: (state == RunState::Exited).then_some(0),
        error: None,
        health: Health::Unknown,
        last_check: LastCheck::default(),
        created_at: None,
        finished_at: None,
        started_at: (state != RunState::Created).then(String::new),
        bindings: Vec::new(),
        mounts: Vec::new(),
        address: None,
        labels: TextMap::default(),
        networks: Vec::new(),
        image_id: String::new(),
        image_digest: None,
        health_output: String::new(),
        ids: ecs_core::model::observation::GivenIds::default(),
        outline: None,
    }
}

/// A model of Docker and ECS in which every operation succeeds at once.
#[derive(Default)]
struct World {
    created: std::collections::BTreeMap<String, (TaskArn, ContainerName)>,
    steps: u64,
}

impl World {
    /// Passes an event to the core, then the outcomes of all effects that follow from it.
    fn settle(&mut self, state: &mut State, now: Timestamp, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.steps += 1;
            for effect in ecs_core::step(state, now, event).effects {
                let answer = self.answer(effect);
                events.extend(answer.map(|(op, output)| Event::Completed { op, outcome: Ok(output) }));
            }
        }
    }

    fn look(&self, target: &str, run_state: RunState) -> Output {
        let name = target.trim_start_matches("id-");
        let is_there = self.created.get(name).map(|(task, container)| Box::new(seen(task, container, name, run_state)));
        Output::Seen(is_there)
    }

    fn create(&mut self, request: CreateRequest) -> Output {
        let name = request.runtime_name;
        self.created.insert(name.clone(), (request.task, request.spec.name));
        self.look(&name, RunState::Created)
    }

    fn answer(&mut self, effect: Effect) -> Option<(OpId, Output)> {
        Some(match effect {
            Effect::Do(op, Operation::ResolveDigest(_)) => (op, Output::Digest(None)),
            Effect::Do(op, Operation::Pull(_)) => (op, Output::Pulled),
            Effect::Do(op, Operation::Report(_) | Operation::CreateResource(_))
            | Effect::Do(op, Operation::RenewResource(_) | Operation::RemoveResource(_))
            | Effect::Do(op, Operation::SetUpNetwork(_) | Operation::TearDownNetwork(_))
            | Effect::Do(op, Operation::ReportAttachment(_)) => (op, Output::Nothing),
            Effect::Do(op, Operation::Create(request)) => (op, self.create(*request)),
            Effect::Do(op, Operation::Start(target) | Operation::Inspect(target)) => {
                (op, self.look(&target, RunState::Running))
            }
            Effect::Do(op, Operation::Stop { target, .. }) => (op, self.look(&target, RunState::Exited)),
            Effect::Do(op, Operation::Remove(target)) => {
                self.created.remove(target.trim_start_matches("id-"));
                (op, Output::Nothing)
            }
            Effect::Do(op, Operation::Inventory) => {
                let all = self.created.iter();
                (op, Output::Inventory(all.map(|(name, (task, it))| seen(task, it, name, RunState::Running)).collect()))
            }
            Effect::Do(op, Operation::CleanImages(_)) => (op, Output::Images(Box::default())),
            Effect::Cancel(_)
            | Effect::Send(Message::Ack(_))
            | Effect::Send(Message::AckCredentials(_))
            | Effect::Send(Message::VerifyStop { .. })
            | Effect::ForgetCredentials(_)
            | Effect::WriteMetadata(_)
            | Effect::RemoveMetadata(_) => return None,
        })
    }
}

fn payload(tasks: Vec<PayloadTask>) -> Event {
    Event::Payload { tasks, seq: 1, ack: None }
}

/// A state with this number of running tasks of two containers.
fn running(tasks: usize) -> (State, World, Timestamp) {
    let (mut world, now) = (World::default(), Timestamp(1_000_000));
    let policy = Policy { cleanup_wait: Span::secs(1), ..Policy::default() };
    let mut state = ecs_core::recover(policy, ecs_core::state::HostState::default(), []);
    for number in 0..tasks {
        world.settle(&mut state, now, payload(vec![PayloadTask::Run(Box::new(spec(number)))]));
    }
    (state, world, now)
}

/// Repeats a call for a while, and returns the steps per second.
fn measure(mut once: impl FnMut(u64) -> u64) -> f64 {
    let (begin, mut steps, mut round) = (Instant::now(), 0, 0);
    while begin.elapsed() < MEASURE {
        for _ in 0..16 {
            steps += once(round);
            round += 1;
        }
    }
    steps as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    println!("{:>6} {:>22} {:>22} {:>22}", "tasks", "idle ticks/s", "observations/s", "steps/s of whole lives");
    for tasks in [1, 10, 100, 1_000] {
        let (mut state, mut world, now) = running(tasks);
        let ticks = measure(|_| {
            ecs_core::step(&mut state, now, Event::Tick);
            1
        });
        let names: Vec<_> = world.created.iter().map(|(name, owner)| (name.clone(), owner.clone())).collect();
        let observations = measure(|round| {
            let (name, (task, container)) = &names[round as usize % names.len()];
            ecs_core::step(&mut state, now, Event::Observed(Box::new(seen(task, container, name, RunState::Running))));
            1
        });
        let mut later = now;
        let lives = measure(|round| {
            let before = world.steps;
            let spec = spec(tasks + round as usize);
            let arn = spec.arn.clone();
            world.settle(&mut state, later, payload(vec![PayloadTask::Run(Box::new(spec))]));
            world.settle(&mut state, later, payload(vec![PayloadTask::Stop(arn.clone(), Vec::new())]));
            later = later + Span::secs(2);
            world.settle(&mut state, later, Event::Tick);
            assert!(!state.tasks.contains_key(&arn), "a whole life ends with being forgotten");
            world.steps - before
        });
        println!("{tasks:>6} {ticks:>22.0} {observations:>22.0} {lives:>22.0}");
    }
    println!("{:>6} {:>22} {:>22}", "queue", "µs for all to arrive", "µs for one to end");
    for tasks in [10, 100, 1_000] {
        let (arrive, end) = queue(tasks);
        println!("{tasks:>6} {arrive:>22.0} {end:>22.0}");
    }
}

/// Measures this number of tasks on a host that has enough resources for 10 of them. Returns two times in µs: for their arrival
/// in one payload, and for the end of a running task, which admits the next one.
fn queue(tasks: usize) -> (f64, f64) {
    let now = Timestamp(1_000_000);
    let mut world = World::default();
    let capacity = ecs_core::Capacity { cpu: 1_000, memory: 1_000, ..ecs_core::Capacity::default() };
    let policy = Policy { capacity, cleanup_wait: Span::secs(1), ..Policy::default() };
    let mut state = ecs_core::recover(policy, ecs_core::state::HostState::default(), []);
    let run = |number: usize| {
        let mut spec = spec(number);
        spec.containers[0].cpu = 100;
        PayloadTask::Run(Box::new(spec))
    };
    let begin = Instant::now();
    world.settle(&mut state, now, payload((0..tasks + 10).map(run).collect()));
    let arrive = begin.elapsed();
    let (begin, rounds) = (Instant::now(), tasks.min(100));
    for number in 0..rounds {
        world.settle(&mut state, now, payload(vec![PayloadTask::Stop(spec(number).arn, Vec::new())]));
    }
    (arrive.as_secs_f64() * 1e6, begin.elapsed().as_secs_f64() * 1e6 / rounds as f64)
}
