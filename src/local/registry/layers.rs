//! Makes an upload, or a layer of another repository, a layer of a repository. Invariants: the work is done to its end, also when the
//! client goes away; the answer is given when it is on disk; bytes that no repository gets are removed.

use super::blobs::{Upload, UploadError};
use super::saves::SaveError;
use super::uploads::Owner;
use crate::ecr::{Digest, EcrError};
use crate::shared::Shared;
use std::sync::Arc;

/// Why a layer could not be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The bytes could not be stored, or are others than the client said.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The repository refuses the layer, for example because it was deleted meanwhile.
    #[error(transparent)]
    Ecr(#[from] EcrError),
    /// The state could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// Stores an upload as a layer. Returns its size in bytes.
///
/// # Errors
/// If its bytes have another digest, or it cannot be stored.
pub(crate) async fn store(
    shared: &Arc<Shared>,
    owner: Owner,
    upload: Upload,
    digest: Digest,
) -> Result<u64, StoreError> {
    let task = shared.storage.tasks.spawn(add(Arc::clone(shared), owner, upload, digest));
    task.await.map_err(|_| UploadError::Stopped)?
}

async fn add(shared: Arc<Shared>, owner: Owner, upload: Upload, digest: Digest) -> Result<u64, StoreError> {
    let pin = upload.finish(digest).await?;
    let Owner { account, repository } = owner;
    let added = shared.change(|state| {
        let time = state.ecr_time();
        state.ecr.add_layer(&account, &repository, digest, pin.size, time).map(|()| state.ecr.revision())
    });
    let size = pin.size;
    drop(pin);
    if added.is_err() {
        shared.storage.note_unwanted(digest);
    }
    shared.storage.saves.settled(added?).await?;
    Ok(size)
}

/// Makes a layer of the repository `from` one of the owner's repository, in the same registry. Returns whether it did: if there is no
/// such layer, it does nothing.
///
/// # Errors
/// If the repository refuses the layer, or it cannot be stored.
pub(super) async fn mount(
    shared: &Arc<Shared>,
    owner: Owner,
    from: String,
    digest: Digest,
) -> Result<bool, StoreError> {
    let task = shared.storage.tasks.spawn(copy(Arc::clone(shared), owner, from, digest));
    task.await.map_err(|_| UploadError::Stopped)?
}

async fn copy(shared: Arc<Shared>, owner: Owner, from: String, digest: Digest) -> Result<bool, StoreError> {
    let Owner { account, repository } = owner;
    // In one step, so that the layer cannot be removed in between.
    let added = shared.change(|state| {
        let Some(size) = state.ecr.layer(&account, &from, &digest) else { return Ok(None) };
        // As in ECR, only between repositories that are encrypted alike.
        if state.ecr.repository(&account, &from)?.encryption != state.ecr.repository(&account, &repository)?.encryption
        {
            return Ok(None);
        }
        let time = state.ecr_time();
        state.ecr.add_layer(&account, &repository, digest, size, time)?;
        Ok::<_, EcrError>(Some(state.ecr.revision()))
    })?;
    let Some(revision) = added else { return Ok(false) };
    shared.storage.saves.settled(revision).await?;
    Ok(true)
}
