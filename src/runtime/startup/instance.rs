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
    /// Id of the VPC; empty if unknown.
    pub(crate) vpc_id: String,
    /// Id of the subnet; empty if unknown.
    pub(crate) subnet_id: String,
    /// Private and public IPv4 address, for metadata files; empty if unknown, and unless containers get such files.
    pub(crate) ipv4: [String; 2],
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
    let [vpc_id, subnet_id] = place(config, imds).await?;
    let zone_id = document::zone_id(imds).await.ok().flatten();
    let ipv4 = [address(config, imds, "local-ipv4").await, address(config, imds, "public-ipv4").await];
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
    let [id, zone_id] = [id, zone_id].map(Option::unwrap_or_default);
    Ok(Instance { id, region, zone_id, vpc_id, subnet_id, ipv4, document })
}

/// The ids of the VPC and of the subnet of this instance; empty if it has none. The subnet matters only if tasks may have network
/// interfaces of their own.
///
/// # Errors
/// The metadata service does not answer, and tasks may have network interfaces.
pub(crate) async fn place(config: &Config, imds: &Imds) -> Result<[String; 2], Fatal> {
    if config.external {
        return Ok(Default::default());
    }
    let vpc_id = needed(config, document::vpc_id(imds).await, "the VPC of this instance is unknown")?;
    let subnet_id = match config.task_eni && !vpc_id.is_empty() {
        true => needed(config, document::subnet_id(imds).await, "the subnet of this instance is unknown")?,
        false => String::new(),
    };
    Ok([vpc_id, subnet_id])
}

/// What the metadata service has of it; empty if it has nothing. Without an answer, an agent whose tasks may have network interfaces
/// does not start, as the Go agent: starting again is better than offering less until the next start.
fn needed(config: &Config, answer: Result<Option<String>, ImdsError>, warning: &str) -> Result<String, Fatal> {
    match answer {
        Err(error) if config.task_eni && !matches!(error, ImdsError::Blackholed) => {
            Err(Fatal::restartable(format!("{warning}, which ECS_ENABLE_TASK_ENI needs: {error}")))
        }
        answer => Ok(answer_or_warning(answer, warning).unwrap_or_default()),
    }
}

/// An address of this instance, if containers get metadata files; empty if it has none, or if it is unknown.
async fn address(config: &Config, imds: &Imds, name: &str) -> String {
    if !config.container_metadata {
        return String::new();
    }
    let found = answer_or_warning(document::ipv4(imds, name).await, "an address of this instance is unknown");
    found.map(|address| address.to_string()).unwrap_or_default()
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
