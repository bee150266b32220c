use super::*;
use crate::aws::tests::fake::{self, Answer, Fake, role};
use ecs_core::model::FailureKind;
use ecs_testing::credentials_fetcher::{Fault, Fetcher};
use serde_json::json;
use std::path::PathBuf;

const SECRET: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:corp/app-AbCdEf";

fn document_of(account: &str) -> Value {
    json!({
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {"MachineAccountName": account, "DnsName": "corp.example"},
        "ActiveDirectoryConfig": {"HostAccountConfig": {"PluginInput": {"CredentialArn": SECRET}}},
    })
}

/// A fetcher, AWS, and a directory with a document.
struct Scene {
    directory: PathBuf,
    fake: Fetcher,
    _aws: Fake,
    sdk: Sdk,
}

fn lane() -> Lane {
    Lane::new("test", super::super::NAMED_FILES)
}

/// Gets tickets as `Resources::tickets` does.
async fn tickets(
    sdk: &Sdk,
    fetcher: &CredentialsFetcher,
    specs: &[String],
    role: Option<&RoleCredentials>,
) -> Result<Tickets, Failure> {
    let documents = documents(sdk, &lane(), specs, role).await?;
    create(sdk, fetcher, &documents, role).await
}

impl Scene {
    async fn set(secret: &'static str) -> Self {
        let directory = std::env::temp_dir().join(format!("ecs-gmsa-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let aws = Fake::start(move |request| match (request.operation(), request.path.as_str()) {
            ("GetParameters", _) => {
                assert_eq!(request.json()["Names"], json!(["/team/app.json"]));
                let value = document_of("App").to_string();
                Answer::json(200, &json!({"Parameters": [{"Name": "/team/app.json", "Value": value}]}))
            }
            ("GetSecretValue", _) => Answer::json(200, &json!({"SecretString": secret})),
            (_, "/bucket") => Answer::text(200, "").with("x-amz-bucket-region", "us-west-2"),
            (_, "/bucket/web.json") => Answer::text(200, &serde_json::to_string_pretty(&document_of("web")).unwrap()),
            (_, "/bucket/marked.json") => Answer::text(200, &format!("\u{feff}{}", document_of("web"))),
            (_, "/bucket/bad.json") => Answer::text(200, "hunter2, which is no JSON"),
            _ => Answer::text(404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"),
        })
        .await;
        let sdk = Sdk::new(fake::settings(&aws)).unwrap();
        Self { fake: Fetcher::start(&directory), directory, _aws: aws, sdk }
    }

    async fn create(&self, specs: &[&str]) -> Result<Tickets, Failure> {
        let specs: Vec<String> = specs.iter().map(|spec| (*spec).to_owned()).collect();
        let fetcher = CredentialsFetcher::new(self.fake.socket());
        tickets(&self.sdk, &fetcher, &specs, Some(&role("exec"))).await
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        format!("file://{}", path.display())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn a_document_may_begin_with_a_byte_order_mark() {
    let scene = Scene::set(GOOD).await;
    let file = scene.file("marked.json", &format!("\u{feff}{}", document_of("web")));
    for spec in [format!("credentialspec:{file}"), S3.replace("web.json", "marked.json")] {
        let tickets = scene.create(&[&spec]).await.unwrap();
        assert_eq!(tickets.leases.len(), 1, "{spec}");
    }
}

const GOOD: &str = r#"{"username": "me", "password": "hunter2", "domainName": "corp.example", "port": 1}"#;
const S3: &str = "credentialspec:arn:aws:s3:::bucket/web.json";
const SSM: &str = "credentialspecdomainless:arn:aws:ssm:us-west-2:123456789012:parameter/team/app.json";

#[tokio::test]
async fn each_spec_gets_its_ticket_wherever_its_document_is() {
    let scene = Scene::set(GOOD).await;
    let file = format!("credentialspec:{}", scene.file("db.json", &document_of("DB").to_string()));
    let tickets = scene.create(&[S3, SSM, &file]).await.unwrap();
    let [joined, domainless] = &tickets.leases[..] else { panic!("{tickets:?}") };
    let at =
        |lease: &str, account: &str| scene.directory.join("krbdir").join(lease).join(account).display().to_string();
    let paths = [(S3, at(joined, "web")), (&file, at(joined, "DB")), (SSM, at(domainless, "App"))];
    assert_eq!(tickets.paths, paths.map(|(spec, path)| (spec.to_owned(), path)).into());
    assert_eq!(tickets.accounts, [SECRET]);
    let added = &scene.fake.calls()[0];
    assert_eq!(
        added.fields.iter().map(|field| field.1.clone()).collect::<Vec<_>>(),
        [document_of("web").to_string(), document_of("DB").to_string()]
    );
    let by = &scene.fake.calls()[1].fields;
    assert_eq!(by[1..], [(2, "me".to_owned()), (3, "hunter2".to_owned()), (4, "corp.example".to_owned())]);

    let fetcher = CredentialsFetcher::new(scene.fake.socket());
    renew(&scene.sdk, &fetcher, &tickets.accounts, Some(&role("exec"))).await.unwrap();
    assert_eq!(scene.fake.calls_of("RenewNonDomainJoinedKerberosLease")[0].fields[0].1, "me");
    for _ in 0..2 {
        give_back(&fetcher, &tickets.leases).await.unwrap();
        assert_eq!(scene.fake.leases(), [""; 0]);
    }
}

#[tokio::test]
async fn errors_end_the_task_and_quote_no_document() {
    let scene = Scene::set(GOOD).await;
    let no_json = format!("credentialspec:{}", scene.file("bad.json", "hunter2, which is no JSON"));
    let number = json!({"DomainJoinConfig": {"MachineAccountName": 7}}).to_string();
    let no_text = format!("credentialspec:{}", scene.file("number.json", &number));
    let fifo = format!("credentialspec:file://{}", scene.fake.socket().display());
    let gone = format!("credentialspec:file://{}/none", scene.directory.display());
    let directory = scene.directory.display();
    let table = [
        ("credentialspec:arn:aws:sns:us-west-2:1:x", "unsupported credentialspec ARN, only s3/ssm ARNs are valid".to_owned()),
        ("credentialspec:webapp01", "arn: invalid prefix".to_owned()),
        ("credentialspec:arn:aws:s3", "arn: not enough sections".to_owned()),
        ("credentialspec:arn:aws:s3:::bucket", "invalid s3 arn: arn:aws:s3:::bucket".to_owned()),
        (
            "credentialspec:arn:aws:ssm:us-west-2:1:document/x",
            "the provided SSM parameter:document/x is in an invalid format".to_owned(),
        ),
        (&no_json, format!("Error unmarshalling credentialspec domain-joined {no_json} : no JSON at line 1 column 1")),
        (
            &no_text,
            format!("Error unmarshalling credentialspec domain-joined {no_text} : MachineAccountName is of another type"),
        ),
        (
            "credentialspecdomainless:arn:aws:s3:::bucket/bad.json",
            "error unmarshalling credentialspec domainless credentialspecdomainless:arn:aws:s3:::bucket/bad.json : no JSON at line 1 \
             column 1"
                .to_owned(),
        ),
        (&fifo, format!("open {directory}/fetcher.sock: not a regular file")),
        (&gone, format!("open {directory}/none: no such file or directory")),
    ];
    for (spec, text) in table {
        let failure = scene.create(&[spec]).await.unwrap_err();
        assert_eq!((failure.message, failure.kind), (text, FailureKind::EndsTask));
    }
    let fetcher = CredentialsFetcher::new(scene.fake.socket());
    let failure = tickets(&scene.sdk, &fetcher, &[S3.to_owned()], None).await.unwrap_err();
    assert_eq!(failure.message, "credentialspec resource: unable to find execution role credentials");
    let large = format!("credentialspec:{}", scene.file("large.json", &" ".repeat(MAX_FILE_BYTES as usize + 1)));
    let failure = scene.create(&[&large]).await.unwrap_err();
    assert!(failure.message.ends_with("large.json: more than 1048576 bytes"), "{failure}");
    assert_eq!(scene.fake.calls(), []);
}

#[tokio::test]
async fn a_refused_ticket_is_reported_and_none_is_left() {
    let scene = Scene::set(GOOD).await;
    scene.fake.fail_next([Fault::Status(3, "ERROR: cannot get machine krb ticket")]);
    let failure = scene.create(&[S3]).await.unwrap_err();
    let text = "rpc error: code = InvalidArgument desc = ERROR: cannot get machine krb ticket";
    assert_eq!((failure.message.as_str(), failure.kind), (text, FailureKind::EndsTask));
    for (secret, text) in [
        ("[]", "failed to parse asmSecretData for the gMSA AD user: the secret is not a JSON object"),
        (
            r#"{"username": 1}"#,
            "failed to parse asmSecretData for the gMSA AD user: a member of the secret is not a string",
        ),
        (
            r#"{"USERNAME": "me", "Password": "x"}"#,
            "rpc error: code = InvalidArgument desc = username, password or domain should not be empty",
        ),
    ] {
        let scene = Scene::set(secret).await;
        assert_eq!(scene.create(&[S3, SSM]).await.unwrap_err().message, text);
        assert_eq!(scene.fake.calls_of("DeleteKerberosLease").len(), 1, "the lease of the other spec");
        assert_eq!(scene.fake.leases(), [""; 0]);
    }
    let fetcher = CredentialsFetcher::new(scene.fake.socket());
    let failure = renew(&scene.sdk, &fetcher, &[SECRET.to_owned()], None).await.unwrap_err();
    let start = format!("failed to retrieve credentials for domainless gMSA user {SECRET}: ");
    assert!(failure.message.starts_with(&start), "{failure}");
}

#[tokio::test]
async fn a_failed_lease_or_account_does_not_stop_the_others() {
    let scene = Scene::set(GOOD).await;
    let tickets = scene.create(&[S3, SSM]).await.unwrap();
    let fetcher = CredentialsFetcher::new(scene.fake.socket());
    let accounts = [SECRET.to_owned(), SECRET.to_owned()];
    scene.fake.fail_next([Fault::Status(3, "no")]);
    let failure = renew(&scene.sdk, &fetcher, &accounts, Some(&role("exec"))).await.unwrap_err();
    assert!(failure.message.ends_with("code = InvalidArgument desc = no"), "{failure}");
    assert_eq!(scene.fake.calls_of("RenewNonDomainJoinedKerberosLease").len(), 2);
    scene.fake.fail_next([Fault::Status(3, "no")]);
    let failure = give_back(&fetcher, &tickets.leases).await.unwrap_err();
    assert!(failure.message.contains(&format!("leaseid: {}, error", tickets.leases[0])), "{failure}");
    assert_eq!(scene.fake.leases(), tickets.leases[..1], "the other one is given back");
}

#[tokio::test]
async fn a_document_without_account_domain_or_secret_gets_no_ticket() {
    let scene = Scene::set(GOOD).await;
    for member in ["MachineAccountName", "DnsName"] {
        let mut document = document_of("web");
        document["DomainJoinConfig"].as_object_mut().unwrap().remove(member);
        let place = scene.file("some.json", &document.to_string());
        // The tests' fetcher needs a name in every document, whatever the agent reads.
        if member == "DnsName" {
            let tickets = scene.create(&[&format!("credentialspec:{place}")]).await.unwrap();
            assert!(tickets.paths.is_empty() && tickets.leases.len() == 1, "{tickets:?}");
        }
        let tickets = scene.create(&[&format!("credentialspecdomainless:{place}")]).await.unwrap();
        assert_eq!(tickets, Tickets::default());
    }
    let mut document = document_of("web");
    document["ActiveDirectoryConfig"] = Value::Null;
    let spec = format!("credentialspecdomainless:{}", scene.file("some.json", &document.to_string()));
    assert_eq!(scene.create(&[&spec]).await.unwrap(), Tickets::default());
}

#[test]
fn a_ticket_is_found_by_the_name_of_its_account() {
    let paths =
        ["/krb/1/WebApp", "/krb/1/web", "/krb/1/ccname_db_x", "relative/app", "/with:colon/app"].map(str::to_owned);
    let table = [
        ("web", Some("/krb/1/web")),
        ("WEBAPP", Some("/krb/1/WebApp")),
        ("db", Some("/krb/1/ccname_db_x")),
        ("app", Some("/krb/1/WebApp")),
        ("none", None),
        ("", None),
    ];
    for (account, path) in table {
        assert_eq!(path_of(account, &paths), path, "{account}");
    }
}

#[test]
fn white_space_is_removed_outside_of_texts_only() {
    let table = [
        (" { \"a\" :\t[ 1 ,\r\n\"b c\" ] } ", r#"{"a":[1,"b c"]}"#),
        (r#"{"a\" b": "\\", "c": " "}"#, r#"{"a\" b":"\\","c":" "}"#),
    ];
    for (given, wanted) in table {
        assert_eq!(compact(given), wanted);
    }
}

#[test]
fn the_account_is_read_from_members_in_any_case_and_any_escape() {
    let wanted = Account { username: "me".into(), password: "hunter2\n".into(), domain: "corp.example".into() };
    let secret = r#"{"https:\/\/r": [], "ge\u00e4ndert": 1, "\ud83d": null, "UserName": "me",
        "pass\u0077ord": "hunter2\n", "domainname": "corp.example"}"#;
    assert_eq!(read_account(&Secret::from(secret)), Ok(wanted));
    for (secret, why) in [
        ("hunter2", "the secret is not a JSON object"),
        (r#"["hunter2"]"#, "the secret is not a JSON object"),
        (r#"{"password": ["hunter2"]}"#, "a member of the secret is not a string"),
    ] {
        assert_eq!(read_account(&Secret::from(secret)), Err(why));
    }
}
