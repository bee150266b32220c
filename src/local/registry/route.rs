//! The paths of the registry (OCI distribution 1.1). This module owns their form. Invariant: a name that passes is the name of a
//! repository; nothing in a path is decoded, so no other form of it reaches a name.

use crate::ecr::names::check_repository;
use http::Method;

/// The meaning of a path below `/v2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(&'a str),
    /// `/v2/<name>/blobs/<digest>`
    Blob(&'a str, &'a str),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(&'a str),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(&'a str, &'a str),
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest(&'a str, &'a str),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(&'a str, &'a str),
}

/// The path has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    Unknown,
    /// The name is no name of a repository.
    BadName,
}

/// The path is one of the registry.
pub(crate) fn is_registry(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Reads a path.
pub(super) fn route(path: &str) -> Result<Route<'_>, NoRoute> {
    let rest = path.strip_prefix("/v2").ok_or(NoRoute::Unknown)?;
    let rest = match rest {
        "" | "/" => return Ok(Route::Base),
        "/_catalog" => return Ok(Route::Catalog),
        _ => rest.strip_prefix('/').ok_or(NoRoute::Unknown)?,
    };
    // A name may contain any of the fixed words, so the end decides.
    let (before, last) = rest.rsplit_once('/').ok_or(NoRoute::Unknown)?;
    let found = if let Some(name) = before.strip_suffix("/blobs/uploads") {
        if last.is_empty() { Route::Uploads(name) } else { Route::Upload(name, last) }
    } else if let Some(name) = before.strip_suffix("/blobs") {
        if last == "uploads" { Route::Uploads(name) } else { Route::Blob(name, last) }
    } else if let Some(name) = before.strip_suffix("/manifests") {
        Route::Manifest(name, last)
    } else if let Some(name) = before.strip_suffix("/referrers") {
        Route::Referrers(name, last)
    } else if let Some(name) = before.strip_suffix("/tags").filter(|_| last == "list") {
        Route::Tags(name)
    } else {
        return Err(NoRoute::Unknown);
    };
    match found.name().is_none_or(|name| check_repository(name).is_ok()) {
        true => Ok(found),
        false => Err(NoRoute::BadName),
    }
}

impl<'a> Route<'a> {
    /// The repository; `None`: the path names none.
    pub(super) fn name(&self) -> Option<&'a str> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(name)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }

    /// The name under which faults of only such requests are set; `None`: they have no name of their own.
    pub(super) fn kind_for(&self, method: &Method) -> Option<&'static str> {
        match self {
            Self::Blob(..) if method == Method::GET => Some("registry/blobs"),
            Self::Manifest(..) if matches!(*method, Method::GET | Method::HEAD) => Some("registry/manifests"),
            _ => None,
        }
    }

    /// The methods of the path.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Catalog | Self::Tags(_) | Self::Referrers(..) => "GET",
            Self::Base | Self::Blob(..) => "GET, HEAD",
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, PATCH, PUT, DELETE",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        for (path, wanted) in [
            ("/v2", Route::Base),
            ("/v2/", Route::Base),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/app/tags/list", Route::Tags("app")),
            ("/v2/team/app/blobs/sha256:00", Route::Blob("team/app", "sha256:00")),
            ("/v2/app/blobs/uploads", Route::Uploads("app")),
            ("/v2/app/blobs/uploads/", Route::Uploads("app")),
            ("/v2/app/blobs/uploads/id", Route::Upload("app", "id")),
            ("/v2/app/manifests/latest", Route::Manifest("app", "latest")),
            ("/v2/app/referrers/sha256:00", Route::Referrers("app", "sha256:00")),
            ("/v2/blobs/manifests/tags/blobs/x", Route::Blob("blobs/manifests/tags", "x")),
            ("/v2/tags/list/manifests/v1", Route::Manifest("tags/list", "v1")),
        ] {
            assert_eq!(route(path), Ok(wanted), "{path}");
        }
    }

    #[test]
    fn what_pulls_ask_for_has_faults_of_its_own() {
        for (method, path, wanted) in [
            (Method::GET, "/v2/app/blobs/sha256:00", Some("registry/blobs")),
            (Method::HEAD, "/v2/app/blobs/sha256:00", None),
            (Method::HEAD, "/v2/app/manifests/latest", Some("registry/manifests")),
            (Method::GET, "/v2/app/manifests/latest", Some("registry/manifests")),
            (Method::PUT, "/v2/app/manifests/latest", None),
            (Method::GET, "/v2/app/blobs/uploads/id", None),
            (Method::GET, "/v2/", None),
        ] {
            assert_eq!(route(path).unwrap().kind_for(&method), wanted, "{method} {path}");
        }
    }

    #[test]
    fn names_that_are_paths_elsewhere_are_refused() {
        for path in [
            "/v2/../etc/manifests/x",
            "/v2/a/../b/manifests/x",
            "/v2/%2e%2e/etc/manifests/x",
            "/v2/a%2Fb/manifests/x",
            "/v2//manifests/x",
            "/v2/A/tags/list",
            "/v2/a//b/blobs/uploads/",
            "/v2/ab\\..\\c/tags/list",
        ] {
            assert_eq!(route(path), Err(NoRoute::BadName), "{path}");
        }
        for path in ["/v1/", "/v2x", "/v2/app", "/v2/app/tags/other", "/v2/app/layers/x", "/v2/manifests/x"] {
            assert_eq!(route(path), Err(NoRoute::Unknown), "{path}");
        }
    }
}
