//! The world around one agent: it interprets effects, and kills and restarts the agent.
//!
//! The order of a turn is the production loop's: step, commit, act. What is on disk is what the agent comes back with. The world
//! judges nothing; `laws` does, from inside the turn.

use crate::control::{Ecs, Message};
use crate::docker::Docker;
use crate::laws;
use crate::schedule::{Delivery, How, Move, Point, Rng};
use ecs_agent::engine::state::{HostState, Owner};
use ecs_agent::engine::{self, Capacity, Effect, Event, Key, Outcome, Output, Policy, PullBehavior, State, TaskState};
use ecs_agent::model::{
    CredentialsAck, CredentialsId, Failure, OpId, RunState, Span, StateChange, TaskArn, TaskStatus, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};

/// An effect that was handed out and not answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) op: OpId,
    pub(crate) effect: Effect,
    pub(crate) owner: Option<Owner>,
    /// Done already; the answer is under way.
    pub(crate) answer: Option<Outcome>,
    pub(crate) cancelled: bool,
}

/// What survives the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) host: HostState,
    pub(crate) tasks: BTreeMap<TaskArn, TaskState>,
}

/// What steps asked for since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    steps: u32,
    effects: Vec<Effect>,
    changed: BTreeSet<Key>,
    /// Reports whose acceptance the agent has heard of.
    heard: Vec<StateChange>,
    /// Tasks it was asked to stop.
    stops: Vec<TaskArn>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) state: State,
    pub(crate) disk: Disk,
    pub(crate) docker: Docker,
    pub(crate) ecs: Ecs,
    pub(crate) pending: Vec<Pending>,
    /// Work of effects that timed out; the container engine does it yet.
    pub(crate) late: Vec<Effect>,
    /// Credentials in the agent's memory.
    pub(crate) credentials: BTreeSet<CredentialsId>,
    /// The first law that was broken.
    pub(crate) broken: Option<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) steps: u64,
    /// Compare whole states when planning again, not only what comes out of it.
    pub(crate) thorough: bool,
    /// The effects being handed out come from several steps: the state has gone on since some were decided.
    pub(crate) burst: bool,
    /// When an operation of that owner failed last, if nothing has worked for it since.
    pub(crate) failed: Vec<(Owner, Timestamp)>,
    /// Creates, or starts (`true`), in a row that timed out without having been done.
    pub(crate) unanswered: Vec<(Owner, bool, u32)>,
    jam: u8,
    turn: Turn,
    hold: u8,
    crash_at: Option<(Point, u64)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed ^ 0x000b_005e_0fa1_1ce5);
        let policy = Policy {
            capacity: Capacity { cpu: 1024, memory: 700, reserved_tcp: BTreeSet::from([22]), ..Capacity::default() },
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
        };
        let mut state = State { policy, ..State::default() };
        state.inventory.due = Timestamp(1_000_000);
        Self {
            now: Timestamp(1_000_000),
            state: engine::recover(state.policy, HostState::default(), []),
            disk: Disk::default(),
            docker: Docker::new(rng.percent(70)),
            ecs: Ecs::default(),
            pending: Vec::new(),
            late: Vec::new(),
            credentials: BTreeSet::new(),
            broken: None,
            trace: None,
            steps: 0,
            thorough: seed.is_multiple_of(16),
            burst: false,
            failed: Vec::new(),
            unanswered: Vec::new(),
            jam: 0,
            turn: Turn::default(),
            hold: 0,
            crash_at: None,
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if let Some(mut trace) = self.trace.take() {
            trace.push(format!("{:>9} {}", self.now.0 - 1_000_000, line(self)));
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

    pub(crate) fn feed(&mut self, event: Event) {
        if self.broken.is_some() {
            return;
        }
        self.note(|_| format!("<- {event:?}"));
        if let Event::Payload { tasks, .. } = &event {
            let stops = tasks.iter().filter_map(|task| match task {
                engine::PayloadTask::Stop(arn) => Some(arn.clone()),
                engine::PayloadTask::Run(_) | engine::PayloadTask::Refused { .. } => None,
            });
            self.turn.stops.extend(stops);
        }
        let before = laws::Before::of(&self.state);
        let step = engine::step(&mut self.state, self.now, event);
        self.steps += 1;
        laws::after_step(self, &before);
        self.turn.steps += 1;
        self.turn.effects.extend(step.effects);
        self.turn.changed.extend(step.changed);
        if self.hold > 0 {
            self.hold -= 1;
            return;
        }
        self.end_turn();
    }

    fn end_turn(&mut self) {
        self.hold = 0;
        let turn = std::mem::take(&mut self.turn);
        let crash = self.crash_at.take();
        if let Some((Point::BeforeCommit, bits)) = crash {
            return self.crash(bits);
        }
        self.commit(&turn);
        if let Some((Point::AfterCommit, bits)) = crash {
            return self.crash(bits);
        }
        self.burst = turn.steps > 1;
        let most = match crash {
            Some((Point::AmongEffects(most), _)) => most,
            Some((Point::BeforeCommit | Point::AfterCommit, _)) | None => usize::MAX,
        };
        for effect in turn.effects.into_iter().take(most) {
            self.act(effect);
        }
        for arn in &turn.stops {
            if let Some(task) = self.ecs.tasks.get_mut(arn) {
                task.stop_arrived = true;
            }
        }
        if let Some((_, bits)) = crash {
            self.crash(bits);
        }
    }

    fn commit(&mut self, turn: &Turn) {
        for change in &turn.heard {
            if let Some(task) = self.ecs.tasks.get_mut(&change.task) {
                task.told.add(change);
            }
        }
        for key in &turn.changed {
            match key {
                Key::Host => self.disk.host = self.state.host.clone(),
                Key::Task(arn) => match self.state.tasks.get(arn) {
                    Some(task) => {
                        let old = self.disk.tasks.insert(arn.clone(), stored(task));
                        // Forgotten, and asked for again: its story starts anew.
                        if old.is_none_or(|old| old.arrival != task.arrival)
                            && let Some(known) = self.ecs.tasks.get_mut(arn)
                        {
                            known.told = Default::default();
                        }
                    }
                    None => {
                        self.disk.tasks.remove(arn);
                    }
                },
            }
        }
        laws::after_commit(self);
    }

    fn act(&mut self, effect: Effect) {
        self.note(|_| format!("-> {effect:?}"));
        laws::before_effect(self, &effect);
        match effect {
            Effect::ResolveDigest { op, .. }
            | Effect::Pull { op, .. }
            | Effect::Create { op, .. }
            | Effect::Start { op, .. }
            | Effect::Stop { op, .. }
            | Effect::Inspect { op, .. }
            | Effect::Remove { op, .. }
            | Effect::Inventory { op }
            | Effect::Report { op, .. } => {
                let owner = self.state.ops.get(&op).cloned();
                self.pending.push(Pending { op, effect, owner, answer: None, cancelled: false });
            }
            Effect::Cancel { op } => {
                for pending in self.pending.iter_mut().filter(|pending| pending.op == op) {
                    pending.cancelled = true;
                }
            }
            Effect::Ack(ack) => {
                if self.ecs.acks_to_lose > 0 {
                    self.ecs.acks_to_lose -= 1;
                } else {
                    self.ecs.messages.retain(|message| message.ack.message_id != ack.message_id);
                }
            }
            // Told or not: ECS renews credentials when it is time.
            Effect::AckCredentials(_) => {}
            Effect::AskToStop { message_id, tasks, .. } => self.ecs.asked_to_stop(&message_id, &tasks),
            Effect::ForgetCredentials { id } => {
                // Within one burst they may have come again.
                if !self.state.credentials.contains(&id) {
                    self.credentials.remove(&id);
                }
            }
        }
    }

    fn crash(&mut self, bits: u64) {
        self.note(|_| "KILLED".to_owned());
        let mut rng = Rng(bits);
        for pending in std::mem::take(&mut self.pending) {
            if pending.answer.is_some() {
                continue;
            }
            match rng.below(3) {
                0 => {}
                1 => {
                    self.perform(&pending.effect);
                }
                _ => self.later(pending.effect),
            }
        }
        self.docker.events.clear();
        self.credentials.clear();
        self.turn = Turn::default();
        (self.hold, self.crash_at, self.jam) = (0, None, 0);
        self.failed.clear();
        self.unanswered.clear();
        laws::before_restart(self);
        let policy = self.state.policy.clone();
        // Exactly what the store does: text out, text in.
        let host = reread(&self.disk.host);
        let tasks: Vec<TaskState> = self.disk.tasks.values().map(reread).collect();
        self.state = engine::recover(policy, host, tasks);
        if rng.percent(70) {
            self.feed(Event::Tick);
        }
    }

    /// The agent is killed, and starts with an empty disk. What was in flight is done or not; nothing of it is done later.
    fn lose_state(&mut self, bits: u64) {
        self.note(|_| "STATE LOST".to_owned());
        let mut rng = Rng(bits);
        for pending in std::mem::take(&mut self.pending) {
            if pending.answer.is_none() && rng.percent(50) {
                self.perform(&pending.effect);
            }
        }
        self.late.clear();
        self.disk = Disk { host: HostState { lost: true, ..HostState::default() }, ..Disk::default() };
        self.ecs.state_lost();
        self.crash(bits);
    }

    /// Does the work of an effect; what the answer would be.
    fn perform(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::Report { change, .. } => {
                if let Some(task) = self.ecs.tasks.get_mut(&change.task) {
                    task.heard.add(change);
                }
                Outcome::Done(Output::Nothing)
            }
            other => self.docker.perform(other, false),
        }
    }

    /// Nobody waits for this effect any more; it may be done yet.
    fn later(&mut self, effect: Effect) {
        match effect {
            Effect::Create { .. }
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Remove { .. }
            | Effect::Pull { .. } => self.late.push(effect),
            // A report that got through counts, whether or not the agent hears of it.
            Effect::Report { .. } => {
                self.perform(&effect);
            }
            // Looking changes nothing.
            Effect::ResolveDigest { .. } | Effect::Inspect { .. } | Effect::Inventory { .. } => {}
            Effect::Cancel { .. }
            | Effect::Ack(_)
            | Effect::AckCredentials(_)
            | Effect::AskToStop { .. }
            | Effect::ForgetCredentials { .. } => unreachable!("done at once"),
        }
    }

    fn answer(&mut self, pending: Pending, outcome: Outcome) {
        if let (Effect::Report { change, .. }, false) = (&pending.effect, is_retried(&outcome)) {
            self.turn.heard.push((**change).clone());
        }
        if let Some(owner) = pending.owner.as_ref().filter(|_| !pending.cancelled) {
            let is_given_up = matches!(pending.effect, Effect::Create { .. } | Effect::Start { .. });
            let is_image_work = matches!(pending.effect, Effect::ResolveDigest { .. } | Effect::Pull { .. });
            let is_report = matches!(pending.effect, Effect::Report { .. });
            match &outcome {
                Outcome::Done(_) => self.failed.retain(|(other, _)| other != owner),
                _ if is_image_work || ((is_given_up || is_report) && !is_retried(&outcome)) => {}
                Outcome::Failed(_) | Outcome::Unknown(_) => self.failed.push((owner.clone(), self.now)),
            }
        }
        self.feed(Event::Completed { op: pending.op, outcome });
    }

    fn go_on(&mut self, at: usize, how: How) {
        let mut pending = self.pending.remove(at);
        if let Some(outcome) = pending.answer.take() {
            return self.answer(pending, outcome);
        }
        let is_begun = matches!(pending.effect, Effect::Create { .. } | Effect::Start { .. });
        let how = if is_begun && self.jam > 0 { How::TimesOut } else { how };
        if is_begun && let Some(owner) = &pending.owner {
            self.jam = self.jam.saturating_sub(1);
            let is_start = matches!(pending.effect, Effect::Start { .. });
            let count = self.unanswered.iter().find(|it| it.0 == *owner && it.1 == is_start).map_or(0, |it| it.2);
            self.unanswered.retain(|it| it.0 != *owner);
            if how == How::TimesOut {
                self.unanswered.push((owner.clone(), is_start, count + 1));
            }
        }
        let outcome = match how {
            How::Works => self.perform(&pending.effect),
            How::AnswersLater => {
                pending.answer = Some(self.perform(&pending.effect));
                return self.pending.push(pending);
            }
            How::FailsForNow => self.docker.refuse(&pending.effect, failure(&pending.effect, true)),
            How::Fails => {
                if let Effect::Report { change, .. } = &pending.effect
                    && let Some(task) = self.ecs.tasks.get_mut(&change.task)
                {
                    task.heard.add(change); // refused for good: ECS will not hear more of it
                }
                self.docker.refuse(&pending.effect, failure(&pending.effect, false))
            }
            How::TimesOut => Outcome::Unknown(failure(&pending.effect, false)),
            How::TimesOutDone => {
                self.perform(&pending.effect);
                Outcome::Unknown(failure(&pending.effect, false))
            }
            How::TimesOutLate => {
                self.later(pending.effect.clone());
                Outcome::Unknown(failure(&pending.effect, false))
            }
        };
        self.answer(pending, outcome);
    }

    pub(crate) fn deliver(&mut self, pick: usize) {
        let Some(Message { seq, ack, tasks }) = self.ecs.arriving(pick) else { return };
        for task in &tasks {
            if let engine::PayloadTask::Run(spec) = task
                && let Some(id) = self.ecs.tasks[&spec.arn].credentials.clone()
            {
                self.credentials.insert(id.clone());
                self.feed(Event::CredentialsArrived { task: None, ids: vec![id], ack: None });
            }
        }
        self.feed(Event::Payload { tasks, seq, ack: Some(ack) });
    }

    pub(crate) fn send_credentials(&mut self, pick: usize, renew: bool) {
        let Some(at) = pick.checked_rem(self.ecs.tasks.len()) else { return };
        let Some((arn, task)) = self.ecs.tasks.iter_mut().nth(at) else { return };
        if !self.disk.tasks.contains_key(arn) && task.heard.status != TaskStatus::Stopped {
            return; // ECS renews what it has sent; the first ones come with the task
        }
        let Some(id) = &mut task.credentials else { return };
        if renew {
            id.0.push('+');
        }
        let (arn, id) = (arn.clone(), id.clone());
        self.credentials.insert(id.clone());
        let ack = CredentialsAck { message_id: String::new(), id: id.clone(), expiration: String::new() };
        self.feed(Event::CredentialsArrived { task: Some(arn), ids: vec![id], ack: Some(ack) });
    }

    pub(crate) fn fact(&mut self, pick: usize, delivery: Delivery) {
        let Some(at) = pick.checked_rem(self.docker.events.len()) else { return };
        let event = match delivery {
            Delivery::Twice => self.docker.events[at].clone(),
            Delivery::Once | Delivery::Lost => self.docker.events.remove(at),
        };
        if delivery != Delivery::Lost || event == Event::ObservationsLost {
            self.feed(event);
        }
    }

    pub(crate) fn advance(&mut self) {
        if let Some(at) = engine::next_deadline(&self.state) {
            self.now = self.now.max(at);
        }
        self.feed(Event::Tick);
    }

    /// A container of a task of ours, to do something to it by hand.
    fn choose(&self, pick: usize, is_fit: impl Fn(&crate::docker::Container) -> bool) -> Option<usize> {
        let fit = |at: &usize| {
            let container = &self.docker.containers[*at];
            !container.foreign && is_fit(container)
        };
        let fitting: Vec<usize> = (0..self.docker.containers.len()).filter(fit).collect();
        fitting.get(pick.checked_rem(fitting.len())?).copied()
    }

    pub(crate) fn make(&mut self, step: Move) {
        if self.broken.is_some() {
            return;
        }
        self.note(|_| format!("{step:?}"));
        self.now = self.now + Span::millis(7);
        match step {
            Move::Send(shape) => self.ecs.send(shape),
            Move::Stop(pick) => self.ecs.stop(pick),
            Move::StopSilently(pick) => {
                self.ecs.stop_silently(pick);
            }
            Move::StopUnknown => self.ecs.stop_unknown(),
            Move::Refuse => self.ecs.refuse(),
            Move::Deliver(pick) => self.deliver(pick),
            Move::Manifest => {
                let manifest = self.ecs.manifest();
                self.feed(manifest);
            }
            Move::Confirm(pick) => {
                if let Some(at) = pick.checked_rem(self.ecs.confirmations.len()) {
                    self.feed(self.ecs.confirmations[at].clone());
                }
            }
            Move::Credentials(pick, renew) => self.send_credentials(pick, renew),
            Move::LoseAcks(count) => self.ecs.acks_to_lose = count,
            Move::Do(pick, how) => {
                if let Some(at) = pick.checked_rem(self.pending.len()) {
                    self.go_on(at, how);
                }
            }
            Move::Stale(op) => {
                if !self.state.ops.contains_key(&OpId(op)) {
                    self.feed(Event::Completed { op: OpId(op), outcome: Outcome::Done(Output::Seen(None)) });
                }
            }
            Move::Fact(pick, delivery) => self.fact(pick, delivery),
            Move::BreakStream => {
                self.docker.events.clear();
                self.docker.events.push(Event::ObservationsLost);
            }
            Move::Land(pick) => self.land(pick),
            Move::Hold(count) => self.hold = count,
            Move::Jam(count) => self.jam = count,
            Move::Advance => self.advance(),
            Move::Wait(millis) => {
                self.now = self.now + Span::millis(millis);
                self.feed(Event::Tick);
            }
            Move::Crash(bits) => self.crash(bits),
            Move::LoseState(bits) => self.lose_state(bits),
            Move::CrashAt(point, bits) => self.crash_at = Some((point, bits)),
            Move::Exit(..)
            | Move::Health(..)
            | Move::HandStart(_)
            | Move::HandRemove(_)
            | Move::RestartDocker
            | Move::LoseImage(_) => self.happens(step),
        }
    }

    /// What happens to containers without anybody asking.
    fn happens(&mut self, step: Move) {
        match step {
            Move::Exit(pick, code) => {
                if let Some(at) = self.choose(pick, |it| it.state == RunState::Running) {
                    self.docker.exit(at, code);
                }
            }
            Move::Health(pick, good) => {
                if let Some(at) = self.choose(pick, |it| it.state == RunState::Running && it.health_check) {
                    self.docker.health(at, good);
                }
            }
            Move::HandStart(pick) => {
                if let Some(at) = self.choose(pick, |it| it.started && it.state == RunState::Exited) {
                    self.docker.start(at, true);
                }
            }
            Move::HandRemove(pick) => {
                if let Some(at) = self.choose(pick, |_| true) {
                    self.docker.remove(at);
                }
            }
            Move::RestartDocker => self.docker.restart(),
            Move::LoseImage(pick) => {
                if let Some(at) = pick.checked_rem(self.docker.images.len()) {
                    let image = self.docker.images.iter().nth(at).cloned();
                    self.docker.images.retain(|it| Some(it) != image.as_ref());
                }
            }
            _ => unreachable!("not a fact of the container engine"),
        }
    }

    pub(crate) fn land(&mut self, pick: usize) {
        if let Some(at) = pick.checked_rem(self.late.len()) {
            let effect = self.late.remove(at);
            self.docker.perform(&effect, true);
        }
    }

    /// No more trouble: what is under way arrives, what is held back is committed.
    pub(crate) fn heal(&mut self) {
        self.note(|_| "HEALED".to_owned());
        self.ecs.acks_to_lose = 0;
        (self.hold, self.crash_at, self.jam) = (0, None, 0);
        self.feed(Event::Tick);
    }

    /// Everything that can go on without time passing does; false when nothing could.
    pub(crate) fn drain_one(&mut self) -> bool {
        if !self.pending.is_empty() {
            self.go_on(0, How::Works);
        } else if !self.docker.events.is_empty() {
            self.fact(0, Delivery::Once);
        } else if !self.late.is_empty() {
            self.land(0);
        // Until lost tasks are known again, what ECS says is kept for later and not answered.
        } else if !self.ecs.messages.is_empty() && !self.state.host.lost {
            self.deliver(0);
        } else {
            return self.live();
        }
        true
    }

    /// Containers do what others wait for: they get healthy, or they end.
    fn live(&mut self) -> bool {
        for at in 0..self.docker.containers.len() {
            let container = &self.docker.containers[at];
            if container.foreign || container.state != RunState::Running {
                continue;
            }
            let Some(task) = self.state.tasks.get(&container.task) else { continue };
            let is_waited_for = task.spec.containers.iter().flat_map(|it| &it.depends_on).any(|it| {
                use ecs_agent::model::task::Condition;
                it.container == container.container && matches!(it.condition, Condition::Complete | Condition::Success)
            });
            if is_waited_for {
                self.docker.exit(at, 0);
                return true;
            }
            if container.health_check && container.health != ecs_agent::model::Health::Healthy {
                self.docker.health(at, true);
                return true;
            }
        }
        let missing = self.ecs.tasks.iter().position(|(arn, task)| {
            self.state.tasks.contains_key(arn) // it takes none for a task it does not know
                && task.heard.status != TaskStatus::Stopped
                && task.credentials.as_ref().is_some_and(|id| !self.credentials.contains(id))
        });
        if let Some(at) = missing {
            self.send_credentials(at, false);
        }
        missing.is_some()
    }
}

