//! Registry credentials from Amazon ECR (spec `images.md` §6.1).
//!
//! Owns the lifetime of a token and the error texts that customers see. It pulls nothing. The invariant: at most a hundred
//! tokens are cached, and none is used in its last half hour as long as ECR issues new ones.

use crate::aws::client::cache::{Cache, Cacheable};
use crate::aws::client::call_error::CallError;
use crate::aws::client::sdk::{self, Sdk};
use crate::aws::client::signature;
use crate::aws::client::signing;
use crate::aws::identity::credentials;
use crate::aws::identity::roles::RoleCredentials;
use crate::backoff;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecr::operation::RequestId;
use aws_sdk_ecr::operation::get_authorization_token::GetAuthorizationTokenError;
use aws_sdk_ecr::types::AuthorizationData;
use base64::Engine as _;
use ecs_core::model::task::EcrAuth;
use ecs_core::model::{Failure, FailureKind, RegistryCredentials, Secret, with_causes};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The name of the failure in ECS.
const NAME: &str = "CannotPullECRContainerError";
/// Maximum number of cached tokens; the least recently used one is evicted.
const CACHE_LIMIT: usize = 100;
/// Maximum time that a token is cached, whatever its expiration.
const MAX_AGE: Duration = Duration::from_secs(12 * 3600);
/// A token is not used in its last 30 to 60 minutes. The random part keeps a fleet from refreshing at the same time.
const MARGIN: Duration = Duration::from_secs(30 * 60);
/// While ECR is unreachable, a token is used until this time before its end, since a pull takes a while.
const LAST_RESORT: Duration = Duration::from_secs(5 * 60);

/// Fetches tokens and caches them.
#[derive(Debug)]
pub struct EcrTokens {
    sdk: Sdk,
    instance: SharedCredentialsProvider,
    cache: Cache<Key, Token>,
}

/// `<credentialsId><roleArn>-<region>-<registryId>-<endpointOverride>` of the Go agent, as fields.
type Key = (String, String, EcrAuth);

#[derive(Clone, Debug)]
struct Token {
    credentials: RegistryCredentials,
    /// When the token expires or is too old. Computed when the token arrives, so that a later change of the host's clock has no
    /// effect. `None`: unknown, so the token is used for one pull only.
    ends: Option<Instant>,
}

impl Cacheable for Token {
    fn is_fresh(&self) -> bool {
        self.ends.is_some_and(|ends| Instant::now() + MARGIN + backoff::uniform(MARGIN) < ends)
    }

    fn outlives(&self, failure: &Failure) -> bool {
        failure.kind == FailureKind::Retryable && self.ends.is_some_and(|ends| Instant::now() + LAST_RESORT < ends)
    }
}

impl EcrTokens {
    /// A cache whose tokens are requested with the instance's credentials, unless the task's execution role is to be used.
    pub fn new(sdk: Sdk, instance: SharedCredentialsProvider) -> Self {
        Self { sdk, instance, cache: Cache::new(CACHE_LIMIT) }
    }

    /// The credentials for the registry of `auth`. `execution_role` is used only if `auth` requires it; `image` is for error
    /// texts.
    ///
    /// # Errors
    /// Fails if the required role is missing or has unusable keys, if the call fails, or if its answer has no valid token.
    pub async fn credentials(
        &self,
        auth: &EcrAuth,
        image: &str,
        execution_role: Option<&RoleCredentials>,
    ) -> Result<RegistryCredentials, Failure> {
        let role = match (auth.use_execution_role, execution_role) {
            (false, _) => None,
            (true, Some(role)) => Some(usable(role)?),
            (true, None) => return Err(Failure::permanent(NAME, "engine ecr credentials: not found")),
        };
        let key = match role {
            Some(role) => (role.id.as_str().to_owned(), role.role_arn.clone(), auth.clone()),
            None => (String::new(), String::new(), auth.clone()),
        };
        let token = self.cache.get(&key, self.fetch(auth, image, role)).await?;
        Ok(token.credentials)
    }

    /// Drops the tokens of a registry that has rejected one as expired. The next pull requests a new one.
    pub fn forget(&self, auth: &EcrAuth) {
        self.cache.forget(|(_, _, kept)| kept == auth);
    }

