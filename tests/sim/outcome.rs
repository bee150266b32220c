//! What becomes of an effect that was handed out, and how the agent hears of it.

use crate::schedule::How;
use crate::world::{Pending, World};
use ecs_agent::engine::state::Owner;
use ecs_agent::engine::{Effect, Event, Outcome, Output};
use ecs_agent::model::image::ImageWork;
use ecs_agent::model::resource::Lifetime;
use ecs_agent::model::task::RegistryAuth;
use ecs_agent::model::{Failure, FailureKind, Observation, ResourceKind};

impl World {
    pub(crate) fn go_on(&mut self, at: usize, how: How) {
        let mut pending = self.pending.remove(at);
        if let Some(outcome) = pending.answer.take() {
            return self.answer(pending, outcome);
        }
        let is_begun = matches!(pending.effect, Effect::Create { .. } | Effect::Start { .. });
        let how = if is_begun && self.jam > 0 { How::TimesOut } else { how };
        let how = if self.down > 0 && !matches!(pending.effect, Effect::Report { .. }) {
            self.down -= 1;
            How::FailsForNow
        } else {
            how
        };
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
            How::FailsForNow => self.docker.failed(&pending.effect, failure(&pending.effect, true)),
            How::Fails | How::Refuses => {
                if let (Effect::Start { target, .. }, How::Refuses) = (&pending.effect, how) {
                    self.docker.refuse(target);
                }
                if let Effect::Report { change, .. } = &pending.effect
                    && let Some(task) = self.ecs.tasks.get_mut(&change.task)
                {
                    task.heard.add(change); // refused for good: ECS will not hear more of it
                }
                self.docker.failed(&pending.effect, failure(&pending.effect, false))
            }
            How::FailsDone => match self.perform(&pending.effect) {
                Outcome::Done(Output::Inventory(seen)) => {
                    Outcome::Done(Output::Inventory(seen.into_iter().map(hardly_seen).collect()))
                }
                _ => Outcome::Failed(failure(&pending.effect, !is_begun)),
            },
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

    pub(crate) fn answer(&mut self, pending: Pending, outcome: Outcome) {
        if let (Effect::Report { change, .. }, false) = (&pending.effect, is_retried(&outcome)) {
            self.turn.heard.push((**change).clone());
        }
        if let Effect::RemoveResource { request, .. } = &pending.effect {
            let key = (request.task.clone(), request.spec.name.clone());
            match &outcome {
                Outcome::Done(_) => drop(self.unremoved.remove(&key)),
                Outcome::Failed(_) | Outcome::Unknown(_) => *self.unremoved.entry(key).or_default() += 1,
            }
        }
        if let Effect::RenewResource { request, .. } = &pending.effect {
            self.fetcher.renewed(request, matches!(outcome, Outcome::Done(_)));
        }
        // How full the disk is may be another number now.
        if let Effect::CleanImages { work: ImageWork::RemoveImage { .. }, .. } = &pending.effect {
            self.news += 1;
        }
        if let Some(owner) = pending.owner.as_ref().filter(|_| !pending.cancelled) {
            let is_given_up = matches!(pending.effect, Effect::Create { .. } | Effect::Start { .. });
            let is_image_work = matches!(
                pending.effect,
                Effect::ResolveDigest { .. }
                    | Effect::Pull { .. }
                    | Effect::CleanImages { work: ImageWork::RemoveImage { .. } | ImageWork::RemoveContainer(_), .. }
            );
            let is_making = matches!(pending.effect, Effect::CreateResource { .. });
            let is_report = matches!(pending.effect, Effect::Report { .. });
            // A list taken before the removal may name the orphan once more.
            if matches!((owner, &outcome), (Owner::Orphan(_), Outcome::Done(_))) {
                self.asked.retain(|it| it.0 != *owner);
            }
            match &outcome {
                Outcome::Done(_) => self.failed.retain(|it| it.0 != *owner),
                _ if is_image_work || ((is_given_up || is_report || is_making) && !is_retried(&outcome)) => {}
                Outcome::Failed(_) | Outcome::Unknown(_) => {
                    let failed = (owner.clone(), self.now, self.is_to_stop(owner));
                    self.failed.push(failed);
                }
            }
        }
        self.feed(Event::Completed { op: pending.op, outcome });
    }

    /// The owner is a container that must end.
    pub(crate) fn is_to_stop(&self, owner: &Owner) -> bool {
        let Owner::Container(arn, index) = owner else { return false };
        self.state.tasks.get(arn).is_some_and(|task| task.wants_stop(*index))
    }

    /// Does the work of an effect; what the answer would be.
    pub(crate) fn perform(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::Report { change, .. } => {
                if let Some(task) = self.ecs.tasks.get_mut(&change.task) {
                    task.heard.add(change);
                }
                Outcome::Done(Output::Nothing)
            }
            Effect::CreateResource { request, .. } if request.spec.kind.lifetime() == Lifetime::Process => {
                self.memory.insert((request.task.clone(), request.spec.name.clone()));
                Outcome::Done(Output::Nothing)
            }
            Effect::RemoveResource { request, .. } if request.spec.kind.lifetime() == Lifetime::Process => {
                self.memory.remove(&(request.task.clone(), request.spec.name.clone()));
                Outcome::Done(Output::Nothing)
            }
            Effect::CreateResource { request, .. } if matches!(request.spec.kind, ResourceKind::CredentialSpecs(_)) => {
                self.docker.perform(effect, false);
                Outcome::Done(Output::Tickets(Box::new(self.fetcher.make(request))))
            }
            Effect::RemoveResource { request, .. } => {
                self.fetcher.give_back(request);
                self.docker.perform(effect, false)
            }
            other => self.docker.perform(other, false),
        }
    }

