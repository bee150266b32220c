//! Reads objects in S3: environment files and configuration files of log routers (spec `resources.md` §5).
//!
//! Owns the address of an object, the region of its bucket, the signed GET and the text of a failure. It caches and stores
//! nothing. The invariant: a request goes to the endpoint of S3 and to no other host, whatever the names of bucket and key.

use crate::aws::client::attempts::{self, Numbered};
use crate::aws::client::call_error::CallError;
use crate::aws::client::sdk::{Endpoint, Sdk, Settings};
use crate::aws::client::signature::Signed;
use crate::aws::client::signing;
use crate::aws::identity::credentials;
use crate::aws::identity::roles::RoleCredentials;
use aws_credential_types::Credentials;
use aws_smithy_xml::decode::{Document, try_data};
use ecs_core::model::text::cleaned;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use url::{Host, Url};
use zeroize::Zeroizing;

/// Maximum size of an object in bytes: the Go agent requests parts of this size, and no environment file comes near it.
pub const MAX_OBJECT: usize = 5 * 1024 * 1024;
/// Time limit for one download with all attempts, as in the Go agent.
const DOWNLOAD: Duration = Duration::from_secs(30);
/// Time limit for the head of one answer, as in the Go agent.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Maximum number of bytes that are read of an error answer.
const MAX_ERROR: usize = 64 * 1024;
/// The regions in which S3 has FIPS endpoints.
const FIPS_REGIONS: [&str; 8] =
    ["us-east-1", "us-east-2", "us-west-1", "us-west-2", "us-gov-east-1", "us-gov-west-1", "ca-central-1", "ca-west-1"];
/// The errors of GetObject that the SDK has a type for.
const MODELLED: [&str; 2] = ["InvalidObjectState", "NoSuchKey"];

/// An object in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// The name of the bucket.
    pub bucket: &'a str,
    /// The key of the object.
    pub key: &'a str,
}

impl<'a> Object<'a> {
    /// Parses `arn:<partition>:s3:::<bucket>/<key>`.
    ///
    /// # Errors
    /// Fails if the text has another form. The error has the text of the Go agent.
    pub fn parse(arn: &'a str) -> Result<Self, String> {
        let rest = arn.strip_prefix("arn:").and_then(|rest| rest.split_once(":s3:::"));
        let object = rest.filter(|(partition, _)| !partition.is_empty() && !partition.contains(':'));
        match object.and_then(|(_, object)| object.split_once('/')) {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok(Self { bucket, key }),
            _ => Err(format!("invalid s3 arn: {arn}")),
        }
    }
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The region of the bucket could not be found out.
    #[error("{text}")]
    Bucket {
        /// The error text for the customer.
        text: String,
        /// True: a retry may succeed.
        may_pass: bool,
    },
    /// The object could not be read.
    #[error("{text}")]
    Object {
        /// The error text for the customer.
        text: String,
        /// True: a retry may succeed.
        may_pass: bool,
    },
}

/// An answer of S3.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Reads an object of at most [`MAX_OBJECT`] bytes with the task's execution role.
///
/// # Errors
/// Fails if the key has a part `.` or `..`, if the bucket's region is unknown, or if the object cannot be read or is too large.
/// The error contains nothing of the object's content.
pub async fn get(sdk: &Sdk, object: &Object<'_>, role: &RoleCredentials) -> Result<Zeroizing<Vec<u8>>, ObjectError> {
    // A URL cannot express these keys: it would name another object, or none.
    if object.key.split('/').any(|part| matches!(part, "." | "..")) {
        let Object { bucket, key } = object;
        let text = format!("invalid path: bucket \"{bucket}\" key \"{key}\" has a part . or ..");
        return Err(ObjectError::Object { text, may_pass: false });
    }
    let late = || {
        let Object { bucket, .. } = object;
        CallError::NoAnswer(format!("bucket {bucket}: the object was not complete within {} s", DOWNLOAD.as_secs()))
    };
    let read = timeout(DOWNLOAD, async {
        let region = bucket_region(sdk, object.bucket).await?;
        download(sdk, object, &region, role).await.map_err(|error| object_error(&error))
    });
    read.await.unwrap_or_else(|_| Err(object_error(&late())))
}

fn object_error(error: &CallError) -> ObjectError {
    ObjectError::Object { text: error.sdk_text("S3: GetObject", &MODELLED), may_pass: error.is_retryable() }
}

