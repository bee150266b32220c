//! Credential helpers: programs named `docker-credential-<name>` that know passwords, as Docker's client uses them.
//!
//! Owns their protocol: `get`, the registry on standard input, JSON on standard output. Which helper is asked is [`super::auth`]'s
//! choice. The invariant: a helper ends or is killed within its time, and so is whatever it started in its process group; its answer is
//! bounded, and nothing it writes is shown.

use crate::model::members::Members;
use crate::model::{RegistryCredentials, Secret};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A helper may have to ask a service.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// How long the end of the output is waited for when the helper has ended. Its own output is there at once; only a process that left
/// its process group can keep it open now.
const DRAIN: Duration = Duration::from_millis(250);
/// Bytes of the longest answer: the longest tokens have a few KiB.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest name of a helper.
const MAX_NAME: usize = 64;
/// How a helper says that it has nothing, in any case and with any words around it; it ends with an error then.
const NOT_FOUND: &str = "credentials not found";
/// In the place of a user name: the secret is an identity token.
const IS_TOKEN: &str = "<token>";

/// Why a helper gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// No such program, most likely.
    #[error("it cannot be started: {0}")]
    NotStarted(io::Error),
    /// It was killed.
    #[error("no answer within {} seconds", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It was killed.
    #[error("its answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// It says why on its output, which may hold anything.
    #[error("it failed ({0}); run it by hand to see why")]
    Failed(ExitStatus),
    /// Its answer is not what the protocol says.
    #[error("its answer is not a JSON object of Username and Secret")]
    Garbage,
    /// It names a user only.
    #[error("its answer has a Username and no Secret")]
    NoSecret,
    /// Reading its answer failed.
    #[error("its answer cannot be read: {0}")]
    Unreadable(io::Error),
}

/// A helper and the processes it started. Dropping it kills those that are left.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group of a child that leads one.
    fn led_by(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that none is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The program of a helper, unless that is no name but a path or worse.
pub(super) fn program(name: &str) -> Option<String> {
    let clean = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(clean);
    is_name.then(|| format!("docker-credential-{name}"))
}

/// Asks a helper for the credentials of a registry; `None`: it has none. It gets this process's environment.
pub(super) async fn ask(
    program: &str,
    registry: &str,
    limit: Duration,
) -> Result<Option<RegistryCredentials>, HelperError> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(HelperError::NotStarted)?;
    // When the time is over, it is dropped before the child, whose number is nobody else's until then.
    let group = ProcessGroup::led_by(&child);
    let answer = timeout(limit, answer(&mut child, group, registry)).await;
    let (status, answer) = answer.map_err(|_| HelperError::TimedOut(limit))??;
    if status.success() {
        return credentials(&answer, registry);
    }
    if has_nothing(&answer) { Ok(None) } else { Err(HelperError::Failed(status)) }
}

