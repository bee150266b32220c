//! The secrets of a task in SSM Parameter Store (spec `resources.md` §4.1).
//!
//! Owns GetParameters in batches and the error texts that customers see. It caches nothing. The invariant: every requested
//! parameter has a value, or a failure names it.

use crate::aws::client::call_error::CallError;
use crate::aws::client::json_call::Call;
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::credentials;
use crate::aws::identity::roles::RoleCredentials;
use ecs_core::model::resource::SecretKey;
use ecs_core::model::{Failure, Secret};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Maximum number of names in one GetParameters call.
const BATCH: usize = 10;
/// Maximum number of concurrent calls for one task.
const AT_ONCE: usize = 10;
/// The errors of GetParameters that the SDK has a type for.
const MODELLED: [&str; 2] = ["InternalServerError", "InvalidKeyId"];

/// The relevant parts of the answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    parameters: Vec<Parameter>,
    invalid_parameters: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Parameter {
    name: String,
    value: Option<String>,
    /// `:<version>` or `:<label>`; `None` if the parameter was requested without either.
    selector: Option<String>,
    #[serde(rename = "ARN")]
    arn: Option<String>,
}

impl Parameter {
    /// Whether this is the parameter that was requested by `name`. (The Go agent compares plain names only; for any other form,
    /// containers get an empty text.)
    fn is_called(&self, name: &str) -> bool {
        // The selectors must match, since a request may name several versions of one parameter.
        let Some(plain) = name.strip_suffix(self.selector.as_deref().unwrap_or_default()) else { return false };
        [name, plain].into_iter().any(|name| name == self.name || Some(name) == self.arn.as_deref())
    }
}

/// The values of all these parameters, read with the task's execution role (`role`; `None` if the task has none).
///
/// # Errors
/// Fails without a role, if a call fails, or if a parameter does not exist. The failure ends the task unless it is temporary.
pub async fn parameters(
    sdk: &Sdk,
    keys: &[SecretKey],
    role: Option<&RoleCredentials>,
) -> Result<BTreeMap<SecretKey, Secret>, Failure> {
    let Some(role) = role else {
        return Err(Failure::ends_task("ssm secret resource: unable to find execution role credentials"));
    };
    let mut regions: BTreeMap<&str, Vec<&SecretKey>> = BTreeMap::new();
    for key in keys {
        regions.entry(sdk.region_or_own(&key.region)).or_default().push(key);
    }
    let batches: Vec<_> = regions
        .iter()
        .flat_map(|(region, keys)| {
            keys.chunks(BATCH).map(move |batch| async move { self::batch(sdk, region, batch, role).await })
        })
        .collect();
    let answers: Vec<_> = stream::iter(batches).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn batch(
    sdk: &Sdk,
    region: &str,
    keys: &[&SecretKey],
    role: &RoleCredentials,
) -> Result<Vec<(SecretKey, Secret)>, Failure> {
    let reason_for = |cause: &str| format!("fetching secret data from SSM Parameter Store in {region}: {cause}");
    let mut names: Vec<&str> = keys.iter().map(|key| key.value_from.as_str()).collect();
    names.dedup();
    let credentials = credentials::fixed(&role.access_key_id, &role.secret_access_key, &role.session_token);
    let call = Call {
        service: "ssm",
        target: "AmazonSSM.GetParameters",
        region,
        endpoint: sdk.ssm_endpoint(),
        body: &json!({"Names": names, "WithDecryption": true}),
    };
    let answer = sdk.call(&call, &credentials).await.map_err(|error| failure(&error, &reason_for))?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| Failure::ends_task(reason_for("empty response")))?;
    let invalid =
        |names: &[String]| Failure::ends_task(reason_for(&format!("invalid parameters: {}", names.join(","))));
    if !answer.invalid_parameters.is_empty() {
        return Err(invalid(&answer.invalid_parameters));
    }
    // `Secret` zeroes the values when they are dropped, including those that were not requested.
    let parameters: Vec<(Parameter, Secret)> = answer
        .parameters
        .into_iter()
        .map(|mut parameter| {
            let value = parameter.value.take().unwrap_or_default();
            (parameter, Secret::new(value))
        })
        .collect();
    keys.iter()
        .map(|key| {
            let found = parameters.iter().find(|(parameter, _)| parameter.is_called(&key.value_from));
            let (_, value) = found.ok_or_else(|| invalid(std::slice::from_ref(&key.value_from)))?;
            Ok(((*key).clone(), value.clone()))
        })
        .collect()
}

