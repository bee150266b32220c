use super::*;
use crate::aws::tests::fake::{self, Answer as FakeAnswer, Fake, Request as Asked, role};

const ARN: &str = "arn:aws:s3:::judge-bucket/app.env";

async fn got(fake: &Fake, arn: &str) -> Result<String, String> {
    let sdk = Sdk::new(fake::settings(fake)).unwrap();
    let object = Object::parse(arn)?;
    let bytes = get(&sdk, &object, &role("exec")).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A bucket in another region that gives this answer to every request.
async fn holding(answer: impl Fn(&Asked) -> FakeAnswer + Send + Sync + 'static) -> Fake {
    Fake::start(move |request| match request.method.as_str() {
        "HEAD" => FakeAnswer::text(301, "").with("x-amz-bucket-region", "eu-central-1"),
        _ => answer(request),
    })
    .await
}

#[tokio::test]
async fn the_request_is_the_recorded_one_in_the_region_of_the_bucket() {
    let golden = fake::golden("s3_get_object");
    let fake = holding(|_| FakeAnswer::text(206, "A=1\n").with("content-range", "bytes 0-3/4")).await;
    assert_eq!(got(&fake, ARN).await.unwrap(), "A=1\n");
    let [head, get] = fake.requests().try_into().unwrap();
    assert_eq!((head.path.as_str(), head.header("authorization")), ("/judge-bucket", None));
    assert_eq!((&get.path, &get.query), (&"/judge-bucket/app.env".to_owned(), &"x-id=GetObject".to_owned()));
    assert_eq!((&golden["body"]["path"], &golden["body"]["query"]), (&get.path.into(), &get.query.into()));
    for name in
        ["Accept-Encoding", "Range", "User-Agent", "X-Amz-Checksum-Mode", "X-Amz-Content-Sha256", "Amz-Sdk-Request"]
    {
        assert_eq!(get.headers.get(name).unwrap().to_str().ok(), golden["headers"][name].as_str(), "{name}");
    }
    let (ours, theirs) =
        (get.headers["authorization"].to_str().unwrap(), golden["headers"]["Authorization"].as_str().unwrap());
    assert_eq!(fake::scope(ours)[..1], ["eu-central-1"]);
    assert_eq!(fake::scope(ours)[1..], fake::scope(theirs)[1..]);
    let names = |text: &str| text.split(", ").nth(1).unwrap().to_owned();
    assert_eq!(names(ours), names(theirs));
}

#[test]
fn an_arn_names_bucket_and_key() {
    let object = |arn| Object::parse(arn).map(|object| (object.bucket, object.key));
    assert_eq!(object("arn:aws-cn:s3:::b/a/b c.env"), Ok(("b", "a/b c.env")));
    for arn in [
        "",
        "s3://b/k",
        "arn:aws:s3:::b",
        "arn:aws:s3:::b/",
        "arn:aws:s3:::/k",
        "arn:aws:s3:us-west-2:1:accesspoint/a/object/k",
        "arn::s3:::b/k",
        "arn:a:b:s3:::b/k",
    ] {
        assert_eq!(object(arn), Err(format!("invalid s3 arn: {arn}")));
    }
}

#[tokio::test]
async fn the_address_follows_region_variant_endpoint_and_bucket() {
    let table = [
        ("us-west-2", false, false, None, "judge-bucket", "k", "https://judge-bucket.s3.us-west-2.amazonaws.com/k"),
        ("cn-north-1", false, true, None, "bkt", "k", "https://bkt.s3.dualstack.cn-north-1.amazonaws.com.cn/k"),
        ("us-east-1", true, false, None, "bkt", "k", "https://bkt.s3-fips.us-east-1.amazonaws.com/k"),
        ("us-gov-west-1", true, true, None, "bkt", "k", "https://bkt.s3-fips.dualstack.us-gov-west-1.amazonaws.com/k"),
        ("eu-west-1", true, false, None, "bkt", "k", "https://bkt.s3.eu-west-1.amazonaws.com/k"),
        ("eu-west-1", false, false, None, "a.b.c", "k", "https://s3.eu-west-1.amazonaws.com/a.b.c/k"),
        ("eu-west-1", false, false, None, "Old_Bucket", "k", "https://s3.eu-west-1.amazonaws.com/Old_Bucket/k"),
        ("eu-west-1", false, false, None, "evil.com?", "k", "https://s3.eu-west-1.amazonaws.com/evil.com%3F/k"),
        (
            "eu-west-1",
            false,
            false,
            None,
            "me@evil",
            "k#/a b",
            "https://s3.eu-west-1.amazonaws.com/me%40evil/k%23/a%20b",
        ),
        ("eu-west-1", false, false, Some("http://127.0.0.1:1/"), "bkt", "ä+", "http://127.0.0.1:1/bkt/%C3%A4%2B"),
        ("eu-west-1", false, false, Some("http://[::1]:1"), "bkt", "k", "http://[::1]:1/bkt/k"),
        ("eu-west-1", false, false, Some("http://s3.corp:1/p"), "a.b.c", "k", "http://a.b.c.s3.corp:1/p/k"),
        ("eu-west-1", false, false, Some("https://s3.corp"), "a.b.c", "", "https://s3.corp/a.b.c"),
    ];
    for (region, fips, dual_stack, endpoint, bucket, key, wanted) in table {
        let endpoint_url_s3 = endpoint.map(str::to_owned);
        let settings =
            Settings { region: "us-west-2".to_owned(), fips, dual_stack, endpoint_url_s3, ..Settings::default() };
        let url = address(&Sdk::new(settings).unwrap(), region, &Object { bucket, key }).await.unwrap();
        assert_eq!(url.as_str(), wanted);
    }
}

#[tokio::test]
async fn a_host_in_fips_mode_uses_fips_endpoints_of_s3() {
    let object = Object { bucket: "bkt", key: "k" };
    let table = [
        ("us-east-1", "https://bkt.s3-fips.us-east-1.amazonaws.com/k"),
        ("us-east-2", "https://bkt.s3-fips.us-east-2.amazonaws.com/k"),
        ("us-west-1", "https://bkt.s3-fips.us-west-1.amazonaws.com/k"),
        ("us-west-2", "https://bkt.s3-fips.us-west-2.amazonaws.com/k"),
        ("us-gov-east-1", "https://bkt.s3-fips.us-gov-east-1.amazonaws.com/k"),
        ("us-gov-west-1", "https://bkt.s3-fips.us-gov-west-1.amazonaws.com/k"),
        ("ca-central-1", "https://bkt.s3-fips.ca-central-1.amazonaws.com/k"),
        ("ca-west-1", "https://bkt.s3-fips.ca-west-1.amazonaws.com/k"),
        ("mx-central-1", "https://bkt.s3.mx-central-1.amazonaws.com/k"),
        ("eu-west-1", "https://bkt.s3.eu-west-1.amazonaws.com/k"),
        ("cn-north-1", "https://bkt.s3.cn-north-1.amazonaws.com.cn/k"),
    ];
    for (region, wanted) in table {
        let settings = Settings { region: "us-west-2".to_owned(), host_fips: true, ..Settings::default() };
        let sdk = Sdk::new(settings).unwrap();
        assert_eq!(address(&sdk, region, &object).await.unwrap().as_str(), wanted);
        // Other services follow AWS_USE_FIPS_ENDPOINT alone.
        let ssm = sdk.endpoint_of("ssm", region).await.unwrap().url;
        assert!(!ssm.contains("fips"), "{ssm}");
    }
}

#[tokio::test]
async fn a_key_that_no_url_can_express_is_refused() {
    let fake = Fake::start(|_| FakeAnswer::text(200, "")).await;
    let arn = format!("arn:aws:s3:::b/{}", "ä".repeat(12_000));
    let sdk = Sdk::new(fake::settings(&fake)).unwrap();
    let error = get(&sdk, &Object::parse(&arn).unwrap(), &role("exec")).await.unwrap_err();
    assert!(matches!(error, ObjectError::Object { may_pass: false, .. }), "{error}");
    assert!(error.to_string().contains("the request was not sent: "), "{error}");
    assert!(fake.requests().iter().all(|request| request.method == "HEAD"));
}

#[tokio::test]
async fn an_empty_object_is_read_and_a_large_one_is_refused() {
    let empty = holding(|_| FakeAnswer::text(416, "<Error><Code>InvalidRange</Code></Error>")).await;
    assert_eq!(got(&empty, ARN).await.unwrap(), "");
    let large = holding(|_| FakeAnswer::text(206, "A=").with("content-range", "bytes 0-5242879/5242881")).await;
    let error = got(&large, ARN).await.unwrap_err();
    assert!(error.ends_with("api error EntityTooLarge: the object has more than 5242880 bytes"), "{error}");
}

#[tokio::test]
async fn failures_of_s3_have_the_texts_customers_know() {
    let xml = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>app.env</Key></Error>";
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    let start = "operation error S3: GetObject, https response error StatusCode:";
    for (status, body, wanted) in [
        (404, xml, format!("{start} 404, RequestID: R1, HostID: H1, NoSuchKey: The specified key does not exist.")),
        (403, denied, format!("{start} 403, RequestID: R1, HostID: H1, api error AccessDenied: Access Denied")),
        (404, "", format!("{start} 404, RequestID: R1, HostID: H1, api error NotFound: ")),
        (403, "<Error><Code>", format!("{start} 403, RequestID: R1, HostID: H1, api error Forbidden: ")),
    ] {
        let fake =
            holding(move |_| FakeAnswer::text(status, body).with("x-amz-request-id", "R1").with("x-amz-id-2", "H1"))
                .await;
        assert_eq!(got(&fake, ARN).await.unwrap_err(), wanted);
    }
    let fake = Fake::start(|_| FakeAnswer::text(404, "")).await;
    assert_eq!(got(&fake, ARN).await.unwrap_err(), "bucket not found");
    for key in ["../other/k", "a/./k", "..", "a/.."] {
        let error = got(&fake, &format!("arn:aws:s3:::b/{key}")).await.unwrap_err();
        assert_eq!(error, format!("invalid path: bucket \"b\" key \"{key}\" has a part . or .."));
    }
}

#[tokio::test]
async fn the_beginning_of_a_long_error_is_parsed() {
    let long = "x".repeat(3 << 20);
    let body = format!("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no\n{long}</Message></Error>");
    let fake = holding(move |_| FakeAnswer::text(403, &body)).await;
    let text = got(&fake, ARN).await.unwrap_err();
    assert!(text.contains("AccessDenied") && text.len() < 9000, "{}", text.len());
    assert!(!text.contains('\n') && text.contains("StatusCode: 403"), "{}", &text[..200]);
}

#[tokio::test]
async fn a_temporary_failure_is_repeated_three_times() {
    let fake = holding(|request| match request.number {
        1 | 2 => FakeAnswer::text(503, "<Error><Code>SlowDown</Code></Error>"),
        _ => FakeAnswer::text(200, "A=1"),
    })
    .await;
    assert_eq!(got(&fake, ARN).await.unwrap(), "A=1");
    let fake = holding(|_| FakeAnswer::text(500, "")).await;
    let sdk = Sdk::new(fake::settings(&fake)).unwrap();
    let error = get(&sdk, &Object::parse(ARN).unwrap(), &role("exec")).await.unwrap_err();
    assert!(matches!(error, ObjectError::Object { may_pass: true, .. }), "{error}");
    assert_eq!(fake.requests().len(), 4);
}
