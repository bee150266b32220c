//! Errors of the operating system in Go's words, since they become part of reasons that people search for: failed calls, and
//! files of credential specs that cannot be read.

use ecs_core::model::text::without_numbers;
use std::io;

/// The text of an error. Compat: as Go writes it.
pub(crate) fn system_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => without_numbers(&error.to_string()).into_owned(),
    }
}
