//! The embedded control plane: the part of ECS a laptop or a test needs, over real sockets on loopback, on one port.
//!
//! It owns an instance metadata service, the ECS API (the agent's calls and a person's calls with the `aws` CLI), the ACS and
//! TCS websockets, the token call of ECR in front of a real registry, and what a task is given by SSM, Secrets Manager and S3. It
//! does not own containers or images. The invariants: **state is in memory only**; when the server ends, clusters, definitions and tasks are
//! gone. And **only who has the session's token is served**: calls, websockets and objects by their signature, `/_local/` by the token itself,
//! the role's credentials and user data by the user of the asking process.
//!
//! Reading order: `state` (what is known), `definition` (task definitions), `placement`, `payload` (what is sent to the
//! agent), `tasks` (life of a task), `api` (calls), `acs` and `tcs` (websockets), `imds`, `ec2`, `faults`, `admin`
//! (`/_local/`), `kept` and `s3`, `keys`, `signature` and `owner` (who is served), `http` (sockets and routing), `server` (start and script it).

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
mod keys;
mod outbox;
mod owner;
mod payload;
mod placement;
mod records;
mod s3;
mod server;
mod signature;
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