fn failure(error: &CallError, reason_for: &dyn Fn(&str) -> String) -> Failure {
    let text = reason_for(&error.sdk_text("SSM: GetParameters", &MODELLED));
    if error.is_retryable() { Failure::retryable("", text) } else { Failure::ends_task(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{self, Answer, Fake, Request, role};
    use ecs_core::model::FailureKind;
    use ecs_core::model::resource::SecretProvider;

    fn sdk(fake: &Fake) -> Sdk {
        Sdk::new(fake::settings(fake)).unwrap()
    }

    fn key(value_from: &str, region: &str) -> SecretKey {
        SecretKey { provider: SecretProvider::Ssm, value_from: value_from.to_owned(), region: region.to_owned() }
    }

    /// The answer of an SSM in which every name has a value, except names that contain `none`.
    fn store(request: &Request) -> Answer {
        let body = request.json();
        let (mut found, mut invalid) = (Vec::new(), Vec::new());
        for name in body["Names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
            let plain = name.rsplit(":parameter").next().unwrap();
            let (plain, selector) =
                plain.split_once(':').map_or((plain, String::new()), |(name, tail)| (name, format!(":{tail}")));
            let arn = format!("arn:aws:ssm:us-west-2:123456789012:parameter{plain}");
            match name.contains("none") {
                true => invalid.push(name.to_owned()),
                false => {
                    found.push(json!({"Name": plain, "Value": format!("of {name}"), "Selector": selector, "ARN": arn}))
                }
            }
        }
        Answer::json(200, &json!({"Parameters": found, "InvalidParameters": invalid}))
    }

    #[tokio::test]
    async fn the_request_is_the_recorded_one() {
        let golden = fake::golden("ssm_get_parameters");
        let fake = Fake::start(store).await;
        let asked = key("/judge/ssm", "");
        let found = parameters(&sdk(&fake), std::slice::from_ref(&asked), Some(&role("exec"))).await.unwrap();
        assert_eq!(found[&asked].expose(), "of /judge/ssm");
        let request = &fake.requests()[0];
        assert_eq!((request.json(), request.method.as_str()), (golden["body"].clone(), "POST"));
        for name in ["X-Amz-Target", "User-Agent", "Content-Type", "Content-Length", "Amz-Sdk-Request"] {
            assert_eq!(request.header(name), golden["headers"][name].as_str(), "{name}");
        }
        let authorization = request.header("authorization").unwrap();
        assert_eq!(fake::scope(authorization), fake::scope(golden["headers"]["Authorization"].as_str().unwrap()));
        assert_eq!(request.header("x-amz-security-token"), Some("tok"));
    }

    #[tokio::test]
    async fn a_call_names_ten_parameters_of_one_region() {
        let fake = Fake::start(store).await;
        let mut keys: Vec<_> = (0..23).map(|number| key(&format!("/p{number}"), "us-west-2")).collect();
        keys.push(key("/p0", "eu-west-1"));
        let found = parameters(&sdk(&fake), &keys, Some(&role("exec"))).await.unwrap();
        assert!(keys.iter().all(|key| found[key].expose() == format!("of {}", key.value_from)));
        let mut sizes: Vec<_> =
            fake.requests().iter().map(|request| request.json()["Names"].as_array().unwrap().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 3, 10, 10]);
        let in_region = |it: &&Request| it.header("authorization").unwrap().contains("/eu-west-1/ssm/");
        assert_eq!(fake.requests().iter().filter(in_region).count(), 1);
    }

    #[tokio::test]
    async fn a_parameter_is_found_by_name_arn_version_and_label() {
        let fake = Fake::start(store).await;
        let arn = "arn:aws:ssm:us-west-2:123456789012:parameter/p";
        let keys = ["/p", "/p:3", "/p:label", arn, &format!("{arn}:3")].map(|name| key(name, ""));
        for key in &keys {
            let found = parameters(&sdk(&fake), std::slice::from_ref(key), Some(&role("exec"))).await.unwrap();
            assert_eq!(found[key].expose(), format!("of {}", key.value_from));
        }
        // In one request, in either order, versions are not confused.
        for names in [["/p", "/p:3", "/p:label"], ["/p:label", "/p:3", "/p"]] {
            let keys = names.map(|name| key(name, ""));
            let found = parameters(&sdk(&fake), &keys, Some(&role("exec"))).await.unwrap();
            keys.iter().for_each(|key| assert_eq!(found[key].expose(), format!("of {}", key.value_from)));
        }
    }

    #[tokio::test]
    async fn failures_of_ssm_have_the_texts_customers_know() {
        let start = "fetching secret data from SSM Parameter Store in us-west-2:";
        let denied = format!(
            "{start} operation error SSM: GetParameters, https response error StatusCode: 400, RequestID: , \
             api error AccessDeniedException: no"
        );
        let table = [
            (
                store as fn(&Request) -> Answer,
                format!("{start} invalid parameters: /none/a,/none/b"),
                FailureKind::EndsTask,
            ),
            (|_| Answer::json(200, &json!({})), format!("{start} invalid parameters: /none/a"), FailureKind::EndsTask),
            (|_| Answer::text(200, ""), format!("{start} empty response"), FailureKind::EndsTask),
            (|_| Answer::error(400, "AccessDeniedException", "no"), denied, FailureKind::EndsTask),
        ];
        let keys = ["/none/a", "/none/b", "/there"].map(|name| key(name, "us-west-2"));
        for (answer, text, kind) in table {
            let fake = Fake::start(answer).await;
            let failure = parameters(&sdk(&fake), &keys, Some(&role("exec"))).await.unwrap_err();
            assert_eq!((failure.message, failure.kind), (text, kind));
        }
        let fake = Fake::start(store).await;
        let failure = parameters(&sdk(&fake), &keys, None).await.unwrap_err();
        assert_eq!(failure.message, "ssm secret resource: unable to find execution role credentials");
        let fake = Fake::start(|_| Answer::error(500, "InternalServerError", "oops")).await;
        let failure = parameters(&sdk(&fake), &keys[2..], Some(&role("exec"))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Retryable);
    }
}
