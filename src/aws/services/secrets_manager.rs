//! The secrets of a task in Secrets Manager (spec `resources.md` §4.2).
//!
//! Owns GetSecretValue, the forms of the ARN that names a secret or a part of it, and the error texts that customers see. It
//! caches nothing. The invariant: no error text contains any part of a secret.

use crate::aws::client::call_error::CallError;
use crate::aws::client::gather::{self, Failed};
use crate::aws::client::json_call::Call;
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::credentials;
use crate::aws::identity::roles::RoleCredentials;
use crate::input::members::{self, Members};
use ecs_core::model::resource::SecretKey;
use ecs_core::model::{Failure, Secret};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const BAD_ARN: &str =
    "an invalid ARN format for the AWS Secrets Manager secret was specified. Specify a valid ARN and try again.";

/// Why a secret could not be read.
pub(crate) enum ValueError {
    /// The call failed.
    Call(CallError),
    /// The answer is not one of this operation.
    Unreadable,
}

/// The relevant part of the answer.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "SecretString")]
    text: Option<String>,
}

/// Calls GetSecretValue for one secret. A secret without a text is empty.
pub(crate) async fn value(sdk: &Sdk, region: &str, body: &Value, role: &RoleCredentials) -> Result<Secret, ValueError> {
    let keys = credentials::fixed(&role.access_key_id, &role.secret_access_key, &role.session_token);
    let call = Call {
        service: "secretsmanager",
        target: "secretsmanager.GetSecretValue",
        region,
        endpoint: sdk.secrets_manager_endpoint(),
        body,
    };
    let answer = sdk.call(&call, &keys).await.map_err(ValueError::Call)?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| ValueError::Unreadable)?;
    Ok(Secret::new(answer.text.unwrap_or_default()))
}

/// The text of the Go agent's SDK for a failed call.
pub(crate) fn sdk_text(error: &CallError) -> String {
    const MODELLED: [&str; 5] = [
        "DecryptionFailure",
        "InternalServiceError",
        "InvalidParameterException",
        "InvalidRequestException",
        "ResourceNotFoundException",
    ];
    error.sdk_text("Secrets Manager: GetSecretValue", &MODELLED)
}

/// The values of all these secrets, read with the task's execution role (`role`; `None` if the task has none).
///
/// # Errors
/// Fails without a role, if an ARN is malformed, if a call fails, or if a secret lacks the requested member. The failure names
/// all errors. It ends the task unless all of them are temporary.
pub async fn secrets(
    sdk: &Sdk,
    keys: &[SecretKey],
    role: Option<&RoleCredentials>,
) -> Result<BTreeMap<SecretKey, Secret>, Failure> {
    let Some(role) = role else {
        return Err(Failure::ends_task("ASM secret resource: unable to find execution role credentials"));
    };
    let with_key = |key: SecretKey| async move { secret(sdk, &key, role).await.map(|secret| (key, secret)) };
    let found = gather::all(keys.iter().cloned().map(with_key).collect()).await?;
    Ok(found.into_iter().collect())
}

async fn secret(sdk: &Sdk, key: &SecretKey, role: &RoleCredentials) -> Result<Secret, Failed> {
    let reference = SecretReference::parse(&key.value_from).map_err(|why| {
        let value = &key.value_from;
        format!("trying to retrieve secret with value {value} resulted in error: {why}")
    })?;
    let whole = value(sdk, &key.region, &reference.body(), role).await.map_err(|error| match error {
        ValueError::Call(error) => Failed { text: reference.error_text(&error), may_pass: error.is_retryable() },
        ValueError::Unreadable => Failed::from(format!("secret {}: empty response", reference.arn)),
    })?;
    match reference.member {
        "" => Ok(whole),
        member => Ok(json_member(&whole, member)?),
    }
}

/// The parts of a `valueFrom`.
#[derive(Debug, PartialEq, Eq)]
struct SecretReference<'a> {
    /// The ARN of the secret.
    arn: String,
    /// A member of the JSON object in the secret; empty: the whole text.
    member: &'a str,
    /// The version stage; empty: the default of the service.
    stage: &'a str,
    /// The version id; empty: the default of the service.
    version: &'a str,
}

