//! What the kernel shows of this process: processor time, memory, descriptors, threads. For metrics.
//!
//! Reads files of `/proc`, which no disk is behind. What cannot be read is left out.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks a second in `/proc`: the same on every Linux that this program runs on.
const TICKS: u64 = 100;

/// When this process started. Computed once: the clock may be set, and the kernel counts in ticks.
static STARTED: OnceLock<Option<Duration>> = OnceLock::new();

/// The use that a process makes of the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time since the start, of the program and of the kernel for it.
    pub cpu: Option<Duration>,
    /// Number of threads.
    pub threads: Option<u64>,
    /// Address space in bytes.
    pub virtual_bytes: Option<u64>,
    /// Memory in bytes, with shared pages.
    pub resident_bytes: Option<u64>,
    /// Number of open descriptors.
    pub open_files: Option<u64>,
    /// How many there may be; `None` also if there is no limit.
    pub max_files: Option<u64>,
    /// When the process started, since the epoch.
    pub started: Option<Duration>,
}

impl Usage {
    /// The present use of this process.
    pub fn read() -> Self {
        let file = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let (stat, status, limits) = (file("self/stat"), file("self/status"), file("self/limits"));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let started = *STARTED.get_or_init(|| wall.and_then(|wall| started(&stat, &file("uptime"), wall)));
        // The descriptor of the directory itself is no longer open when the number is shown.
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1));
        Self {
            open_files: open.and_then(|count| u64::try_from(count).ok()),
            max_files: max_files(&limits),
            started,
            ..Self::parse(&stat, &status)
        }
    }

    /// What is in `/proc/self/stat` and `/proc/self/status`.
    fn parse(stat: &str, status: &str) -> Self {
        let ticks = tick_field(stat, 13).zip(tick_field(stat, 14));
        let kib = |name| Some(number(status, name)?.saturating_mul(1024));
        Self {
            cpu: ticks.map(|(user, kernel)| from_ticks(user.saturating_add(kernel))),
            threads: number(status, "Threads:"),
            virtual_bytes: kib("VmSize:"),
            resident_bytes: kib("VmRSS:"),
            ..Self::default()
        }
    }
}

/// A field of `/proc/self/stat`, counted from 0. The second one, the name of the program, may hold spaces and brackets.
fn tick_field(stat: &str, field: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(field.checked_sub(2)?)?.parse().ok()
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000 / TICKS))
}

/// The number after this name, at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn max_files(limits: &str) -> Option<u64> {
    number(limits, "Max open files")
}

/// When the process started, given the time since the boot and the wall clock.
fn started(stat: &str, uptime: &str, wall: Duration) -> Option<Duration> {
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64(uptime).ok()?.checked_sub(from_ticks(tick_field(stat, 21)?))?;
    wall.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 6 0 1000 23 5 0";

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let usage = Usage::parse(STAT, "Name:\ta) b\nVmSize:\t    2048 kB\nVmRSS:\t  12 kB\nThreads:\t6\n");
        let expected = Usage {
            cpu: Some(Duration::from_secs(3)),
            threads: Some(6),
            virtual_bytes: Some(2 << 20),
            resident_bytes: Some(12 << 10),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
        let wall = Duration::from_secs(1_000_000);
        assert_eq!(started(STAT, "30.00 50.00\n", wall), Some(wall - Duration::from_secs(20)));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(max_files(limits), Some(1024));
        assert_eq!(max_files("Max open files            unlimited            unlimited            files\n"), None);
        assert_eq!(Usage::parse("", "nonsense"), Usage::default());
    }

    #[test]
    fn this_process_has_all_of_them() {
        let usage = Usage::read();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(usage.open_files.is_some_and(|files| files >= 3), "{usage:?}");
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
        assert!(usage.threads.is_some_and(|threads| threads > 0), "{usage:?}");
        let age = wall.checked_sub(usage.started.unwrap()).unwrap_or_default();
        assert!(age < Duration::from_secs(24 * 3600), "{usage:?}");
    }
}
