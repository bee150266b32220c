//! The directory for EBS volumes of tasks (spec `ecs-init.md` §3). This agent does not attach such volumes yet, and does not offer them.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// The directory.
pub const PATH: &str = "/mnt/ecs/ebs";
const PARENT: &str = "/mnt/ecs";

/// Makes the directory. Returns whether it was missing.
///
/// # Errors
/// It cannot be made.
pub fn make() -> io::Result<bool> {
    if Path::new(PATH).is_dir() {
        return Ok(false);
    }
    DirBuilder::new().recursive(true).mode(0o755).create(PATH)?;
    // The unit's mask keeps others out, and they must get to the volumes.
    for path in [PARENT, PATH] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    Ok(true)
}

/// Removes the directory and its parent, if nothing is in them.
pub fn remove_if_empty() {
    let _has_something = std::fs::remove_dir(PATH).and_then(|()| std::fs::remove_dir(PARENT));
}

/// The command that makes it, for people.
pub fn command() -> String {
    format!("mkdir -p -m 0755 {PATH}")
}

/// The command that removes it, for people.
pub fn undo_command() -> String {
    format!("rmdir {PATH} {PARENT}")
}
