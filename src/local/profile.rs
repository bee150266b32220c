//! The keys of a profile in `~/.aws`, which containers get in the place of keys that only this server accepts.
//!
//! Owns the calls of the aws CLI. Its version 2 knows every kind of profile (keys, roles, SSO); version 1 only shows what is in the
//! profile, which is enough for keys and for `credential_process`. Invariant: no key is printed; a profile is read only if the command
//! line names it.

use ecs_core::model::Secret;
use serde_json::Value;
use std::process::Stdio;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// The time limit for the aws CLI, which may ask AWS.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause before the keys are read again. The aws CLI renews temporary keys some minutes before they expire.
const PAUSE: Duration = Duration::from_secs(240);
/// Variables that the aws CLI prefers to a profile.
const OVERRIDES: [&str; 4] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"];

/// Keys of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProfileKeys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    /// Empty for permanent keys.
    pub(super) session_token: Secret,
    /// When the keys expire, as the aws CLI prints it; `None`: they are permanent.
    pub(super) expiration: Option<String>,
}

/// The latest keys of the profile. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Profile(Arc<RwLock<ProfileKeys>>);

impl Profile {
    /// Reads the profile for the first time.
    pub(super) async fn open(name: &str) -> Result<Self, String> {
        read(name).await.map(|keys| Self(Arc::new(RwLock::new(keys))))
    }

    /// The latest keys.
    pub(super) fn keys(&self) -> ProfileKeys {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, keys: ProfileKeys) -> bool {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *known != keys;
        *known = keys;
        is_new
    }
}

/// Reads the profile again and again, and calls `renewed` after each change of its keys. Ends if the keys are permanent.
pub(super) async fn keep(name: String, profile: Profile, renewed: impl Fn()) {
    while profile.keys().expiration.is_some() {
        sleep(PAUSE).await;
        // If it fails, the tasks keep their keys, and it is tried again.
        let Ok(keys) = read(&name).await else { continue };
        if profile.replace(keys) {
            renewed();
        }
    }
}

async fn read(name: &str) -> Result<ProfileKeys, String> {
    let problem =
        |why: &str| format!("the profile {name} cannot be read with `aws configure export-credentials`: {why}");
    let exported = run("aws", &["configure", "export-credentials", "--format", "process", "--profile", name]).await;
    match exported {
        Ok(answer) => keys_in(answer.as_bytes()).ok_or_else(|| problem("its answer has no keys")),
        Err(text) if text.to_ascii_lowercase().contains(UNKNOWN_COMMAND) => read_with_version_1(name).await,
        Err(text) => Err(problem(last_line(&text))),
    }
}

/// What version 1 of the aws CLI prints about a command of version 2, in small letters.
const UNKNOWN_COMMAND: &str = "invalid choice";

async fn read_with_version_1(name: &str) -> Result<ProfileKeys, String> {
    let entry = async |entry: &str| run("aws", &["configure", "get", entry, "--profile", name]).await;
    let problem = |why: &str| format!("the profile {name} cannot be read: {why}");
    if let (Ok(key), Ok(secret)) = (entry("aws_access_key_id").await, entry("aws_secret_access_key").await) {
        let token = entry("aws_session_token").await.unwrap_or_default();
        return Ok(ProfileKeys {
            access_key_id: key,
            secret_access_key: secret.as_str().into(),
            session_token: token.as_str().into(),
            expiration: None,
        });
    }
    let program = entry("credential_process").await.map_err(|text| match text.is_empty() {
        true => problem("it has neither keys nor `credential_process`; others need version 2 of the aws CLI"),
        false => problem(last_line(&text)),
    })?;
    let answer = run("sh", &["-c", &program]).await;
    let answer = answer.map_err(|text| problem(&format!("its `credential_process` fails: {}", last_line(&text))))?;
    keys_in(answer.as_bytes()).ok_or_else(|| problem("the answer of its `credential_process` has no keys"))
}

/// Runs a program without the variables of other keys. Returns what it printed, or why it failed.
async fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    OVERRIDES.iter().for_each(|variable| {
        command.env_remove(variable);
    });
    let output = timeout(LIMIT, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("no answer within {} s", LIMIT.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The last line of an error, shortened.
fn last_line(text: &str) -> &str {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed").trim();
    &line[..line.floor_char_boundary(300)]
}

/// The keys in an answer of the aws CLI.
fn keys_in(answer: &[u8]) -> Option<ProfileKeys> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let text = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
    Some(ProfileKeys {
        access_key_id: text("AccessKeyId")?.to_owned(),
        secret_access_key: text("SecretAccessKey")?.into(),
        session_token: text("SessionToken").unwrap_or_default().into(),
        expiration: text("Expiration").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_aws_cli_is_read() {
        let text = br#"{"Version": 1, "AccessKeyId": "AKIA1", "SecretAccessKey": "s3cret", "SessionToken": "t0ken",
            "Expiration": "2026-12-01T10:00:00+00:00"}"#;
        let keys = keys_in(text).unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.session_token.expose()), ("AKIA1", "t0ken"));
        assert_eq!(keys.expiration.as_deref(), Some("2026-12-01T10:00:00+00:00"));
        assert!(!format!("{keys:?}").contains("s3cret"));
        let permanent = keys_in(br#"{"AccessKeyId": "AKIA1", "SecretAccessKey": "s3cret"}"#).unwrap();
        assert!(permanent.session_token.is_empty() && permanent.expiration.is_none());
        for text in ["", "[]", r#"{"AccessKeyId": "a"}"#, r#"{"AccessKeyId": "", "SecretAccessKey": "s"}"#] {
            assert_eq!(keys_in(text.as_bytes()), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_profile_that_does_not_exist_is_a_clear_error() {
        let problem = Profile::open("there-is-no-such-profile").await.unwrap_err();
        assert!(problem.starts_with("the profile there-is-no-such-profile cannot be read"), "{problem}");
    }
}
