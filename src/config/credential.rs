//! A secret that systemd hands to the unit: `LoadCredential=ecs-engine-auth:FILE` makes a file of that name in the directory
//! `CREDENTIALS_DIRECTORY`, which only this process may read. Its content is the value of `ECS_ENGINE_AUTH_DATA`.
//!
//! Owns reading the file, not the meaning of its content. Invariant: a unit without this credential has no problem.

use super::problem::{Problem, Severity};
use super::source::{Environment, NOT_UTF8, Source, Unread, read, why_unread};
use std::path::Path;
use zeroize::Zeroizing;

/// The name of the credential.
const NAME: &str = "ecs-engine-auth";
/// The variable that it sets.
const VARIABLE: &str = "ECS_ENGINE_AUTH_DATA";

/// The credential as a source of one value.
#[derive(Default)]
pub(super) struct Credential {
    /// The file, for messages.
    path: String,
    value: Option<Zeroizing<String>>,
}

// The value is a secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("path", &self.path).field("is_set", &self.value.is_some()).finish()
    }
}

impl Credential {
    /// Reads the file if systemd has made one.
    pub(super) fn open(environment: &Environment) -> (Self, Option<Problem>) {
        let Some(directory) = environment.get("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()) else {
            return (Self::default(), None);
        };
        let path = Path::new(&directory).join(NAME);
        let shown = path.display().to_string();
        let (shape, expected) = match read(&path) {
            Ok(bytes) => match str::from_utf8(&bytes) {
                // An editor ends the last line, which is no part of the value.
                Ok(text) => {
                    let value = Some(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()));
                    return (Self { path: shown, value }, None);
                }
                Err(_) => (format!("a file of {NOT_UTF8}"), "UTF-8 text"),
            },
            Err(Unread::Absent) => return (Self::default(), None),
            Err(Unread::TooLong) => ("more than 64 MiB".to_owned(), "a file that this process may read"),
            Err(Unread::NotOpened(kind) | Unread::NotRead(kind)) => {
                (format!("cannot be read: {}", why_unread(kind)), "a file that this process may read")
            }
        };
        let problem = Problem {
            variable: VARIABLE.to_owned(),
            place: shown,
            shape,
            expected: expected.to_owned(),
            instead: "it is ignored".to_owned(),
            severity: Severity::Changes,
        };
        (Self::default(), Some(problem))
    }
}

impl Source for Credential {
    fn get(&self, key: &str) -> Option<String> {
        let value = self.value.as_ref().filter(|_| key == VARIABLE);
        value.map(|value| value.to_string())
    }

    fn place(&self, _key: &str) -> String {
        self.path.clone()
    }

    fn keys(&self) -> Vec<String> {
        self.value.iter().map(|_| VARIABLE.to_owned()).collect()
    }
}
