//! `ecs-agent`: reads the arguments and calls a command. No logic.

use ecs_agent::commands::{self, print};
use ecs_agent::config::{Action, Args, completion, help, manual};
use ecs_agent::http::introspection::LICENSE;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => return commands::refuse(&error),
    };
    match args.action {
        Action::Run => commands::run::run(&args),
        Action::Help => print(&help::usage(args.topic)),
        Action::Version => commands::version::run(),
        Action::License => print(LICENSE),
        Action::ConfigReference => print(&help::reference()),
        Action::Completion => print(&completion::script(args.shell)),
        Action::Man => print(&manual::page()),
        Action::HostSetup => commands::host_setup::run(&args),
        Action::CheckConfig => commands::check_config::run(&args),
        Action::Healthcheck | Action::HealthcheckHttp => commands::healthcheck::run(&args),
        Action::EcsAttributes => commands::attributes::run(&args),
    }
}
