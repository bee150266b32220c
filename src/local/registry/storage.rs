//! What the registry has besides the state: layers, uploads in progress, the progress of saving, and the work that goes on when its
//! client goes away. This module owns their beginning.

use super::blobs::{Blobs, Directory, OpenError};
use super::saves::Saves;
use super::uploads::Uploads;
use crate::ecr::{Digest, Ecr};
use crate::options::Options;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

/// Layers, uploads, and the progress of saving.
#[derive(Debug)]
pub(crate) struct Storage {
    /// The bytes of layers and configurations.
    pub(crate) blobs: Blobs,
    /// Uploads in progress.
    pub(crate) uploads: Uploads,
    /// How far the state is on disk.
    pub(crate) saves: Saves,
    /// Work that is done to its end, also when its client goes away.
    pub(crate) tasks: TaskTracker,
    /// Blobs that no repository got, although they were uploaded.
    unwanted: Mutex<Vec<Digest>>,
}

impl Storage {
    /// An empty registry in memory, with room for this many bytes.
    pub(crate) fn in_memory(room: u64, idle: Duration) -> Self {
        Self::new(Blobs::in_memory(room), idle, 0)
    }

    fn new(blobs: Blobs, idle: Duration, revision: u64) -> Self {
        Self {
            blobs,
            uploads: Uploads::new(idle),
            saves: Saves::new(revision),
            tasks: TaskTracker::new(),
            unwanted: Mutex::default(),
        }
    }

    /// The registry in the directory of the options, or an empty one in memory; and the stored state, if there is one.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub(crate) async fn open(options: &Options) -> Result<(Self, Option<Ecr>), OpenError> {
        let idle = options.upload_idle;
        let Some(path) = options.registry_dir.clone() else {
            return Ok((Self::in_memory(options.registry_memory, idle), None));
        };
        let (region, account) = (options.region.clone(), options.account.clone());
        let opened = spawn_blocking(move || read(&path, &region, &account)).await;
        let (blobs, ecr) = opened.map_err(|_| OpenError::Stopped)??;
        Ok((Self::new(blobs, idle, ecr.revision()), Some(ecr)))
    }

    /// Notes a blob that no repository got. The keeper removes it.
    pub(crate) fn note_unwanted(&self, digest: Digest) {
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
    }

    /// The blobs that no repository got, since the last call.
    pub(super) fn take_unwanted(&self) -> Vec<Digest> {
        std::mem::take(&mut *self.unwanted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads a directory: all that the state needs is there, and nothing else stays. This blocks.
fn read(path: &Path, region: &str, account: &str) -> Result<(Blobs, Ecr), OpenError> {
    let blobs = Blobs::open(path)?;
    let Some(directory) = blobs.directory() else { return Err(OpenError::Stopped) };
    let failed = |error| OpenError::Io(path.to_owned(), error);
    // The address of the registry is not known yet.
    let ecr = match directory.read_state().map_err(failed)? {
        Some(text) => Ecr::load(&text, |digest| directory.read_manifest(digest), region, account, ""),
        None if !blobs.is_empty() || !directory.has_no_manifests() => {
            return Err(OpenError::NoState(directory.state_path()));
        }
        None => {
            // From now on there is a state, whatever happens.
            let ecr = Ecr::new(region, account, "");
            write(&directory, &ecr).map_err(failed)?;
            Ok(ecr)
        }
    };
    let ecr = ecr.map_err(|error| OpenError::State(directory.state_path(), error.to_string()))?;
    check(&blobs, &directory, &ecr)?;
    Ok((blobs, ecr))
}

/// Each layer of the state has its file. Files that it does not need are removed: the server was killed before the state had them, or
/// after it had them no more.
fn check(blobs: &Blobs, directory: &Directory, ecr: &Ecr) -> Result<(), OpenError> {
    for (digest, size) in ecr.all_layers() {
        if blobs.size(&digest) != Some(size) {
            return Err(OpenError::MissingLayer(directory.path().to_owned(), digest.to_string(), size));
        }
    }
    blobs.remove_now(|digest| !ecr.is_used(digest));
    let manifests = ecr.manifests();
    directory.sweep_manifests(|digest| manifests.contains_key(digest));
    Ok(())
}

/// Writes all that a directory keeps but the layers: new manifests first, then the state that names them. Manifests that it does not
/// name leave afterwards. If the system stops at any instant, the old or the new state is there with all its manifests. This blocks.
pub(super) fn write(directory: &Directory, ecr: &Ecr) -> io::Result<()> {
    let (text, manifests) = (ecr.save()?, ecr.manifests());
    let fresh = directory.write_manifests(&manifests)?;
    if let Err(error) = directory.write_state(&text) {
        // The old state is there, and does not name them.
        directory.remove_manifests(&fresh);
        return Err(error);
    }
    directory.sync_state()?;
    directory.sweep_manifests(|digest| manifests.contains_key(digest));
    Ok(())
}
