//! Credentials in a file that something outside the agent renews: on ECS Anywhere the SSM agent (spec `config.md` §2.1).
//!
//! Owns the reading of that one file; when it is asked is [`super::credentials`]'s. The invariant: nothing of it is kept here, so a
//! renewed file counts from the next question on.

#![expect(deprecated, reason = "the SDK moved two names to a crate that would be a dependency for them alone")]

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use std::path::PathBuf;

/// A credentials file read anew whenever it is asked. Its keys have no end of their own, so the cache in
/// [`super::credentials`] asks every minute.
#[derive(Debug)]
pub(super) struct Rotating {
    pub(super) file: PathBuf,
    pub(super) profile: String,
    pub(super) config: ProviderConfig,
}

impl Rotating {
    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        if !tokio::fs::try_exists(&self.file).await.unwrap_or(false) {
            return Err(CredentialsError::not_loaded(format!("{} is not there", self.file.display())));
        }
        let files = ProfileFiles::builder().with_file(ProfileFileKind::Credentials, &self.file).build();
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&self.config)
            .profile_files(files)
            .profile_name(&self.profile)
            .build();
        provider.provide_credentials().await
    }
}

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}
