//! Signature version 4 for requests without an SDK client: the handshake of the websocket, the tags of the instance, and the
//! calls of [`super::json_call`] and [`crate::aws::services::s3`].
//!
//! Owns the headers of one signed request. It sends nothing. The invariant: every header is marked as sensitive, so none is
//! printed.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::SystemTime;
use url::Url;

/// The request to sign.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The time of the signature, from [`super::signing::Signing::call`].
    pub at: SystemTime,
    /// The region in the signature.
    pub region: &'a str,
    /// The service in the signature, e.g. `ecs`.
    pub service: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// The address of the request.
    pub url: &'a Url,
    /// Further headers that the signature covers.
    pub headers: &'a [(&'a str, String)],
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

/// Why a request cannot be signed: a key or another text is not valid in a header.
#[derive(Debug, thiserror::Error)]
#[error("signing: {0}")]
pub struct SigningError(String);

/// Checks the parts of the credentials that become headers.
///
/// # Errors
/// Fails if one of them is not valid in a header. The error names it, but does not contain it.
pub(crate) fn check_keys(access_key_id: &str, session_token: &str) -> Result<(), SigningError> {
    for (name, text) in [("access key id", access_key_id), ("session token", session_token)] {
        if HeaderValue::from_str(text).is_err() {
            let text = format!("the {name} holds a character that no header takes, such as a line break");
            return Err(SigningError(text));
        }
    }
    Ok(())
}

/// The settings of the signature. S3 does not normalise paths, and requires the hash of the body in a header.
fn settings(service: &str) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    settings
}

impl Signed<'_> {
    /// The headers that sign the request.
    ///
    /// # Errors
    /// Fails if the credentials, the URL or a header cannot be part of a request.
    pub fn headers(self, keys: Credentials) -> Result<HeaderMap, SigningError> {
        let failed = |error: &dyn std::error::Error| SigningError(error.to_string());
        check_keys(keys.access_key_id(), keys.session_token().unwrap_or_default())?;
        let identity = keys.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.at)
            .settings(settings(self.service))
            .build()
            .map_err(|error| failed(&error))?;
        let body = SignableBody::Bytes(self.body);
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let request =
            SignableRequest::new(self.method, self.url.as_str(), headers, body).map_err(|error| failed(&error))?;
        let (instructions, _signature) =
            sign(request, &parameters.into()).map_err(|error| failed(&error))?.into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
            let mut value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}
