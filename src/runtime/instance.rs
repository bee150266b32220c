//! Who this instance is: the answers of its metadata service, and what they mean where there is none.

use super::Fatal;
use crate::aws::identity::{self, SignedDocument};
use crate::aws::imds::{Imds, ImdsError};
use crate::config::Config;

/// Who this instance is, as far as its metadata tells.
#[derive(Debug, Default)]
pub(super) struct Instance {
    /// EC2 instance id; empty if unknown.
    pub(super) id: String,
    /// Region.
    pub(super) region: String,
    /// Availability zone id; empty if unknown.
    pub(super) zone_id: String,
    /// Identity document; `None` for external instances.
    pub(super) document: Option<SignedDocument>,
}

/// Asks the metadata service.
pub(super) async fn instance(config: &Config, imds: &Imds) -> Result<Instance, Fatal> {
    if config.external {
        let region = config.region.clone().ok_or_else(region_missing)?;
        return Ok(Instance { region, ..Instance::default() });
    }
    let id = known(identity::instance_id(imds).await, "the EC2 instance id is unknown");
    let zone_id = identity::zone_id(imds).await.ok().flatten();
    let document = match config.no_identity_document {
        true => None,
        false => known(identity::document(imds).await, "the instance identity document is unknown"),
    };
    let region = match &config.region {
        Some(region) => region.clone(),
        None if config.no_identity_document => {
            identity::region(imds).await.ok().flatten().ok_or_else(region_missing)?
        }
        None => document.as_ref().and_then(SignedDocument::region).ok_or_else(region_missing)?,
    };
    Ok(Instance { id: id.unwrap_or_default(), region, zone_id: zone_id.unwrap_or_default(), document })
}

/// What the metadata service says; what it does not say is logged, unless the operator wants it not to be asked.
fn known<T>(answer: Result<Option<T>, ImdsError>, otherwise: &str) -> Option<T> {
    match answer {
        Ok(answer) => answer,
        Err(ImdsError::Blackholed) => None,
        Err(error) => {
            tracing::warn!(%error, "{otherwise}");
            None
        }
    }
}

fn region_missing() -> Fatal {
    Fatal::restartable(crate::config::region_missing().to_string())
}
