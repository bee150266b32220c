//! The terminal of `top`: the alternate screen, the window's size, and the key that ends it. Invariant: the terminal is as before when
//! this ends, also after Ctrl-C and a panic.
//!
//! Six control sequences are all that is needed, and every terminal since the VT100 and xterm knows them. So there is no library for
//! terminals: crossterm would bring a second event loop, and about as much code as the rest of `top`.

use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

/// Size of a terminal that does not report its own.
const SIZE: (usize, usize) = (80, 24);

/// Interval between two looks for a key: a person does not notice that.
const KEY_INTERVAL: Duration = Duration::from_millis(100);

/// Begins the alternate screen, and hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// Shows the cursor, and ends the alternate screen.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// What to restore.
struct Before {
    /// The alternate screen is shown.
    is_on: bool,
    /// How the terminal was set; `None`: it was not changed.
    settings: Option<Termios>,
}

static BEFORE: Mutex<Before> = Mutex::new(Before { is_on: false, settings: None });

/// The alternate screen, until it is dropped.
#[derive(Debug)]
pub(super) struct Screen {
    /// Standard input is a terminal whose keys can be read without a wait.
    has_keys: bool,
}

impl Screen {
    /// Begins the alternate screen. Keys are not shown there.
    pub(super) fn enter() -> Result<Self, String> {
        restore_before_panics();
        let settings = without_echo();
        let screen = Self { has_keys: settings.is_some() };
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Before { is_on: true, settings };
        write(ENTER).map_err(|error| format!("the terminal cannot be written: {error}"))?;
        Ok(screen)
    }

    /// Draws these lines over the last ones.
    pub(super) fn draw(&mut self, lines: &[String]) -> std::io::Result<()> {
        let mut text = "\x1b[H".to_owned();
        for (number, line) in lines.iter().enumerate() {
            text += if number > 0 { "\r\n" } else { "" };
            text += line;
            text += "\x1b[K";
        }
        text += "\x1b[J";
        write(&text)
    }

    /// Waits for the key `q`.
    pub(super) async fn quit(&self) {
        if !self.has_keys {
            return std::future::pending().await;
        }
        loop {
            let mut bytes = [0; 64];
            match rustix::io::read(std::io::stdin(), &mut bytes) {
                Ok(length) if bytes[..length].iter().any(|byte| matches!(byte, b'q' | b'Q')) => return,
                Ok(_) | Err(Errno::INTR) => tokio::time::sleep(KEY_INTERVAL).await,
                // The terminal is gone: SIGHUP says so, too.
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// The size of the window: columns and rows.
pub(super) fn size() -> (usize, usize) {
    let known =
        tcgetwinsize(std::io::stdout()).map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    let or = |found: usize, other: usize| if found == 0 { other } else { found };
    (or(known.0, SIZE.0), or(known.1, SIZE.1))
}

/// Sets the terminal so that keys are read at once and not shown. Returns how it was set before; `None`: standard input is no
/// terminal, and nothing is changed.
fn without_echo() -> Option<Termios> {
    let stdin = std::io::stdin();
    let before = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten()?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
    // A read returns at once; Ctrl-Z and Ctrl-\ would leave a shell on this screen.
    for index in [SpecialCodeIndex::VMIN, SpecialCodeIndex::VTIME, SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
        quiet.special_codes[index] = 0;
    }
    tcsetattr(&stdin, OptionalActions::Now, &quiet).is_ok().then_some(before)
}

/// Restores the terminal. A second time it does nothing.
fn restore() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::take(&mut before.is_on) {
        // The terminal may be gone.
        let _written = write(LEAVE);
    }
    if let Some(settings) = before.settings.take() {
        let _set = tcsetattr(std::io::stdin(), OptionalActions::Now, &settings);
    }
}

/// What a panic says must be readable afterwards.
fn restore_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            usual(panic);
        }));
    });
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Does its work only on a terminal of its own, where the next test starts it.
    #[test]
    #[ignore = "started by another test"]
    fn process_that_panics_on_the_screen() {
        let mut screen = Screen::enter().unwrap();
        assert!(screen.has_keys);
        screen.draw(&["a table".to_owned()]).unwrap();
        panic!("the last words");
    }

    #[test]
    fn a_panic_restores_the_terminal_and_is_readable() {
        let name = concat!(module_path!(), "::process_that_panics_on_the_screen").split_once("::").unwrap().1;
        let this = std::env::current_exe().unwrap();
        let inner = format!("'{}' --exact {name} --ignored --nocapture; stty -a", this.display());
        let terminal = Command::new("script").args(["-q", "-c", &inner, "/dev/null"]).stdin(Stdio::null()).output();
        let Ok(output) = terminal else { return }; // there is no `script` here
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (shown, after) = text.split_once(LEAVE).unwrap_or_else(|| panic!("{text:?}"));
        assert!(shown.contains(ENTER) && shown.contains("a table"), "{text:?}");
        assert!(after.contains("the last words") && !after.contains(LEAVE), "once, and before the words: {text:?}");
        assert!(after.contains(" echo ") && after.contains(" icanon "), "{text:?}");
    }
}
