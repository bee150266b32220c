//! The AppArmor profile for an agent in a container (spec `ecs-init.md` §8).
//!
//! ecs-init writes such a profile at each start, since its agent always runs in a container. The service needs none: its unit confines
//! it. So the profile is written only if a person asks for it, and only on a host with AppArmor. It has the name that ecs-init gives to its
//! own, because `ECS_AGENT_APPARMOR_PROFILE` and scripts name it. Invariant: the kernel gets what is in the file.

use super::program::{Call, ProgramError, Programs};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the profile.
pub const NAME: &str = "ecs-agent-default";
/// The text of the profile.
pub const PROFILE: &str = include_str!("apparmor/profile");
/// The file in which the kernel says whether it has AppArmor.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const DIRECTORY: &str = "/etc/apparmor.d";
/// The time limit of the parser, which compiles all that the profile includes.
const LIMIT: Duration = Duration::from_secs(60);

/// Why the profile is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The kernel has no AppArmor.
    #[error("this host does not use AppArmor ({ENABLED} is not Y): an agent in a container needs no profile here")]
    NotUsed,
    /// The file cannot be written or removed.
    #[error("{path} cannot be changed")]
    Unwritten {
        /// Its path.
        path: String,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// The parser gave no outcome.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The parser failed.
    #[error("apparmor_parser failed: {0}")]
    Refused(String),
}

/// Whether the kernel uses AppArmor.
fn is_used() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

fn file() -> PathBuf {
    Path::new(DIRECTORY).join(NAME)
}

fn unwritten(error: io::Error) -> ProfileError {
    ProfileError::Unwritten { path: file().display().to_string(), error }
}

/// Writes the profile, and loads it in place of an older one.
///
/// # Errors
/// [`ProfileError`].
pub async fn load(programs: &Programs) -> Result<(), ProfileError> {
    if !is_used() {
        return Err(ProfileError::NotUsed);
    }
    std::fs::write(file(), PROFILE).map_err(unwritten)?;
    // Without the cache, and in place of a profile of the same name.
    parser(programs, "-Kr", &file()).await
}

/// Removes the profile from the kernel, and its file. That there is none is no error.
///
/// # Errors
/// [`ProfileError`].
pub async fn unload(programs: &Programs) -> Result<(), ProfileError> {
    if !file().exists() {
        return Ok(());
    }
    if is_used() {
        parser(programs, "-R", &file()).await?;
    }
    match std::fs::remove_file(file()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unwritten(error)),
        _ => Ok(()),
    }
}

async fn parser(programs: &Programs, option: &str, file: &Path) -> Result<(), ProfileError> {
    let shown = file.display().to_string();
    let arguments = [option, &shown];
    let call = Call { program: "apparmor_parser", arguments: &arguments, input: "", limit: LIMIT };
    let outcome = programs.run(&call).await?;
    if outcome.is_success() { Ok(()) } else { Err(ProfileError::Refused(outcome.failure())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parser reads the profile; the kernel of a test machine need not have AppArmor.
    #[tokio::test]
    async fn the_parser_takes_the_profile() {
        let path = std::env::temp_dir().join(format!("ecs-profile-{}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&path, PROFILE).unwrap();
        // Neither load it, nor use the cache.
        let parsed = parser(&Programs::default(), "-QK", &path).await;
        std::fs::remove_file(&path).unwrap();
        match parsed {
            Err(ProfileError::Program(error)) if error.is_missing() => eprintln!("SKIPPED the profile: {error}"),
            parsed => parsed.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_host_without_apparmor_gets_no_profile() {
        if is_used() {
            eprintln!("SKIPPED a host without AppArmor: this one has it");
            return;
        }
        assert!(matches!(load(&Programs::default()).await, Err(ProfileError::NotUsed)));
        assert!(!file().exists());
    }
}
