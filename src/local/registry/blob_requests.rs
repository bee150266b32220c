//! Requests for a layer or a configuration: its size, its bytes, a range of them.

use super::answers::{Answer, CONTENT_DIGEST};
use super::call::{Call, digest};
use super::error::RegistryError;
use super::range::{Requested, requested};
use crate::answers::header_text;
use crate::ecr::{Action, Digest};
use crate::shared::Shared;
use axum::body::Body;
use http::{HeaderMap, HeaderName, StatusCode, header};
use std::ops::Range;

/// The media type of all blobs. The manifest knows better.
const BYTES: &str = "application/octet-stream";

/// HEAD: a client that pushes asks whether the layer is there already. Some clients ask before they pull, too: whoever may have
/// the bytes may know that they are there.
pub(super) fn head(call: &Call<'_>, reference: &str) -> Result<Answer, RegistryError> {
    let is_pull = call.is_permitted(Action::GET_DOWNLOAD_URL_FOR_LAYER)
        && !call.is_permitted(Action::BATCH_CHECK_LAYER_AVAILABILITY);
    call.may(if is_pull { Action::GET_DOWNLOAD_URL_FOR_LAYER } else { Action::BATCH_CHECK_LAYER_AVAILABILITY })?;
    let digest = digest(reference)?;
    let size = size(call, &digest)?;
    // A push that finds the layer here does not send it, so it must stay until the manifest comes.
    call.shared.change_if(|state| {
        let time = state.ecr_time();
        (state.ecr.note_layer(call.account(), call.name, &digest, time), false)
    });
    Ok(described(Answer::empty(StatusCode::OK), &digest).with(header::CONTENT_LENGTH, size))
}

/// GET: the bytes. Like ECR's, a pull does not need BatchCheckLayerAvailability, although many policies grant it.
pub(super) async fn get(call: &Call<'_>, reference: &str) -> Result<Answer, RegistryError> {
    call.may(Action::GET_DOWNLOAD_URL_FOR_LAYER)?;
    let digest = digest(reference)?;
    size(call, &digest)?;
    bytes(call.shared, &digest, call.headers).await
}

/// GET of an address that ECR has signed for a layer of the repository: whoever has the address may have the layer.
pub(super) async fn get_signed(
    shared: &Shared,
    account: &str,
    name: &str,
    reference: &str,
    headers: &HeaderMap,
) -> Result<Answer, RegistryError> {
    let digest = digest(reference)?;
    let size = shared.read(|state| state.ecr.layer(account, name, &digest));
    size.ok_or_else(|| RegistryError::no_blob(reference))?;
    bytes(shared, &digest, headers).await
}

/// The bytes of a layer, or a range of them.
async fn bytes(shared: &Shared, digest: &Digest, headers: &HeaderMap) -> Result<Answer, RegistryError> {
    let read = shared.storage.blobs.read(digest).await;
    let read = read.map_err(|error| RegistryError::internal(format!("The layer cannot be read: {error}")))?;
    let reading = read.ok_or_else(|| RegistryError::no_blob(&digest.to_string()))?;
    let size = reading.size;
    let header = |name: &HeaderName| header_text(headers, name.as_str());
    let is_same = [String::new(), etag(digest)].iter().any(|tag| tag == header(&header::IF_RANGE));
    let range = if is_same { requested(header(&header::RANGE), size) } else { Requested::All };
    let body = |range: Range<u64>| Body::from_stream(reading.stream(range));
    let answer = match range {
        Requested::All => Answer::new(StatusCode::OK, body(0..size)).with(header::CONTENT_LENGTH, size),
        Requested::Bytes(range) => {
            let (length, span) = (range.end - range.start, format!("bytes {}-{}/{size}", range.start, range.end - 1));
            Answer::new(StatusCode::PARTIAL_CONTENT, body(range))
                .with(header::CONTENT_LENGTH, length)
                .with(header::CONTENT_RANGE, span)
        }
        Requested::OutOfRange => {
            let message = format!("The layer has {size} bytes");
            let error = RegistryError::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", message);
            return Err(error.with(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    Ok(described(answer, digest))
}

/// The size of a layer of the repository.
fn size(call: &Call<'_>, digest: &Digest) -> Result<u64, RegistryError> {
    let size = call.shared.read(|state| state.ecr.layer(call.account(), call.name, digest));
    size.ok_or_else(|| RegistryError::no_blob(&digest.to_string()))
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn described(answer: Answer, digest: &Digest) -> Answer {
    answer
        .with(header::CONTENT_TYPE, BYTES)
        .with(header::ACCEPT_RANGES, "bytes")
        .with(header::ETAG, etag(digest))
        .with(CONTENT_DIGEST, digest)
}
