//! The set-up of a task's network.

use super::job::{Job, NetworkError};
use super::place::{Places, no_pause};
use super::steps::Done;
use super::{check, interface, local_link, proxy, tear_down};

/// Sets up everything, or undoes what was done.
pub(super) fn run(job: &Job) -> Result<(), NetworkError> {
    let nothing_done = |failure| NetworkError::Step { failure, not_undone: Vec::new() };
    check::check(&job.steps, &job.request).map_err(nothing_done)?;
    let places = Places::open(job).and_then(|places| places.ok_or_else(|| no_pause(job))).map_err(nothing_done)?;
    provide(job, &places)
        .map_err(|failure| NetworkError::Step { failure, not_undone: tear_down::give_back(job, &places) })
}

/// Images may be pulled and containers may start only after all of this.
fn provide(job: &Job, places: &Places) -> Done {
    for (number, attached) in job.request.interfaces.iter().enumerate() {
        interface::attach(job, places, number, attached)?;
    }
    local_link::connect(job, places)?;
    match &job.request.proxy {
        Some(rules) => proxy::redirect(job, places, rules),
        None => Ok(()),
    }
}
