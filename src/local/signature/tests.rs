//! Signatures of AWS's own test suite, and requests that the SDK's signer signed, changed afterwards.

use super::*;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use http::HeaderValue;

/// The time of the signatures in AWS's test suite: 2015-08-30T12:36:00Z.
const THEN: i64 = 1_440_938_160;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn keys() -> Keys {
    Keys::new(Some(SECRET.into()))
}

/// A request of the test suite: `GET`, with `host`, `x-amz-date` and these headers signed in this order.
fn suite(path: &str, signed: &str, more: &[(&'static str, &str)], signature: &str) -> Request<Bytes> {
    let credential = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
    let mut request = Request::get(path)
        .header("host", "example.amazonaws.com")
        .header("x-amz-date", "20150830T123600Z")
        .header(
            "authorization",
            format!("{ALGORITHM} Credential={credential}, SignedHeaders={signed}, Signature={signature}"),
        )
        .body(Bytes::new())
        .unwrap();
    for (name, value) in more {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[test]
fn signatures_of_the_test_suite_of_aws_pass() {
    let plain = "host;x-amz-date";
    let with = "host;my-header1;x-amz-date";
    for (name, request) in [
        ("get-vanilla", suite("/", plain, &[], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")),
        (
            "get-vanilla-query-order-key-case",
            suite(
                "/?Param2=value2&Param1=value1",
                plain,
                &[],
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ),
        (
            "get-header-value-trim",
            suite(
                "/",
                "host;my-header1;my-header2;x-amz-date",
                &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ),
        (
            "get-header-key-duplicate",
            suite(
                "/",
                with,
                &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
                "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
            ),
        ),
    ] {
        assert_eq!(check(&request, &keys(), THEN), Ok(Signer::User { account: None }), "{name}");
    }
}

/// A request that the SDK's signer signs.
struct Made<'a> {
    service: &'a str,
    address: &'a str,
    body: &'static str,
    credentials: Credentials,
    at: i64,
    presigned: Option<Duration>,
}

impl Default for Made<'_> {
    fn default() -> Self {
        let credentials = Credentials::new("local", SECRET, None, None, "test");
        Self {
            service: "ecs",
            address: "http://127.0.0.1:1/",
            body: "{\"a\": 1}",
            credentials,
            at: THEN,
            presigned: None,
        }
    }
}

impl Made<'_> {
    fn request(self) -> Request<Bytes> {
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if self.presigned.is_some() {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = self.presigned;
            settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        }
        let identity = self.credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-north-1")
            .name(self.service)
            .time(UNIX_EPOCH + Duration::from_secs(self.at as u64))
            .settings(settings)
            .build()
            .unwrap();
        let target = [("x-amz-target", "Some.Call")];
        let body = match self.presigned {
            Some(_) => SignableBody::UnsignedPayload,
            None => SignableBody::Bytes(self.body.as_bytes()),
        };
        let headers = target.iter().copied().filter(|_| self.presigned.is_none());
        let signable = SignableRequest::new("POST", self.address, headers, body).unwrap();
        let (instructions, _) = sign(signable, &parameters.into()).unwrap().into_parts();
        let mut request = Request::post(self.address).header("host", "127.0.0.1:1").body(()).unwrap();
        if self.presigned.is_none() {
            request.headers_mut().insert("x-amz-target", HeaderValue::from_static("Some.Call"));
        }
        instructions.apply_to_request_http1x(&mut request);
        request.map(|()| Bytes::from_static(self.body.as_bytes()))
    }
}

#[test]
fn any_region_service_path_and_query_of_the_sdk_pass() {
    for (service, address) in [
        ("ecs", "http://127.0.0.1:1/"),
        ("ecs", "http://127.0.0.1:1/ws?dockerVersion=Docker%20%C3%A4+1&b=%2F&a=1&a=0&sendCredentials"),
        ("secretsmanager", "http://127.0.0.1:1/a%20b/c"),
        ("s3", "http://127.0.0.1:1/bucket/dir/%C3%A4%20b%2B?location"),
    ] {
        let request = Made { service, address, ..Made::default() }.request();
        assert_eq!(check(&request, &keys(), THEN), Ok(Signer::User { account: None }), "{service} {address}");
        assert!(is_for(&request, service) && !is_for(&request, "iam"));
    }
}

#[test]
fn whatever_is_changed_after_signing_is_refused() {
    type Change = fn(&mut Request<Bytes>);
    let changes: [(&str, Change, Refused); 8] = [
        ("body", |request| *request.body_mut() = Bytes::from_static(b"{\"a\": 2}"), Refused::WrongSignature),
        ("method", |request| *request.method_mut() = http::Method::PUT, Refused::WrongSignature),
        ("path", |request| *request.uri_mut() = "/other".parse().unwrap(), Refused::WrongSignature),
        ("query", |request| *request.uri_mut() = "/?a=1".parse().unwrap(), Refused::WrongSignature),
        (
            "target",
            |request| drop(request.headers_mut().insert("x-amz-target", HeaderValue::from_static("X"))),
            Refused::WrongSignature,
        ),
        (
            "host",
            |request| drop(request.headers_mut().insert("host", HeaderValue::from_static("evil"))),
            Refused::WrongSignature,
        ),
        (
            "date",
            |request| drop(request.headers_mut().insert("x-amz-date", HeaderValue::from_static("20150830T123601Z"))),
            Refused::WrongSignature,
        ),
        ("authorization", |request| drop(request.headers_mut().remove("authorization")), Refused::Unsigned),
    ];
    for (what, change, expected) in changes {
        let mut request = Made::default().request();
        change(&mut request);
        assert_eq!(check(&request, &keys(), THEN), Err(expected), "{what}");
    }
    let mut object = Made { service: "s3", ..Made::default() }.request();
    *object.body_mut() = Bytes::from_static(b"other");
    assert_eq!(check(&object, &keys(), THEN), Err(Refused::WrongBody));
}

#[test]
fn a_header_of_aws_that_was_not_signed_is_refused() {
    let lacks = Err(Refused::Incomplete("SignedHeaders lacks a header X-Amz-* that was sent"));
    for presigned in [None, Some(Duration::from_secs(60))] {
        let signed = || Made { service: "s3", presigned, ..Made::default() }.request();
        for name in ["x-amz-meta-a", "x-amz-copy-source", "x-amz-acl"] {
            let mut request = signed();
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
            assert_eq!(check(&request, &keys(), THEN), lacks, "{name}");
        }
        let mut request = signed();
        for name in ["amz-sdk-request", "x-amzn-trace-id", "user-agent"] {
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
        }
        assert!(check(&request, &keys(), THEN).is_ok(), "others need no signature");
    }
    // A signature of the test suite without the call's name in it.
    let signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let target = suite("/", "host;x-amz-date", &[("x-amz-target", "Some.Call")], signature);
    assert_eq!(check(&target, &keys(), THEN), lacks);
}

#[test]
fn another_secret_or_another_session_is_refused() {
    let request = Made::default().request();
    assert_eq!(check(&request, &Keys::new(None), THEN), Err(Refused::WrongSignature));
    let signed_by_role = |keys: &Keys, session: Option<String>| {
        let role = keys.temporary(&Signer::role("arn:aws:iam::123456789012:role/app", "task"));
        let session = session.unwrap_or_else(|| role.session_token.expose().to_owned());
        let secret = role.secret_access_key.expose();
        let credentials = Credentials::new(role.access_key_id, secret, Some(session), None, "test");
        Made { credentials, ..Made::default() }.request()
    };
    assert!(check(&signed_by_role(&keys(), None), &keys(), THEN).is_ok());
    assert_eq!(check(&signed_by_role(&Keys::new(None), None), &keys(), THEN), Err(Refused::UnknownKey));
    assert_eq!(check(&signed_by_role(&keys(), Some("other".to_owned())), &keys(), THEN), Err(Refused::UnknownKey));
}

#[test]
fn a_signature_is_good_for_five_minutes() {
    for (now, passes) in [(THEN - 301, false), (THEN - 300, true), (THEN + 300, true), (THEN + 301, false)] {
        assert_eq!(check(&Made::default().request(), &keys(), now).is_ok(), passes, "{}", now - THEN);
    }
    let late = check(&Made::default().request(), &keys(), THEN + 301);
    assert_eq!(late, Err(Refused::WrongTime("20150830T123600Z".to_owned())));
}

#[test]
fn a_presigned_address_is_good_until_it_expires() {
    let made = |service| Made { service, presigned: Some(Duration::from_secs(3600)), body: "", ..Made::default() };
    let request = made("s3").request();
    assert!(request.headers().get("authorization").is_none());
    for (now, passes) in [(THEN - 301, false), (THEN, true), (THEN + 3600, true), (THEN + 3601, false)] {
        assert_eq!(check(&request, &keys(), now).is_ok(), passes, "{}", now - THEN);
    }
    assert!(is_for(&request, "s3"));
    let mut longer = made("s3").request();
    *longer.uri_mut() = longer.uri().to_string().replace("Expires=3600", "Expires=9999").parse().unwrap();
    assert_eq!(check(&longer, &keys(), THEN), Err(Refused::WrongSignature));
    assert_eq!(check(&made("s3").request(), &Keys::new(None), THEN), Err(Refused::WrongSignature));
}

#[test]
fn an_incomplete_signature_is_refused_with_what_it_lacks() {
    let with = |authorization: &str| {
        let request = Request::post("/").header("host", "h").header("x-amz-date", "20150830T123600Z");
        check(&request.header("authorization", authorization).body(Bytes::new()).unwrap(), &keys(), THEN)
    };
    let scope = "A/20150830/us-west-2/ecs/aws4_request";
    let signed = "host;x-amz-date";
    for (authorization, expected) in [
        (String::new(), "not signed"),
        ("Bearer x".to_owned(), "not signed"),
        (ALGORITHM.to_owned(), "Credential is not KEY/DATE"),
        (format!("{ALGORITHM} Credential=A/b, SignedHeaders={signed}, Signature=0"), "Credential is not KEY/DATE"),
        (format!("{ALGORITHM} Credential={scope}, SignedHeaders=host, Signature="), "a key, a date and a signature"),
        (format!("{ALGORITHM} Credential={scope}, SignedHeaders=x-amz-date, Signature=0"), "SignedHeaders lacks host"),
        (
            format!("{ALGORITHM} Credential=A/20150831/r/ecs/aws4_request, SignedHeaders={signed}, Signature=0"),
            "the date of Credential",
        ),
        (format!("{ALGORITHM} Credential={scope}, SignedHeaders=host, Signature=0"), "lacks a header X-Amz-*"),
        (format!("{ALGORITHM} Credential={scope}, SignedHeaders={signed}, Signature=0"), "does not match"),
    ] {
        let message = with(&authorization).unwrap_err().error().message;
        assert!(message.contains(expected), "{authorization}: {message}");
    }
}

#[test]
fn times_are_read_as_aws_writes_them() {
    assert_eq!(seconds("20150830T123600Z"), Some(THEN));
    for text in ["", "2015-08-30T12:36:00Z", "20150830T123600", "20151330T123600Z", "20150830T1236ääZ"] {
        assert_eq!(seconds(text), None, "{text}");
    }
}
