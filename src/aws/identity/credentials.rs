//! The credentials of the instance, which are the agent's own identity towards AWS (spec `config.md` §2.1).
//!
//! Owns the chain: keys from the configuration, then environment, profile, web identity, container, IMDS, then a file that
//! another program renews (on external instances this file comes first). `cache` keeps the result, which all SDK clients and the
//! websocket share. [`super::roles`] has the role credentials of tasks. The invariant: if a source that the operator has configured
//! fails, the identity of the instance is not used instead; only the file of another program is tried then.

mod cache;

use super::imds;
use super::rotating::Rotating;
use crate::aws::client::signing::Signing;
use crate::aws::client::transport;
use crate::aws::client::words::{self, NoCredentials};
use crate::lane::{Lane, Settings as LaneSettings};
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_ecs::config::{BehaviorVersion, Region};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use cache::Cached;
use ecs_core::model::{Secret, with_causes};
use std::path::PathBuf;
use std::time::Duration;

const IMDS_TIMEOUT: Duration = Duration::from_secs(2);
/// The thread that reads the file which another program renews.
const ROTATING: LaneSettings = LaneSettings { threads: 1, spare: 1, limit: Duration::from_secs(5) };

/// The settings of the chain.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The region of the instance, for STS.
    pub region: String,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` from the agent's configuration file, which the SDK
    /// does not read; `None` if they are not set.
    pub keys: Option<Keys>,
    /// True: an external instance (ECS Anywhere), where the chain has another order.
    pub external: bool,
    /// The credentials file that another program renews, such as the SSM agent.
    pub rotating_file: PathBuf,
    /// `ECS_ALTERNATE_CREDENTIAL_PROFILE`: the profile in that file.
    pub rotating_profile: String,
    /// The address of IMDS. `blackholed` has no effect here: the credentials of the instance role are requested nevertheless.
    pub imds: imds::Settings,
    /// True: STS is called at its FIPS endpoints (`AWS_USE_FIPS_ENDPOINT`).
    pub fips: bool,
    /// True: STS is called at its dual-stack endpoints.
    pub dual_stack: bool,
    /// The clock for signatures, and the state of these credentials according to AWS.
    pub signing: Signing,
}

/// Long- or short-lived keys given by the operator.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The access key id.
    pub access_key_id: Secret,
    /// The secret access key.
    pub secret_access_key: Secret,
    /// The session token; empty: none.
    pub session_token: Secret,
}

/// Static credentials for the SDK.
pub fn fixed(access_key_id: &Secret, secret_access_key: &Secret, session_token: &Secret) -> Credentials {
    let token = Some(session_token.expose().to_owned()).filter(|token| !token.is_empty());
    Credentials::new(access_key_id.expose(), secret_access_key.expose(), token, None, "fixed")
}

/// The cached credentials of the instance. `http` is used for STS; IMDS is always called without a proxy.
///
/// # Errors
/// Fails if the address of IMDS is not valid. No credentials are fetched yet.
pub async fn instance_chain(
    settings: Settings,
    http: SharedHttpClient,
) -> Result<SharedCredentialsProvider, CredentialsError> {
    if let Some(keys) = &settings.keys {
        let fixed = fixed(&keys.access_key_id, &keys.secret_access_key, &keys.session_token);
        return Ok(SharedCredentialsProvider::new(fixed));
    }
    let config = ProviderConfig::empty()
        .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
        .with_region(Some(Region::new(settings.region.clone())))
        .with_use_fips(Some(settings.fips))
        .with_use_dual_stack(Some(settings.dual_stack))
        .with_sleep_impl(TokioSleep::new());
    let http_config = config.clone().with_http_client(http);
    let rotating = Rotating {
        file: settings.rotating_file,
        profile: settings.rotating_profile,
        config: http_config.clone(),
        lane: Lane::new("credentials file", ROTATING),
    };
    let imds = aws_config::imds::Client::builder()
        .configure(&config.clone().with_http_client(transport::direct_client()))
        .endpoint(settings.imds.endpoint())
        .map_err(CredentialsError::invalid_configuration)?
        .connect_timeout(IMDS_TIMEOUT)
        .read_timeout(IMDS_TIMEOUT)
        .build();
    let rotating = (Kind::RotatingFile, SharedCredentialsProvider::new(rotating));
    let profile = (Kind::Profile, SharedCredentialsProvider::new(Profile(http_config.clone())));
    let role = ImdsCredentialsProvider::builder().imds_client(imds).configure(&config).build();
    let role = (Kind::InstanceRole, SharedCredentialsProvider::new(role));
    let chain = if settings.external {
        vec![rotating, profile, role]
    } else {
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&http_config).build();
        let container = EcsCredentialsProvider::builder().configure(&http_config).build();
        vec![
            (Kind::Environment, SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new())),
            profile,
            (Kind::WebIdentity, SharedCredentialsProvider::new(web_identity)),
            (Kind::Container, SharedCredentialsProvider::new(container)),
            role,
            rotating,
        ]
    };
    Ok(SharedCredentialsProvider::new(Cached::new(FirstOf(chain), settings.signing)))
}

/// The profile. The provider of the SDK reports a fault of the file only once, so each call has a provider of its own.
#[derive(Debug)]
struct Profile(ProviderConfig);

impl ProvideCredentials for Profile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let provider = ProfileFileCredentialsProvider::builder().configure(&self.0).build();
        future::ProvideCredentials::new(async move { provider.provide_credentials().await })
    }
}

/// Providers in order. The first that yields keys is used.
#[derive(Debug)]
struct FirstOf(Vec<(Kind, SharedCredentialsProvider)>);

/// A source of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Environment,
    Profile,
    WebIdentity,
    Container,
    InstanceRole,
    RotatingFile,
}

impl Kind {
    /// Why this source has no credentials. Of the causes only those that this crate has worded: others may quote the content of a
    /// file.
    fn reason(self, error: &CredentialsError) -> String {
        let (name, absent) = match self {
            Self::Environment => ("the environment", "not in the environment"),
            Self::Profile => ("the profile", "no profile (AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE)"),
            Self::WebIdentity => ("the web identity", "no web identity"),
            Self::Container => ("the container's endpoint", "no endpoint of a container"),
            Self::InstanceRole => return without_role(error).to_owned(),
            Self::RotatingFile => ("the file that another program renews", "no file that another program renews"),
        };
        match words::worded(error) {
            Some(cause) => format!("{name}: {cause}"),
            None if is_absent(error) => absent.to_owned(),
            None => format!("{name}: {error}"),
        }
    }

    /// After a failure of the first source, the second one would be another identity than the one that is configured.
    fn forbids(self, next: Self) -> bool {
        matches!(self, Self::Profile | Self::WebIdentity | Self::Container) && next != Self::RotatingFile
    }
}

/// The source is not configured.
fn is_absent(error: &CredentialsError) -> bool {
    matches!(error, CredentialsError::CredentialsNotLoaded(_))
}

/// Why there are no credentials of the instance role. The provider of the SDK tells this only in its texts.
fn without_role(error: &CredentialsError) -> &'static str {
    let text = with_causes(error);
    if text.contains("received 404") {
        "the instance has no role"
    } else if text.contains("error response") {
        "the instance metadata service answered with an error"
    } else if text.contains("IMDS disabled") {
        "the instance metadata service is switched off (AWS_EC2_METADATA_DISABLED)"
    } else if text.contains("could not communicate") || text.contains("timed out") || text.contains("timeout") {
        "the instance metadata service did not answer"
    } else {
        "the instance metadata service answered with an error"
    }
}

impl FirstOf {
    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let (mut reasons, mut failed): (_, Option<Kind>) = (Vec::new(), None);
        for (kind, provider) in &self.0 {
            if failed.is_some_and(|failed| failed.forbids(*kind)) {
                continue;
            }
            match provider.provide_credentials().await {
                Ok(credentials) => {
                    if failed.is_some() {
                        let error = reasons.join("; ");
                        tracing::warn!(
                            error,
                            "the configured source of credentials failed; those of another program are used"
                        );
                    }
                    return Ok(credentials);
                }
                Err(error) => {
                    failed = failed.or((!is_absent(&error)).then_some(*kind));
                    reasons.push(kind.reason(&error));
                }
            }
        }
        Err(CredentialsError::not_loaded(NoCredentials(format!("no AWS credentials: {}", reasons.join("; ")))))
    }
}

impl ProvideCredentials for FirstOf {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::client::clock::tests::{http_date, is_skewed};
    use crate::aws::tests::fake::{Answer, Fake};

    fn lane() -> Lane {
        Lane::new("test", ROTATING)
    }

    #[tokio::test]
    async fn keys_in_the_configuration_take_precedence() {
        let keys = Keys { access_key_id: "AKID".into(), secret_access_key: "shh".into(), session_token: "".into() };
        let settings = Settings { keys: Some(keys), ..Settings::default() };
        let provider = instance_chain(settings, transport::direct_client()).await.unwrap();
        let credentials = provider.provide_credentials().await.unwrap();
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("AKID", None));
    }

    /// Sends every request to the fake, whatever its host.
    fn everything_to(fake: &Fake) -> SharedHttpClient {
        use aws_smithy_runtime_api::client::http::{
            HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector,
        };
        use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

        #[derive(Debug)]
        struct Redirected(SharedHttpConnector, String);
        impl HttpConnector for Redirected {
            fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
                request.set_uri(self.1.clone()).unwrap();
                self.0.call(request)
            }
        }
        let (direct, url) = (transport::direct_client(), format!("{}/", fake.url()));
        aws_smithy_runtime_api::client::http::http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Redirected(direct.http_connector(settings, components), url.clone()))
        })
    }

    #[tokio::test]
    async fn a_call_of_sts_is_repeated_with_its_time() {
        let fake = Fake::start(|request| {
            let code = "SignatureDoesNotMatch";
            let refused = format!("<ErrorResponse><Error><Code>{code}</Code><Message>Signature expired</Message></Error></ErrorResponse>");
            let good = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASSUMED</AccessKeyId>\
                <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
                </Credentials></AssumeRoleResult></AssumeRoleResponse>";
            match is_skewed(request, 3 * 3600) {
                true => Answer::text(403, &refused).dated(http_date(3 * 3600)),
                false => Answer::text(200, good).dated(http_date(3 * 3600)),
            }
        })
        .await;
        let file = File::new("assumed");
        let role = "[other]\nrole_arn=arn:aws:iam::123456789012:role/r\nsource_profile=base\n";
        std::fs::write(&file.0, format!("{role}[base]\naws_access_key_id=AKID\naws_secret_access_key=s\n")).unwrap();
        let config = ProviderConfig::empty()
            .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
            .with_region(Some(Region::new("us-west-2")))
            .with_http_client(everything_to(&fake))
            .with_sleep_impl(TokioSleep::new());
        let rotating = Rotating { file: file.0.clone(), profile: "other".to_owned(), config, lane: lane() };
        let keys = rotating.provide_credentials().await.unwrap();
        assert_eq!((keys.access_key_id(), fake.requests().len()), ("ASSUMED", 2));
    }

    /// A separate credentials file for one test.
    struct File(PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("ecs-credentials-{}-{name}", std::process::id())))
        }

        fn write(&self, key: &str) {
            let text = format!("[default]\naws_access_key_id=D{key}\naws_secret_access_key=s\n");
            let other = format!("[mine]\naws_access_key_id=M{key}\naws_secret_access_key=s\naws_session_token=t\n");
            std::fs::write(&self.0, text + &other).unwrap();
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn empty() -> ProviderConfig {
        ProviderConfig::empty().with_http_client(transport::direct_client()).with_sleep_impl(TokioSleep::new())
    }

    fn rotating(file: &File, profile: &str) -> Rotating {
        Rotating { file: file.0.clone(), profile: profile.to_owned(), config: empty(), lane: lane() }
    }

    #[tokio::test]
    async fn a_renewed_file_is_read_at_the_next_request() {
        let file = File::new("renewed");
        assert!(rotating(&file, "default").provide_credentials().await.is_err(), "not there yet");
        let (default, mine) = (rotating(&file, "default"), rotating(&file, "mine"));
        for key in ["1", "2"] {
            file.write(key);
            let id = |found: Credentials| found.access_key_id().to_owned();
            assert_eq!(id(default.provide_credentials().await.unwrap()), format!("D{key}"));
            assert_eq!(id(mine.provide_credentials().await.unwrap()), format!("M{key}"));
        }
        let missing = rotating(&file, "nobody").provide_credentials().await;
        assert!(missing.is_err());
    }

    #[tokio::test]
    async fn outside_ec2_the_file_takes_precedence_over_the_role() {
        let fake = instance_role().await;
        let file = File::new("external");
        let ask = |external: bool| {
            let imds = imds::Settings { endpoint: Some(fake.url()), blackholed: false };
            let rotating_file = file.0.clone();
            async move {
                let settings = Settings {
                    region: "us-west-2".to_owned(),
                    external,
                    rotating_file,
                    rotating_profile: "default".to_owned(),
                    imds,
                    ..Settings::default()
                };
                let provider = instance_chain(settings, transport::direct_client()).await.unwrap();
                provider.provide_credentials().await.unwrap().access_key_id().to_owned()
            }
        };
        file.write("1");
        assert_eq!((ask(true).await, ask(false).await), ("D1".to_owned(), "ASIAROLE".to_owned()));
        std::fs::write(&file.0, "[default\nhunter2").unwrap();
        assert_eq!(ask(true).await, "ASIAROLE");
    }

    #[tokio::test]
    async fn without_credentials_the_error_names_each_source() {
        let file = File::new("none");
        std::fs::write(&file.0, "[default\nhunter2").unwrap();
        let config = empty();
        let rotating = Rotating { file: file.0.clone(), profile: "default".to_owned(), config, lane: lane() };
        let chain = FirstOf(vec![(Kind::RotatingFile, SharedCredentialsProvider::new(rotating))]);
        let error = chain.credentials().await.unwrap_err();
        let text = words::credentials_error(&error);
        assert!(text.starts_with("no AWS credentials: the file that another program renews: "), "{text}");
        let missing = PathBuf::from("/nonexistent/credentials");
        let rotating = Rotating { file: missing, profile: "default".to_owned(), config: empty(), lane: lane() };
        let chain = FirstOf(vec![(Kind::RotatingFile, SharedCredentialsProvider::new(rotating))]);
        let absent = words::credentials_error(&chain.credentials().await.unwrap_err());
        let wanted = "no AWS credentials: the file that another program renews: /nonexistent/credentials is not there";
        assert_eq!(absent, wanted);
        assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
    }

    /// The three cases in which the instance yields no credentials need different remedies.
    #[tokio::test]
    async fn a_missing_role_is_not_a_silent_metadata_service() {
        let no_role = Fake::start(|request| match request.path.as_str() {
            "/latest/api/token" => Answer::text(200, "tok"),
            _ => Answer::text(404, ""),
        })
        .await;
        let broken = Fake::start(|_| Answer::text(500, "")).await;
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        for (endpoint, wanted) in [
            (no_role.url(), "the instance has no role"),
            (broken.url(), "the instance metadata service answered with an error"),
            (closed, "the instance metadata service did not answer"),
        ] {
            let imds = imds::Settings { endpoint: Some(endpoint), blackholed: false };
            let settings = Settings {
                region: "us-west-2".to_owned(),
                rotating_file: "/nonexistent/credentials".into(),
                rotating_profile: "default".to_owned(),
                imds,
                ..Settings::default()
            };
            let provider = instance_chain(settings, transport::direct_client()).await.unwrap();
            let text = words::credentials_error(&provider.provide_credentials().await.unwrap_err());
            let sources = format!(
                "no AWS credentials: not in the environment; no profile (AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE); \
                 no web identity; no endpoint of a container; {wanted}; the file that another program renews: \
                 /nonexistent/credentials is not there"
            );
            assert_eq!(text, sources);
        }
    }

    /// Otherwise the agent would go on as another identity after one failed call.
    #[tokio::test]
    async fn a_configured_source_that_fails_is_not_replaced_by_the_role() {
        #[derive(Debug)]
        struct Source(fn() -> Result<Credentials, CredentialsError>);
        impl ProvideCredentials for Source {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                future::ProvideCredentials::ready((self.0)())
            }
        }
        fn keys(id: &str) -> Result<Credentials, CredentialsError> {
            Ok(fixed(&id.into(), &"s".into(), &"".into()))
        }
        let absent: fn() -> _ = || Err(CredentialsError::not_loaded_no_source());
        let broken: fn() -> _ = || Err(CredentialsError::provider_error("STS did not answer"));
        let (role, rotating): (fn() -> _, fn() -> _) = (|| keys("ROLE"), || keys("FILE"));
        for (profile, rotating, wanted) in
            [(absent, rotating, Some("ROLE")), (broken, rotating, Some("FILE")), (broken, absent, None)]
        {
            let source = |source| SharedCredentialsProvider::new(Source(source));
            let chain = FirstOf(vec![
                (Kind::Environment, source(absent)),
                (Kind::Profile, source(profile)),
                (Kind::InstanceRole, source(role)),
                (Kind::RotatingFile, source(rotating)),
            ]);
            let found = chain.credentials().await.ok();
            assert_eq!(found.as_ref().map(Credentials::access_key_id), wanted);
        }
    }

    #[tokio::test]
    async fn the_instance_role_is_fetched_once_from_imds() {
        let fake = instance_role().await;
        let imds = imds::Settings { endpoint: Some(fake.url()), blackholed: false };
        let settings = Settings { region: "us-west-2".to_owned(), imds, ..Settings::default() };
        let provider = instance_chain(settings, transport::direct_client()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "ASIAROLE");
        }
        assert_eq!(fake.requests().iter().filter(|r| r.path.ends_with("ecsInstanceRole")).count(), 1);
    }

    async fn instance_role() -> Fake {
        Fake::start(|request| match request.path.as_str() {
            "/latest/api/token" => Answer::text(200, "tok"),
            "/latest/meta-data/iam/security-credentials/" => Answer::text(200, "ecsInstanceRole"),
            "/latest/meta-data/iam/security-credentials/ecsInstanceRole" => Answer::json(
                200,
                &serde_json::json!({
                    "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAROLE", "SecretAccessKey": "x",
                    "Token": "y", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2999-01-01T00:00:00Z"
                }),
            ),
            _ => Answer::text(404, ""),
        })
        .await
    }
}
