//! Texts from outside, and the log: the agent keeps a limited part of each text, and a slow reader of the log delays nothing.

use super::footprint::status;
use super::rig::{FOREVER, LIMIT, Plan, Rig, WHOLE_LIFE, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::{Image, has_containerd_store};
use ecs_testing::registry_front::{Fault, RegistryFront};
use ecs_testing::wait::until;
use std::io::{PipeReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A line that looks like one of the agent's log, and characters that clear a terminal.
const FORGED: &str = "no\nlevel=error time=2026-01-01T00:00:00Z msg=\"forged\"\r\n\u{1b}[2J\u{202e}";

/// Bytes of all files below the data directory.
fn state_bytes(rig: &Rig) -> u64 {
    let files = std::fs::read_dir(rig.directory.path().join("data")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_an_error_of_megabytes_costs_little() {
    let Some(rig) = Rig::start("foreign text", Plan::default()).await else { return };
    let front = RegistryFront::start(&rig.registry.host).await;
    // By digest: an image by tag would have its digest looked up first, with nine attempts.
    let image = format!("{}@sha256:{}", front.image(&rig.image()), "0".repeat(64));
    let (memory, state) = (status(rig.pid(), "VmHWM"), state_bytes(&rig));
    for megabytes in [3, 20] {
        let text = format!("{FORGED}{}", "x".repeat(megabytes << 20));
        front.inject(&["/v2/"], usize::MAX, Fault::Refuse("403 Forbidden", "DENIED", text));
        let arn = rig.server.run_task(&one_container(&image, "exit 0")).unwrap();
        let is_stopped =
            |state: &ecs_local::State| state.task(&arn).filter(|task| task.last_status >= TaskStatus::Stopped).cloned();
        // Docker itself takes long for such answers.
        let task = rig.server.wait_for("the task to stop", 4 * LIMIT, is_stopped).await.unwrap();
        let reason = task.containers[0].reason.clone().unwrap_or_default();
        let log = rig.log();
        let growth = status(rig.pid(), "VmHWM").saturating_sub(memory); // the kernel counts in batches
        let new_state = state_bytes(&rig).saturating_sub(state); // the file may have got shorter
        eprintln!("{megabytes} MB: {growth} KiB of memory, {new_state} bytes of state, {} bytes of log", log.len());
        // With containerd's store, the engine ends at the HEAD request, whose answer has no text.
        let shown = if has_containerd_store() { "403 Forbidden" } else { "forged" };
        assert!(reason.starts_with("CannotPull") && reason.contains(shown), "{reason}");
        assert!(!reason.contains(|c: char| c.is_control() || c == '\u{202e}'), "{reason:?}");
        assert!(log.len() < 512 << 10, "{} bytes of log", log.len());
        assert!(new_state < 1 << 20, "{new_state} bytes of state");
        assert!(growth < 8 << 10, "{growth} KiB");
        let max_bytes = log.lines().map(str::len).max().unwrap_or_default();
        assert!(max_bytes <= 16 << 10, "a line of {max_bytes} bytes");
        assert!(
            log.lines().all(|line| line.starts_with("level=") && !line.contains("msg=\"forged")),
            "a line is forged"
        );
        assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "the log holds control characters");
        front.clear();
    }
}

/// A full pipe: a write to it waits until somebody reads.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The capacity of a pipe on Linux.
    writer.write_all(&[b'\n'; 65_536]).unwrap();
    (reader, writer.into())
}

/// Sends SIGTERM. Returns how long the agent took to end with exit code 0.
fn terminated(rig: &mut Rig) -> Duration {
    let began = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &rig.pid().to_string()]).status().unwrap().success());
    assert!(rig.ended().success());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let Some(mut rig) = Rig::without_agent("full pipe", Plan::default()).await else { return };
    let image = rig.image();
    let (mut reader, log) = full_pipe();
    rig.start_agent_logging_to(log);
    rig.registered().await;
    let client = reqwest::Client::new();
    for number in 0..268 {
        let url = format!("http://127.0.0.1:51678/v1/tasks?taskarn=arn:aws:ecs:us-west-2:1:task/wrong-{number}");
        let answer = until("an answer", LIMIT, async || client.get(&url).send().await.ok()).await;
        assert!(answer.status().is_client_error(), "{}", answer.status());
    }
    let arn = rig.server.run_task(&one_container(&image, "exit 3")).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!((task.containers[0].exit_code, rig.statuses(&arn)), (Some(3), WHOLE_LIFE.map(str::to_owned).to_vec()));
    let took = terminated(&mut rig);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.starts_with(&"\n".repeat(65_536)), "the pipe was not full");
    Image::remove_locally(&image);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_waited_come_out_when_somebody_reads() {
    let Some(mut rig) = Rig::without_agent("slow reader", Plan::default()).await else { return };
    let image = rig.image();
    let (mut reader, log) = full_pipe();
    rig.start_agent_logging_to(log);
    rig.registered().await;
    let arn = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    let reads = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    let took = terminated(&mut rig);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let text = reads.join().unwrap().unwrap();
    let id = arn.rsplit('/').next().unwrap();
    for wanted in [
        "Starting Amazon ECS Agent\" version=",
        "Connected to ACS endpoint",
        &format!("Task status changed\" task={id} knownStatus=RUNNING"),
        "SIGTERM",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing:\n{}", text.trim_start());
    }
    assert!(!text.contains("lines of the log are missing"), "{}", text.trim_start());
    Image::remove_locally(&image);
}
