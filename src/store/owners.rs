//! The copy of the agent's identity in a file beside the state file.
//!
//! Owns this file. Containers have the identity as a label, so it must survive the loss of the state file. It does not decide
//! whose a container is. Invariant: an identity in either of the two files is never dropped.

use super::side_file;
use ecs_core::model::{OwnerId, Owners};
use std::path::Path;

/// The file's name in the data directory.
const FILE: &str = "ecs-agent.owner";
/// Maximum length of an identity in bytes.
const MAX_ID: usize = 64;

/// A new random identity.
pub(super) fn new() -> Owners {
    Owners { own: uuid::Uuid::new_v4().simple().to_string().into(), ..Owners::default() }
}

/// The identities of the state file and of this file together; a new one if neither file has any.
pub(super) fn merged(state: Option<Owners>, file: Option<Owners>) -> Owners {
    let mut found = [state, file].into_iter().flatten().filter(|owners| is_identity(&owners.own));
    let Some(mut owners) = found.next() else { return new() };
    if let Some(more) = found.next() {
        owners.earlier.extend(more.earlier.into_iter().chain([more.own]));
    }
    owners.earlier.retain(|id| is_identity(id) && *id != owners.own);
    owners
}

/// Whether the text can be an identity. A file may hold any text.
fn is_identity(id: &OwnerId) -> bool {
    (1..=MAX_ID).contains(&id.0.len()) && id.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The identities in the file in `directory`; `None` if it has none that can be read.
pub(super) fn read(directory: &Path) -> Option<Owners> {
    side_file::read(directory, FILE)
}

/// Writes the file in `directory`, unless it is up to date.
pub(super) fn write(directory: &Path, owners: &Owners) {
    side_file::write(
        directory,
        FILE,
        owners,
        "if the state file is lost as well, this agent's containers are not recognised",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn owners(own: &str, earlier: &[&str]) -> Owners {
        Owners { own: own.into(), earlier: earlier.iter().map(|id| OwnerId::from(*id)).collect() }
    }

    #[test]
    fn no_identity_in_either_file_is_dropped() {
        let table = [
            (Some(owners("a", &[])), Some(owners("a", &[])), owners("a", &[])),
            (Some(owners("a", &["x"])), None, owners("a", &["x"])),
            (None, Some(owners("b", &["y"])), owners("b", &["y"])),
            (Some(owners("a", &["x"])), Some(owners("b", &["y", "a"])), owners("a", &["b", "x", "y"])),
            (Some(owners("", &[])), Some(owners("b", &[])), owners("b", &[])),
            (Some(owners("a", &[])), Some(owners("../b", &["c\n"])), owners("a", &[])),
        ];
        for (state, file, wanted) in table {
            assert_eq!(merged(state.clone(), file.clone()), wanted, "{state:?} {file:?}");
        }
        let (first, second) = (merged(None, None), merged(None, None));
        assert!(is_identity(&first.own) && first.own != second.own && first.earlier == BTreeSet::new());
    }
}
