//! The agent is killed and restarts with the documents on disk.
//!
//! Meanwhile the clock may have been set back, and the host may have become smaller.

use crate::docker::{DATA_DIRECTORY, OTHER_AGENT};
use crate::laws;
use crate::schedule::Rng;
use crate::world::{Disk, Turn, World};
use ecs_core::model::resource::Lifetime;
use ecs_core::model::{Owners, Span, TaskStatus};
use ecs_core::state::HostState;
use ecs_core::{Event, PullBehavior, TaskState};
use std::collections::BTreeSet;

impl World {
    pub(crate) fn crash(&mut self, bits: u64) {
        self.note(|_| "KILLED".to_owned());
        let mut rng = Rng(bits);
        for pending in std::mem::take(&mut self.pending) {
            if pending.answer.is_some() {
                continue;
            }
            match rng.below(3) {
                0 => {}
                1 => {
                    let _outcome = self.perform(&pending.effect);
                }
                _ => self.later(pending.effect),
            }
        }
        if Rng(!bits).percent(10) {
            self.reboot();
        }
        self.docker.events.clear();
        self.credentials.clear();
        self.memory.clear();
        self.fetcher.ending.clear(); // the credentials are gone, and ECS sends them again
        self.turn = Turn::default();
        self.unwritten.clear();
        (self.burst_left, self.crash_at, self.hanging_operations) = (0, None, 0);
        self.failed.clear();
        self.net.failed.clear();
        self.net.asked.clear();
        self.unanswered.clear();
        self.last_operations.clear();
        laws::before_restart(self);
        self.docker.owner = Some(self.state.policy.owners.own.clone());
        if rng.percent(10) {
            let now = self.now;
            self.net.acknowledged.retain(|_, (_, expires_at)| *expires_at > now);
            self.now = now - Span::millis(rng.below(100_000_000));
            self.clock_set_back();
        }
        self.reconfigure(&mut rng);
        let policy = self.state.policy.clone();
        // As in the store: the state is written as text and read again.
        let host = reread(&self.disk.host);
        let tasks: Vec<TaskState> = self.disk.tasks.values().map(reread).collect();
        self.state = ecs_core::recover(policy, host, tasks);
        self.view = ecs_core::view(&self.state, self.now);
        self.net.shown.clear();
        if rng.percent(70) {
            self.feed(Event::Tick);
        } else {
            self.turn.steps = 1; // the first event comes before the recovered tasks are planned, as in a burst
        }
        if rng.percent(70) {
            self.show_links();
        }
    }

    /// The host goes down with the agent: no container runs, late effects are lost, and resources that end with a reboot are
    /// gone.
    fn reboot(&mut self) {
        self.note(|_| "REBOOT".to_owned());
        self.late.clear();
        self.docker.restart(u64::MAX);
        let tasks = &self.disk.tasks;
        self.docker.resources.retain(|(arn, name)| {
            let mut specs = tasks.get(arn).into_iter().flat_map(|task| &task.resources).map(|resource| &resource.spec);
            specs.any(|spec| spec.name == *name && spec.kind.lifetime() == Lifetime::Task)
        });
    }

    /// The agent is killed and restarts with an empty disk. Pending effects are done or lost, but not done later.
    pub(crate) fn lose_state(&mut self, bits: u64) {
        self.note(|_| "STATE LOST".to_owned());
        let mut rng = Rng(bits);
        for pending in std::mem::take(&mut self.pending) {
            if pending.answer.is_none() && rng.percent(50) {
                let _outcome = self.perform(&pending.effect);
            }
        }
        self.late.clear();
        // Only the disk holds how often a container was restarted.
        self.docker.truth.values_mut().for_each(|truth| truth.starts = truth.starts.min(1));
        self.docker.disown_renamed();
        self.disk = Disk { host: HostState { lost: true, ..HostState::default() }, ..Disk::default() };
        self.was_lost = true;
        if Rng(!bits).percent(50) {
            self.lose_identity();
        }
        self.ecs.state_lost();
        self.network_lost();
        self.crash(bits);
    }

    /// The identity is lost with the state. The agent gets another one and takes over the earlier one of its data directory. The
    /// other agent has a data directory of the same name, and runs.
    fn lose_identity(&mut self) {
        let owners = &mut self.state.policy.owners;
        let generation = owners.own.0.trim_start_matches("us-").parse::<u32>().expect("a number") + 1;
        *owners = Owners { own: format!("us-{generation}").into(), ..Owners::default() };
        owners.take_over(&self.docker.owner_marks(), DATA_DIRECTORY, &BTreeSet::from([OTHER_AGENT.into()]));
    }

    /// The operator changes a setting, or the host changes.
    fn reconfigure(&mut self, rng: &mut Rng) {
        if rng.percent(5) {
            let behaviours =
                [PullBehavior::Default, PullBehavior::Always, PullBehavior::Once, PullBehavior::PreferCached];
            self.state.policy.pull = behaviours[rng.below(4) as usize];
        }
        if rng.percent(15) {
            let capacity = &mut self.state.policy.capacity;
            (capacity.cpu, capacity.memory) = [(1024, 700), (512, 700), (1024, 300), (128, 100)][rng.below(4) as usize];
            let holds = |task: &&TaskState| task.admitted && task.known != TaskStatus::Stopped;
            self.inherited = self.disk.tasks.values().filter(holds).map(|task| task.spec.arn.clone()).collect();
            if self.disk.host.lost {
                // The shares of these tasks are not stored, but rebuilt tasks hold them again.
                let ran = self.docker.containers.iter().filter(|container| container.started && !container.foreign);
                self.inherited.extend(ran.map(|container| container.task.clone()));
            }
        }
    }
}

/// A task as it is stored: without the parts that are kept in memory only.
pub(crate) fn stored(task: &TaskState) -> TaskState {
    let mut task = task.clone();
    task.live = Default::default();
    task.resources.iter_mut().for_each(|resource| resource.state.live = Default::default());
    task.states_mut().for_each(|container| container.live = Default::default());
    task
}

/// Writes a document as JSON and reads it again.
pub(crate) fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("the state can be written");
    serde_json::from_str(&text).expect("the state can be read")
}
