//! The execution of a pending effect, and its answer to the agent.

use crate::laws;
use crate::schedule::How;
use crate::world::{Pending, World};
use ecs_core::model::image::ImageWork;
use ecs_core::model::resource::Lifetime;
use ecs_core::model::task::RegistryAuth;
use ecs_core::model::{Failure, FailureKind, Observation, OpError, ResourceKind};
use ecs_core::state::OperationOwner;
use ecs_core::{Effect, Event, Message, Operation, Outcome, Output};

/// The text of an operation on a network that is refused because an earlier one has not ended.
pub(crate) const BUSY: &str = "busy with an earlier one";

impl World {
    pub(crate) fn go_on(&mut self, at: usize, how: How) {
        let mut pending = self.pending.remove(at);
        if let Some(outcome) = pending.answer.take() {
            return self.answer(pending, outcome);
        }
        let is_begun = matches!(pending.effect, Effect::Do(_, Operation::Create(_) | Operation::Start(_)));
        let how = if is_begun && self.hanging_operations > 0 { How::TimesOut } else { how };
        let how = if self.failing_operations > 0 && !matches!(pending.effect, Effect::Do(_, Operation::Report(_))) {
            self.failing_operations -= 1;
            How::FailsForNow
        } else {
            how
        };
        if is_begun && let Some(owner) = &pending.owner {
            self.hanging_operations = self.hanging_operations.saturating_sub(1);
            let is_start = matches!(pending.effect, Effect::Do(_, Operation::Start(_)));
            let count = self
                .unanswered
                .iter()
                .find(|entry| entry.0 == *owner && entry.1 == is_start)
                .map_or(0, |entry| entry.2);
            self.unanswered.retain(|entry| entry.0 != *owner);
            if how == How::TimesOut {
                self.unanswered.push((owner.clone(), is_start, count + 1));
            }
        }
        let outcome = match how {
            How::Works if self.is_network_busy(&pending) => Err(OpError::Failed(Failure::busy("Error", BUSY))),
            How::Works => self.perform(&pending.effect),
            How::AnswersLater => {
                pending.answer = Some(self.perform(&pending.effect));
                return self.pending.push(pending);
            }
            How::FailsForNow if is_network(&pending.effect) && pending.op.0.is_multiple_of(2) => {
                Err(OpError::Failed(Failure::busy("Error", BUSY)))
            }
            How::FailsForNow => self.docker.failed(&pending.effect, failure(&pending.effect, true)),
            How::Fails | How::Refuses => {
                if let (Effect::Do(_, Operation::Start(target)), How::Refuses) = (&pending.effect, how) {
                    self.docker.refuse(target);
                }
                if let Effect::Do(_, Operation::Report(change)) = &pending.effect
                    && let Some(task) = self.ecs.tasks.get_mut(&change.task)
                {
                    task.accepted.add(change); // refused for good, so it is not reported again
                }
                if let Effect::Do(_, operation @ Operation::ReportAttachment(_)) = &pending.effect {
                    self.report_attachment(operation); // likewise
                }
                self.docker.failed(&pending.effect, failure(&pending.effect, false))
            }
            How::FailsDone => match self.perform(&pending.effect) {
                Ok(Output::Inventory(seen)) => Ok(Output::Inventory(seen.into_iter().map(without_details).collect())),
                _ => Err(OpError::Failed(failure(&pending.effect, !is_begun))),
            },
            How::TimesOut => Err(OpError::Unknown(failure(&pending.effect, false))),
            How::TimesOutDone => {
                let _outcome = self.perform(&pending.effect);
                Err(OpError::Unknown(failure(&pending.effect, false)))
            }
            How::TimesOutLate => {
                self.later(pending.effect.clone());
                Err(OpError::Unknown(failure(&pending.effect, false)))
            }
        };
        self.answer(pending, outcome);
    }

