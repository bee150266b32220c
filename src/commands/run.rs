//! The daemon: the program without a verb.

use super::process::{Process, block_on};
use crate::config::Args;
use crate::runtime::logging::{LogControl, Stream};
use crate::runtime::{self, Early, Fatal, StopSignals};
use crate::version;
use std::process::ExitCode;

/// Runs the agent until a signal stops it, or until it fails.
pub fn run(args: &Args) -> ExitCode {
    let (process, log) = Process::start(args, Stream::Output);
    let reads_levels = process.reads_levels(args, log.control());
    let control = log.control();
    block_on(log, daemon(process, reads_levels, control))
}

async fn daemon(
    process: Process,
    reads_levels: impl Fn() + Send + Sync + 'static,
    log: LogControl,
) -> Result<(), Fatal> {
    let _caught = runtime::catch_harmless_signals(reads_levels);
    let signals = StopSignals::catch();
    let mut signals = signals.map_err(|error| Fatal::restartable(format!("signals cannot be caught: {error}")))?;
    tracing::info!("Loading configuration");
    let options = process.options();
    let metadata = process.metadata()?;
    // Before the user data is read, which may take long.
    let early = Early::begin(log);
    let config = tokio::select! {
        config = process.config(&metadata) => config?,
        () = signals.first() => return Ok(()),
    };
    tracing::info!(
        version = version::OWN,
        commit = version::COMMIT,
        reportedVersion = version::REPORTED,
        "Starting Amazon ECS Agent"
    );
    runtime::run(config, options, metadata, early, signals).await
}
