//! The guard of `ecs-local up`: a second process that cleans up if the first one is killed. This module owns it. It waits until
//! its standard input closes, which the kernel does when the first process ends. Its arguments do not name the program or the
//! session, so that `pkill -f ecs-local` does not find it. Invariant: after an orderly end it removes nothing.

use super::child::{THIS_PROGRAM, docker_variable};
use super::leftovers::remove_session_unseen;
use super::session::Session;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// The first argument of this program if it is to be a guard.
pub(super) const GUARD: &str = "guard";

/// Number of attempts to take over the session, and the interval between them: two minutes in all.
const ATTEMPTS: usize = 1200;
const INTERVAL: Duration = Duration::from_millis(100);

/// The guard of this process.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts the guard of a session.
    pub(super) async fn start(session: &Session) -> Result<Self, String> {
        let mut command = Command::new(THIS_PROGRAM);
        // Ctrl-C must not reach it.
        command.envs(docker_variable()).arg0("ecs-guard").arg(GUARD).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let failed = |error: std::io::Error| format!("cannot start the guard of this session: {error}");
        let mut child = command.spawn().map_err(failed)?;
        if let Some(input) = &mut child.stdin {
            let directory = session.directory.as_os_str().as_bytes();
            input.write_all(&[directory, b"\0"].concat()).await.map_err(failed)?;
        }
        Ok(Self(child))
    }

    /// Ends the guard: everything is removed already.
    pub(super) async fn dismiss(mut self) {
        if let Some(mut input) = self.0.stdin.take() {
            let _written = input.write_all(b"done").await;
        }
        let _ended = self.0.wait().await;
    }
}

/// The guard's own process.
pub(super) async fn run() {
    let (mut name, mut text) = (Vec::new(), String::new());
    // Nothing else runs in this process yet.
    let mut input = BufReader::new(std::io::stdin());
    let _read = input.read_until(0, &mut name);
    let is_named = name.pop() == Some(0);
    let _read = input.read_to_string(&mut text);
    if !is_named {
        return;
    }
    let directory = &PathBuf::from(OsString::from_vec(name));
    for _ in 0..ATTEMPTS {
        // The directory is gone if a new session was faster.
        if text == "done" || !directory.exists() {
            break;
        }
        match Session::take_over(directory) {
            Some(session) => {
                session.note_ending();
                // What stays is found by the next session.
                let _removed = remove_session_unseen(session).await;
                break;
            }
            // Another process looks at the lock at this moment, or cleans up and may itself be killed.
            None => tokio::time::sleep(INTERVAL).await,
        }
    }
}
