//! Saves what restarted containers used before, whenever that changes.
//!
//! Owns the attempts: one at a time, each with the newest state, repeated after growing pauses. A disk that does not answer delays
//! nothing else.

use super::Statistics;
use crate::backoff::{Backoff, Shape, seconds};
use crate::runtime::supervisor::PartResult;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pauses between failed attempts.
const RETRY: Shape = Shape { initial: Duration::from_secs(1), max: Duration::from_secs(60), factor: 2.0, jitter: 0.2 };
/// How long the attempt at the end may take.
const LAST: Duration = Duration::from_secs(2);

/// Saves until `stop` is cancelled. What has changed by then is saved in one more attempt.
pub(crate) async fn keep_saved(statistics: Arc<Statistics>, stop: CancellationToken) -> PartResult {
    let mut changes = statistics.changes.subscribe();
    let (mut written, mut backoff) = (0, Backoff::new(RETRY));
    loop {
        let has_changed = async { changes.wait_for(|count| *count != written).await.is_ok() };
        if stop.run_until_cancelled(has_changed).await.is_none() {
            break;
        }
        match attempt(&statistics).await {
            (count, Ok(())) => {
                if backoff.attempt() > 0 {
                    tracing::info!("counters of restarted containers are saved again");
                }
                (written, backoff) = (count, Backoff::new(RETRY));
            }
            (_, Err(error)) => {
                let (is_first, pause) = (backoff.attempt() == 0, backoff.pause());
                if is_first {
                    let retry_in_s = seconds(pause);
                    tracing::warn!(
                        error,
                        retry_in_s,
                        "counters of restarted containers are not saved; they begin again if the agent does"
                    );
                }
                if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                    break;
                }
            }
        }
    }
    if *changes.borrow() != written {
        let _is_logged_already = timeout(LAST, attempt(&statistics)).await;
    }
    Ok(())
}

/// One attempt, with the number of changes that it includes.
async fn attempt(statistics: &Statistics) -> (u64, Result<(), String>) {
    let (count, saved) = {
        let collection = statistics.lock();
        (collection.changes(), collection.to_save())
    };
    (count, statistics.file.write(saved).await)
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::stats::{Collection, Saved, SavedFile};
    use ecs_core::model::ContainerStatus;
    use ecs_core::model::usage::{CpuUsage, Process, Reading, Usage};
    use ecs_core::model::view::{ContainerView, TaskView, View};
    use std::path::PathBuf;
    use tokio::task::JoinSet;

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn run(pid: u32) -> Process {
        Process { pid, started_at: "".into() }
    }

    fn view(pid: u32) -> View {
        let container = ContainerView {
            runtime_id: Some("id".into()),
            known: ContainerStatus::Running,
            process: Some(run(pid)),
            restarts: Some(pid),
            ..ContainerView::default()
        };
        let task = TaskView { family: "family".to_owned(), containers: vec![container], ..TaskView::default() };
        View { tasks: vec![Arc::new(task)], ..View::default() }
    }

    fn reading() -> Reading {
        let usage = Usage { cpu: CpuUsage { total: 7, ..CpuUsage::default() }, ..Usage::default() };
        Reading { id: "id".into(), usage, ..Reading::default() }
    }

    /// Waits until the file is there, or is not.
    async fn until_file(path: &std::path::Path, exists: bool) {
        let found = async {
            while path.exists() != exists {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), found).await.expect("the file in time");
    }

    #[tokio::test]
    async fn a_failed_attempt_is_repeated_and_nothing_is_left_at_the_end() {
        let directory = Directory(std::env::temp_dir().join(format!("ecs-saving-{}", uuid::Uuid::new_v4().simple())));
        let file = directory.0.join("statistics.json");
        let settings = Settings { is_disabled: false, poll: None };
        let collection = Collection::new(Saved::default(), 80);
        let statistics = Arc::new(Statistics::new(collection, settings, SavedFile::new(Some(&directory.0))));
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        running.spawn(keep_saved(Arc::clone(&statistics), stop.clone()));
        for pid in 1..=2 {
            statistics.track(&view(pid));
            statistics.add(reading(), &run(pid));
        }
        // There is no such directory at the first attempt.
        sleep(Duration::from_millis(100)).await;
        std::fs::create_dir(&directory.0).unwrap();
        until_file(&file, true).await;
        statistics.track(&View::default());
        until_file(&file, false).await;
        // A change right before the end.
        for pid in 1..=2 {
            statistics.track(&view(pid));
            statistics.add(reading(), &run(pid));
        }
        stop.cancel();
        assert_eq!(running.join_next().await.unwrap().unwrap(), Ok(()));
        assert!(file.exists());
    }
}
