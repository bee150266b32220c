//! Credential helpers: programs named `docker-credential-<name>` that know passwords, used as Docker's client uses them.
//!
//! Owns their protocol: `get`, the registry on standard input, JSON on standard output. [`crate::docker::auth`] chooses the
//! helper. Invariant: a helper ends or is killed within its time limit, together with all processes in its process group. Its
//! answer is bounded, and nothing that it writes is shown.

use crate::input::members::Members;
use ecs_core::model::{RegistryCredentials, Secret, with_causes};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The time limit for a helper, which may have to call a service.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for the end of the output after the helper has ended. The helper's own output is there at once; only a
/// process that left its process group can still hold the pipe open.
const DRAIN: Duration = Duration::from_millis(250);
/// The longest answer, in bytes. The longest tokens have a few KiB.
const MAX_ANSWER: usize = 64 * 1024;
/// The longest name of a helper, in bytes.
const MAX_NAME: usize = 64;
/// The text with which a helper reports that it has no credentials. Case and surrounding text do not matter. The helper then
/// ends with an error.
const NOT_FOUND: &str = "credentials not found";
/// This user name means that the secret is an identity token.
const IS_TOKEN: &str = "<token>";

/// Why a helper gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// The program could not be started; most likely it does not exist.
    #[error("it cannot be started: {}", with_causes(.0))]
    NotStarted(io::Error),
    /// The helper did not end in time and was killed.
    #[error("no answer within {} seconds", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The helper's answer exceeded the bound, and the helper was killed.
    #[error("its answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// The helper ended with an error. Its output, which may contain secrets, is not shown.
    #[error("it failed ({0}); run it by hand to see why")]
    Failed(ExitStatus),
    /// The answer does not follow the protocol.
    #[error("its answer is not a JSON object of Username and Secret")]
    Garbage,
    /// The answer has a user name and no secret.
    #[error("its answer has a Username and no Secret")]
    NoSecret,
    /// The answer could not be read.
    #[error("its answer cannot be read: {}", with_causes(.0))]
    Unreadable(io::Error),
}

/// The process group of a helper. Dropping it kills the processes that are left.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group that this child leads.
    fn led_by(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that no process is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The name of a helper's program; `None` if the helper's name could be a path or holds characters that are not allowed.
pub(crate) fn program(name: &str) -> Option<String> {
    let clean = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(clean);
    is_name.then(|| format!("docker-credential-{name}"))
}

/// Asks a helper for the credentials of a registry; `None`: the helper has none. The helper inherits the agent's environment.
pub(crate) async fn get(
    program: &str,
    registry: &str,
    limit: Duration,
) -> Result<Option<RegistryCredentials>, HelperError> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(HelperError::NotStarted)?;
    // On a timeout the group is killed before the child is reaped; until then no other process can have its id.
    let group = ProcessGroup::led_by(&child);
    let answer = timeout(limit, answer(&mut child, group, registry)).await;
    let (status, answer) = answer.map_err(|_| HelperError::TimedOut(limit))??;
    if status.success() {
        return credentials(&answer, registry);
    }
    if says_not_found(&answer) { Ok(None) } else { Err(HelperError::Failed(status)) }
}

/// Writes the registry's name and reads until the helper has ended. If a process left behind holds the output open, the answer
/// is what has been written so far.
async fn answer(
    child: &mut Child,
    group: ProcessGroup,
    registry: &str,
) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), HelperError> {
    if let Some(mut stdin) = child.stdin.take() {
        // A write error is ignored: a helper that does not read its input has the same answer for every registry.
        let _unread = stdin.write_all(registry.as_bytes()).await;
    }
    // One byte more than is ever read, since a buffer that grows would leave a copy of the secret in memory.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 2));
    let stdout = child.stdout.take();
    let status = {
        let mut reading = std::pin::pin!(read(stdout, &mut answer));
        tokio::select! {
            outcome = &mut reading => outcome.map(|()| None),
            status = child.wait() => {
                drop(group);
                // A timeout here is no failure: no process of the helper's group can write any more.
                let outcome = timeout(DRAIN, reading).await.unwrap_or(Ok(()));
                outcome.and(status.map(Some))
            }
        }
    };
    let status = status.map_err(HelperError::Unreadable)?;
    if answer.len() > MAX_ANSWER {
        return Err(HelperError::TooLong);
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().await.map_err(HelperError::Unreadable)?,
    };
    Ok((status, answer))
}

