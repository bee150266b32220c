//! Requests for manifests: reading, pushing and deleting, by tag or by digest.

use super::answers::{Answer, CONTENT_DIGEST, SUBJECT};
use super::call::{Call, digest};
use super::error::RegistryError;
use super::manifests::read_image;
use crate::bodies::{Broken, RequestBody};
use crate::ecr::manifest::MAX_MANIFEST;
use crate::ecr::names::check_tag;
use crate::ecr::{Action, EcrError, Image, NewImage};
use crate::shared::Shared;
use axum::body::Body;
use http::{HeaderMap, StatusCode, header};
use std::sync::Arc;

/// GET and HEAD.
pub(super) async fn get(call: &Call<'_>, reference: &str, has_body: bool) -> Result<Answer, RegistryError> {
    pull_through(call, reference).await?;
    call.may(Action::BATCH_GET_IMAGE)?;
    check_reference(reference)?;
    let image = call.shared.change_if(|state| {
        let time = state.ecr_time();
        let image = state.ecr.image(call.account(), call.name, reference).cloned();
        if let (Ok(image), true) = (&image, has_body) {
            state.ecr.note_pull(call.account(), call.name, &image.digest, time);
        }
        (image, false)
    })?;
    let kind = image.contents.media_type;
    if !accepts(call.headers, kind) {
        let message = format!("The image has a manifest of type {kind}, which the request does not accept");
        return Err(RegistryError::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message));
    }
    let length = image.manifest.len();
    let body = if has_body { Body::from(image.manifest) } else { Body::empty() };
    Ok(Answer::new(StatusCode::OK, body)
        .with(header::CONTENT_TYPE, kind)
        .with(header::CONTENT_LENGTH, length)
        .with(header::ETAG, format!("\"{}\"", image.digest))
        .with(CONTENT_DIGEST, image.digest))
}

/// Takes the image from another registry, if a pull through cache rule says so, and waits until it is on disk.
async fn pull_through(call: &Call<'_>, reference: &str) -> Result<(), RegistryError> {
    if check_reference(reference).is_err() {
        return Ok(()); // Whoever may pull learns what is wrong.
    }
    let taken = call.shared.change_if(|state| {
        let taken = call.caller.pull_through(state, call.name, reference);
        let is_changed = matches!(taken, Ok(true));
        (taken.map(|_| is_changed.then(|| state.ecr.revision())), is_changed)
    })?;
    match taken {
        Some(revision) => Ok(call.shared.storage.saves.settled(revision).await?),
        None => Ok(()),
    }
}

/// PUT: the body is the manifest, with any layout of its JSON.
pub(super) async fn put(call: &Call<'_>, reference: &str, body: &mut RequestBody) -> Result<Answer, RegistryError> {
    call.may(Action::PUT_IMAGE)?;
    let is_digest = check_reference(reference)?;
    let read = body.whole(MAX_MANIFEST, &call.shared.large_bodies).await;
    let (manifest, _turn) = read.map_err(|broken| match broken {
        Broken::TooLong => {
            let message = format!("A manifest has at most {MAX_MANIFEST} bytes");
            RegistryError::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
        }
        Broken::Cut | Broken::TimedOut => RegistryError::from(broken),
    })?;
    let kind = call.header(&header::CONTENT_TYPE);
    let kind = (!kind.is_empty()).then(|| kind.to_owned());
    let tag = (!is_digest).then(|| reference.to_owned());
    let wanted = if is_digest { Some(digest(reference)?) } else { None };
    let new = read_image(manifest, kind, tag, wanted).await?;
    let task = store(Arc::clone(call.shared), call.account().to_owned(), call.name.to_owned(), new);
    let stored = call.shared.storage.tasks.spawn(task).await;
    let image = stored.map_err(|_| RegistryError::internal("The manifest could not be stored"))??;
    let answer = Answer::empty(StatusCode::CREATED)
        .with(header::LOCATION, call.location(&format!("manifests/{reference}")))
        .with(CONTENT_DIGEST, image.digest);
    Ok(match image.contents.subject {
        Some(subject) => answer.with(SUBJECT, subject),
        None => answer,
    })
}

/// Stores a manifest, and waits until it is on disk. This is done to its end, also if the client goes away.
async fn store(
    shared: Arc<Shared>,
    account: String,
    repository: String,
    new: NewImage,
) -> Result<Image, RegistryError> {
    let (image, revision) = shared.change(|state| {
        let time = state.ecr_time();
        let digest = match state.ecr.put_image(&account, &repository, &new, time) {
            // A push may be repeated.
            Err(EcrError::ImageExists { digest, .. }) => digest,
            stored => stored?,
        };
        let image = state.ecr.image(&account, &repository, &digest.to_string())?.clone();
        Ok::<_, EcrError>((image, state.ecr.revision()))
    })?;
    shared.storage.saves.settled(revision).await?;
    Ok(image)
}

/// DELETE: by digest the image with all its tags, by tag only that tag. As in ECR, an image leaves with its last tag.
pub(super) async fn delete(call: &Call<'_>, reference: &str) -> Result<Answer, RegistryError> {
    call.may(Action::BATCH_DELETE_IMAGE)?;
    check_reference(reference)?;
    let (shared, account, repository) = (Arc::clone(call.shared), call.account().to_owned(), call.name.to_owned());
    let reference = reference.to_owned();
    let task = async move {
        let revision = shared.change(|state| {
            let time = state.ecr_time();
            match reference.parse() {
                Ok(digest) => state.ecr.delete_image(&account, &repository, &digest, time).map(|_image| ())?,
                Err(_) => state.ecr.delete_tag(&account, &repository, &reference, time).map(|_digest| ())?,
            }
            Ok::<_, EcrError>(state.ecr.revision())
        })?;
        Ok::<_, RegistryError>(shared.storage.saves.settled(revision).await?)
    };
    let removed = call.shared.storage.tasks.spawn(task).await;
    removed.map_err(|_| RegistryError::internal("The image could not be removed"))??;
    Ok(Answer::empty(StatusCode::ACCEPTED))
}

/// Checks a reference. Returns whether it is a digest; otherwise it is a tag.
fn check_reference(reference: &str) -> Result<bool, RegistryError> {
    if reference.contains(':') {
        return digest(reference).map(|_| true);
    }
    check_tag(reference)?;
    Ok(false)
}

/// The request accepts this media type. Without the header, everything is accepted.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if values.peek().is_none() {
        return true;
    }
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !is_refused && (name.eq_ignore_ascii_case(kind) || name == "*/*" || name == "application/*")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_accepted_unless_others_are_named() {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let list = "application/vnd.oci.image.index.v1+json";
        for (values, wanted) in [
            (vec![], true),
            (vec![kind], true),
            (vec![list], false),
            (vec![list, kind], true),
            (vec!["text/html, application/vnd.oci.image.manifest.v1+json;q=0.5"], true),
            (vec!["application/vnd.oci.image.manifest.v1+json; q=0"], false),
            (vec!["*/*"], true),
            (vec!["application/*;q=0.1"], true),
            (vec![""], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(accepts(&headers, kind), wanted, "{values:?}");
        }
    }

    #[test]
    fn a_reference_is_a_tag_or_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(check_reference(&digest).unwrap() && !check_reference("latest").unwrap());
        assert_eq!(check_reference("sha256:0").unwrap_err().parts().1, "DIGEST_INVALID");
        assert_eq!(check_reference("..").unwrap_err().parts().1, "TAG_INVALID");
    }
}
