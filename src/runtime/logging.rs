//! The log: one event per line, whatever its fields hold, on standard output and in the file of `ECS_LOGFILE`.
//!
//! [`mod@line`] formats an event as one line of limited length, `repeats` limits repeated lines, [`queue`] passes the lines to
//! the one thread that writes them to an output, `file` is the output that is a file. [`plain`] writes the audit log. Invariant: only these threads ever wait
//! for a reader of the log or for a disk.

mod file;
pub mod line;
pub mod plain;
pub mod queue;
mod repeats;
mod surroundings;

pub use line::Form;

use crate::config::{LogFormat, LogLevel, LogLevels, LogSettings};
use ecs_core::model::with_causes;
use file::RollingFile;
use line::{Line, OWN_TARGET, hash};
use queue::Queue;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};
use surroundings::Surroundings;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, registry, reload};

/// Time that the last lines have to be written when the process ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Where a process logs, besides the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, as the Go agent.
    Output,
    /// Standard error: standard output is for the answer.
    Error,
}

/// The log of this process. Dropping it writes the remaining lines, and waits at most two seconds for that.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Log {
    control: LogControl,
}

/// Changes what is logged while the process runs.
#[derive(Clone, Debug, Default)]
pub struct LogControl {
    outputs: Arc<[Output]>,
    /// The filter of all outputs together; `None`: the log was started by an earlier call (in tests).
    filter: Option<reload::Handle<Targets, Registry>>,
}

/// One output, with the level of its own.
#[derive(Debug)]
struct Output {
    queue: Arc<Queue>,
    /// The place of its level in [`LEVELS`].
    level: AtomicU8,
    is_file: bool,
}

/// All levels; an output accepts those at and behind its own.
const LEVELS: [LogLevel; 6] =
    [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error, LogLevel::Crit, LogLevel::None];

impl Log {
    /// Waits until all lines so far are written, for at most two seconds. Returns false if some are not.
    pub fn flush(&self) -> bool {
        let until = Instant::now() + LAST_LINES;
        let flushed = |output: &Output| output.queue.flush(until.saturating_duration_since(Instant::now()));
        // All of them, also after one that is too slow.
        self.control.outputs.iter().map(flushed).fold(true, |all, is_flushed| all & is_flushed)
    }

