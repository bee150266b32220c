//! The `imageIds` of a call: which images it names, and why one of them is not found.

use super::call::{shown, wrong_form};
use crate::ecr::Digest;
use crate::ecr::error::EcrError;
use crate::ecr::image::Image;
use crate::ecr::names::check_tag;
use crate::ecr::repository::Repository;
use serde_json::{Value, json};

/// Maximum number of images in a request, as in ECR.
const MAX_IDS: usize = 100;

/// An entry of `imageIds`, as the request has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageId {
    pub(super) digest: Option<String>,
    pub(super) tag: Option<String>,
}

/// Why an image is not found: code and text of ECR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) reason: String,
}

/// Reads `imageIds`; `None`: it is missing.
pub(super) fn read_optional(body: &Value) -> Result<Option<Vec<ImageId>>, EcrError> {
    let list = match &body["imageIds"] {
        Value::Null => return Ok(None),
        Value::Array(list) => list,
        _ => return Err(wrong_form("imageIds", "an array")),
    };
    if list.is_empty() || list.len() > MAX_IDS {
        return Err(EcrError::invalid("imageIds", format!("Member must have length 1 to {MAX_IDS}")));
    }
    list.iter().map(ImageId::read).collect::<Result<_, _>>().map(Some)
}

/// Reads `imageIds`, which must be there.
pub(super) fn read(body: &Value) -> Result<Vec<ImageId>, EcrError> {
    read_optional(body)?.ok_or_else(|| EcrError::invalid("imageIds", "Member must not be null"))
}

impl ImageId {
    fn read(id: &Value) -> Result<Self, EcrError> {
        if !id.is_object() {
            return Err(wrong_form("imageIds", "an array of objects with imageDigest, imageTag or both"));
        }
        let text = |member: &str| match &id[member] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(shown(text))),
            _ => Err(wrong_form(&format!("imageIds.{member}"), "a string")),
        };
        Ok(Self { digest: text("imageDigest")?, tag: text("imageTag")? })
    }

    /// The entry, as an answer shows it.
    pub(super) fn show(&self) -> Value {
        show(self.digest.as_deref(), self.tag.as_deref())
    }

    /// The entry, as the text of an error shows it.
    pub(super) fn quoted(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".to_owned());
        format!("{{imageDigest:'{}', imageTag:'{}'}}", part(&self.digest), part(&self.tag))
    }

    /// The entry names the image with this digest and these tags.
    pub(super) fn names(&self, digest: &Digest, tags: &[String]) -> bool {
        self.digest.as_ref().is_none_or(|text| *text == digest.to_string())
            && self.tag.as_ref().is_none_or(|tag| tags.contains(tag))
            && (self.digest.is_some() || self.tag.is_some())
    }

    /// The image in the repository.
    pub(super) fn find<'r>(&self, repository: &'r Repository) -> Result<&'r Image, Failure> {
        let not_found = || Failure::new("ImageNotFound", "Requested image not found");
        let by_tag = match &self.tag {
            None => None,
            Some(tag) => {
                check_tag(tag).map_err(|error| Failure::new("InvalidImageTag", &error.to_string()))?;
                Some(repository.by_tag(tag).ok_or_else(not_found))
            }
        };
        let Some(digest) = &self.digest else {
            let missing = "Invalid request parameters: both tag and digest cannot be null";
            return by_tag.unwrap_or_else(|| Err(Failure::new("MissingDigestAndTag", missing)));
        };
        let digest: Digest = digest.parse().map_err(|error| {
            Failure::new("InvalidImageDigest", &format!("Invalid request parameters: image digest: {error}"))
        })?;
        let image = repository.by_digest(&digest).ok_or_else(not_found)?;
        match by_tag.transpose()? {
            Some(tagged) if tagged.digest != digest => {
                let tag = self.tag.as_deref().unwrap_or_default();
                let reason = format!("Requested tag '{tag}' belongs to the image '{}'", tagged.digest);
                Err(Failure::new("ImageTagDoesNotMatchDigest", &reason))
            }
            _ => Ok(image),
        }
    }
}

impl Failure {
    fn new(code: &'static str, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }

    /// The entry of `failures` for an image.
    pub(super) fn show(&self, id: &ImageId) -> Value {
        json!({"imageId": id.show(), "failureCode": self.code, "failureReason": self.reason})
    }
}

/// An image identifier with the members that are there.
pub(super) fn show(digest: Option<&str>, tag: Option<&str>) -> Value {
    let members = [("imageDigest", digest), ("imageTag", tag)];
    members
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), json!(text?))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
