//! What holds of statistics in any order of runs, views, readings, reports and restarts of the agent.

use super::{Collection, Gathered, Saved};
use ecs_core::model::usage::{CpuUsage, Interface, LastStatistics, Moment, Process, Reading, Traffic, Usage};
use ecs_core::model::view::{ContainerView, TaskView, View};
use ecs_core::model::{ContainerStatus, RuntimeId};
use proptest::prelude::*;
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
const CONTAINERS: usize = 2;

/// A container with a restart policy, as it is.
#[derive(Clone, Debug, Default)]
struct Container {
    process: Process,
    /// What the kernel has counted in this run.
    counter: u64,
    /// What all runs have used.
    used: u64,
    restarts: u32,
    /// The run and the number of restarts that the agent knows.
    seen: (Process, u32),
    /// A reading that is on its way, with the run that was asked about.
    pending: Option<(Reading, Process)>,
    /// What the present process of the agent has shown last.
    shown: u64,
    /// The restarts that reports of the present process of the agent have had.
    reported: u32,
}

/// A host and its agent.
struct World {
    containers: Vec<Container>,
    collection: Collection,
    /// Nanoseconds by a clock that is never set.
    at: u64,
    /// By the wall clock.
    wall: u64,
    /// When the present process of the agent started.
    since: u64,
    starts: u32,
}

fn id(at: usize) -> RuntimeId {
    format!("id-{at}").as_str().into()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            containers: vec![Container::default(); CONTAINERS],
            collection: Collection::new(Saved::default(), 20),
            at: 0,
            wall: 0,
            since: 0,
            starts: 0,
        };
        (0..CONTAINERS).for_each(|at| world.start(at, at as u32));
        world.see();
        world
    }

    /// Starts another run, with a process id that another run may have had.
    fn start(&mut self, at: usize, pid: u32) {
        self.starts += 1;
        let container = &mut self.containers[at];
        container.restarts += u32::from(container.process != Process::default());
        container.process = Process { pid, started_at: format!("start {}", self.starts).into() };
        container.counter = 0;
    }

    /// One processor at most, for this long.
    fn works(&mut self, at: usize, seconds: u64, part: u64) {
        self.at += seconds * SECOND;
        let used = seconds * SECOND * part / 100;
        let container = &mut self.containers[at];
        (container.counter, container.used) = (container.counter + used, container.used + used);
    }

    /// The agent has the newest view.
    fn see(&mut self) {
        let containers = self.containers.iter_mut().enumerate().map(|(at, container)| {
            container.seen = (container.process.clone(), container.restarts);
            ContainerView {
                name: format!("name-{at}").as_str().into(),
                runtime_id: Some(id(at)),
                process: Some(container.process.clone()),
                restarts: Some(container.restarts),
                known: ContainerStatus::Running,
                ..ContainerView::default()
            }
        });
        let containers = containers.collect();
        let task = TaskView { family: "family".to_owned(), containers, ..TaskView::default() };
        self.collection.track(&View { tasks: vec![Arc::new(task)], ..View::default() });
    }

    /// Reads the run that the agent knows; another one is not found.
    fn ask(&mut self, at: usize) {
        let container = &mut self.containers[at];
        if container.pending.is_some() || container.seen.0 != container.process {
            return;
        }
        let traffic = Traffic { rx_bytes: container.counter, ..Traffic::default() };
        let usage = Usage {
            cpu: CpuUsage { total: container.counter, online: 1, ..CpuUsage::default() },
            networks: vec![Interface { name: "eth0".to_owned(), traffic }],
            ..Usage::default()
        };
        let reading = Reading { id: id(at), read: Moment(self.wall), at: self.at - self.since, usage };
        container.pending = Some((reading, container.process.clone()));
    }

    fn answer(&mut self, at: usize) -> Result<(), TestCaseError> {
        if let Some((reading, process)) = self.containers[at].pending.take() {
            self.collection.add(reading, &process);
        }
        let LastStatistics::Known(last) = self.collection.lookup(&id(at)) else { return Ok(()) };
        let container = &mut self.containers[at];
        let total = last.usage.cpu.total;
        prop_assert!(total >= container.shown, "{} has become {total}", container.shown);
        prop_assert!(total <= container.used, "{total} of {}", container.used);
        prop_assert_eq!(last.usage.networks[0].traffic.rx_bytes, total);
        container.shown = total;
        Ok(())
    }

    fn report(&mut self) -> Result<(), TestCaseError> {
        let Gathered::Tasks(tasks) = self.collection.gather() else { return Ok(()) };
        for reported in &tasks[0].containers {
            let at = usize::from(reported.name.as_str() != "name-0");
            prop_assert!(reported.cpu.min >= 0.0 && reported.cpu.max < 100.01, "{:?}", reported.cpu);
            let container = &mut self.containers[at];
            container.reported += reported.restarts.unwrap_or_default();
            prop_assert!(container.reported <= container.restarts);
        }
        Ok(())
    }

    /// Another process of the agent, which knows what was saved.
    fn restart_the_agent(&mut self) {
        let saved = serde_json::to_string(&self.collection.to_save()).unwrap();
        self.collection = Collection::new(serde_json::from_str(&saved).unwrap(), 20);
        self.since = self.at;
        for container in &mut self.containers {
            (container.pending, container.shown, container.reported) = (None, 0, 0);
        }
        self.see();
    }
}

/// What happens: a kind, a container, a number, and seconds.
fn steps() -> impl Strategy<Value = Vec<(u8, usize, u64, u64)>> {
    prop::collection::vec((0..20_u8, 0..CONTAINERS, 0..=100_u64, 0..4_u64), 1..200)
}

proptest! {
    /// Views and readings come late or not at all, clocks are set, process ids come back.
    #[test]
    fn nothing_falls_and_nothing_is_invented(steps in steps()) {
        let mut world = World::new();
        for (kind, at, number, seconds) in steps {
            match kind {
                0..2 => world.start(at, (number % 2) as u32),
                2..4 => world.see(),
                4 => world.restart_the_agent(),
                5..7 => world.report()?,
                7 => world.wall = number * SECOND,
                8..12 => world.works(at, seconds, number),
                12..14 => world.ask(at),
                14..16 => world.answer(at)?,
                _ => {
                    world.ask(at);
                    world.answer(at)?;
                }
            }
        }
    }

    /// An agent that reads each run at its end shows all that was used, over any number of its own restarts.
    #[test]
    fn what_is_read_in_time_is_shown_in_full(steps in steps()) {
        let mut world = World::new();
        for (kind, at, number, seconds) in steps {
            match kind {
                0..4 => {
                    world.ask(at);
                    world.answer(at)?;
                    world.start(at, (number % 2) as u32);
                    world.see();
                    // Before the agent may end: it knows only of restarts that it saw.
                    world.ask(at);
                    world.answer(at)?;
                }
                4..6 => world.restart_the_agent(),
                6..8 => world.report()?,
                8 => world.wall = number * SECOND,
                _ => world.works(at, seconds, number),
            }
        }
        for at in 0..CONTAINERS {
            world.ask(at);
            world.answer(at)?;
            prop_assert_eq!(world.containers[at].shown, world.containers[at].used);
        }
    }
}
