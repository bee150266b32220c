//! `ecs-local`: the embedded control plane on the command line. It owns arguments and output; the control plane itself is
//! [`ecs_agent::local`]. It never becomes part of the daemon. Invariant: whatever it started, it ends.

#[path = "ecs_local/arguments.rs"]
mod arguments;
#[path = "ecs_local/output.rs"]
mod output;
#[path = "ecs_local/up.rs"]
mod up;

use arguments::{Command, HELP};
use ecs_agent::local::{Options, Server};
use output::{complain, say};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let command = match arguments::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            complain(&format!("{problem}\nTry: ecs-local --help"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match command {
            Command::Help => {
                say(HELP);
                Ok(0)
            }
            Command::Serve { options, quiet } => serve(options, quiet).await.map(|()| 0),
            Command::Up(request) => up::up(request).await,
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Runs the server until it is told to end.
async fn serve(options: Options, quiet: bool) -> Result<(), String> {
    let asked = options.listen;
    let region = options.region.clone();
    let server = Server::start(options).await.map_err(|error| format!("cannot listen on {asked}: {error}"))?;
    let url = server.url();
    if quiet {
        say(&url);
    } else {
        let environment: Vec<_> =
            server.environment().iter().map(|(name, value)| format!("  {name}={value}")).collect();
        say(&format!(
            "ecs-local listens on {url}. State is in memory only: it is gone when this ends.\n\n\
             The agent (as root, beside Docker), with this environment:\n{}\n\n\
             You, with any credentials:\n  \
             export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION={region}\n  \
             aws ecs --endpoint-url {url} list-container-instances\n\n\
             What was said, and faults on purpose: curl {url}/_local/\n\
             Ctrl-C ends it.",
            environment.join("\n"),
        ));
        if !asked.ip().is_loopback() {
            complain("warning: this address is not loopback. Whoever reaches it can run containers on this machine.");
        }
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}
