//! The pause before the start of an agent that has failed again and again soon after its start.
//!
//! systemd starts the agent again ten seconds after each end. An agent that then uses Docker and AWS for a moment and fails would load
//! both for days. (`RestartSteps=` makes these pauses grow only from systemd 254 on.) So each process counts itself in a file of the
//! runtime directory, which survives restarts of the unit and not of the host, and an end as asked, an end that no restart follows,
//! and a long life remove the file. What a process finds there is therefore the number of quick failures in a row before it, however
//! they came about. From the third one on it waits, up to five minutes, before it uses anything but its configuration.
//!
//! Only the service of the host counts: Docker lets the pauses grow itself for the container form (`--restart`), and a person at a
//! shell waits for an answer. Invariant: a file that is missing, damaged or cannot be written costs nothing.

use super::Fatal;
use super::parts::Early;
use super::supervisor::Policy;
use crate::backoff::{Shape, seconds};
use crate::host::lanes::files;
use crate::lane::read_file;
use ecs_core::agent_health::Step;
use ecs_core::model::with_causes;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file, in the runtime directory of the unit.
const FILE: &str = "/run/ecs-agent/quick-failures.json";
/// Upper limit of the file, in bytes. It has some thirty.
const MAX_FILE: u64 = 4096;
/// An end after this time is no quick failure. Longer than any wait, so that an agent that fails after minutes counts, too.
const LONG_LIFE: Duration = Duration::from_secs(600);
/// That many quick failures are followed by no wait but that of the service manager.
const WITHOUT_WAIT: u32 = 2;
/// The waits after the further ones: at most five minutes with the jitter, which keeps hosts from starting in step.
const WAITS: Shape =
    Shape { initial: Duration::from_secs(20), max: Duration::from_secs(250), factor: 2.0, jitter: 0.2 };

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// How many processes in a row have begun, and neither ended well nor lived long.
    begun: u32,
    /// The last of them has waited. It then executes the program again, which reads the current configuration.
    #[serde(default)]
    has_waited: bool,
}

impl Record {
    /// What a process that finds this record writes, and after how many quick failures it has to wait; `None`: it does not wait.
    fn next(self) -> (Self, Option<u32>) {
        if self.has_waited {
            return (Self { has_waited: false, ..self }, None);
        }
        let next = Self { begun: self.begun.saturating_add(1), has_waited: false };
        (next, Some(self.begun).filter(|failures| *failures > WITHOUT_WAIT))
    }
}

/// The wait after so many quick failures.
fn wait_after(failures: u32) -> Duration {
    WAITS.delay(failures.saturating_sub(WITHOUT_WAIT + 1))
}

/// The count of quick failures.
#[derive(Clone, Debug)]
pub struct QuickFailures {
    /// The file; `None`: this process does not count.
    file: Option<PathBuf>,
}

impl QuickFailures {
    /// The count, if this process is the service of the host, run by a service manager that is notified.
    pub fn new(is_service: bool) -> Self {
        Self { file: is_service.then(|| FILE.into()) }
    }

    /// Counts this process, and waits if too many before it have failed quickly. The count is removed again after a long life.
    /// Returns true after a wait: the program is then to be executed again, since its configuration is as old as the wait is long.
    pub async fn begin(&self, early: &mut Early) -> bool {
        let Some(file) = &self.file else { return false };
        let (record, failures) = read(file).await.next();
        write(file, record).await;
        if let Some(failures) = failures {
            early.health.step(Step::QuickFailures);
            wait(failures, wait_after(failures)).await;
            write(file, Record { has_waited: true, ..record }).await;
            return true;
        }
        let (this, stop) = (self.clone(), early.stop.clone());
        early.supervisor.add("quick failures", Policy::Restart, move || {
            let (this, stop) = (this.clone(), stop.clone());
            async move {
                if stop.run_until_cancelled(tokio::time::sleep(LONG_LIFE)).await.is_some() {
                    this.forget().await;
                }
                stop.cancelled().await;
                Ok(())
            }
        });
        false
    }

    /// Removes the count if the agent has ended as asked, or in a way after which it is not started again.
    pub async fn end(&self, result: &Result<(), Fatal>) {
        if result.as_ref().map_or_else(Fatal::is_terminal, |()| true) {
            self.forget().await;
        }
    }

    async fn forget(&self) {
        let Some(file) = self.file.clone() else { return };
        let _may_be_gone = files().run("the count of quick failures", move || std::fs::remove_file(file)).await;
    }
}

