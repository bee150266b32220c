//! Signatures (SigV4) of requests that no SDK crate makes: websocket handshakes, and the calls of [`super::json_call`].
//!
//! Owns the headers a signature consists of. It sends nothing. The invariant: what it returns is marked as sensitive, so that no
//! debug print of a request shows it.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::SystemTime;
use url::Url;

/// The request cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("signing: {0}")]
pub(crate) struct SigningError(String);

/// What is signed, as whom, and for which service.
#[derive(Debug)]
pub(crate) struct Signing<'a> {
    /// Region in the signature.
    pub(crate) region: &'a str,
    /// Name of the service in the signature.
    pub(crate) service: &'a str,
    /// Whose keys.
    pub(crate) keys: Credentials,
}

impl Signing<'_> {
    /// The headers to add to a request that has these and this body.
    pub(crate) fn headers(
        self,
        method: &str,
        url: &Url,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> Result<HeaderMap, SigningError> {
        let failed = |error: &dyn std::error::Error| SigningError(error.to_string());
        let identity = self.keys.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(&error))?;
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let request = SignableRequest::new(method, url.as_str(), headers, SignableBody::Bytes(body))
            .map_err(|error| failed(&error))?;
        let (instructions, _signature) =
            sign(request, &parameters.into()).map_err(|error| failed(&error))?.into_parts();
        let mut signed = HeaderMap::new();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
            let mut value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            signed.insert(name, value);
        }
        Ok(signed)
    }
}