/// The region of a bucket. S3 returns it for every HEAD request, whatever the status.
async fn bucket_region(sdk: &Sdk, bucket: &str) -> Result<String, ObjectError> {
    let own = sdk.region_or_own("");
    let failed = |error: &CallError| ObjectError::Bucket {
        text: error.sdk_text("S3: HeadBucket", &[]),
        may_pass: error.is_retryable(),
    };
    let url = address(sdk, own, &Object { bucket, key: "" }).await.map_err(|error| failed(&error))?;
    let request = Request { sdk, url, region: own, keys: None, headers: Vec::new(), method: Method::HEAD };
    let answer = request.answer(|answer| !answer.status.is_server_error()).await.map_err(|error| failed(&error))?;
    match answer.header("x-amz-bucket-region") {
        "" if answer.status == StatusCode::NOT_FOUND => {
            Err(ObjectError::Bucket { text: "bucket not found".to_owned(), may_pass: false })
        }
        // A server that is only compatible with S3 need not have regions.
        "" => Ok(own.to_owned()),
        region => Ok(region.to_owned()),
    }
}

async fn download(
    sdk: &Sdk,
    object: &Object<'_>,
    region: &str,
    role: &RoleCredentials,
) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let mut url = address(sdk, region, object).await?;
    url.set_query(Some("x-id=GetObject"));
    let keys = credentials::fixed(&role.access_key_id, &role.secret_access_key, &role.session_token);
    let headers = vec![
        ("accept-encoding", "identity".to_owned()),
        ("range", format!("bytes=0-{}", MAX_OBJECT - 1)),
        ("x-amz-checksum-mode", "ENABLED".to_owned()),
    ];
    let request = Request { sdk, url, region, keys: Some(keys), headers, method: Method::GET };
    let answer = request.answer(|answer| answer.status.is_success() || is_empty(answer)).await?;
    if is_empty(&answer) {
        return Ok(Zeroizing::default());
    }
    let size = answer.header("content-range").rsplit('/').next().and_then(|size| size.parse::<usize>().ok());
    if size.is_some_and(|size| size > MAX_OBJECT) {
        return Err(too_large());
    }
    Ok(answer.body)
}

/// Whether the error means that the object is empty: then the request fails, since it names a range of bytes.
fn is_empty(answer: &Answer) -> bool {
    answer.status == StatusCode::RANGE_NOT_SATISFIABLE
}

fn too_large() -> CallError {
    let (status, request_id) = (200, String::new());
    let message = format!("the object has more than {MAX_OBJECT} bytes");
    CallError::Refused { status, request_id, code: "EntityTooLarge".to_owned(), message, date: None }
}

/// The URL of an object. As in the Go agent's SDK, the bucket is a label of the host if possible, otherwise a part of the path.
async fn address(sdk: &Sdk, region: &str, object: &Object<'_>) -> Result<Url, CallError> {
    let endpoint = match sdk.s3_endpoint() {
        Some(endpoint) => endpoint,
        None => endpoint(sdk, region).await?,
    };
    let no_url = || CallError::NotSent(format!("the address of {} cannot name a bucket", endpoint.origin));
    let mut url = endpoint.url()?;
    let is_virtual = match url.host() {
        Some(Host::Domain(_)) => is_label(object.bucket, url.scheme() == "http"),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => false,
        None => return Err(no_url()),
    };
    let base = url.path().trim_end_matches('/').to_owned();
    let path = if is_virtual {
        let host = format!("{}.{}", object.bucket, url.host_str().unwrap_or_default());
        url.set_host(Some(&host)).map_err(|_| no_url())?;
        format!("{base}/{}", encoded(object.key))
    } else if object.key.is_empty() {
        format!("{base}/{}", encoded(object.bucket))
    } else {
        format!("{base}/{}/{}", encoded(object.bucket), encoded(object.key))
    };
    url.set_path(&path);
    Ok(url)
}

async fn endpoint(sdk: &Sdk, region: &str) -> Result<Endpoint, CallError> {
    let plain = sdk.variant_of("s3", region, false, false).await?;
    let Settings { fips, host_fips, dual_stack, .. } = sdk.settings;
    let fips = if (fips || host_fips) && FIPS_REGIONS.contains(&region) { "-fips" } else { "" };
    let dual_stack = if dual_stack { ".dualstack" } else { "" };
    Ok(Endpoint { url: plain.url.replacen("https://s3.", &format!("https://s3{fips}{dual_stack}."), 1), ..plain })
}

