//! Credentials in a file that another program renews: on ECS Anywhere, the SSM agent (spec `config.md` §2.1).
//!
//! Owns the reading of this file; [`super::credentials`] decides when to read. The invariant: nothing is cached here, so a
//! renewed file takes effect at the next read.

#![expect(deprecated, reason = "the SDK moved two names to a crate that would be a dependency for them alone")]

use crate::aws::client::words::NoCredentials;
use crate::lane::{Lane, LaneError, read_file};
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use ecs_core::model::with_causes;
use std::io::ErrorKind;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Maximum size of a credentials file in bytes; a larger file is not one.
const MAX_FILE: u64 = 1 << 20;

/// A provider that reads a credentials file at every request. Its keys have no expiration, so the cache in
/// [`super::credentials`] reads the file every minute.
#[derive(Debug)]
pub(crate) struct Rotating {
    pub(crate) file: PathBuf,
    pub(crate) profile: String,
    pub(crate) config: ProviderConfig,
    /// The thread that reads the file. The SDK would read it on a thread that must not block.
    pub(crate) lane: Lane,
}

impl Rotating {
    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let text = self.text().await?;
        let files = ProfileFiles::builder().with_contents(ProfileFileKind::Credentials, text.as_str()).build();
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&self.config)
            .profile_files(files)
            .profile_name(&self.profile)
            .build();
        provider.provide_credentials().await
    }

    async fn text(&self) -> Result<Zeroizing<String>, CredentialsError> {
        let (file, shown) = (self.file.clone(), self.file.display().to_string());
        let not_read = |why: String| CredentialsError::not_loaded(NoCredentials(format!("{shown} {why}")));
        let read = self.lane.run(&shown, move || read_file(&file, MAX_FILE).map(Zeroizing::new)).await;
        let bytes = read.map_err(|error: LaneError| not_read(format!("cannot be read: {}", with_causes(&error))))?;
        let bytes = bytes.map_err(|error| match error.kind() {
            ErrorKind::NotFound => not_read("is not there".to_owned()),
            _ => not_read(format!("cannot be read: {error}")),
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(not_read("is not UTF-8".to_owned())),
        }
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
