//! The tags of the EC2 instance (spec `registration.md` §4): one DescribeTags, in EC2's Query protocol.
//!
//! Owns that call and the reading of its XML. An SDK client for EC2 would be the largest part of the agent. It does not know whether
//! the tags are wanted. The invariant: no tag of AWS itself (`aws:…`) is given away, since ECS would refuse the registration.

use super::backoff::{Backoff, Shape};
use super::clock::ServiceClock;
use super::proxy::ProxySettings;
use super::signature::Signed;
use super::transport;
use crate::model::address;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};
use reqwest::header::{CONTENT_TYPE, DATE, USER_AGENT};
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

/// Most tags of an instance.
const MOST: usize = 50;
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(42);
/// Fifty tags of 128 + 256 characters are far below this.
const MAX_BODY: usize = 256 * 1024;
const RETRY: Shape = Shape { initial: Duration::from_secs(1), max: Duration::from_secs(20), factor: 2.0, jitter: 0.2 };

/// How to reach EC2.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Region of the instance.
    pub region: String,
    /// `AWS_ENDPOINT_URL_EC2`, or else `AWS_ENDPOINT_URL`.
    pub endpoint_url: Option<String>,
    /// Proxies.
    pub proxy: ProxySettings,
    /// What the agent calls itself.
    pub user_agent: String,
    /// The time to sign with.
    pub clock: ServiceClock,
}

/// The tags cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("the tags of the EC2 instance cannot be read: {0}")]
pub struct TagsError(String);

/// One failed attempt.
struct Failed {
    why: String,
    may_pass: bool,
}

/// The tags of the instance with this id, without those of AWS.
pub async fn of_instance(
    settings: &Settings,
    credentials: &SharedCredentialsProvider,
    instance_id: &str,
) -> Result<BTreeMap<String, String>, TagsError> {
    let url = settings.url()?;
    let body = form(instance_id);
    let mut backoff = Backoff::new(RETRY);
    let mut attempt = 1;
    loop {
        let failed = match ask(settings, credentials, &url, &body).await {
            Ok(answer) => return parse(&answer).map_err(|error| TagsError(error.to_string())),
            Err(failed) => failed,
        };
        if !failed.may_pass || attempt == ATTEMPTS {
            return Err(TagsError(failed.why));
        }
        attempt += 1;
        tokio::time::sleep(backoff.pause()).await;
    }
}

impl Settings {
    fn url(&self) -> Result<Url, TagsError> {
        let domain = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let named = self.endpoint_url.clone().filter(|url| !url.is_empty());
        let text = named.unwrap_or_else(|| format!("https://ec2.{}.{domain}/", self.region));
        Url::parse(&text).map_err(|error| TagsError(format!("{}: {error}", address::shown(&text))))
    }
}

fn form(instance_id: &str) -> String {
    let most = MOST.to_string();
    let members = [
        ("Action", "DescribeTags"),
        ("Version", "2016-11-15"),
        ("Filter.1.Name", "resource-id"),
        ("Filter.1.Value.1", instance_id),
        ("Filter.2.Name", "resource-type"),
        ("Filter.2.Value.1", "instance"),
        ("MaxResults", &most),
    ];
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish()
}

async fn ask(
    settings: &Settings,
    credentials: &SharedCredentialsProvider,
    url: &Url,
    body: &str,
) -> Result<String, Failed> {
    let failed = |may_pass: bool| move |error: &dyn std::error::Error| Failed { why: error.to_string(), may_pass };
    let keys = credentials.provide_credentials().await.map_err(|error| failed(false)(&error))?;
    let Settings { clock, region, proxy, user_agent, .. } = settings;
    let signed = Signed { clock, region, service: "ec2", method: "POST", url, headers: &[], body: body.as_bytes() };
    let headers = signed.headers(keys).map_err(|error| failed(false)(&error))?;
    let client = transport::reqwest_builder(proxy, url).map_err(|error| failed(false)(&error))?;
    let client = client.timeout(ATTEMPT).build().map_err(|error| failed(false)(&error))?;
    let request = client
        .post(url.clone())
        .header(USER_AGENT, user_agent)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
        .headers(headers)
        .body(body.to_owned());
    let mut response = request.send().await.map_err(|error| failed(true)(&error.without_url()))?;
    let status = response.status();
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(true)(&error.without_url()))? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_BODY {
            return Err(Failed { why: format!("the answer has more than {MAX_BODY} bytes"), may_pass: false });
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let code = code_of(&text).unwrap_or_default();
    let is_throttled = code.contains("Throttl") || code == "RequestLimitExceeded";
    let may_pass = clock.learn(status.as_u16(), date.as_deref()) || status.is_server_error() || is_throttled;
    Err(Failed { why: format!("{status} {code}"), may_pass })
}

/// `DescribeTagsResponse/tagSet/item/{key,value}`.
fn parse(xml: &str) -> Result<BTreeMap<String, String>, XmlDecodeError> {
    let mut document = Document::new(xml);
    let mut root = document.root_element()?;
    // The decoder takes the end of the text for the end of every element.
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
            let of_aws = |text: &str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"));
            if !of_aws(&key) && !of_aws(&value) && tags.len() < MOST {
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

/// `Response/Errors/Error/Code`.
fn code_of(xml: &str) -> Option<String> {
    let mut document = Document::new(xml);
    let mut root = document.root_element().ok()?;
    let mut errors = root.next_tag()?;
    let mut error = errors.next_tag()?;
    while let Some(mut member) = error.next_tag() {
        if member.start_el().matches("Code") {
            return try_data(&mut member).ok().map(|code| code.into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::credentials::fixed;
    use crate::aws::fake::{Answer, Fake, Request};

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

    async fn ask_with(
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> (Fake, Result<BTreeMap<String, String>, TagsError>) {
        let fake = Fake::start(script).await;
        let settings =
            Settings { region: "us-west-2".to_owned(), endpoint_url: Some(fake.url()), ..Settings::default() };
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"secret".into(), &"token".into()));
        let tags = of_instance(&settings, &keys, "i-1").await;
        (fake, tags)
    }

    #[tokio::test]
    async fn tags_are_asked_for_and_those_of_aws_left_out() {
        let (fake, tags) = ask_with(|request| match request.number {
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
    async fn a_refusal_is_final_and_nonsense_is_no_empty_list() {
        let (fake, tags) = ask_with(|_| Answer::text(403, DENIED)).await;
        assert!(tags.unwrap_err().to_string().contains("UnauthorizedOperation"));
        assert_eq!(fake.requests().len(), 1);
        for body in ["", "<html></html>", "<DescribeTagsResponse><tagSet><item>", "{}"] {
            assert!(ask_with(move |_| Answer::text(200, body)).await.1.is_err(), "{body}");
        }
    }

    #[test]
    fn each_partition_has_its_address() {
        let url =
            |region: &str| Settings { region: region.to_owned(), ..Settings::default() }.url().unwrap().to_string();
        assert_eq!(url("us-west-2"), "https://ec2.us-west-2.amazonaws.com/");
        assert_eq!(url("cn-north-1"), "https://ec2.cn-north-1.amazonaws.com.cn/");
    }
}
