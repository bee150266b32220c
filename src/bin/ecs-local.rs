//! `ecs-local`: the embedded control plane on the command line. It owns arguments and output; the control plane itself is
//! [`ecs_agent::local`]. It never becomes part of the daemon. Invariant: whatever it started, it ends.

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
use output::{complain, say};
use std::net::SocketAddr;
use std::process::ExitCode;
use token::Token;
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
            Command::Serve { options, quiet, token } => serve(options, quiet, &token).await.map(|()| 0),
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

/// Says what an address means that others can reach.
fn warn_beyond_loopback(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        complain(&format!(
            "warning: {address} is not loopback. Other machines may reach it, and only the token keeps them from running containers on \
             this one. Nothing is encrypted: who can read the network sees secrets and registry passwords. Listen on 127.0.0.1 unless \
             you need this."
        ));
    }
}

/// Runs the server until it is told to end.
async fn serve(mut options: Options, quiet: bool, token: &Token) -> Result<(), String> {
    options.token = token.value()?;
    let asked = options.listen;
    let region = options.region.clone();
    let server = Server::start(options).await.map_err(|error| format!("cannot listen on {asked}: {error}"))?;
    let (url, shown) = (server.url(), token.shown(server.token()));
    warn_beyond_loopback(asked);
    if quiet {
        say(&url);
        if *token == Token::MadeUp {
            say(&shown);
        }
    } else {
        let environment: Vec<_> =
            server.environment().iter().map(|(name, value)| format!("  {name}={value}")).collect();
        say(&format!(
            "ecs-local listens on {url}. State is in memory only: it is gone when this ends.\n\n\
             The agent (as you or as root, beside Docker), with this environment:\n{}\n  \
             AWS_ACCESS_KEY_ID=local\n  AWS_SECRET_ACCESS_KEY={shown}\n\n\
             You. The secret access key is the token: who has it can run containers on this machine.\n  \
             export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY={shown} AWS_DEFAULT_REGION={region}\n  \
             aws ecs --endpoint-url {url} list-container-instances\n\n\
             What was recorded, and faults on purpose: curl --user local:{shown} {url}/_local/\n\
             Ctrl-C ends it.",
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