    pub(crate) fn answer(&mut self, pending: Pending, outcome: Outcome) {
        if let (Effect::Do(_, Operation::Report(change)), false) = (&pending.effect, is_retried(&outcome)) {
            self.turn.confirmed.push((**change).clone());
        }
        self.note_network_answer(&pending, &outcome);
        if let Effect::Do(_, Operation::RemoveResource(request)) = &pending.effect {
            let key = (request.task.clone(), request.spec.name.clone());
            match &outcome {
                Ok(_) => drop(self.failed_removals.remove(&key)),
                Err(_) => *self.failed_removals.entry(key).or_default() += 1,
            }
        }
        if let Effect::Do(_, Operation::RenewResource(request)) = &pending.effect {
            self.fetcher.renewed(request, outcome.is_ok());
        }
        // The disk may be less full now.
        if let Effect::Do(_, Operation::CleanImages(ImageWork::RemoveImage { .. })) = &pending.effect {
            self.facts += 1;
        }
        if let Some(owner) = pending.owner.as_ref().filter(|_| !pending.cancelled) {
            let is_given_up = matches!(pending.effect, Effect::Do(_, Operation::Create(_) | Operation::Start(_)));
            let is_image_work = matches!(
                pending.effect,
                Effect::Do(_, Operation::ResolveDigest(_) | Operation::Pull(_))
                    | Effect::Do(
                        _,
                        Operation::CleanImages(ImageWork::RemoveImage { .. } | ImageWork::RemoveContainer(_))
                    )
            );
            let is_making = matches!(pending.effect, Effect::Do(_, Operation::CreateResource(_)));
            let is_report =
                matches!(pending.effect, Effect::Do(_, Operation::Report(_) | Operation::ReportAttachment(_)));
            // `laws::networks` judges the waits after failures of these.
            let is_network = is_network(&pending.effect);
            // An inventory from before the removal may contain the orphan once more.
            if matches!((owner, &outcome), (OperationOwner::Orphan(_), Ok(_))) {
                self.last_operations.retain(|operation| operation.0 != *owner);
            }
            match &outcome {
                Ok(_) => self.failed.retain(|failure| failure.0 != *owner),
                _ if is_network
                    || is_image_work
                    || ((is_given_up || is_report || is_making) && !is_retried(&outcome)) => {}
                Err(_) => {
                    let failed = (owner.clone(), self.now, self.is_to_stop(owner));
                    self.failed.push(failed);
                }
            }
        }
        self.feed(Event::Completed { op: pending.op, outcome });
    }

    /// True if the owner is a container that must stop.
    pub(crate) fn is_to_stop(&self, owner: &OperationOwner) -> bool {
        let OperationOwner::Container(arn, index) = owner else { return false };
        self.state.tasks.get(arn).is_some_and(|task| task.must_stop(*index))
    }

