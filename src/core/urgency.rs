//! Facts whose commit may be deferred.
//!
//! At each start, the agent inspects all of its containers. A fact that this inspection shows again need not be on disk at once,
//! as long as the container still exists and no effect follows from the fact. The creation of a container that will be started
//! does not qualify: if somebody removes the container later, the agent must not run it a second time.

use super::event::{Event, Output};
use super::state::Key;
use super::step::Step;
use crate::model::{RunState, TaskArn};

/// The task of an event that the agent would learn again at its next start; `None` for all other events. A container that has
/// not ended still exists then, while one that has ended may have been removed. An event with the digest of an image does not
/// qualify, since only a create looks it up.
pub(super) fn repeated_subject(event: &Event) -> Option<&TaskArn> {
    let seen = match event {
        Event::Observed(seen) | Event::Completed { outcome: Ok(Output::Seen(Some(seen))), .. } => seen,
        _ => return None,
    };
    let is_there = matches!(seen.state, RunState::Created | RunState::Running);
    (is_there && seen.image_digest.is_none()).then_some(&seen.task)
}

/// The step has no effects, and changed at most the document of this task.
pub(super) fn may_wait(task: &TaskArn, step: &Step) -> bool {
    step.effects.is_empty() && step.changed.iter().all(|key| matches!(key, Key::Task(arn) if arn == task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Observation, OpId};
    use crate::sample::seen;
    use crate::{Effect, Operation};
    use std::collections::BTreeSet;

    #[test]
    fn only_what_the_next_start_would_learn_again_may_wait() {
        let seen = |state| Box::new(seen("task", "a", "id", state));
        let done = |output| Event::Completed { op: OpId(1), outcome: Ok(output) };
        for state in [RunState::Created, RunState::Running] {
            assert_eq!(repeated_subject(&Event::Observed(seen(state))), Some(&"task".into()));
            assert_eq!(repeated_subject(&done(Output::Seen(Some(seen(state))))), Some(&"task".into()));
        }
        assert_eq!(
            repeated_subject(&Event::Observed(seen(RunState::Exited))),
            None,
            "it may be removed before the next start"
        );
        assert_eq!(repeated_subject(&done(Output::Seen(Some(seen(RunState::Exited))))), None);
        let created = Observation { image_digest: Some("sha256:1".into()), ..*seen(RunState::Created) };
        assert_eq!(
            repeated_subject(&done(Output::Seen(Some(Box::new(created))))),
            None,
            "only the create looks for it"
        );
        for event in [done(Output::Seen(None)), done(Output::Nothing), Event::Tick, Event::EventsMissed] {
            assert_eq!(repeated_subject(&event), None, "{event:?}");
        }
    }

    #[test]
    fn changes_beyond_the_task_do_not_wait() {
        let step =
            |changed: &[Key], effects| Step { changed: changed.iter().cloned().collect(), effects, may_wait: false };
        let own = Key::Task("task".into());
        assert!(may_wait(&"task".into(), &step(std::slice::from_ref(&own), Vec::new())));
        assert!(may_wait(&"task".into(), &Step { changed: BTreeSet::new(), ..Step::default() }));
        assert!(!may_wait(&"task".into(), &step(&[own.clone(), Key::Task("other".into())], Vec::new())));
        assert!(!may_wait(&"task".into(), &step(&[own.clone(), Key::Host], Vec::new())));
        let start = Effect::Do(OpId(1), Operation::Start("id".to_owned()));
        assert!(!may_wait(&"task".into(), &step(&[own], vec![start])));
    }
}
