use super::*;
use crate::aws::client::sdk::{AgentName, Settings};
use crate::aws::tests::fake::{self, Answer, Fake, Request};
use serde_json::{Value, json};

const IMAGE: &str = "123456789012.dkr.ecr.us-west-2.amazonaws.com/app:1";

fn tokens() -> EcrTokens {
    let agent =
        AgentName { version: "1.105.1".to_owned(), hash: "*a8b3e7d3".to_owned(), os_family: "LINUX".to_owned() };
    let settings = Settings { region: "us-west-2".to_owned(), agent, ..Settings::default() };
    let instance = credentials::fixed(&"ASIAINSTANCE".into(), &"s".into(), &"t".into());
    EcrTokens::new(Sdk::new(settings).unwrap(), SharedCredentialsProvider::new(instance))
}

fn auth(fake: &Fake, use_execution_role: bool) -> EcrAuth {
    EcrAuth {
        registry_id: "123456789012".to_owned(),
        region: "us-west-2".to_owned(),
        endpoint_override: fake.url(),
        use_execution_role,
    }
}

fn role() -> RoleCredentials {
    fake::role("66666666-7777-8888-9999-000000000000")
}

/// An answer whose token ends in `seconds`.
fn granted(seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let token = base64::engine::general_purpose::STANDARD.encode("AWS:pass:word");
    json!({"authorizationData": [{
        "authorizationToken": token, "expiresAt": now + seconds, "proxyEndpoint": "https://registry.example.com"
    }]})
}

