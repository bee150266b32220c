//! The identity of this instance, from its metadata service and the configuration.
//!
//! Owns the decision which missing facts keep the agent from starting: only the region does.

use crate::aws::identity::document::{self, SignedDocument};
use crate::aws::identity::imds::{Imds, ImdsError};
use crate::config::Config;
use crate::runtime::Fatal;

/// The identity of this instance, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    /// EC2 instance id; empty if unknown.
    pub(crate) id: String,
    /// AWS region: the operator's, otherwise the one in which the instance runs.
    pub(crate) region: String,
    /// Id of the availability zone, such as `usw2-az1`; empty if unknown.
    pub(crate) zone_id: String,
    /// Signed identity document; `None` for an external instance, if the operator wants none, or if it cannot be read.
    pub(crate) document: Option<SignedDocument>,
}

/// Reads the identity from the metadata service. Fails if the region is unknown.
pub(crate) async fn instance(config: &Config, imds: &Imds) -> Result<Instance, Fatal> {
    if config.external {
        let region = config.region.clone().ok_or_else(region_missing)?;
        return Ok(Instance { region, ..Instance::default() });
    }
    let id = answer_or_warning(document::instance_id(imds).await, "the EC2 instance id is unknown");
    let zone_id = document::zone_id(imds).await.ok().flatten();
    let document = match config.no_identity_document {
        true => None,
        false => answer_or_warning(document::document(imds).await, "the instance identity document is unknown"),
    };
    let region = match &config.region {
        Some(region) => region.clone(),
        None if config.no_identity_document => {
            document::region(imds).await.ok().flatten().ok_or_else(region_missing)?
        }
        None => document.as_ref().and_then(SignedDocument::region).ok_or_else(region_missing)?,
    };
    Ok(Instance { id: id.unwrap_or_default(), region, zone_id: zone_id.unwrap_or_default(), document })
}

/// The answer of the metadata service. An error is logged as `warning`, unless the operator has disabled the service.
fn answer_or_warning<T>(answer: Result<Option<T>, ImdsError>, warning: &str) -> Option<T> {
    match answer {
        Ok(answer) => answer,
        Err(ImdsError::Blackholed) => None,
        Err(error) => {
            tracing::warn!(%error, "{warning}");
            None
        }
    }
}

fn region_missing() -> Fatal {
    Fatal::restartable(crate::config::region_missing().to_string())
}
