//! Test doubles of AWS services.

pub(crate) mod fake;
