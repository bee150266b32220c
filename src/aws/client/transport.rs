//! The HTTP client of all SDK clients: one TLS stack (rustls with ring), and the right proxy for each request.
//!
//! Owns the choice between a direct connection and a proxy, made for every request, since one client may connect to several
//! hosts. [`ProxySettings`] has the rules. It knows nothing about AWS services. The invariant: without proxy settings there is
//! exactly one pool.

use super::proxy::ProxySettings;
use super::words::{self, Peer, THROUGH_PROXY};
use crate::input::truncated::member_of_truncated;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use ecs_core::model::text::cleaned;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Maximum length of an answer in bytes. The longest one through the SDK is an instance with all its attributes.
const MAX_ANSWER: usize = 4 << 20;
/// Number of bytes that are read of an answer with an error status.
const MAX_ERROR: usize = 64 << 10;

/// A proxy address that cannot be used. The address is left out, since it may contain a password.
#[derive(Debug, thiserror::Error)]
#[error("the {0} address is not a URL")]
pub struct BadProxy(&'static str);

/// A client that uses the proxies of `settings`.
///
/// # Errors
/// Fails if a proxy address is unusable.
pub fn http_client(settings: &ProxySettings) -> Result<SharedHttpClient, BadProxy> {
    routed(settings, |address| match address {
        None => Some(pool(ProxyConfig::disabled(), "")),
        Some(address) => ProxyConfig::all(address).ok().map(|proxy| pool(proxy, THROUGH_PROXY)),
    })
}

/// A client that uses the proxies of `settings` and does not verify certificates.
///
/// # Errors
/// Fails if a proxy address is unusable, or if the client cannot be built.
pub fn insecure_http_client(settings: &ProxySettings) -> Result<SharedHttpClient, BadProxy> {
    routed(settings, |address| {
        let through = if address.is_some() { THROUGH_PROXY } else { "" };
        let proxy = address.map(reqwest::Proxy::all).transpose().ok()?;
        super::insecure::client(proxy, MAX_ANSWER).ok().map(|client| SharedHttpClient::new(Bounded { client, through }))
    })
}

/// A client that chooses a connection pool for each request. `pool_of` creates the pool for a proxy address, or for direct
/// connections (`None`); it returns `None` if the address is unusable.
fn routed(
    settings: &ProxySettings,
    pool_of: impl Fn(Option<String>) -> Option<SharedHttpClient>,
) -> Result<SharedHttpClient, BadProxy> {
    crate::aws::install_tls();
    let direct = pool_of(None).ok_or(BadProxy("direct"))?;
    let pool_for =
        |proxy: &Option<ecs_core::model::Secret>, name| match proxy.as_ref().filter(|proxy| !proxy.is_empty()) {
            None => Ok(None),
            Some(address) => {
                let pool = pool_of(Some(with_scheme(address.expose()))).ok_or(BadProxy(name))?;
                Ok(Some((address.clone(), pool)))
            }
        };
    let proxies: Vec<_> = [pool_for(&settings.http, "HTTP_PROXY")?, pool_for(&settings.https, "HTTPS_PROXY")?]
        .into_iter()
        .flatten()
        .collect();
    if proxies.is_empty() {
        return Ok(direct);
    }
    let (addresses, pools) = proxies.into_iter().unzip();
    Ok(SharedHttpClient::new(Routed { settings: settings.clone(), direct, addresses: Arc::new(addresses), pools }))
}

/// A builder of clients for this one address, for calls without an SDK client.
///
/// # Errors
/// Fails if the proxy for this address is unusable.
pub(crate) fn reqwest_builder(settings: &ProxySettings, url: &Url) -> Result<reqwest::ClientBuilder, BadProxy> {
    crate::aws::install_tls();
    let mut builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let proxy = settings.for_url(url);
    let proxy_is_tls = proxy.is_some_and(|proxy| proxy.expose().starts_with("https://"));
    if url.scheme() == "http" && !proxy_is_tls {
        // There is no TLS on this connection, so CA certificates are not loaded (or required).
        builder = builder.tls_certs_only([]);
    }
    if let Some(proxy) = proxy {
        // The error would quote the address, which may contain a password.
        builder = builder.proxy(reqwest::Proxy::all(with_scheme(proxy.expose())).map_err(|_| BadProxy("proxy"))?);
    }
    Ok(builder)
}

/// A client that never uses a proxy, for IMDS.
pub fn direct_client() -> SharedHttpClient {
    crate::aws::install_tls();
    pool(ProxyConfig::disabled(), "")
}

/// Adds the scheme http to a proxy address that is only `host:port`, a common form.
pub(crate) fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// `through` names what is between this host and the service, for errors.
fn pool(proxy: ProxyConfig, through: &'static str) -> SharedHttpClient {
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector =
            Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    });
    SharedHttpClient::new(Bounded { client, through })
}