impl<'a> SecretReference<'a> {
    /// Parses `arn:…:secret:<id>`, optionally followed by `:<member>:<stage>:<version>`, of which each may be empty.
    fn parse(value: &'a str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = value.splitn(6, ':').collect();
        if parts[0] != "arn" {
            return Err("arn: invalid prefix");
        }
        let [.., resource] = parts.as_slice() else { return Err(BAD_ARN) };
        if parts.len() < 6 {
            return Err("arn: not enough sections");
        }
        match resource.split(':').collect::<Vec<_>>().as_slice() {
            [_, _] => Ok(Self { arn: value.to_owned(), member: "", stage: "", version: "" }),
            [kind, id, member, stage, version] => {
                let arn = format!("{}:{kind}:{id}", parts[..5].join(":"));
                Ok(Self { arn, member, stage, version })
            }
            _ => Err(BAD_ARN),
        }
    }

    fn body(&self) -> Value {
        let mut body = json!({"SecretId": self.arn});
        for (name, text) in [("VersionId", self.version), ("VersionStage", self.stage)] {
            if !text.is_empty() {
                body[name] = json!(text);
            }
        }
        body
    }

    /// The error text of the Go agent for a failed call.
    fn error_text(&self, error: &CallError) -> String {
        let (arn, cause) = (&self.arn, sdk_text(error));
        match error {
            CallError::Refused { code, .. } if code == "ResourceNotFoundException" => format!(
                "{code}: The task can't retrieve the secret with ARN '{arn}' from AWS Secrets Manager. \
                 Check whether the secret exists in the specified Region: {cause}"
            ),
            // The Go agent repeats the cause. Once is enough, and a reason is short.
            _ => format!("secret {arn}: {cause}"),
        }
    }
}

/// A member of the JSON object in a secret, formatted as in the Go agent.
fn json_member(secret: &Secret, member: &str) -> Result<Secret, String> {
    let members = Members::parse(secret.expose()).map_err(|_| {
        format!("retrieved secret from Secrets Manager is not a JSON object, so it has no json key {member}")
    })?;
    let Some(raw) = members.exactly(member) else {
        return Err(format!("retrieved secret from Secrets Manager did not contain json key {member}"));
    };
    let unreadable = |_| format!("the json key {member} of the retrieved secret cannot be read");
    if let Ok(text) = members::text(raw) {
        return Ok(Secret::new(text));
    }
    let value: Value = serde_json::from_str(raw.get()).map_err(unreadable)?;
    let mut text = String::new();
    default_format(&value, &mut text);
    Ok(Secret::new(text))
}

/// Compat: Go's `%v` format of a decoded JSON value, which existing containers expect.
fn default_format(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&go_float(number.as_f64().unwrap_or_default())),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { " " });
                default_format(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            out.push_str("map[");
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { " " });
                out.push_str(name);
                out.push(':');
                default_format(value, out);
            }
            out.push(']');
        }
    }
}

