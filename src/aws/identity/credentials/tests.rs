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
    use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector};
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
