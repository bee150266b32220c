//! Calls that upload a layer in parts. Unlike all others they wait, because the bytes go to the registry. Invariants: parts come
//! in order and without gaps; every part but the last has at least [`MIN_PART`] bytes.

use super::call::{Call, Target, required, texts};
use crate::api::request::Answer;
use crate::api_error::ApiError;
use crate::ecr::error::EcrError;
use crate::ecr::{Action, Digest, Principal};
use crate::registry::{Owner, StoreError, Unavailable, UploadError, store};
use crate::shared::Shared;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

/// The operations of [`answer`].
pub(super) const OPERATIONS: [&str; 3] = ["CompleteLayerUpload", "InitiateLayerUpload", "UploadLayerPart"];
/// The shortest part but the last, in bytes, as in ECR.
const MIN_PART: u64 = 5 * 1024 * 1024;
/// The longest part, in bytes: the one that ECR recommends.
const MAX_PART: u64 = 10 * 1024 * 1024;
/// Maximum number of digests in a request, as in ECR.
const MAX_DIGESTS: usize = 100;

/// Answers one call.
pub(super) async fn answer(shared: &Arc<Shared>, caller: &Principal, operation: &str, body: &Value) -> Answer {
    let action = match operation {
        "CompleteLayerUpload" => Action::COMPLETE_LAYER_UPLOAD,
        "InitiateLayerUpload" => Action::INITIATE_LAYER_UPLOAD,
        _ => Action::UPLOAD_LAYER_PART,
    };
    let target = shared.change(|state| {
        let now = state.ecr_time();
        Call { state, caller, body, now }.target(action)
    })?;
    match operation {
        "CompleteLayerUpload" => complete(shared, &target, body).await,
        "InitiateLayerUpload" => initiate(shared, &target),
        _ => add_part(shared, &target, body).await,
    }
}

fn initiate(shared: &Shared, target: &Target) -> Answer {
    let storage = &shared.storage;
    let begun = storage.uploads.begin(&storage.blobs, owner(target));
    let id = begun.map_err(|_| EcrError::Limit("The registry already has the maximum number of uploads".to_owned()))?;
    Ok(json!({"uploadId": id, "partSize": MAX_PART}))
}

async fn add_part(shared: &Shared, target: &Target, body: &Value) -> Answer {
    let id = required(body, "uploadId")?;
    let (first, last) = (byte(body, "partFirstByte")?, byte(body, "partLastByte")?);
    let blob = STANDARD.decode(required(body, "layerPartBlob")?);
    let blob = blob.map_err(|_| EcrError::invalid("layerPartBlob", "it must be base64"))?;
    let length = blob.len() as u64;
    let wrong = |message: String| EcrError::other("InvalidLayerPartException", message);
    if length == 0 || length > MAX_PART {
        return Err(wrong(format!("A part has 1 to {MAX_PART} bytes; this one has {length}")).into());
    }
    if last.checked_sub(first).and_then(|rest| rest.checked_add(1)) != Some(length) {
        return Err(wrong(format!("The part has {length} bytes, and not those from {first} to {last}")).into());
    }
    let mut taken =
        shared.storage.uploads.take(&owner(target), id).await.map_err(|why| unavailable(target, id, why))?;
    if taken.length() != first {
        let message = format!("The part begins at byte {first}, but the upload has {} bytes", taken.length());
        return Err(wrong(message).into());
    }
    let Some(upload) = taken.upload() else { return Err(unavailable(target, id, Unavailable::Unknown).into()) };
    if upload.last_part().is_some_and(|part| part < MIN_PART) {
        return Err(too_small().into());
    }
    let mut added = upload.append(&blob).await;
    if added.is_ok() {
        upload.note_part(length);
        added = upload.rest().await;
    }
    if let Err(error) = added {
        drop(taken.finish());
        return Err(failed(StoreError::Upload(error)));
    }
    let received = json!({"uploadId": id, "lastByteReceived": last});
    Ok(super::call::with(target.show(), received))
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
    Ok(super::call::with(target.show(), json!({"uploadId": id, "layerDigest": digest})))
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