/// What is left of a task when it was stored: without everything that is skipped.
pub(crate) fn stored(task: &TaskState) -> TaskState {
    let mut task = task.clone();
    task.report = None;
    task.report_retry = Default::default();
    task.drain_at = None;
    task.removing = false;
    task.wake = None;
    task.inherited = false;
    task.retired_credentials.clear();
    for container in &mut task.containers {
        container.operation = None;
        container.unsettled = false;
        container.retry = Default::default();
        container.doubt = None;
        container.doubts = 0;
        container.touched = 0;
    }
    task
}

/// Through JSON and back.
pub(crate) fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("the state can be written");
    serde_json::from_str(&text).expect("the state can be read")
}

fn is_retried(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => false,
        Outcome::Failed(failure) => failure.kind == ecs_agent::model::FailureKind::Retryable,
        Outcome::Unknown(_) => true,
    }
}

fn failure(effect: &Effect, passes: bool) -> Failure {
    if let Effect::Pull { image, .. } | Effect::ResolveDigest { image, .. } = effect
        && matches!(image.auth, ecs_agent::model::task::RegistryAuth::Secret(_))
    {
        return Failure::ends_task("the secret is not to be had");
    }
    let name = match effect {
        Effect::Pull { .. } | Effect::ResolveDigest { .. } => "CannotPullContainerError",
        Effect::Create { .. } => "CannotCreateContainerError",
        Effect::Start { .. } => "CannotStartContainerError",
        _ => "Error",
    };
    if passes { Failure::retryable(name, "not now") } else { Failure::permanent(name, "no") }
}
