//! The construction of all SDK clients (spec `registration.md` §4, `config.md` §2.1).
//!
//! Owns the HTTP client, timeouts, retries, the choice of endpoints and the `User-Agent` of every SDK call. It owns no
//! credentials and makes no calls. The invariant: every client has an explicit HTTP client and a pinned behaviour version, since
//! this build leaves the SDK's own defaults out.

use super::call_error::CallError;
use super::proxy::ProxySettings;
use super::sdk_signing::{Learning, Repeating};
use super::signing::Signing;
use super::slow_attempts::SlowAttempts;
use super::transport::{BadProxy, http_client, insecure_http_client};
use crate::input::endpoint;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::config::timeout::TimeoutConfig;
use aws_sdk_ecs::config::{BehaviorVersion, IdentityCache, Intercept, Region, StalledStreamProtectionConfig};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use std::time::Duration;
use url::Url;

/// Time limit for one attempt at the ECS API, as in the Go agent: 30 s to connect, 10 s for TLS and 2 s for the answer.
const ECS_ATTEMPT: Duration = Duration::from_secs(42);
/// Time limit for one attempt at ECR, as in the Go agent.
const ECR_ATTEMPT: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(30);
/// What an attempt may take besides its request: the credentials, which come from a cache nearly always. The limit of the request
/// must be reached first, since its error names the host.
const BESIDES: Duration = Duration::from_secs(2);
/// Number of attempts within one call of a caller: the standard number of the SDK.
const ATTEMPTS: u32 = 3;
/// Minimum number of attempts, even if `AWS_MAX_ATTEMPTS` is lower, so that a call can be signed again.
const MIN_ATTEMPTS: u32 = 2;

/// The settings of all clients, fixed at start-up. An address that is `None` or empty is not set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The region of the instance.
    pub region: String,
    /// `ECS_BACKEND_HOST`, with or without scheme.
    pub backend_host: Option<String>,
    /// `AWS_ENDPOINT_URL`.
    pub endpoint_url: Option<String>,
    /// `AWS_ENDPOINT_URL_ECS`.
    pub endpoint_url_ecs: Option<String>,
    /// `AWS_ENDPOINT_URL_ECR`.
    pub endpoint_url_ecr: Option<String>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub endpoint_url_secrets_manager: Option<String>,
    /// `AWS_ENDPOINT_URL_SSM`.
    pub endpoint_url_ssm: Option<String>,
    /// `AWS_ENDPOINT_URL_S3`.
    pub endpoint_url_s3: Option<String>,
    /// `AWS_ENDPOINT_URL_EC2`.
    pub endpoint_url_ec2: Option<String>,
    /// True: dual-stack endpoints are used (IPv6-only instances).
    pub dual_stack: bool,
    /// True: FIPS endpoints are used (`AWS_USE_FIPS_ENDPOINT`).
    pub fips: bool,
    /// True: the host is in FIPS mode, and S3 is called at its FIPS endpoints where it has them.
    pub host_fips: bool,
    /// The time correction, and the state of the instance's keys according to AWS.
    pub signing: Signing,
    /// `AWS_MAX_ATTEMPTS`; 0: the standard number of the SDK.
    pub max_attempts: u32,
    /// True: `AWS_RETRY_MODE` is `adaptive`.
    pub adaptive_retry: bool,
    /// True: certificates are not verified (`-k`).
    pub accept_insecure_cert: bool,
    /// The proxies of all clients.
    pub proxy: ProxySettings,
    /// The parts of the `User-Agent`.
    pub agent: AgentName,
}

/// The parts of the `User-Agent` that the agent sends to AWS.
#[derive(Clone, Debug, Default)]
pub struct AgentName {
    /// The version without `v`.
    pub version: String,
    /// The short commit hash of the source.
    pub hash: String,
    /// `ECS_DETAILED_OS_FAMILY` or `LINUX`.
    pub os_family: String,
}

