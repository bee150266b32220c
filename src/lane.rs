//! Threads for work that may block: files on paths from outside, disks, control groups.
//!
//! Owns these threads. Each kind of work has its own [`Lane`], so that a disk or path that never answers delays neither other
//! kinds of work nor name resolution, which has the runtime's blocking threads to itself. Invariants: a lane has a bounded
//! number of threads; a piece of work hangs if it has run for too long, and the time that it waited for its turn does not
//! count; a hanging thread does not keep the process from ending.

use ecs_core::model::text::cut;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// The stack size of a thread, in bytes; no work here recurses deeply.
const STACK: usize = 1 << 20;
/// The longest name of a piece of work that is shown, in bytes. A path may have 4096, and its beginning is the most useful part.
const MAX_NAME: usize = 512;

/// How much work a lane does at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many pieces of work may run at the same time, apart from those that hang.
    pub threads: usize,
    /// How many threads may hang in addition. If all threads hang, further work fails at once.
    pub spare: usize,
    /// A piece of work that has run for this long counts as hanging.
    pub limit: Duration,
}

/// Why a piece of work has no result.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The work began and did not end in time. Its thread stays until the work ends.
    #[error("{what} does not answer; gave up after {} s", limit.as_secs_f32())]
    Hangs {
        /// The object of the work, such as a path.
        what: String,
        /// The lane's limit.
        limit: Duration,
    },
    /// Earlier work on the same object still hangs, so the work was not begun.
    #[error("{what} has not answered for {} s", since.as_secs())]
    StillHangs {
        /// The object of the work, such as a path.
        what: String,
        /// The time since the earlier work began.
        since: Duration,
    },
    /// All threads of the lane hang, so the work was not begun.
    #[error("all {threads} threads for {lane} hang, the first for {} s: {what}", since.as_secs())]
    Full {
        /// The lane's name.
        lane: &'static str,
        /// The number of hanging threads.
        threads: usize,
        /// The object of the work that has hung the longest.
        what: String,
        /// The time since that work began.
        since: Duration,
    },
    /// The system could not start a thread.
    #[error("no thread can be started")]
    NoThread(#[source] io::Error),
    /// The work panicked.
    #[error("the work on {0} failed")]
    Failed(String),
}

/// A bounded number of threads for one kind of work. Each piece of work gets a new thread, which ends with it.
#[derive(Debug)]
pub struct Lane {
    name: &'static str,
    settings: Settings,
    /// Held by the caller at the head of the queue: first come, first served.
    turn: tokio::sync::Mutex<()>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    running: Mutex<Running>,
    /// Notified when a piece of work has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Running {
    /// The id of the next piece of work.
    next: u64,
    /// The work under way, by id.
    jobs: BTreeMap<u64, Job>,
}

#[derive(Debug)]
struct Job {
    /// The full name of the object: two names may differ only beyond the part that is shown.
    what: Arc<str>,
    began: Instant,
}

/// Whether a piece of work may begin.
enum Turn {
    /// The work may begin.
    Begins(Ticket),
    /// The work must wait; to be checked again at this time, or when other work ends.
    Waits(Instant),
    /// The work is refused.
    Refused(LaneError),
}

/// The entry of a piece of work in the list; dropping it removes the entry.
#[derive(Debug)]
struct Ticket {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().jobs.remove(&self.id);
        self.shared.ended.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Starts no thread yet. `name` is the kind of work, for errors and thread names.
    pub fn new(name: &'static str, settings: Settings) -> Self {
        Self { name, settings, turn: tokio::sync::Mutex::default(), shared: Arc::default() }
    }

