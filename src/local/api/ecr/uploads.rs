//! Calls that wait: those that upload a layer in parts, whose bytes go to the registry; PutImage, whose manifest is read without a
//! lock; and StartLifecyclePolicyPreview, whose rules are evaluated without one. Invariants: parts come in order and without gaps; a part is stored as a whole or not at all, also if its client
//! goes away; every part but the last has at least [`MIN_PART`] bytes.

use super::call::{Call, Target, required, texts, with};
use super::images::{self, NewManifest};
use super::lifecycle;
use crate::api::request::Answer;
use crate::api_error::ApiError;
use crate::ecr::error::EcrError;
use crate::ecr::{Action, Digest, Principal};
use crate::registry::{Owner, StoreError, Taken, Unavailable, UploadError, read_image, store};
use crate::shared::Shared;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

/// The operations of [`answer`].
pub(super) const OPERATIONS: [&str; 5] =
    ["CompleteLayerUpload", "InitiateLayerUpload", "PutImage", "StartLifecyclePolicyPreview", "UploadLayerPart"];
/// The shortest part but the last, in bytes, as in ECR.
const MIN_PART: u64 = 5 * 1024 * 1024;
/// `partSize` of InitiateLayerUpload, in bytes: the length that ECR expects of parts.
const PART_SIZE: u64 = 10 * 1024 * 1024;
/// The longest part, in bytes, as in ECR.
const MAX_PART: u64 = 20 * 1024 * 1024;
/// Maximum number of digests in a request, as in ECR.
const MAX_DIGESTS: usize = 100;

/// Answers one call.
pub(super) async fn answer(shared: &Arc<Shared>, caller: &Principal, operation: &str, body: &Value) -> Answer {
    let action = match operation {
        "StartLifecyclePolicyPreview" => return lifecycle::start_preview_elsewhere(shared, caller, body).await,
        "CompleteLayerUpload" => Action::COMPLETE_LAYER_UPLOAD,
        "InitiateLayerUpload" => Action::INITIATE_LAYER_UPLOAD,
        "PutImage" => Action::PUT_IMAGE,
        _ => Action::UPLOAD_LAYER_PART,
    };
    let target = shared.change(|state| {
        let now = state.ecr_time();
        Call { state, caller, body, now }.target(action)
    })?;
    match operation {
        "CompleteLayerUpload" => complete(shared, &target, body).await,
        "InitiateLayerUpload" => initiate(shared, &target),
        "PutImage" => {
            let NewManifest { manifest, media_type, tag, digest } = NewManifest::read(body)?;
            let new = read_image(manifest, media_type, tag, digest).await?;
            let stored = shared.change_durably(|state| {
                let now = state.ecr_time();
                images::store(&mut Call { state, caller, body, now }, &target, &new)
            });
            stored.await.map_err(|error| failed(StoreError::Save(error)))?
        }
        _ => add_part(shared, &target, body).await,
    }
}

fn initiate(shared: &Shared, target: &Target) -> Answer {
    let storage = &shared.storage;
    let begun = storage.uploads.begin(&storage.blobs, owner(target));
    let id = begun.map_err(|_| EcrError::Limit("The registry already has the maximum number of uploads".to_owned()))?;
    Ok(json!({"uploadId": id, "partSize": PART_SIZE}))
}

/// A part of a layer.
struct Part {
    /// The positions of its first and last byte.
    first: u64,
    last: u64,
    bytes: Vec<u8>,
}

