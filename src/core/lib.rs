//! The core: every decision of the agent, as one pure function.
//!
//! ```text
//! step(state, now, event) -> effects + what changed
//! ```
//!
//! A step has two parts. `apply` writes the event's fact into the state and decides nothing. `plan` reads the state, never the
//! event, and decides what to do next. So an event that arrives twice, late or out of order cannot lead to a wrong decision, and
//! planning again without a new fact yields nothing. The caller commits the changed documents before it starts an effect:
//! **step, commit, publish, act**. Only the commit of a step without effects may be deferred ([`Step::may_wait`]).
//!
//! The time is an argument. There are no timers: the state holds moments, and [`next_deadline`] is the earliest of them. At most
//! one operation is pending for each container. The outcome carries the operation's id, and an outcome with an unknown id is
//! ignored. After a timeout nobody knows whether the operation was done, so the container is inspected before anything else is
//! done to it.
//!
//! State changes for ECS are not queued: a report contains the difference between `known` and `sent`. After a failed report the
//! difference is still there, so the report is repeated.
//!
//! Reading order: [`event`] and [`effect`] (input and output), [`state`], `apply` and `seen` (facts), `recover` and `rebuild`
//! (the state at a start), `plan` (the order of planning), then one file for each subject: `admission`, `container`,
//! `dependency`, `restart`, `resource`, `attachments`, `network`, `local_address`, `metadata_file`, `credentials`, `ports`, `desired`, `report`, `cleanup`, `inventory`, `image`. Helpers:
//! `policy` (settings), `planning` (the context of planning), `backoff`, `urgency` (which commits may wait), `view` (for
//! readers), [`agent_health`], [`container_form`], `check` (invariants), `step` (the result).
//!
//! Nothing here can wait, read a clock, draw a random number, lock, log or touch a file. This is a crate of its own, so that the
//! compiler refuses any other part of the agent here, and any library but `serde` and `zeroize`.
//!
//! [`model`] holds the types that the core shares with all other parts.

mod admission;
pub mod agent_health;
mod apply;
mod attachments;
mod backoff;
mod check;
mod cleanup;
mod container;
pub mod container_form;
mod credentials;
mod dependency;
mod desired;
pub mod effect;
pub mod event;
pub mod image;
mod inventory;
mod local_address;
mod metadata_file;
pub mod model;
mod network;
mod plan;
mod planning;
mod policy;
mod ports;
mod rebuild;
mod recover;
mod report;
mod resource;
mod restart;
#[cfg(test)]
mod sample;
mod seen;
pub mod state;
mod step;
mod urgency;
mod view;

pub use admission::RESERVE_AFTER;
pub use check::check;
pub use effect::{Effect, ImageRequest, Message, Operation};
pub use event::{Event, Outcome, Output, PayloadTask};
pub use policy::{Capacity, ImagePolicy, Policy, PullBehavior, UntrackedPolicy};
pub use recover::recover;
pub use state::{Key, State, TaskState};
pub use step::Step;
pub use view::{view, view_after};

use crate::model::Timestamp;

/// Applies one event to the state, and returns the effects to start and the documents that changed.
pub fn step(state: &mut State, now: Timestamp, event: Event) -> Step {
    state.steps += 1;
    let mut out = Step::default();
    let subject = urgency::repeated_subject(&event).cloned();
    let mut to_plan = apply::apply(state, now, event, &mut out);
    to_plan.extend(plan::due(state, now));
    plan::plan(state, now, to_plan, &mut out);
    out.may_wait = subject.is_some_and(|task| urgency::may_wait(&task, &out));
    out
}

/// The earliest moment at which something is due; [`Event::Tick`] must arrive then. `None`: nothing is due without another
/// event.
pub fn next_deadline(state: &State) -> Option<Timestamp> {
    let tasks = state.tasks.values().filter_map(|task| task.live.wake);
    let own =
        inventory::next_deadline(state).chain(image::next_deadline(state)).chain(attachments::next_deadline(state));
    tasks.chain(own).min()
}
