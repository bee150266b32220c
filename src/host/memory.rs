//! Keeps the secrets in this process's memory (registry passwords, credentials of roles) out of core files.
//!
//! Owns the two settings for that. The systemd unit sets the first one, too; in a container nothing else does.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Prevents core dumps of this process, both to a file and to a program. Also prevents other processes of the same user from
/// reading its memory, unless that user is root. Child processes inherit only the limit on core files.
///
/// # Errors
/// Fails if a setting is refused; the other one is tried nevertheless.
pub fn keep_out_of_core_files() -> std::io::Result<()> {
    let no_file = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The limit does not apply to a program that core files are piped to. This setting does.
    let no_dump = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    Ok(no_file.and(no_dump)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{dumpable_behavior, getrlimit};

    #[test]
    fn neither_a_file_nor_a_program_gets_a_core_dump() {
        keep_out_of_core_files().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        keep_out_of_core_files().expect("the call may be repeated");
    }
}
