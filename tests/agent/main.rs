//! The real agent binary, real Docker, a real registry, and the embedded control plane in the place of ECS.
//!
//! One test at a time: an agent owns port 51678. Needs Docker, `docker-registry`, `htpasswd` and `busybox-static`. Without
//! Docker, tests are skipped with a notice; with `ECS_TEST_REQUIRE_DOCKER=1` they fail.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what a failed test shows")]

mod difference;
mod event_log;
mod host_programs;
mod recorded_task;
mod registry_rig;
mod rig;

mod acs_input;
mod acs_tls;
mod awsvpc;
mod awsvpc_recorded;
mod churn;
mod clean_up;
mod clients;
mod command_line;
mod config;
mod container;
mod control_plane;
mod credentials;
mod disk_room;
mod docker_attack;
mod docker_restart;
mod ecr;
mod efs;
mod endpoint_log;
mod firewall;
mod footprint;
mod foreign_text;
mod gmsa;
mod golden;
mod golden_aws;
mod golden_docker;
mod golden_statistics;
mod golden_telemetry;
mod health;
mod idle_connections;
mod inside;
mod kill;
mod kill_loop;
mod limits;
mod metrics;
mod mirrors;
mod network;
mod networks;
mod port;
mod process;
mod pulls;
mod recovery;
mod registration;
mod registries;
mod registry;
mod restart_policy;
mod roles;
mod roles_renewed;
mod sdk;
mod secrets;
mod soak;
mod start_stop;
mod state;
mod statistics;
mod statistics_settings;
mod stop;
mod task_metadata;
mod tasks;
mod tasks_order;
mod telemetry;
mod telemetry_faults;
mod traces;
mod two_agents;
mod up;
mod up_first_use;
mod up_profile;
mod upgrade;
mod volumes;
mod work_for_tasks;
