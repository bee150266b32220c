//! Lists: the tags of a repository, the repositories of the registry, and the manifests that refer to another one. Invariant: an answer
//! is bounded, and names the next page if there is more.

use super::answers::{Answer, FILTERS};
use super::call::{Call, digest};
use super::error::RegistryError;
use crate::ecr::manifest::OCI_INDEX;
use crate::ecr::{Action, Digest, Image};
use http::header;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::form_urlencoded::Serializer;

/// Maximum number of entries in one answer.
const MAX_PAGE: usize = 1000;
/// Maximum size of the manifests that one list of referrers is made of, in bytes.
const MAX_MANIFESTS: usize = 4 * 1024 * 1024;

/// GET `/v2/<name>/tags/list`, in the order of the tags' bytes.
pub(super) fn tags(call: &Call<'_>) -> Result<Answer, RegistryError> {
    call.may(Action::LIST_IMAGES)?;
    let (count, last) = page(call)?;
    let (tags, more) = call.shared.read(|state| {
        let repository = state.ecr.repository(call.account(), call.name)?;
        Ok::<_, RegistryError>(limited(repository.tags_after(last), count))
    })?;
    let answer = Answer::json("application/json", &json!({"name": call.name, "tags": tags}));
    Ok(linked(answer, call, &call.location("tags/list"), count, more))
}

/// GET `/v2/_catalog`: the repositories of the registry.
pub(super) fn catalog(call: &Call<'_>) -> Result<Answer, RegistryError> {
    call.caller.may_describe(call.shared)?;
    let (count, last) = page(call)?;
    let (names, more) = call.shared.read(|state| {
        let registry = state.ecr.registry(call.account()).into_iter();
        limited(registry.flat_map(|registry| registry.repositories_after(last)).map(|(name, _)| name), count)
    });
    let answer = Answer::json("application/json", &json!({"repositories": names}));
    Ok(linked(answer, call, "/v2/_catalog", count, more))
}

/// The number of entries, and the entry after which they begin.
fn page<'a>(call: &'a Call<'_>) -> Result<(usize, Option<&'a str>), RegistryError> {
    let count = match call.parameter("n") {
        None => MAX_PAGE,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<usize>().ok().filter(|count| *count <= MAX_PAGE).ok_or_else(RegistryError::bad_page_size)?
        }
        Some(_) => return Err(RegistryError::bad_page_size()),
    };
    Ok((count, call.parameter("last")))
}

/// The first entries, and whether there are more.
fn limited<'a>(mut names: impl Iterator<Item = &'a str>, count: usize) -> (Vec<String>, Option<String>) {
    let taken: Vec<String> = names.by_ref().take(count).map(str::to_owned).collect();
    let more = names.next().and_then(|_| taken.last().cloned());
    (taken, more)
}

/// Names the next page, which begins after `last`; `None`: there is none.
fn linked(answer: Answer, call: &Call<'_>, path: &str, count: usize, last: Option<String>) -> Answer {
    let Some(last) = last else { return answer };
    let mut query = Serializer::new(String::new());
    query.append_pair("last", &last);
    if call.parameter("n").is_some() {
        query.append_pair("n", &count.to_string());
    }
    if let Some(kind) = call.parameter("artifactType") {
        query.append_pair("artifactType", kind);
    }
    answer.with(header::LINK, format!("<{path}?{}>; rel=\"next\"", query.finish()))
}

/// The members of a manifest that a list of referrers repeats.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotated {
    annotations: BTreeMap<String, String>,
}

/// GET `/v2/<name>/referrers/<digest>`: an index of the manifests with that subject, which need not exist.
pub(super) fn referrers(call: &Call<'_>, reference: &str) -> Result<Answer, RegistryError> {
    call.may(Action::BATCH_GET_IMAGE)?;
    let subject = digest(reference)?;
    let after = call.parameter("last").map(digest).transpose()?;
    let kind = call.parameter("artifactType");
    let is_wanted = |image: &&Image| {
        let contents = &image.contents;
        contents.subject == Some(subject) && kind.is_none_or(|kind| contents.artifact_type.as_deref() == Some(kind))
    };
    let (images, has_more) = call.shared.read(|state| {
        let repository = state.ecr.repository(call.account(), call.name)?;
        Ok::<_, RegistryError>(first_page(repository.images_after(after).filter(is_wanted)))
    })?;
    let last: Option<Digest> = images.last().map(|image| image.digest).filter(|_| has_more);
    let descriptors: Vec<Value> = images.iter().map(descriptor).collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors});
    let answer = Answer::json(OCI_INDEX, &index);
    let answer = if kind.is_some() { answer.with(FILTERS, "artifactType") } else { answer };
    let path = call.location(&format!("referrers/{subject}"));
    Ok(linked(answer, call, &path, MAX_PAGE, last.map(|last| last.to_string())))
}

/// As many images as one answer may have, and whether there are more.
fn first_page<'a>(images: impl Iterator<Item = &'a Image>) -> (Vec<Image>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for image in images {
        bytes += image.manifest.len();
        if page.len() >= MAX_PAGE || (bytes > MAX_MANIFESTS && !page.is_empty()) {
            return (page, true);
        }
        page.push(image.clone());
    }
    (page, false)
}

fn descriptor(image: &Image) -> Value {
    let contents = &image.contents;
    let mut descriptor =
        json!({"mediaType": contents.media_type, "digest": image.digest, "size": image.manifest.len()});
    if let Some(kind) = &contents.artifact_type {
        descriptor["artifactType"] = json!(kind);
    }
    // Annotations of another form than the specification's are left out.
    let Annotated { annotations } = serde_json::from_slice(&image.manifest).unwrap_or_default();
    if !annotations.is_empty() {
        descriptor["annotations"] = json!(annotations);
    }
    descriptor
}
