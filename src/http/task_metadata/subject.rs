//! What a path is about, for the limits and the audit log: decided before a route is chosen.
//!
//! Owns the division of paths into those of known ids, which have limits of their own, and all others.

use super::credentials;
use super::tasks::Tasks;
use std::borrow::Cow;

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// An id that the agent knows: the first segment, the id, and which of its paths is requested. Paths of any text, such as the
    /// names of associations, count as one.
    Known(&'a str, Cow<'a, str>, &'a str),
    /// An id that the agent does not know.
    Unknown,
    /// A path without an id.
    Without,
}

/// The paths below an id, each with a limit of its own.
const BELOW_ID: [&str; 5] = ["", "task", "taskWithTags", "stats", "task/stats"];
/// Paths below an id that all count as this one.
const FOLDERS: [&str; 3] = ["associations", "task-protection", "fault"];

impl<'a> Subject<'a> {
    /// The subject of a decoded, clean path.
    pub(super) fn from_path(path: &'a str, query: Option<&str>, tasks: &Tasks) -> Self {
        let rest = path.strip_prefix('/').unwrap_or(path);
        let (first, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match first {
            "v1" | "v2" if rest.starts_with("credentials") => Self::role(first, rest, query, tasks),
            "v3" | "v4" | "api" if !rest.is_empty() => {
                let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
                if tasks.container(id).is_none() {
                    return Self::Unknown;
                }
                let folder = below.split('/').next().unwrap_or_default();
                let shared = FOLDERS.into_iter().find(|name| *name == folder);
                let below = match first {
                    // One call of these changes something, so they are few.
                    "api" if below.len() < 64 && shared.is_some() => below,
                    _ => BELOW_ID.into_iter().find(|name| *name == below).or(shared).unwrap_or("other"),
                };
                Self::Known(first, Cow::Borrowed(id), below)
            }
            _ => Self::Without,
        }
    }

    fn role(first: &'a str, rest: &'a str, query: Option<&str>, tasks: &Tasks) -> Self {
        let id = match (first, rest) {
            ("v1", "credentials") => Cow::Owned(credentials::id_in(query)),
            ("v2", _) => Cow::Borrowed(rest.strip_prefix("credentials/").unwrap_or_default()),
            _ => return Self::Without,
        };
        match tasks.role(&id) {
            _ if id.is_empty() => Self::Without,
            Some(_) => Self::Known(first, id, "credentials"),
            None => Self::Unknown,
        }
    }

    /// What has a limit of its own; `None`: it shares the limit of its address.
    pub(super) fn key(&self) -> Option<(&str, &str, &str)> {
        match self {
            Self::Known(first, id, below) => Some((first, id, below)),
            Self::Unknown | Self::Without => None,
        }
    }
}

/// The path for a log: without ids of credentials, and with ids of containers shortened.
pub(super) fn shown(path: &str) -> String {
    let below_credentials = path.strip_prefix(credentials::V2).is_some_and(|rest| rest.starts_with('/'));
    if below_credentials {
        return credentials::V2.to_owned();
    }
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    if let [_, first, id, ..] = &mut segments[..]
        && matches!(first.as_str(), "v3" | "v4" | "api")
    {
        *id = ecs_core::model::EndpointId::from(id.as_str()).to_string();
    }
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::task_metadata::tests::tasks;

    #[test]
    fn known_ids_have_limits_of_their_own_and_the_rest_shares_one() {
        let tasks = tasks();
        let known = |first, id, below| Subject::Known(first, Cow::Borrowed(id), below);
        for (path, query, expected) in [
            ("/v4/id-web", None, known("v4", "id-web", "")),
            ("/v4/id-web/task", Some("x"), known("v4", "id-web", "task")),
            ("/v3/id-web/associations/a/b", None, known("v3", "id-web", "associations")),
            ("/v3/id-web/anything/else", None, known("v3", "id-web", "other")),
            (
                "/api/id-web/fault/v1/network-latency/start",
                None,
                known("api", "id-web", "fault/v1/network-latency/start"),
            ),
            ("/api/id-web/x", None, known("api", "id-web", "other")),
            ("/v2/credentials/role-web", None, known("v2", "role-web", "credentials")),
            ("/v1/credentials", Some("a=b&id=role-web"), known("v1", "role-web", "credentials")),
            ("/v4/nobody", None, Subject::Unknown),
            ("/v2/credentials/nobody", None, Subject::Unknown),
            ("/v1/credentials", Some("id=nobody"), Subject::Unknown),
            ("/v2/credentials/", None, Subject::Without),
            ("/v1/credentials", None, Subject::Without),
            ("/v2/metadata", None, Subject::Without),
            ("/", None, Subject::Without),
            ("/v4/", None, Subject::Without),
            ("/credentials/role-web", None, Subject::Without),
        ] {
            assert_eq!(Subject::from_path(path, query, &tasks), expected, "{path}");
        }
    }

    #[test]
    fn a_path_in_a_log_has_no_whole_id() {
        for (path, expected) in [
            ("/v2/credentials/0123456789", "/v2/credentials"),
            ("/v2/credentials/", "/v2/credentials"),
            ("/v2/credentials", "/v2/credentials"),
            ("/v4/0123456789/task", "/v4/01234567-REDACTED/task"),
            ("/api/0123456789", "/api/01234567-REDACTED"),
            ("/v2/metadata/0123456789", "/v2/metadata/0123456789"),
            ("/", "/"),
        ] {
            assert_eq!(shown(path), expected);
        }
    }
}
