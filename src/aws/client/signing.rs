//! Corrections of the signing time and renewal of keys after refused calls.
//!
//! Every signed call uses [`Signing`]: calls that this crate signs through [`Signing::call`], calls of SDK clients through
//! `sdk_signing`. (The exception is STS, which the SDK's own credentials providers call.) Owns the decision whether a refused
//! call is to be signed again: if the clocks differ, or if there may be newer keys. It signs and sends nothing itself. The
//! invariant: only a refused call changes the time correction or makes keys count as expired, so a wrong date in a successful
//! answer does no harm.

use super::clock::ServiceClock;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use ecs_core::model::Secret;
use reqwest::header::{AGE, DATE, HeaderMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Time limit for the provider of the keys to sign with.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(60);
/// Minimum time between two refusals that lead to a renewal of the instance's credentials. It is also the pause after a source
/// has returned the rejected credentials again.
pub(crate) const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// The error codes of AWS services for keys that have expired or are unknown.
const KEY_CODES: [&str; 9] = [
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestExpired",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

/// The time correction and the state of the instance's keys; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    clock: ServiceClock,
    keys: Arc<Mutex<InstanceKeys>>,
}

/// The refusal of a signed call.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The header `Date` of the answer; `None` if it has none, or may come from a cache.
    pub date: Option<&'a str>,
    /// The code of the error, such as `ExpiredTokenException`; may be empty.
    pub code: &'a str,
    /// The text of the error.
    pub message: &'a str,
}

/// An error of a call that may be the refusal of its signature.
pub trait MayBeRefusal {
    /// The refusal; `None` if the error is not an answer of AWS.
    fn refusal(&self) -> Option<Refusal<'_>>;
}

/// The access key ids of the instance's credentials. Those of task roles are not included, since ECS renews them.
#[derive(Debug, Default)]
struct InstanceKeys {
    /// The current key id; empty before the first fetch.
    current: Secret,
    /// The previous key id; empty if there was none.
    previous: Secret,
    /// True: AWS rejected the current key as expired, and the provider has not been called since.
    is_refused: bool,
    /// When a refusal last led to a renewal; `None` if none has. New keys do not reset it, since a provider may issue new ones
    /// at each request.
    renewal_requested: Option<Instant>,
}

impl Signing {
    /// The clock for signatures.
    pub fn clock(&self) -> &ServiceClock {
        &self.clock
    }

    /// Makes a signed call: `attempt` gets the keys and the time to sign with. If its answer shows that either was wrong, a
    /// second attempt is made with newer keys and the corrected time.
    ///
    /// # Errors
    /// Fails with the error of the last attempt, or with that of the provider if it yields no keys within a minute.
    pub async fn call<T, E, F>(
        &self,
        provider: &impl ProvideCredentials,
        attempt: impl Fn(Credentials, SystemTime) -> F,
    ) -> Result<T, E>
    where
        E: MayBeRefusal + From<CredentialsError>,
        F: Future<Output = Result<T, E>>,
    {
        let keys = credentials(provider).await?;
        let signed_at = self.clock.now();
        let error = match attempt(keys.clone(), signed_at).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(refusal) = error.refusal() else { return Err(error) };
        let other_time = self.clock.learn(signed_at, refusal.status, refusal.date);
        if !other_time && !self.may_have_newer_keys(keys.access_key_id(), &refusal) {
            return Err(error);
        }
        let Ok(newer) = credentials(provider).await else { return Err(error) };
        if !other_time && newer.access_key_id() == keys.access_key_id() {
            return Err(error);
        }
        attempt(newer, self.clock.now()).await
    }

    /// Learns from the refusal of a call that was signed at this time with this access key id. True: the call may succeed if it
    /// is signed again.
    pub(crate) fn learn(&self, signed_at: SystemTime, key_id: &str, refusal: &Refusal<'_>) -> bool {
        self.clock.learn(signed_at, refusal.status, refusal.date) || self.may_have_newer_keys(key_id, refusal)
    }

    /// Notes the refusal if it is about expired keys of the instance. True: newer keys are available or will be requested.
    fn may_have_newer_keys(&self, key_id: &str, refusal: &Refusal<'_>) -> bool {
        means_keys_expired(refusal.code, refusal.message) && self.keys().note_refusal(key_id)
    }

    /// Whether AWS rejected the instance's credentials as expired, so that they must be renewed before use.
    pub(crate) fn keys_are_refused(&self) -> bool {
        self.keys().is_refused
    }

    /// Notes that the provider of the instance's credentials was called. `None`: it yielded no new ones.
    pub(crate) fn note_keys(&self, key_id: Option<&str>) {
        self.keys().note_keys(key_id);
    }

