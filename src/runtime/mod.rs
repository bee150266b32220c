//! Runs the agent: starts it, watches its parts, and stops it. Read [`run`] first.
//!
//! This is the only module that may import all edges. It holds no business rules: an `if` about a task's status belongs in
//! [`ecs_core`].
//!
//! Reading order: `startup` (from the configuration to the running parts), `core_loop`, `execute` (from the core's effects to
//! calls of edges), `parts` (what runs beside the loop), `supervisor`; then `quick_failures` (the pause before a start in a crash loop), `clock`, `trace`, `timing`, `precedence`, `fatal`, `options`, `shutdown`,
//! `start_over` and [`logging`].

mod clock;
mod core_loop;
mod execute;
mod fatal;
pub mod logging;
mod options;
mod parts;
mod precedence;
mod quick_failures;
mod shutdown;
mod start_over;
mod startup;
mod supervisor;
#[cfg(test)]
mod tests;
mod timing;
mod trace;

pub use fatal::Fatal;
pub use options::Options;
pub use parts::early::Early;
pub use quick_failures::QuickFailures;
pub use shutdown::{StopSignals, catch_harmless_signals};
pub use start_over::start_over;
pub use startup::metadata::Metadata;
pub use startup::{attributes_text, firewall_settings, registry_problems};

use crate::aws;
use crate::config::Config;
use tokio::task::JoinSet;

/// Runs the agent until a signal stops it.
///
/// # Errors
/// [`Fatal`]: why the agent ended, with the exit code.
pub async fn run(
    config: Config,
    options: Options,
    metadata: Metadata,
    early: Early,
    signals: StopSignals,
) -> Result<(), Fatal> {
    aws::install_tls();
    let rules = early.rules.clone();
    let result = until_the_end(config, options, metadata, early, signals).await;
    rules.end(&result).await;
    result
}

/// Runs the agent until it ends. Its parts have then ended, too.
async fn until_the_end(
    config: Config,
    options: Options,
    metadata: Metadata,
    early: Early,
    signals: StopSignals,
) -> Result<(), Fatal> {
    let stop = early.stop.clone();
    let signals = signals.stop(stop.clone());
    tokio::pin!(signals);
    // In a task of its own: a start that hangs must not keep a signal from ending the process.
    let mut start = JoinSet::new();
    start.spawn(startup::build(config, options, metadata, early));
    let parts = tokio::select! {
        built = start.join_next() => match built {
            Some(Ok(parts)) => parts?,
            Some(Err(_)) | None => return Err(Fatal::restartable("the start failed because of an error in the agent".to_owned())),
        },
        // A stop during the start: the core loop does not run yet, so there is nothing to wind down.
        () = stop.cancelled() => return Ok(()),
        () = &mut signals => return Ok(()),
    };
    tokio::select! {
        ended = parts.watch(stop.clone()) => ended.map_err(Fatal::restartable),
        () = &mut signals => Ok(()), // the second signal
    }
}
