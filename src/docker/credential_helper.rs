//! Credential helpers: programs named `docker-credential-<name>` that know passwords, as Docker's client uses them.
//!
//! Owns their protocol: `get`, the registry on standard input, JSON on standard output. Which helper is asked is [`super::auth`]'s
//! choice. The invariant: a helper ends or is killed within its time, its answer is bounded, and nothing it says is shown.

use crate::model::{RegistryCredentials, Secret};
use serde::Deserialize;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::{Zeroize, Zeroizing};

/// A helper may have to ask a service.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// The longest tokens have a few KiB.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest name of a helper.
const MAX_NAME: usize = 64;
/// How a helper says that it has nothing; it ends with an error then.
const NOT_FOUND: &str = "credentials not found";
/// In the place of a user name: the secret is an identity token.
const IS_TOKEN: &str = "<token>";

/// Why a helper gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// No such program, most likely.
    #[error("it cannot be started: {0}")]
    NotStarted(std::io::Error),
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
    /// Reading its answer failed.
    #[error("its answer cannot be read: {0}")]
    Unreadable(std::io::Error),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.secret.zeroize();
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
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(HelperError::NotStarted)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // A helper that does not read has the same answer for every registry.
            let _unread = stdin.write_all(registry.as_bytes()).await;
        }
        let mut said = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 1));
        if let Some(stdout) = stdout {
            let read = stdout.take(MAX_ANSWER as u64 + 1).read_to_end(&mut said).await;
            read.map_err(HelperError::Unreadable)?;
        }
        if said.len() > MAX_ANSWER {
            return Err(HelperError::TooLong);
        }
        let status = child.wait().await.map_err(HelperError::Unreadable)?;
        Ok((status, said))
    };
    let (status, said) = tokio::time::timeout(limit, talk).await.map_err(|_| HelperError::TimedOut(limit))??;
    if status.success() {
        return credentials(&said, registry).map(Some);
    }
    if said.trim_ascii_start().starts_with(NOT_FOUND.as_bytes()) { Ok(None) } else { Err(HelperError::Failed(status)) }
}

fn credentials(said: &[u8], registry: &str) -> Result<RegistryCredentials, HelperError> {
    let mut answer: Answer = serde_json::from_slice(said).map_err(|_| HelperError::Garbage)?;
    if answer.secret.is_empty() {
        return Err(HelperError::Garbage);
    }
    let secret = Secret::new(std::mem::take(&mut answer.secret));
    let server_address = registry.to_owned();
    if answer.username == IS_TOKEN {
        return Ok(RegistryCredentials { identity_token: secret, server_address, ..RegistryCredentials::default() });
    }
    let username = std::mem::take(&mut answer.username);
    Ok(RegistryCredentials { username, password: secret, server_address, ..RegistryCredentials::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    /// Programs are written and run one after the other: a file that is open for writing cannot be run, not even if it is another
    /// test's child that has inherited it.
    #[tokio::test]
    async fn a_helper_is_heard_out_but_not_for_ever() {
        let directory = std::env::temp_dir().join(format!("ecs-test-helper-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let user = r#"test "$1" = get && echo "{\"ServerURL\":\"$(cat)\",\"Username\":\"me\",\"Secret\":\"hunter2\"}""#;
        let password =
            RegistryCredentials { username: "me".into(), password: "hunter2".into(), ..RegistryCredentials::default() };
        let token = RegistryCredentials { identity_token: "hunter2".into(), ..RegistryCredentials::default() };
        let table = [
            (user, Ok(Some(password.clone()))),
            (r#"echo '{"Username":"<token>","Secret":"hunter2"}'"#, Ok(Some(token))),
            ("echo credentials not found in native keychain; exit 1", Ok(None)),
            ("echo hunter2; exit 3", Err("it failed (exit status: 3); run it by hand to see why")),
            ("echo hunter2", Err("its answer is not a JSON object of Username and Secret")),
            (r#"echo '{"Username":"me"}'"#, Err("its answer is not a JSON object of Username and Secret")),
            ("exec cat /dev/zero", Err("its answer is longer than 65536 bytes")),
            ("exec sleep 60", Err("no answer within 0.7 seconds")),
        ];
        for (number, (script, wanted)) in table.into_iter().enumerate() {
            let path = directory.join(number.to_string());
            let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o700).open(&path).unwrap();
            std::io::Write::write_all(&mut file, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
            drop(file);
            // Enough for a shell on a busy machine, except where the end of patience is the point.
            let limit = if wanted == Err("no answer within 0.7 seconds") { Duration::from_millis(700) } else { LIMIT };
            let got = ask(&path.to_string_lossy(), "r.io:5000", limit).await.map_err(|error| error.to_string());
            let got = got
                .as_ref()
                .map(|got| got.clone().map(|got| RegistryCredentials { server_address: String::new(), ..got }));
            assert_eq!(got.map_err(String::as_str), wanted, "{script}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
        let error = ask("docker-credential-of-nobody", "r.io", LIMIT).await.unwrap_err();
        assert!(matches!(error, HelperError::NotStarted(_)), "{error}");
    }

    #[test]
    fn a_name_is_no_path() {
        assert_eq!(program("ecr-login").as_deref(), Some("docker-credential-ecr-login"));
        for name in ["", "../x", "a/b", "a b", "a;b", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(program(name), None, "{name}");
        }
    }
}