    fn keys(&self) -> MutexGuard<'_, InstanceKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InstanceKeys {
    /// Notes that AWS rejected this key as expired. True: newer keys are available or will be requested.
    fn note_refusal(&mut self, key_id: &str) -> bool {
        if key_id.is_empty() || key_id != self.current.expose() {
            return !key_id.is_empty() && key_id == self.previous.expose();
        }
        let is_too_soon = self.renewal_requested.is_some_and(|requested| requested.elapsed() < RENEWAL_INTERVAL);
        if !self.is_refused && !is_too_soon {
            tracing::warn!("AWS rejects the credentials of this instance as expired; newer ones are requested");
            self.is_refused = true;
            self.renewal_requested = Some(Instant::now());
        }
        self.is_refused
    }

    fn note_keys(&mut self, key_id: Option<&str>) {
        self.is_refused = false;
        if let Some(key_id) = key_id.filter(|key_id| *key_id != self.current.expose()) {
            self.previous = std::mem::replace(&mut self.current, Secret::from(key_id));
        }
    }
}

/// Whether this error of an AWS service means that the keys have expired or are unknown.
pub fn means_keys_expired(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let token_is_rejected =
        message.contains("security token") && (message.contains("expired") || message.contains("invalid"));
    KEY_CODES.contains(&code)
        || token_is_rejected
        || (code.starts_with("InvalidSignature") && message.contains("expired"))
}

/// The `Date` of an answer from AWS; `None` if the answer has none, or is from a cache (it has an `Age`).
pub fn date_of(headers: &HeaderMap) -> Option<String> {
    let date = headers.get(DATE).filter(|_| !headers.contains_key(AGE))?;
    date.to_str().ok().map(str::to_owned)
}

