//! Makes the moves of a schedule.

use crate::control::{Ecs, Message};
use crate::docker::Container;
use crate::schedule::{Delivery, Move};
use crate::world::World;
use ecs_core::model::{CredentialsAck, OpId, RoleKind, RunState, Span, TaskStatus};
use ecs_core::{Event, Output, TaskState};

impl World {
    pub(crate) fn make(&mut self, step: Move) {
        if self.broken.is_some() {
            return;
        }
        self.note(|_| format!("{step:?}"));
        self.now = self.now + Span::millis(7);
        match step {
            Move::Send(shape) => self.send(shape),
            Move::Attach(..) | Move::Plug(..) | Move::Unplug(_) | Move::ShowLinks => self.connects(step),
            Move::Stop(pick) => self.ecs.stop(pick),
            Move::StopSilently(pick) => {
                self.ecs.stop_silently(pick);
            }
            Move::StopUnknown => self.ecs.stop_unknown(),
            Move::Refuse => self.ecs.refuse(),
            Move::Deliver(pick) => self.deliver(self.ecs.arriving(&self.ecs.messages, pick)),
            Move::Again(pick) => self.deliver(self.ecs.arriving(&self.ecs.sent, pick)),
            Move::Manifest => {
                let manifest = self.ecs.manifest();
                self.feed(manifest);
            }
            Move::LateManifest => {
                self.ecs.manifest();
            }
            Move::OldManifest(pick) => self.repeat(pick, |ecs| &ecs.lists),
            Move::Confirm(pick) => self.repeat(pick, |ecs| &ecs.confirmations),
            Move::Credentials(pick, renew) => self.send_credentials(pick, renew),
            Move::LoseAcks(count) => self.ecs.acks_to_lose = count,
            Move::Do(pick, how) => {
                let at = pick.checked_rem(self.pending.len());
                at.into_iter().for_each(|at| self.go_on(at, how));
            }
            Move::Stale(op) => {
                if !self.state.ops.contains_key(&OpId(op)) {
                    self.feed(Event::Completed { op: OpId(op), outcome: Ok(Output::Seen(None)) });
                }
            }
            Move::Fact(pick, delivery) => self.fact(pick, delivery),
            Move::BreakStream => {
                self.docker.events.clear();
                self.docker.events.push(Event::EventsMissed);
            }
            Move::Land(pick) => self.land(pick),
            Move::Hold(count) => self.burst_left = count,
            Move::Jam(count) => self.hanging_operations = count,
            Move::Down(count) => self.failing_operations = count,
            Move::Advance => self.advance(),
            Move::Wait(millis) => {
                self.now = self.now + Span::millis(millis);
                self.feed(Event::Tick);
            }
            Move::Crash(bits) => self.crash(bits),
            Move::LoseState(bits) => self.lose_state(bits),
            Move::CrashAt(point, bits) => self.crash_at = Some((point, bits)),
            Move::Exit(..)
            | Move::Oom(_)
            | Move::Health(..)
            | Move::HandStart(_)
            | Move::HandRemove(_)
            | Move::HandRename(_)
            | Move::TakeName(_)
            | Move::RestartDocker(_)
            | Move::LoseImage(_) => self.happens(step),
        }
    }

    fn send(&mut self, shape: u64) {
        self.ecs.send(shape);
        self.plug_new(shape);
    }

    /// A message of ECS arrives, perhaps once more.
    fn repeat(&mut self, pick: usize, among: fn(&Ecs) -> &Vec<Event>) {
        if let Some(at) = pick.checked_rem(among(&self.ecs).len()) {
            self.feed(among(&self.ecs)[at].clone());
        }
    }

    /// Something happens to a device, or to what is known of it.
    fn connects(&mut self, step: Move) {
        match step {
            Move::Attach(pick, bits) => self.attach(pick, bits),
            Move::Plug(pick, is_shown) => self.plug(pick, is_shown),
            Move::Unplug(pick) => self.unplug(pick),
            _ => self.show_links(),
        }
    }

