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
mod tests;
