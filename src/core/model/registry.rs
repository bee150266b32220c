//! Where the credentials for a container registry come from, as ECS says, and the credentials themselves, which are kept in memory
//! only.

use super::Secret;
use serde::{Deserialize, Serialize};

/// Where the credentials for pulling an image come from (payload `registryAuthentication`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryAuth {
    /// The operator's `ECS_ENGINE_AUTH_DATA`, or none.
    #[default]
    Engine,
    /// A token of Amazon ECR.
    Ecr(EcrAuth),
    /// A user and a password in a secret of Secrets Manager.
    Secret(SecretAuth),
}

/// The secret with the credentials (`asmAuthData`). It is read with the task execution role.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretAuth {
    /// ARN or name of the secret.
    pub secret: String,
    /// Region of the secret; empty: the region of the instance.
    #[serde(default)]
    pub region: String,
}

/// An ECR registry, and the role for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EcrAuth {
    /// Account id of the registry.
    pub registry_id: String,
    /// Region of the registry.
    pub region: String,
    /// Endpoint of ECR that replaces the regional one; empty: the regional one.
    #[serde(default)]
    pub endpoint_override: String,
    /// The token is requested with the task execution role instead of the instance role.
    #[serde(default)]
    pub use_execution_role: bool,
}

/// Credentials for one registry. If all are empty, the access is anonymous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// User name.
    pub username: String,
    /// Password or token of the user.
    pub password: Secret,
    /// E-mail address, which some old registries require.
    pub email: String,
    /// Address of the registry that the credentials belong to.
    pub server_address: String,
    /// OAuth2 refresh token instead of a password.
    pub identity_token: Secret,
    /// Bearer token, sent as it is.
    pub registry_token: Secret,
}

impl RegistryCredentials {
    /// True if there is no user name, password or token.
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }

    /// True if the user name, the password or the token ends in a line break. It is used unchanged, but the line break is hardly
    /// intended: `echo` and editors add one.
    pub fn ends_in_newline(&self) -> bool {
        let secrets = [&self.password, &self.identity_token, &self.registry_token].map(Secret::expose);
        secrets.into_iter().chain([self.username.as_str()]).any(|text| text.ends_with(['\n', '\r']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_at_the_end_of_any_secret_is_found() {
        let with = |password: &str, token: &str| RegistryCredentials {
            username: "me".to_owned(),
            password: password.into(),
            identity_token: token.into(),
            ..RegistryCredentials::default()
        };
        for (password, token, wanted) in
            [("a\n", "", true), ("a\r\n", "", true), ("", "t\n", true), ("a\nb", "t", false), ("", "", false)]
        {
            assert_eq!(with(password, token).ends_in_newline(), wanted, "{password:?} {token:?}");
        }
    }
}