/// The shortest digits that mean this number; with an exponent of at least two digits below 1e-4 and from 1e6 on.
fn go_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{self, Fake, role};
    use ecs_core::model::FailureKind;
    use ecs_core::model::resource::SecretProvider;

    const ARN: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:judge-AbCdEf";

    fn sdk(fake: &Fake) -> Sdk {
        Sdk::new(fake::settings(fake)).unwrap()
    }

    fn key(value_from: &str) -> SecretKey {
        let provider = SecretProvider::SecretsManager;
        SecretKey { provider, value_from: value_from.to_owned(), region: "us-west-2".to_owned() }
    }

    #[test]
    fn an_arn_names_a_secret_or_a_part_of_it() {
        type Parts = Result<(&'static str, &'static str, &'static str), &'static str>;
        let table: [(&str, Parts); 9] = [
            ("", Ok(("", "", ""))),
            (":user:AWSPREVIOUS:", Ok(("user", "AWSPREVIOUS", ""))),
            (":user::v1", Ok(("user", "", "v1"))),
            (":::", Ok(("", "", ""))),
            (":user", Err(BAD_ARN)),
            (":user:stage", Err(BAD_ARN)),
            (":user:stage:version:more", Err(BAD_ARN)),
            ("arn:aws:x", Err("arn: not enough sections")),
            ("secret", Err("arn: invalid prefix")),
        ];
        for (tail, wanted) in table {
            let is_whole = tail.is_empty() || tail.starts_with(':');
            let text = if is_whole { format!("{ARN}{tail}") } else { tail.to_owned() };
            let found = SecretReference::parse(&text);
            assert!(found.iter().all(|found| found.arn == ARN));
            assert_eq!(found.map(|found| (found.member, found.stage, found.version)), wanted, "{text}");
        }
    }

    #[test]
    fn a_member_is_written_as_the_go_agent_writes_it() {
        let text = r#"{"s": "a \"b\" \u00e9", "million": 1000000, "small": 100000, "tiny": 0.00001, "f": 123456.5, "big": 12345678901,
            "neg": -0.0001, "z": 0, "t": true, "n": null, "l": [1, "x y", [false]], "o": {"b": 1, "a": {"c": 1e100}}, "e\u0301": 1.50}"#;
        let table = [
            ("s", "a \"b\" é"),
            ("million", "1e+06"),
            ("small", "100000"),
            ("tiny", "1e-05"),
            ("f", "123456.5"),
            ("big", "1.2345678901e+10"),
            ("neg", "-0.0001"),
            ("z", "0"),
            ("t", "true"),
            ("n", "<nil>"),
            ("l", "[1 x y [false]]"),
            ("o", "map[a:map[c:1e+100] b:1]"),
            ("e\u{301}", "1.5"),
        ];
        for (member, wanted) in table {
            assert_eq!(json_member(&text.into(), member).unwrap().expose(), wanted, "{member}");
        }
        // Names of other members may contain any escape, and texts of the secret an unpaired surrogate.
        let escaped = r#"{"https:\/\/r": 1, "\ud83d": 2, "a": "x\ud83d", "A": "other case"}"#;
        assert_eq!(json_member(&escaped.into(), "a").unwrap().expose(), "x\u{fffd}");
        let missing = json_member(&text.into(), "password").unwrap_err();
        assert_eq!(missing, "retrieved secret from Secrets Manager did not contain json key password");
        for text in ["hunter2", "", r#"["hunter2"]"#, r#"{"a": hunter2}"#] {
            assert!(!json_member(&text.into(), "a").unwrap_err().contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn the_request_names_stage_and_version_only_if_they_are_given() {
        let fake = Fake::start(|_| fake::Answer::json(200, &json!({"SecretString": r#"{"a": 1, "b": "x"}"#}))).await;
        let keys = [key(ARN), key(&format!("{ARN}:b:AWSPENDING:v7"))];
        let found = secrets(&sdk(&fake), &keys, Some(&role("exec"))).await.unwrap();
        let values: Vec<&str> = keys.iter().map(|key| found[key].expose()).collect();
        assert_eq!(values, [r#"{"a": 1, "b": "x"}"#, "x"]);
        let mut bodies: Vec<_> = fake.requests().iter().map(fake::Request::json).collect();
        bodies.sort_by_key(|body| body.to_string().len());
        let named = json!({"SecretId": ARN, "VersionId": "v7", "VersionStage": "AWSPENDING"});
        assert_eq!(bodies, [json!({"SecretId": ARN}), named]);
    }

    #[tokio::test]
    async fn all_failures_are_reported_at_once() {
        let gone = "Secrets Manager can't find the specified secret.";
        let fake = Fake::start(move |request| match request.json()["SecretId"].as_str() {
            Some(arn) if arn.contains("gone") => fake::Answer::error(400, "ResourceNotFoundException", gone),
            _ => fake::Answer::error(400, "AccessDeniedException", "no"),
        })
        .await;
        let keys = [key("gone"), key(&ARN.replace("judge", "gone")), key(ARN)];
        let failure = secrets(&sdk(&fake), &keys, Some(&role("exec"))).await.unwrap_err();
        let call =
            "operation error Secrets Manager: GetSecretValue, https response error StatusCode: 400, RequestID: ,";
        let denied = format!("{call} api error AccessDeniedException: no");
        let wanted = format!(
            "trying to retrieve secret with value gone resulted in error: arn: invalid prefix;\
             ResourceNotFoundException: The task can't retrieve the secret with ARN '{}' from AWS Secrets Manager. \
             Check whether the secret exists in the specified Region: {call} ResourceNotFoundException: {gone};\
             secret {ARN}: {denied}",
            ARN.replace("judge", "gone"),
        );
        assert_eq!((failure.message, failure.kind), (wanted, FailureKind::EndsTask));
        let failure = secrets(&sdk(&fake), &keys, None).await.unwrap_err();
        assert_eq!(failure.message, "ASM secret resource: unable to find execution role credentials");
    }

    #[tokio::test]
    async fn an_error_of_the_service_is_retryable() {
        let fake = Fake::start(|_| fake::Answer::error(500, "InternalServiceError", "oops")).await;
        let failure = secrets(&sdk(&fake), &[key(ARN)], Some(&role("exec"))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Retryable);
    }
}
