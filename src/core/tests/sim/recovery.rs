//! Restarts of the agent: each state that it may have stored, combined with each thing that may have happened to the container
//! meanwhile.
//!
//! Unlike in a schedule, where anything may happen, each combination here has one correct end, which `expected` names. The laws
//! are checked too.

use crate::laws;
use crate::schedule::{Delivery, How};
use crate::world::World;
use ecs_core::model::{ContainerName, ContainerSpec, RunState, TaskArn, TaskSpec, TaskStatus};
use ecs_core::{Effect, Operation, PullBehavior};

/// The progress of a task of one container when the agent was killed. `…Asked`: the operation was requested and not done;
/// `…Done`: it was done, but its answer did not reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stored {
    Pulling,
    CreateAsked,
    CreateDone,
    Created,
    StartAsked,
    StartDone,
    RunningUnreported,
    Running,
    StopAsked,
    StopDone,
    ExitedUnreported,
    Exited,
}

/// What happened to the container while no agent ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reality {
    AsItWas,
    Gone,
    Ended,
    Revived,
    StartedByHand,
    Renamed,
    DaemonRestarted,
    NameTaken,
}

const STORED: [Stored; 12] = [
    Stored::Pulling,
    Stored::CreateAsked,
    Stored::CreateDone,
    Stored::Created,
    Stored::StartAsked,
    Stored::StartDone,
    Stored::RunningUnreported,
    Stored::Running,
    Stored::StopAsked,
    Stored::StopDone,
    Stored::ExitedUnreported,
    Stored::Exited,
];

const REALITIES: [Reality; 8] = [
    Reality::AsItWas,
    Reality::Gone,
    Reality::Ended,
    Reality::Revived,
    Reality::StartedByHand,
    Reality::Renamed,
    Reality::DaemonRestarted,
    Reality::NameTaken,
];

/// The exit code of a container that ends by itself.
const CODE: i32 = 3;
/// The exit code of a container that is stopped, and of one that is killed with its daemon.
const STOPPED: i32 = 143;
const KILLED: i32 = 137;

