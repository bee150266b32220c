//! One turn of the agent, in the order of the production loop: step, commit, act.
//!
//! Invariant: an effect is started only after the changes of its step are on disk. In half of the worlds a commit that may be
//! deferred waits for the next one, or for time to pass.

use crate::laws;
use crate::life::stored;
use crate::schedule::Point;
use crate::world::{Pending, Turn, World};
use ecs_core::model::RoleKind;
use ecs_core::{Effect, Event, Key, Message, Operation, Outcome, Output};

impl World {
    pub(crate) fn feed(&mut self, event: Event) {
        if self.broken.is_some() {
            return;
        }
        self.note(|_| format!("<- {event:?}"));
        // While tasks are lost, the message is held back, and it is lost if the agent dies before.
        if let (Event::Payload { tasks, .. }, false) = (&event, self.state.host.lost) {
            let stops = tasks.iter().filter_map(|task| match task {
                ecs_core::PayloadTask::Stop(arn, _) => Some(arn.clone()),
                ecs_core::PayloadTask::Run(_) | ecs_core::PayloadTask::Refused { .. } => None,
            });
            self.turn.stops.extend(stops);
        }
        if let Event::CredentialsArrived { task: Some((arn, RoleKind::Execution)), .. } = &event
            && let Some(task) = self.state.tasks.get(arn)
        {
            self.fetcher.credentials_arrived(task);
        }
        self.note_network_event(&event);
        self.facts += u64::from(!matches!(event, Event::Completed { .. } | Event::Tick));
        let is_listing = |outcome: &Outcome| matches!(outcome, Ok(Output::Inventory(_)));
        self.listings += u64::from(matches!(&event, Event::Completed { outcome, .. } if is_listing(outcome)));
        if self.skips_laws {
            let step = ecs_core::step(&mut self.state, self.now, event);
            self.turn.effects.extend(step.effects);
            self.turn.changed.extend(step.changed);
            self.turn.is_urgent |= !step.may_wait;
            return self.end_turn();
        }
        let before = laws::Before::from_state(&self.state);
        let (was_lost, held) = (self.state.host.lost, self.state.held.len());
        let step = ecs_core::step(&mut self.state, self.now, event.clone());
        laws::credentials_are_acknowledged(self, &before, &event, &step);
        if was_lost && !self.state.host.lost {
            self.facts += 1; // the lost tasks are rebuilt
            // Only the labels of containers name the resources of a rebuilt task.
            let tasks = &self.state.tasks;
            self.docker.resources.retain(|(arn, name)| {
                let mut known = tasks.get(arn).into_iter().flat_map(|task| &task.resources);
                known.any(|resource| resource.spec.name == *name && resource.state.create_asked)
            });
            // Only the labels of containers that were created later name a lease.
            self.fetcher.written.clear();
            // Somebody may have started a container since the restart. Running tasks are taken over, whatever the capacity of
            // the host.
            let taken_over = self.state.tasks.values().filter(|task| task.reduced);
            self.inherited.extend(taken_over.map(|task| task.spec.arn.clone()));
            self.turn.steps += held as u32; // the messages held back are applied at once, as in a burst
        }
        self.steps += 1;
        laws::after_step(self, &before);
        self.turn.steps += 1;
        self.turn.effects.extend(step.effects);
        self.turn.changed.extend(step.changed);
        self.turn.is_urgent |= !step.may_wait;
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return;
        }
        self.end_turn();
    }

    pub(crate) fn end_turn(&mut self) {
        self.burst_left = 0;
        let mut turn = std::mem::take(&mut self.turn);
        laws::the_view_is_current(self, &turn.changed);
        let crash = self.crash_at.take();
        if let Some((Point::BeforeCommit, bits)) = crash {
            return self.crash(bits);
        }
        self.unwritten.append(&mut turn.changed);
        if turn.is_urgent || !self.defers_commits {
            turn.changed = std::mem::take(&mut self.unwritten);
            self.commit(&turn);
        } else {
            laws::before_waiting(self, &turn);
        }
        if let Some((Point::AfterCommit, bits)) = crash {
            return self.crash(bits);
        }
        self.burst = turn.steps > 1;
        let count = match crash {
            Some((Point::AmongEffects(count), _)) => count,
            Some((Point::BeforeCommit | Point::AfterCommit, _)) | None => usize::MAX,
        };
        for effect in turn.effects.into_iter().take(count) {
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

    pub(crate) fn commit(&mut self, turn: &Turn) {
        let resources = self.state.tasks.values().flat_map(|task| &task.resources);
        let tickets = resources.filter_map(|resource| resource.state.tickets.as_ref());
        self.fetcher.written.extend(tickets.flat_map(|tickets| tickets.leases.clone()));
        for change in &turn.confirmed {
            if let Some(task) = self.ecs.tasks.get_mut(&change.task) {
                task.confirmed.add(change);
            }
        }
        for key in &turn.changed {
            match key {
                Key::Host => self.disk.host = self.state.host.clone(),
                Key::Task(arn) => match self.state.tasks.get(arn) {
                    Some(task) => {
                        let old = self.disk.tasks.insert(arn.clone(), stored(task));
                        // The task was forgotten and has arrived again, so its reports start anew.
                        if old.is_none_or(|old| old.arrival != task.arrival)
                            && let Some(known) = self.ecs.tasks.get_mut(arn)
                        {
                            known.confirmed = Default::default();
                        }
                    }
                    None => {
                        self.disk.tasks.remove(arn);
                    }
                },
            }
        }
        self.commit_network(turn);
        if !self.skips_laws {
            laws::after_commit(self);
        }
    }

    pub(crate) fn act(&mut self, effect: Effect) {
        self.note(|_| format!("-> {effect:?}"));
        if !self.skips_laws {
            laws::before_effect(self, &effect);
        }
        match effect {
            Effect::Do(op, Operation::ResolveDigest(_) | Operation::Pull(_))
            | Effect::Do(op, Operation::Create(_) | Operation::Start(_))
            | Effect::Do(op, Operation::Stop { .. })
            | Effect::Do(op, Operation::Inspect(_) | Operation::Remove(_))
            | Effect::Do(op, Operation::CreateResource(_) | Operation::RenewResource(_))
            | Effect::Do(op, Operation::RemoveResource(_) | Operation::Inventory)
            | Effect::Do(op, Operation::SetUpNetwork(_) | Operation::TearDownNetwork(_))
            | Effect::Do(op, Operation::CleanImages(_) | Operation::Report(_) | Operation::ReportAttachment(_)) => {
                let owner = self.state.ops.get(&op).cloned();
                self.pending.push(Pending { op, effect, owner, answer: None, cancelled: false });
            }
            Effect::Cancel(op) => {
                for pending in self.pending.iter_mut().filter(|pending| pending.op == op) {
                    pending.cancelled = true;
                }
            }
            Effect::Send(Message::Ack(ack)) => {
                if self.ecs.acks_to_lose > 0 {
                    self.ecs.acks_to_lose -= 1;
                } else {
                    self.acknowledge_attachment(&ack.message_id);
                    self.ecs.acknowledged.insert(ack.message_id.clone());
                    self.ecs.messages.retain(|message| message.ack.message_id != ack.message_id);
                }
            }
            // ECS renews credentials in time, acknowledged or not.
            Effect::Send(Message::AckCredentials(_)) => {}
            Effect::WriteMetadata(_) | Effect::RemoveMetadata(_) => {}
            Effect::Send(Message::VerifyStop { message_id, tasks, .. }) => self.ecs.asked_to_stop(&message_id, &tasks),
            Effect::ForgetCredentials(id) => {
                // The credentials may have arrived again in the same burst.
                if !self.state.credentials.contains(&id) {
                    self.credentials.remove(&id);
                }
            }
        }
    }
}
