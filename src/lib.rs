//! # ecs-agent: the map
//!
//! The agent is one pure function and a ring of edges around it.
//!
//! ```text
//! ACS websocket ── acs ──────┐
//! Docker events ── docker ───┤ events            ┌─ docker   containers
//! outcomes ─────── runtime ──┼──────>  core  ────┼─ ecs      state changes
//! time ─────────── runtime ──┘        step()     └─ acs      acknowledgements
//!                                       │ effects, after the state is on disk
//!                                       └── store (commit), view (readers)
//! ```
//!
//! In reading order:
//!
//! * [`model`]: the words. Tasks, statuses, observations, reports. Plain data.
//! * [`core`]: every decision. `step(state, now, event) -> effects`.
//! * [`runtime`]: one loop: step, commit, publish, act; and the executor that turns effects into calls.
//! * [`docker`]: the container engine. [`store`]: the state on disk.
//! * [`acs`]: messages from the control plane. [`ecs`]: calls to it. [`aws`]: identity, credentials, clients. [`websocket`]: the
//!   signed connection.
//! * [`resources`]: what a task needs besides its containers: control groups, secrets, environment files, a log router's files,
//!   Kerberos tickets.
//! * [`config`]: one table of everything an operator can set.
//! * [`lane`]: threads for work that may block, so many and no more for each kind of it.
//! * [`http_server`]: who is served on a port, and within which limits. [`introspection`]: what `curl localhost:51678` sees.
//! * [`local`]: the embedded control plane behind `ecs-local`. The agent cannot tell it from AWS and nothing in it knows it.
//!
//! What is absent, on purpose: nothing under [`core`] can wait, read a clock, draw a random number or touch a file; no edge
//! knows the core, the configuration or another edge; no module but [`config`] reads the environment; no effect starts before
//! the state it rests on is on disk. `tests/layers` holds these.
//!
//! Where a comment cites a page, as in spec `acs.md` §4, the page is in `tests/spec`: it says what the Go agent, amazon-ecs-agent, does.
//!
//! # Glossary
//!
//! * **The Go agent**: amazon-ecs-agent, the program that this one takes the place of. Version 1.105.1 where numbers matter.
//! * **Engine**: the container engine, Docker.
//! * **Core**: [`core`], where everything is decided. It is a pure function over its own state.
//! * **Edge**: a part that translates between the model and one thing outside: [`docker`], [`acs`], [`ecs`], [`aws`], [`resources`],
//!   [`store`], [`introspection`]. An edge decides nothing.
//! * **Task**: what ECS wants to run here, named by its ARN: some containers with a common beginning and end, and what they need besides.
//! * **Container**: one container of a task. Docker may know it under several ids in a row, if it is created anew.
//! * **Resource**: what a task needs besides its containers, such as a volume or secrets. [`model::resource`] lists the kinds.
//! * **Desired status**: where a task should get, `RUNNING` or `STOPPED`. ECS says it; the core lowers it to `STOPPED` for good when an
//!   essential container is lost. **Known status**: how far a task or container has come, in our own books; it never goes back.
//!   **Sent status**: the last one that ECS has accepted. What lies between known and sent is to be reported.
//! * **Payload**: a message of ACS with tasks to run and to stop. **Manifest**: a message of ACS that lists every task that should run here;
//!   the agent asks ECS whether the others are to stop. **Attachment**: a device that ECS attaches to the instance or to a task, such as a
//!   network interface or a volume; this agent acknowledges such messages and attaches nothing yet.
//! * **Observation**: a container as the engine showed it at one moment ([`model::Observation`]).
//! * **Event**: a fact that comes into the core: a payload, an observation, an outcome, the time ([`core::Event`]).
//! * **Effect**: something that the core asks for, as data ([`core::Effect`]). Most effects begin an **operation**, which has an id:
//!   pull, create, stop, report ([`core::Operation`]). Its **outcome** comes back as an event with the same id ([`core::Outcome`]).
//! * **Step**: one call of [`core::step()`]: one event in, effects and the changed documents out. **Commit**: the changed documents get to
//!   disk ([`store`]). The loop is step, commit, publish, act; no effect starts before the commit of its step.
//! * **View**: a copy of the state for readers, without anything confidential ([`model::view`]).
//!
//! # How a change looks
//!
//! Each change also has a line in `CHANGELOG.md`, and tests beside the code.
//!
//! ## A resource kind
//!
//! The core treats all kinds alike: as long as the new kind only gets created and removed, no file of `src/core` changes.
//!
//! 1. `src/model/resource.rs`: the variant of `ResourceKind` with its data, and three matches: how long it lasts, what of it a label
//!    may hold, whether it needs the execution role.
//! 2. `src/acs/wire/task.rs` (or `src/acs/wire/volume.rs`): the members of the message.
//! 3. `src/acs/translate/<kind>.rs`, called in `spec` of `src/acs/translate.rs`: from these members to the resource.
//! 4. `src/acs/unsupported.rs`: the line that refuses such tasks goes.
//! 5. `src/resources/<kind>.rs`, which makes and removes it, and two matches in `src/resources/mod.rs`. What Docker makes is a file of
//!    `src/docker` instead (`src/docker/volume.rs`), and what limits a task one below `src/resources/cgroup`.
//! 6. `src/runtime/resources.rs`: two matches that choose the edge.
//! 7. `src/ecs/attributes.rs`: the attribute that offers it; its condition is a field of `Capabilities`, filled in
//!    `src/runtime/startup.rs` (`capabilities`).
//! 8. If a container gets something of it: `src/model/create.rs` (`CreateRequest` for what is known before, `Values` for what no state may
//!    hold) and `src/docker/create.rs`. If making it yields something the state must keep, as the tickets of a credential spec do: `Output`
//!    in `src/core/event.rs`, and `src/core/resource.rs`.
//! 9. The embedded control plane: `src/local/definition/shapes.rs` (what a definition may have), `src/local/definition/requires.rs`
//!    (the attribute it requires), `src/local/payload.rs` (how it is sent).
//! 10. Pages: the row in `src/acs/task_definition.md`, new reasons in `src/model/reasons.md`. Tests: `src/acs/translate/tests/resources.rs`,
//!     cases in `tests/corpus/acs`, a file in `tests/agent`.
//!
//! ## A setting
//!
//! 1. `src/config/keys.rs`: one row: name, name in JSON, kind, default, heading, help. A variable without effect yet is marked `later()`, and
//!    needs nothing more than this row and point 6.
//! 2. `src/config/settings.rs`: the field of `Config`. Only a new kind of value needs `src/config/kind.rs`, a rule about two variables
//!    `src/config/rules.rs`, a default of the service `src/config/defaults.rs`.
//! 3. The `Settings` of the edge that uses it (for example `src/docker/mod.rs`), or `src/core/policy.rs` if the core does.
//! 4. `src/runtime/startup.rs`, where most of `Config` is handed to the edges and to the core (`docker`, `clients`, `resources`,
//!    `capabilities`, `host_facts`, `policy`); a few values are handed over in `src/runtime/mod.rs`, `src/runtime/host.rs` and
//!    `src/runtime/ownership.rs`.
//! 5. Its use in the edge or in the core.
//! 6. `examples/ecs.config.reference`: `cargo run -- -config-reference > examples/ecs.config.reference`. Tests: limits in
//!    `src/config/tests/limits.rs`, forms in JSON in `src/config/tests/documents.rs`, types in `src/config/tests/typed.rs`.
//!
//! ## An endpoint on port 51678
//!
//! 1. `src/introspection/<name>.rs`: the shape of the answer, made from a [`View`](model::view::View).
//! 2. `src/introspection/mod.rs`: the route in `router`, and a function that answers. A path that the Go agent does not have is below one
//!    of `OWN_PATHS`; one that the Go agent names in its list of commands is in `COMMANDS`.
//! 3. If the view lacks the data: the field in `src/model/view.rs`, filled in `src/core/view.rs`. What an edge knows comes in as a function
//!    instead (`PullLookup`, `HealthLookup`, `Clock`), made in `open_port` of `src/runtime/early.rs`.
//! 4. Tests: `src/introspection/tests.rs`, with the recording in `tests/golden` if the Go agent has the path. Page: `systemd/README.md`.
//!
//! ## A message of ACS
//!
//! 1. `src/acs/wire.rs`: the shape; every type of message that the protocol has is in `TYPES` already. Lists and texts have bounds in
//!    `src/acs/limits.rs`.
//! 2. `src/acs/decode.rs`: the arm in `interpret`, with the checks; a message that changes nothing here is answered there (`Frame::Answer`),
//!    and that is all.
//! 3. `src/acs/mod.rs`: the variant of `Incoming`; and of `Outgoing`, with its text in `encode` of `src/acs/decode.rs`, if there is a new
//!    answer.
//! 4. `src/runtime/control_plane.rs` (`understand`): from `Incoming` to an event. Credentials are kept here; the core gets their ids only.
//! 5. `src/core/event.rs`: the event; `src/core/apply.rs`: what it changes. An event about tasks waits until lost tasks are known again
//!    (`hold` in `src/core/rebuild.rs`).
//! 6. A new answer: `Message` in `src/core/effect.rs`, and `start` in `src/runtime/executor.rs`.
//! 7. The embedded control plane sends it: `src/local/acs.rs`, and `src/local/admin.rs` if a test can ask for it.
//! 8. Tests: cases in `tests/corpus/acs`, `src/acs/decode/tests.rs`, the model ECS of the simulator (`tests/sim/control.rs`,
//!    `tests/sim/moves.rs`), a seed in `tests/fuzz/seeds/acs_frame`. Page: `tests/spec/acs.md`.

pub mod acs;
pub mod aws;
pub mod config;
pub mod core;
pub mod docker;
pub mod ecs;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http_server;
pub mod introspection;
pub mod lane;
pub mod local;
pub mod model;
pub mod resources;
pub mod runtime;
pub mod store;
pub mod version;
pub mod websocket;
