//! Checks signatures (version 4) in the header of a request, or in its query (a presigned address), for any region and service.
//! This module owns the canonical form of a request and the texts of refusal; [`super::keys`] has the secrets. Invariant: a
//! request passes only if its signature was made with the secret of its key, for this method, path, query, these headers and this
//! body, within five minutes of now.

use super::answers::header_text;
use super::api_error::ApiError;
use super::ecr::authorization::NoCaller;
use super::keys::{Keys, Signer, is_equal};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use bytes::Bytes;
use http::Request;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// For S3, this text in place of the body's hash means that the body is not signed.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Maximum difference in seconds between a signature's time and now, as in AWS.
const MAX_SKEW: i64 = 300;
/// The longest validity of a presigned address, in seconds, as in AWS.
const MAX_EXPIRES: i64 = 7 * 24 * 3600;

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The request has no signature.
    Unsigned,
    /// This part of the signature is missing or cannot be read.
    Incomplete(&'static str),
    /// The access key is temporary, but another server made it, or its session token is missing; or its user was removed.
    UnknownKey,
    /// The access key id is the id of an account that does not exist here.
    UnknownAccount(String),
    /// The request was not signed with the secret of its key.
    WrongSignature,
    /// The body is not the one that was signed.
    WrongBody,
    /// The request was signed at this time, which is too long ago or too far ahead.
    WrongTime(String),
}

impl Refused {
    fn message(&self) -> String {
        match self {
            Self::Unsigned => "The request is not signed.".to_owned(),
            Self::Incomplete(part) => format!("The signature is incomplete: {part}."),
            Self::UnknownKey => "The security token included in the request is invalid.".to_owned(),
            Self::UnknownAccount(account) => format!(
                "The access key id is the id of an account, but there is no account {account} here: start ecs-local with --account \
                 {account}."
            ),
            Self::WrongSignature => "The request signature does not match: the secret access key must be the token \
                                     that ecs-local prints when it starts (or that --token gave it), or the one that came \
                                     with the access key id."
                .to_owned(),
            Self::WrongBody => "The body does not have the hash that was signed.".to_owned(),
            Self::WrongTime(time) => format!("Signature expired: {time} is now too far from the time."),
        }
    }

    /// The error of the JSON APIs and of the websocket.
    pub(super) fn error(&self) -> ApiError {
        let code = match self {
            Self::Unsigned => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey | Self::UnknownAccount(_) => "UnrecognizedClientException",
            Self::WrongSignature | Self::WrongBody | Self::WrongTime(_) => "InvalidSignatureException",
        };
        ApiError::new(400, code, self.message())
    }

    /// The error of EC2.
    pub(super) fn ec2_error(&self) -> ApiError {
        match self {
            Self::WrongTime(_) => self.error(),
            _ => ApiError::new(401, "AuthFailure", self.message()),
        }
    }

    /// The error of S3.
    pub(super) fn s3_error(&self) -> ApiError {
        let (status, code) = match self {
            Self::Unsigned => (403, "AccessDenied"),
            Self::Incomplete(_) => (400, "AuthorizationHeaderMalformed"),
            Self::UnknownKey | Self::UnknownAccount(_) => (403, "InvalidAccessKeyId"),
            Self::WrongSignature => (403, "SignatureDoesNotMatch"),
            Self::WrongBody => (400, "XAmzContentSHA256Mismatch"),
            Self::WrongTime(_) => (403, "RequestTimeTooSkewed"),
        };
        ApiError::new(status, code, self.message())
    }
}

/// The signature of a request, as the request states it.
#[derive(Debug, Default)]
struct Claim {
    access_key_id: String,
    date: String,
    region: String,
    service: String,
    /// The time of the signature, as in `20261122T043000Z`.
    time: String,
    signed_headers: String,
    signature: String,
    session_token: String,
    /// The validity of a presigned address, in seconds; `None`: the signature is in the header.
    expires: Option<i64>,
}

impl From<NoCaller> for Refused {
    fn from(nobody: NoCaller) -> Self {
        match nobody {
            NoCaller::UnknownAccount(account) => Self::UnknownAccount(account),
            NoCaller::Removed => Self::UnknownKey,
        }
    }
}

/// The request claims to be signed for this service. The signature itself is not checked.
pub(super) fn is_for(request: &Request<Bytes>, service: &str) -> bool {
    claim(request).is_ok_and(|claim| claim.service == service)
}

