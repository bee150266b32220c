//! Where the token of `ecs-local` comes from, and how a person is shown it. It owns the file of `--token-file`. Invariant: a file it makes
//! can be read by its owner only, and what was given is not printed again.

use super::output::complain;
use ecs_agent::model::Secret;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Shorter ones are called guessable.
const MIN_LENGTH: usize = 16;
/// Longest, in characters.
const MAX_LENGTH: usize = 256;

/// Where the token comes from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Token {
    /// The server makes one up.
    #[default]
    MadeUp,
    /// `--token VALUE`.
    Given(Secret),
    /// `--token-file FILE`.
    File(PathBuf),
}

impl Token {
    /// The token itself; `None`: the server makes one up. A file that is not there is made, with a random token.
    pub(crate) fn value(&self) -> Result<Option<Secret>, String> {
        let token = match self {
            Self::MadeUp => return Ok(None),
            Self::Given(token) => check(token.clone(), "--token")?,
            Self::File(path) => check(read_or_make(path)?, &format!("--token-file {}", path.display()))?,
        };
        if token.expose().len() < MIN_LENGTH {
            complain(&format!(
                "warning: the token has fewer than {MIN_LENGTH} characters: others on this machine may guess it."
            ));
        }
        Ok(Some(token))
    }

    /// How the token stands in a command that a person copies: only one that was made up is printed.
    pub(crate) fn shown(&self, token: &Secret) -> String {
        match self {
            Self::MadeUp => token.expose().to_owned(),
            Self::Given(_) => "TOKEN".to_owned(),
            Self::File(path) => format!("\"$(cat '{}')\"", path.display()),
        }
    }
}

fn check(token: Secret, source: &str) -> Result<Secret, String> {
    let is_plain = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    match token.expose().len() {
        0 => Err(format!("{source}: the token is empty; give one of {MIN_LENGTH} to {MAX_LENGTH} visible characters")),
        1..=MAX_LENGTH if is_plain => Ok(token),
        length => Err(format!(
            "{source}: the token ({length} bytes) must be 1 to {MAX_LENGTH} visible ASCII characters without spaces"
        )),
    }
}

fn read_or_make(path: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("--token-file {}: {error}", path.display());
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let token = uuid::Uuid::new_v4().simple().to_string();
            file.write_all(format!("{token}\n").as_bytes()).map_err(failed)?;
            return Ok(Secret::new(token));
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let mode = std::fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        complain(&format!(
            "warning: --token-file {} has mode {:04o}: other users may read it. Make it 0600.",
            path.display(),
            mode & 0o7777
        ));
    }
    let text = Secret::new(std::fs::read_to_string(path).map_err(failed)?);
    Ok(text.expose().trim_end_matches(['\r', '\n']).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ecs-local-token-{name}-{}", uuid::Uuid::new_v4().simple()))
    }

    #[test]
    fn a_file_is_made_once_and_for_its_owner_only() {
        let path = scratch("made");
        let token = Token::File(path.clone());
        let first = token.value().unwrap().unwrap();
        assert_eq!(first.expose().len(), 32);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(token.value().unwrap(), Some(first.clone()), "the second time it is read");
        assert_eq!(token.shown(&first), format!("\"$(cat '{}')\"", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert!(Token::File("/no/such/directory/token".into()).value().unwrap_err().contains("No such file"));
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        let long = "x".repeat(MAX_LENGTH + 1);
        for (text, expected) in
            [("", "is empty"), ("a b", "(3 bytes)"), ("ä", "(2 bytes)"), (long.as_str(), "(257 bytes)")]
        {
            let problem = Token::Given(text.into()).value().unwrap_err();
            assert!(problem.starts_with("--token: ") && problem.contains(expected), "{problem}");
            assert!(text.is_empty() || !problem.contains(text), "{problem}");
        }
        assert_eq!(Token::Given("in-ci".into()).value(), Ok(Some("in-ci".into())));
        assert_eq!(Token::MadeUp.value(), Ok(None));
    }

    #[test]
    fn only_a_token_that_was_made_up_is_shown() {
        assert_eq!(Token::MadeUp.shown(&"abc".into()), "abc");
        assert_eq!(Token::Given("abc".into()).shown(&"abc".into()), "TOKEN");
    }
}
