//! The embedded control plane: the part of ECS a laptop or a test needs, over real sockets on loopback, on one port.
//!
//! It owns an instance metadata service, the ECS API (the agent's calls and a person's calls with the `aws` CLI), the ACS and
//! TCS websockets, the token call of ECR in front of a real registry, and what a task is given by SSM, Secrets Manager and S3. It
//! does not own containers or images, and it checks no signatures. The one invariant: **state is in memory only**; when the server ends, clusters, definitions and tasks are gone.
//!
//! Reading order: `state` (what is known), `definition` (task definitions), `placement`, `payload` (what is sent to the
//! agent), `tasks` (life of a task), `api` (calls), `acs` and `tcs` (websockets), `imds`, `ec2`, `faults`, `admin`
//! (`/_local/`), `kept` and `s3`, `http` (sockets and routing), `server` (start and script it).

mod acs;
mod admin;
mod api;
mod definition;
mod ec2;
mod faults;
mod http;
mod imds;
mod instances;
mod kept;
mod outbox;
mod payload;
mod placement;
mod records;
mod s3;
mod server;
mod state;
mod tasks;
mod tcs;

pub use api::ApiError;
pub use faults::{Delivery, Fault};
pub use instances::{Attribute, Instance, InstanceStatus};
pub use records::{Record, Source};
pub use server::{Options, Registry, Server, WaitError};
pub use state::State;
pub use tasks::{Task, TaskContainer, TaskStatus};
