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
    let key =
        |provider, value_from: &str| [SecretKey { provider, value_from: value_from.to_owned(), region: String::new() }];
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
            let settings = credentials::Settings { imds, signing: sdk.signing(), ..credentials::Settings::default() };
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