    /// Runs `work` on a thread of this lane, when it is its turn. `what` names the object that may hang, such as a path: while
    /// work on it hangs, further work on it is refused. Work that has begun goes on even if the caller stops waiting.
    ///
    /// # Errors
    /// [`LaneError`]. Except for [`LaneError::Hangs`] and [`LaneError::Failed`], the work was not begun.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LaneError> {
        let (sender, mut receiver) = oneshot::channel();
        let work = move || {
            let _nobody_waits = sender.send(work());
        };
        self.carry_out(what, Box::new(work)).await?;
        receiver.try_recv().map_err(|_| LaneError::Failed(cut(what, MAX_NAME)))
    }

    /// Does the same with work without a result. The work is boxed, so that each kind of work has no code of its own for its thread, its
    /// turn and its limit: there are dozens.
    async fn carry_out(&self, what: &str, work: Box<dyn FnOnce() + Send>) -> Result<(), LaneError> {
        let ticket = self.ticket(what).await?;
        let what = cut(what, MAX_NAME);
        let (sender, receiver) = oneshot::channel();
        let (name, limit, began) = (self.name, self.settings.limit, Instant::now());
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            drop(ticket);
            if began.elapsed() > limit {
                tracing::info!(lane = name, after_s = began.elapsed().as_secs(), "work that hung has ended");
            }
            let _nobody_waits = sender.send(result);
        };
        std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body).map_err(LaneError::NoThread)?;
        match timeout(limit, receiver).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(_)) | Err(_)) => Err(LaneError::Failed(what)),
            Err(_) => {
                tracing::warn!(lane = name, what, "no answer; the thread keeps waiting");
                Err(LaneError::Hangs { what, limit })
            }
        }
    }

    async fn ticket(&self, what: &str) -> Result<Ticket, LaneError> {
        let _turn = self.turn.lock().await;
        loop {
            match self.try_begin(what) {
                Turn::Begins(ticket) => return Ok(ticket),
                Turn::Refused(error) => return Err(error),
                // Whether the wait times out or is notified, the lane is checked again.
                Turn::Waits(until) => _ = timeout_at(until, self.shared.ended.notified()).await,
            }
        }
    }

    fn try_begin(&self, what: &str) -> Turn {
        let Settings { threads, spare, limit } = self.settings;
        let mut running = self.shared.lock();
        let (hanging, busy): (Vec<&Job>, Vec<&Job>) =
            running.jobs.values().partition(|job| job.began.elapsed() >= limit);
        if let Some(job) = hanging.iter().find(|job| *job.what == *what) {
            return Turn::Refused(LaneError::StillHangs { what: cut(what, MAX_NAME), since: job.began.elapsed() });
        }
        if busy.len() < threads && hanging.len() + busy.len() < threads + spare {
            let id = running.next;
            running.next += 1;
            running.jobs.insert(id, Job { what: what.into(), began: Instant::now() });
            return Turn::Begins(Ticket { shared: Arc::clone(&self.shared), id });
        }
        match (busy.iter().map(|job| job.began).min(), hanging.iter().min_by_key(|job| job.began)) {
            (Some(first), _) => Turn::Waits(first + limit),
            (None, Some(first)) => Turn::Refused(LaneError::Full {
                lane: self.name,
                threads: hanging.len(),
                what: cut(&first.what, MAX_NAME),
                since: first.began.elapsed(),
            }),
            (None, None) => Turn::Waits(Instant::now() + limit), // only a lane without threads
        }
    }
}

/// Reads a regular file of at most `max` bytes. The call blocks only as long as the file system does: a file that is not regular
/// is not opened, and a file without data at the moment (some below `/sys` and `/proc`) is not waited for.
///
/// # Errors
/// The system's error; `InvalidInput` for a file that is not regular, `FileTooLarge` for one of more than `max` bytes.
pub fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let not_regular = || io::Error::new(ErrorKind::InvalidInput, "not a regular file");
    // Opening a device may have effects, and opening a named pipe may block for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // The file may have been replaced since.
    if !file.metadata()?.is_file() {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::InvalidInput, "not a regular file: reading it would block"),
        _ => error,
    })?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("more than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
