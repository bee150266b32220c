//! The GPUs of this host, from the file that `host-setup`, ecs-init or the operator has written (spec `ecs-init.md` §8).
//!
//! The agent reads the file once, at its start, and queries no driver; `host-setup` does (`discovery`). Invariant: a file that exists and
//! cannot be read is an error. Otherwise ECS would place tasks on GPUs that they cannot get.

mod discovery;
mod list;

pub use discovery::{DiscoveryError, Places, discover};
pub use list::Gpus;

use super::lanes::{MAX_FILE, files};
use crate::input::json;
use crate::lane::{LaneError, read_file};
use list::FILE;
use std::io::ErrorKind;
use std::path::Path;

/// Why the list of GPUs is not known.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The list cannot be read, or is not a list.
    #[error("the list of GPUs {FILE} cannot be read: {0}")]
    Unusable(String),
    /// The file does not answer in time.
    #[error("the list of GPUs")]
    Hangs(#[from] LaneError),
}

/// The GPUs that the file lists; none if there is no file.
///
/// # Errors
/// The file exists, and cannot be read.
pub async fn listed() -> Result<Gpus, GpuError> {
    files().run(FILE, || read(Path::new(FILE))).await?
}

fn read(file: &Path) -> Result<Gpus, GpuError> {
    let unusable = |error: &dyn std::fmt::Display| GpuError::Unusable(error.to_string());
    match read_file(file, MAX_FILE) {
        // In a file written by hand, the names may have another case.
        Ok(text) => {
            let list: serde_json::Value = serde_json::from_slice(&text).map_err(|error| unusable(&error))?;
            json::decode(&list).map_err(|error| unusable(&error))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::warn!(path = %file.display(), "No GPU devices found, ignoring the GPU support config (ECS_ENABLE_GPU_SUPPORT)");
            Ok(Gpus::default())
        }
        Err(error) => Err(unusable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_list_is_empty_and_a_broken_one_an_error() {
        let directory = std::env::temp_dir().join(format!("ecs-gpu-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join("info.json");
        assert_eq!(read(&file).unwrap(), Gpus::default());
        std::fs::write(&file, r#"{"DriverVersion": "535.1", "GPUIDs": ["GPU-1", "GPU-2"]}"#).unwrap();
        let wanted = Gpus { driver: "535.1".to_owned(), ids: vec!["GPU-1".to_owned(), "GPU-2".to_owned()] };
        assert_eq!(read(&file).unwrap(), wanted);
        std::fs::write(&file, r#"{"driverversion": "535.1", "GpuIds": ["GPU-1", "GPU-2"], "Note": null}"#).unwrap();
        assert_eq!(read(&file).unwrap(), wanted, "names in another case");
        for bad in ["", "[", r#"{"GPUIDs": 1}"#] {
            std::fs::write(&file, bad).unwrap();
            assert!(read(&file).is_err(), "{bad}");
        }
        assert!(read(&directory).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