impl AgentName {
    /// The `User-Agent` of calls to ECS.
    pub fn user_agent(&self) -> String {
        // The operator sets this text (ECS_DETAILED_OS_FAMILY), and a header accepts printable ASCII only.
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let os_family: String = self.os_family.chars().map(printable).collect();
        format!(
            "Amazon ECS Agent - v{} ({}) (linux; {os_family}) (+http://aws.amazon.com/ecs/)",
            self.version, self.hash
        )
    }

    /// The `User-Agent` of calls to other services: the same without the OS family.
    pub fn plain_user_agent(&self) -> String {
        format!("Amazon ECS Agent - v{} ({}) (linux) (+http://aws.amazon.com/ecs/)", self.version, self.hash)
    }
}

impl Settings {
    /// The address that replaces the ECS endpoint; `None` if none is set.
    pub fn ecs_endpoint(&self) -> Option<String> {
        self.ecs_override().map(|endpoint| endpoint.url)
    }

    fn ecs_override(&self) -> Option<Endpoint> {
        self.first_endpoint([
            ("ECS_BACKEND_HOST", &self.backend_host),
            ("AWS_ENDPOINT_URL_ECS", &self.endpoint_url_ecs),
        ])
    }

    /// The number of attempts that the operator requested.
    fn attempts(&self) -> u32 {
        if self.max_attempts == 0 { ATTEMPTS } else { self.max_attempts }
    }

    fn retry(&self) -> RetryConfig {
        let config = if self.adaptive_retry { RetryConfig::adaptive() } else { RetryConfig::standard() };
        config.with_max_attempts(self.attempts().max(MIN_ATTEMPTS))
    }

    /// Allows an SDK client the retries that [`Signing`] requires.
    fn repeating(&self) -> Repeating {
        Repeating { nothing_else: self.attempts() < MIN_ATTEMPTS }
    }

    fn timeouts(&self, attempt: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(CONNECT.min(attempt))
            .read_timeout(attempt)
            .operation_attempt_timeout(attempt + BESIDES)
            .operation_timeout((attempt + BESIDES) * self.attempts().max(MIN_ATTEMPTS))
            .build()
    }

    /// The address that replaces the ECR endpoint; the payload's own override takes precedence.
    pub(crate) fn ecr_endpoint(&self, override_of_payload: &str) -> Option<Endpoint> {
        let payload = Some(override_of_payload.to_owned());
        self.first_endpoint([("endpointOverride", &payload), ("AWS_ENDPOINT_URL_ECR", &self.endpoint_url_ecr)])
    }

    /// The first of these addresses that is set, otherwise `AWS_ENDPOINT_URL`; `None` if none is set.
    fn first_endpoint<const N: usize>(&self, candidates: [(&str, &Option<String>); N]) -> Option<Endpoint> {
        let all = candidates.into_iter().chain([("AWS_ENDPOINT_URL", &self.endpoint_url)]);
        let set = all.filter_map(|(origin, url)| Some((origin, url.as_deref()?.trim())));
        let (origin, url) = set.into_iter().find(|(_, url)| !url.is_empty())?;
        let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        // SDK clients accept any text. `Endpoint::url` refuses an invalid URL when a request is made.
        let url = Url::parse(&url).map_or(url, |url| endpoint::normalized(&url).to_owned());
        Some(Endpoint { url, origin: origin.to_owned() })
    }
}

/// The address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    /// The origin of the address, for errors: the variable, or the service and its region.
    pub(crate) origin: String,
}

impl Endpoint {
    /// The address as a URL for requests. The error names the origin of the address and not the address, which may contain a
    /// password.
    pub(crate) fn url(&self) -> Result<Url, CallError> {
        let wrong = |why: &str| CallError::NotSent(format!("the address of {} {why}", self.origin));
        let url = Url::parse(&self.url).map_err(|error| wrong(&format!("is no URL: {error}")))?;
        match url.has_host() && matches!(url.scheme(), "http" | "https") {
            true if url.as_str().parse::<http::Uri>().is_err() => Err(wrong("fits into no request")),
            true => Ok(url),
            false => Err(wrong("is no URL of http or https")),
        }
    }
}