/// Says why and how long, and waits.
async fn wait(failures: u32, pause: Duration) {
    tracing::warn!(
        failures,
        wait_s = seconds(pause),
        remedy = "the lines before this one say why; `systemctl restart ecs` starts it at once",
        "The agent has ended soon after each of its last {failures} starts. It waits before it uses Docker and AWS again"
    );
    let status =
        format!("Waits {} s after {failures} quick failures; systemctl restart ecs skips the wait", pause.as_secs());
    let _without_a_manager = sd_notify::notify(&[NotifyState::Status(&status)]);
    tokio::time::sleep(pause).await;
    let _without_a_manager = sd_notify::notify(&[NotifyState::Status("Starting")]);
}

/// The record in the file, or an empty one.
async fn read(file: &Path) -> Record {
    let path = file.to_owned();
    let found = files().run("the count of quick failures", move || read_file(&path, MAX_FILE)).await;
    match found {
        Ok(Ok(text)) => serde_json::from_slice(&text).unwrap_or_default(),
        Ok(Err(_)) | Err(_) => Record::default(),
    }
}

async fn write(file: &Path, record: Record) {
    let path = file.to_owned();
    let written = files().run("the count of quick failures", move || replace(&path, record)).await;
    let error = match written {
        Ok(Ok(())) => return,
        Ok(Err(error)) => with_causes(&error),
        Err(error) => with_causes(&error),
    };
    tracing::info!(error, path = %file.display(), "quick failures are not counted: a crash loop would not slow down");
}

/// Replaces the file as a whole, so that no process finds a part of it.
fn replace(path: &Path, record: Record) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&record)?)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_testing::docker::TempDir;

    fn in_directory() -> (TempDir, QuickFailures) {
        let directory = TempDir::new("ecs-failures");
        let file = Some(directory.path().join("quick-failures.json"));
        (directory, QuickFailures { file })
    }

    #[test]
    fn waits_begin_with_the_third_failure_and_grow_to_5_minutes() {
        let mut record = Record::default();
        let mut waits = Vec::new();
        for _ in 0..12 {
            let (next, failures) = record.next();
            waits.push(failures.map(wait_after));
            record = next;
        }
        assert_eq!(waits[..3], [None; 3], "the first start, and two restarts");
        let bases = [20, 40, 80, 160, 250, 250, 250, 250, 250];
        for (wait, base) in waits[3..].iter().zip(bases) {
            let wait = wait.unwrap().as_secs_f64();
            assert!((f64::from(base)..=f64::from(base) * 1.2).contains(&wait) && wait <= 300.0, "{wait} for {base}");
        }
        let (next, failures) = Record { begun: u32::MAX, has_waited: false }.next();
        assert!(next.begun == u32::MAX && wait_after(failures.unwrap()) <= Duration::from_secs(300));
    }

    #[test]
    fn the_process_that_has_waited_neither_waits_nor_counts_again() {
        let waited = Record { begun: 7, has_waited: true };
        assert_eq!(waited.next(), (Record { begun: 7, has_waited: false }, None));
        assert_eq!(waited.next().0.next().1, Some(7), "if it fails, the next one waits");
    }

    #[tokio::test]
    async fn only_failures_are_counted() {
        let (_directory, failures) = in_directory();
        let file = failures.file.clone().unwrap();
        let failed = || Err(Fatal::restartable("no".to_owned()));
        for (number, result) in
            [failed(), failed(), Ok(()), failed(), Err(Fatal::terminal("never".to_owned()))].iter().enumerate()
        {
            let (record, _) = read(&file).await.next();
            write(&file, record).await;
            failures.end(result).await;
            let counted = [1, 2, 0, 1, 0][number];
            assert_eq!(read(&file).await.begun, counted, "{number}");
        }
    }

    #[tokio::test]
    async fn a_damaged_file_costs_nothing() {
        let (directory, failures) = in_directory();
        let file = failures.file.clone().unwrap();
        let long = format!("{{\"begun\":9,\"x\":\"{}\"}}", "x".repeat(5000));
        for text in ["", "{", "[]", "\0\0\0", "{\"begun\":-1}", "{\"begun\":\"9\"}", "{\"begun\":99999999999}", &long] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read(&file).await, Record::default(), "{text}");
        }
        write(&file, Record { begun: 3, has_waited: false }).await;
        assert_eq!(read(&file).await.begun, 3, "and it is replaced");
        // Nor does a directory that cannot be written.
        let missing = directory.path().join("missing/file");
        write(&missing, Record::default()).await;
        assert_eq!(read(&missing).await, Record::default());
        QuickFailures { file: Some(missing) }.forget().await;
        QuickFailures::new(false).end(&Ok(())).await;
    }
}
