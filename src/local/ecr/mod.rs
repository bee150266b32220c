//! ECR without its sockets: what repositories and images exist, who may do what with them, and what expires. This part has no
//! clock, socket or file; the bytes of layers are elsewhere. [`super::api`] answers the calls of ECR from it.
//!
//! A *place* is a repository of an account. A *principal* is a caller: an administrator, a user, a session of a role, or an AWS
//! service. A *layer* here is anything that an image needs and that is no manifest, the configuration included. An *orphan* is a
//! layer that no repository has any more.
//!
//! Reading order. Data: `digest`, `names`, `strict_json`, `manifest`, `image`, `mutability`, `settings`, `lifecycle`, `repository`
//! (images, tags, layers). Access: `action`, `principal`, `policy`, `identities`, `tokens`, and `access`, which decides. `service`
//! holds all; `authorization` asks it, `images`, `upstream` and `expiry` change it; `stored_form` is what a directory keeps.

pub(crate) mod access;
pub(crate) mod action;
pub(crate) mod authorization;
pub(crate) mod digest;
pub(crate) mod error;
mod expiry;
pub(crate) mod identities;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod lifecycle;
pub(crate) mod manifest;
pub(crate) mod mutability;
pub(crate) mod names;
pub(crate) mod policy;
pub(crate) mod principal;
pub(crate) mod repository;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod stored_form;
pub(crate) mod strict_json;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
pub(crate) mod upstream;

pub(crate) use action::Action;
pub(crate) use digest::Digest;
pub(crate) use error::{Denial, EcrError};
pub(crate) use image::{Image, NewImage};
pub(crate) use principal::Principal;
pub(crate) use service::Ecr;
pub(crate) use tokens::TokenError;
