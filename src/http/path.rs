//! Path cleaning: `//v1/./tasks` is answered with a redirect to `/v1/tasks`.
//!
//! Owns the rule and the redirect, knows no route. Invariant: a cleaned path is its own cleaned path, so there is no redirect
//! loop.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The cleaned form, if the path is not clean: no empty, `.` or `..` segments; a final slash stays.
pub(crate) fn cleaned(path: &str) -> Option<String> {
    (!is_clean(path)).then(|| clean_form(path))
}

/// Decides without an allocation, since nearly all paths are clean.
fn is_clean(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    path == "/" || rest.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

fn clean_form(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// A permanent redirect that keeps the query.
pub(crate) fn moved_to(path: &str, query: Option<&str>) -> Response {
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let shown = target.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
    let body = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", shown.replace('\'', "&#39;"));
    match HeaderValue::from_str(&target) {
        Ok(location) => {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            let headers = [(header::CONTENT_TYPE, html), (header::LOCATION, location)];
            (StatusCode::MOVED_PERMANENTLY, headers, body).into_response()
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::{clean_form, cleaned, is_clean};

    #[test]
    fn dirty_paths_are_cleaned_and_clean_ones_left_alone() {
        let cases = [
            ("/", None),
            ("", Some("/")),
            ("v1", Some("/v1")),
            ("/.", Some("/")),
            ("/v1/.../..x", None),
            ("/v1/tasks", None),
            ("/v1/metadata/", None),
            ("/v1/foo", None),
            ("//", Some("/")),
            ("//v1//tasks", Some("/v1/tasks")),
            ("/v1/./tasks", Some("/v1/tasks")),
            ("/v1/../license", Some("/license")),
            ("/../..", Some("/")),
            ("/v1/tasks//", Some("/v1/tasks/")),
            ("/v1/tasks/..", Some("/v1")),
        ];
        for (path, expected) in cases {
            assert_eq!(cleaned(path).as_deref(), expected, "{path}");
            assert_eq!(is_clean(path), clean_form(path) == path, "{path}");
            let settled = cleaned(path).unwrap_or_else(|| path.to_owned());
            assert_eq!(cleaned(&settled), None, "{path} redirects twice");
        }
    }
}
