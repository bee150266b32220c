//! Tests of the log file, with real files.

use super::*;
use ecs_testing::docker::TempDir;
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

fn at(time: u64) {
    NOW.set(time);
}

fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW.get())
}

fn rolling(directory: &TempDir, rollover: Rollover, max_bytes: u64, keep: Option<usize>) -> RollingFile {
    let path = directory.path().join("log/ecs-agent.log");
    RollingFile::new("the log file (ECS_LOGFILE)", LogFile { path, rollover, max_bytes, keep }, clock)
}

/// The names of all files beside the log file, with their contents.
fn files(directory: &TempDir) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(directory.path().join("log")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn names(directory: &TempDir) -> Vec<String> {
    files(directory).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_full_file_gets_the_next_number() {
    let directory = TempDir::new("ecs-log");
    let mut log = rolling(&directory, Rollover::Size, 10, Some(24));
    for line in ["one\n", "two, longer\n", "three\n", "four, longer\n", "five\n"] {
        log.write_all(line.as_bytes()).unwrap();
    }
    let expected = [
        ("ecs-agent.log", "five\n"),
        ("ecs-agent.log.1", "one\ntwo, longer\n"),
        ("ecs-agent.log.2", "three\nfour, longer\n"),
    ];
    assert_eq!(files(&directory), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn the_newest_files_are_kept_over_a_restart() {
    let directory = TempDir::new("ecs-log");
    let log = directory.path().join("log");
    std::fs::create_dir(&log).unwrap();
    for name in
        ["ecs-agent.log.7", "ecs-agent.log.08", "ecs-agent.log.9", "ecs-agent.log.10", "ecs-agent.log.x", "audit.log.1"]
    {
        std::fs::write(log.join(name), name).unwrap();
    }
    std::fs::write(log.join("ecs-agent.log"), "full already").unwrap();
    rolling(&directory, Rollover::Size, 10, Some(2)).write_all(b"new\n").unwrap();
    let expected =
        ["audit.log.1", "ecs-agent.log", "ecs-agent.log.08", "ecs-agent.log.10", "ecs-agent.log.11", "ecs-agent.log.x"];
    assert_eq!(names(&directory), expected, "other files are not touched");
    assert_eq!(std::fs::read_to_string(log.join("ecs-agent.log.11")).unwrap(), "full already");
    rolling(&directory, Rollover::Size, 1, None).write_all(b"newer\n").unwrap();
    assert_eq!(names(&directory).len(), 7, "without a limit, all are kept");
}

#[test]
fn an_hour_that_ended_gets_its_name() {
    let directory = TempDir::new("ecs-log");
    let mut log = rolling(&directory, Rollover::Hourly, 1, Some(2));
    // The file's own time is that of this machine, so its first hour is unknown to the test.
    let first = 1_764_331_200; // 2025-11-28 12:00:00 UTC
    for (hour, line) in [(0, "a\n"), (0, "b\n"), (1, "c\n"), (5, "d\n"), (6, "e\n")] {
        at(first + hour * 3600);
        log.write_all(line.as_bytes()).unwrap();
    }
    let expected =
        [("ecs-agent.log", "e\n"), ("ecs-agent.log.2025-11-28-13", "c\n"), ("ecs-agent.log.2025-11-28-17", "d\n")];
    assert_eq!(files(&directory), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn without_rollover_the_file_grows() {
    let directory = TempDir::new("ecs-log");
    let mut log = rolling(&directory, Rollover::None, 1, Some(1));
    (0..5).for_each(|hour| {
        at(hour * 3600);
        log.write_all(b"line\n").unwrap();
    });
    assert_eq!(files(&directory), [("ecs-agent.log".to_owned(), "line\n".repeat(5))]);
}

#[test]
fn a_moved_file_is_followed_by_a_new_one() {
    let directory = TempDir::new("ecs-log");
    let mut log = rolling(&directory, Rollover::Size, 1000, Some(1));
    let path = directory.path().join("log/ecs-agent.log");
    log.write_all(b"before\n").unwrap();
    std::fs::rename(&path, directory.path().join("log/moved")).unwrap();
    log.write_all(b"between\n").unwrap();
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();
    log.write_all(b"after\n").unwrap();
    assert_eq!(files(&directory), [("ecs-agent.log".to_owned(), "after\n".to_owned())]);
}

#[test]
fn a_line_is_never_in_two_files() {
    let directory = TempDir::new("ecs-log");
    let mut log = rolling(&directory, Rollover::Size, 4, Some(9));
    // The operating system may take a part of a line only.
    for part in ["first, ", "second\n", "third\n"] {
        log.write_all(part.as_bytes()).unwrap();
    }
    let expected = [("ecs-agent.log", "third\n"), ("ecs-agent.log.1", "first, second\n")];
    assert_eq!(files(&directory), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn an_hour_that_is_there_already_is_not_replaced() {
    let directory = TempDir::new("ecs-log");
    let mut log = rolling(&directory, Rollover::Hourly, 1, None);
    let first = 1_764_331_200;
    // The clock goes back by an hour.
    for (hour, line) in [(0, "a\n"), (1, "b\n"), (0, "c\n"), (1, "d\n"), (2, "e\n")] {
        at(first + hour * 3600);
        log.write_all(line.as_bytes()).unwrap();
    }
    let all: String = files(&directory).into_iter().map(|(_, text)| text).collect();
    assert_eq!(all.len(), 10, "no line is lost: {:?}", files(&directory));
    assert!(files(&directory).contains(&("ecs-agent.log.2025-11-28-12".to_owned(), "a\n".to_owned())));
}

#[test]
fn a_device_is_never_replaced() {
    let settings = LogFile { path: "/dev/null".into(), rollover: Rollover::Size, max_bytes: 1, keep: Some(1) };
    let mut log = RollingFile::new("the log file (ECS_LOGFILE)", settings, clock);
    (0..3).for_each(|_| log.write_all(b"line\n").unwrap());
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file() && !Path::new("/dev/null.1").exists());
}

#[test]
fn a_file_that_cannot_be_opened_is_tried_again() {
    let directory = TempDir::new("ecs-log");
    std::fs::write(directory.path().join("log"), "not a directory").unwrap();
    let mut log = rolling(&directory, Rollover::Size, 100, Some(1));
    assert!(log.write(b"lost\n").is_err());
    std::fs::remove_file(directory.path().join("log")).unwrap();
    log.write_all(b"there\n").unwrap();
    assert_eq!(files(&directory), [("ecs-agent.log".to_owned(), "there\n".to_owned())]);
    let mode = std::fs::metadata(directory.path().join("log/ecs-agent.log")).unwrap().mode();
    assert_eq!(mode & 0o777, FILE_MODE, "whatever the umask");
}