/// A client that reads answers only up to [`MAX_ANSWER`]: the SDK itself reads answers of any length into memory.
#[derive(Debug)]
struct Bounded {
    client: SharedHttpClient,
    /// What is between this host and the service, for errors.
    through: &'static str,
}

impl HttpClient for Bounded {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        // The limit of a whole request is applied here, where its error can name the host.
        let mut inner = HttpConnectorSettings::builder();
        inner.set_connect_timeout(settings.connect_timeout());
        let connector = self.client.http_connector(&inner.build(), components);
        SharedHttpConnector::new(BoundedConnector { connector, through: self.through, limit: settings.read_timeout() })
    }
}

#[derive(Debug)]
struct BoundedConnector {
    connector: SharedHttpConnector,
    through: &'static str,
    /// The time limit of a request, from the connection to the end of the answer; `None`: there is none.
    limit: Option<Duration>,
}

impl HttpConnector for BoundedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (peer, limit) = (Peer::through(request.uri(), self.through), self.limit);
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = async {
                let whole = async { read(answer.await?).await };
                whole.await.map_err(|error| words::with_host(error, &peer))
            };
            let mut answer = match limit {
                None => answer.await,
                Some(limit) => {
                    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(words::late(&peer, limit)))
                }
            }?;
            answer.add_extension(peer);
            Ok(answer)
        })
    }
}

/// Reads the body. If an error answer is too long, the code and the message that were read are kept.
async fn read(mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let is_error = !answer.status().is_success();
    let max = if is_error { MAX_ERROR } else { MAX_ANSWER };
    let (mut stream, mut body) = (ByteStream::new(answer.take_body()), Vec::new());
    let lost = |error: aws_smithy_types::byte_stream::error::Error| ConnectorError::io(error.into());
    while let Some(chunk) = stream.try_next().await.map_err(lost)? {
        body.extend_from_slice(&chunk[..chunk.len().min(max + 1 - body.len())]);
        if body.len() > max {
            break;
        }
    }
    if body.len() > max {
        if !is_error {
            return Err(ConnectorError::io(format!("the answer is longer than {max} bytes").into()));
        }
        body.truncate(max);
        body = beginning_of_error(&body);
        answer.headers_mut().remove("content-length");
    }
    *answer.body_mut() = SdkBody::from(body);
    Ok(answer)
}

/// A complete error body in the format awsJson, made from a truncated one. Any other body is unchanged, and cannot be parsed.
fn beginning_of_error(body: &[u8]) -> Vec<u8> {
    let member = |names: [&str; 2]| {
        names.into_iter().find_map(|name| member_of_truncated(body, name)).map(|text| cleaned(&text))
    };
    match (member(["__type", "code"]), member(["message", "Message"])) {
        (None, None) => body.to_vec(),
        (code, message) => {
            let code = code.unwrap_or_else(|| "UnknownError".to_owned());
            serde_json::json!({"__type": code, "message": message.unwrap_or_default()}).to_string().into_bytes()
        }
    }
}

/// A client with one pool for direct connections and one for each proxy.
#[derive(Debug)]
struct Routed {
    settings: ProxySettings,
    direct: SharedHttpClient,
    /// The addresses of the proxies, in the order of `pools`.
    addresses: Arc<Vec<ecs_core::model::Secret>>,
    pools: Vec<SharedHttpClient>,
}

impl HttpClient for Routed {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(RoutedConnector {
            settings: self.settings.clone(),
            direct: self.direct.http_connector(settings, components),
            addresses: Arc::clone(&self.addresses),
            pools: self.pools.iter().map(|pool| pool.http_connector(settings, components)).collect(),
        })
    }
}

