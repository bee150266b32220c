//! The tags of the EC2 instance (spec `registration.md` §4), by one DescribeTags call in EC2's Query protocol.
//!
//! Owns the call and the parsing of its XML: an SDK client for EC2 would be the largest part of the agent. The caller decides
//! whether the tags are needed. The invariant: no tag of AWS itself (`aws:…`) is returned, since ECS would refuse the
//! registration.

use crate::aws::client::attempts;
use crate::aws::client::call_error::CallError;
use crate::aws::client::sdk::Sdk;
use crate::aws::client::signature::Signed;
use crate::aws::client::signing;
use crate::backoff::{Backoff, Shape};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};
use ecs_core::model::text::cleaned;
use ecs_core::model::with_causes;
use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use url::Url;

/// Maximum number of tags of an instance.
const MAX_TAGS: usize = 50;
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(42);
/// Maximum length of an answer in bytes. Fifty tags of 128 + 256 characters are far below this.
const MAX_BODY: usize = 256 * 1024;
const RETRY: Shape = Shape { initial: Duration::from_secs(1), max: Duration::from_secs(20), factor: 2.0, jitter: 0.2 };

/// Why the tags cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the tags of the EC2 instance cannot be read: {0}")]
pub struct TagsError(String);

/// The tags of the instance with this id, without those of AWS itself.
///
/// # Errors
/// Fails if EC2 refuses the call or does not answer, also after two retries of temporary errors, or if its answer is malformed.
pub async fn instance_tags(
    sdk: &Sdk,
    credentials: &SharedCredentialsProvider,
    instance_id: &str,
) -> Result<BTreeMap<String, String>, TagsError> {
    let failed = |error: CallError| TagsError(error.to_string());
    let endpoint = match sdk.ec2_endpoint() {
        Some(endpoint) => endpoint,
        None => sdk.endpoint_of("ec2", sdk.region_or_own("")).await.map_err(failed)?,
    };
    let url = endpoint.url().map_err(failed)?;
    let client = attempts::Client::new(sdk, &url).map_err(failed)?;
    let (url, client, body) = (&url, &client, &form(instance_id));
    let mut backoff = Backoff::new(RETRY);
    let mut attempt = 1;
    loop {
        let once = |keys, at| async move {
            let described = timeout(ATTEMPT, describe_tags(sdk, client, (keys, at), url, body)).await;
            described.map_err(|_| client.late(ATTEMPT))?
        };
        let error = match sdk.settings.signing.call(credentials, once).await {
            Ok(answer) => return parse(&answer).map_err(|error| TagsError(error.to_string())),
            Err(error) => error,
        };
        if !is_temporary(&error) || attempt == ATTEMPTS {
            return Err(failed(error));
        }
        attempt += 1;
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Whether the error is temporary. EC2 has its own code for too many calls.
fn is_temporary(error: &CallError) -> bool {
    error.is_retryable_soon() || matches!(error, CallError::Refused { code, .. } if code == "RequestLimitExceeded")
}

fn form(instance_id: &str) -> String {
    let max_results = MAX_TAGS.to_string();
    let members = [
        ("Action", "DescribeTags"),
        ("Version", "2016-11-15"),
        ("Filter.1.Name", "resource-id"),
        ("Filter.1.Value.1", instance_id),
        ("Filter.2.Name", "resource-type"),
        ("Filter.2.Value.1", "instance"),
        ("MaxResults", &max_results),
    ];
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish()
}

async fn describe_tags(
    sdk: &Sdk,
    client: &attempts::Client,
    (keys, at): (Credentials, SystemTime),
    url: &Url,
    body: &str,
) -> Result<String, CallError> {
    let lost = |error| client.lost(error);
    let region = sdk.region_or_own("");
    let signed = Signed { at, region, service: "ec2", method: "POST", url, headers: &[], body: body.as_bytes() };
    let headers = signed.headers(keys).map_err(|error| CallError::NotSent(with_causes(&error)))?;
    let request = client
        .http
        .post(url.clone())
        .header(USER_AGENT, sdk.settings.agent.plain_user_agent())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
        .headers(headers)
        .body(body.to_owned());
    let mut response = request.send().await.map_err(lost)?;
    let (status, date) = (response.status(), signing::date_of(response.headers()));
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_BODY {
            return Err(refused(200, "EntityTooLarge", format!("the answer has more than {MAX_BODY} bytes"), None));
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let (code, message) = code_and_message(&text).unwrap_or_default();
    Err(refused(status.as_u16(), &code, message, date))
}

fn refused(status: u16, code: &str, message: String, date: Option<String>) -> CallError {
    let code = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
    CallError::Refused { status, request_id: String::new(), code, message, date }
}

/// The tags in `DescribeTagsResponse/tagSet/item/{key,value}`.
fn parse(xml: &str) -> Result<BTreeMap<String, String>, XmlDecodeError> {
    let mut document = Document::new(xml);
    let mut root = document.root_element()?;
    // The decoder accepts the end of the text as the end of every element.
    let is_whole = xml.trim_end().ends_with("</DescribeTagsResponse>");
    if !is_whole || !root.start_el().matches("DescribeTagsResponse") {
        return Err(XmlDecodeError::custom("the answer is not that of DescribeTags"));
    }
    let mut tags = BTreeMap::new();
    while let Some(mut set) = root.next_tag() {
        if !set.start_el().matches("tagSet") {
            continue;
        }
        while let Some(item) = set.next_tag() {
            let (key, value) = tag(item)?;
            let is_aws_own = |text: &str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"));
            if !is_aws_own(&key) && !is_aws_own(&value) && tags.len() < MAX_TAGS {
                tags.insert(key, value);
            }
        }
    }
    Ok(tags)
}

fn tag(mut item: ScopedDecoder<'_, '_>) -> Result<(String, String), XmlDecodeError> {
    let (mut key, mut value) = (String::new(), String::new());
    while let Some(mut member) = item.next_tag() {
        let name = member.start_el().local().to_owned();
        match name.as_str() {
            "key" => key = try_data(&mut member)?.into_owned(),
            "value" => value = try_data(&mut member)?.into_owned(),
            _ => {}
        }
    }
    Ok((key, value))
}

/// The texts of `Response/Errors/Error/Code` and `Message`; `None` if there is no such element.
fn code_and_message(xml: &str) -> Option<(String, String)> {
    let mut document = Document::new(xml);
    let mut root = document.root_element().ok()?;
    let mut errors = root.next_tag()?;
    let mut error = errors.next_tag()?;
    let (mut code, mut message) = (String::new(), String::new());
    while let Some(mut member) = error.next_tag() {
        let slot = match member.start_el().local() {
            "Code" => &mut code,
            "Message" => &mut message,
            _ => continue,
        };
        *slot = try_data(&mut member).map(|text| cleaned(&text)).unwrap_or_default();
    }
    Some((code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::client::sdk;
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{self, Answer, Fake, Request};

    const ANSWER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId><tagSet>
  <item><resourceId>i-1</resourceId><resourceType>instance</resourceType><key>team</key><value>a &amp; b</value></item>
  <item><resourceId>i-1</resourceId><resourceType>instance</resourceType><key>empty</key><value/></item>
  <item><key>aws:autoscaling:groupName</key><value>x</value></item>
  <item><key>AWS:other</key><value>x</value></item>
  <item><key>stack</key><value>aws:cloudformation</value></item>
  <item><key>awsome</key><value>kept</value></item>
</tagSet></DescribeTagsResponse>"#;
    const DENIED: &str =
        "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>";
    const BUSY: &str = "<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>";

    async fn tags_with(
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> (Fake, Result<BTreeMap<String, String>, TagsError>) {
        let fake = Fake::start(script).await;
        let sdk = Sdk::new(fake::settings(&fake)).unwrap();
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"secret".into(), &"token".into()));
        let tags = instance_tags(&sdk, &keys, "i-1").await;
        (fake, tags)
    }

    #[tokio::test]
    async fn tags_are_read_without_those_of_aws() {
        let (fake, tags) = tags_with(|request| match request.number {
            0 => Answer::text(503, BUSY),
            _ => Answer::text(200, ANSWER),
        })
        .await;
        let expected = [("team", "a & b"), ("empty", ""), ("awsome", "kept")];
        assert_eq!(tags.unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let seen = &fake.requests()[1];
        assert_eq!(
            seen.body,
            "Action=DescribeTags&Version=2016-11-15&Filter.1.Name=resource-id&Filter.1.Value.1=i-1\
             &Filter.2.Name=resource-type&Filter.2.Value.1=instance&MaxResults=50"
        );
        let authorization = seen.header("authorization").unwrap();
        assert!(authorization.contains("/us-west-2/ec2/aws4_request"), "{authorization}");
        assert_eq!(seen.header("x-amz-security-token"), Some("token"));
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_a_malformed_answer_an_error() {
        let (fake, tags) = tags_with(|_| Answer::text(403, DENIED)).await;
        assert!(tags.unwrap_err().to_string().contains("UnauthorizedOperation"));
        assert_eq!(fake.requests().len(), 1);
        let sdk = |url: &str| {
            let endpoint_url_ec2 = Some(url.to_owned());
            Sdk::new(sdk::Settings { region: "us-west-2".to_owned(), endpoint_url_ec2, ..Default::default() }).unwrap()
        };
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"secret".into(), &"".into()));
        let error = instance_tags(&sdk("ftp://ec2.corp"), &keys, "i-1").await.unwrap_err().to_string();
        assert!(error.contains("the address of AWS_ENDPOINT_URL_EC2 is no URL of http or https"), "{error}");
        for body in ["", "<html></html>", "<DescribeTagsResponse><tagSet><item>", "{}"] {
            assert!(tags_with(move |_| Answer::text(200, body)).await.1.is_err(), "{body}");
        }
    }
}