    async fn fetch(&self, auth: &EcrAuth, image: &str, role: Option<&RoleCredentials>) -> Result<Token, Failure> {
        let endpoint = self.sdk.settings.ecr_endpoint(&auth.endpoint_override);
        endpoint.map(|endpoint| endpoint.url()).transpose().map_err(|error| not_sent(&error))?;
        let provider = match role {
            Some(role) => SharedCredentialsProvider::new(credentials::fixed(
                &role.access_key_id,
                &role.secret_access_key,
                &role.session_token,
            )),
            None => self.instance.clone(),
        };
        let client = self.sdk.ecr(&auth.region, &auth.endpoint_override, provider);
        // Compat: ECR has deprecated this member for callers, but ECS names the registry of another account with it.
        #[expect(deprecated, reason = "the Go agent sends registryIds, and cross-account pulls depend on it")]
        let answer = client.get_authorization_token().registry_ids(&auth.registry_id).send().await;
        let output = answer.map_err(|error| failure_of(&error))?;
        let data = output.authorization_data.unwrap_or_default();
        let [data] = data.as_slice() else {
            let message = format!("unexpected number of results in AuthorizationData ({})", data.len());
            return Err(Failure::permanent(NAME, message));
        };
        let ends = data.expires_at.and_then(|ends| SystemTime::try_from(ends).ok());
        let lifetime = ends.map(|ends| ends.duration_since(self.sdk.signing().clock().now()).unwrap_or_default());
        let ends = lifetime.map(|lifetime| Instant::now() + lifetime.min(MAX_AGE));
        Ok(Token { credentials: decode(data, image)?, ends })
    }
}

/// The domains of ECR registries: those of the partitions, and of their dual-stack endpoints.
const DOMAINS: [&str; 10] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "on.amazonwebservices.com.cn",
    "on.amazonwebservices.eu",
    "on.aws",
    "sc2s.sgov.gov",
];

/// The registry behind a host such as `123456789012.dkr.ecr.eu-west-1.amazonaws.com` or
/// `123456789012.dkr-ecr.eu-west-1.on.aws`, with the credentials of the instance. `None`: the host is not one of ECR.
pub fn registry_of_host(host: &str) -> Option<EcrAuth> {
    let (account, rest) = host.split_once(".dkr")?;
    let rest = rest.strip_prefix(['.', '-'])?;
    let (kind, rest) = rest.split_once('.')?;
    let (region, domain) = rest.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let is_region =
        !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let is_ecr = matches!(kind, "ecr" | "ecr-fips") && is_region && DOMAINS.contains(&domain);
    (is_account && is_ecr).then(|| EcrAuth {
        registry_id: account.to_owned(),
        region: region.to_owned(),
        ..EcrAuth::default()
    })
}

/// Whether the error text of a registry means that the token has expired.
pub fn means_token_expired(text: &str) -> bool {
    text.to_ascii_lowercase().contains("authorization token has expired")
}

/// The role, if its keys can sign a request.
fn usable(role: &RoleCredentials) -> Result<&RoleCredentials, Failure> {
    if role.access_key_id.is_empty() && role.secret_access_key.is_empty() {
        let message = "container uses execution credentials, but the credentials are empty";
        return Err(Failure::permanent(NAME, message));
    }
    let keys = signature::check_keys(role.access_key_id.expose(), role.session_token.expose());
    keys.map_err(|error| not_sent(&CallError::NotSent(error.to_string())))?;
    Ok(role)
}

/// The user name and the password in an answer of ECR.
fn decode(data: &AuthorizationData, image: &str) -> Result<RegistryCredentials, Failure> {
    let Some(token) = data.authorization_token() else {
        return Err(Failure::permanent(NAME, format!("ecr auth: AuthorizationData is nil for {image}")));
    };
    let malformed = || Failure::permanent(NAME, format!("ecr auth: malformed authorization token for {image}"));
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).map_err(|_| malformed())?;
    let text = Secret::new(String::from_utf8(bytes).map_err(|_| malformed())?);
    let (username, password) = text.expose().split_once(':').ok_or_else(malformed)?;
    Ok(RegistryCredentials {
        username: username.to_owned(),
        password: password.into(),
        server_address: data.proxy_endpoint().unwrap_or_default().to_owned(),
        ..RegistryCredentials::default()
    })
}

/// The failure for a request that cannot be sent, so that no retry can succeed.
fn not_sent(error: &CallError) -> Failure {
    Failure::permanent(NAME, error.sdk_text("ECR: GetAuthorizationToken", &[]))
}

/// The text of the Go agent's SDK for a failed call, which operators search for.
fn failure_of(error: &SdkError<GetAuthorizationTokenError>) -> Failure {
    let Some(code) = error.code() else {
        // The causes name hosts and ports, never keys.
        let text = "operation error ECR: GetAuthorizationToken,";
        return match sdk::was_not_sent(error) {
            true => Failure::permanent(NAME, format!("{text} the request was not sent: {}", with_causes(error))),
            false => Failure::retryable(NAME, format!("{text} {}", with_causes(error))),
        };
    };
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let modelled = matches!(code, "ServerException" | "InvalidParameterException");
    let message = format!(
        "operation error ECR: GetAuthorizationToken, https response error StatusCode: {status}, RequestID: {}, {}{code}: {}",
        error.request_id().unwrap_or_default(),
        if modelled { "" } else { "api error " },
        error.message().unwrap_or_default(),
    );
    let is_about_keys = signing::means_keys_expired(code, error.message().unwrap_or_default());
    let passes = status >= 500 || code.contains("Throttl") || code == "TooManyRequestsException" || is_about_keys;
    if passes { Failure::retryable(NAME, message) } else { Failure::permanent(NAME, message) }
}

#[cfg(test)]
mod tests;