/// Checks a request and returns whose key signed it. `now` is the time of this AWS, in seconds since the epoch.
pub(super) fn check(request: &Request<Bytes>, keys: &Keys, now: i64) -> Result<Signer, Refused> {
    let claim = claim(request)?;
    if !claim.signed_headers.split(';').any(|name| name == "host") {
        return Err(Refused::Incomplete("SignedHeaders lacks host"));
    }
    // As in AWS, nobody on the network path may add or change one of these headers.
    let is_signed = |name: &str| claim.signed_headers.split(';').any(|signed| signed == name);
    if request.headers().keys().any(|name| name.as_str().starts_with("x-amz-") && !is_signed(name.as_str())) {
        return Err(Refused::Incomplete("SignedHeaders lacks a header X-Amz-* that was sent"));
    }
    let (secret, signer) = keys.signer(&claim.access_key_id, &claim.session_token).ok_or(Refused::UnknownKey)?;
    let signed = seconds(&claim.time).ok_or(Refused::Incomplete("X-Amz-Date is missing or no time"))?;
    if !claim.time.starts_with(&claim.date) {
        return Err(Refused::Incomplete("the date of Credential is not that of X-Amz-Date"));
    }
    let too_late = signed + claim.expires.map_or(MAX_SKEW, |expires| expires.clamp(0, MAX_EXPIRES));
    if now > too_late || signed > now + MAX_SKEW {
        return Err(Refused::WrongTime(claim.time));
    }
    let hash = payload_hash(request, &claim)?;
    let canonical = format!(
        "{}\n{}\n{}\n{}\n{}\n{hash}",
        request.method(),
        canonical_path(request.uri().path(), &claim.service),
        canonical_query(request.uri().query().unwrap_or_default()),
        canonical_headers(request, &claim.signed_headers),
        claim.signed_headers,
    );
    let scope = format!("{}/{}/{}/aws4_request", claim.date, claim.region, claim.service);
    let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", claim.time, hex_hash(canonical.as_bytes()));
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(signed).unwrap_or_default());
    let key = generate_signing_key(secret.expose(), time, &claim.region, &claim.service);
    match is_equal(&calculate_signature(key, text.as_bytes()), &claim.signature) {
        true => Ok(signer),
        false => Err(Refused::WrongSignature),
    }
}

/// Reads the signature from the header, or else from the query.
fn claim(request: &Request<Bytes>) -> Result<Claim, Refused> {
    let header = header_text(request.headers(), "authorization");
    if let Some(parts) = header.strip_prefix(ALGORITHM) {
        let part = |name: &str| {
            let found = parts.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        let claim = Claim {
            time: header_text(request.headers(), "x-amz-date").to_owned(),
            signed_headers: part("SignedHeaders"),
            signature: part("Signature"),
            session_token: header_text(request.headers(), "x-amz-security-token").to_owned(),
            ..Claim::default()
        };
        return scoped(claim, &part("Credential"));
    }
    let query: Vec<(String, String)> = pairs(request.uri().query().unwrap_or_default()).collect();
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if value("X-Amz-Algorithm").as_deref() != Some(ALGORITHM) {
        return Err(Refused::Unsigned);
    }
    let text = |name: &str| value(name).unwrap_or_default();
    let expires = text("X-Amz-Expires").parse().map_err(|_| Refused::Incomplete("X-Amz-Expires is no number"))?;
    let claim = Claim {
        time: text("X-Amz-Date"),
        signed_headers: text("X-Amz-SignedHeaders"),
        signature: text("X-Amz-Signature"),
        session_token: text("X-Amz-Security-Token"),
        expires: Some(expires),
        ..Claim::default()
    };
    scoped(claim, &text("X-Amz-Credential"))
}

/// Splits `KEY/20261122/us-west-2/ecs/aws4_request` into the claim.
fn scoped(claim: Claim, credential: &str) -> Result<Claim, Refused> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [key, date, region, service, "aws4_request"] = parts[..] else {
        return Err(Refused::Incomplete("Credential is not KEY/DATE/REGION/SERVICE/aws4_request"));
    };
    if key.is_empty() || date.len() != 8 || claim.signature.is_empty() {
        return Err(Refused::Incomplete("a key, a date and a signature are needed"));
    }
    let [access_key_id, date, region, service] = [key, date, region, service].map(str::to_owned);
    Ok(Claim { access_key_id, date, region, service, ..claim })
}

/// The hash of the body, as it was signed.
fn payload_hash(request: &Request<Bytes>, claim: &Claim) -> Result<String, Refused> {
    let hash = hex_hash(request.body());
    let is_s3 = claim.service == "s3";
    match header_text(request.headers(), "x-amz-content-sha256") {
        "" if is_s3 && claim.expires.is_some() => Ok(UNSIGNED_PAYLOAD.to_owned()),
        UNSIGNED_PAYLOAD if is_s3 => Ok(UNSIGNED_PAYLOAD.to_owned()),
        "" => Ok(hash),
        given if given.eq_ignore_ascii_case(&hash) => Ok(given.to_owned()),
        _ => Err(Refused::WrongBody),
    }
}

fn hex_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The path as it was signed: S3 uses it unchanged, other services encode it once more.
fn canonical_path(path: &str, service: &str) -> String {
    match service {
        "s3" => path.to_owned(),
        _ => path.split('/').map(encoded).collect::<Vec<_>>().join("/"),
    }
}

fn canonical_query(query: &str) -> String {
    let pairs = pairs(query).filter(|(name, _)| name != "X-Amz-Signature");
    let mut parts: Vec<(String, String)> = pairs.map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    parts.sort();
    parts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// One line for each signed header, in the order of the list, which clients sort.
fn canonical_headers(request: &Request<Bytes>, names: &str) -> String {
    names.split(';').fold(String::new(), |mut lines, name| {
        let values = request.headers().get_all(name).iter().map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        let _ = writeln!(lines, "{name}:{}", values.collect::<Vec<_>>().join(","));
        lines
    })
}

/// Percent-encodes all but letters, digits and `-._~`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

/// Parses `20261122T043000Z`; in seconds since the epoch.
fn seconds(text: &str) -> Option<i64> {
    let is_shaped = text.len() == 16 && text.is_ascii() && text.as_bytes()[8] == b'T' && text.ends_with('Z');
    let (date, time) = is_shaped.then(|| (&text[..8], &text[9..15]))?;
    let iso = format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]);
    let parsed = aws_smithy_types::DateTime::from_str(&iso, aws_smithy_types::date_time::Format::DateTime);
    parsed.ok().map(|time| time.secs())
}

#[cfg(test)]
mod tests;
