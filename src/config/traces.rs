//! Where traces are sent, from the variables of OpenTelemetry.
//!
//! The names and their meaning are those of the OpenTelemetry specification ("OTLP Exporter Configuration"), the defaults too, except
//! for the form of requests.

use super::settings::Config;
use ecs_core::model::{Secret, Span};
use std::collections::BTreeMap;

/// Where traces are sent, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// The URL of requests. It may hold a password.
    pub url: String,
    /// Headers of each request.
    pub headers: Vec<(String, Secret)>,
    /// The time limit of one request.
    pub timeout: Span,
    /// Attributes of the agent.
    pub attributes: BTreeMap<String, String>,
}

// The URL may hold a password.
impl std::fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceSettings").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

impl Config {
    /// Where traces are sent; `None`: nowhere.
    pub fn traces(&self) -> Option<TraceSettings> {
        const PATH: &str = "v1/traces";
        let below = |base: &String| format!("{}/{PATH}", base.trim_end_matches('/'));
        let url = self.otlp_traces_endpoint.clone().or_else(|| self.otlp_endpoint.as_ref().map(below));
        let url = url.filter(|_| !self.otel_disabled)?;
        let headers = self.otlp_headers.as_ref().map(|json| serde_json::from_str(json.expose()).unwrap_or_default());
        let headers: BTreeMap<String, String> = headers.unwrap_or_default();
        let mut attributes = self.otel_resource_attributes.clone();
        if let Some(name) = &self.otel_service_name {
            attributes.insert("service.name".to_owned(), name.clone());
        }
        Some(TraceSettings {
            url,
            headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            timeout: Span::millis(self.otlp_timeout_ms),
            attributes,
        })
    }
}