/// Whether the SDK client could not build the request, or the HTTP client refused to send it.
pub fn was_not_sent<E, R>(error: &SdkError<E, R>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_user(),
        _ => false,
    }
}

/// The factory of SDK clients.
#[derive(Clone, Debug)]
pub struct Sdk {
    pub(crate) settings: Settings,
    http: SharedHttpClient,
}

impl Sdk {
    /// A factory with these settings.
    ///
    /// # Errors
    /// Fails if a proxy address is unusable, or if the HTTP client cannot be built.
    pub fn new(settings: Settings) -> Result<Self, BadProxy> {
        let make = if settings.accept_insecure_cert { insecure_http_client } else { http_client };
        let http = make(&settings.proxy)?;
        Ok(Self { settings, http })
    }

    /// The HTTP client that all clients share.
    pub fn http(&self) -> SharedHttpClient {
        self.http.clone()
    }

    /// The address that replaces the Secrets Manager endpoint; `None` if none is set.
    pub(crate) fn secrets_manager_endpoint(&self) -> Option<Endpoint> {
        let Settings { endpoint_url_secrets_manager, .. } = &self.settings;
        self.settings.first_endpoint([("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint_url_secrets_manager)])
    }

    /// The address that replaces the SSM endpoint; `None` if none is set.
    pub(crate) fn ssm_endpoint(&self) -> Option<Endpoint> {
        self.settings.first_endpoint([("AWS_ENDPOINT_URL_SSM", &self.settings.endpoint_url_ssm)])
    }

    /// The address that replaces the S3 endpoint; `None` if none is set.
    pub(crate) fn s3_endpoint(&self) -> Option<Endpoint> {
        self.settings.first_endpoint([("AWS_ENDPOINT_URL_S3", &self.settings.endpoint_url_s3)])
    }

    /// The address that replaces the ECS endpoint for a call without the SDK's client; `None` if none is set.
    pub(crate) fn ecs_endpoint(&self) -> Option<Endpoint> {
        self.settings.ecs_override()
    }

    /// The address that replaces the EC2 endpoint; `None` if none is set.
    pub(crate) fn ec2_endpoint(&self) -> Option<Endpoint> {
        self.settings.first_endpoint([("AWS_ENDPOINT_URL_EC2", &self.settings.endpoint_url_ec2)])
    }

    /// `region`, or the region of the instance if it is empty.
    pub(crate) fn region_or_own<'a>(&'a self, region: &'a str) -> &'a str {
        if region.is_empty() { &self.settings.region } else { region }
    }

    /// The time correction, and the state of the instance's keys according to AWS.
    pub fn signing(&self) -> Signing {
        self.settings.signing.clone()
    }

    /// A client of the ECS API.
    pub fn ecs(&self, credentials: SharedCredentialsProvider) -> aws_sdk_ecs::Client {
        let mut config = aws_sdk_ecs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(self.settings.region.clone()))
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .http_client(self.http.clone())
            .sleep_impl(TokioSleep::new())
            .retry_config(self.settings.retry())
            .timeout_config(self.settings.timeouts(ECS_ATTEMPT))
            .stalled_stream_protection(no_second_limit())
            .interceptor(SlowAttempts { attempts: self.settings.attempts() })
            .interceptor(UserAgent(self.settings.agent.user_agent()))
            .interceptor(Learning(self.signing()))
            .retry_classifier(self.settings.repeating())
            // All signed calls use the same clock; the SDK's own correction would be added to it.
            .time_source(self.signing().clock().clone())
            .disable_clock_skew_correction(true);
        // An explicit address is the operator's choice, so no endpoint variant is requested.
        match self.settings.ecs_endpoint() {
            Some(endpoint) => config.set_endpoint_url(Some(endpoint)),
            None => {
                config.set_use_dual_stack(Some(self.settings.dual_stack)).set_use_fips(Some(self.settings.fips));
                &mut config
            }
        };
        aws_sdk_ecs::Client::from_conf(config.build())
    }

    /// A client of ECR in `region` (empty: that of the instance). A payload's `endpoint_override` replaces the endpoint (empty:
    /// none).
    pub fn ecr(
        &self,
        region: &str,
        endpoint_override: &str,
        credentials: SharedCredentialsProvider,
    ) -> aws_sdk_ecr::Client {
        let region = self.region_or_own(region);
        let mut config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .http_client(self.http.clone())
            .sleep_impl(TokioSleep::new())
            .retry_config(self.settings.retry())
            .timeout_config(self.settings.timeouts(ECR_ATTEMPT))
            .stalled_stream_protection(no_second_limit())
            .interceptor(UserAgent(self.settings.agent.plain_user_agent()))
            .interceptor(Learning(self.signing()))
            .retry_classifier(self.settings.repeating())
            // All signed calls use the same clock; the SDK's own correction would be added to it.
            .time_source(self.signing().clock().clone())
            .disable_clock_skew_correction(true);
        // With an override, no endpoint variant is requested: the override may already be one (`https://ecr-fips.…`), and the
        // SDK refuses FIPS together with an explicit address.
        match self.settings.ecr_endpoint(endpoint_override) {
            Some(endpoint) => config.set_endpoint_url(Some(endpoint.url)),
            None => {
                config.set_use_dual_stack(Some(self.settings.dual_stack)).set_use_fips(Some(self.settings.fips));
                &mut config
            }
        };
        aws_sdk_ecr::Client::from_conf(config.build())
    }
}

/// Turns off the SDK's minimum speed of a request. It would end an attempt that still waits for DNS or a connection, and says
/// neither that nor the host. The time limits of an attempt are enough for requests of some kilobytes.
fn no_second_limit() -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::disabled()
}

/// Replaces the `User-Agent` of the SDK by ours and removes its second one.
#[derive(Debug)]
struct UserAgent(String);

impl Intercept for UserAgent {
    fn name(&self) -> &'static str {
        "UserAgent"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.remove("x-amz-user-agent");
        headers.try_insert("user-agent", self.0.clone())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{Answer, Fake};
    use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_agents_address_takes_precedence_over_the_sdks() {
        let table = [
            // (backend host, AWS_ENDPOINT_URL_ECS, AWS_ENDPOINT_URL, result)
            (Some("ecs.corp:8443"), Some("https://b"), Some("https://c"), Some("https://ecs.corp:8443")),
            (Some(" http://127.0.0.1:1 "), None, None, Some("http://127.0.0.1:1")),
            (Some(""), Some("https://b"), Some("https://c"), Some("https://b")),
            (None, None, Some("https://c"), Some("https://c")),
            (Some("HTTPS://ECS.corp/a b"), None, None, Some("https://ecs.corp/a%20b")),
            (None, None, None, None),
        ];
        for (host, ecs, all, expected) in table {
            let settings = Settings {
                backend_host: host.map(str::to_owned),
                endpoint_url_ecs: ecs.map(str::to_owned),
                endpoint_url: all.map(str::to_owned),
                ..Settings::default()
            };
            assert_eq!(settings.ecs_endpoint().as_deref(), expected);
        }
    }

