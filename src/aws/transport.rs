//! The HTTP client under all SDK clients: one TLS stack (rustls with ring), and the right proxy for each request.
//!
//! Owns the choice between going direct and going through a proxy, made for every request from [`ProxySettings`], since a client
//! may talk to several hosts. It knows nothing of AWS services. The invariant: without proxy settings there is exactly one pool.

use super::proxy::ProxySettings;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use std::sync::Arc;
use url::Url;

/// A proxy address that cannot be used. The address itself is left out: it may carry a password.
#[derive(Debug, thiserror::Error)]
#[error("the {0} address is not a URL")]
pub struct BadProxy(&'static str);

/// A client that goes through the proxies of `settings`.
pub fn http_client(settings: &ProxySettings) -> Result<SharedHttpClient, BadProxy> {
    routed(settings, |address| match address {
        None => Some(pool(ProxyConfig::disabled())),
        Some(address) => ProxyConfig::all(address).ok().map(pool),
    })
}

/// The same, but certificates are not verified.
pub fn insecure_http_client(settings: &ProxySettings) -> Result<SharedHttpClient, BadProxy> {
    routed(settings, |address| {
        let proxy = address.map(reqwest::Proxy::all).transpose().ok()?;
        super::insecure::client(proxy).ok()
    })
}

/// `pool_of` makes a pool behind a proxy, or a direct one; `None` if the proxy cannot be used.
fn routed(
    settings: &ProxySettings,
    pool_of: impl Fn(Option<String>) -> Option<SharedHttpClient>,
) -> Result<SharedHttpClient, BadProxy> {
    super::install_tls();
    let direct = pool_of(None).ok_or(BadProxy("direct"))?;
    let of = |proxy: &Option<crate::model::Secret>, name| match proxy.as_ref().filter(|proxy| !proxy.is_empty()) {
        None => Ok(None),
        Some(address) => {
            let pool = pool_of(Some(with_scheme(address.expose()))).ok_or(BadProxy(name))?;
            Ok(Some((address.clone(), pool)))
        }
    };
    let proxies: Vec<_> =
        [of(&settings.http, "HTTP_PROXY")?, of(&settings.https, "HTTPS_PROXY")?].into_iter().flatten().collect();
    if proxies.is_empty() {
        return Ok(direct);
    }
    let (addresses, pools) = proxies.into_iter().unzip();
    Ok(SharedHttpClient::new(Routed { settings: settings.clone(), direct, addresses: Arc::new(addresses), pools }))
}

/// A builder of clients for this one address, for what goes without an SDK client.
pub(crate) fn reqwest_builder(settings: &ProxySettings, url: &Url) -> Result<reqwest::ClientBuilder, BadProxy> {
    super::install_tls();
    let mut builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let proxy = settings.for_url(url);
    let proxy_is_tls = proxy.is_some_and(|proxy| proxy.expose().starts_with("https://"));
    if url.scheme() == "http" && !proxy_is_tls {
        // No TLS on this way: do not load (or ask for) CA certificates.
        builder = builder.tls_certs_only([]);
    }
    if let Some(proxy) = proxy {
        // The error would quote the address, which may carry a password.
        builder = builder.proxy(reqwest::Proxy::all(with_scheme(proxy.expose())).map_err(|_| BadProxy("proxy"))?);
    }
    Ok(builder)
}

/// A client that never uses a proxy, for IMDS.
pub fn direct_client() -> SharedHttpClient {
    super::install_tls();
    pool(ProxyConfig::disabled())
}

/// `host:port` is a common way to write a proxy; it means http.
pub(crate) fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

fn pool(proxy: ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector =
            Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

#[derive(Debug)]
struct Routed {
    settings: ProxySettings,
    direct: SharedHttpClient,
    addresses: Arc<Vec<crate::model::Secret>>,
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
    addresses: Arc<Vec<crate::model::Secret>>,
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
    use crate::aws::credentials::fixed;
    use crate::aws::fake::{Answer, Fake};
    use crate::aws::sdk::{Sdk, Settings};
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

    #[test]
    fn an_unusable_proxy_is_named_without_its_password() {
        let settings = ProxySettings { https: Some("http://me:hunter2@ bad".into()), ..ProxySettings::default() };
        let error = http_client(&settings).unwrap_err();
        assert_eq!(error.to_string(), "the HTTPS_PROXY address is not a URL");
    }
}
