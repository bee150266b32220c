//! Registry credentials that a task definition stores in Secrets Manager (spec `images.md` §6.2).
//!
//! Owns the call, the form of such a secret and the error texts that customers see. The invariant: a secret is fetched once for
//! each task (that is, for each set of execution role credentials), kept in memory only, and dropped together with these
//! credentials.

use super::secrets_manager::{self, ValueError};
use crate::aws::client::cache::{Cache, Cacheable};
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::roles::RoleCredentials;
use crate::input::members::Members;
use ecs_core::model::task::SecretAuth;
use ecs_core::model::{CredentialsId, Failure, RegistryCredentials, Secret};
use serde_json::json;

/// Maximum number of cached secrets: some for each task of a large instance.
const CACHE_LIMIT: usize = 1000;

/// Fetches registry credentials from Secrets Manager and caches them.
#[derive(Debug)]
pub struct RegistrySecrets {
    sdk: Sdk,
    cache: Cache<(CredentialsId, SecretAuth), RegistryCredentials>,
}

impl Cacheable for RegistryCredentials {
    /// The answer is used as long as the task exists: a repeated pull uses the same credentials as the first one.
    fn is_fresh(&self) -> bool {
        true
    }

    fn outlives(&self, _failure: &Failure) -> bool {
        false
    }
}

impl RegistrySecrets {
    /// An empty cache; a secret is fetched when a task first needs it.
    pub fn new(sdk: Sdk) -> Self {
        Self { sdk, cache: Cache::new(CACHE_LIMIT) }
    }

    /// The credentials in the secret of `auth`, read with the task's execution role (`None` if the task has none).
    ///
    /// # Errors
    /// Fails without a role, if the call fails, or if the secret has no user name or no password. The failure ends the task.
    pub async fn credentials(
        &self,
        auth: &SecretAuth,
        execution_role: Option<&RoleCredentials>,
    ) -> Result<RegistryCredentials, Failure> {
        let Some(role) = execution_role else {
            return Err(ends_task("asm resource: unable to find execution role credentials".to_owned()));
        };
        self.cache.get(&(role.id.clone(), auth.clone()), self.fetch(auth, role)).await
    }

    /// Drops the secrets that were read with these credentials.
    pub fn forget(&self, id: &CredentialsId) {
        self.cache.forget(|(used, _)| used == id);
    }

    async fn fetch(&self, auth: &SecretAuth, role: &RoleCredentials) -> Result<RegistryCredentials, Failure> {
        let body = json!({"SecretId": auth.secret});
        let secret =
            secrets_manager::value(&self.sdk, &auth.region, &body, role).await.map_err(|error| match error {
                ValueError::Call(error) => {
                    let cause = secrets_manager::sdk_text(&error);
                    ends_task(format!("asm fetching secret from the service for {}: {cause}", auth.secret))
                }
                ValueError::Unreadable => ends_task("asm fetching authorization data: empty response".to_owned()),
            })?;
        account(&secret).map_err(|text| ends_task(text.to_owned()))
    }
}

/// Compat: the Go agent reports these reasons for the task, without a name.
fn ends_task(message: String) -> Failure {
    Failure::ends_task(message)
}

