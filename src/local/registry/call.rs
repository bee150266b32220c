//! One request to the registry: its caller, its repository, its headers and its query.

use super::access::Caller;
use super::error::RegistryError;
use super::uploads::Owner;
use crate::answers::header_text;
use crate::ecr::digest::DigestError;
use crate::ecr::{Action, Digest};
use crate::shared::Shared;
use http::{HeaderMap, HeaderName};
use std::sync::Arc;

/// A request without its body.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) caller: &'a Caller,
    /// The repository's name; empty if the path names none.
    pub(super) name: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Vec<(String, String)>,
}

impl Call<'_> {
    /// The caller may do this in the repository of the request, which exists. The outcome is recorded.
    pub(super) fn may(&self, action: Action) -> Result<(), RegistryError> {
        self.caller.may(self.shared, action, self.name)
    }

    /// The caller has this permission. Nothing is recorded: the request does not need it, or will ask for it.
    pub(super) fn is_permitted(&self, action: Action) -> bool {
        self.caller.is_permitted(self.shared, action, self.name)
    }

    /// The account id of the registry.
    pub(super) fn account(&self) -> &str {
        &self.caller.account
    }

    /// The repository as the owner of an upload.
    pub(super) fn owner(&self) -> Owner {
        Owner { account: self.account().to_owned(), repository: self.name.to_owned() }
    }

    /// The first value of this name in the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of a header; empty if it is missing or no text.
    pub(super) fn header(&self, name: &HeaderName) -> &str {
        header_text(self.headers, name.as_str())
    }

    /// The path of something in the repository.
    pub(super) fn location(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }
}

/// Reads a digest from a path or a query.
pub(super) fn digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|error: DigestError| RegistryError::bad_digest(error.to_string()))
}
