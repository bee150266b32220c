//! The fuzz target for the paths of requests.

use super::subject::{Subject, shown};
use super::{Tasks, front};
use crate::http::path;
use axum::http::Uri;
use ecs_core::model::view::{ContainerView, TaskView, View};
use std::sync::Arc;
use tokio::sync::watch;

/// Decodes and cleans the path of a request, and decides what it is about.
///
/// # Panics
/// A clean path is cleaned again or has a segment `..`, a path changes when it is passed on, or a log line would show a whole id.
pub fn task_metadata_path(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    let Some(decoded) = front::decoded(uri.path()) else { return };
    if let Some(clean) = path::cleaned(&decoded) {
        assert_eq!(path::cleaned(&clean), None, "{clean:?} is cleaned twice");
        return;
    }
    assert!(decoded.starts_with('/') && !decoded.split('/').any(|segment| segment == ".."), "{decoded:?}");
    let Some(written) = front::with_path(&uri, &decoded) else {
        assert!(decoded.len() > 4096, "{decoded:?} cannot be passed on");
        return;
    };
    assert_eq!(front::decoded(written.path()).as_deref(), Some(&*decoded), "{written}");
    assert_eq!(written.query(), uri.query());
    let container = ContainerView {
        endpoint_id: Some("0123456789".into()),
        runtime_id: Some("docker".into()),
        ..ContainerView::default()
    };
    let task = TaskView { containers: vec![container], ..TaskView::default() };
    let view = View { tasks: vec![Arc::new(task)], ..View::default() };
    let tasks = Tasks::new(watch::channel(Arc::new(view)).1);
    if let Subject::Known(_, id, _) = Subject::from_path(&decoded, uri.query(), &tasks) {
        let segment = shown(&decoded).split('/').nth(2).map(str::to_owned);
        assert!(id == "0123456789" && segment.as_deref() != Some("0123456789"), "{decoded:?}");
    }
}