/// The user and the password in a secret. The case of the member names is ignored.
fn account(secret: &Secret) -> Result<RegistryCredentials, &'static str> {
    const INVALID: &str = "asm fetching authorization data: unable to unmarshal secret value, invalid schema";
    if secret.is_empty() {
        return Err("asm fetching authorization data: empty secrets value");
    }
    let members = Members::parse(secret.expose()).map_err(|_| INVALID)?;
    let member = |name: &str| members.text(name).map_err(|_| INVALID);
    let (username, password) = (member("username")?, Secret::new(member("password")?));
    if username.is_empty() {
        return Err("asm fetching username: AuthorizationData is malformed, empty field");
    }
    if password.is_empty() {
        return Err("asm fetching password: AuthorizationData is malformed, empty field");
    }
    Ok(RegistryCredentials { username, password, ..RegistryCredentials::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{self, Fake, role};
    use ecs_core::model::FailureKind;

    const SECRET: &str = "arn:aws:secretsmanager:us-west-2:123456789012:secret:judge-AbCdEf";
    const GOOD: &str = r#"{"username": "me", "password": "hunter2"}"#;

    fn secrets(fake: &Fake) -> RegistrySecrets {
        RegistrySecrets::new(Sdk::new(fake::settings(fake)).unwrap())
    }

    fn auth() -> SecretAuth {
        SecretAuth { secret: SECRET.to_owned(), region: "us-west-2".to_owned() }
    }

    async fn holding(secret: &'static str) -> Fake {
        Fake::start(move |_| fake::Answer::json(200, &json!({"Name": "judge", "SecretString": secret}))).await
    }

    #[tokio::test]
    async fn the_request_is_the_recorded_one() {
        let golden = fake::golden("secretsmanager_get_secret_value");
        let fake = holding(GOOD).await;
        let got = secrets(&fake).credentials(&auth(), Some(&role("a"))).await.unwrap();
        assert_eq!((got.username.as_str(), got.password.expose()), ("me", "hunter2"));
        let request = &fake.requests()[0];
        assert_eq!(request.json(), golden["body"]);
        for name in ["X-Amz-Target", "User-Agent", "Content-Type", "Content-Length", "Amz-Sdk-Request"] {
            assert_eq!(request.header(name), golden["headers"][name].as_str(), "{name}");
        }
        let authorization = request.header("authorization").unwrap();
        assert!(authorization.contains("Credential=ASIA09438B6F6D524562/"));
        assert_eq!(fake::scope(authorization), fake::scope(golden["headers"]["Authorization"].as_str().unwrap()));
        assert_eq!(request.header("x-amz-security-token"), Some("tok"));
    }

    #[tokio::test]
    async fn a_secret_is_requested_once_for_each_task() {
        let fake = holding(GOOD).await;
        let secrets = secrets(&fake);
        let (auth, first, second) = (auth(), role("a"), role("b"));
        let ask = |role| secrets.credentials(&auth, Some(role));
        let answers = tokio::join!(ask(&first), ask(&first), ask(&second));
        assert!(answers.0.is_ok() && answers.0 == answers.1 && answers.1 == answers.2);
        assert_eq!(fake.requests().len(), 2);
        secrets.forget(&"a".into());
        ask(&first).await.unwrap();
        ask(&second).await.unwrap();
        assert_eq!(fake.requests().len(), 3, "only secrets read with the forgotten credentials are read again");
    }

    #[test]
    fn a_secret_is_user_and_password_in_any_case() {
        let invalid = "asm fetching authorization data: unable to unmarshal secret value, invalid schema";
        let table = [
            (GOOD, Ok(("me", "hunter2"))),
            (r#"{"Username": "me", "PASSWORD": "hunter2", "more": [1]}"#, Ok(("me", "hunter2"))),
            ("", Err("asm fetching authorization data: empty secrets value")),
            ("hunter2", Err(invalid)),
            (r#"["me", "hunter2"]"#, Err(invalid)),
            (
                r#"{"ge\u00e4ndert": "x", "https:\/\/r": 1, "username": "me", "password": "hunter2"}"#,
                Ok(("me", "hunter2")),
            ),
            (r#"{"\ud83d": {}, "\u0055sername": "m\u0065", "pass\u0077ord": "hunter2"}"#, Ok(("me", "hunter2"))),
            (r#"{"username": "me", "password": "old", "Password": "hunter2\n"}"#, Ok(("me", "hunter2\n"))),
            (r#"{"username": 7, "password": "hunter2"}"#, Err(invalid)),
            (r#"{"password": "hunter2"}"#, Err("asm fetching username: AuthorizationData is malformed, empty field")),
            (
                r#"{"username": "me", "password": null}"#,
                Err("asm fetching password: AuthorizationData is malformed, empty field"),
            ),
        ];
        for (secret, wanted) in table {
            let got = account(&Secret::from(secret));
            let got = got.as_ref().map(|got| (got.username.as_str(), got.password.expose())).map_err(|text| *text);
            assert_eq!(got, wanted, "{secret}");
        }
    }

    #[tokio::test]
    async fn failures_end_the_task_with_the_texts_customers_know() {
        let fetching = format!(
            "asm fetching secret from the service for {SECRET}: operation error Secrets Manager: GetSecretValue, https response error StatusCode: 400, RequestID: , "
        );
        let table = [
            (
                fake::Answer::error(
                    400,
                    "ResourceNotFoundException",
                    "Secrets Manager can't find the specified secret.",
                ),
                format!("{fetching}ResourceNotFoundException: Secrets Manager can't find the specified secret."),
            ),
            (
                fake::Answer::error(400, "AccessDeniedException", "User: x is not authorized"),
                format!("{fetching}api error AccessDeniedException: User: x is not authorized"),
            ),
            (fake::Answer::text(200, ""), "asm fetching authorization data: empty response".to_owned()),
            (
                fake::Answer::json(200, &json!({"SecretBinary": "aGk="})),
                "asm fetching authorization data: empty secrets value".to_owned(),
            ),
        ];
        for (answer, text) in table {
            let fake = Fake::start(move |_| answer.clone()).await;
            let failure = secrets(&fake).credentials(&auth(), Some(&role("a"))).await.unwrap_err();
            assert_eq!((failure.to_string(), failure.kind), (text, FailureKind::EndsTask));
        }
        let fake = holding(GOOD).await;
        let failure = secrets(&fake).credentials(&auth(), None).await.unwrap_err();
        assert_eq!(failure.to_string(), "asm resource: unable to find execution role credentials");
        assert!(fake.requests().is_empty());
    }
}
