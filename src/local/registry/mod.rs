//! The registry: the distribution half of the embedded ECR, as the OCI distribution specification 1.1 describes it.
//!
//! This module owns the bytes of layers, uploads in progress, and `/v2/`; [`crate::ecr`] owns which repositories, images and layers
//! exist and who may do what. Invariants: what was answered with success is on disk, if there is a directory; the memory that a push or
//! a pull needs does not depend on the size of the layer.
//!
//! In reading order: `blobs` (bytes), `uploads` (in progress), `saves`, `storage`, which holds them, and `addresses`; `layers` and
//! `keeper` (changes and their saving); `expiry` (lifecycle policies); `route`, `range`, `error`, `answers`, `access` and `call` (parts of a request);
//! `blob_requests`, `upload_requests`, `manifest_requests` and `listings` (handlers); `serve`.

mod access;
mod addresses;
mod answers;
mod blob_requests;
mod blobs;
mod call;
mod error;
mod expiry;
mod keeper;
mod layers;
mod listings;
mod manifest_requests;
mod manifests;
mod range;
mod route;
mod saves;
mod serve;
mod storage;
mod upload_requests;
mod uploads;

pub(crate) use addresses::{further, registries};
pub(crate) use blobs::UploadError;
pub(crate) use expiry::{expire, expire_elsewhere};
pub(crate) use keeper::keep;
pub(crate) use layers::{StoreError, store};
pub(crate) use manifests::read_image;
pub(crate) use route::is_registry;
pub(crate) use saves::SaveError;
pub(crate) use serve::answer;
pub(crate) use storage::Storage;
pub(crate) use uploads::{Owner, Taken, Unavailable};
