//! `ecs-local top`: the containers of all tasks with what they use, again and again. This module owns the order of the steps. The
//! values are those of the agent's telemetry, which comes every 20 seconds and costs nothing more: a question to Docker would cost Docker
//! work, and show what ECS does not see.
//!
//! In reading order: `options`, `ask` (which sessions, and what they know), `table` (the lines), `screen` (the terminal).

mod ask;
mod options;
mod screen;
mod table;

pub(super) use options::{Request, parse};

use super::output::{has_colours, has_lost_reader, is_read_by_a_person, print_error, print_line};
use super::signals::Interrupts;
use ask::{Asked, targets};
use options::Form;
use screen::Screen;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Interval between two looks on a terminal. Telemetry is rarer, but states and ages change.
const ON_TERMINAL: Duration = Duration::from_secs(1);
/// The same elsewhere: that of telemetry.
const ELSEWHERE: Duration = Duration::from_secs(20);

/// What to do if there is no session.
const NOT_RUNNING: &str = "no ecs-local runs here. Start `ecs-local serve` or `ecs-local up TASK.json`. A session of another user, or with \
                           another TMPDIR, needs --url URL and --token-file FILE";

/// Shows the table until Ctrl-C, or once. Returns the exit code.
pub(super) async fn run(request: Request) -> Result<u8, String> {
    let is_terminal = is_read_by_a_person() && std::env::var_os("TERM").is_some_and(|kind| kind != "dumb");
    if request.is_once || request.form == Form::Json || !is_terminal {
        return print(&request).await;
    }
    let mut interrupts = Interrupts::new()?;
    let mut resized = signal(SignalKind::window_change()).map_err(|error| error.to_string())?;
    if targets(&request)?.is_empty() {
        return Err(NOT_RUNNING.to_owned());
    }
    let has_colours = has_colours(true);
    let mut screen = Screen::enter()?;
    loop {
        let targets = targets(&request)?;
        if targets.is_empty() {
            drop(screen);
            print_error("ecs-local has ended");
            return Ok(0);
        }
        let Asked { top, problems } = tokio::select! {
            () = interrupts.next() => return Ok(0),
            () = screen.quit() => return Ok(0),
            asked = ask::all(&targets) => asked,
        };
        let (columns, rows) = screen::size();
        if screen.draw(&table::on_terminal(&top, &problems, request.sort, columns, rows, has_colours)).is_err() {
            return Ok(0);
        }
        tokio::select! {
            () = interrupts.next() => return Ok(0),
            () = screen.quit() => return Ok(0),
            _ = resized.recv() => {}
            () = sleep(ON_TERMINAL) => {}
        }
    }
}

/// Prints one table, or one every 20 seconds.
async fn print(request: &Request) -> Result<u8, String> {
    let mut interrupts = Interrupts::new()?;
    let mut is_first = true;
    loop {
        let targets = targets(request)?;
        match targets.is_empty() {
            true if is_first => return Err(NOT_RUNNING.to_owned()),
            true => return Ok(0),
            false => {}
        }
        let Asked { top, problems } = tokio::select! {
            () = interrupts.next() => return Ok(0),
            asked = ask::all(&targets) => asked,
        };
        if problems.len() == targets.len() && is_first {
            return Err(problems.join("\n"));
        }
        match request.form {
            Form::Json => {
                problems.iter().for_each(|problem| print_error(problem));
                print_line(&serde_json::to_string(&top).map_err(|error| error.to_string())?);
            }
            Form::Table => table::plain(&top, &problems, request.sort).iter().for_each(|line| print_line(line)),
        }
        if request.is_once || has_lost_reader() {
            return Ok(0);
        }
        is_first = false;
        tokio::select! {
            () = interrupts.next() => return Ok(0),
            () = sleep(ELSEWHERE) => {}
        }
    }
}
