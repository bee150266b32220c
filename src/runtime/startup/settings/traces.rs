//! Settings of the exporter of traces.

use super::aws;
use crate::config::Config;
use crate::otlp::{Exporter, Outbox, Settings};
use crate::store::Identity;
use crate::version;
use std::sync::Arc;
use url::Url;

/// The exporter, and the way of spans to it; `None`: nobody wants traces. An exporter that cannot be made is logged, and the agent
/// runs without it.
pub(crate) fn exporter(config: &Config, identity: &Identity, region: &str) -> Option<(Arc<Exporter>, Outbox)> {
    let wanted = config.traces()?;
    let url = Url::parse(&wanted.url).ok()?;
    let mut resource = vec![
        ("service.name".to_owned(), "ecs-agent".to_owned()),
        ("service.version".to_owned(), version::OWN.to_owned()),
        ("cloud.provider".to_owned(), "aws".to_owned()),
        ("cloud.region".to_owned(), region.to_owned()),
        ("aws.ecs.cluster.name".to_owned(), identity.cluster.clone()),
        ("aws.ecs.container_instance.arn".to_owned(), identity.container_instance_arn.clone()),
        ("host.id".to_owned(), identity.ec2_instance_id.clone()),
    ];
    resource.retain(|(key, value)| !value.is_empty() && !wanted.attributes.contains_key(key));
    resource.extend(wanted.attributes);
    let settings = Settings {
        url,
        headers: wanted.headers,
        limit: wanted.timeout.into(),
        resource,
        version: version::OWN.to_owned(),
        proxy: aws::proxy(config),
    };
    let outbox = Outbox::default();
    match Exporter::new(settings, outbox.clone()) {
        Ok(exporter) => Some((Arc::new(exporter), outbox)),
        Err(error) => {
            tracing::error!(error, "there are no traces (OTEL_EXPORTER_OTLP_ENDPOINT)");
            None
        }
    }
}
