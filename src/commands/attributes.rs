//! `-ecs-attributes`: the attributes that a registration would send.

use super::print;
use super::process::{Process, block_on};
use crate::config::Args;
use crate::runtime::logging::Stream;
use crate::runtime::{self, Fatal};
use std::process::ExitCode;

/// Prints the attributes, one per line.
pub fn run(args: &Args) -> ExitCode {
    let (process, log) = Process::start(args, Stream::Error);
    block_on(log, attributes(process))
}

async fn attributes(process: Process) -> Result<(), Fatal> {
    let _caught = runtime::catch_harmless_signals(|| {});
    let metadata = process.metadata()?;
    let config = process.config(&metadata).await?;
    print(&runtime::attributes_text(&config).await?);
    Ok(())
}
