//! What a task needs besides containers, where neither the container engine nor AWS provides it: one file for each kind.
//!
//! Each kind has a `create` and a `remove`. They import the model only and decide nothing about tasks. Invariant: both may be
//! repeated at any time; what is so already is success.

pub mod cgroup;
mod systemd;
