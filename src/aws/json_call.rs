//! Calls of AWS services that speak awsJson1.1 and of which one operation is wanted: no SDK crate is needed for that.
//!
//! Owns endpoint, signature, limits and the meaning of an error answer; what is asked belongs to the user of `Sdk::call`
//! ([`super::ssm`], [`super::secrets_manager`]). The invariant: every attempt is signed anew and ends within its limit, and no
//! error text holds anything of an answer but its code and message.

use super::attempts::{self, Numbered};
use super::sdk::Sdk;
use super::signature::Signed;
use crate::model::text::{cleaned, member_of_beginning};
use crate::model::with_causes;
use aws_credential_types::Credentials;
use aws_sdk_ecs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

/// The reference's limit for one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The longest answer of the calls wanted is a secret's 64 KiB.
const MAX_ANSWER: usize = 1024 * 1024;
/// So much is read of an answer with an error status.
const MAX_ERROR: usize = 64 * 1024;

/// One call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// First label of the service's hosts, and its name in the signature: `secretsmanager`.
    pub(super) service: &'a str,
    /// `X-Amz-Target`: prefix and operation.
    pub(super) target: &'a str,
    /// Region; empty = the instance's.
    pub(super) region: &'a str,
    /// Address that replaces the region's endpoint.
    pub(super) endpoint: Option<String>,
    /// The request.
    pub(super) body: &'a Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The service refused. Its texts are cleaned.
    #[error("{code}: {message}")]
    Refused { status: u16, request_id: String, code: String, message: String },
    /// Nobody answered, or nothing that could be understood.
    #[error("{0}")]
    NoAnswer(String),
}

impl CallError {
    /// Asking again may help.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                *status >= 500 || *status == 429 || code.contains("Throttl") || code == "TooManyRequestsException"
            }
            Self::NoAnswer(_) => true,
        }
    }

    /// The text of the reference's SDK for a failed call: operators search for it. `operation` is `Service: Operation`; of the errors
    /// in `modelled` the SDK knows the type.
    pub(super) fn told(&self, operation: &str, modelled: &[&str]) -> String {
        match self {
            Self::Refused { status, request_id, code, message } => format!(
                "operation error {operation}, https response error StatusCode: {status}, RequestID: {request_id}, {}{code}: {message}",
                if modelled.contains(&code.as_str()) { "" } else { "api error " },
            ),
            Self::NoAnswer(text) => format!("operation error {operation}, {text}"),
        }
    }
}

impl Sdk {
    /// Makes a call; the answer as it came, zeroed when it is dropped.
    pub(super) async fn call(&self, call: &Call<'_>, keys: &Credentials) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let region = self.region_or_own(call.region);
        let url = match &call.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.endpoint_of(call.service, region).await?,
        };
        let url =
            Url::parse(&url).map_err(|error| CallError::NoAnswer(format!("the endpoint is not a URL: {error}")))?;
        let client = attempts::client(self, &url)?;
        let (client, url) = (&client, &url);
        attempts::first(call.target, |numbered| async move {
            let once = self.once(call, keys, region, client, url, numbered);
            let late = |_| CallError::NoAnswer(format!("no answer within {} seconds", ATTEMPT.as_secs()));
            timeout(ATTEMPT, once).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
        })
        .await
    }

    async fn once(
        &self,
        call: &Call<'_>,
        keys: &Credentials,
        region: &str,
        client: &reqwest::Client,
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
        let clock = &self.settings.clock;
        let (service, body_bytes) = (call.service, body.as_bytes());
        let signed = Signed { clock, region, service, method: "POST", url, headers: &headers, body: body_bytes };
        let mut signed = signed.headers(keys.clone()).map_err(|error| CallError::NoAnswer(error.to_string()))?;
        for (name, value) in headers.iter().map(|(name, value)| (*name, value.as_str())) {
            signed.insert(name, printable(value)?);
        }
        signed.insert("user-agent", printable(&self.settings.agent.plain_user_agent())?);
        send(client, url.clone(), signed, body).await
    }

    /// Partitions, FIPS and dual-stack names follow the rules that came with the ECS client: only the first label differs.
    async fn endpoint_of(&self, service: &str, region: &str) -> Result<String, CallError> {
        self.variant_of(service, region, self.settings.fips, self.settings.dual_stack).await
    }

    pub(super) async fn variant_of(
        &self,
        service: &str,
        region: &str,
        fips: bool,
        dual_stack: bool,
    ) -> Result<String, CallError> {
        let parameters = Params::builder().region(region.to_owned()).use_fips(fips).use_dual_stack(dual_stack).build();
        let unknown = |why: String| CallError::NoAnswer(format!("no endpoint of {service} in {region}: {why}"));
        let parameters = parameters.map_err(|error| unknown(error.to_string()))?;
        let ecs =
            DefaultResolver::new().resolve_endpoint(&parameters).await.map_err(|error| unknown(error.to_string()))?;
        let rest = ecs.url().strip_prefix("https://ecs").ok_or_else(|| unknown(ecs.url().to_owned()))?;
        Ok(format!("https://{service}{rest}"))
    }
}

async fn send(
    client: &reqwest::Client,
    url: Url,
    headers: HeaderMap,
    body: String,
) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let lost = |error: reqwest::Error| CallError::NoAnswer(with_causes(&error));
    let mut response = client.post(url).headers(headers).body(body).send().await.map_err(lost)?;
    let status = response.status();
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        cleaned(value.unwrap_or_default())
    };
    let (request_id, error_type) = (header("x-amzn-requestid"), header("x-amzn-errortype"));
    let mut answer = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if !status.is_success() && answer.len() + chunk.len() > MAX_ERROR {
            let room = MAX_ERROR - answer.len();
            answer.extend_from_slice(&chunk[..room]); // code and message are at its beginning
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
    let error: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let member = |name: &str| match &error {
        Value::Null => cleaned(&member_of_beginning(&answer, name).unwrap_or_default()),
        whole => cleaned(whole.get(name).and_then(Value::as_str).unwrap_or_default()),
    };
    let code = if error_type.is_empty() { member("__type") } else { error_type };
    // `com.amazonaws.service#Code`, `Code:http://…` and `Code` mean the same.
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let message = Some(member("message")).filter(|text| !text.is_empty()).unwrap_or_else(|| member("Message"));
    let code = if code.is_empty() { "UnknownError" } else { code };
    Err(CallError::Refused { status: status.as_u16(), request_id, code: code.to_owned(), message })
}

fn printable(text: &str) -> Result<HeaderValue, CallError> {
    HeaderValue::from_str(text).map_err(|_| CallError::NoAnswer("a header value is not printable".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::credentials::fixed;
    use crate::aws::fake::{Answer, Fake};
    use crate::aws::sdk::Settings;
    use serde_json::json;

    fn sdk(settings: Settings) -> Sdk {
        Sdk::new(Settings { region: "us-west-2".to_owned(), ..settings }).unwrap()
    }

    async fn call(fake_url: &str) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let call = Call {
            service: "secretsmanager",
            target: "secretsmanager.GetSecretValue",
            region: "",
            endpoint: Some(fake_url.to_owned()),
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
        ];
        for (region, fips, dual_stack, wanted) in table {
            let sdk = sdk(Settings { fips, dual_stack, ..Settings::default() });
            assert_eq!(sdk.endpoint_of("secretsmanager", region).await.unwrap(), wanted);
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_three_times_and_a_refusal_once() {
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
        assert_eq!(fake.requests().len(), 1, "it is understood, so it is not asked again");
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
    async fn nobody_there_is_said_with_its_cause() {
        let error = call("http://127.0.0.1:1").await.unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