    /// What changes the levels of this log.
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (outputs, until) = (&self.control.outputs, Instant::now() + LAST_LINES);
        // All of them at once: a slow one has no part of the others' time.
        outputs.iter().for_each(|output| output.queue.begin_close());
        for output in outputs.iter() {
            output.queue.close(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl LogControl {
    /// The level of standard output.
    fn output_level(&self) -> LevelFilter {
        self.outputs.first().map_or(LevelFilter::OFF, Output::level)
    }

    /// For each output, whether it is the log file, the number of lines that are not written yet, and of all that were dropped.
    pub fn depths(&self) -> impl Iterator<Item = (bool, usize, u64)> {
        self.outputs.iter().map(|output| {
            let (waiting, dropped) = output.queue.depth();
            (output.is_file, waiting, dropped)
        })
    }

    /// Sets the levels. `says` logs that; it is called while the more verbose level of standard output applies.
    pub fn change(&self, levels: LogLevels, says: impl Fn()) {
        let before = self.output_level();
        let is_quieter = filter(levels.output) < before;
        if is_quieter {
            says();
        }
        self.set(levels);
        if !is_quieter {
            says();
        }
    }

    /// Sets the levels.
    fn set(&self, levels: LogLevels) {
        for output in self.outputs.iter() {
            output.set(levels);
        }
        if let Some(filter) = &self.filter {
            // An error means that the process is about to end.
            let _ended = filter.reload(filter_for(&self.outputs));
        }
    }
}

impl Output {
    fn new(queue: Queue, is_file: bool, levels: LogLevels) -> Self {
        let output = Self { queue: Arc::new(queue), level: AtomicU8::new(0), is_file };
        output.set(levels);
        output
    }

    fn set(&self, levels: LogLevels) {
        let level = if self.is_file { levels.file } else { levels.output };
        let place = LEVELS.iter().position(|known| *known == level).unwrap_or_default();
        self.level.store(u8::try_from(place).unwrap_or_default(), Ordering::Relaxed);
    }

    fn level(&self) -> LevelFilter {
        LEVELS.get(usize::from(self.level.load(Ordering::Relaxed))).map_or(LevelFilter::OFF, |level| filter(*level))
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Crit => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    }
}

/// What any output accepts: lines of this agent only. Libraries log what this agent does not: lines of credentials files, and
/// values in the form of `Debug`. What they report matters here only as the error of a call, which the caller logs.
fn filter_for(outputs: &[Output]) -> Targets {
    let level = outputs.iter().map(Output::level).max().unwrap_or(LevelFilter::OFF);
    Targets::new().with_target("ecs_agent", level)
}

/// Starts logging. Panics are logged, too. A second call in the same process has no effect on the log that the first one
/// started.
pub fn start(settings: LogSettings, stream: Stream) -> Log {
    let form = match settings.format {
        LogFormat::Logfmt => Form::Logfmt,
        LogFormat::Json => Form::Json,
    };
    let out = stream_file(stream);
    let is_journal = out.as_ref().is_ok_and(|out| is_journal(out, settings.journal.as_deref()));
    let mut outputs = vec![Output::new(Queue::new(form, is_journal), false, settings.levels)];
    let mut writers: Vec<io::Result<Box<dyn Write + Send>>> = vec![out.map(|out| Box::new(out) as _)];
    if let Some(file) = settings.file {
        outputs.push(Output::new(Queue::new(form, false), true, settings.levels));
        writers.push(Ok(Box::new(RollingFile::new("the log file (ECS_LOGFILE)", file, SystemTime::now))));
    }
    let outputs: Arc<[Output]> = outputs.into();
    let (filter, handle) = reload::Layer::new(filter_for(&outputs));
    let lines = Lines { form, outputs: outputs.clone() };
    // An error means that there is a subscriber already (in tests).
    let is_first = tracing::subscriber::set_global_default(registry().with(filter).with(lines)).is_ok();
    if is_first {
        for (output, writer) in outputs.iter().zip(writers) {
            if let Err(error) = writer.and_then(|writer| output.queue.write_to(writer)) {
                // There is no thread that would write the line. This early, writing it directly delays nothing else.
                let _ = writeln!(io::stderr(), "a part of the log is missing: {}", with_causes(&error));
            }
        }
        let panics = Lines { form, outputs: outputs.clone() };
        std::panic::set_hook(Box::new(move |panic| panics.panicked(panic)));
    }
    Log { control: LogControl { outputs, filter: is_first.then_some(handle) } }
}

/// The stream as a file of its own, without the buffer of the standard library, which would keep the end of a batch.
fn stream_file(stream: Stream) -> io::Result<File> {
    let descriptor = match stream {
        Stream::Output => io::stdout().as_fd().try_clone_to_owned()?,
        Stream::Error => io::stderr().as_fd().try_clone_to_owned()?,
    };
    Ok(File::from(descriptor))
}

/// The file is the stream that the journal reads, which wants the priority in front of each line (`sd-daemon(3)`). `journal` is
/// the value of `JOURNAL_STREAM`.
fn is_journal(file: &File, journal: Option<&str>) -> bool {
    file.metadata().is_ok_and(|found| journal == Some(&format!("{}:{}", found.dev(), found.ino())))
}

/// Turns events into lines.
struct Lines {
    form: Form,
    outputs: Arc<[Output]>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Surroundings::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Surroundings>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(self.form, SystemTime::now(), *metadata.level(), metadata.target());
        event.record(&mut line);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Surroundings>() {
                fields.add_to(&mut line);
            }
        }
        self.push(hash(&metadata.callsite()), line);
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
        self.push(hash(&place), line);
    }

    /// Passes a line to each output that accepts its level.
    fn push(&self, place: u64, line: Line) {
        let now = Instant::now();
        for output in self.outputs.iter().filter(|output| line.level() <= output.level()) {
            output.queue.push(place, line.clone(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFile, Rollover};
    use tracing_subscriber::layer::Layered;

    type Logging = Layered<Lines, Registry>;

    const LEVELS: LogLevels = LogLevels { output: LogLevel::Debug, file: LogLevel::Warn };

    fn logging(form: Form) -> (Logging, Arc<Queue>) {
        let output = Output::new(Queue::new(form, false), false, LEVELS);
        let queue = output.queue.clone();
        (registry().with(Lines { form, outputs: vec![output].into() }), queue)
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer\nline")]
    struct Outer(#[source] std::io::Error);

    fn events() {
        let error = Outer(std::io::Error::other("in\u{1b}ner"));
        let answer = "<html>\r\nlevel=info";
        tracing::warn!(%error, answer, bytes = 3, ok = true, ratio = 0.5, r#type = %2.5, "cannot\nbe pulled: {answer}");
        tracing::error!(error = &error as &dyn std::error::Error);
    }

    /// Does its work only in a process of its own, started by the next tests.
    #[test]
    fn process_that_logs_and_panics() {
        let Ok(format) = std::env::var("ECS_TEST_LOG_FORM") else { return };
        let format = if format == "json" { LogFormat::Json } else { LogFormat::Logfmt };
        let file = std::env::var_os("ECS_TEST_LOG_FILE").map(|path| LogFile {
            path: path.into(),
            rollover: Rollover::None,
            max_bytes: 1,
            keep: None,
        });
        let levels = LogLevels { output: LogLevel::Info, file: LogLevel::Warn };
        let log =
            start(LogSettings { format, levels, file, journal: std::env::var("ECS_TEST_JOURNAL").ok() }, Stream::Error);
        tracing::info!("before");
        tracing::debug!("no debug message");
        tracing::warn!("a warning");
        log.control().set(LogLevels { output: LogLevel::Debug, file: LogLevel::Debug });
        tracing::debug!("now debug messages");
        let foreign: &str = "not of another crate";
        tracing::error!(target: "aws_runtime", "{foreign}");
        log.control().set(LogLevels { output: LogLevel::Error, file: LogLevel::None });
        tracing::warn!("no warning");
        let ended = std::thread::Builder::new().name("worker".to_owned()).spawn(|| panic!("broken\nin two"));
        assert!(ended.unwrap().join().is_err());
        panic!("the last words");
    }

    /// The lines of such a process, on standard error and in its file.
    fn process(format: &str, journal: bool) -> (Vec<String>, Vec<String>) {
        let name = concat!(module_path!(), "::process_that_logs_and_panics").split_once("::").unwrap().1;
        let directory = ecs_testing::docker::TempDir::new("ecs-log");
        let (file, output) = (directory.path().join("agent.log"), directory.path().join("output"));
        let to = File::create(&output).unwrap();
        let found = to.metadata().unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("ECS_TEST_LOG_FORM", format).env("ECS_TEST_LOG_FILE", &file);
        if journal {
            command.env("ECS_TEST_JOURNAL", format!("{}:{}", found.dev(), found.ino()));
        }
        command.stdout(std::process::Stdio::null()).stderr(to).status().unwrap();
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        (lines(output), lines(file))
    }

    #[test]
    fn the_last_lines_and_panics_are_written_before_the_end() {
        for form in ["logfmt", "json"] {
            let (output, file) = process(form, false);
            let wanted = ["before", "a warning", "now debug messages", r"broken\nin two", "the last words"];
            assert_eq!(output.len(), wanted.len(), "{output:?}");
            for (line, wanted) in output.iter().zip(wanted) {
                assert!(line.contains(wanted), "{wanted}: {line}");
            }
            assert!(output[3].contains("thread 'worker' panicked at src"), "{output:?}");
            assert_eq!(file, output[1..3], "the file has a level of its own");
            if form == "json" {
                output.iter().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
            }
        }
    }

    #[test]
    fn the_journal_gets_priorities_and_the_file_none() {
        let (output, file) = process("logfmt", true);
        let priorities: Vec<&str> = output.iter().map(|line| line.split("level=").next().unwrap()).collect();
        assert_eq!(priorities, ["<6>", "<4>", "<7>", "<3>", "<3>"], "{output:?}");
        assert!(file.iter().all(|line| line.starts_with("level=")), "{file:?}");
    }

    #[test]
    fn an_event_of_every_kind_of_field_is_one_line_of_text() {
        let (subscriber, queue) = logging(Form::Logfmt);
        tracing::subscriber::with_default(subscriber, events);
        let lines = queue.waiting();
        let rest: Vec<&str> = lines.iter().map(|line| line.split_once("Z ").unwrap().1).collect();
        let module = module_path!().trim_start_matches("ecs_agent::");
        let first = format!(
            "msg=\"cannot\\nbe pulled: <html>\\r\\nlevel=info\" error=\"outer\\nline\" answer=\"<html>\\r\\nlevel=info\" \
             bytes=3 ok=true ratio=0.5 type=2.5 module={module}\n"
        );
        assert_eq!(rest, [first, format!("error=\"outer line: in ner\" msg=\"\" module={module}\n")]);
    }

    /// An edge does not know the task for which it works: its lines get the task from the span. Their own fields take precedence.
    #[test]
    fn lines_show_the_fields_of_their_span() {
        let (subscriber, queue) = logging(Form::Logfmt);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::error_span!("call", task = "t1", container = tracing::field::Empty);
            span.in_scope(|| tracing::info!("first"));
            span.record("container", "app");
            span.record("task", "t1, t2");
            span.in_scope(|| tracing::info!(task = "t3", "second"));
            span.in_scope(|| tracing::error_span!("within", container = "web").in_scope(|| tracing::info!("third")));
            tracing::info!("last");
        });
        let lines = queue.waiting();
        let rest: Vec<&str> = lines.iter().map(|line| line.split_once("Z ").unwrap().1).collect();
        let module = module_path!().trim_start_matches("ecs_agent::");
        let wanted = [
            "msg=\"first\" task=t1",
            "msg=\"second\" task=t3 container=app",
            "msg=\"third\" container=web task=\"t1, t2\"",
            "msg=\"last\"",
        ];
        assert_eq!(rest, wanted.map(|line| format!("{line} module={module}\n")));
    }

    #[test]
    fn an_event_of_every_kind_of_field_is_one_object_of_json() {
        let (subscriber, queue) = logging(Form::Json);
        tracing::subscriber::with_default(subscriber, events);
        let lines = queue.waiting();
        assert_eq!(lines.len(), 2);
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let fields = serde_json::json!({
            "level": "warn", "time": value["time"], "msg": "cannot\nbe pulled: <html>\r\nlevel=info",
            "error": "outer\nline", "answer": "<html>\r\nlevel=info", "bytes": 3, "ok": true, "ratio": 0.5, "type": "2.5",
            "module": module_path!().trim_start_matches("ecs_agent::"),
        });
        assert_eq!(value, fields);
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1));
    }
}