/// The keys of the provider, or its error; a timeout counts as one.
async fn credentials(provider: &impl ProvideCredentials) -> Result<Credentials, CredentialsError> {
    let keys = tokio::time::timeout(CREDENTIALS_LIMIT, provider.provide_credentials()).await;
    keys.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(CREDENTIALS_LIMIT)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::client::clock::tests::{http_date, is_skewed};
    use crate::aws::client::sdk::Sdk;
    use crate::aws::identity::{credentials, imds, tags};
    use crate::aws::services::ecr::EcrTokens;
    use crate::aws::services::s3::{self, Object};
    use crate::aws::services::{secrets_manager, ssm};
    use crate::aws::tests::fake::{self, Answer, Fake, Request};
    use aws_credential_types::provider::SharedCredentialsProvider;
    use ecs_core::model::FailureKind;
    use ecs_core::model::resource::{SecretKey, SecretProvider};
    use ecs_core::model::task::EcrAuth;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn errors_that_mean_expired_keys() {
        let token = "The security token included in the request is";
        let table = [
            ("ExpiredToken", "", true),
            ("ExpiredTokenException", "", true),
            ("UnrecognizedClientException", "", true),
            ("RequestExpired", "", true),
            ("InvalidClientTokenId", "", true),
            ("InvalidSignatureException", "Signature expired: 20261128T1 is now earlier than 20261128T2", true),
            ("InvalidSignatureException", "The request signature we calculated does not match", false),
            ("AccessDeniedException", &format!("{token} expired"), true),
            ("", &format!("{token} invalid."), true),
            ("AccessDeniedException", "User: x is not authorized to perform: ssm:GetParameters", false),
            ("ThrottlingException", "Rate exceeded", false),
        ];
        for (code, message, wanted) in table {
            assert_eq!(means_keys_expired(code, message), wanted, "{code} {message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_renewed_once_a_minute_at_most() {
        let mut keys = InstanceKeys::default();
        assert!(!keys.note_refusal("ONE"), "not the keys of the instance");
        keys.note_keys(Some("ONE"));
        assert!(
            keys.note_refusal("ONE") && keys.note_refusal("ONE"),
            "all calls that were made with the key may be repeated"
        );
        assert!(keys.is_refused && !keys.note_refusal("ROLE"));
        keys.note_keys(Some("ONE"));
        assert!(!keys.note_refusal("ONE") && !keys.is_refused, "they were requested less than a minute ago");
        tokio::time::advance(RENEWAL_INTERVAL).await;
        assert!(keys.note_refusal("ONE"));
        keys.note_keys(Some("TWO"));
        assert!(
            keys.note_refusal("ONE") && !keys.is_refused,
            "a late refusal of the previous key does not affect the new one"
        );
        assert!(!keys.note_refusal("TWO") && !keys.is_refused, "new keys do not shorten the interval");
        tokio::time::advance(RENEWAL_INTERVAL).await;
        assert!(keys.note_refusal("TWO") && keys.is_refused);
        keys.note_keys(None);
        assert!(!keys.note_refusal("TWO"));
    }

    /// All kinds of signed calls, except the handshake of the websocket.
    const CALLS: [&str; 7] = ["ecs", "ecr", "ecr with a role", "ec2", "ssm", "secrets manager", "s3"];

    /// Makes the call with this name. The error is the text of the call's error.
    async fn call(name: &str, sdk: &Sdk, instance: &SharedCredentialsProvider) -> Result<(), String> {
        let role = fake::role("exec");
        let key = |provider, value_from: &str| {
            [SecretKey { provider, value_from: value_from.to_owned(), region: String::new() }]
        };
        let parameter = key(SecretProvider::Ssm, "/p");
        let secret = key(SecretProvider::SecretsManager, "arn:aws:secretsmanager:us-west-2:1:secret:s");
        let object = Object { bucket: "bucket", key: "k" };
        let tokens = EcrTokens::new(sdk.clone(), instance.clone());
        let auth = EcrAuth { use_execution_role: name == "ecr with a role", ..EcrAuth::default() };
        let text = |error: &dyn std::error::Error| ecs_core::model::with_causes(error);
        match name {
            "ecs" => sdk.ecs(instance.clone()).list_clusters().send().await.map(drop).map_err(|error| text(&error)),
            "ec2" => tags::instance_tags(sdk, instance, "i-1").await.map(drop).map_err(|error| text(&error)),
            "ssm" => ssm::parameters(sdk, &parameter, Some(&role)).await.map(drop).map_err(|error| error.to_string()),
            "secrets manager" => {
                let found = secrets_manager::secrets(sdk, &secret, Some(&role)).await;
                found.map(drop).map_err(|error| error.to_string())
            }
            "s3" => s3::get(sdk, &object, &role).await.map(drop).map_err(|error| text(&error)),
            _ => tokens.credentials(&auth, "i", Some(&role)).await.map(drop).map_err(|error| error.to_string()),
        }
    }

    /// The answer of AWS to [`call`].
    fn good(request: &Request) -> Answer {
        match (request.method.as_str(), request.operation()) {
            ("HEAD", _) => Answer::text(200, ""),
            ("GET", _) => Answer::text(200, "A=1"),
            (_, "GetParameters") => Answer::json(200, &json!({"Parameters": [{"Name": "/p", "Value": "v"}]})),
            (_, "GetSecretValue") => Answer::json(200, &json!({"SecretString": "s"})),
            (_, "ListClusters") => Answer::json(200, &json!({"clusterArns": []})),
            (_, "GetAuthorizationToken") => {
                Answer::json(200, &json!({"authorizationData": [{"authorizationToken": "QVdTOng="}]}))
            }
            _ => Answer::text(200, "<DescribeTagsResponse></DescribeTagsResponse>"),
        }
    }

    /// A refusal in the format of the called service.
    fn refusal(request: &Request, code: &str) -> Answer {
        match (request.operation(), request.header("authorization").is_some_and(|value| value.contains("/ec2/"))) {
            ("", true) => {
                Answer::text(403, &format!("<Response><Errors><Error><Code>{code}</Code></Error></Errors></Response>"))
            }
            ("", false) => Answer::text(403, &format!("<Error><Code>{code}</Code></Error>")),
            _ => Answer::error(400, code, ""),
        }
    }

    fn keys() -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Credentials::new("AKID", "s", None, None, "test"))
    }

    #[tokio::test]
    async fn every_call_is_signed_again_with_the_time_of_aws() {
        for (ahead, code) in [(3 * 3600, "RequestTimeTooSkewed"), (-3 * 3600, "InvalidSignatureException")] {
            let fake = Fake::start(move |request| match is_skewed(request, ahead) {
                true => refusal(request, code).dated(http_date(ahead)),
                false => good(request).dated(http_date(ahead)),
            })
            .await;
            for name in CALLS {
                // Each call has its own clock: with a shared one, only the first call would be refused.
                let sdk = Sdk::new(fake::settings(&fake)).unwrap();
                assert_eq!(call(name, &sdk, &keys()).await, Ok(()), "{name} {code}");
                let off = sdk.signing().clock().now().duration_since(SystemTime::now()).map_or(-1, |_| 1);
                assert_eq!(off, ahead.signum(), "{name}: the correction applies to all calls");
            }
            let sdk = Sdk::new(fake::settings(&fake)).unwrap();
            call("ecs", &sdk, &keys()).await.unwrap();
            let before = fake.requests().len();
            for name in CALLS {
                call(name, &sdk, &keys()).await.unwrap();
            }
            let refused = fake.requests()[before..].iter().filter(|request| is_skewed(request, ahead)).count();
            assert_eq!(refused, 0, "the time is corrected");
        }
    }

    #[tokio::test]
    async fn a_single_attempt_may_be_signed_again_only() {
        for name in CALLS {
            let fake = Fake::start(|request| match is_skewed(request, 7200) {
                true => refusal(request, "RequestExpired").dated(http_date(7200)),
                false => good(request),
            })
            .await;
            let settings = crate::aws::client::sdk::Settings { max_attempts: 1, ..fake::settings(&fake) };
            assert_eq!(call(name, &Sdk::new(settings).unwrap(), &keys()).await, Ok(()), "{name}");
        }
        for name in ["ecs", "ecr"] {
            let fake = Fake::start(|_| Answer::error(500, "ServerException", "")).await;
            let settings = crate::aws::client::sdk::Settings { max_attempts: 1, ..fake::settings(&fake) };
            call(name, &Sdk::new(settings).unwrap(), &keys()).await.unwrap_err();
            assert_eq!(fake.requests().len(), 1, "{name}");
        }
    }

    #[tokio::test]
    async fn concurrent_refused_calls_are_all_signed_again() {
        let fake = Fake::start(|request| match is_skewed(request, 7200) {
            true => refusal(request, "RequestTimeTooSkewed").dated(http_date(7200)),
            false => good(request),
        })
        .await;
        let (sdk, role, object) =
            (Sdk::new(fake::settings(&fake)).unwrap(), fake::role("exec"), Object { bucket: "b", key: "k" });
        let all = futures_util::future::join_all((0..20).map(|_| s3::get(&sdk, &object, &role))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
    }

    #[tokio::test]
    async fn a_refusal_at_the_right_time_is_not_repeated() {
        let fake = Fake::start(|request| match request.method.as_str() {
            "HEAD" => good(request),
            _ => refusal(request, "AccessDeniedException").dated(http_date(0)),
        })
        .await;
        for name in CALLS {
            let before = fake.requests().len();
            let done = call(name, &Sdk::new(fake::settings(&fake)).unwrap(), &keys()).await;
            assert!(done.is_err_and(|text| text.contains("AccessDeniedException")), "{name}");
            let requests = fake.requests().split_off(before);
            assert_eq!(requests.iter().filter(|request| request.method != "HEAD").count(), 1, "{name}");
        }
    }

    #[tokio::test]
    async fn calls_of_the_instance_are_repeated_with_newer_keys() {
        for code in ["ExpiredTokenException", "UnrecognizedClientException", "RequestExpired"] {
            for name in ["ecs", "ec2", "ecr"] {
                let asked = AtomicUsize::new(0);
                let fake = Fake::start(move |request| {
                    let is_old = request.header("authorization").is_some_and(|value| value.contains("Credential=K1/"));
                    match request.path.rsplit_once("security-credentials/") {
                        Some((_, "role")) => {
                            let id = format!("K{}", asked.fetch_add(1, Ordering::Relaxed) + 1);
                            Answer::json(
                                200,
                                &json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": "x",
                                    "Token": "y", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2999-01-01T00:00:00Z"}),
                            )
                        }
                        Some(_) => Answer::text(200, "role"),
                        None if request.path.ends_with("/token") => Answer::text(200, "t"),
                        None if is_old => refusal(request, code),
                        None => good(request),
                    }
                })
                .await;
                let sdk = Sdk::new(fake::settings(&fake)).unwrap();
                let imds = imds::Settings { endpoint: Some(fake.url()), blackholed: false };
                let settings =
                    credentials::Settings { imds, signing: sdk.signing(), ..credentials::Settings::default() };
                let instance = credentials::instance_chain(settings, sdk.http()).await.unwrap();
                let done = call(name, &sdk, &instance).await;
                assert_eq!(done, Ok(()), "{name} {code}: {:?}", fake.requests());
                assert_eq!(instance.provide_credentials().await.unwrap().access_key_id(), "K2");
            }
        }
    }

    #[tokio::test]
    async fn expired_keys_of_a_role_are_a_temporary_failure() {
        let fake = Fake::start(|request| match request.method.as_str() {
            "HEAD" => good(request),
            _ => refusal(request, "ExpiredToken"),
        })
        .await;
        let sdk = Sdk::new(fake::settings(&fake)).unwrap();
        let (role, object) = (fake::role("exec"), Object { bucket: "b", key: "k" });
        let key = [SecretKey { provider: SecretProvider::Ssm, value_from: "/p".to_owned(), region: String::new() }];
        let failure = ssm::parameters(&sdk, &key, Some(&role)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Retryable, "{failure}");
        let error = s3::get(&sdk, &object, &role).await.unwrap_err();
        assert!(matches!(error, s3::ObjectError::Object { may_pass: true, .. }), "{error}");
        let auth = EcrAuth { use_execution_role: true, ..EcrAuth::default() };
        let failure = EcrTokens::new(sdk.clone(), keys()).credentials(&auth, "i", Some(&role)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Retryable, "{failure}");
        assert_eq!(fake.requests().len(), 4, "no call is repeated at once with the same keys");
    }
}
