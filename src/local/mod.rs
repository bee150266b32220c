//! The embedded control plane: the part of ECS a laptop or a test needs, over real sockets on loopback, on one port.
//!
//! It owns an instance metadata service, the ECS API (the agent's calls and a person's calls with the `aws` CLI), the ACS and
//! TCS websockets, the token call of ECR in front of a real registry, and what a task is given by SSM, Secrets Manager and S3. It
//! does not own containers or images. The invariants: **state is in memory only**; when the server ends, clusters, definitions and tasks are
//! gone. And **only who has the session's token is served**: calls, websockets and objects by their signature, `/_local/` by the token itself,
//! the role's credentials and user data by the user of the asking process.
//!
//! Reading order. What is known: `definition` (task definitions), `need` and `tasks` (life of a task), `instances` and `outbox`, `ec2`,
//! `kept`, `faults`, `records`, `site`, and `state`, which holds them. What is made of it: `placement`, `payload` (what is sent to the
//! agent). Who is served: `keys`, `signature`, `owner`. What answers, on a state that is `shared`: `api` (calls), `acs` and `tcs`
//! (websockets), `imds`, `s3`, `admin` (`/_local/`). The roofs, which nothing below imports: `http` (sockets and routing) and `server`
//! (start and script it).

mod acs;
mod admin;
mod answers;
mod api;
mod api_error;
mod definition;
mod ec2;
mod faults;
mod http;
mod ids;
mod imds;
mod instances;
mod kept;
mod keys;
mod need;
mod options;
mod outbox;
mod owner;
mod payload;
mod placement;
mod records;
mod refusal;
mod role_credentials;
mod s3;
mod server;
mod shared;
mod signature;
mod site;
mod socket;
mod state;
mod tasks;
mod tcs;
mod time;

pub use api_error::ApiError;
pub use faults::{Delivery, Fault};
pub use instances::{Attribute, Instance, InstanceStatus};
pub use options::{Options, Registry};
pub use records::{Record, Source};
pub use server::{Server, WaitError};
pub use state::State;
pub use tasks::{Task, TaskContainer, TaskStatus};
