//! `ecs-local`: the embedded control plane. It is never part of the daemon. The program itself is [`ecs_local::command`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ecs_local::command::main()
}
