//! The reasons why an upload fails.

use crate::ecr::Digest;

/// The reason why an upload failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The bytes have another digest than the client said.
    #[error("the bytes have the digest {0}")]
    WrongDigest(Digest),
    /// The layer is larger than any layer may be.
    #[error("a layer has at most {0} bytes")]
    TooLarge(u64),
    /// There is no room left in memory.
    #[error(
        "no space left: the memory for layers is used up; start ecs-local with a larger --registry-memory, or with --registry-dir"
    )]
    MemoryFull,
    /// The file system refused the bytes, for example because it is full.
    #[error("the directory of the registry cannot be written: {0}")]
    File(#[from] std::io::Error),
    /// An earlier part of this upload failed, or the server ends.
    #[error("the upload has ended")]
    Stopped,
}
