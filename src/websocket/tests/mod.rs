//! Test doubles of the control plane.

pub(crate) mod fake;
