//! Writes a line about the agent itself to a file every two minutes (`ECS_ENABLE_RUNTIME_STATS`, spec `logging.md` §2).
//!
//! Owns the form of the line, which is that of the Go agent: `NAME=VALUE` with a comma between. Names of the Go agent are used where
//! the value means the same; what only Go's runtime has (its heap's halves, its garbage collection) is left out, and what the kernel
//! knows is added. Compat: unlike the Go agent's, the line is not on standard output, where every line is an event of the log.
//! Invariant: a figure that cannot be read is left out, and nothing waits for the disk.

use crate::config::LogFile;
use crate::runtime::logging::plain::{PlainFile, Purpose};
use crate::runtime::supervisor::PartResult;
use aws_smithy_types::date_time::Format;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(120);
/// The unit of CPU times in `/proc`: the kernel shows hundredths of a second on all architectures.
const TICKS_PER_SECOND: f64 = 100.0;
/// How many fields of `/proc/PID/stat` are between the end of the program's name and its time in user mode.
const BEFORE_USER_TIME: usize = 11;

/// The file, and what a line needs besides the kernel's files.
#[derive(Debug)]
pub(crate) struct RuntimeStats {
    file: PlainFile,
    started: Instant,
}

/// What is known about this process at one moment.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    /// Memory without the program's own text, in bytes.
    anonymous: Option<u64>,
    /// Memory with it, in bytes.
    resident: Option<u64>,
    threads: Option<u64>,
    /// Number of open files and connections.
    files: Option<usize>,
    /// In seconds.
    cpu: Option<f64>,
    /// Number of asynchronous tasks, which do what goroutines do.
    tasks: usize,
}

impl RuntimeStats {
    /// Opens nothing yet.
    pub(crate) fn new(file: LogFile) -> Self {
        Self { file: PlainFile::new(Purpose::RuntimeStats, file), started: Instant::now() }
    }

    /// Writes a line now and every two minutes, until `stop` is cancelled.
    pub(crate) async fn keep(&self, stop: CancellationToken) -> PartResult {
        let writing = async {
            let mut tick = interval(INTERVAL);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let begun = Instant::now();
                let figures = Figures::now();
                self.file.write(line(&figures, SystemTime::now(), self.started.elapsed(), begun.elapsed()));
            }
        };
        stop.run_until_cancelled(writing).await;
        Ok(())
    }
}

impl Figures {
    /// Asks the kernel, whose answers come from memory.
    fn now() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let files = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self { tasks, files, ..Self::parse(&read("status"), &read("stat")) }
    }

    /// From the texts of `/proc/self/status` and `/proc/self/stat`.
    fn parse(status: &str, stat: &str) -> Self {
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |name: &str| number(name)?.checked_mul(1024);
        // The name of the program is in parentheses, and may contain spaces.
        let times = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(BEFORE_USER_TIME).take(2));
        let times: Option<Vec<f64>> = times.and_then(|times| times.map(|ticks| ticks.parse().ok()).collect());
        let times = times.filter(|times| times.len() == 2);
        Self {
            anonymous: bytes("RssAnon"),
            resident: bytes("VmRSS"),
            threads: number("Threads"),
            files: None,
            cpu: times.map(|times| times.iter().sum::<f64>() / TICKS_PER_SECOND),
            tasks: 0,
        }
    }
}

/// The line about these figures. `overhead` is the time that reading them took.
fn line(figures: &Figures, at: SystemTime, up: Duration, overhead: Duration) -> String {
    let time = aws_smithy_types::DateTime::from(at);
    let time = aws_smithy_types::DateTime::from_secs(time.secs()).fmt(Format::DateTime).unwrap_or_default();
    let mut text = format!("Time={time}");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {name}={value}");
        }
    };
    add("HeapMemoryInUse", figures.anonymous.map(|bytes| bytes.to_string()));
    add("GoroutineCount", Some(figures.tasks.to_string()));
    add("UpTime", Some(go_duration(up)));
    add("ReadMemStatsOverhead", Some(go_duration(overhead)));
    add("ResidentMemory", figures.resident.map(|bytes| bytes.to_string()));
    add("ThreadCount", figures.threads.map(|threads| threads.to_string()));
    add("OpenFiles", figures.files.map(|files| files.to_string()));
    add("CPUTime", figures.cpu.map(|seconds| go_duration(Duration::from_secs_f64(seconds.max(0.0)))));
    text
}

