//! `ecs-local` on the command line. This module owns the arguments, the output, and the sessions on this machine; the control plane
//! is the rest of the crate. Invariant: every process that it started ends with it, also when it is killed.
//!
//! In reading order: `registry`, `files`, `option_names` and `arguments` with `habits`, `help` and `completion`, `token`, `output`,
//! `signals`, `start_problem` and `limits`; `session` (directory and lock), `child` and `guard` (what happens after SIGKILL), `leftovers`;
//! `welcome`; `up` with `definition_file`, `own_settings`, `refused` with `machine`, `settings`, `agent`, `role_address`, `states`,
//! `containers` with `container_output`, `health`, `waits`, `not_started`, `exit_code`, `end` and `shared_volumes`; `top`.

mod agent;
mod arguments;
mod child;
mod completion;
mod container_output;
mod containers;
mod definition_file;
mod end;
mod exit_code;
mod files;
mod guard;
mod habits;
mod health;
mod help;
mod leftovers;
mod limits;
mod machine;
mod not_started;
mod option_names;
mod output;
mod own_settings;
mod refused;
mod registry;
mod role_address;
mod session;
mod settings;
mod shared_volumes;
mod signals;
mod start_problem;
mod states;
mod token;
mod top;
mod up;
mod waits;
mod welcome;

use crate::{Options, Server, TaskStatus};
use arguments::Command;
use help::HELP;
use leftovers::Cleaned;
use output::{print_error, print_line, warn_beyond_loopback, wrong_argument};
use session::{Kind, Session};
use signals::Interrupts;
use start_problem::start_problem;
use std::path::Path;
use std::process::ExitCode;
use token::Token;
use welcome::welcome;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let given: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let [first, rest @ ..] = &given[..]
        && first == child::BECOME
    {
        return child::become_child(rest);
    }
    let command = match arguments::parse(given.into_iter()) {
        Ok(command) => command,
        Err(problem) => return ExitCode::from(wrong_argument(&format!("{problem}\nTry: ecs-local --help"))),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    limits::raise_open_files();
    let result = runtime.block_on(async {
        match command {
            Command::Help => {
                print_line(HELP);
                Ok(0)
            }
            Command::Version => {
                print_line(concat!("ecs-local ", env!("CARGO_PKG_VERSION")));
                Ok(0)
            }
            Command::Clean { all } => {
                let Cleaned { containers, directories, volumes, kept } = leftovers::clean(all).await?;
                print_line(&format!(
                    "removed from earlier sessions: containers: {containers}, directories: {directories}"
                ));
                volumes.iter().for_each(|text| print_line(text));
                if kept > 0 {
                    print_line(&leftovers::without_directory(kept));
                }
                Ok(0)
            }
            Command::Completion(script) => {
                print_line(&script);
                Ok(0)
            }
            Command::Guard => {
                guard::run().await;
                Ok(0)
            }
            Command::Serve { options, quiet, token } => serve(options, quiet, &token).await,
            Command::Up(request) => up::up(request).await,
            Command::Top(request) => top::run(request).await,
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

/// Runs the server until Ctrl-C, SIGTERM, or the end of the terminal. Returns the exit code.
async fn serve(mut options: Options, quiet: bool, token: &Token) -> Result<u8, String> {
    options.token = match token.value() {
        Ok(value) => value,
        Err(problem) => return Ok(wrong_argument(&problem)),
    };
    let mut interrupts = Interrupts::new()?;
    let found = leftovers::found().await;
    let session = Session::begin(Kind::Serve)?;
    options.session_id = Some(session.id.clone());
    let asked = options.listen;
    let (region, directory) = (options.region.clone(), options.registry_dir.clone());
    let result = match Server::start(options).await {
        Ok(server) => {
            warn_beyond_loopback(asked);
            print_start(&server, quiet, token, &region, directory.as_deref());
            session.note_address(&server.url(), server.token()).unwrap_or_else(|problem| print_error(&problem));
            found.iter().for_each(|found| print_error(found));
            interrupts.next().await;
            let tasks = end_server(server).await;
            let left = leftovers::after_serve(&session.id).await;
            left.iter().for_each(|left| print_error(left));
            // As long as the directory is there, `clean` takes the tasks' containers for those of a session that has ended.
            if tasks > 0 || left.is_some() {
                session.forget_address();
                return Ok(0);
            }
            Ok(0)
        }
        Err(error) => start_problem(&error),
    };
    match (result, session.remove()) {
        (Err(problem), Err(stays)) => Err(format!("{problem}; {stays}")),
        (result, removed) => removed.and(result),
    }
}

/// Prints how to use a server.
fn print_start(server: &Server, quiet: bool, token: &Token, region: &str, directory: Option<&Path>) {
    let (url, shown) = (server.url(), token.shown(server.token()));
    if quiet {
        print_line(&url);
        if *token == Token::Random {
            print_line(&shown);
        }
    } else {
        print_line(&welcome(server, &shown, region, directory));
        token.note().iter().for_each(|note| print_line(note));
    }
}

/// Ends a server. Returns the number of tasks that have not stopped, and prints it.
async fn end_server(server: Server) -> usize {
    let left = server.read(|state| state.tasks().iter().filter(|task| task.last_status != TaskStatus::Stopped).count());
    if let Err(problem) = server.end().await {
        print_error(&problem);
    }
    if left > 0 {
        let tasks = if left == 1 { "task has" } else { "tasks have" };
        print_error(&format!(
            "{left} {tasks} not stopped. The agent keeps what runs: end it, then `ecs-local clean` removes the containers."
        ));
    }
    left
}
