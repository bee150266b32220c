//! Calls about clusters. This module owns the life of a cluster: ACTIVE until it is deleted. Invariant: a cluster with instances
//! is not deleted.

use super::request::{Answer, cluster_of, missing, names};
use crate::api_error::ApiError;
use crate::instances::InstanceStatus;
use crate::state::{MAX_CLUSTERS, State};
use crate::tasks::TaskStatus;
use serde_json::{Value, json};

/// CreateCluster: returns the existing cluster if there is one.
pub(super) fn create(state: &mut State, body: &Value) -> Answer {
    let name = body["clusterName"].as_str().filter(|name| !name.is_empty()).unwrap_or("default");
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') || name.len() > 255 {
        return Err(ApiError::invalid("Cluster names are up to 255 letters, numbers, underscores and hyphens."));
    }
    if !state.clusters.contains_key(name) && state.clusters.len() >= MAX_CLUSTERS {
        return Err(ApiError::new(400, "LimitExceededException", format!("{MAX_CLUSTERS} clusters exist already.")));
    }
    state.clusters.insert(name.to_owned(), "ACTIVE");
    Ok(json!({"cluster": show(state, name)}))
}

/// DeleteCluster.
pub(super) fn delete(state: &mut State, body: &Value) -> Answer {
    let name = cluster_of(state, body)?;
    if state.instances.iter().any(|instance| instance.cluster == name && instance.status != InstanceStatus::Inactive) {
        let message = "The Cluster cannot be deleted while Container Instances are active or draining.";
        return Err(ApiError::new(400, "ClusterContainsContainerInstancesException", message));
    }
    state.clusters.insert(name.clone(), "INACTIVE");
    Ok(json!({"cluster": show(state, &name)}))
}

/// DescribeClusters: `default` if no cluster is named.
pub(super) fn describe(state: &State, body: &Value) -> Value {
    let mut requested: Vec<&str> = names(body, "clusters").collect();
    if requested.is_empty() {
        requested.push("default");
    }
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for given in requested {
        let name = given.rsplit('/').next().unwrap_or(given);
        match state.clusters.contains_key(name) {
            true => clusters.push(show(state, name)),
            false => failures.push(missing(&state.site.arn(&format!("cluster/{name}")))),
        }
    }
    json!({"clusters": clusters, "failures": failures})
}

/// ListClusters.
pub(super) fn list(state: &State) -> Value {
    let active = state.clusters.iter().filter(|(_, status)| **status == "ACTIVE");
    json!({"clusterArns": active.map(|(name, _)| state.site.arn(&format!("cluster/{name}"))).collect::<Vec<_>>()})
}

fn show(state: &State, name: &str) -> Value {
    let arn = state.site.arn(&format!("cluster/{name}"));
    let registered = state.instances.iter().filter(|i| i.cluster == name && i.status != InstanceStatus::Inactive);
    json!({
        "clusterArn": arn,
        "clusterName": name,
        "status": state.clusters.get(name).copied().unwrap_or("INACTIVE"),
        "registeredContainerInstancesCount": registered.count(),
        "runningTasksCount": state.count(TaskStatus::Running, |task| task.cluster == name),
        "pendingTasksCount": state.count(TaskStatus::Pending, |task| task.cluster == name),
        "activeServicesCount": 0,
        "statistics": [],
        "settings": [],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
        "tags": state.tags.get(&arn).cloned().unwrap_or_default(),
    })
}
