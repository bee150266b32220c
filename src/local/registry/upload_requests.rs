//! Requests that push a layer: in one request, in parts, in a stream, or by naming another repository that has it.

use super::answers::{Answer, CONTENT_DIGEST, UPLOAD_ID};
use super::blobs::UploadError;
use super::call::{Call, digest};
use super::error::RegistryError;
use super::layers::{self, StoreError};
use super::range::{content_range, received};
use super::uploads::{Taken, Unavailable};
use crate::bodies::{Broken, RequestBody};
use crate::ecr::names::check_repository;
use crate::ecr::{Action, Digest};
use http::{StatusCode, header};
use std::ops::Range;

/// POST: begins an upload; with `digest`, the body is the whole layer; with `mount` and `from`, no upload may be needed.
pub(super) async fn begin(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, RegistryError> {
    call.may(Action::INITIATE_LAYER_UPLOAD)?;
    if let (Some(wanted), Some(from)) = (call.parameter("mount"), call.parameter("from"))
        && let Some(answer) = mount(call, digest(wanted)?, from).await?
    {
        return Ok(answer);
    }
    let whole = call.parameter("digest").map(digest).transpose()?;
    if whole.is_some() {
        call.may(Action::UPLOAD_LAYER_PART)?;
        call.may(Action::COMPLETE_LAYER_UPLOAD)?;
    }
    let (owner, storage) = (call.owner(), &call.shared.storage);
    let id = storage.uploads.begin(&storage.blobs, owner.clone())?;
    let Some(wanted) = whole else { return Ok(progress(call, &id, 0, StatusCode::ACCEPTED)) };
    let mut taken = storage.uploads.take(&owner, &id).await?;
    // The client does not know this upload, so it cannot continue it.
    taken.make_private();
    receive(&mut taken, body, None).await?;
    let upload = taken.finish().ok_or(Unavailable::Unknown)?;
    layers::store(call.shared, owner, upload, wanted).await?;
    Ok(stored(call, &wanted))
}

/// The answer if the layer of another repository is one of this repository now; `None`: it must be uploaded.
async fn mount(call: &Call<'_>, wanted: Digest, from: &str) -> Result<Option<Answer>, RegistryError> {
    check_repository(from)?;
    // Whoever may not have the layer from there uploads it. The refusal is recorded.
    if call.caller.may(call.shared, Action::GET_DOWNLOAD_URL_FOR_LAYER, from).is_err() {
        return Ok(None);
    }
    call.may(Action::COMPLETE_LAYER_UPLOAD)?;
    let is_mounted = layers::mount(call.shared, call.owner(), from.to_owned(), wanted).await?;
    Ok(is_mounted.then(|| stored(call, &wanted)))
}

/// PATCH: a part, or a stream of any length.
pub(super) async fn append(call: &Call<'_>, id: &str, body: &mut RequestBody) -> Result<Answer, RegistryError> {
    call.may(Action::UPLOAD_LAYER_PART)?;
    let mut taken = call.shared.storage.uploads.take(&call.owner(), id).await?;
    let length = part_length(call, &taken, id)?;
    match receive(&mut taken, body, length).await {
        Ok(()) => Ok(progress(call, id, taken.length(), StatusCode::ACCEPTED)),
        Err(failed) => Err(given_up(call, taken, id, failed)),
    }
}

/// PUT: the last part, which may be empty, and the digest of the whole.
pub(super) async fn complete(call: &Call<'_>, id: &str, body: &mut RequestBody) -> Result<Answer, RegistryError> {
    if has_body(call) {
        call.may(Action::UPLOAD_LAYER_PART)?;
    }
    call.may(Action::COMPLETE_LAYER_UPLOAD)?;
    let wanted =
        call.parameter("digest").ok_or_else(|| RegistryError::bad_digest("The query needs digest=sha256:…"))?;
    let wanted = digest(wanted)?;
    let owner = call.owner();
    let mut taken = call.shared.storage.uploads.take(&owner, id).await?;
    let length = if has_body(call) { part_length(call, &taken, id)? } else { None };
    if let Err(failed) = receive(&mut taken, body, length).await {
        return Err(given_up(call, taken, id, failed));
    }
    let upload = taken.finish().ok_or(Unavailable::Unknown)?;
    layers::store(call.shared, owner, upload, wanted).await?;
    Ok(stored(call, &wanted))
}

/// GET: how much has arrived.
pub(super) async fn status(call: &Call<'_>, id: &str) -> Result<Answer, RegistryError> {
    call.may(Action::UPLOAD_LAYER_PART)?;
    let taken = call.shared.storage.uploads.take(&call.owner(), id).await?;
    Ok(progress(call, id, taken.length(), StatusCode::NO_CONTENT))
}

/// DELETE: gives an upload up.
pub(super) fn cancel(call: &Call<'_>, id: &str) -> Result<Answer, RegistryError> {
    call.may(Action::UPLOAD_LAYER_PART)?;
    call.shared.storage.uploads.remove(&call.owner(), id)?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// Why a part did not arrive.
enum Failed {
    /// The client may continue after the bytes that arrived.
    Body(Broken),
    /// The part has another length than it says.
    Length,
    /// The upload is of no more use.
    Upload(UploadError),
    /// Another request has removed the upload.
    Removed,
}

impl From<Failed> for RegistryError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Body(broken) => broken.into(),
            Failed::Length => Self::bad_range("The body has another length than Content-Range says"),
            Failed::Upload(error) => error.into(),
            Failed::Removed => Unavailable::Unknown.into(),
        }
    }
}