    /// Nobody waits for this effect any more; it may be done yet.
    pub(crate) fn later(&mut self, effect: Effect) {
        match effect {
            Effect::Create { .. }
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Remove { .. }
            | Effect::Pull { .. } => self.late.push(effect),
            // A report that got through counts, whether or not the agent hears of it. A resource that came long after it was given
            // up would be nobody's, and nobody could tell: that is left out.
            Effect::Report { .. }
            | Effect::CreateResource { .. }
            | Effect::RenewResource { .. }
            | Effect::RemoveResource { .. } => {
                self.perform(&effect);
            }
            // Looking changes nothing.
            Effect::ResolveDigest { .. }
            | Effect::Inspect { .. }
            | Effect::Inventory { .. }
            | Effect::CleanImages { .. } => {}
            Effect::Cancel { .. }
            | Effect::Ack(_)
            | Effect::AckCredentials(_)
            | Effect::AskToStop { .. }
            | Effect::ForgetCredentials { .. } => unreachable!("done at once"),
        }
    }

    pub(crate) fn land(&mut self, pick: usize) {
        if let Some(at) = pick.checked_rem(self.late.len()) {
            let effect = self.late.remove(at);
            self.docker.perform(&effect, true);
        }
    }
}

/// The engine lists all, but every other container cannot be looked at: of those the list tells, which is less.
fn hardly_seen(seen: Observation) -> Observation {
    let is_looked_at = seen.runtime_id.0.ends_with(['0', '2', '4', '6', '8']);
    if is_looked_at { seen } else { Observation { started_at: None, error: None, ..seen } }
}

fn is_retried(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => false,
        Outcome::Failed(failure) => failure.kind == FailureKind::Retryable,
        Outcome::Unknown(_) => true,
    }
}

fn failure(effect: &Effect, passes: bool) -> Failure {
    if let Effect::Pull { image, .. } | Effect::ResolveDigest { image, .. } = effect
        && matches!(image.auth, RegistryAuth::Secret(_))
    {
        return Failure::ends_task("the secret is not to be had");
    }
    let name = match effect {
        Effect::Pull { .. } | Effect::ResolveDigest { .. } => "CannotPullContainerError",
        Effect::Create { .. } => "CannotCreateContainerError",
        Effect::Start { .. } => "CannotStartContainerError",
        Effect::CreateResource { .. } => "",
        _ => "Error",
    };
    if passes { Failure::retryable(name, "not now") } else { Failure::permanent(name, "no") }
}
