//! Errors of ECR: codes and texts as AWS writes them. Invariant: a text holds names and numbers of the request, never a secret.

use super::digest::Digest;
use crate::api_error::ApiError;
use std::fmt;

/// A repository of an account, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The account id of the registry.
    pub(crate) account: String,
    /// The repository's name.
    pub(crate) repository: String,
}

/// The reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No policy of the caller allows the action.
    NotAllowedByIdentity,
    /// The repository's policy does not allow the action, or there is none.
    NotAllowedByResource,
    /// A policy of the caller denies the action.
    DeniedByIdentity,
    /// The repository's policy denies the action.
    DeniedByResource,
}

/// An action that a caller may not perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The caller's ARN, or the name of a service.
    pub(crate) principal: String,
    /// The action with its service, such as `ecr:BatchGetImage`.
    pub(crate) action: String,
    /// The ARN of the resource, or `*`.
    pub(crate) resource: String,
    pub(crate) reason: Reason,
}

impl fmt::Display for Denial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, action, resource, reason } = self;
        write!(out, "User: {principal} is not authorized to perform: {action} on resource: {resource} ")?;
        match reason {
            Reason::NotAllowedByIdentity => write!(out, "because no identity-based policy allows the {action} action"),
            Reason::NotAllowedByResource => write!(out, "because no resource-based policy allows the {action} action"),
            Reason::DeniedByIdentity => out.write_str("with an explicit deny in an identity-based policy"),
            Reason::DeniedByResource => out.write_str("with an explicit deny in a resource-based policy"),
        }
    }
}

/// Why ECR refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EcrError {
    /// The caller lacks a permission.
    #[error("{0}")]
    Denied(Denial),
    /// The repository does not exist.
    #[error("The repository with name '{}' does not exist in the registry with id '{}'", .0.repository, .0.account)]
    NoRepository(Place),
    /// The image does not exist; `image` is `{imageDigest:'…', imageTag:'…'}`.
    #[error(
        "The image with imageId {image} does not exist within the repository with name '{}' in the registry with id '{}'",
        .place.repository, .place.account
    )]
    NoImage { place: Place, image: String },
    /// The same image has the same tag already.
    #[error(
        "Image with digest '{digest}' and tag '{}' already exists in the repository with name '{}' in registry with id '{}'",
        .tag.as_deref().unwrap_or("null"), .place.repository, .place.account
    )]
    ImageExists { place: Place, digest: Digest, tag: Option<String> },
    /// The tag may not be moved to another image.
    #[error(
        "The image tag '{tag}' already exists in the '{repository}' repository and cannot be overwritten because the {}.",
        scope(.by_filter)
    )]
    TagExists {
        tag: String,
        repository: String,
        /// A filter of the repository makes this tag immutable, not the repository as a whole.
        by_filter: bool,
    },
    /// The manifest cannot be read, or has a type that no registry stores.
    #[error("Invalid parameter at 'ImageManifest' failed to satisfy constraint: '{0}'")]
    InvalidManifest(String),
    /// The manifest does not have the digest of the request.
    #[error("The digest '{given}' does not match the digest '{computed}' of the image manifest")]
    WrongDigest { given: Digest, computed: Digest },
    /// Layers or the configuration of an image were not pushed to the repository.
    #[error("Layers with digests '[{}]' required for pushing image into repository with name '{}' in the registry with id '{}' do not exist",
        list(.digests), .place.repository, .place.account)]
    NoLayers { place: Place, digests: Vec<Digest> },
    /// Images of an index were not pushed to the repository.
    #[error("Images with digests '[{}]' required for pushing image into repository with name '{}' in the registry with id '{}' do not exist",
        list(.digests), .place.repository, .place.account)]
    NoManifests { place: Place, digests: Vec<Digest> },
    /// An index needs the image, so it cannot be deleted.
    #[error("Requested image referenced by manifest list: [{}]", list(.by))]
    Referenced { digest: Digest, by: Vec<Digest> },
    /// A name or value does not have the right form.
    #[error("Invalid parameter at '{member}' failed to satisfy constraint: '{constraint}'")]
    Invalid {
        /// The member of the request.
        member: &'static str,
        constraint: String,
    },
    /// A bound of this registry is reached.
    #[error("{0}")]
    Limit(String),
    /// The image would come from another registry, by a pull through cache rule.
    #[error("{0}")]
    NoUpstream(String),
    /// Any other error of ECR.
    #[error("{message}")]
    Other { code: &'static str, message: String },
}

/// What is immutable.
fn scope(by_filter: &bool) -> &'static str {
    if *by_filter { "tag is immutable" } else { "repository is immutable" }
}

/// Digests with commas between them.
fn list(digests: &[Digest]) -> String {
    digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
}

impl EcrError {
    /// A member of a request does not have the right form.
    pub(crate) fn invalid(member: &'static str, constraint: impl Into<String>) -> Self {
        Self::Invalid { member, constraint: constraint.into() }
    }

    /// An error with this code of ECR.
    pub(crate) fn other(code: &'static str, message: impl Into<String>) -> Self {
        Self::Other { code, message: message.into() }
    }

    /// The code in the answers of the API.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "AccessDeniedException",
            Self::NoRepository(_) => "RepositoryNotFoundException",
            Self::NoImage { .. } => "ImageNotFoundException",
            Self::ImageExists { .. } => "ImageAlreadyExistsException",
            Self::TagExists { .. } => "ImageTagAlreadyExistsException",
            Self::InvalidManifest(_) | Self::Invalid { .. } | Self::Referenced { .. } => "InvalidParameterException",
            Self::WrongDigest { .. } => "ImageDigestDoesNotMatchException",
            Self::NoLayers { .. } => "LayersNotFoundException",
            Self::NoManifests { .. } => "ReferencedImagesNotFoundException",
            Self::Limit(_) => "LimitExceededException",
            Self::NoUpstream(_) => "UnableToGetUpstreamImageException",
            Self::Other { code, .. } => code,
        }
    }
}

impl From<EcrError> for ApiError {
    fn from(error: EcrError) -> Self {
        Self::new(400, error.code(), error.to_string())
    }
}
