//! The world around one agent: its disk, Docker, ECS, pending effects and the time.
//!
//! `moves`, `turn`, `outcome`, `life` and `heal` change it. The world judges nothing; `laws` does, from inside the turn.

use crate::control::Ecs;
use crate::docker::Docker;
use crate::fetcher::Fetcher;
use crate::network::{Net, Run};
use crate::schedule::{Point, Rng};
use ecs_core::model::view::View;
use ecs_core::model::{CredentialsId, OpId, Owners, Span, StateChange, TaskArn, Timestamp};
use ecs_core::state::{HostState, OperationOwner};
use ecs_core::{
    Capacity, Effect, ImagePolicy, Key, Operation, Outcome, Policy, PullBehavior, State, TaskState, UntrackedPolicy,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// An effect that the agent has started and that has not been answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// The id of the operation.
    pub(crate) op: OpId,
    pub(crate) effect: Effect,
    /// The part of the core's state that waits for the outcome.
    pub(crate) owner: Option<OperationOwner>,
    /// The outcome, if the effect is done and its answer is on the way; `None` before.
    pub(crate) answer: Option<Outcome>,
    /// The agent has cancelled the operation and ignores its outcome.
    pub(crate) cancelled: bool,
}

/// The stored documents, which survive the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) host: HostState,
    pub(crate) tasks: BTreeMap<TaskArn, TaskState>,
}

/// The effects and changes of the steps since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Number of steps.
    pub(crate) steps: u32,
    pub(crate) effects: Vec<Effect>,
    pub(crate) changed: BTreeSet<Key>,
    /// A step of this turn must be committed at once.
    pub(crate) is_urgent: bool,
    /// Reports whose answers have arrived at the agent.
    pub(crate) confirmed: Vec<StateChange>,
    /// Tasks that ECS asked to stop.
    pub(crate) stops: Vec<TaskArn>,
    /// Networks that were set up, and whose answers have arrived at the agent.
    pub(crate) set_up: Vec<Run>,
    /// Attachments whose reports were answered.
    pub(crate) attached: Vec<String>,
}

/// The time at the beginning of every schedule, far from zero because the clock may be set back.
const BEGIN: Timestamp = Timestamp(1_000_000_000_000);

