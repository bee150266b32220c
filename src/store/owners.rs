//! The identity of the agent in a file of its own, beside the state file.
//!
//! Owns that file. The state file holds the same; this copy is for the day on which that is damaged or gone, since containers carry the
//! identity. Invariant: an identity that stands in either of the two is never given up.

use super::file::{FILE_MODE, options};
use crate::model::{OwnerId, Owners};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its name in the data directory.
const FILE: &str = "ecs-agent.owner";
/// The most bytes of it that are read.
const MAX_BYTES: u64 = 64 * 1024;
/// The most bytes of one identity.
const MAX_ID: usize = 64;

/// An identity that nobody has.
pub(super) fn new() -> Owners {
    Owners { own: uuid::Uuid::new_v4().simple().to_string().into(), ..Owners::default() }
}

/// What the state file and this file say together; a new identity if neither says any.
pub(super) fn known(state: Option<Owners>, file: Option<Owners>) -> Owners {
    let mut found = [state, file].into_iter().flatten().filter(|owners| is_identity(&owners.own));
    let Some(mut owners) = found.next() else { return new() };
    if let Some(more) = found.next() {
        owners.earlier.extend(more.earlier.into_iter().chain([more.own]));
    }
    owners.earlier.retain(|id| is_identity(id) && *id != owners.own);
    owners
}

fn is_identity(id: &OwnerId) -> bool {
    (1..=MAX_ID).contains(&id.0.len()) && id.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// What the file in that directory says; `None` if it is not there, is a link or no plain file, or cannot be read. It does not wait.
pub(super) fn read(directory: &Path) -> Option<Owners> {
    let file = options().read(true).open(directory.join(FILE)).ok()?;
    file.metadata().ok().filter(|about| about.is_file())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the file anew, whole or not at all, unless it is so already. Without it the state file alone knows the identity.
pub(super) fn write(directory: &Path, owners: &Owners) {
    if read(directory).as_ref() == Some(owners) {
        return;
    }
    if let Err(error) = try_write(directory, owners) {
        tracing::warn!(
            %error, path = %directory.join(FILE).display(),
            "the identity of this agent cannot be written; if the state file is lost as well, its containers are not known again"
        );
    }
}

fn try_write(directory: &Path, owners: &Owners) -> std::io::Result<()> {
    let (path, half) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
    // What stands there, left over or planted, goes: a file of somebody else would still be theirs afterwards.
    match std::fs::remove_file(&half) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = options().write(true).create_new(true).mode(FILE_MODE).open(&half)?;
        file.write_all(&serde_json::to_vec(owners)?)?;
        file.sync_all()?;
        std::fs::rename(&half, &path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _gone = std::fs::remove_file(&half);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn owners(own: &str, earlier: &[&str]) -> Owners {
        Owners { own: own.into(), earlier: earlier.iter().map(|id| OwnerId::from(*id)).collect() }
    }

    #[test]
    fn no_identity_that_stands_anywhere_is_given_up() {
        let table = [
            (Some(owners("a", &[])), Some(owners("a", &[])), owners("a", &[])),
            (Some(owners("a", &["x"])), None, owners("a", &["x"])),
            (None, Some(owners("b", &["y"])), owners("b", &["y"])),
            (Some(owners("a", &["x"])), Some(owners("b", &["y", "a"])), owners("a", &["b", "x", "y"])),
            (Some(owners("", &[])), Some(owners("b", &[])), owners("b", &[])),
            (Some(owners("a", &[])), Some(owners("../b", &["c\n"])), owners("a", &[])),
        ];
        for (state, file, wanted) in table {
            assert_eq!(known(state.clone(), file.clone()), wanted, "{state:?} {file:?}");
        }
        let (one, two) = (known(None, None), known(None, None));
        assert!(is_identity(&one.own) && one.own != two.own && one.earlier == BTreeSet::new());
    }
}
