//! What is in this process's memory (registry passwords, credentials of roles) stays there.
//!
//! Owns the two settings that keep it out of core files. The unit sets the first one too; in a container nobody else does.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Lets this process leave no core file, wherever the system would write or pipe it to, and lets no process of the same user read its
/// memory, unless that user is root. Programs that it starts have the first of the two.
///
/// # Errors
/// What could not be set; the rest is set.
pub fn keep_out_of_core_files() -> std::io::Result<()> {
    let no_file = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The limit does not hold for a program that core files are piped to; this does.
    let no_dump = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    Ok(no_file.and(no_dump)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{dumpable_behavior, getrlimit};

    #[test]
    fn neither_a_file_nor_a_program_gets_a_core() {
        keep_out_of_core_files().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        keep_out_of_core_files().expect("it may be repeated");
    }
}
