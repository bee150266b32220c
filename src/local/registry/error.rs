//! Errors in the registry's JSON form. This module owns the codes and their HTTP statuses; ECR's texts come from [`crate::ecr`].
//!
//! Docker prints the message of an error below 500 only, and does not repeat a push after `DENIED`. So a full disk is 413 `DENIED`.

use super::blobs::UploadError;
use super::saves::{SaveError, is_final};
use super::uploads::{MAX_UPLOADS, Unavailable};
use crate::bodies::Broken;
use crate::ecr::EcrError;
use axum::body::Body;
use ecs_core::model::text::without_numbers;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use std::borrow::Cow;

/// The version that every answer of a registry names.
const VERSION_HEADER: &str = "docker-distribution-api-version";

/// An error answer.
#[derive(Debug)]
pub(super) struct RegistryError {
    status: StatusCode,
    code: Cow<'static, str>,
    /// Without numbers of the operating system.
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl RegistryError {
    pub(super) fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let message = without_numbers(&message.into()).into_owned();
        Self { status, code: code.into(), message, headers: Vec::new() }
    }

    /// Adds a header to the answer.
    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The client must log in.
    pub(super) fn unauthorized(realm: &str, message: &str) -> Self {
        let challenge = format!("Basic realm=\"{realm}\",service=\"ecr.amazonaws.com\"");
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message).with(header::WWW_AUTHENTICATE, challenge)
    }

    /// The client may not do this.
    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub(super) fn bad_digest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(super) fn no_blob(digest: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("The repository has no layer {digest}"))
    }

    pub(super) fn bad_upload(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    /// A part of an upload does not begin where the last one ended, or has another length than it says.
    pub(super) fn bad_range(message: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
    }

    pub(super) fn bad_page_size() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "n must be a whole number from 0 to 1000")
    }

    /// The server could not do it, and the client may try again.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
    }

    /// The bytes cannot be stored, and will not be if the client tries again.
    pub(super) fn not_stored(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "DENIED", message)
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (u16, &str, &str) {
        (self.status.as_u16(), &self.code, &self.message)
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let body = json!({"errors": [{"code": self.code, "message": self.message}]}).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Adds what every answer of a registry has.
pub(super) fn add_version(response: &mut Response<Body>) {
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static("registry/2.0"));
}

impl From<EcrError> for RegistryError {
    fn from(error: EcrError) -> Self {
        let (status, code) = match &error {
            EcrError::Denied(_) | EcrError::Limit(_) => (StatusCode::FORBIDDEN, "DENIED"),
            EcrError::NoRepository(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            EcrError::NoImage { .. } | EcrError::NoUpstream(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            EcrError::TagExists { .. } => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            EcrError::NoLayers { .. } | EcrError::NoManifests { .. } => {
                (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN")
            }
            EcrError::WrongDigest { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            EcrError::InvalidManifest(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            EcrError::Invalid { member: "imageTag", .. } => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            EcrError::Invalid { member: "repositoryName", .. } => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            EcrError::Referenced { .. } => (StatusCode::CONFLICT, "DENIED"),
            EcrError::Invalid { .. } | EcrError::ImageExists { .. } | EcrError::Other { .. } => {
                (StatusCode::BAD_REQUEST, "UNSUPPORTED")
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<Unavailable> for RegistryError {
    fn from(reason: Unavailable) -> Self {
        match reason {
            Unavailable::Unknown => {
                let message = "There is no such upload in this repository: begin again";
                Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
            }
            Unavailable::Busy => Self::bad_upload("Another request writes to this upload"),
            Unavailable::TooMany => {
                let message = format!("There are {MAX_UPLOADS} uploads in this registry already");
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
            }
        }
    }
}

impl From<Broken> for RegistryError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Cut => Self::bad_upload("The body ended early"),
            Broken::TimedOut => Self::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "The body took too long"),
            Broken::TooLong => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", "The body is too long"),
        }
    }
}

impl From<SaveError> for RegistryError {
    fn from(error: SaveError) -> Self {
        if error.is_final { Self::not_stored(error.to_string()) } else { Self::internal(error.to_string()) }
    }
}

impl From<UploadError> for RegistryError {
    fn from(error: UploadError) -> Self {
        match &error {
            UploadError::WrongDigest(_) => Self::bad_digest(error.to_string()),
            UploadError::File(cause) if !is_final(cause) => Self::internal(error.to_string()),
            UploadError::TooLarge(_) | UploadError::MemoryFull | UploadError::File(_) => {
                Self::not_stored(error.to_string())
            }
            UploadError::Stopped => Self::internal(error.to_string()),
        }
    }
}