#[derive(Debug)]
struct RoutedConnector {
    settings: ProxySettings,
    direct: SharedHttpConnector,
    addresses: Arc<Vec<ecs_core::model::Secret>>,
    pools: Vec<SharedHttpConnector>,
}

impl HttpConnector for RoutedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let proxy = Url::parse(request.uri()).ok().and_then(|url| self.settings.for_url(&url).cloned());
        let chosen = proxy.and_then(|proxy| self.addresses.iter().position(|address| *address == proxy));
        match chosen.and_then(|index| self.pools.get(index)) {
            Some(pool) => pool.call(request),
            None => self.direct.call(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::client::sdk::{Sdk, Settings};
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{Answer, Fake};
    use aws_credential_types::provider::SharedCredentialsProvider;

    async fn list_clusters(backend: &str, proxy: ProxySettings) -> bool {
        let settings = Settings {
            region: "us-west-2".to_owned(),
            backend_host: Some(backend.to_owned()),
            proxy,
            ..Settings::default()
        };
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"s".into(), &"".into()));
        Sdk::new(settings).unwrap().ecs(keys).list_clusters().send().await.is_ok()
    }

    #[tokio::test]
    async fn a_call_goes_through_the_proxy_unless_its_host_is_excluded() {
        let proxy = Fake::start(|_| Answer::json(200, &serde_json::json!({"clusterArns": []}))).await;
        let through = ProxySettings { http: Some(proxy.url().as_str().into()), ..ProxySettings::default() };
        assert!(list_clusters("http://ecs.invalid", through.clone()).await);
        assert_eq!(proxy.requests()[0].header("host"), Some("ecs.invalid"));

        let backend = Fake::start(|_| Answer::json(200, &serde_json::json!({"clusterArns": []}))).await;
        assert!(list_clusters(&backend.url(), through).await);
        assert_eq!((proxy.requests().len(), backend.requests().len()), (1, 1));
    }

    /// The error of an SDK call with this answer, and the number of bytes of the body that are kept.
    async fn refusal(answer: Answer, accept_insecure_cert: bool) -> String {
        let backend = Fake::start(move |_| answer.clone()).await;
        let settings = Settings {
            region: "us-west-2".to_owned(),
            backend_host: Some(backend.url()),
            max_attempts: 1,
            accept_insecure_cert,
            ..Settings::default()
        };
        let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"s".into(), &"".into()));
        let error = Sdk::new(settings).unwrap().ecs(keys).list_clusters().send().await.unwrap_err();
        let kept = error.raw_response().and_then(|response| response.body().bytes()).map_or(0, <[u8]>::len);
        assert!(kept <= MAX_ERROR, "{kept} bytes are kept");
        use aws_sdk_ecs::error::ProvideErrorMetadata;
        format!("{}: {}", error.code().unwrap_or_default(), error.message().unwrap_or_default())
    }

    #[tokio::test]
    async fn an_answer_is_read_only_up_to_its_maximum_length() {
        let long = format!("no\n{}", "x".repeat(5 << 20));
        for insecure in [false, true] {
            let text = refusal(Answer::error(400, "AccessDeniedException", &long), insecure).await;
            assert!(text.starts_with("AccessDeniedException: no xxx") && text.len() < 5000, "{}", text.len());
            let text = refusal(Answer::error(400, "AccessDeniedException", "no"), insecure).await;
            assert_eq!(text, "AccessDeniedException: no", "a short one is unchanged");
            assert_eq!(refusal(Answer::text(502, &long), insecure).await, ": ", "no error of AWS");
            let endless = serde_json::json!({"clusterArns": [long]});
            assert_eq!(refusal(Answer::json(200, &endless), insecure).await, ": ", "a truncated answer is an error");
        }
    }

    #[test]
    fn an_unusable_proxy_is_named_without_its_password() {
        let settings = ProxySettings { https: Some("http://me:hunter2@ bad".into()), ..ProxySettings::default() };
        let error = http_client(&settings).unwrap_err();
        assert_eq!(error.to_string(), "the HTTPS_PROXY address is not a URL");
    }
}
