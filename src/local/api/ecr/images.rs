//! Calls about images.

use super::call::{Call, Filter, Paging, Target, required, text, texts, with};
use super::identifiers::{self, Failure, ImageId};
use crate::api::request::Answer;
use crate::ecr::error::{EcrError, Place};
use crate::ecr::image::{Image, NewImage};
use crate::ecr::{Action, Digest};
use bytes::Bytes;
use serde_json::{Value, json};

/// The usual number of images of a page, and the largest one.
const USUAL_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Maximum size of the manifests of an answer, in bytes: it is built in memory.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Maximum number of media types in a request, as in ECR.
const MAX_MEDIA_TYPES: usize = 100;

/// The failure of an image that an index needs.
const NEEDED: &str = "ImageReferencedByManifestList";

/// ListImages: an entry for each tag, and one for each image without tags.
pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::LIST_IMAGES)?;
    let (paging, filter) = (Paging::read(call.body, USUAL_PAGE, MAX_PAGE)?, Filter::read(call.body)?);
    let repository = call.state.ecr.repository(&target.account, &target.name)?;
    let images = repository.images_from(paging.after_digest()).filter(|image| filter.passes(!image.tags.is_empty()));
    let entries = images.flat_map(|image| {
        let digest = image.digest.to_string();
        let untagged = image.tags.is_empty().then_some(None);
        let tags = untagged.into_iter().chain(image.tags.iter().map(Some));
        let entry = move |tag: Option<&String>| {
            let tag = tag.map(String::as_str);
            (format!("{digest} {}", tag.unwrap_or_default()), identifiers::show(Some(&digest), tag))
        };
        tags.map(entry).collect::<Vec<_>>()
    });
    let (page, token) = paging.page(entries);
    Ok(with(json!({"imageIds": page}), json!({"nextToken": token})))
}

/// DescribeImages.
pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::DESCRIBE_IMAGES)?;
    let filter = Filter::read(call.body)?;
    let Some(ids) = identifiers::read_optional(call.body)? else {
        let paging = Paging::read(call.body, USUAL_PAGE, MAX_PAGE)?;
        let repository = call.state.ecr.repository(&target.account, &target.name)?;
        let images = repository.images_after(paging.after_digest());
        let images = images.filter(|image| filter.passes(!image.tags.is_empty()));
        let (page, token) = paging.page(images.map(|image| (image.digest.to_string(), image)));
        let details: Vec<Value> = page.into_iter().map(|image| show_details(&target, image)).collect();
        return Ok(with(json!({"imageDetails": details}), json!({"nextToken": token})));
    };
    Paging::refuse(call.body, "imageIds")?;
    let repository = call.state.ecr.repository(&target.account, &target.name)?;
    let mut found: Vec<&Image> = Vec::new();
    for id in ids {
        let image = id.find(repository).map_err(|failure| described(&target, &id, &failure))?;
        if filter.passes(!image.tags.is_empty()) && !found.iter().any(|known| known.digest == image.digest) {
            found.push(image);
        }
    }
    Ok(json!({"imageDetails": found.into_iter().map(|image| show_details(&target, image)).collect::<Vec<_>>()}))
}

/// The error of DescribeImages for an image that is not found.
fn described(target: &Target, id: &ImageId, failure: &Failure) -> EcrError {
    match failure.code {
        "ImageNotFound" => {
            let place = Place { account: target.account.clone(), repository: target.name.clone() };
            EcrError::NoImage { place, image: id.quoted() }
        }
        _ => EcrError::other("InvalidParameterException", failure.reason.clone()),
    }
}

/// BatchGetImage.
pub(super) fn batch_get(call: &mut Call<'_>) -> Answer {
    pull_through(call)?;
    let target = call.target(Action::BATCH_GET_IMAGE)?;
    let ids = identifiers::read(call.body)?;
    let accepted = texts(call.body, "acceptedMediaTypes", MAX_MEDIA_TYPES)?;
    let repository = call.state.ecr.repository(&target.account, &target.name)?;
    let (mut images, mut failures, mut pulled) = (Vec::new(), Vec::new(), Vec::new());
    let mut size = 0;
    for (at, id) in ids.iter().enumerate() {
        // As in ECR, an image that is named twice comes once.
        if ids[..at].contains(id) {
            continue;
        }
        match id.find(repository) {
            Err(failure) => failures.push(failure.show(id)),
            Ok(image) if !accepted.is_empty() && !accepted.contains(&image.contents.media_type) => {
                let reason = format!(
                    "Requested image not found: its media type is {}, which acceptedMediaTypes does not have",
                    image.contents.media_type
                );
                failures.push(Failure { code: "ImageNotFound", reason }.show(id));
            }
            Ok(image) => {
                size += image.manifest.len();
                if size > MAX_ANSWER {
                    let message =
                        format!("The manifests of one answer have at most {MAX_ANSWER} bytes: ask for fewer images");
                    return Err(EcrError::Limit(message).into());
                }
                images.push(show_image(&target, image, id.tag.as_deref()));
                pulled.push(image.digest);
            }
        }
    }
    for digest in pulled {
        call.state.ecr.note_pull(&target.account, &target.name, &digest, call.now);
    }
    Ok(json!({"images": images, "failures": failures}))
}

