//! Calls of AWS services with the protocol awsJson1.1. The agent uses only one operation of each, so no SDK crate is needed.
//!
//! Owns endpoint, signature and limits. `call_error` interprets error answers; the users of `Sdk::call`
//! ([`crate::aws::services::ssm`], [`crate::aws::services::secrets_manager`]) own the request. The invariant: every attempt is
//! signed anew and ends within its time limit.

use super::attempts::{self, Numbered};
use super::call_error::{CallError, code_and_message};
use super::sdk::{Endpoint, Sdk, Settings};
use super::signature::Signed;
use super::signing;
use aws_credential_types::Credentials;
use aws_sdk_ecs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use ecs_core::model::text::cleaned;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

/// Time limit for one attempt, as in the Go agent.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Maximum length of an answer in bytes. The longest one needed is a secret of 64 KiB.
const MAX_ANSWER: usize = 1024 * 1024;
/// Number of bytes that are read of an answer with an error status.
const MAX_ERROR: usize = 64 * 1024;

/// One call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The first label of the service's hosts, which is also its name in the signature, e.g. `secretsmanager`.
    pub(crate) service: &'a str,
    /// The header `X-Amz-Target`: a prefix of the service and the operation.
    pub(crate) target: &'a str,
    /// The region; empty: that of the instance.
    pub(crate) region: &'a str,
    /// The endpoint that replaces the one of the region; `None`: no override.
    pub(crate) endpoint: Option<Endpoint>,
    /// The body of the request.
    pub(crate) body: &'a Value,
}

impl Sdk {
    /// Makes a call. Returns the body of the answer, which is zeroed when it is dropped.
    pub(crate) async fn call(&self, call: &Call<'_>, keys: &Credentials) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let region = self.region_or_own(call.region);
        let endpoint = match &call.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.endpoint_of(call.service, region).await?,
        };
        let url = endpoint.url()?;
        let client = attempts::Client::new(self, &url)?;
        let (client, url) = (&client, &url);
        attempts::first(call.target, |numbered| async move {
            let once = |keys: Credentials, at: SystemTime| {
                let once = self.once(call, (keys, at), region, client, url, numbered.clone());
                async move { timeout(ATTEMPT, once).await.unwrap_or_else(|_| Err(client.late(ATTEMPT))) }
            };
            self.settings.signing.call(keys, once).await
        })
        .await
    }

    async fn once(
        &self,
        call: &Call<'_>,
        (keys, at): (Credentials, SystemTime),
        region: &str,
        client: &attempts::Client,
        url: &Url,
        numbered: Numbered,
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let [invocation, request] = numbered;
        let headers = [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", call.target.to_owned()),
            invocation,
            request,
        ];
        let body = call.body.to_string();
        let (service, body_bytes) = (call.service, body.as_bytes());
        let signed = Signed { at, region, service, method: "POST", url, headers: &headers, body: body_bytes };
        let mut signed = signed.headers(keys).map_err(|error| CallError::NotSent(error.to_string()))?;
        for (name, value) in headers.iter().map(|(name, value)| (*name, value.as_str())) {
            signed.insert(name, printable(value)?);
        }
        let agent = &self.settings.agent;
        // As the Go agent does, only calls to ECS name the operating system.
        let name = if service == "ecs" { agent.user_agent() } else { agent.plain_user_agent() };
        signed.insert("user-agent", printable(&name)?);
        send(client, url.clone(), signed, body).await
    }

    /// The endpoint of a service. The rules for partitions, FIPS and dual stack are those of the ECS client: only the first
    /// label differs.
    pub(crate) async fn endpoint_of(&self, service: &str, region: &str) -> Result<Endpoint, CallError> {
        let Settings { fips, dual_stack, .. } = self.settings;
        // In GovCloud the plain names of these services are FIPS endpoints.
        let is_fips_by_name = region.starts_with("us-gov-") && matches!(service, "ssm" | "ec2") && !dual_stack;
        self.variant_of(service, region, fips && !is_fips_by_name, dual_stack).await
    }

    pub(crate) async fn variant_of(
        &self,
        service: &str,
        region: &str,
        fips: bool,
        dual_stack: bool,
    ) -> Result<Endpoint, CallError> {
        let parameters = Params::builder().region(region.to_owned()).use_fips(fips).use_dual_stack(dual_stack).build();
        let unknown =
            |why: String| CallError::NotSent(format!("no endpoint of {service} in the region '{region}': {why}"));
        let parameters = parameters.map_err(|error| unknown(error.to_string()))?;
        let ecs =
            DefaultResolver::new().resolve_endpoint(&parameters).await.map_err(|error| unknown(error.to_string()))?;
        let rest = ecs.url().strip_prefix("https://ecs").ok_or_else(|| unknown(ecs.url().to_owned()))?;
        Ok(Endpoint { url: format!("https://{service}{rest}"), origin: format!("{service} in the region '{region}'") })
    }
}

