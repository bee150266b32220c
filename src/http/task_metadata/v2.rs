//! Version 2: a caller is known by its address alone (spec `task-metadata.md` §4).
//!
//! Only a task of network mode `awsvpc` has an address that is its own, and no such task runs here yet. So every answer is that
//! of the Go agent to a task of another network mode.

use super::log::refused;
use crate::http::RemoteAddress;
use axum::Router;
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;

/// The paths, each with its request type in the log.
const PATHS: [(&str, &str); 8] = [
    ("/v2/metadata", "task metadata"),
    ("/v2/metadata/", "task metadata"),
    ("/v2/metadata/{*id}", "task metadata"),
    ("/v2/metadataWithTags", "task metadata"),
    ("/v2/metadataWithTags/", "task metadata"),
    ("/v2/stats", "task stats"),
    ("/v2/stats/", "task stats"),
    // Compat: without a task, the Go agent names the same type as for a whole task.
    ("/v2/stats/{*id}", "task stats"),
];

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PATHS.into_iter().fold(Router::new(), |routes, (path, kind)| {
        routes.route(path, any(async move |address: Option<Extension<RemoteAddress>>| unknown(address, kind)))
    })
}

fn unknown(address: Option<Extension<RemoteAddress>>, kind: &str) -> Response {
    let address = address.map(|Extension(remote)| remote.address.ip().to_canonical().to_string());
    let address = address.unwrap_or_default();
    let text = format!("Unable to get task arn from request: unable to associate '{address}' with task");
    refused(StatusCode::BAD_REQUEST, &text, kind, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn a_caller_is_of_no_task() {
        let golden = format!("{}/tests/golden/tmds_v2_from_host.json", env!("CARGO_MANIFEST_DIR"));
        let recorded: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
        for path in
            ["/v2/metadata", "/v2/metadata/", "/v2/metadata/abc", "/v2/metadataWithTags/", "/v2/stats/a/b", "/v2/stats"]
        {
            let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
            request.extensions_mut().insert(RemoteAddress {
                address: "127.0.0.1:4711".parse().unwrap(),
                location: crate::http::PeerLocation::Host,
            });
            let Ok(answer) = TowerToHyperService::new(routes::<()>()).call(request).await;
            let (status, kind) =
                (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap().to_owned());
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json!({"status": status, "content_type": kind, "body": body}), recorded, "{path}");
        }
    }
}
