//! The log: written to standard error, one event per line, whatever its fields hold.
//!
//! [`mod@line`] formats an event as one line of limited length, `repeats` limits repeated lines, [`queue`] passes the lines to
//! the one thread that writes them. Invariant: only that thread ever waits for the reader of the log.

pub mod line;
pub mod queue;
mod repeats;

pub use line::Form;
use line::{Line, OWN_TARGET};
use queue::Queue;
use repeats::hash;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry;

/// Time that the last lines have to be written when the process ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The log of this process. Dropping it writes the remaining lines, and waits at most two seconds for that.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Log {
    queue: Arc<Queue>,
}

impl Log {
    /// Waits until all lines so far are written, for at most two seconds. Returns false if some are not.
    pub fn flush(&self) -> bool {
        self.queue.flush(LAST_LINES)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.close(LAST_LINES);
    }
}

/// Starts logging. Panics are logged, too. `filter` is a level, or a list such as `info,ecs_agent=debug`. A second call in the
/// same process has no effect on the log that the first one started.
pub fn start(filter: &str, form: Form) -> Log {
    let filter = filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let queue = Arc::new(Queue::new(form));
    let lines = Lines { form, queue: queue.clone() };
    // An error means that there is a subscriber already (in tests).
    if tracing::subscriber::set_global_default(registry().with(lines).with(filter)).is_ok() {
        if let Err(error) = queue.write_to(std::io::stderr()) {
            // There is no thread that would write the line. This early, writing it directly delays nothing else.
            let _ = writeln!(std::io::stderr(), "no thread can be started, so there is no log: {error}");
        }
        let panics = Lines { form, queue: queue.clone() };
        std::panic::set_hook(Box::new(move |panic| panics.panicked(panic)));
    }
    Log { queue }
}

/// Turns events into lines.
struct Lines {
    form: Form,
    queue: Arc<Queue>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(self.form, SystemTime::now(), *metadata.level(), metadata.target());
        event.record(&mut line);
        self.queue.push(hash(&metadata.callsite()), line, Instant::now());
    }
}

impl Lines {
    /// Logs a panic in one line, worded as by Rust's own hook.
    fn panicked(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        let mut line = Line::new(self.form, SystemTime::now(), Level::ERROR, OWN_TARGET);
        line.message(format_args!("thread '{name}' panicked at {place}: {message}"));
        self.queue.push(hash(&place), line, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::Layered;

    type Logging = Layered<Lines, tracing_subscriber::Registry>;

    fn logging(form: Form) -> (Logging, Arc<Queue>) {
        let queue = Arc::new(Queue::new(form));
        (registry().with(Lines { form, queue: queue.clone() }), queue)
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer\nline")]
    struct Outer(#[source] std::io::Error);

    fn events() {
        let error = Outer(std::io::Error::other("in\u{1b}ner"));
        let answer = "<html>\r\nlevel=info";
        tracing::warn!(%error, answer, bytes = 3, ok = true, ratio = 0.5, r#type = ?Some(1), "cannot\nbe pulled: {answer}");
        tracing::error!(error = &error as &dyn std::error::Error);
    }

    /// Does its work only in a process of its own, started by the next test.
    #[test]
    fn process_that_logs_and_panics() {
        let Ok(form) = std::env::var("ECS_TEST_LOG_FORM") else { return };
        let _log = start("info", if form == "json" { Form::Json } else { Form::Text });
        tracing::info!("before");
        let ended = std::thread::Builder::new().name("worker".to_owned()).spawn(|| panic!("broken\nin two"));
        assert!(ended.unwrap().join().is_err());
        tracing::info!("after");
        panic!("the last words");
    }

    #[test]
    fn the_last_lines_and_panics_are_written_before_the_end() {
        for form in ["text", "json"] {
            let name = concat!(module_path!(), "::process_that_logs_and_panics").split_once("::").unwrap().1;
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let out = command.args(["--exact", name, "--nocapture"]).env("ECS_TEST_LOG_FORM", form).output().unwrap();
            let text = String::from_utf8_lossy(&out.stderr);
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 4, "{text}");
            for (line, wanted) in lines.iter().zip(["before", r"broken\nin two", "after", "the last words"]) {
                assert!(line.contains(wanted), "{wanted}: {text}");
            }
            assert!(lines[1].contains("thread 'worker' panicked at src"), "{text}");
            if form == "json" {
                lines.iter().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
            }
        }
    }

    #[test]
    fn an_event_of_every_kind_of_field_is_one_line_of_text() {
        let (subscriber, queue) = logging(Form::Text);
        tracing::subscriber::with_default(subscriber, events);
        let lines = queue.waiting();
        let rest: Vec<&str> = lines.iter().map(|line| &line[27..]).collect();
        let target = module_path!();
        let first = format!(
            "  WARN {target}: cannot\\nbe pulled: <html>\\r\\nlevel=info error=outer\\nline answer=\"<html>\\r\\nlevel=info\" \
             bytes=3 ok=true ratio=0.5 type=Some(1)\n"
        );
        assert_eq!(rest, [first, format!(" ERROR {target}: error=outer line: in ner\n")]);
    }

    #[test]
    fn an_event_of_every_kind_of_field_is_one_object_of_json() {
        let (subscriber, queue) = logging(Form::Json);
        tracing::subscriber::with_default(subscriber, events);
        let lines = queue.waiting();
        assert_eq!(lines.len(), 2);
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let fields = serde_json::json!({
            "message": "cannot\nbe pulled: <html>\r\nlevel=info",
            "error": "outer\nline", "answer": "<html>\r\nlevel=info", "bytes": 3, "ok": true, "ratio": 0.5, "type": "Some(1)",
        });
        assert_eq!((&value["fields"], &value["level"]), (&fields, &"WARN".into()));
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1));
    }
}