/// Adds a body to the upload. `length`: the length that it must have.
async fn receive(taken: &mut Taken, body: &mut RequestBody, length: Option<u64>) -> Result<(), Failed> {
    let end = length.map(|length| taken.length().saturating_add(length));
    let outcome = loop {
        match body.next().await {
            Ok(Some(piece)) => {
                let sum = taken.length().saturating_add(piece.len() as u64);
                if end.is_some_and(|end| sum > end) {
                    break Err(Failed::Length);
                }
                if !taken.is_listed() {
                    return Err(Failed::Removed);
                }
                let upload = taken.upload().ok_or(Failed::Removed)?;
                upload.append(&piece).await.map_err(Failed::Upload)?;
            }
            Ok(None) if end.is_some_and(|end| taken.length() < end) => break Err(Failed::Length),
            Ok(None) => break Ok(()),
            Err(broken) => break Err(Failed::Body(broken)),
        }
    };
    // What has arrived is stored, so that the client can continue after it.
    taken.upload().ok_or(Failed::Removed)?.rest().await.map_err(Failed::Upload)?;
    outcome
}

/// The error for a part that did not arrive. An upload that is of no more use is removed.
fn given_up(call: &Call<'_>, taken: Taken, id: &str, failed: Failed) -> RegistryError {
    let length = taken.length();
    if matches!(failed, Failed::Upload(_) | Failed::Removed) {
        drop(taken.finish());
        return failed.into();
    }
    with_progress(failed.into(), call, id, length)
}

/// The length that this part must have; `None`: any. An error if it does not begin where the last one ended.
fn part_length(call: &Call<'_>, taken: &Taken, id: &str) -> Result<Option<u64>, RegistryError> {
    let text = call.header(&header::CONTENT_RANGE);
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |message: String| with_progress(RegistryError::bad_range(message), call, id, taken.length());
    let Range { start, end } =
        content_range(text).ok_or_else(|| wrong("Content-Range must be FIRST-LAST".to_owned()))?;
    if start != taken.length() {
        return Err(wrong(format!("The part begins at {start}, but {} bytes have arrived", taken.length())));
    }
    match call.header(&header::CONTENT_LENGTH) {
        "" => Ok(Some(end - start)),
        length if length.parse() == Ok(end - start) => Ok(Some(end - start)),
        _ => Err(wrong("Content-Length is not the length of Content-Range".to_owned())),
    }
}

fn has_body(call: &Call<'_>) -> bool {
    !matches!(call.header(&header::CONTENT_LENGTH), "" | "0") || call.headers.contains_key(header::TRANSFER_ENCODING)
}

fn upload_path(call: &Call<'_>, id: &str) -> String {
    call.location(&format!("blobs/uploads/{id}"))
}

fn progress(call: &Call<'_>, id: &str, length: u64, status: StatusCode) -> Answer {
    Answer::empty(status)
        .with(header::LOCATION, upload_path(call, id))
        .with(header::RANGE, received(length))
        .with(UPLOAD_ID, id)
}

fn with_progress(error: RegistryError, call: &Call<'_>, id: &str, length: u64) -> RegistryError {
    error.with(header::LOCATION, upload_path(call, id)).with(header::RANGE, received(length)).with(UPLOAD_ID, id)
}

fn stored(call: &Call<'_>, digest: &Digest) -> Answer {
    Answer::empty(StatusCode::CREATED)
        .with(header::LOCATION, call.location(&format!("blobs/{digest}")))
        .with(CONTENT_DIGEST, digest)
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Upload(error) => error.into(),
            StoreError::Ecr(error) => error.into(),
            StoreError::Save(error) => error.into(),
        }
    }
}
