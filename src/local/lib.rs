//! The embedded control plane: the part of ECS that a laptop or a test needs, over real sockets on loopback, on one port.
//!
//! This crate owns an instance metadata service, the ECS API (for the agent and for a person with the `aws` CLI), the ACS and
//! TCS websockets, ECR with its registry (for `docker`), and the values of SSM, Secrets Manager and S3 for tasks. It does not own
//! containers. Invariants: **state is in memory only**, except for the registry if it has a directory: when the server ends,
//! clusters, definitions and tasks are gone. **Only clients with the token are served**: calls, websockets and objects need a
//! signature, `/v2/` a token of ECR, `/_local/` the token itself, and only processes of the user and of root get the role's
//! credentials and user data.
//!
//! A *session* is one run of the server. Its *token* is the secret access key of its user. A *scripted* task or payload is one
//! that a test or a user wrote by hand. `ecr` and `registry` explain the words of images.
//!
//! Reading order. Data: `definition` (task definitions), `need` and `tasks` (life of a task), `interfaces` (their network interfaces), `instances` and `outbox`, `ec2`,
//! `stored`, `faults`, `records`, `telemetry` with `top`, `actions`, `site`, `ecr` (repositories, images, policies), and `state`, which holds them.
//! Decisions on the data: `placement`, `payload` (tasks as they are sent to the agent). Access control: `keys`, `signature`,
//! `owner`, `demand`, `permission`, `pull_through`. Handlers, on a state that is `shared`: `api` (calls), `acs`, and `tcs` with
//! `tcs_shapes` (websockets), `imds`, `s3`, `registry` (layers, and `/v2/`), `admin` with `admin_access` (`/_local/`). The top: `http` (sockets and routing) with `calls`,
//! `start` and `server` (start and scripting), `links` (the interfaces on this host), and [`command`] (the program `ecs-local`). Helpers: `answers`, `api_error`, `bodies`, `ids`,
//! `objects`, `options`, `profile`, `refusal`, `remedy`, `role_credentials`, `socket`, `suggestion`, `time`.

mod acs;
mod actions;
mod admin;
mod admin_access;
mod answers;
mod api;
mod api_error;
mod bodies;
mod calls;
pub mod command;
mod definition;
mod demand;
mod ec2;
mod ecr;
mod faults;
mod http;
mod ids;
mod imds;
mod instances;
mod interfaces;
mod keys;
mod links;
mod need;
mod objects;
mod options;
mod outbox;
mod owner;
mod payload;
mod permission;
mod placement;
mod profile;
mod pull_through;
mod records;
mod refusal;
mod registry;
mod remedy;
mod role_credentials;
mod s3;
mod server;
mod shared;
mod signature;
mod site;
mod socket;
mod start;
mod state;
mod stored;
mod suggestion;
mod tasks;
mod tcs;
mod tcs_shapes;
mod telemetry;
mod time;
mod top;

pub use api_error::ApiError;
pub use faults::{Delivery, Fault};
pub use instances::{Attribute, Instance, InstanceStatus};
pub use options::{Options, Registry};
pub use records::{Record, Source};
pub use server::{Server, WaitError};
pub use start::StartError;
pub use state::State;
pub use tasks::{Task, TaskContainer, TaskStatus};
