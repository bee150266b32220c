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

    /// The user name, the password or the token ends in a new line. It is used as it is, but nobody chooses such a password: `echo` and
    /// editors add the line end.
    pub fn ends_in_newline(&self) -> bool {
        let secrets = [&self.password, &self.identity_token, &self.registry_token].map(Secret::expose);
        secrets.into_iter().chain([self.username.as_str()]).any(|text| text.ends_with(['\n', '\r']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_is_seen_behind_each_secret() {
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
