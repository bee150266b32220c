//! The limits of what ECS may send at once, and the effect of exceeding them.
//!
//! | what | limit | effect above it |
//! |---|---|---|
//! | one message | [`MAX_MESSAGE`](crate::websocket::MAX_MESSAGE): 4 MiB | the connection is given up |
//! | an id, an ARN or a cluster | [`MAX_ID`]: 2 KiB | the message is not acknowledged; a task counts as one without an ARN |
//! | tasks of a payload | [`MAX_TASKS`]: 1,000 | the first 1,000 are accepted, the message is not acknowledged |
//! | JSON text of a task, or of another message | [`MAX_TEXT`]: 1 MiB | the task is refused, the message not acknowledged |
//! | JSON values in this text | [`MAX_VALUES`](crate::input::json::MAX_VALUES): 20,000 | the same |
//! | nested levels in this text | [`MAX_DEPTH`](crate::input::json::MAX_DEPTH): 10,000 | the same |
//! | containers of a task | [`MAX_CONTAINERS`]: 100 | the task is refused |
//! | network interfaces of a task | [`MAX_INTERFACES`]: 16 | the task is refused |
//! | entries of a list of a network interface | [`MAX_ADDRESSES`]: 64 | the task is refused |
//! | entries of a list of a proxy's configuration | [`MAX_PROXY_ENTRIES`]: 100 | the task is refused |
//! | containers of a payload | [`MAX_CONTAINERS_OF_PAYLOAD`]: 10,000 | the tasks whose containers exceed the limit are refused |
//! | tasks of a manifest | [`MAX_LISTED`]: 10,000 | the manifest is not acknowledged: an incomplete one would stop tasks |
//! | tasks that ECS confirms as to be stopped | [`MAX_LISTED`]: 10,000 | the first 10,000 are stopped |
//! | log lines about one message | 4, and those about each accepted or reported task | |
//!
//! A refused task is reported STOPPED with the reason. ECS itself allows ten containers in a task, 64 KiB for a task definition
//! and ten tasks in one RunTask call, so customers cannot get near these limits. `tests/agent/acs_input.rs` measures the memory
//! for a message of the maximum size.

/// Maximum length in bytes of an id, an ARN or the name of a cluster.
pub(super) const MAX_ID: usize = 2048;

/// Maximum number of tasks of one payload that are accepted.
pub(super) const MAX_TASKS: usize = 1_000;

/// Maximum length in bytes of the JSON text of one task, or of a message without a list of tasks.
pub(super) const MAX_TEXT: usize = 1024 * 1024;

/// Maximum number of containers of one task. ECS allows 10.
pub(super) const MAX_CONTAINERS: usize = 100;

/// Maximum number of network interfaces of one task. ECS gives a task one; EC2 gives an instance at most 15.
pub(super) const MAX_INTERFACES: usize = 16;

/// Maximum number of addresses of one family, of name servers and of search domains of one network interface.
pub(super) const MAX_ADDRESSES: usize = 64;

/// Maximum number of ports or networks in one list of a proxy's configuration.
pub(super) const MAX_PROXY_ENTRIES: usize = 100;

/// Maximum number of containers of all tasks of one payload: ten for each task.
pub(super) const MAX_CONTAINERS_OF_PAYLOAD: usize = 10 * MAX_TASKS;

/// Maximum number of tasks in a manifest, or in ECS's answer that tasks missing from it are to be stopped.
pub(super) const MAX_LISTED: usize = 10_000;
