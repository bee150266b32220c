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
            Ok(Ok(Ok(result))) => Ok(result),
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
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A named pipe without a writer: opening it for reading hangs in the kernel until it is opened for writing.
    struct Queue(PathBuf);

    impl Queue {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("ecs-lane-{}", uuid::Uuid::new_v4().simple()));
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            Self(path)
        }

        fn hangs(&self) -> impl FnOnce() + Send + 'static {
            let path = self.0.clone();
            move || drop(File::open(path))
        }

        /// Releases one reader.
        fn release(&self) {
            drop(OpenOptions::new().write(true).open(&self.0).unwrap());
        }
    }

    impl Drop for Queue {
        fn drop(&mut self) {
            // Releases a reader that still hangs: opening for both reading and writing never blocks.
            let _both = OpenOptions::new().read(true).write(true).open(&self.0);
            let _ = std::fs::remove_file(&self.0);
        }
    }

    const SHORT: Duration = Duration::from_millis(100);

    fn lane(threads: usize, spare: usize, limit: Duration) -> Lane {
        Lane::new("test", Settings { threads, spare, limit })
    }

    #[tokio::test]
    async fn a_hanging_thread_is_replaced_up_to_a_bound() {
        let (first, second) = (Queue::new(), Queue::new());
        let lane = lane(1, 1, SHORT);
        let error = lane.run("first", first.hangs()).await.unwrap_err();
        assert_eq!(error.to_string(), "first does not answer; gave up after 0.1 s");
        let again = lane.run("first", || 1).await.unwrap_err();
        assert!(matches!(again, LaneError::StillHangs { .. }), "{again}");
        assert_eq!(lane.run("other", || 7).await.unwrap(), 7, "the spare thread works");
        assert!(matches!(lane.run("second", second.hangs()).await, Err(LaneError::Hangs { .. })));
        let full = lane.run("other", || 7).await.unwrap_err().to_string();
        assert!(full.starts_with("all 2 threads for test hang"), "{full}");
        assert!(full.ends_with("first"), "{full}");
        first.release();
        while lane.shared.lock().jobs.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(lane.run("first", || 8).await.unwrap(), 8, "an object that answers again is used again");
    }

    #[tokio::test]
    async fn names_that_differ_beyond_the_shown_part_are_different() {
        let queue = Queue::new();
        let lane = lane(1, 1, SHORT);
        let long = "p/".repeat(MAX_NAME);
        let hanging = lane.run(&format!("{long}first"), queue.hangs()).await.unwrap_err();
        assert!(hanging.to_string().len() < MAX_NAME + 100, "{hanging}");
        assert_eq!(lane.run(&format!("{long}other"), || 7).await.unwrap(), 7);
        let again = lane.run(&format!("{long}first"), || 1).await.unwrap_err();
        assert!(matches!(again, LaneError::StillHangs { .. }) && again.to_string().len() < MAX_NAME + 100, "{again}");
        // Characters that are replaced when shown.
        let (zero, bell) = (Queue::new(), "p\u{7}");
        let lane = self::lane(1, 1, SHORT);
        lane.run("p\0", zero.hangs()).await.unwrap_err();
        assert_eq!(lane.run(bell, || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn waiting_for_a_turn_counts_as_no_hanging() {
        let lane = lane(2, 0, Duration::from_millis(400));
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |number: usize| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            let what = format!("work {number}");
            let lane = &lane;
            async move {
                let job = move || {
                    peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(100));
                    now.fetch_sub(1, Ordering::SeqCst);
                };
                lane.run(&what, job).await
            }
        };
        let began = Instant::now();
        for result in futures_util::future::join_all((0..20).map(work)).await {
            result.unwrap();
        }
        assert!(began.elapsed() > Duration::from_millis(900), "the last waited for more than twice the limit");
        assert_eq!(peak.load(Ordering::SeqCst), 2, "never more threads than the lane has");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_no_thread_unbounded() {
        let queue = Queue::new();
        let lane = lane(1, 1, SHORT);
        let _dropped = timeout(Duration::from_millis(10), lane.run("gone", queue.hangs())).await.unwrap_err();
        assert_eq!(
            lane.run("next", || 1).await.unwrap(),
            1,
            "it waits until the other hangs, then has the spare thread"
        );
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_work() {
        let lane = lane(1, 0, Duration::from_secs(60));
        let failed = lane.run("this", || panic!("of the test")).await;
        assert!(matches!(failed, Err(LaneError::Failed(_))));
        assert_eq!(lane.run("this", || 2).await.unwrap(), 2);
    }

    #[test]
    fn hanging_work_holds_neither_names_nor_the_end() {
        let queues: Vec<Queue> = (0..4).map(|_| Queue::new()).collect();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        runtime.block_on(async {
            let lane = lane(4, 4, SHORT);
            for (number, queue) in queues.iter().enumerate() {
                lane.run(&number.to_string(), queue.hangs()).await.unwrap_err();
            }
            let names = timeout(Duration::from_secs(20), tokio::net::lookup_host("localhost:1")).await;
            assert!(names.is_ok(), "a name is looked up beside four hanging paths");
        });
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(runtime);
            ended.send(()).unwrap();
        });
        end.recv_timeout(Duration::from_secs(10)).expect("the runtime ends while four paths hang");
    }

    #[test]
    fn only_regular_files_are_read_and_none_is_waited_for() {
        let queue = Queue::new();
        let no_file = |path: &str| {
            let error = read_file(Path::new(path), 100).unwrap_err();
            assert!(error.to_string().starts_with("not a regular file"), "{path}: {error}");
        };
        no_file(queue.0.to_str().unwrap());
        no_file("/dev/ptmx");
        no_file("/dev/zero");
        no_file("/tmp");
        assert_eq!(read_file(Path::new("/nonexistent"), 1).unwrap_err().kind(), ErrorKind::NotFound);
        let file = std::env::temp_dir().join(format!("ecs-lane-{}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_file(&file, 5).unwrap(), b"12345");
        assert_eq!(read_file(&file, 4).unwrap_err().to_string(), "more than 4 bytes");
        std::fs::remove_file(&file).unwrap();
    }
}
