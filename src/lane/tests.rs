use super::*;
use futures_util::FutureExt;
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

/// Waits for work that ends. Time does not pass meanwhile: it passes at once when nothing is left to do, and these tests begin with
/// such a clock, but the runtime does not see what its threads do.
async fn ends<T>(work: impl Future<Output = T>) -> T {
    let stands = async {
        loop {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = work => result,
        () = stands => unreachable!("it goes on for ever"),
    }
}

fn lane(threads: usize, spare: usize, limit: Duration) -> Lane {
    Lane::new("test", Settings { threads, spare, limit })
}

#[tokio::test(start_paused = true)]
async fn a_hanging_thread_is_replaced_up_to_a_bound() {
    let (first, second) = (Queue::new(), Queue::new());
    let lane = lane(1, 1, SHORT);
    let error = lane.run("first", first.hangs()).await.unwrap_err();
    assert_eq!(error.to_string(), "first does not answer; gave up after 0.1 s");
    let again = lane.run("first", || 1).await.unwrap_err();
    assert!(matches!(again, LaneError::StillHangs { .. }), "{again}");
    assert_eq!(ends(lane.run("other", || 7)).await.unwrap(), 7, "the spare thread works");
    assert!(matches!(lane.run("second", second.hangs()).await, Err(LaneError::Hangs { .. })));
    let full = lane.run("other", || 7).await.unwrap_err().to_string();
    assert!(full.starts_with("all 2 threads for test hang"), "{full}");
    assert!(full.ends_with("first"), "{full}");
    first.release();
    while lane.shared.lock().jobs.len() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ends(lane.run("first", || 8)).await.unwrap(), 8, "an object that answers again is used again");
}

#[tokio::test(start_paused = true)]
async fn names_that_differ_beyond_the_shown_part_are_different() {
    let queue = Queue::new();
    let lane = lane(1, 1, SHORT);
    let long = "p/".repeat(MAX_NAME);
    let hanging = lane.run(&format!("{long}first"), queue.hangs()).await.unwrap_err();
    assert!(hanging.to_string().len() < MAX_NAME + 100, "{hanging}");
    assert_eq!(ends(lane.run(&format!("{long}other"), || 7)).await.unwrap(), 7);
    let again = lane.run(&format!("{long}first"), || 1).await.unwrap_err();
    assert!(matches!(again, LaneError::StillHangs { .. }) && again.to_string().len() < MAX_NAME + 100, "{again}");
    // Characters that are replaced when shown.
    let (zero, bell) = (Queue::new(), "p\u{7}");
    let lane = self::lane(1, 1, SHORT);
    lane.run("p\0", zero.hangs()).await.unwrap_err();
    assert_eq!(ends(lane.run(bell, || 7)).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_counts_as_no_hanging() {
    let lane = lane(2, 0, 4 * SHORT);
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gates, jobs): (Vec<_>, Vec<_>) = (0..20).map(|_| std::sync::mpsc::channel::<()>()).unzip();
    let done = std::cell::Cell::new(0);
    let jobs = jobs.into_iter().enumerate().map(|(number, gate)| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        let (what, lane, done) = (format!("work {number}"), &lane, &done);
        async move {
            let job = move || {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.recv().unwrap();
                now.fetch_sub(1, Ordering::SeqCst);
            };
            lane.run(&what, job).await.unwrap();
            done.set(done.get() + 1);
        }
    });
    // One ends after the other, so each takes half of its limit, and the last one waits for more than twice the limit.
    let time = async {
        for (number, gate) in gates.into_iter().enumerate() {
            tokio::time::advance(SHORT).await;
            gate.send(()).unwrap();
            while done.get() <= number {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(futures_util::future::join_all(jobs), time);
    assert_eq!(peak.load(Ordering::SeqCst), 2, "never more threads than the lane has");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_no_thread_unbounded() {
    let queue = Queue::new();
    let lane = lane(1, 1, SHORT);
    let _dropped = timeout(SHORT / 10, lane.run("gone", queue.hangs())).await.unwrap_err();
    let mut next = std::pin::pin!(ends(lane.run("next", || 1)));
    assert!(next.as_mut().now_or_never().is_none());
    assert_eq!(lane.shared.lock().jobs.len(), 1, "it waits until the other hangs");
    tokio::time::advance(SHORT).await;
    assert_eq!(next.await.unwrap(), 1, "then it has the spare thread");
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