    /// Records the address of a request without sending it.
    #[derive(Clone, Debug, Default)]
    struct Addressed(Arc<Mutex<String>>);

    impl Intercept for Addressed {
        fn name(&self) -> &'static str {
            "Addressed"
        }

        fn read_before_transmit(
            &self,
            context: &BeforeTransmitInterceptorContextRef<'_>,
            _components: &RuntimeComponents,
            _config: &mut ConfigBag,
        ) -> Result<(), BoxError> {
            context.request().uri().clone_into(&mut self.0.lock().unwrap());
            Err("not sent".into())
        }
    }

    #[tokio::test]
    async fn ecs_and_ecr_are_called_at_fips_endpoints() {
        let keys = || {
            let keys = aws_credential_types::Credentials::new("AKID", "s", None, None, "test");
            SharedCredentialsProvider::new(keys)
        };
        for (region, fips, host_fips, ecs, ecr) in [
            ("us-west-2", true, false, "ecs-fips.us-west-2.amazonaws.com", "api.ecr-fips.us-west-2.amazonaws.com"),
            ("us-gov-east-1", true, false, "ecs-fips.us-gov-east-1.", "api.ecr-fips.us-gov-east-1."),
            ("us-west-2", false, false, "ecs.us-west-2.amazonaws.com", "api.ecr.us-west-2.amazonaws.com"),
            // The FIPS mode of the host affects S3 only.
            ("us-west-2", false, true, "ecs.us-west-2.amazonaws.com", "api.ecr.us-west-2.amazonaws.com"),
        ] {
            let settings =
                Settings { region: region.to_owned(), fips, host_fips, max_attempts: 1, ..Settings::default() };
            let (sdk, addressed) = (Sdk::new(settings).unwrap(), Addressed::default());
            let call = sdk.ecs(keys()).list_clusters().customize().interceptor(addressed.clone());
            call.send().await.unwrap_err();
            assert!(addressed.0.lock().unwrap().starts_with(&format!("https://{ecs}")), "{region} {addressed:?}");
            let call = sdk.ecr("", "", keys()).get_authorization_token().customize().interceptor(addressed.clone());
            call.send().await.unwrap_err();
            assert!(addressed.0.lock().unwrap().starts_with(&format!("https://{ecr}")), "{region} {addressed:?}");
        }
    }