    /// Something happens to a container that the agent did not request.
    fn happens(&mut self, step: Move) {
        self.facts += 1;
        match step {
            Move::Exit(pick, code) => {
                if let Some(at) = self.choose(pick, |container| container.state == RunState::Running) {
                    self.docker.exit(at, code);
                }
            }
            Move::Oom(pick) => {
                if let Some(at) = self.choose(pick, |container| container.state == RunState::Running) {
                    self.docker.run_out_of_memory(at);
                }
            }
            Move::Health(pick, good) => {
                if let Some(at) =
                    self.choose(pick, |container| container.state == RunState::Running && container.health_check)
                {
                    self.docker.health(at, good);
                }
            }
            Move::HandStart(pick) => {
                if let Some(at) = self.choose(pick, |container| container.state == RunState::Exited) {
                    self.docker.start(at, true);
                }
            }
            Move::HandRemove(pick) => {
                if let Some(at) = self.choose(pick, |_| true) {
                    self.docker.remove(at);
                }
            }
            Move::HandRename(pick) => {
                if let Some(at) = self.choose(pick, |_| true) {
                    self.docker.rename(at);
                    if self.state.host.lost {
                        self.docker.disown_renamed();
                    }
                }
            }
            Move::TakeName(pick) => {
                let names = |task: &TaskState| task.pairs().map(|(spec, _)| spec.name.clone()).collect::<Vec<_>>();
                let tasks = self.state.tasks.values();
                let all: Vec<_> =
                    tasks.flat_map(|task| names(task).into_iter().map(|name| (task.outline(), name))).collect();
                if let Some((task, name)) = pick.checked_rem(all.len()).map(|at| &all[at]) {
                    // Every other time the container belongs to another agent with the same task.
                    match pick / all.len() % 2 {
                        0 => self.docker.add_foreign_container(task.runtime_name(name), RunState::Exited),
                        _ => self.docker.add_container_of_other_agent(task, name, RunState::Exited),
                    }
                }
            }
            Move::RestartDocker(bits) => self.docker.restart(bits),
            Move::LoseImage(pick) => {
                if let Some(at) = pick.checked_rem(self.docker.images.len()) {
                    let image = self.docker.images.iter().nth(at).cloned();
                    self.docker.images.retain(|name| Some(name) != image.as_ref());
                }
            }
            _ => unreachable!("not a fact of the container engine"),
        }
    }

    pub(crate) fn deliver(&mut self, message: Option<Message>) {
        let Some(Message { seq, ack, mut tasks }) = message else { return };
        for task in &mut tasks {
            let ecs_core::PayloadTask::Run(spec) = task else { continue };
            // The edge draws the ids whenever a payload arrives.
            for container in &mut spec.containers {
                self.drawn_ids += 1;
                container.endpoint_id = format!("endpoint-{}", self.drawn_ids).into();
            }
            let sent = &self.ecs.tasks[&spec.arn];
            let ids: Vec<_> = [&sent.credentials, &sent.role].into_iter().flatten().cloned().collect();
            if !ids.is_empty() {
                self.credentials.extend(ids.iter().cloned());
                self.feed(Event::CredentialsArrived { task: None, ids, ack: None });
            }
        }
        self.feed(Event::Payload { tasks, seq, ack: Some(ack) });
    }

    pub(crate) fn send_credentials(&mut self, pick: usize, renew: bool) {
        let Some(at) = pick.checked_rem(self.ecs.tasks.len()) else { return };
        let Some((arn, task)) = self.ecs.tasks.iter_mut().nth(at) else { return };
        if !self.disk.tasks.contains_key(arn) && task.accepted.status != TaskStatus::Stopped {
            return; // ECS renews only credentials that it has sent; the first ones come with the task
        }
        let arn = arn.clone();
        let roles = [(RoleKind::Execution, &mut task.credentials), (RoleKind::Task, &mut task.role)];
        let mut sent = Vec::new();
        for (kind, id) in roles {
            let Some(id) = id else { continue };
            if renew {
                *id = format!("{}+", id.as_str()).into();
            }
            sent.push((kind, id.clone()));
        }
        for (kind, id) in sent {
            self.credentials.insert(id.clone());
            let ack = CredentialsAck { message_id: String::new(), id: id.clone(), expiration: String::new() };
            self.feed(Event::CredentialsArrived { task: Some((arn.clone(), kind)), ids: vec![id], ack: Some(ack) });
        }
    }

    pub(crate) fn fact(&mut self, pick: usize, delivery: Delivery) {
        let Some(at) = pick.checked_rem(self.docker.events.len()) else { return };
        let event = match delivery {
            Delivery::Twice => self.docker.events[at].clone(),
            Delivery::Once | Delivery::Lost => self.docker.events.remove(at),
        };
        if delivery != Delivery::Lost || event == Event::EventsMissed {
            self.feed(event);
        }
    }

    pub(crate) fn advance(&mut self) {
        if let Some(at) = ecs_core::next_deadline(&self.state) {
            self.now = self.now.max(at);
        }
        self.feed(Event::Tick);
    }

    /// The index of a container of our own tasks for which `is_fit` holds; `None` if there is none.
    fn choose(&self, pick: usize, is_fit: impl Fn(&Container) -> bool) -> Option<usize> {
        let fit = |at: &usize| {
            let container = &self.docker.containers[*at];
            !container.foreign && is_fit(container)
        };
        let fitting: Vec<usize> = (0..self.docker.containers.len()).filter(fit).collect();
        fitting.get(pick.checked_rem(fitting.len())?).copied()
    }
}
