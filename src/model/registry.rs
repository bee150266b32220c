//! Credentials for a container registry. In memory only.

use super::Secret;

/// What a registry wants to see. All empty = anonymous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// Account name.
    pub username: String,
    /// Its password or token.
    pub password: Secret,
    /// E-mail address, which some old registries want.
    pub email: String,
    /// Address of the registry the credentials belong to.
    pub server_address: String,
    /// OAuth2 refresh token instead of a password.
    pub identity_token: Secret,
    /// Bearer token passed as is.
    pub registry_token: Secret,
}

impl RegistryCredentials {
    /// True when nothing would be sent.
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }
}