async fn send(
    client: &attempts::Client,
    url: Url,
    headers: HeaderMap,
    body: String,
) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let lost = |error| client.lost(error);
    let mut response = client.http.post(url).headers(headers).body(body).send().await.map_err(lost)?;
    let status = response.status();
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        cleaned(value.unwrap_or_default())
    };
    let (request_id, error_type) = (header("x-amzn-requestid"), header("x-amzn-errortype"));
    let date = signing::date_of(response.headers());
    let mut answer = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if !status.is_success() && answer.len() + chunk.len() > MAX_ERROR {
            let room = MAX_ERROR - answer.len();
            answer.extend_from_slice(&chunk[..room]); // code and message are at the beginning
            break;
        }
        if answer.len() + chunk.len() > MAX_ANSWER {
            return Err(CallError::NoAnswer(format!("the answer is longer than {MAX_ANSWER} bytes")));
        }
        answer.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(answer);
    }
    let (code, message) = code_and_message(&error_type, &answer);
    let code = if code.is_empty() { "UnknownError".to_owned() } else { code };
    Err(CallError::Refused { status: status.as_u16(), request_id, code, message, date })
}

fn printable(text: &str) -> Result<HeaderValue, CallError> {
    HeaderValue::from_str(text).map_err(|_| CallError::NotSent("a header value is not printable".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{Answer, Fake};
    use serde_json::json;

    fn sdk(settings: Settings) -> Sdk {
        Sdk::new(Settings { region: "us-west-2".to_owned(), ..settings }).unwrap()
    }

    async fn call(fake_url: &str) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let call = Call {
            service: "secretsmanager",
            target: "secretsmanager.GetSecretValue",
            region: "",
            endpoint: Some(Endpoint { url: fake_url.to_owned(), origin: "AWS_ENDPOINT_URL".to_owned() }),
            body: &json!({}),
        };
        sdk(Settings::default()).call(&call, &fixed(&"AKID".into(), &"s".into(), &"".into())).await
    }

    #[tokio::test]
    async fn endpoints_follow_partition_and_variant() {
        let table = [
            ("us-west-2", false, false, "https://secretsmanager.us-west-2.amazonaws.com"),
            ("cn-north-1", false, false, "https://secretsmanager.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", false, false, "https://secretsmanager.us-iso-east-1.c2s.ic.gov"),
            ("us-west-2", true, false, "https://secretsmanager-fips.us-west-2.amazonaws.com"),
            ("us-west-2", false, true, "https://secretsmanager.us-west-2.api.aws"),
            ("eusc-de-east-1", false, false, "https://secretsmanager.eusc-de-east-1.amazonaws.eu"),
        ];
        for (region, fips, dual_stack, wanted) in table {
            let sdk = sdk(Settings { fips, dual_stack, ..Settings::default() });
            assert_eq!(sdk.endpoint_of("secretsmanager", region).await.unwrap().url, wanted);
        }
        let fips = sdk(Settings { fips: true, ..Settings::default() });
        for (service, region, wanted) in [
            ("ssm", "us-gov-west-1", "https://ssm.us-gov-west-1.amazonaws.com"),
            ("ec2", "us-gov-west-1", "https://ec2.us-gov-west-1.amazonaws.com"),
            ("secretsmanager", "us-gov-west-1", "https://secretsmanager-fips.us-gov-west-1.amazonaws.com"),
            ("ssm", "us-west-2", "https://ssm-fips.us-west-2.amazonaws.com"),
            ("ec2", "us-west-2", "https://ec2-fips.us-west-2.amazonaws.com"),
            ("ec2", "ca-central-1", "https://ec2-fips.ca-central-1.amazonaws.com"),
        ] {
            assert_eq!(fips.endpoint_of(service, region).await.unwrap().url, wanted);
        }
    }

    #[tokio::test]
    async fn temporary_errors_are_retried_and_refusals_are_not() {
        let table = [
            (Answer::error(500, "InternalServiceError", "oops"), 3, "InternalServiceError: oops"),
            (Answer::error(400, "ThrottlingException", "slow down"), 3, "ThrottlingException: slow down"),
            (Answer::error(400, "com.amazonaws#AccessDeniedException:http://x", "no"), 1, "AccessDeniedException: no"),
            (Answer::text(400, "<html>"), 1, "UnknownError: "),
        ];
        for (answer, calls, text) in table {
            let fake = Fake::start(move |_| answer.clone()).await;
            assert_eq!(call(&fake.url()).await.unwrap_err().to_string(), text);
            assert_eq!(fake.requests().len(), calls, "{text}");
        }
        let long = "x".repeat(3 << 20);
        let fake = Fake::start(move |_| Answer::error(400, "AccessDeniedException", &format!("no\n{long}"))).await;
        let text = call(&fake.url()).await.unwrap_err().to_string();
        assert!(text.starts_with("AccessDeniedException: no xxx") && text.len() < 4200, "{}", text.len());
        assert_eq!(fake.requests().len(), 1, "a truncated error can be read, so the call is not repeated");
        let fake = Fake::start(|request| match request.number {
            0 => Answer::error(503, "X", "x"),
            _ => Answer::json(200, &json!({"ok": true})),
        })
        .await;
        assert_eq!(call(&fake.url()).await.unwrap().as_slice(), br#"{"ok":true}"#);
        let requests: Vec<_> =
            fake.requests().iter().map(|r| r.header("amz-sdk-request").unwrap().to_owned()).collect();
        assert_eq!(requests, ["attempt=1; max=3", "attempt=2; max=3"]);
    }

    #[tokio::test]
    async fn an_unsendable_request_is_not_retried() {
        let fake = Fake::start(|_| Answer::json(200, &json!({}))).await;
        let long = format!("{}/{}", fake.url(), "x".repeat(70_000));
        let good = fixed(&"AKID".into(), &"s".into(), &"".into());
        let token = fixed(&"AKID".into(), &"s".into(), &"tok\nen".into());
        let table = [
            (Some(long.as_str()), "", &good, "AWS_ENDPOINT_URL_SSM fits into no request"),
            (Some("ftp://ssm.corp"), "", &good, "AWS_ENDPOINT_URL_SSM is no URL of http or https"),
            (Some("https://u:hunter2@ssm corp"), "", &good, "AWS_ENDPOINT_URL_SSM is no URL"),
            (None, "us west 2", &good, "in the region 'us west 2'"),
            (Some(&fake.url()), "", &token, "session token holds a character that no header takes"),
        ];
        for (url, region, keys, part) in table {
            let endpoint_url_ssm = url.map(str::to_owned);
            let sdk = sdk(Settings { endpoint_url_ssm, ..Settings::default() });
            let (service, target, endpoint) = ("ssm", "AmazonSSM.GetParameters", sdk.ssm_endpoint());
            let call = Call { service, target, region, endpoint, body: &json!({}) };
            let error = sdk.call(&call, keys).await.unwrap_err();
            let text = error.sdk_text("SSM: GetParameters", &[]);
            assert!(matches!(error, CallError::NotSent(_)) && !error.is_retryable(), "{text}");
            assert!(text.contains("the request was not sent: ") && text.contains(part), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("tok\n"), "{text}");
        }
        assert!(fake.requests().is_empty());
    }

    #[tokio::test]
    async fn a_refused_connection_is_reported_with_its_cause() {
        let error = call("http://127.0.0.1:1").await.unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
