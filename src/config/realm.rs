//! Finds out whether this host has joined a domain, as ecs-init does for its agent (spec `ecs-init.md` §6).
//!
//! This module runs `realm list` once, and only if the result matters. Invariant: if the program does not end in time, the host
//! counts as not joined, and the program is not left running.

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit of `realm list`. The program asks a daemon on this host, which may have to be started first.
const LIMIT: Duration = Duration::from_secs(10);
/// Maximum number of bytes that are read of the output.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// The time between two checks whether the program has ended.
const POLL: Duration = Duration::from_millis(20);

/// The host has joined a domain: `realm list` names a realm.
pub(super) fn is_joined() -> bool {
    names_realm("realm", LIMIT)
}

fn names_realm(program: &str, limit: Duration) -> bool {
    output(program, limit).is_ok_and(|output| String::from_utf8_lossy(&output).contains("realm-name"))
}

/// The output of the program; empty if the program failed or did not end in time. The program writes to memory, not to a pipe: a
/// pipe stays open until the last process that inherited it ends, and the time limit does not apply to those processes.
fn output(program: &str, limit: Duration) -> io::Result<Vec<u8>> {
    let mut memory = File::from(memfd_create("realm list", MemfdFlags::CLOEXEC)?);
    let mut command = Command::new(program);
    command.arg("list").stdin(Stdio::null()).stdout(memory.try_clone()?).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let has_succeeded = succeeds(&mut child, limit);
    // The program and its children must not be left running.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    let mut output = Vec::new();
    if has_succeeded {
        memory.rewind()?;
        memory.take(MAX_OUTPUT_BYTES).read_to_end(&mut output)?;
    }
    Ok(output)
}

/// The program ends successfully within the limit.
fn succeeds(child: &mut Child, limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if began.elapsed() < limit => std::thread::sleep(POLL),
            Ok(None) | Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_joined_if_its_realm_is_named_in_time() {
        let directory = std::env::temp_dir().join(format!("ecs-realm-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let table = [
            ("test \"$1\" = list && echo corp.example && echo '  realm-name: CORP.EXAMPLE'", true),
            ("exit 0", false),
            ("echo realm-name; exit 1", false),
            ("echo realm-name; exec sleep 600", false),
            ("echo realm-name; sleep 20 & echo $! >$0.child", true),
        ];
        for (number, (script, joined)) in table.into_iter().enumerate() {
            let path = directory.join(number.to_string());
            ecs_testing::program::write(&path, &format!("#!/bin/sh\n{script}\n"));
            let limit =
                if script.contains("exec sleep") { Duration::from_millis(300) } else { Duration::from_secs(60) };
            let began = Instant::now();
            assert_eq!(names_realm(&path.to_string_lossy(), limit), joined, "{script}");
            assert!(began.elapsed() < Duration::from_secs(15), "{script}");
        }
        let child = std::fs::read_to_string(directory.join("4.child")).unwrap();
        let is_gone = || match std::fs::read_to_string(format!("/proc/{}/stat", child.trim())) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let began = Instant::now();
        while !is_gone() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(POLL);
        }
        assert!(is_gone(), "what it started is left running");
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(!names_realm("realm-of-nobody", LIMIT));
    }
}