async fn read(stdout: Option<ChildStdout>, answer: &mut Vec<u8>) -> io::Result<()> {
    let Some(stdout) = stdout else { return Ok(()) };
    let mut stdout = stdout.take(MAX_ANSWER as u64 + 1);
    while stdout.read_buf(answer).await? > 0 {}
    Ok(())
}

/// The output of a failed helper reports that it has no credentials for the registry.
fn says_not_found(answer: &[u8]) -> bool {
    let text = Zeroizing::new(String::from_utf8_lossy(answer).to_ascii_lowercase());
    text.contains(NOT_FOUND)
}

/// Parses the answer of a helper that succeeded. As in Docker's client, an answer with neither user nor secret means that the
/// helper has no credentials, and text after the JSON object is ignored.
pub(crate) fn credentials(answer: &[u8], registry: &str) -> Result<Option<RegistryCredentials>, HelperError> {
    let text = Zeroizing::new(String::from_utf8_lossy(answer).into_owned());
    let members = Members::parse_first(&text).map_err(|_| HelperError::Garbage)?;
    let member = |name: &str| members.text(name).map_err(|_| HelperError::Garbage);
    let (username, secret) = (member("Username")?, Secret::new(member("Secret")?));
    if secret.is_empty() {
        return if username.is_empty() { Ok(None) } else { Err(HelperError::NoSecret) };
    }
    let server_address = registry.to_owned();
    Ok(Some(if username == IS_TOKEN {
        RegistryCredentials { identity_token: secret, server_address, ..RegistryCredentials::default() }
    } else {
        RegistryCredentials { username, password: secret, server_address, ..RegistryCredentials::default() }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of programs, removed at the end. The programs are written and run one after the other: a file that any
    /// process has open for writing cannot be run, and a child of another test may have inherited the open file.
    struct Programs(std::path::PathBuf);

    impl Programs {
        fn new() -> Self {
            let directory = std::env::temp_dir().join(format!("ecs-test-helper-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir(&directory).unwrap();
            Self(directory)
        }

        fn write(&self, name: &str, script: &str) -> String {
            let path = self.0.join(name);
            ecs_testing::program::write(&path, &format!("#!/bin/sh\n{script}\n"));
            path.to_string_lossy().into_owned()
        }

        /// Waits up to ten seconds for the end of the process whose id the program wrote to this file.
        async fn is_gone(&self, name: &str) -> bool {
            let pid = std::fs::read_to_string(self.0.join(name)).unwrap();
            for _ in 0..500 {
                match std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
                    Ok(stat) if !stat.contains(") Z ") => tokio::time::sleep(Duration::from_millis(20)).await,
                    _ => return true,
                }
            }
            false
        }
    }

    impl Drop for Programs {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn user(name: &str, secret: &str) -> RegistryCredentials {
        RegistryCredentials { username: name.into(), password: secret.into(), ..RegistryCredentials::default() }
    }

    #[tokio::test]
    async fn a_helper_s_answer_is_read_within_its_limit() {
        let programs = Programs::new();
        let script =
            r#"test "$1" = get && echo "{\"ServerURL\":\"$(cat)\",\"Username\":\"me\",\"Secret\":\"hunter2\"}""#;
        let token = RegistryCredentials { identity_token: "hunter2".into(), ..RegistryCredentials::default() };
        let garbage = "its answer is not a JSON object of Username and Secret";
        let table = [
            (script, Ok(Some(user("me", "hunter2")))),
            (r#"echo '{"Username":"<token>","Secret":"hunter2"}'"#, Ok(Some(token))),
            ("echo credentials not found in native keychain; exit 1", Ok(None)),
            ("echo 'Error: Credentials Not Found in native keychain'; exit 1", Ok(None)),
            (r#"echo '{"ServerURL":"","Username":"","Secret":""}'"#, Ok(None)),
            ("echo hunter2; exit 3", Err("it failed (exit status: 3); run it by hand to see why")),
            ("echo hunter2", Err(garbage)),
            ("echo credentials not found in native keychain", Err(garbage)),
            ("exec cat /dev/zero", Err("its answer is longer than 65536 bytes")),
            ("cat /dev/zero & exec sleep 60", Err("its answer is longer than 65536 bytes")),
            ("exec sleep 60", Err("no answer within 0.7 seconds")),
            ("exec >&-; exec sleep 60", Err("no answer within 0.7 seconds")),
        ];
        for (number, (script, wanted)) in table.into_iter().enumerate() {
            let path = programs.write(&number.to_string(), script);
            // Enough for a shell on a busy machine, except where the timeout itself is tested.
            let limit = if wanted == Err("no answer within 0.7 seconds") { Duration::from_millis(700) } else { LIMIT };
            let got = get(&path, "r.io:5000", limit).await.map_err(|error| error.to_string());
            let got = got
                .as_ref()
                .map(|got| got.clone().map(|got| RegistryCredentials { server_address: String::new(), ..got }));
            assert_eq!(got.map_err(String::as_str), wanted, "{script}");
        }
        let error = get("docker-credential-of-nobody", "r.io", LIMIT).await.unwrap_err();
        assert!(matches!(error, HelperError::NotStarted(_)), "{error}");
    }

    #[tokio::test]
    async fn processes_left_by_a_helper_are_killed_and_delay_nothing() {
        let programs = Programs::new();
        let answer = r#"echo '{"Username":"me","Secret":"hunter2"}'"#;
        let behind = |name: &str| format!("sleep 300 & echo $! >{}/{name}", programs.0.display());
        // The process left behind keeps the output open.
        let path = programs.write("first", &format!("{}; {answer}", behind("one")));
        let got = get(&path, "r.io", LIMIT).await.unwrap().unwrap();
        assert_eq!(got.password.expose(), "hunter2");
        assert!(programs.is_gone("one").await);
        // The process left behind has closed the output, so reading does not notice it.
        let path = programs.write("second", &format!("{{ {}; }} >/dev/null 2>&1; {answer}", behind("two")));
        assert!(get(&path, "r.io", LIMIT).await.unwrap().is_some());
        assert!(programs.is_gone("two").await);
        let path = programs.write("third", &format!("{}; {answer}; exit 4", behind("three")));
        assert!(matches!(get(&path, "r.io", LIMIT).await, Err(HelperError::Failed(_))));
        assert!(programs.is_gone("three").await);
        // The helper itself does not end.
        let path = programs.write("fourth", &format!("{}; sleep 300", behind("four")));
        assert!(matches!(get(&path, "r.io", Duration::from_secs(2)).await, Err(HelperError::TimedOut(_))));
        assert!(programs.is_gone("four").await);
        // The caller stops waiting for the answer.
        let path = programs.write("fifth", &format!("{}; sleep 300", behind("five")));
        tokio::time::timeout(Duration::from_secs(2), get(&path, "r.io", LIMIT)).await.unwrap_err();
        assert!(programs.is_gone("five").await);
        // A process that left the group lives on as a daemon, but delays nothing.
        let path = programs.write("sixth", &format!("setsid sleep 20 & sleep 0.2; {answer}"));
        let began = std::time::Instant::now();
        assert!(get(&path, "r.io", LIMIT).await.unwrap().is_some());
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    }

    #[test]
    fn an_answer_is_read_as_docker_s_client_reads_it() {
        let garbage = Err("its answer is not a JSON object of Username and Secret".to_owned());
        let no_secret = Err("its answer has a Username and no Secret".to_owned());
        let table = [
            (r#"{"username": "me", "SECRET": "x"}"#, Ok(Some(user("me", "x")))),
            (r#"{"Username": "me", "Secret": "x", "ge\u00e4ndert": {}}"#, Ok(Some(user("me", "x")))),
            ("{\"Username\": \"me\", \"Secret\": \"x\\n\"}\nwarning: x", Ok(Some(user("me", "x\n")))),
            (r#"{"Username": "", "Secret": "x"}"#, Ok(Some(user("", "x")))),
            (r#"{"Username": "", "Secret": ""}"#, Ok(None)),
            (r#"{"ServerURL": "https://r.io"}"#, Ok(None)),
            (r#"{"Username": null, "Secret": null}"#, Ok(None)),
            (r#"{"Username": "me"}"#, no_secret.clone()),
            (r#"{"Username": "<token>", "Secret": ""}"#, no_secret),
            (r#"{"Username": "me", "Secret": 7}"#, garbage.clone()),
            (r#"["me", "x"]"#, garbage.clone()),
            ("", garbage),
        ];
        for (answer, wanted) in table {
            let got = credentials(answer.as_bytes(), "r.io").map_err(|error| error.to_string());
            let got = got.map(|got| got.map(|got| RegistryCredentials { server_address: String::new(), ..got }));
            assert_eq!(got, wanted, "{answer}");
        }
    }

    #[test]
    fn a_helper_s_name_is_not_a_path() {
        assert_eq!(program("ecr-login").as_deref(), Some("docker-credential-ecr-login"));
        for name in ["", "../x", "a/b", "a b", "a;b", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(program(name), None, "{name}");
        }
    }
}
