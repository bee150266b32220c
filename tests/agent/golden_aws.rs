//! The calls to SSM, Secrets Manager and S3, compared with the recordings of the Go agent.

use super::difference::Kind::{Any, Extra, Missing};
use super::difference::{Allowed, assert_same, golden};
use super::recorded_task::life;
use serde_json::{Map, Value, json};

const HEADERS: [Allowed; 8] = [
    ("accept", Extra, "the HTTP client's own"),
    ("accept-encoding", Missing, "no compressed answer is asked for; a call to S3 says so in this header"),
    ("amz-sdk-invocation-id", Any, "random"),
    ("authorization", Any, "time, and the order of signed headers' names"),
    ("x-amz-date", Any, "time"),
    ("x-amz-security-token", Any, "left out of both"),
    ("user-agent", Any, "the commit of this program"),
    ("host", Any, "the control plane's"),
];

fn lower(headers: &Value) -> Value {
    let headers = headers.as_object().unwrap().iter();
    headers.map(|(name, value)| (name.to_lowercase(), value.clone())).collect::<Map<_, _>>().into()
}

/// The scope and the signed names of a signature, without its time and its key.
fn signed(authorization: &Value) -> (Vec<String>, String) {
    let text = authorization.as_str().unwrap();
    let scope = text.split(',').next().unwrap().split('/').skip(2).map(str::to_owned).collect();
    let names = text.split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
    (scope, names.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_task_in_aws_are_read_as_recorded() {
    let Some(life) = life().await else { return };
    for (operation, name) in [
        ("GetParameters", "ssm_get_parameters"),
        ("GetSecretValue", "secretsmanager_get_secret_value"),
        ("GetObject", "s3_get_object"),
    ] {
        let recorded = golden(name);
        let calls = life.calls(operation);
        // One call is for the task whose parameter does not exist; either call may come first.
        assert_eq!(calls.len(), if operation == "GetParameters" { 2 } else { 1 }, "{operation}");
        let call = calls.iter().find(|call| !call.body.to_string().contains("/judge/none")).unwrap();
        assert_same(&format!("{name}: body"), &recorded["body"], &life.renamed(&call.body), &[]);
        let (theirs, ours) = (lower(&recorded["headers"]), life.renamed(&json!(call.headers)));
        let is_s3 = operation == "GetObject";
        let allowed = HEADERS.iter().filter(|(header, _, _)| !(is_s3 && *header == "accept-encoding"));
        assert_same(&format!("{name}: headers"), &theirs, &ours, &allowed.copied().collect::<Vec<_>>());
        let (mut theirs, ours) = (signed(&theirs["authorization"]), signed(&ours["authorization"]));
        if !is_s3 {
            theirs.1 = theirs.1.replace("content-length;", "");
        }
        assert_eq!(ours, theirs, "{name}");
    }
    let [head] = life.calls("HeadBucket")[..] else { panic!("asked once where the bucket is") };
    assert_eq!((&head.body["path"], head.headers.get("authorization")), (&json!("/judge-bucket"), None));
}
