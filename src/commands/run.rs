//! The daemon: the program without a verb.

use super::print_problem;
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
    let mut has_waited = false;
    let work = async {
        has_waited = daemon(process, reads_levels, control).await?;
        Ok(())
    };
    let code = block_on(log, Box::pin(work));
    if !has_waited {
        return code;
    }
    let error = runtime::start_over(std::env::args_os(), &[]);
    print_problem(&format!("the program cannot be executed again after its wait: {error}"));
    ExitCode::FAILURE
}

/// Returns true if the agent has only waited after quick failures, and the program is to be executed again.
async fn daemon(
    process: Process,
    reads_levels: impl Fn() + Send + Sync + 'static,
    log: LogControl,
) -> Result<bool, Fatal> {
    let _caught = runtime::catch_harmless_signals(reads_levels);
    let signals = StopSignals::catch();
    let mut signals = signals.map_err(|error| Fatal::restartable(format!("signals cannot be caught: {error}")))?;
    tracing::info!("Loading configuration");
    let options = process.options();
    let metadata = process.metadata()?;
    // Before the user data is read, which may take long.
    let mut early = Early::begin(log);
    let failures = process.quick_failures();
    let config =
        async { if failures.begin(&mut early).await { Ok(None) } else { process.config(&metadata).await.map(Some) } };
    let config = tokio::select! {
        config = config => config?,
        () = signals.first() => {
            failures.end(&Ok(())).await;
            return Ok(false);
        }
    };
    let Some(config) = config else { return Ok(true) };
    tracing::info!(
        version = version::OWN,
        commit = version::COMMIT,
        reportedVersion = version::REPORTED,
        "Starting Amazon ECS Agent"
    );
    let result = runtime::run(config, options, metadata, early, signals).await;
    failures.end(&result).await;
    result.map(|()| false)
}