/// One agent and everything around it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    /// The state of the agent's core.
    pub(crate) state: State,
    /// What readers see of it.
    pub(crate) view: View,
    pub(crate) disk: Disk,
    pub(crate) docker: Docker,
    pub(crate) fetcher: Fetcher,
    pub(crate) net: Net,
    pub(crate) ecs: Ecs,
    pub(crate) pending: Vec<Pending>,
    /// Effects that timed out and that will still be done.
    pub(crate) late: Vec<Effect>,
    /// Credentials in the agent's memory.
    pub(crate) credentials: BTreeSet<CredentialsId>,
    /// Number of endpoint ids that were drawn for containers.
    pub(crate) drawn_ids: u64,
    /// Resources in the agent's memory.
    pub(crate) memory: BTreeSet<(TaskArn, String)>,
    /// Number of consecutive failed removals of each resource.
    pub(crate) failed_removals: BTreeMap<(TaskArn, String), u32>,
    /// No laws are checked.
    pub(crate) skips_laws: bool,
    /// The first law that was broken.
    pub(crate) broken: Option<String>,
    /// The lines of the trace; `None` if the run is not traced.
    pub(crate) trace: Option<Vec<String>>,
    /// Number of steps so far.
    pub(crate) steps: u64,
    /// The law that planning again yields nothing compares the whole states, not only the results.
    pub(crate) thorough: bool,
    /// The effects that are being started come from several steps, so the state has changed since some of them were decided.
    pub(crate) burst: bool,
    /// The failed operations of each owner since its last success: the time of the failure, and whether the owner had to stop
    /// then.
    pub(crate) failed: Vec<(OperationOwner, Timestamp, bool)>,
    /// For each owner, separately for creates (`false`) and starts (`true`): the number of consecutive operations that timed out
    /// and were not done.
    pub(crate) unanswered: Vec<(OperationOwner, bool, u32)>,
    /// Tasks that held a share of the host when the agent restarted on a smaller one.
    pub(crate) inherited: BTreeSet<TaskArn>,
    /// The last operation of each owner: its kind, its time, and the number of facts until then.
    pub(crate) last_operations: Vec<(OperationOwner, std::mem::Discriminant<Operation>, Timestamp, u64)>,
    /// Number of new facts so far: events that were neither outcomes nor ticks.
    pub(crate) facts: u64,
    /// Number of inventories that have arrived.
    pub(crate) listings: u64,
    /// ECS has sent a manifest since the faults ended.
    pub(crate) has_sent_manifest: bool,
    /// Number of creates and starts that will get no answer, because Docker hangs.
    pub(crate) hanging_operations: u8,
    /// Number of operations that will fail temporarily, because Docker cannot be reached.
    pub(crate) failing_operations: u8,
    pub(crate) turn: Turn,
    /// The state of the agent was lost at least once.
    pub(crate) was_lost: bool,
    /// Keys of documents that changed and are not committed yet.
    pub(crate) unwritten: BTreeSet<Key>,
    /// Commits are deferred as long as they may be.
    pub(crate) defers_commits: bool,
    /// Number of events that are still to be added to the current turn before its commit.
    pub(crate) burst_left: u8,
    /// The point of the next turn at which the agent dies, and the bits for the restart; `None`: it does not die.
    pub(crate) crash_at: Option<(Point, u64)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed ^ 0x000b_005e_0fa1_1ce5);
        let policy = policy(&mut rng, seed);
        let mut world = Self {
            now: BEGIN,
            state: ecs_core::recover(policy, HostState::default(), []),
            view: View::default(),
            disk: Disk::default(),
            docker: Docker::new(rng.percent(70)),
            fetcher: Fetcher::default(),
            net: Net::default(),
            ecs: Ecs::default(),
            pending: Vec::new(),
            late: Vec::new(),
            credentials: BTreeSet::new(),
            drawn_ids: 0,
            memory: BTreeSet::new(),
            failed_removals: BTreeMap::new(),
            skips_laws: false,
            broken: None,
            trace: None,
            steps: 0,
            thorough: seed.is_multiple_of(16),
            burst: false,
            failed: Vec::new(),
            unanswered: Vec::new(),
            inherited: BTreeSet::new(),
            last_operations: Vec::new(),
            facts: 0,
            listings: 0,
            has_sent_manifest: false,
            hanging_operations: 0,
            failing_operations: 0,
            turn: Turn::default(),
            was_lost: false,
            unwritten: BTreeSet::new(),
            defers_commits: rng.percent(50),
            burst_left: 0,
            crash_at: None,
        };
        let untracked = UntrackedPolicy { containers_per_cycle: 2, minimum_age: Span::default() };
        world.state.policy.images.untracked = rng.percent(30).then_some(untracked);
        // Some schedules begin with an older agent, which writes no owner label; after a restart it is a new one.
        world.docker.owner = rng.percent(75).then(|| world.state.policy.owners.own.clone());
        world
    }

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if let Some(mut trace) = self.trace.take() {
            trace.push(format!("{:>9} {}", self.now.0.cast_signed() - BEGIN.0.cast_signed(), line(self)));
            self.trace = Some(trace);
        }
    }

    pub(crate) fn breaks(&mut self, law: &str, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let text = format!("{law}: {}", what());
            self.note(|_| format!("BROKEN {text}"));
            self.broken = Some(text);
        }
    }
}

fn policy(rng: &mut Rng, seed: u64) -> Policy {
    Policy {
        capacity: Capacity {
            cpu: 1024,
            memory: 700,
            reserved_tcp: BTreeSet::from([22]),
            gpus: BTreeSet::from(["gpu-0".to_owned()]),
            ..Capacity::default()
        },
        pull: match rng.below(6) {
            0 => PullBehavior::Always,
            1 => PullBehavior::Once,
            2 => PullBehavior::PreferCached,
            _ => PullBehavior::Default,
        },
        pull_upfront: rng.percent(20),
        cleanup_wait: Span::secs([30, 900][rng.below(2) as usize]),
        cleanup_jitter: Span::secs(rng.below(3) * 10),
        inventory_every: Span::secs(300),
        images: ImagePolicy {
            enabled: rng.percent(50),
            interval: Span::secs([40, 300][rng.below(2) as usize]),
            minimum_age: Span::secs(rng.below(2) * 60),
            per_cycle: 1 + rng.below(2) as u32,
            exclude: if rng.percent(20) { BTreeSet::from(["image-1".to_owned()]) } else { BTreeSet::new() },
            untracked: None,
            disk: rng.percent(20).then_some((60, 30)),
        },
        pause_cleanup_delay: Span::secs([0, 0, 20][Rng(seed ^ 0x0de1).below(3) as usize]),
        // Some operators allow one such task at a time.
        local_address: (Rng(seed ^ 0x10ca1).below(8) == 0).then_some(Ipv4Addr::new(169, 254, 173, 7)),
        owners: Owners { own: "us-0".into(), ..Owners::default() },
    }
}
