//! Prints lines, and keeps a few changing lines below them on a terminal. This module owns standard output and standard error of
//! `ecs-local`. Invariants: a closed pipe or terminal does not make the program fail; without a terminal there are only whole
//! lines, and with `NO_COLOR` there are no colours.

use ecs_core::model::text::without_numbers;
use rustix::process::{Signal, getpid, kill_process};
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Width of a terminal that does not report its own.
const WIDTH: usize = 80;
/// Width of a bar, in characters.
const BAR: usize = 24;

/// The changing lines at the bottom of the terminal. They are drawn on standard error.
struct Screen {
    lines: Vec<String>,
    /// Number of lines that are on the terminal now.
    drawn: usize,
}

static SCREEN: Mutex<Screen> = Mutex::new(Screen { lines: Vec::new(), drawn: 0 });

/// The program is to end when nobody reads its output any more.
static ENDS_WITH_READER: AtomicBool = AtomicBool::new(false);

/// A line could not be written, since nobody reads standard output any more.
static HAS_LOST_READER: AtomicBool = AtomicBool::new(false);

/// Makes the program end as by SIGTERM when nobody reads its standard output any more, as in `ecs-local up TASK | head`.
pub(super) fn end_with_reader() {
    ENDS_WITH_READER.store(true, Ordering::Relaxed);
}

/// Nobody reads standard output any more.
pub(super) fn has_lost_reader() -> bool {
    HAS_LOST_READER.load(Ordering::Relaxed)
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Error,
}

/// Prints a line on standard output.
pub(crate) fn print_line(text: &str) {
    print(Stream::Out, text);
}

/// Prints a line on standard error.
pub(crate) fn print_error(text: &str) {
    print(Stream::Error, &error_line(text));
}

/// Errors reach this place as texts that hold others, so numbers of the operating system are left out here, and not where each
/// text is made.
pub(super) fn error_line(text: &str) -> String {
    format!("ecs-local: {}", without_numbers(text))
}

/// Prints what is wrong with the command line, or with what it names. Returns the exit code for it.
pub(super) fn wrong_argument(problem: &str) -> u8 {
    print_error(problem);
    2
}

/// Prints a line of a container's output, with the container's name.
pub(super) fn print_output(stream: Stream, container: &str, text: &str) {
    let is_terminal = match stream {
        Stream::Out => std::io::stdout().is_terminal(),
        Stream::Error => std::io::stderr().is_terminal(),
    };
    let colour = if stream == Stream::Out { 36 } else { 33 };
    let (begin, end) =
        if has_colours(is_terminal) { (format!("\x1b[{colour}m"), "\x1b[0m") } else { (String::new(), "") };
    print(stream, &format!("{begin}{container} |{end} {text}"));
}

/// Whether changing lines can be shown: standard error is a terminal that can move its cursor.
pub(super) fn has_live_lines() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|kind| kind != "dumb")
}

/// Standard output is a terminal, not a file, a pipe or the log of a CI.
pub(super) fn is_read_by_a_person() -> bool {
    std::io::stdout().is_terminal()
}

/// Replaces the changing lines. Without such a terminal this does nothing.
pub(super) fn set_live_lines(lines: Vec<String>) {
    if has_live_lines() {
        let mut screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
        if screen.lines != lines {
            screen.erase();
            screen.lines = lines;
            screen.draw();
        }
    }
}

/// Removes the changing lines about this task or container.
pub(super) fn drop_live_lines(name: &str) {
    if has_live_lines() {
        let mut screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
        screen.erase();
        screen.forget(name);
        screen.draw();
    }
}

/// A bar for a percentage.
pub(super) fn bar(percent: u64) -> String {
    let full = usize::try_from(percent.min(100)).unwrap_or(100) * BAR / 100;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full))
}

/// Warns about an address that other machines can reach.
pub(super) fn warn_beyond_loopback(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        print_error(&format!(
            "warning: {address} is not loopback. Other machines may reach it, and only the token keeps them from running containers on \
             this one. Nothing is encrypted: anyone who can read the network sees secrets and registry passwords. Listen on 127.0.0.1 unless \
             you need this."
        ));
    }
}

/// `NO_COLOR` is respected as on no-color.org: any value but an empty one turns colours off.
pub(super) fn has_colours(is_terminal: bool) -> bool {
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !is_off && std::env::var_os("TERM").is_some_and(|kind| kind != "dumb")
}

fn print(stream: Stream, text: &str) {
    let mut screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
    screen.erase();
    // A failed write means that nobody reads the output any more. The program must still end the processes that it started.
    let written = match stream {
        Stream::Out => writeln!(std::io::stdout().lock(), "{text}"),
        Stream::Error => writeln!(std::io::stderr().lock(), "{text}"),
    };
    let has_no_reader = written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) && stream == Stream::Out;
    if has_no_reader {
        HAS_LOST_READER.store(true, Ordering::Relaxed);
    }
    if has_no_reader && ENDS_WITH_READER.swap(false, Ordering::Relaxed) {
        let _sent = kill_process(getpid(), Signal::TERM);
    }
    screen.draw();
}

impl Screen {
    /// Removes the lines that begin with this name and a colon.
    fn forget(&mut self, name: &str) {
        self.lines.retain(|line| !line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            let _written = write!(std::io::stderr().lock(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        let width = if columns == 0 { WIDTH } else { columns };
        let mut text = String::new();
        for line in &self.lines {
            // A line that the terminal wraps would be erased only in part.
            text.extend(line.chars().filter(|letter| !letter.is_control()).take(width.saturating_sub(1)));
            text.push('\n');
        }
        let _written = write!(std::io::stderr().lock(), "{text}");
        self.drawn = self.lines.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_shows_a_number_of_the_operating_system() {
        let error = std::io::Error::from_raw_os_error(2);
        let text = error_line(&format!("a.json: {error}; b: {error}"));
        assert_eq!(text, "ecs-local: a.json: No such file or directory; b: No such file or directory");
    }

    #[test]
    fn lines_of_a_name_are_removed_and_no_others() {
        let lines = ["container a: waits", "container ab: waits", "task: waits"].map(str::to_owned).to_vec();
        let mut screen = Screen { lines, drawn: 0 };
        screen.forget("container a");
        assert_eq!(screen.lines, ["container ab: waits", "task: waits"]);
    }

    #[test]
    fn a_bar_is_as_full_as_its_percentage() {
        assert_eq!(bar(0), format!("[{}]", "-".repeat(24)));
        assert_eq!(bar(50), format!("[{}{}]", "#".repeat(12), "-".repeat(12)));
        assert_eq!(bar(250), format!("[{}]", "#".repeat(24)));
    }
}
