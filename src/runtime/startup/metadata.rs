//! The instance metadata service during the start.

use super::settings;
use crate::aws::identity::imds::{Imds, ImdsError};
use crate::config::Config;
use crate::runtime::{Fatal, Options};
use ecs_core::model::with_causes;

/// The instance metadata service. It is needed before the configuration is complete, because the instance's user data may
/// contain part of the configuration.
#[derive(Debug)]
pub struct Metadata(pub(crate) Imds);

impl Metadata {
    /// Makes the client; sends nothing yet.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn new(config: &Config, options: Options) -> Result<Self, Fatal> {
        let settings = settings::aws::imds(config, options.blackhole_imds);
        Imds::new(settings).map(Self).map_err(|error| Fatal::restartable(with_causes(&error)))
    }

    /// The instance's user data, which may hold configuration; `None` if there is none, or if it cannot be read.
    pub async fn user_data(&self) -> Option<String> {
        match self.0.get("user-data").await {
            Ok(text) => text,
            Err(ImdsError::Blackholed) => None,
            Err(error) => {
                tracing::warn!(%error, "the EC2 user data cannot be read; configuration in it is ignored");
                None
            }
        }
    }
}