    /// Executes an effect and returns its outcome.
    pub(crate) fn perform(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::Do(_, Operation::Report(change)) => {
                if let Some(task) = self.ecs.tasks.get_mut(&change.task) {
                    task.accepted.add(change);
                }
                Ok(Output::Nothing)
            }
            Effect::Do(_, Operation::CreateResource(request)) if request.spec.kind.lifetime() == Lifetime::Process => {
                self.memory.insert((request.task.clone(), request.spec.name.clone()));
                Ok(Output::Nothing)
            }
            Effect::Do(_, Operation::RemoveResource(request)) if request.spec.kind.lifetime() == Lifetime::Process => {
                self.memory.remove(&(request.task.clone(), request.spec.name.clone()));
                Ok(Output::Nothing)
            }
            Effect::Do(_, Operation::CreateResource(request))
                if matches!(request.spec.kind, ResourceKind::CredentialSpecs(_)) =>
            {
                let _outcome = self.docker.perform(effect, false);
                Ok(Output::Tickets(Box::new(self.fetcher.make(request))))
            }
            Effect::Do(_, Operation::RemoveResource(request)) => {
                self.fetcher.give_back(request);
                self.docker.perform(effect, false)
            }
            Effect::Do(_, Operation::SetUpNetwork(request)) => self.set_up_network(request),
            Effect::Do(_, Operation::TearDownNetwork(request)) => self.tear_down_network(request),
            Effect::Do(_, operation @ Operation::ReportAttachment(_)) => {
                self.report_attachment(operation);
                Ok(Output::Nothing)
            }
            other => self.docker.perform(other, false),
        }
    }

    fn note_network_answer(&mut self, pending: &Pending, outcome: &Outcome) {
        if !self.state.ops.contains_key(&pending.op) {
            return; // the agent has given it up
        }
        match &pending.effect {
            Effect::Do(_, Operation::SetUpNetwork(request)) => {
                if outcome.is_ok() {
                    self.turn.set_up.push((request.pause.clone(), request.pause_pid));
                }
                laws::network_answered(self, &request.task, outcome);
            }
            Effect::Do(_, Operation::TearDownNetwork(request)) => {
                laws::network_answered(self, &request.task, outcome);
            }
            Effect::Do(_, Operation::ReportAttachment(change)) if !is_retried(outcome) => {
                self.turn.attached.push(change.attachment.clone());
            }
            _ => {}
        }
    }

    /// The agent no longer waits for this effect, but it may still be done.
    pub(crate) fn later(&mut self, effect: Effect) {
        match effect {
            Effect::Do(_, Operation::Create(_) | Operation::Start(_))
            | Effect::Do(_, Operation::Stop { .. })
            | Effect::Do(_, Operation::Remove(_) | Operation::Pull(_)) => self.late.push(effect),
            Effect::Do(_, Operation::SetUpNetwork(ref request) | Operation::TearDownNetwork(ref request)) => {
                self.net.late.insert(request.task.clone());
                self.late.push(effect);
            }
            // A report that reached ECS counts, whether or not its answer reaches the agent. A resource that was created long
            // after it was given up would belong to no task and could not be found, so that is left out.
            Effect::Do(_, Operation::Report(_) | Operation::ReportAttachment(_) | Operation::CreateResource(_))
            | Effect::Do(_, Operation::RenewResource(_) | Operation::RemoveResource(_)) => {
                let _outcome = self.perform(&effect);
            }
            // These effects change nothing.
            Effect::Do(_, Operation::ResolveDigest(_) | Operation::Inspect(_))
            | Effect::Do(_, Operation::Inventory | Operation::CleanImages(_)) => {}
            Effect::Cancel(_)
            | Effect::Send(Message::Ack(_))
            | Effect::Send(Message::AckCredentials(_))
            | Effect::Send(Message::VerifyStop { .. })
            | Effect::ForgetCredentials(_)
            | Effect::WriteMetadata(_)
            | Effect::RemoveMetadata(_) => unreachable!("done at once"),
        }
    }

    pub(crate) fn land(&mut self, pick: usize) {
        if let Some(at) = pick.checked_rem(self.late.len()) {
            let effect = self.late.remove(at);
            let _outcome = match &effect {
                Effect::Do(_, Operation::SetUpNetwork(_) | Operation::TearDownNetwork(_)) => self.perform(&effect),
                _ => self.docker.perform(&effect, true),
            };
        }
    }
}

/// Docker lists all containers, but cannot inspect every second one. The observation of such a container has only the facts that
/// the list shows.
fn without_details(seen: Observation) -> Observation {
    let is_looked_at = seen.runtime_id.0.ends_with(['0', '2', '4', '6', '8']);
    if is_looked_at { seen } else { Observation { started_at: None, error: None, ..seen } }
}

fn is_network(effect: &Effect) -> bool {
    matches!(effect, Effect::Do(_, Operation::SetUpNetwork(_) | Operation::TearDownNetwork(_)))
}

fn is_retried(outcome: &Outcome) -> bool {
    match outcome {
        Ok(_) => false,
        Err(OpError::Failed(failure)) => failure.kind == FailureKind::Retryable,
        Err(OpError::Unknown(_)) => true,
    }
}

fn failure(effect: &Effect, passes: bool) -> Failure {
    if let Effect::Do(_, Operation::Pull(image) | Operation::ResolveDigest(image)) = effect
        && matches!(image.auth, RegistryAuth::Secret(_))
    {
        return Failure::ends_task("the secret cannot be fetched");
    }
    let name = match effect {
        Effect::Do(_, Operation::Pull(_) | Operation::ResolveDigest(_)) => "CannotPullContainerError",
        Effect::Do(_, Operation::Create(_)) => "CannotCreateContainerError",
        Effect::Do(_, Operation::Start(_)) => "CannotStartContainerError",
        Effect::Do(_, Operation::CreateResource(_)) => "",
        _ => "Error",
    };
    if passes { Failure::retryable(name, "not now") } else { Failure::permanent(name, "no") }
}
