//! Calls ECS about the protection of tasks, with the credentials of their roles.

use crate::aws::client::sdk::Sdk;
use crate::aws::services::task_protection;
use crate::http::task_metadata::TaskProtection;
use crate::runtime::execute::edges::Edges;
use ecs_core::model::protection::{ProtectionAnswer, ProtectionCall, ProtectionError};
use ecs_core::model::{CredentialsId, TaskArn};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Makes these calls.
#[derive(Clone, Debug)]
pub(crate) struct Protection {
    sdk: Sdk,
    cluster: String,
    /// Holds the credentials of roles.
    edges: Arc<Edges>,
}

impl Protection {
    /// For the tasks of this cluster.
    pub(crate) fn new(sdk: Sdk, cluster: String, edges: Arc<Edges>) -> Self {
        Self { sdk, cluster, edges }
    }
}

impl TaskProtection for Protection {
    fn call(
        &self,
        task: TaskArn,
        role: CredentialsId,
        call: ProtectionCall,
    ) -> BoxFuture<'static, Result<ProtectionAnswer, ProtectionError>> {
        let this = self.clone();
        async move {
            // After a restart of the agent, the credentials come with the next payload.
            let role = this.edges.roles.get(&role).ok_or(ProtectionError::NoCredentials)?;
            task_protection::call(&this.sdk, &this.cluster, &task, call, &role).await
        }
        .boxed()
    }
}