/// Whether a bucket name can be a label of the host: 3 to 63 lower-case letters, digits and hyphens. Dots are allowed only if no
/// certificate has to match them.
fn is_label(bucket: &str, dots: bool) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-');
    (3..=63).contains(&bucket.len()) && (dots || !bucket.contains('.')) && bucket.split('.').all(is_part)
}

/// Percent-encodes all bytes except unreserved characters and slashes.
fn encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// One request, with its attempts.
struct Request<'a> {
    sdk: &'a Sdk,
    url: Url,
    region: &'a str,
    /// The credentials to sign with; `None`: the request is not signed.
    keys: Option<Credentials>,
    headers: Vec<(&'static str, String)>,
    method: Method,
}

impl Request<'_> {
    /// The first answer that `is_good` accepts.
    async fn answer(&self, is_good: impl Fn(&Answer) -> bool) -> Result<Answer, CallError> {
        let (client, is_good) = (&attempts::Client::new(self.sdk, &self.url)?, &is_good);
        let checked = move |answer: Answer| if is_good(&answer) { Ok(answer) } else { Err(refusal(&answer)) };
        attempts::first(self.method.as_str(), |numbered| async move {
            let Some(keys) = &self.keys else { return self.send(client, &numbered, None).await.and_then(checked) };
            let numbered = &numbered;
            let once = |keys, at| async move { self.send(client, numbered, Some((keys, at))).await.and_then(checked) };
            self.sdk.settings.signing.call(keys, once).await
        })
        .await
    }

    async fn send(
        &self,
        client: &attempts::Client,
        numbered: &Numbered,
        signed_as: Option<(Credentials, SystemTime)>,
    ) -> Result<Answer, CallError> {
        let headers: Vec<_> = self.headers.iter().cloned().chain(numbered.iter().cloned()).collect();
        let mut request = client.http.request(self.method.clone(), self.url.clone());
        if let Some((keys, at)) = signed_as {
            let (method, url) = (self.method.as_str(), &self.url);
            let signed = Signed { at, region: self.region, service: "s3", method, url, headers: &headers, body: b"" };
            let signed = signed.headers(keys).map_err(|error| CallError::NotSent(error.to_string()))?;
            request = request.headers(signed);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header("user-agent", self.sdk.settings.agent.plain_user_agent());
        let lost = |error| client.lost(error);
        let sent = timeout(ATTEMPT, request.send()).await.map_err(|_| client.late(ATTEMPT))?;
        let mut response = sent.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let max = if status.is_success() { MAX_OBJECT } else { MAX_ERROR };
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > max {
                if status.is_success() {
                    return Err(too_large());
                }
                let room = max - body.len();
                body.extend_from_slice(&chunk[..room]); // code and message are at the beginning
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }
}

fn refusal(answer: &Answer) -> CallError {
    let (code, message) = code_and_message(&answer.body);
    let status = answer.status;
    // The answer to a HEAD request has no body.
    let code = code.unwrap_or_else(|| status.canonical_reason().unwrap_or("UnknownError").replace(' ', ""));
    CallError::Refused {
        status: status.as_u16(),
        request_id: cleaned(&format!("{}, HostID: {}", answer.header("x-amz-request-id"), answer.header("x-amz-id-2"))),
        code: cleaned(&code),
        message: cleaned(&message.unwrap_or_default()),
        date: signing::date_of(&answer.headers),
    }
}

/// Code and message of `<Error><Code>…</Code><Message>…</Message>…</Error>`.
fn code_and_message(body: &[u8]) -> (Option<String>, Option<String>) {
    let (mut code, mut message) = (None, None);
    let text = String::from_utf8_lossy(body);
    let mut document = Document::new(&text);
    let Ok(mut root) = document.root_element() else { return (None, None) };
    while let Some(mut member) = root.next_tag() {
        let slot = match member.start_el().local() {
            "Code" => &mut code,
            "Message" => &mut message,
            _ => continue,
        };
        *slot = try_data(&mut member).ok().filter(|text| !text.is_empty()).map(|text| text.into_owned());
    }
    (code, message)
}

#[cfg(test)]
mod tests;