/// The end of a combination: the task's status, the container's exit code and the name of its failure.
type End = (TaskStatus, Option<i32>, Option<&'static str>);

const RUNS: End = (TaskStatus::Running, None, None);
const MISSING: End = (TaskStatus::Stopped, None, Some("ContainerVanishedError"));

fn ended(code: i32) -> End {
    (TaskStatus::Stopped, Some(code), None)
}

/// The correct end of each combination.
fn expected(stored: Stored, reality: Reality) -> End {
    use Reality::{AsItWas, DaemonRestarted, Ended, Gone, NameTaken, Renamed, Revived, StartedByHand};
    use Stored::{CreateDone, Created, Exited, ExitedUnreported, Pulling, StartAsked, StopAsked, StopDone};
    match (stored, reality) {
        // ECS wanted the task stopped: it ends, with the exit code of its container.
        (StopAsked, AsItWas | Revived | Renamed) => ended(STOPPED),
        (StopAsked | StopDone, Gone) => MISSING,
        (StopAsked, Ended) => ended(CODE),
        (StopAsked, DaemonRestarted) => ended(KILLED),
        (StopDone, Revived | StartedByHand | AsItWas | Renamed | Ended | DaemonRestarted) => ended(STOPPED),
        // The container had ended: its end does not change, whatever happened to it afterwards.
        (ExitedUnreported | Exited, _) => ended(CODE),
        // The agent knew of no container, so it creates one now.
        (Pulling | Stored::CreateAsked, NameTaken) => (TaskStatus::Stopped, None, Some("CannotCreateContainerError")),
        (Pulling | Stored::CreateAsked, _) | (CreateDone, Gone | Renamed) => RUNS,
        // The container existed and never ran: it is started.
        (CreateDone | Created | StartAsked, AsItWas | StartedByHand | DaemonRestarted | Renamed) => RUNS,
        (_, Gone) => MISSING,
        // The container ran.
        (_, AsItWas | Revived | Renamed | StartedByHand | NameTaken) => RUNS,
        (_, Ended) => ended(CODE),
        (_, DaemonRestarted) => ended(KILLED),
    }
}

struct Scene {
    world: World,
    arn: TaskArn,
    name: String,
}

impl Scene {
    fn new() -> Self {
        // The seed of a world in which each pull asks the registry. Nothing else of the seed is used.
        let seed = (0..).find(|seed| World::new(*seed).state.policy.pull == PullBehavior::Default).expect("most do");
        let mut world = World::new(seed);
        world.state.policy.pull_upfront = false;
        let spec = ContainerSpec {
            name: ContainerName::from("c0"),
            image: "image-1".to_owned(),
            essential: true,
            ..ContainerSpec::default()
        };
        let arn = world.ecs.send_task(|arn| TaskSpec {
            arn,
            family: "family".to_owned(),
            version: "1".to_owned(),
            containers: vec![spec],
            ..TaskSpec::default()
        });
        world.trace = Some(Vec::new());
        world.deliver(world.ecs.arriving(&world.ecs.messages, 0));
        let name = world.state.tasks[&arn].spec.runtime_name(&"c0".into());
        Self { world, arn, name }
    }

    /// Answers effects until one like this is requested.
    fn until(&mut self, is_wanted: fn(&Effect) -> bool) {
        for _ in 0..100 {
            if self.world.pending.iter().any(|pending| is_wanted(&pending.effect)) {
                return;
            }
            let other =
                self.world.pending.iter().position(|pending| !is_wanted(&pending.effect)).expect("something goes on");
            self.world.go_on(other, How::Works);
        }
        panic!("it never comes");
    }

    /// Executes and answers all effects.
    fn settle(&mut self) {
        while !self.world.pending.is_empty() {
            self.world.go_on(0, How::Works);
        }
        while !self.world.docker.events.is_empty() {
            self.world.fact(0, Delivery::Once);
        }
    }

    /// The effect is done, but its answer does not reach the agent.
    fn done_unanswered(&mut self, is_wanted: fn(&Effect) -> bool) {
        let at =
            self.world.pending.iter().position(|pending| is_wanted(&pending.effect)).expect("the effect was requested");
        let effect = self.world.pending[at].effect.clone();
        let _outcome = self.world.perform(&effect);
    }

    fn come_to(&mut self, stored: Stored) {
        use Stored::{
            CreateDone, Created, Exited, ExitedUnreported, Pulling, Running, RunningUnreported, StartDone, StopDone,
        };
        let is_create: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Do(_, Operation::Create(_)));
        let is_start: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Do(_, Operation::Start(_)));
        let is_stop: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Do(_, Operation::Stop { .. }));
        let is_report: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Do(_, Operation::Report(_)));
        match stored {
            Pulling => self.until(|effect| matches!(effect, Effect::Do(_, Operation::Pull(_)))),
            Stored::CreateAsked => self.until(is_create),
            CreateDone => {
                self.until(is_create);
                self.done_unanswered(is_create);
            }
            Created | Stored::StartAsked => self.until(is_start),
            StartDone => {
                self.until(is_start);
                self.done_unanswered(is_start);
            }
            RunningUnreported => self.until(
                |effect| matches!(effect, Effect::Do(_, Operation::Report(change)) if change.status == TaskStatus::Running),
            ),
            Running => self.settle(),
            Stored::StopAsked | StopDone => {
                self.settle();
                self.world.ecs.stop(0);
                let last = self.world.ecs.messages.len() - 1;
                self.world.deliver(self.world.ecs.arriving(&self.world.ecs.messages, last));
                self.until(is_stop);
                if stored == StopDone {
                    self.done_unanswered(is_stop);
                }
            }
            ExitedUnreported | Exited => {
                self.settle();
                let at = self.world.docker.find(&self.name).expect("it runs");
                self.world.docker.exit(at, CODE);
                self.world.fact(0, Delivery::Once);
                if stored == Exited {
                    self.until(is_report);
                    self.settle();
                }
            }
        }
    }

    /// False if this cannot happen to the container.
    fn happens(&mut self, reality: Reality) -> bool {
        let docker = &mut self.world.docker;
        let at = docker.find(&self.name);
        let state = at.map(|at| docker.containers[at].state);
        match (reality, at) {
            (Reality::AsItWas | Reality::DaemonRestarted, _) => {}
            (Reality::NameTaken, None) => docker.add_foreign_container(self.name.clone(), RunState::Exited),
            (Reality::Gone, Some(at)) => docker.remove(at),
            (Reality::Renamed, Some(at)) => docker.rename(at),
            (Reality::Ended, Some(at)) if state == Some(RunState::Running) => docker.exit(at, CODE),
            (Reality::Revived, Some(at)) if state == Some(RunState::Running) => {
                docker.exit(at, CODE);
                docker.start(at, true);
            }
            (Reality::StartedByHand, Some(at)) if state != Some(RunState::Running) => docker.start(at, true),
            _ => return false,
        }
        if reality == Reality::DaemonRestarted {
            docker.restart(3); // nothing lives on
        }
        true
    }

    /// The agent dies, this happens, the agent restarts, and the world runs until nothing is left to do.
    fn restart(&mut self, reality: Reality) -> bool {
        self.world.pending.clear();
        if !self.happens(reality) {
            return false;
        }
        let (now, policy) = (self.world.now, self.world.state.policy.clone());
        let quiet = (0..).find(|bits| {
            let mut rng = crate::schedule::Rng(*bits);
            !rng.percent(10) && !rng.percent(5) && !rng.percent(15)
        });
        self.world.crash(quiet.expect("most do nothing more"));
        assert!(self.world.now == now && self.world.state.policy == policy, "a plain restart");
        self.world.heal();
        crate::run::quiesce(&mut self.world, 20);
        if self.world.broken.is_none() {
            laws::settled(&mut self.world);
        }
        true
    }

    fn end(&self) -> End {
        let task = &self.world.state.tasks[&self.arn];
        let container = &task.containers[0].state;
        let failure = container.failure.as_ref().map(|failure| match failure.name.as_str() {
            "ContainerVanishedError" => "ContainerVanishedError",
            "CannotCreateContainerError" => "CannotCreateContainerError",
            _ => "another failure",
        });
        (task.known, container.exit_code, failure)
    }
}

/// For each stored state and each thing that may have happened meanwhile.
#[test]
fn every_stored_state_recovers_to_the_right_end() {
    let mut count = 0;
    for stored in STORED {
        for reality in REALITIES {
            let mut scene = Scene::new();
            scene.come_to(stored);
            if !scene.restart(reality) {
                continue;
            }
            count += 1;
            let trace = || scene.world.trace.clone().unwrap_or_default().join("\n");
            assert_eq!(scene.world.broken, None, "{stored:?} {reality:?}\n{}", trace());
            assert_eq!(scene.end(), expected(stored, reality), "{stored:?} {reality:?}\n{}", trace());
            let accepted = &scene.world.ecs.tasks[&scene.arn].accepted;
            assert_eq!(accepted.status, scene.end().0, "{stored:?} {reality:?}: ECS hears of it");
        }
    }
    assert!(count > 50, "most can happen: {count}");
}
