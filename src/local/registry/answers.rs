//! Answers of the registry that are no errors.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// The digest of what an answer is about.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The id of an upload.
pub(super) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// The subject of a manifest that was pushed: the registry lists it as a referrer.
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// The filters that a list of referrers obeys.
pub(super) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// An answer that is being made.
pub(super) struct Answer(Response<Body>);

impl Answer {
    /// An answer without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, Body::empty())
    }

    pub(super) fn new(status: StatusCode, body: Body) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Self(response)
    }

    /// JSON of this media type.
    pub(super) fn json(kind: &'static str, body: &Value) -> Self {
        Self::new(StatusCode::OK, Body::from(body.to_string())).with(header::CONTENT_TYPE, kind)
    }

    /// Adds a header. A value that cannot be one is left out.
    pub(super) fn with(mut self, name: HeaderName, value: impl ToString) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        self.0
    }
}
