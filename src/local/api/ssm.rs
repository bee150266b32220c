//! The only SSM call that the agent makes: GetParameters. This module owns the look-up of a parameter by name or ARN. Invariant:
//! only this answer contains a parameter's value.

use super::request::{Answer, names};
use crate::api_error::ApiError;
use crate::state::State;
use serde_json::{Value, json};

/// Maximum number of names in one request.
const MAX_NAMES: usize = 10;

/// Answers a call of SSM.
pub(super) fn answer(state: &State, operation: &str, body: &Value) -> Answer {
    if operation != "GetParameters" {
        return Err(ApiError::unsupported("UnknownOperationException", operation, "SSM", &["GetParameters"]));
    }
    let asked: Vec<&str> = names(body, "Names").collect();
    if asked.is_empty() || asked.len() > MAX_NAMES {
        let message = format!(
            "Value '[{}]' at 'names' failed to satisfy constraint: Member must have length 1 to {MAX_NAMES}",
            asked.join(", ")
        );
        return Err(ApiError::new(400, "ValidationException", message));
    }
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for asked in asked {
        let (name, selector) = name_and_selector(asked);
        match state.stored.parameter(name) {
            None => invalid.push(asked),
            Some(value) => found.push(json!({
                "Name": name,
                "ARN": state.site.ssm_arn(name),
                "Selector": selector,
                "Type": "SecureString",
                "Value": value.expose(),
                "Version": 1,
                "DataType": "text",
            })),
        }
    }
    Ok(json!({"Parameters": found, "InvalidParameters": invalid}))
}

/// The name of the parameter that a request names by name or ARN, perhaps with a version or a label.
pub(super) fn name(asked: &str) -> &str {
    name_and_selector(asked).0
}

/// Splits a parameter's name or ARN from its version or label. This server has one version of each parameter.
fn name_and_selector(asked: &str) -> (&str, Option<&str>) {
    let name = match asked.strip_prefix("arn:").and_then(|arn| arn.split_once(":parameter")) {
        // `parameter/a/b` is `/a/b` or `a/b`.
        Some((_, name)) => name,
        None => asked,
    };
    match name.find(':') {
        Some(at) => (&name[..at], Some(&name[at..])),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[test]
    fn a_parameter_is_found_by_name_and_arn() {
        let mut state = State::new(Site::example(), "default");
        state.stored.put_parameter("/team/key", "hunter2".into()).unwrap();
        let arn = "arn:aws:ssm:us-west-2:123456789012:parameter/team/key";
        let wanted = ["/team/key", "team/key", "/team/key:3", arn, "/team/none"];
        let found = answer(&state, "GetParameters", &json!({"Names": wanted})).unwrap();
        assert_eq!(found["InvalidParameters"], json!(["/team/none"]));
        let all = found["Parameters"].as_array().unwrap();
        assert!(
            all.len() == 4 && all.iter().all(|parameter| parameter["Value"] == "hunter2" && parameter["ARN"] == arn),
            "{found}"
        );
        assert_eq!((&all[2]["Name"], &all[2]["Selector"]), (&json!("/team/key"), &json!(":3")));
        for names in [json!([]), json!(vec!["/a"; 11])] {
            let error = answer(&state, "GetParameters", &json!({"Names": names})).unwrap_err();
            assert_eq!(error.code, "ValidationException");
        }
        assert_eq!(answer(&state, "PutParameter", &json!({})).unwrap_err().code, "UnknownOperationException");
    }
}
