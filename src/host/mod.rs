//! Probes and changes this machine: GPUs, processors, memory, ports, the data directory, the lock on the container engine.
//!
//! An edge: it decides nothing, and knows neither the configuration nor tasks. Reading order: [`kernel`] (what the kernel
//! tells without waiting), [`gpu`], [`data_dir`], [`container`], [`docker_lock`], [`fault`], [`memory`] and [`this_process`] (of this process), [`program`] (runs
//! programs such as `iptables`), [`firewall`], [`apparmor`], [`setup_record`] (what `host-setup` leaves for the agent), [`lanes`] (threads for the start's work that may block). Control groups are in
//! [`cgroup`](crate::cgroup).

pub mod apparmor;
pub mod container;
pub mod data_dir;
pub mod docker_lock;
pub mod ebs_directory;
pub mod fault;
pub mod firewall;
pub mod gpu;
pub mod kernel;
pub mod lanes;
pub mod memory;
pub mod program;
pub mod setup_record;
pub mod this_process;
