//! The only Secrets Manager call that the agent makes: GetSecretValue. This module owns the look-up of a secret by name or ARN;
//! the secrets come from a directory or a script. Invariant: only this answer contains a secret's value.

use super::request::{Answer, required};
use crate::api_error::ApiError;
use crate::state::State;
use crate::time::now;
use ecs_core::model::Secret;
use serde_json::{Value, json};

/// Answers a call of Secrets Manager.
pub(super) fn answer(state: &State, operation: &str, body: &Value) -> Answer {
    if operation != "GetSecretValue" {
        return Err(ApiError::unsupported(
            "UnknownOperationException",
            operation,
            "Secrets Manager",
            &["GetSecretValue"],
        ));
    }
    let asked = required(body, "SecretId")?;
    let Some((name, value)) = find(state, asked) else {
        let message = "Secrets Manager can't find the specified secret.";
        return Err(ApiError::new(400, "ResourceNotFoundException", message));
    };
    let arn = state.site.secret_arn(name);
    Ok(json!({
        "ARN": if asked.starts_with("arn:") { asked } else { &arn },
        "Name": name,
        "SecretString": value.expose(),
        "VersionId": "00000000-0000-0000-0000-000000000001",
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": now(),
    }))
}

/// The name of the secret that a request names by name or ARN; `None`: there is none.
pub(super) fn name<'s>(state: &'s State, asked: &str) -> Option<&'s str> {
    find(state, asked).map(|(name, _)| name.as_str())
}

fn find<'s>(state: &'s State, asked: &str) -> Option<(&'s String, &'s Secret)> {
    state.secrets.iter().find(|(name, _)| is_called(name, asked))
}

/// `asked` is the secret's name, or an ARN with or without the six characters that AWS adds to the name.
fn is_called(name: &str, asked: &str) -> bool {
    let asked = match asked.strip_prefix("arn:") {
        Some(arn) => arn.split_once(":secret:").map_or("", |(_, name)| name),
        None => asked,
    };
    let tail = asked.strip_prefix(name).map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    tail.is_some_and(|tail| tail.is_empty() && asked == name || tail.len() == 6 && asked.len() == name.len() + 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[test]
    fn a_secret_is_found_by_name_and_arn() {
        let arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:";
        let table = [
            ("team/hub", true),
            ("team/hub-AbCdEf", true),
            (&format!("{arn}team/hub"), true),
            (&format!("{arn}team/hub-x1Y2z3"), true),
            ("team/hub-AbCdE", false),
            ("team/hub2", false),
            ("team", false),
            (arn, false),
        ];
        let mut state = State::new(Site::example(), "default");
        state.secrets.insert("team/hub".to_owned(), "hunter2".into());
        for (asked, there) in table {
            match answer(&state, "GetSecretValue", &json!({"SecretId": asked})) {
                Ok(found) => assert!(there && found["SecretString"] == "hunter2", "{asked}: {found}"),
                Err(error) => assert!(!there && error.code == "ResourceNotFoundException", "{asked}: {error}"),
            }
        }
        let error = answer(&state, "GetSecretValue", &json!({})).unwrap_err();
        assert_eq!(error.code, "InvalidParameterException");
        assert_eq!(answer(&state, "ListSecrets", &json!({})).unwrap_err().code, "UnknownOperationException");
    }
}