/// Takes images from another registry, if a pull through cache rule says so. One that is not there either is a failure of the call,
/// unless the repository has images already.
fn pull_through(call: &mut Call<'_>) -> Result<(), EcrError> {
    let Target { account, name } = call.named()?;
    let place = Place { account, repository: name };
    // The call checks them after the permission.
    for id in identifiers::read(call.body).unwrap_or_default() {
        let reference = id.digest.as_ref().or(id.tag.as_ref()).map(String::as_str).unwrap_or_default();
        let taken = call.state.pull_through(call.caller, &place, reference);
        if call.state.ecr.repository(&place.account, &place.repository).is_err() {
            taken?;
        }
    }
    Ok(())
}

/// BatchDeleteImage. A request may name an index and the images that it needs in any order.
pub(super) fn batch_delete(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::BATCH_DELETE_IMAGE)?;
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    let mut ids = identifiers::read(call.body)?;
    loop {
        let (mut needed, before) = (Vec::new(), deleted.len());
        for id in ids {
            match delete(call, &target, &id) {
                Ok(gone) => deleted.extend(gone),
                Err(failure) if failure.code == NEEDED => needed.push((id, failure)),
                Err(failure) => failures.push(failure.show(&id)),
            }
        }
        if needed.is_empty() || deleted.len() == before {
            failures.extend(needed.iter().map(|(id, failure)| failure.show(id)));
            return Ok(json!({"imageIds": deleted, "failures": failures}));
        }
        ids = needed.into_iter().map(|(id, _)| id).collect();
    }
}

/// Deletes a tag, or an image with all its tags. Returns what has left.
fn delete(call: &mut Call<'_>, target: &Target, id: &ImageId) -> Result<Vec<Value>, Failure> {
    let refused = |error: EcrError| match error {
        EcrError::Referenced { .. } => Failure { code: NEEDED, reason: error.to_string() },
        _ => Failure { code: "ImageNotFound", reason: "Requested image not found".to_owned() },
    };
    let Target { account, name } = target;
    let ecr = &mut call.state.ecr;
    let digest = id.find(ecr.repository(account, name).map_err(refused)?)?.digest;
    let shown = digest.to_string();
    if let Some(tag) = &id.tag {
        ecr.delete_tag(account, name, tag, call.now).map_err(refused)?;
        return Ok(vec![identifiers::show(Some(&shown), Some(tag))]);
    }
    let gone = ecr.delete_image(account, name, &digest, call.now).map_err(refused)?;
    match gone.tags.is_empty() {
        true => Ok(vec![identifiers::show(Some(&shown), None)]),
        false => Ok(gone.tags.iter().map(|tag| identifiers::show(Some(&shown), Some(tag))).collect()),
    }
}

/// PutImage, in one step.
pub(super) fn put(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::PUT_IMAGE)?;
    let NewManifest { manifest, media_type, tag, digest } = NewManifest::read(call.body)?;
    let new = NewImage::read(manifest, media_type.as_deref(), tag, digest)?;
    store(call, &target, &new)
}

/// The members of a PutImage request. The manifest itself is not read yet.
pub(super) struct NewManifest {
    pub(super) manifest: Bytes,
    pub(super) media_type: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<Digest>,
}

impl NewManifest {
    pub(super) fn read(body: &Value) -> Result<Self, EcrError> {
        let digest = match text(body, "imageDigest")? {
            None => None,
            Some(digest) => {
                let parsed: Result<Digest, _> = digest.parse();
                Some(parsed.map_err(|error| EcrError::invalid("imageDigest", error.to_string()))?)
            }
        };
        Ok(Self {
            manifest: Bytes::copy_from_slice(required(body, "imageManifest")?.as_bytes()),
            media_type: text(body, "imageManifestMediaType")?.map(str::to_owned),
            tag: text(body, "imageTag")?.map(str::to_owned),
            digest,
        })
    }
}

/// Stores the image of a PutImage request.
pub(super) fn store(call: &mut Call<'_>, target: &Target, new: &NewImage) -> Answer {
    let digest = call.state.ecr.put_image(&target.account, &target.name, new, call.now)?;
    let image = call.state.ecr.repository(&target.account, &target.name)?.image(&digest.to_string())?;
    Ok(json!({"image": show_image(target, image, new.tag.as_deref())}))
}

/// An image with its manifest. `tag` is the one that the request names.
fn show_image(target: &Target, image: &Image, tag: Option<&str>) -> Value {
    let answer = json!({
        "imageId": identifiers::show(Some(&image.digest.to_string()), tag),
        "imageManifest": String::from_utf8_lossy(&image.manifest),
        "imageManifestMediaType": image.contents.media_type,
    });
    with(target.show(), answer)
}

fn show_details(target: &Target, image: &Image) -> Value {
    let tags: Vec<&String> = image.tags.iter().collect();
    let answer = json!({
        "imageDigest": image.digest,
        "imageTags": (!tags.is_empty()).then_some(tags),
        "imageSizeInBytes": image.size,
        "imagePushedAt": image.pushed_at,
        "imageManifestMediaType": image.contents.media_type,
        "artifactMediaType": image.contents.artifact_type,
        "lastRecordedPullTime": image.pulled_at,
        "subjectManifestDigest": image.contents.subject,
        "imageStatus": "ACTIVE",
    });
    with(target.show(), answer)
}
