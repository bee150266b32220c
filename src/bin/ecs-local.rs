//! `ecs-local`: the embedded control plane on the command line. This program owns its arguments and output; the control plane
//! itself is [`ecs_agent::local`]. It is never part of the daemon. Invariant: it ends every process that it started.

#[path = "ecs_local/arguments.rs"]
mod arguments;
#[path = "ecs_local/output.rs"]
mod output;
#[path = "ecs_local/token.rs"]
mod token;
#[path = "ecs_local/up.rs"]
mod up;

use arguments::{Command, HELP};
use ecs_agent::local::{Options, Server};
use output::{print_error, print_line};
use std::net::SocketAddr;
use std::process::ExitCode;
use token::Token;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
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

/// Warns about an address that other machines can reach.
fn warn_beyond_loopback(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        print_error(&format!(
            "warning: {address} is not loopback. Other machines may reach it, and only the token keeps them from running containers on \
             this one. Nothing is encrypted: anyone who can read the network sees secrets and registry passwords. Listen on 127.0.0.1 unless \
             you need this."
        ));
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