/// A duration in the form of Go, as in `1h2m3.5s` or `85.1µs`.
fn go_duration(duration: Duration) -> String {
    let trimmed = |whole: u64, fraction: u64, digits: usize| {
        let text = format!("{whole}.{fraction:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let (seconds, nanos) = (duration.as_secs(), u64::from(duration.subsec_nanos()));
    match (seconds, nanos) {
        (0, 0) => "0s".to_owned(),
        (0, ..1_000) => format!("{nanos}ns"),
        (0, ..1_000_000) => format!("{}µs", trimmed(nanos / 1_000, nanos % 1_000, 3)),
        (0, _) => format!("{}ms", trimmed(nanos / 1_000_000, nanos % 1_000_000, 6)),
        _ => {
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let hours_text = if hours > 0 { format!("{hours}h") } else { String::new() };
            let minutes_text = if seconds >= 60 { format!("{minutes}m") } else { String::new() };
            format!("{hours_text}{minutes_text}{}s", trimmed(seconds % 60, nanos, 9))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rollover;

    #[test]
    fn durations_have_the_form_of_go() {
        for (nanos, wanted) in [
            (0, "0s"),
            (85, "85ns"),
            (85_100, "85.1µs"),
            (2_000_000, "2ms"),
            (999_999_999, "999.999999ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (120_000_123_000, "2m0.000123s"),
            (3_600_000_000_000, "1h0m0s"),
            (100_000_000_000_000, "27h46m40s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), wanted);
        }
    }

    #[test]
    fn what_the_kernel_does_not_show_is_left_out() {
        let status = "Name:\tecs-agent\nVmRSS:\t   10240 kB\nRssAnon:\t    4096 kB\nThreads:\t7\n";
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 7 0 1";
        let figures = Figures { files: Some(31), tasks: 24, ..Figures::parse(status, stat) };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_326_998_400);
        let shown = |figures: &Figures| line(figures, at, Duration::from_secs(120), Duration::from_micros(85));
        let wanted = "Time=2026-11-22T05:56:38Z, HeapMemoryInUse=4194304, GoroutineCount=24, UpTime=2m0s, ReadMemStatsOverhead=85µs, \
                      ResidentMemory=10485760, ThreadCount=7, OpenFiles=31, CPUTime=1.75s";
        assert_eq!(shown(&figures), wanted);
        let wanted = "Time=2026-11-22T05:56:38Z, GoroutineCount=0, UpTime=2m0s, ReadMemStatsOverhead=85µs";
        assert_eq!(shown(&Figures::parse("", "")), wanted);
        for torn in
            ["1 (a", "1 (a) S", "1 (a) S 0 1 1 0 -1 4194560 1 2 3 4 150", "1 (a) S 0 1 1 0 -1 4194560 1 2 3 4 x y"]
        {
            assert_eq!(Figures::parse("VmRSS:\nThreads: x", torn), Figures::default(), "{torn}");
        }
    }

    #[tokio::test]
    async fn lines_about_this_process_reach_the_file() {
        let top = std::env::temp_dir().join(format!("runtime-stats-{}", uuid::Uuid::new_v4().simple()));
        let path = top.join("agent-runtime-stats.log");
        let settings = LogFile { path: path.clone(), rollover: Rollover::Size, max_bytes: 1_000, keep: Some(3) };
        let (stats, stop) = (RuntimeStats::new(settings), CancellationToken::new());
        let until = Instant::now() + Duration::from_secs(30);
        let read = async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                if text.ends_with('\n') {
                    stop.cancel();
                    return text;
                }
                assert!(Instant::now() < until, "{text}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (ended, text) = tokio::join!(stats.keep(stop.clone()), read);
        assert_eq!((ended, text.lines().count()), (Ok(()), 1));
        for name in ["HeapMemoryInUse", "ResidentMemory", "ThreadCount", "OpenFiles"] {
            let value = text.split(", ").find_map(|member| member.strip_prefix(name)?.strip_prefix('='));
            assert!(value.unwrap().trim().parse::<u64>().unwrap() > 0, "{name}: {text}");
        }
        std::fs::remove_dir_all(top).unwrap();
    }
}
