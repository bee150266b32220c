//! `-ecs-attributes`: the attributes that a registration would send. What goes wrong is a plain text on standard error.

use super::process::{Process, block_on};
use super::{print, print_problem};
use crate::config::Args;
use crate::runtime::logging::Stream;
use crate::runtime::{self, Fatal};
use std::process::ExitCode;

/// Prints the attributes, one per line.
pub fn run(args: &Args) -> ExitCode {
    let (process, log) = Process::start(args, Stream::Error);
    let work = async {
        let printed = attributes(process).await;
        printed.map_err(|Fatal { code, message }| {
            print_problem(&message);
            Fatal { code, message: String::new() }
        })
    };
    block_on(log, Box::pin(work))
}

async fn attributes(process: Process) -> Result<(), Fatal> {
    let _caught = runtime::catch_harmless_signals(|| {});
    let metadata = process.metadata()?;
    let config = process.config(&metadata).await?;
    print(&runtime::attributes_text(&config, &metadata).await?);
    Ok(())
}
