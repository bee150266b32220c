//! `ecs-local` on the command line. This module owns the arguments and the output; the control plane is the rest of the crate.
//! Invariant: it ends every process that it started.

mod arguments;
mod output;
mod token;
mod up;

use crate::{Options, Server};
use arguments::{Command, HELP};
use output::{print_error, print_line, warn_beyond_loopback};
use std::process::ExitCode;
use token::Token;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let command = match arguments::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            print_error(&format!("{problem}\nTry: ecs-local --help"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match command {
            Command::Help => {
                print_line(HELP);
                Ok(0)
            }
            Command::Serve { options, quiet, token } => serve(options, quiet, &token).await.map(|()| 0),
            Command::Up(request) => up::up(request).await,
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            print_error(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Runs the server until Ctrl-C or SIGTERM.
async fn serve(mut options: Options, quiet: bool, token: &Token) -> Result<(), String> {
    options.token = token.value()?;
    let asked = options.listen;
    let region = options.region.clone();
    let server = Server::start(options).await.map_err(|error| format!("cannot listen on {asked}: {error}"))?;
    let (url, shown) = (server.url(), token.shown(server.token()));
    warn_beyond_loopback(asked);
    if quiet {
        print_line(&url);
        if *token == Token::Random {
            print_line(&shown);
        }
    } else {
        let environment: Vec<_> =
            server.environment().iter().map(|(name, value)| format!("  {name}={value}")).collect();
        print_line(&format!(
            "ecs-local listens on {url}. State is in memory only: it is gone when this ends.\n\n\
             The agent (as you or as root, beside Docker), with this environment:\n{}\n  \
             AWS_ACCESS_KEY_ID=local\n  AWS_SECRET_ACCESS_KEY={shown}\n\n\
             You. The secret access key is the token: anyone who has it can run containers on this machine.\n  \
             export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY={shown} AWS_DEFAULT_REGION={region}\n  \
             aws ecs --endpoint-url {url} list-container-instances\n\n\
             Records and injected faults: curl --user local:{shown} {url}/_local/\n\
             Ctrl-C ends ecs-local.",
            environment.join("\n"),
        ));
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}
