//! The origin of `ecs-local`'s token, and its form in output. This module owns the file of `--token-file`. Invariants: only the
//! owner can read a file that this module creates; a file that others may have read or written is refused; a token that the user
//! gave is never printed.

use super::output::print_error;
use ecs_core::model::Secret;
use rustix::fs::OFlags;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Tokens with fewer characters cause a warning.
const MIN_LENGTH: usize = 16;
/// Maximum length of a token in characters.
const MAX_LENGTH: usize = 256;

/// Maximum number of bytes that are read of a file: more than the longest token has.
const MAX_FILE: u64 = 4096;

/// The origin of the token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Token {
    /// The server makes a random token.
    #[default]
    Random,
    /// `--token VALUE`.
    Given(Secret),
    /// `--token-file FILE`.
    File(PathBuf),
}

impl Token {
    /// The token itself; `None`: the server makes a random one. A missing file is created with a random token.
    pub(crate) fn value(&self) -> Result<Option<Secret>, String> {
        let token = match self {
            Self::Random => return Ok(None),
            Self::Given(token) => check(token.clone(), "--token")?,
            Self::File(path) => check(read_or_make(path)?, &format!("--token-file {}", path.display()))?,
        };
        if token.expose().len() < MIN_LENGTH {
            print_error(&format!(
                "warning: the token has fewer than {MIN_LENGTH} characters: others on this machine may guess it."
            ));
        }
        Ok(Some(token))
    }

    /// The token as part of a command that the user can copy. Only a random token is shown itself; otherwise a placeholder, or a
    /// command that reads the file.
    pub(crate) fn shown(&self, token: &Secret) -> String {
        match self {
            Self::Random => token.expose().to_owned(),
            Self::Given(_) => "TOKEN".to_owned(),
            Self::File(path) => format!("\"$(cat '{}')\"", path.display()),
        }
    }

    /// What the placeholder in [`Self::shown`] stands for; `None`: there is no placeholder.
    pub(crate) fn note(&self) -> Option<&'static str> {
        matches!(self, Self::Given(_)).then_some("TOKEN is the value of --token.")
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
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            true => format!("--token-file {} is a symbolic link: name the file itself", path.display()),
            false => failed(error),
        }
    })?;
    let found = file.metadata().map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    trusted(&found, own).map_err(|why| format!("--token-file {} {why}", path.display()))?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text).expose().trim_end_matches(['\r', '\n']).into())
}

/// Checks that no other user can have written or read the file.
fn trusted(found: &std::fs::Metadata, own: u32) -> Result<(), String> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if !found.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if owner != own && owner != 0 {
        return Err(format!("belongs to another user (uid {owner}), who knows the token: name another file"));
    }
    if mode & 0o077 != 0 {
        return Err(format!("has mode {mode:04o}: other users may know the token. Remove the file, or make it 0600"));
    }
    Ok(())
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
    fn a_file_that_others_may_have_made_or_read_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (path, link) = (scratch("planted"), scratch("link"));
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let value = |path: &Path| Token::File(path.to_owned()).value();
        let set_mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o644, 0o620, 0o601] {
            set_mode(mode);
            assert!(value(&path).unwrap_err().contains(&format!("has mode {mode:04o}: other users")), "{mode:o}");
        }
        set_mode(0o600);
        assert_eq!(value(&path), Ok(Some("0123456789abcdef".into())));
        symlink(&path, &link).unwrap();
        assert!(value(&link).unwrap_err().ends_with("is a symbolic link: name the file itself"));
        assert!(value(Path::new("/dev/null")).unwrap_err().ends_with("is not a regular file"));

        let found = std::fs::metadata(&path).unwrap();
        let stranger = trusted(&found, found.uid() + 1);
        assert_eq!(stranger.is_ok(), found.uid() == 0, "root's file is trusted, another user's is not: {stranger:?}");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(value(&path).unwrap_err().contains("belongs to another user (uid 65534)"));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&link).unwrap();
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
        assert_eq!(Token::Random.value(), Ok(None));
    }

    #[test]
    fn only_a_random_token_is_shown() {
        assert_eq!(Token::Random.shown(&"abc".into()), "abc");
        assert_eq!(Token::Given("abc".into()).shown(&"abc".into()), "TOKEN");
    }
}