impl Part {
    fn read(body: &Value) -> Result<Self, EcrError> {
        let (first, last) = (byte(body, "partFirstByte")?, byte(body, "partLastByte")?);
        let bytes = STANDARD.decode(required(body, "layerPartBlob")?);
        let bytes = bytes.map_err(|_| EcrError::invalid("layerPartBlob", "it must be base64"))?;
        Ok(Self { first, last, bytes })
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What is wrong with the part after `length` bytes of the upload; `None`: nothing.
    fn fault(&self, length: u64) -> Option<String> {
        let (first, last, own) = (self.first, self.last, self.length());
        if own == 0 || own > MAX_PART {
            return Some(format!("A part has 1 to {MAX_PART} bytes; this one has {own}"));
        }
        if last.checked_sub(first).and_then(|rest| rest.checked_add(1)) != Some(own) {
            return Some(format!("The part has {own} bytes, and not those from {first} to {last}"));
        }
        (length != first).then(|| format!("The part begins at byte {first}, but the upload has {length} bytes"))
    }
}

async fn add_part(shared: &Arc<Shared>, target: &Target, body: &Value) -> Answer {
    let (id, part) = (required(body, "uploadId")?.to_owned(), Part::read(body)?);
    let owner = owner(target);
    let taken = shared.storage.uploads.take(&owner, &id).await.map_err(|why| unavailable(target, &id, why))?;
    let received = json!({"uploadId": id, "lastByteReceived": part.last});
    let place = target.show();
    // The part is stored as a whole, also if its client goes away.
    let stored = shared.storage.tasks.spawn(async move { store_part(taken, part).await }).await;
    match stored {
        Ok(Ok(())) => Ok(with(place, received)),
        Ok(Err(PartError::Wrong { message, length })) => {
            let mut error: ApiError = EcrError::other("InvalidLayerPartException", message).into();
            let last = length.checked_sub(1);
            error.members = Some(Box::new(with(place, json!({"uploadId": id, "lastValidByteReceived": last}))));
            Err(error)
        }
        Ok(Err(PartError::TooSmall)) => Err(too_small().into()),
        Ok(Err(PartError::Upload(error))) => Err(failed(StoreError::Upload(error))),
        Err(_) => Err(failed(StoreError::Upload(UploadError::Stopped))),
    }
}

/// Why a part is not stored.
enum PartError {
    /// It does not fit the upload, which has `length` bytes.
    Wrong {
        message: String,
        length: u64,
    },
    /// The part before it was too short.
    TooSmall,
    Upload(UploadError),
}

async fn store_part(mut taken: Taken, part: Part) -> Result<(), PartError> {
    let length = taken.length();
    let stopped = PartError::Upload(UploadError::Stopped);
    let Some(upload) = taken.upload() else { return Err(stopped) };
    // A client that has lost the answer sends the part again.
    if upload.last_part() == Some(part.length()) && length.checked_sub(part.length()) == Some(part.first) {
        return Ok(());
    }
    if let Some(message) = part.fault(length) {
        return Err(PartError::Wrong { message, length });
    }
    if upload.last_part().is_some_and(|before| before < MIN_PART) {
        return Err(PartError::TooSmall);
    }
    let mut added = upload.append(&part.bytes).await;
    if added.is_ok() {
        upload.note_part(part.length());
        added = upload.rest().await;
    }
    added.map_err(|error| {
        drop(taken.finish());
        PartError::Upload(error)
    })
}

async fn complete(shared: &Arc<Shared>, target: &Target, body: &Value) -> Answer {
    let id = required(body, "uploadId")?;
    let digests = texts(body, "layerDigests", MAX_DIGESTS)?;
    // Clients may name digests of several algorithms. Only this one is known.
    let digest = digests.iter().find_map(|text| text.parse::<Digest>().ok());
    let digest = digest.ok_or_else(|| {
        EcrError::invalid("layerDigests", "a layer digest is `sha256:` and 64 lower-case hexadecimal digits")
    })?;
    let taken = shared.storage.uploads.take(&owner(target), id).await.map_err(|why| unavailable(target, id, why))?;
    let Target { account, name } = target;
    if taken.length() == 0 {
        let message = format!(
            "The upload '{id}' in the repository with name '{name}' in the registry with id '{account}' has no parts"
        );
        return Err(EcrError::other("EmptyUploadException", message).into());
    }
    let is_known = shared.read(|state| state.ecr.layer(account, name, &digest).is_some());
    let Some(upload) = taken.finish() else { return Err(unavailable(target, id, Unavailable::Unknown).into()) };
    if is_known {
        let message = format!(
            "The layer with digest '{digest}' already exists in the repository with name '{name}' in the registry with id '{account}'"
        );
        return Err(EcrError::other("LayerAlreadyExistsException", message).into());
    }
    store(shared, owner(target), upload, digest).await.map_err(failed)?;
    Ok(with(target.show(), json!({"uploadId": id, "layerDigest": digest})))
}

fn owner(target: &Target) -> Owner {
    Owner { account: target.account.clone(), repository: target.name.clone() }
}

fn byte(body: &Value, member: &'static str) -> Result<u64, EcrError> {
    body[member].as_u64().ok_or_else(|| EcrError::invalid(member, "Member must be a whole number of at least 0"))
}

fn too_small() -> EcrError {
    let message = format!("Layer parts, except the last one, must be at least {MIN_PART} bytes in size");
    EcrError::other("LayerPartTooSmallException", message)
}

fn unavailable(target: &Target, id: &str, why: Unavailable) -> EcrError {
    let Target { account, name } = target;
    let id = super::call::shown(id);
    match why {
        Unavailable::Busy => EcrError::other("InvalidLayerPartException", "Another request writes to this upload"),
        Unavailable::Unknown | Unavailable::TooMany => EcrError::other(
            "UploadNotFoundException",
            format!(
                "The upload '{id}' does not exist in the repository with name '{name}' in the registry with id '{account}'"
            ),
        ),
    }
}

fn failed(error: StoreError) -> ApiError {
    match error {
        StoreError::Ecr(error) => error.into(),
        StoreError::Upload(UploadError::WrongDigest(digest)) => EcrError::other(
            "InvalidLayerException",
            format!("The layer has the digest '{digest}', not that of the request"),
        )
        .into(),
        StoreError::Upload(error @ (UploadError::TooLarge(_) | UploadError::MemoryFull)) => {
            EcrError::Limit(error.to_string()).into()
        }
        StoreError::Upload(error) => ApiError::new(500, "ServerException", error.to_string()),
        StoreError::Save(error) => ApiError::new(500, "ServerException", error.to_string()),
    }
}