async fn fake(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Fake {
    Fake::start(answer).await
}

#[tokio::test]
async fn the_request_is_the_recorded_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ecr_get_authorization_token.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let fake = fake(|_| Answer::json(200, &granted(12 * 3600))).await;
    let got = tokens().credentials(&auth(&fake, true), IMAGE, Some(&role())).await.unwrap();
    assert_eq!((got.username.as_str(), got.password.expose()), ("AWS", "pass:word"));
    assert_eq!(got.server_address, "https://registry.example.com");

    let request = &fake.requests()[0];
    assert_eq!(request.json(), golden["body"]);
    let headers = &golden["headers"];
    for name in ["X-Amz-Target", "User-Agent", "Content-Type"] {
        assert_eq!(request.header(name), headers[name].as_str(), "{name}");
    }
    let scope = |text: &str| {
        let scope = text.split(',').next().unwrap();
        scope.split('/').skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let authorization = request.header("authorization").unwrap();
    assert!(authorization.contains("Credential=ASIA09438B6F6D524562/"));
    assert_eq!(scope(authorization), scope(headers["Authorization"].as_str().unwrap()));
}

#[tokio::test]
async fn a_token_is_kept_until_its_last_hour_and_per_role() {
    for (lifetime, calls) in [(12 * 3600, 2), (29 * 60, 4)] {
        let fake = fake(move |_| Answer::json(200, &granted(lifetime))).await;
        let tokens = tokens();
        for _ in 0..2 {
            tokens.credentials(&auth(&fake, true), IMAGE, Some(&role())).await.unwrap();
            tokens.credentials(&auth(&fake, false), IMAGE, None).await.unwrap();
        }
        assert_eq!(fake.requests().len(), calls, "lifetime {lifetime}");
    }
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let fake = fake(|_| Answer::json(200, &granted(12 * 3600))).await;
    let tokens = tokens();
    for number in 0..CACHE_LIMIT + 5 {
        let auth = EcrAuth { registry_id: number.to_string(), ..auth(&fake, false) };
        tokens.credentials(&auth, IMAGE, None).await.unwrap();
    }
    assert_eq!(tokens.cache.len(), CACHE_LIMIT);
}

#[tokio::test]
async fn failures_of_ecr_have_the_texts_customers_know() {
    let denied = "User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ecr:GetAuthorizationToken";
    let table: [(Answer, String); 5] = [
        (Answer::error(400, "AccessDeniedException", denied), format!("api error AccessDeniedException: {denied}")),
        (Answer::error(400, "InvalidParameterException", "bad id"), ", InvalidParameterException: bad id".to_owned()),
        (
            Answer::json(200, &json!({"authorizationData": []})),
            "unexpected number of results in AuthorizationData (0)".to_owned(),
        ),
        (
            Answer::json(200, &json!({"authorizationData": [{"expiresAt": 1}]})),
            format!("ecr auth: AuthorizationData is nil for {IMAGE}"),
        ),
        (
            Answer::json(200, &json!({"authorizationData": [{"authorizationToken": "!", "proxyEndpoint": "p"}]})),
            format!("ecr auth: malformed authorization token for {IMAGE}"),
        ),
    ];
    for (answer, expected) in table {
        let fake = fake(move |_| answer.clone()).await;
        let failure = tokens().credentials(&auth(&fake, false), IMAGE, None).await.unwrap_err();
        let text = failure.to_string();
        assert!(text.starts_with("CannotPullECRContainerError: ") && text.contains(&expected), "{text}");
    }
}

#[tokio::test]
async fn a_token_serves_without_the_address_of_its_registry() {
    let fake = fake(|_| {
        let mut answer = granted(12 * 3600);
        answer["authorizationData"][0].as_object_mut().unwrap().remove("proxyEndpoint");
        Answer::json(200, &answer)
    })
    .await;
    let got = tokens().credentials(&auth(&fake, false), IMAGE, None).await.unwrap();
    assert_eq!((got.username.as_str(), got.server_address.as_str()), ("AWS", ""));
}

#[tokio::test]
async fn no_call_is_made_without_execution_credentials() {
    let fake = fake(|_| Answer::json(200, &granted(1))).await;
    let failure = tokens().credentials(&auth(&fake, true), IMAGE, None).await.unwrap_err();
    assert_eq!(failure.message, "engine ecr credentials: not found");
    let empty = RoleCredentials { access_key_id: "".into(), secret_access_key: "".into(), ..role() };
    let failure = tokens().credentials(&auth(&fake, true), IMAGE, Some(&empty)).await.unwrap_err();
    assert_eq!(failure.message, "container uses execution credentials, but the credentials are empty");
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn an_unsendable_request_is_a_permanent_failure() {
    let fake = fake(|_| Answer::json(200, &granted(1))).await;
    let broken = RoleCredentials { session_token: "tok\nen".into(), ..role() };
    let long = format!("{}/{}", fake.url(), "x".repeat(70_000));
    let table = [
        (fake.url(), &broken, "the session token holds a character that no header takes"),
        (long, &role(), "the address of endpointOverride fits into no request"),
        ("http://ecr corp".to_owned(), &role(), "the address of endpointOverride is no URL"),
    ];
    for (endpoint_override, role, part) in table {
        let auth = EcrAuth { endpoint_override, ..auth(&fake, true) };
        let failure = tokens().credentials(&auth, IMAGE, Some(role)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
        assert!(failure.message.contains("the request was not sent: ") && failure.message.contains(part), "{failure}");
        assert!(!failure.message.contains("tok\n"), "{failure}");
    }
    assert!(fake.requests().is_empty());
}

#[test]
fn only_a_host_of_ecr_names_a_registry() {
    let table = [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some("eu-west-1")),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("123456789012.dkr-ecr.us-west-2.on.aws", Some("us-west-2")),
        ("123456789012.dkr-ecr-fips.us-gov-east-1.on.aws", Some("us-gov-east-1")),
        ("123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn", Some("cn-northwest-1")),
        ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", Some("us-iso-east-1")),
        ("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", Some("us-isob-east-1")),
        ("123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", Some("eu-isoe-west-1")),
        ("123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", Some("us-isof-south-1")),
        ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", Some("eusc-de-east-1")),
        ("123456789012.dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu", Some("eusc-de-east-1")),
        // For such a host, the instance's token would be sent to a stranger.
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
        ("123456789012.dkr.ecr.eu-west-1.example.com", None),
        ("123456789012.dkr-ecr.eu-west-1.on.aws.example.com", None),
        ("123456789012.dkrxecr.eu-west-1.on.aws", None),
        ("123456789012.dkr.ecr..amazonaws.com", None),
        ("123456789012.dkr.s3.eu-west-1.amazonaws.com", None),
        ("me.dkr.ecr.eu-west-1.amazonaws.com", None),
        ("docker.io", None),
    ];
    for (host, region) in table {
        let found = registry_of_host(host);
        assert_eq!(found.as_ref().map(|auth| auth.region.as_str()), region, "{host}");
        assert!(found.is_none_or(|auth| auth.registry_id == "123456789012" && !auth.use_execution_role));
    }
}

#[tokio::test]
async fn a_token_that_a_registry_rejects_is_requested_again() {
    let fake = fake(|_| Answer::json(200, &granted(12 * 3600))).await;
    let tokens = tokens();
    let (auth, other) = (auth(&fake, false), EcrAuth { region: "eu-west-1".to_owned(), ..auth(&fake, false) });
    for auth in [&auth, &other, &auth, &other] {
        tokens.credentials(auth, IMAGE, None).await.unwrap();
    }
    assert_eq!(fake.requests().len(), 2);
    tokens.forget(&auth);
    for auth in [&auth, &other] {
        tokens.credentials(auth, IMAGE, None).await.unwrap();
    }
    assert_eq!(fake.requests().len(), 3);
    for (text, wanted) in [
        ("denied: Your authorization token has expired. Reauthenticate and try again.", true),
        ("denied: Your Authorization Token has expired. Please run 'aws ecr get-login'", true),
        ("denied: User: x is not authorized to perform: ecr:BatchGetImage on resource: y", false),
    ] {
        assert_eq!(means_token_expired(text), wanted, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lifetime_of_a_token_counts_by_the_time_of_aws() {
    use aws_smithy_types::DateTime;
    use aws_smithy_types::date_time::Format;
    // The host is three hours ahead, so the token, valid for two hours, seems to have expired.
    let tokens = tokens();
    let now = SystemTime::now();
    let theirs = DateTime::from(now - Duration::from_secs(3 * 3600)).fmt(Format::HttpDate).unwrap();
    assert!(tokens.sdk.signing().clock().learn(now, 403, Some(&theirs)));
    let fake = fake(|_| Answer::json(200, &granted(-3600))).await;
    for _ in 0..3 {
        tokens.credentials(&auth(&fake, false), IMAGE, None).await.unwrap();
    }
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn throttling_is_worth_a_retry() {
    let fake = fake(|_| Answer::error(400, "ThrottlingException", "Rate exceeded")).await;
    let failure = tokens().credentials(&auth(&fake, false), IMAGE, None).await.unwrap_err();
    assert_eq!(failure.kind, ecs_core::model::FailureKind::Retryable);
}

#[tokio::test]
async fn concurrent_pulls_share_one_call() {
    let fake = fake(|_| Answer::json(200, &granted(12 * 3600))).await;
    let (tokens, auth) = (tokens(), auth(&fake, false));
    let ask = || tokens.credentials(&auth, IMAGE, None);
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    assert!(first.is_ok() && first == second && second == third);
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_token_in_its_last_hour_is_used_while_ecr_is_unreachable() {
    for (lifetime, status, code, serves) in [
        (20 * 60, 500, "ServerException", true),
        (60, 500, "ServerException", false),
        (20 * 60, 400, "AccessDeniedException", false),
    ] {
        let fake = fake(move |request| match request.number {
            0 => Answer::json(200, &granted(lifetime)),
            _ => Answer::error(status, code, "away"),
        })
        .await;
        let tokens = tokens();
        tokens.credentials(&auth(&fake, false), IMAGE, None).await.unwrap();
        let again = tokens.credentials(&auth(&fake, false), IMAGE, None).await;
        assert_eq!(again.is_ok(), serves, "{lifetime} {code}: {again:?}");
    }
}
