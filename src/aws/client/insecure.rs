//! The HTTP client for the flag `-k`: like that of [`super::transport`], but it accepts every certificate (spec `config.md`
//! §2.8).
//!
//! The SDK's own connector has no such option, so requests go through reqwest. Owns only this adapter. The invariant: the client
//! is created only if the operator set the flag.

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use reqwest::header::HeaderMap;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(30);

/// A client that uses `proxy`, or connects directly. It stops reading an answer that exceeds `max_answer` bytes; the caller
/// cuts it.
pub(crate) fn client(proxy: Option<reqwest::Proxy>, max_answer: usize) -> Result<SharedHttpClient, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .tls_danger_accept_invalid_certs(true);
    if let Some(proxy) = proxy {
        builder = builder.proxy(proxy);
    }
    let connector = SharedHttpConnector::new(Insecure { http: builder.build()?, max_answer });
    Ok(http_client_fn(move |_settings, _components| connector.clone()))
}

/// Accepts every certificate.
#[derive(Clone, Debug)]
struct Insecure {
    http: reqwest::Client,
    /// The maximum length of an answer in bytes.
    max_answer: usize,
}

impl HttpConnector for Insecure {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { send(&this.http, request, this.max_answer).await })
    }
}

/// Sends the request through reqwest. The SDK sets the time limits around this.
async fn send(http: &reqwest::Client, request: HttpRequest, max_answer: usize) -> Result<HttpResponse, ConnectorError> {
    let user = |error: &dyn std::error::Error| ConnectorError::user(error.to_string().into());
    let method = reqwest::Method::from_bytes(request.method().as_bytes()).map_err(|error| user(&error))?;
    let mut passed = http.request(method, request.uri());
    for (name, value) in request.headers() {
        passed = passed.header(name, value);
    }
    let body = request.body().bytes().ok_or_else(|| ConnectorError::user("a body that is not in memory".into()))?;
    let mut answer = passed.body(body.to_vec()).send().await.map_err(lost)?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let mut bytes = Vec::new();
    while bytes.len() <= max_answer
        && let Some(chunk) = answer.chunk().await.map_err(lost)?
    {
        bytes.extend_from_slice(&chunk);
    }
    converted(status, &headers, bytes)
}

/// Converts an answer to the type of the SDK. An error here must not look like a request that was not sent.
fn converted(status: u16, headers: &HeaderMap, body: Vec<u8>) -> Result<HttpResponse, ConnectorError> {
    let unconvertible = |error: &dyn std::error::Error| ConnectorError::other(error.to_string().into(), None);
    let status = StatusCode::try_from(status).map_err(|error| unconvertible(&error))?;
    let mut response = HttpResponse::new(status, SdkBody::from(body));
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        response
            .headers_mut()
            .try_append(name.as_str().to_owned(), value.to_owned())
            .map_err(|error| unconvertible(&error))?;
    }
    Ok(response)
}

fn lost(error: reqwest::Error) -> ConnectorError {
    let error = error.without_url();
    match () {
        () if error.is_builder() => ConnectorError::user(error.into()), // not sent at all
        () if error.is_timeout() => ConnectorError::timeout(error.into()),
        () => ConnectorError::io(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::aws::client::sdk::{Sdk, Settings};
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{Answer, Fake};
    use aws_credential_types::provider::SharedCredentialsProvider;
    use ecs_testing::self_signed_front::TlsFront;
    use serde_json::json;

    async fn clusters(backend: &str, accept_insecure_cert: bool) -> Result<Vec<String>, String> {
        let settings = Settings {
            region: "us-west-2".to_owned(),
            backend_host: Some(backend.to_owned()),
            max_attempts: 1,
            accept_insecure_cert,
            ..Settings::default()
        };
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"s".into(), &"".into()));
        let answer = Sdk::new(settings).unwrap().ecs(keys).list_clusters().send().await;
        answer.map(|found| found.cluster_arns().to_vec()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn an_unconvertible_answer_does_not_count_as_not_sent() {
        let error = super::converted(99, &reqwest::header::HeaderMap::new(), Vec::new()).unwrap_err();
        assert!(error.is_other() && !error.is_user(), "{error:?}");
        let error = aws_smithy_runtime_api::client::result::SdkError::<(), ()>::dispatch_failure(error);
        assert!(!crate::aws::client::sdk::was_not_sent(&error));
    }

    #[tokio::test]
    async fn an_untrusted_certificate_needs_the_insecure_flag() {
        let fake = Fake::start(|request| match request.number {
            0 => Answer::json(200, &json!({"clusterArns": ["c"]})),
            _ => Answer::json(400, &json!({"__type": "ClientException", "message": "no"})),
        })
        .await;
        let front = TlsFront::before(fake.port()).await;
        assert!(clusters(&front.url, false).await.is_err());
        assert!(fake.requests().is_empty(), "nothing was sent over a connection that is not trusted");
        assert_eq!(clusters(&front.url, true).await.unwrap(), ["c"]);
        let request = &fake.requests()[0];
        assert!(request.header("authorization").is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256")));
        assert_eq!(request.header("x-amz-target"), Some("AmazonEC2ContainerServiceV20141113.ListClusters"));
        // An error of the service is passed on, and a closed port is an error of the connector.
        assert!(clusters(&front.url, true).await.unwrap_err().contains("ClientException"));
        assert!(clusters("https://127.0.0.1:1", true).await.unwrap_err().contains("ConnectorError"));
    }
}