/// Asks and reads until the helper has ended. A process that it leaves behind may keep its output open: what is there then is the answer.
async fn answer(
    child: &mut Child,
    group: ProcessGroup,
    registry: &str,
) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), HelperError> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read has the same answer for every registry.
        let _unread = stdin.write_all(registry.as_bytes()).await;
    }
    // One byte more than is ever read: a buffer that has to grow would leave a copy behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 2));
    let stdout = child.stdout.take();
    let status = {
        let mut reading = std::pin::pin!(read(stdout, &mut answer));
        tokio::select! {
            outcome = &mut reading => outcome.map(|()| None),
            status = child.wait() => {
                drop(group);
                // Out of time is no failure: nobody of the helper's can write any more.
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

/// The output of a helper that failed says that it has no credentials for the registry.
fn has_nothing(answer: &[u8]) -> bool {
    let text = Zeroizing::new(String::from_utf8_lossy(answer).to_ascii_lowercase());
    text.contains(NOT_FOUND)
}

/// Reads the answer of a helper that did not fail. Neither user nor secret means that it has none, as for Docker's client; the same goes
/// for text behind the object.
pub(super) fn credentials(answer: &[u8], registry: &str) -> Result<Option<RegistryCredentials>, HelperError> {
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
    use std::os::unix::fs::OpenOptionsExt;

    /// A directory of programs, removed in the end. They are written and run one after the other: a file that is open for writing
    /// cannot be run, not even if it is another test's child that has inherited it.
    struct Programs(std::path::PathBuf);

    impl Programs {
        fn new() -> Self {
            let directory = std::env::temp_dir().join(format!("ecs-test-helper-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir(&directory).unwrap();
            Self(directory)
        }

        fn write(&self, name: &str, script: &str) -> String {
            let path = self.0.join(name);
            let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o700).open(&path).unwrap();
            std::io::Write::write_all(&mut file, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
            drop(file);
            path.to_string_lossy().into_owned()
        }

        /// The process that a program wrote down is gone, or is within ten seconds.
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
            // Enough for a shell on a busy machine, except where the end of patience is the point.
            let limit = if wanted == Err("no answer within 0.7 seconds") { Duration::from_millis(700) } else { LIMIT };
            let got = ask(&path, "r.io:5000", limit).await.map_err(|error| error.to_string());
            let got = got
                .as_ref()
                .map(|got| got.clone().map(|got| RegistryCredentials { server_address: String::new(), ..got }));
            assert_eq!(got.map_err(String::as_str), wanted, "{script}");
        }
        let error = ask("docker-credential-of-nobody", "r.io", LIMIT).await.unwrap_err();
        assert!(matches!(error, HelperError::NotStarted(_)), "{error}");
    }

    #[tokio::test]
    async fn what_a_helper_leaves_behind_neither_holds_up_nor_stays() {
        let programs = Programs::new();
        let answer = r#"echo '{"Username":"me","Secret":"hunter2"}'"#;
        let behind = |name: &str| format!("sleep 300 & echo $! >{}/{name}", programs.0.display());
        // It keeps the output open.
        let path = programs.write("first", &format!("{}; {answer}", behind("one")));
        let got = ask(&path, "r.io", LIMIT).await.unwrap().unwrap();
        assert_eq!(got.password.expose(), "hunter2");
        assert!(programs.is_gone("one").await);
        // It does not, and so is not noticed by reading.
        let path = programs.write("second", &format!("{{ {}; }} >/dev/null 2>&1; {answer}", behind("two")));
        assert!(ask(&path, "r.io", LIMIT).await.unwrap().is_some());
        assert!(programs.is_gone("two").await);
        let path = programs.write("third", &format!("{}; {answer}; exit 4", behind("three")));
        assert!(matches!(ask(&path, "r.io", LIMIT).await, Err(HelperError::Failed(_))));
        assert!(programs.is_gone("three").await);
        // The helper itself does not end.
        let path = programs.write("fourth", &format!("{}; sleep 300", behind("four")));
        assert!(matches!(ask(&path, "r.io", Duration::from_secs(2)).await, Err(HelperError::TimedOut(_))));
        assert!(programs.is_gone("four").await);
        // Nobody waits for the answer any more.
        let path = programs.write("fifth", &format!("{}; sleep 300", behind("five")));
        tokio::time::timeout(Duration::from_secs(2), ask(&path, "r.io", LIMIT)).await.unwrap_err();
        assert!(programs.is_gone("five").await);
        // What has left the group is a daemon of its own and lives on, but holds nothing up.
        let path = programs.write("sixth", &format!("setsid sleep 20 & sleep 0.2; {answer}"));
        let began = std::time::Instant::now();
        assert!(ask(&path, "r.io", LIMIT).await.unwrap().is_some());
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
    fn a_name_is_no_path() {
        assert_eq!(program("ecr-login").as_deref(), Some("docker-credential-ecr-login"));
        for name in ["", "../x", "a/b", "a b", "a;b", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(program(name), None, "{name}");
        }
    }
}