    #[test]
    fn any_name_of_the_system_fits_into_a_header() {
        let name = AgentName { os_family: "Größe\n\u{1b}OS 1".to_owned(), ..AgentName::default() };
        assert!(name.user_agent().contains("(linux; Gr??e??OS 1)"), "{}", name.user_agent());
    }

    #[test]
    fn unsendable_and_lost_requests_are_distinguished() {
        use aws_smithy_runtime_api::client::result::ConnectorError;
        let dispatch = SdkError::<(), ()>::dispatch_failure;
        assert!(was_not_sent(&SdkError::<(), ()>::construction_failure("no")));
        assert!(was_not_sent(&dispatch(ConnectorError::user("no".into()))));
        assert!(!was_not_sent(&dispatch(ConnectorError::io("gone".into()))));
        assert!(!was_not_sent(&dispatch(ConnectorError::timeout("late".into()))));
        assert!(!was_not_sent(&SdkError::<(), ()>::timeout_error("late")));
    }

    #[tokio::test]
    async fn an_address_reaches_the_sdk_in_its_normal_form() {
        let fake = Fake::start(|_| Answer::json(200, &serde_json::json!({}))).await;
        let path = |path: &str| format!("{}/{path}", fake.url().replace("http://", "HTTP://"));
        let keys = || SharedCredentialsProvider::new(fixed(&"AKID".into(), &"s".into(), &"".into()));
        let settings =
            Settings { backend_host: Some(path("a b")), region: "us-west-2".to_owned(), ..Settings::default() };
        let sdk = Sdk::new(settings).unwrap();
        sdk.ecs(keys()).list_clusters().send().await.unwrap();
        sdk.ecr("", &path("<\u{e4}>"), keys()).get_authorization_token().send().await.unwrap();
        let requests = fake.requests();
        let paths: Vec<&str> = requests.iter().map(|request| request.path.trim_end_matches('/')).collect();
        assert_eq!(paths, ["/a%20b", "/%3C%C3%A4%3E"]);
    }

    #[test]
    fn an_endpoint_in_the_payload_takes_precedence_for_ecr() {
        let settings = Settings { endpoint_url: Some("http://all".to_owned()), ..Settings::default() };
        for (payload, wanted) in [
            ("ecr.example.com", "https://ecr.example.com"),
            ("", "http://all"),
            ("ecr.ex\u{e4}mple/", "https://ecr.xn--exmple-cua"),
            ("https://ecr-fips.us-east-1.amazonaws.com", "https://ecr-fips.us-east-1.amazonaws.com"),
        ] {
            assert_eq!(settings.ecr_endpoint(payload).unwrap().url, wanted);
        }
    }
}
