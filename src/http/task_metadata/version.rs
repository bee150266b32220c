//! The versions of task metadata whose callers are known by an id in the path, and what differs between their errors.

use axum::http::StatusCode;

/// The versions whose callers are known by an id in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V3,
    V4,
}

impl Version {
    /// The first segment of the paths.
    pub(super) fn segment(self) -> &'static str {
        match self {
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }

    /// How error texts name the version.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::V3 => "V3",
            Self::V4 => "V4",
        }
    }

    /// The status for an unknown id of a container.
    pub(super) fn unknown(self) -> StatusCode {
        match self {
            Self::V3 => StatusCode::INTERNAL_SERVER_ERROR,
            Self::V4 => StatusCode::NOT_FOUND,
        }
    }

    /// The same for statistics.
    pub(super) fn unknown_for_stats(self) -> StatusCode {
        match self {
            Self::V3 => StatusCode::BAD_REQUEST,
            Self::V4 => StatusCode::NOT_FOUND,
        }
    }

    /// The status where there are no statistics.
    pub(super) fn without_stats(self) -> StatusCode {
        match self {
            Self::V3 => StatusCode::BAD_REQUEST,
            Self::V4 => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
