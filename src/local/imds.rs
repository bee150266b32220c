//! The instance metadata service, version 2: a token first, then the paths that the agent and the SDK ask for (spec
//! `registration.md` §7). This module owns the tokens and no other state. Invariants: a request without a valid token is answered
//! with 401; the role's credentials and user data are given only to processes of the server's user and of root. Any process of
//! the machine may read the rest, as on an instance.

use super::answers::{header_text, json_answer, text_answer};
use super::ec2::{IMAGE_ID, INSTANCE_TYPE};
use super::ecr::principal::role_arn;
use super::ids::new_id;
use super::keys::Signer;
use super::records::Source;
use super::shared::Shared;
use super::time::{iso_time, now};
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

const MAC: &str = "0a:1b:2c:3d:4e:5f";
const VPC: &str = "vpc-0123456789abcdef0";
pub(super) const SUBNET: &str = "subnet-0123456789abcdef0";
/// The name of the instance's role.
pub(super) const ROLE: &str = "ecsInstanceRole";
const ADDRESS: &str = "127.0.0.1";
/// Maximum number of valid tokens. The oldest are dropped first.
const MAX_TOKENS: usize = 1000;

/// Only processes of the server's user and of root may read the path.
pub(super) fn is_guarded(path: &str) -> bool {
    path.contains("security-credentials") || path.contains("user-data")
}

/// The answer to other processes for a guarded path.
pub(super) const NOT_SERVED: &str = "Role credentials and user data are given to processes of the user who started ecs-local, and of root, on \
this machine only. Others use the token that ecs-local prints, as AWS_SECRET_ACCESS_KEY.\n";

/// Answers a request below `/latest/`. For a guarded path, the caller has checked the user of the asking process.
pub(super) fn answer(shared: &Shared, request: &Request<Bytes>) -> Response<Body> {
    let path = request.uri().path().trim_start_matches("/latest/");
    if path == "api/token" {
        return token(shared, request);
    }
    if request.method() != Method::GET {
        return text_answer(405, "");
    }
    if !valid(shared, header_text(request.headers(), "x-aws-ec2-metadata-token")) {
        return text_answer(401, "");
    }
    shared.change(|state| state.record(Source::Imds, path, Value::Null));
    match path {
        "dynamic/instance-identity/document" => text_answer(200, document(shared)),
        "dynamic/instance-identity/signature" => text_answer(200, "c2lnbmF0dXJlIG9mIGVjcy1sb2NhbA=="),
        "user-data" => match &shared.options.user_data {
            Some(text) => text_answer(200, text.clone()),
            None => text_answer(404, ""),
        },
        _ => path
            .strip_prefix("meta-data/")
            .and_then(|path| match shared.read(|state| state.ec2.metadata(path)) {
                Some(text) => Some(text_answer(200, text)),
                None => meta_data(shared, path),
            })
            .unwrap_or_else(|| text_answer(404, "")),
    }
}

fn token(shared: &Shared, request: &Request<Bytes>) -> Response<Body> {
    if request.method() != Method::PUT {
        return text_answer(405, "");
    }
    let ttl: u32 = header_text(request.headers(), "x-aws-ec2-metadata-token-ttl-seconds").parse().unwrap_or(0);
    if !(1..=21600).contains(&ttl) {
        return text_answer(400, "");
    }
    shared.change(|state| state.record(Source::Imds, "api/token", Value::Null));
    let token = new_id();
    shared.tokens(|tokens| {
        if tokens.len() >= MAX_TOKENS {
            tokens.pop_front();
        }
        tokens.push_back((token.clone(), now() + f64::from(ttl)));
    });
    let mut response = text_answer(200, token);
    response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl.into());
    response
}

fn valid(shared: &Shared, token: &str) -> bool {
    shared.tokens(|tokens| tokens.iter().any(|(known, until)| known == token && *until > now()))
}

fn meta_data(shared: &Shared, path: &str) -> Option<Response<Body>> {
    let region = &shared.options.region;
    let interface = format!("network/interfaces/macs/{MAC}/");
    let text = match path.strip_prefix(&interface).unwrap_or(path) {
        "" | "/" => {
            "ami-id\nhostname\niam/\ninstance-id\ninstance-type\nlocal-ipv4\nmac\nnetwork/\nplacement/".to_owned()
        }
        "instance-id" => shared.options.instance_id.clone(),
        "instance-type" => INSTANCE_TYPE.to_owned(),
        "ami-id" => IMAGE_ID.to_owned(),
        "mac" => MAC.to_owned(),
        "hostname" | "local-hostname" => format!("ip-127-0-0-1.{region}.compute.internal"),
        "local-ipv4" | "local-ipv4s" => ADDRESS.to_owned(),
        "network/interfaces/macs" | "network/interfaces/macs/" => format!("{MAC}/"),
        "vpc-id" => VPC.to_owned(),
        "subnet-id" => SUBNET.to_owned(),
        "placement/region" => region.clone(),
        "placement/availability-zone" => format!("{region}a"),
        "placement/availability-zone-id" => "loc1-az1".to_owned(),
        "services/domain" => "amazonaws.com".to_owned(),
        "services/partition" => "aws".to_owned(),
        "iam/info" => json!({"Code": "Success", "InstanceProfileId": "AIPALOCAL"}).to_string(),
        "iam/security-credentials" | "iam/security-credentials/" => ROLE.to_owned(),
        _ if path == format!("iam/security-credentials/{ROLE}") => return Some(json_answer(200, &credentials(shared))),
        // This instance has no outpost, spot notice, lifecycle state or public address.
        _ => return None,
    };
    Some(text_answer(200, text))
}

fn credentials(shared: &Shared) -> Value {
    let ttl = shared.options.credentials_ttl.as_secs_f64();
    let role = role_arn(&shared.options.account, ROLE);
    let keys = shared.keys.temporary(&Signer::role(&role, &shared.options.instance_id));
    json!({
        "Code": "Success",
        "LastUpdated": iso_time(now()),
        "Type": "AWS-HMAC",
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key.expose(),
        "Token": keys.session_token.expose(),
        "Expiration": iso_time(now() + ttl),
    })
}

fn document(shared: &Shared) -> String {
    let options = &shared.options;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    let document = json!({
        "accountId": options.account,
        "architecture": architecture,
        "availabilityZone": format!("{}a", options.region),
        "imageId": IMAGE_ID,
        "instanceId": options.instance_id,
        "instanceType": INSTANCE_TYPE,
        "pendingTime": "2024-01-01T00:00:00Z",
        "privateIp": ADDRESS,
        "region": options.region,
        "version": "2017-09-30",
    });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
