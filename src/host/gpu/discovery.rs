//! Finds the GPUs of this host and writes their list, as ecs-init does before it starts the Go agent (spec `ecs-init.md` §8).
//!
//! ecs-init calls the library of the driver. A static program cannot load it, so the program `nvidia-smi`, which comes with the driver,
//! is asked instead. Invariants: a list that was written before is replaced by renaming; it stays as it is if the driver does not answer.

use super::list::{FILE, Gpus};
use crate::host::program::{Call, Programs};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often devices are looked for, and the pause between: the driver may be loaded while the host starts.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(3);
/// The time limit of `nvidia-smi`. It wakes GPUs that sleep.
const LIMIT: Duration = Duration::from_secs(60);

/// Where devices and the list are.
#[derive(Clone, Debug)]
pub struct Places {
    devices: PathBuf,
    list: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { devices: "/dev".into(), list: FILE.into() }
    }
}

/// Why the GPUs are not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The driver did not list them.
    #[error("the GPUs of this host are not known: {0}")]
    Unknown(String),
    /// The list cannot be written.
    #[error("{path} cannot be written")]
    Unwritten {
        /// Its path.
        path: String,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
}

/// Looks for the GPUs, and writes their list. `waits`: for half a minute, if there is no device yet. Returns the number of GPUs. If there
/// is no device, a list of another host is put aside: the image of this instance may have been made there.
///
/// # Errors
/// There are devices, and the driver does not list them; or the list cannot be written.
pub async fn discover(programs: &Programs, places: &Places, waits: bool) -> Result<usize, DiscoveryError> {
    let mut attempt = 1;
    while !has_devices(&places.devices) {
        if !waits || attempt == ATTEMPTS {
            return put_aside(&places.list).map(|()| 0).map_err(|error| unwritten(places, error));
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
    let arguments = ["--query-gpu=driver_version,uuid", "--format=csv,noheader"];
    let call = Call { program: "nvidia-smi", arguments: &arguments, input: "", limit: LIMIT };
    let outcome = programs.run(&call).await.map_err(|error| DiscoveryError::Unknown(error.to_string()))?;
    let gpus = parse(&outcome.output);
    if gpus.ids.is_empty() {
        return Err(DiscoveryError::Unknown(format!("{call}: {}", outcome.failure())));
    }
    write(&places.list, &gpus).map_err(|error| unwritten(places, error))?;
    Ok(gpus.ids.len())
}

fn unwritten(places: &Places, error: io::Error) -> DiscoveryError {
    DiscoveryError::Unwritten { path: places.list.display().to_string(), error }
}

/// Whether there is a file `nvidia…`, as ecs-init looks for it.
fn has_devices(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"))
}

/// Each line has a driver's version and an id. A GPU that cannot be read has another text in place of the id, and is left out.
fn parse(output: &str) -> Gpus {
    let rows = output.lines().filter_map(|line| line.split_once(", "));
    let rows: Vec<_> = rows.filter(|(_, id)| id.starts_with("GPU-")).collect();
    let driver = rows.first().map_or_else(String::new, |(driver, _)| driver.trim().to_owned());
    Gpus { driver, ids: rows.into_iter().map(|(_, id)| id.trim().to_owned()).collect() }
}

/// Compat: as with ecs-init, only root reads it.
fn write(path: &Path, gpus: &Gpus) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all((serde_json::to_string(gpus).map_err(io::Error::other)? + "\n").as_bytes())?;
    std::fs::rename(&unfinished, path)
}

/// Keeps a list that is not of this host from being used.
fn put_aside(path: &Path) -> io::Result<()> {
    match std::fs::rename(path, path.with_extension("json.old")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// A directory with a place for devices, and one for programs. No test machine has a GPU: a script stands for `nvidia-smi`.
    struct Host(PathBuf);

    impl Host {
        fn new() -> Self {
            let top = std::env::temp_dir().join(format!("ecs-gpus-{}", uuid::Uuid::new_v4().simple()));
            for name in ["dev", "bin"] {
                std::fs::create_dir_all(top.join(name)).unwrap();
            }
            Self(top)
        }

        fn places(&self) -> Places {
            Places { devices: self.0.join("dev"), list: self.0.join("gpu/info.json") }
        }

        fn add_device(&self) {
            std::fs::write(self.0.join("dev/nvidia0"), "").unwrap();
        }

        fn programs(&self, script: &str) -> Programs {
            let path = self.0.join("bin/nvidia-smi");
            ecs_testing::program::write(&path, &format!("#!/bin/sh\n{script}\n"));
            Programs::in_directories(&format!("{}:/usr/bin:/bin", self.0.join("bin").display()))
        }

        fn list(&self) -> Option<String> {
            std::fs::read_to_string(self.places().list).ok()
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const TWO: &str = r#"test "$1" = --query-gpu=driver_version,uuid && printf '535.1, GPU-a\n535.1, [Unknown Error]\n535.1, GPU-b\n'"#;

    #[tokio::test]
    async fn the_gpus_are_listed_as_ecs_init_lists_them() {
        let host = Host::new();
        host.add_device();
        assert_eq!(discover(&host.programs(TWO), &host.places(), true).await.unwrap(), 2);
        let wanted = "{\"DriverVersion\":\"535.1\",\"GPUIDs\":[\"GPU-a\",\"GPU-b\"]}\n";
        assert_eq!(host.list().as_deref(), Some(wanted));
        // A driver that does not answer leaves the list as it is.
        for script in ["echo 'NVIDIA-SMI has failed' >&2; exit 9", "exit 0", "echo '535.1, [Unknown Error]'"] {
            let error = discover(&host.programs(script), &host.places(), true).await.unwrap_err().to_string();
            assert!(error.starts_with("the GPUs of this host are not known: nvidia-smi --query-gpu"), "{error}");
            assert_eq!(host.list().as_deref(), Some(wanted));
        }
        let missing = Programs::in_directories("/nowhere");
        let error = discover(&missing, &host.places(), true).await.unwrap_err().to_string();
        assert!(error.ends_with("nvidia-smi is not installed (searched in /nowhere)"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn devices_are_waited_for_and_a_strange_list_is_put_aside() {
        let host = Host::new();
        write(&host.places().list, &Gpus::default()).unwrap();
        for (waits, seconds) in [(false, 0), (true, 27)] {
            let began = Instant::now();
            assert_eq!(discover(&host.programs(TWO), &host.places(), waits).await.unwrap(), 0);
            assert_eq!((began.elapsed().as_secs(), host.list()), (seconds, None));
        }
        assert!(host.places().list.with_extension("json.old").exists());
    }
}
