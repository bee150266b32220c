//! Writes files of plain lines beside the log: the audit log (requests for credentials of tasks' roles), and figures of the agent itself.
//!
//! Owns the thread that writes a file. Lines are passed to it through a queue of limited length, so a disk that does not answer
//! delays no request; lines that find the queue full are counted and lost. The thread starts with the first line.

use super::file::RollingFile;
use crate::config::LogFile;
use crate::runtime::precedence;
use std::io::Write;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Upper limit of the number of waiting lines.
const MAX_LINES: usize = 1024;
/// Stack of the writing thread, in bytes.
const STACK: usize = 128 * 1024;

/// A file of plain lines.
#[derive(Clone, Debug)]
pub struct PlainFile(Arc<Mutex<State>>);

/// What such a file is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Requests for credentials.
    Audit,
    /// Figures of the agent itself.
    RuntimeStats,
}

impl Purpose {
    /// The file as texts name it, with its setting.
    const fn name(self) -> &'static str {
        match self {
            Self::Audit => "the audit log (ECS_AUDIT_LOGFILE)",
            Self::RuntimeStats => "the file of runtime statistics (RuntimeStatsLogFile)",
        }
    }

    /// The name of the writing thread.
    const fn thread(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::RuntimeStats => "runtime stats",
        }
    }
}

#[derive(Debug)]
struct State {
    purpose: Purpose,
    settings: LogFile,
    /// The queue; `None` before the first line.
    queue: Option<SyncSender<String>>,
    /// Number of lines that were lost.
    lost: u64,
}

impl PlainFile {
    /// A file at this place. Opens nothing yet.
    pub fn new(purpose: Purpose, settings: LogFile) -> Self {
        Self(Arc::new(Mutex::new(State { purpose, settings, queue: None, lost: 0 })))
    }

    /// Writes a line. Never waits for the disk.
    pub fn write(&self, line: String) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.queue.is_none() {
            state.queue = started(state.purpose, state.settings.clone());
        }
        let full = match &state.queue {
            Some(queue) => match queue.try_send(line + "\n") {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Disconnected(_)) => false,
            },
            None => false,
        };
        if !full {
            state.queue = None; // started again with the next line
        }
        state.lost += 1;
        if state.lost.is_power_of_two() {
            let (lost, name) = (state.lost, state.purpose.name());
            tracing::warn!(lost, "lines are missing in {name}: it cannot be written fast enough");
        }
    }
}

/// Starts the writing thread; `None` if the system cannot start one.
fn started(purpose: Purpose, settings: LogFile) -> Option<SyncSender<String>> {
    let (queue, lines) = sync_channel::<String>(MAX_LINES);
    let mut file = RollingFile::new(purpose.name(), settings, SystemTime::now);
    let write = move || {
        precedence::renounce(); // the thread that answers containers has it, and starts this one
        for line in lines {
            // A failure was logged, and the next line tries again.
            let _ = file.write_all(line.as_bytes());
        }
    };
    let thread = std::thread::Builder::new().name(purpose.thread().to_owned()).stack_size(STACK).spawn(write);
    thread.inspect_err(|error| tracing::error!(%error, "{} cannot be written", purpose.name())).ok()?;
    Some(queue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rollover;
    use std::time::{Duration, Instant};

    #[test]
    fn lines_reach_the_file_and_its_directory_is_made() {
        let top = std::env::temp_dir().join(format!("audit-{}", uuid::Uuid::new_v4().simple()));
        let path = top.join("log/audit.log");
        let settings = LogFile { path: path.clone(), rollover: Rollover::Size, max_bytes: 1_000_000, keep: None };
        let audit = PlainFile::new(Purpose::Audit, settings);
        assert!(!path.exists());
        (1..=3).for_each(|number| audit.write(format!("line {number}")));
        let expected = "line 1\nline 2\nline 3\n";
        let until = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&path).ok().as_deref() != Some(expected) {
            assert!(Instant::now() < until, "{:?}", std::fs::read_to_string(&path));
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_dir_all(top).unwrap();
    }
}
