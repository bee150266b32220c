//! # ecs-agent: the map
//!
//! The agent is one pure function, the core, with edges around it that talk to the outside.
//!
//! ```text
//! ACS websocket ── acs ──────┐
//! Docker events ── docker ───┤ events            ┌─ docker   containers
//! outcomes ─────── runtime ──┼──────>  core  ────┼─ ecs      state changes
//! time ─────────── runtime ──┘        step()     └─ acs      acknowledgements
//!                                       │ effects, after the state is on disk
//!                                       └── store (commit), view (readers) ── tcs ── TCS websocket
//! ```
//!
//! In reading order:
//!
//! * [`ecs_core::model`]: the types that all other parts share: tasks, statuses, observations, reports. Plain data.
//! * [`ecs_core`]: all decisions. `step(state, now, event) -> effects`. A crate of its own, in `src/core`.
//! * [`runtime`]: the start, the loop (step, commit, publish, act), the executor that turns effects into calls, and the parts
//!   that run beside the loop.
//! * [`docker`]: the container engine. [`store`]: the state on disk.
//! * [`acs`]: messages from the control plane. [`tcs`]: metrics and health for it. [`ecs`]: calls to it. [`aws`]: identity,
//!   credentials, clients, services. [`websocket`]: a session over a signed connection.
//! * [`resources`]: what a task needs besides its containers: secrets, environment files, a log router's files, Kerberos
//!   tickets, metadata files. [`cgroup`]: limits of tasks, and the counters of containers. [`stats`]: figures from these counters.
//!   [`network`]: interfaces of tasks. [`host`]: everything else that probes or changes this machine.
//! * [`http`]: the listener (which peers it serves, how many at once, and for how long), the answers to
//!   `curl localhost:51678` ([`http::introspection`]), and those to containers at 169.254.170.2 ([`http::task_metadata`]).
//! * [`metrics`]: what is counted for Prometheus, and the text of a scrape, which [`http::metrics`] serves on port 51680.
//! * [`otlp`]: spans of tasks for an OpenTelemetry collector; [`runtime`]'s `timing` makes them.
//! * [`config`]: one table of all settings. [`input`]: decoders of what people, programs and services wrote. [`commands`]: what the
//!   program does, one file for each verb.
//! * [`lane`]: threads for work that may block, a limited number for each kind of work. [`backoff`]: pauses between attempts.
//!   [`systemd`] and [`grpc`]: calls to daemons of the host.
//! * [`ecs_netlink`]: links, addresses, routes and redirections of a network namespace, over netlink. A crate of its own, in
//!   `src/netlink`.
//! * [`ecs_local`]: the embedded control plane behind `ecs-local`. The agent cannot tell it from AWS, and neither uses the
//!   other's code. A crate of its own, in `src/local`.
//!
//! Rules: nothing in [`ecs_core`] can wait, read a clock, draw a random number or access a file; no edge uses the decisions of
//! the core, the configuration, or another edge except those below it ([`aws`], [`websocket`], [`grpc`], [`systemd`]); only
//! [`config`] reads the environment; no effect starts before the state that it depends on is on disk. The compiler enforces a
//! part of the first rule; `tests/layers` enforces the rest of the first three.
//!
//! Comments cite pages, as in spec `acs.md` §4. The pages are in `tests/spec` and describe the behaviour of the Go agent,
//! amazon-ecs-agent. `Compat:` begins a comment on code that looks wrong, but does what the Go agent or AWS does. Tests compare
//! with recordings of the Go agent (`tests/golden`).
//!
//! # Glossary
//!
//! * **The Go agent**: amazon-ecs-agent, the program that this one replaces. Numbers refer to version 1.105.1.
//! * **ACS**: the service of ECS that sends tasks to the agent over a websocket. **TCS**: the service that receives
//!   metrics, the health of containers and the state of the instance over another websocket. Nothing depends on it.
//! * **Engine**: the container engine, Docker.
//! * **Core**: [`ecs_core`], which makes all decisions. It is a pure function over its own state.
//! * **Edge**: a part that translates between the model and one external system: [`docker`], [`acs`], [`tcs`], [`ecs`], [`aws`],
//!   [`resources`], [`cgroup`], [`stats`], [`network`], [`host`], [`store`], [`http`], [`otlp`], [`websocket`], [`grpc`], [`systemd`]. An edge decides
//!   nothing.
//! * **Task**: a unit that ECS runs on this instance, identified by its ARN: containers that start and end together, and their
//!   resources.
//! * **Container**: one container of a task. If it is created again, Docker gives it a new id; each such creation is an
//!   **incarnation** of the container. A container is **unsettled** while an inspection must come before anything else, because
//!   the agent has just started or an operation got no answer. A **foreign** container belongs to no task of this agent. An
//!   **orphan** is a container that this agent created and that belongs to no task any more.
//! * **Resource**: anything that a task needs besides its containers, such as a volume or secrets.
//!   [`ecs_core::model::resource`] lists the kinds.
//! * **Share**: the CPU, memory, host ports and GPUs of this host that a task holds from its **admission** until it has stopped.
//!   A task for which too little is free waits in the queue for admission.
//! * **Desired status**: the status that a task should reach, `RUNNING` or `STOPPED`. ECS sets it. The core changes it to
//!   `STOPPED` for good when an essential container is lost. **Known status**: the progress of a task or container as the agent
//!   knows it. It never goes back. **Sent status**: the last status that ECS has accepted. If it is behind the known status, a
//!   report is due.
//! * **Payload**: a message from ACS with tasks to run and to stop. **Manifest**: a message from ACS that lists every task that
//!   should run on this instance. If the agent has other tasks, it asks ECS which of them must stop. Both have a **sequence
//!   number**; a manifest whose number is not above the highest one seen is ignored. **Attachment**: a device that ECS attaches
//!   to the instance or to a task, such as a network interface or a volume. The core keeps a record of each until its device is
//!   there and reported. Messages about volumes are only acknowledged: this agent attaches none.
//! * **Network** of a task: its own interfaces and the link to the host, in the namespace of its **pause container**, which
//!   does nothing else. The containers of the task join that namespace. The **address on the bridge** is the task's address on
//!   the link to the host ([`ecs_core::model::interface`]).
//! * **Registration**: the cluster and the container instance ARN of this instance ([`store::Identity`]). **Owner**: the agent
//!   that created a container, named by a label of the container. Several agents may use one engine; each has a random id and
//!   leaves the others' containers alone ([`ecs_core::model::Owners`]).
//! * **Observation**: a container as the engine has shown it at one moment ([`ecs_core::model::Observation`]). **Inventory**:
//!   the observations of all containers of this agent at one moment.
//! * **Outline**: the part of a task's specification that is needed to manage its existing containers. It is stored in a label
//!   of each container. If the state is **lost** (its file is missing or broken at the start), tasks are rebuilt from it
//!   ([`ecs_core::model::TaskSpec::outline`]).
//! * **Event**: a fact that enters the core: a payload, an observation, an outcome, the time ([`ecs_core::Event`]).
//! * **Effect**: a request of the core, as data ([`ecs_core::Effect`]). Most effects begin an **operation**, which has an id:
//!   pull, create, stop, report ([`ecs_core::Operation`]). Its **outcome** comes back as an event with the same id
//!   ([`ecs_core::Outcome`]).
//! * **Document**: a part of the state that is stored as a whole: one for each task, and one for the host. **Step**: one call
//!   of [`ecs_core::step()`]: one event in, effects and the changed documents out. **Commit**: writes the changed documents to
//!   disk ([`store`]). **Turn** of the loop: step, commit, publish the view, act. No effect starts before the commit of its
//!   step. In a **burst**, several waiting events are stepped one by one and committed together.
//! * **View**: a copy of the state for readers, without anything confidential ([`ecs_core::model::view`]). To **publish**
//!   means to replace it.
//!
//! # How a change looks
//!
//! Each change also needs a line in `CHANGELOG.md`, and tests beside the code.
//!
//! ## A resource kind
//!
//! The core treats all kinds alike: if the new kind is only created and removed, no file of `src/core` changes.
//!
//! 1. `src/core/model/resource.rs`: the variant of `ResourceKind` with its data, and three matches: its lifetime, the part of it
//!    for the outline, whether it needs the execution role.
//! 2. `src/acs/wire/task.rs` (or `src/acs/wire/volume.rs`): the members of the message.
//! 3. `src/acs/translate/<kind>.rs`, called in `spec` of `src/acs/translate.rs`: translates these members to the resource.
//! 4. `src/acs/unsupported.rs`: remove the line that refuses such tasks.
//! 5. `src/resources/<kind>.rs`, which creates and removes it, and two matches in `src/resources/mod.rs`. If Docker creates the
//!    resource, this code is in `src/docker` instead (`src/docker/volume.rs`). If the resource is a limit of a task, it is in
//!    `src/cgroup.rs`, with the files below `src/cgroup`.
//! 6. `src/runtime/execute/resources.rs`: two matches that choose the edge.
//! 7. `src/ecs/attributes.rs`: the attribute that offers it. Its condition is a field of `Capabilities`, filled in
//!    `src/runtime/startup/settings.rs` (`capabilities`).
//! 8. If the resource changes a container: `src/core/model/create.rs` (`CreateRequest` for values known in advance,
//!    `SecretValues` for values that the state must not contain) and `src/docker/create.rs`. If its creation yields something
//!    that the state must keep, such as the tickets of a credential spec: `Output` in `src/core/event.rs`, and
//!    `src/core/resource.rs`.
//! 9. The embedded control plane: `src/local/definition/shapes.rs` (the members of a definition),
//!    `src/local/definition/requires.rs` (the required attribute), `src/local/payload.rs` (the form in which it is sent).
//! 10. Pages: the row in `src/acs/task_definition.md`, new reasons in `src/core/model/reasons.md`. Tests:
//!     `src/acs/translate/tests/resources.rs`, cases in `tests/corpus/acs`, a file in `tests/agent`.
//!
//! ## A setting
//!
//! 1. `src/config/keys.rs`: one row: name, name in JSON, kind, default, heading, help. A variable that has no effect yet is
//!    marked `later("what follows from that")`, and needs only this row and point 6.
//! 2. `src/config/settings.rs`: the field of `Config`. Only a new kind of value needs `src/config/kind.rs`, a rule about two
//!    variables `src/config/rules.rs`, a default for the service `src/config/defaults.rs`.
//! 3. The `Settings` of the edge that uses it (for example `src/docker/mod.rs`), or `src/core/policy.rs` if the core uses it.
//! 4. `src/runtime/startup/settings.rs` and the files below it, which pass `Config` to the edges and to the core (`docker`,
//!    `capabilities`, `aws::sdk`, `acs::host_facts`, `policy`). A few values are read where a step depends on them: `mod.rs`,
//!    `steps.rs`, `offers.rs`, `instance.rs` and `ownership.rs` in `src/runtime/startup`, and for the log
//!    `src/commands/process.rs`.
//! 5. Its use in the edge or in the core.
//! 6. `examples/ecs.config.reference`: `cargo run -- -config-reference > examples/ecs.config.reference`. Tests: limits in
//!    `src/config/tests/limits.rs`, forms in JSON in `src/config/tests/documents.rs`, types in `src/config/tests/typed.rs`, how much
//!    a problem matters in `src/config/tests/check.rs`.
//!
//! ## A command or a flag
//!
//! 1. `src/config/args.rs`: one row of `FLAGS`, and for a command a variant of `Action`. Help, completions and manual page follow.
//! 2. `src/commands/<name>.rs` and the arm in `src/main.rs`; a flag of the agent is a field of `Options` in `src/runtime/options.rs`,
//!    filled in `src/commands/process.rs`.
//! 3. Tests: `src/config/tests/args.rs`, `tests/agent/command_line.rs`.
//!
//! ## An endpoint on port 51678
//!
//! 1. `src/http/introspection/<name>.rs`: the form of the answer, made from a [`View`](ecs_core::model::view::View).
//! 2. `src/http/introspection/mod.rs`: the route in `router`, and its handler. A path that the Go agent does not have is below
//!    one of `OWN_PATHS`. A path that the Go agent includes in its list of commands is in `COMMANDS`.
//! 3. If the view lacks the data: the field in `src/core/model/view.rs`, filled in `src/core/view.rs`. If it depends on more
//!    than the task's own document, compare it in `view_after`, as `waits` is; otherwise an old view is kept. Data of an edge
//!    is passed as a function instead (`PullLookup`, `HealthLookup`, `Clock`), made in `open_ports` and `health_lookup` of
//!    `src/runtime/parts/early.rs`.
//! 4. Tests: `src/http/introspection/tests.rs`, with the recording in `tests/golden` if the Go agent has the path. Page:
//!    `systemd/README.md`.
//!
//! ## An endpoint on port 51679
//!
//! 1. `src/http/task_metadata/<name>.rs`: the routes, for [`http::task_metadata`]'s `router`. Paths are decoded and cleaned already,
//!    and the request is counted (`front`).
//! 2. If its path belongs to an id, and has a limit of its own: `src/http/task_metadata/subject.rs`.
//! 3. Data of an edge is passed as a function of `Sources`, made in `src/runtime/parts/task_metadata.rs`.
//! 4. Tests: `src/http/task_metadata/tests.rs`, with the recording in `tests/golden`; from inside a container: `tests/agent/roles.rs`.
//!    Page: `systemd/README.md`.
//!
//! ## A metric
//!
//! 1. `src/metrics/names.rs`: the row. Its labels have a fixed number of values: no id, no image, no name, no address.
//! 2. `src/runtime/parts/metrics.rs`: its samples, from the view or from what a part counts (`src/metrics/counts.rs`, or the part itself).
//! 3. `examples/prometheus/README.md`: the table. If somebody should be woken: `rules.yml`, and `rules-test.yml`.
//!
//! ## A message from ACS
//!
//! 1. `src/acs/wire.rs`: the form of the message. `TYPES` already lists all message types of the protocol. The limits of lists
//!    and texts are in `src/acs/limits.rs`.
//! 2. `src/acs/decode.rs`: the arm in `interpret`, with the checks. A message without an effect on this agent is answered there
//!    (`Frame::Answer`), and needs no further steps.
//! 3. `src/acs/mod.rs`: the variant of `Incoming`. For a new answer, the variant of `Outgoing`, with its text in `encode` of
//!    `src/acs/decode.rs`.
//! 4. `src/runtime/parts/control_plane.rs` (`events`): from `Incoming` to an event. Credentials are stored there; the core
//!    gets only their ids.
//! 5. `src/core/event.rs`: the event; `src/core/apply.rs`: its changes to the state. An event about tasks waits until lost tasks
//!    have been rebuilt (`hold` in `src/core/rebuild.rs`).
//! 6. A new answer: `Message` in `src/core/effect.rs`, and `start` in `src/runtime/execute/executor.rs`.
//! 7. The embedded control plane sends it: `src/local/acs.rs`, and `src/local/admin.rs` if tests request it.
//! 8. Tests: cases in `tests/corpus/acs`, `src/acs/decode/tests.rs`, the model ECS of the simulator
//!    (`src/core/tests/sim/control.rs`, `src/core/tests/sim/moves.rs`), a seed in `tests/fuzz/seeds/acs_frame`. Page:
//!    `tests/spec/acs.md`.
//!
//! ## A message to TCS
//!
//! 1. `src/tcs/metrics.rs`, `src/tcs/health.rs` or `src/tcs/status.rs`: the data. A new kind is also a variant of `Outgoing` in
//!    `src/tcs/mod.rs`, and waits in `src/tcs/waiting.rs`.
//! 2. `src/tcs/wire.rs`: the members; `src/tcs/publish.rs`: the division into messages.
//! 3. `src/runtime/parts/telemetry.rs`: when it is collected, and from what.
//! 4. The embedded control plane checks it: `src/local/tcs_shapes.rs`.
//! 5. Tests: `src/tcs/publish/tests.rs` and `tests/agent/golden_telemetry.rs`, with the recording in `tests/golden`;
//!    `tests/agent/telemetry.rs`. Page: `tests/spec/tcs.md`.

pub mod acs;
pub mod aws;
pub mod backoff;
pub mod cgroup;
pub mod commands;
pub mod config;
pub mod docker;
pub mod ecs;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod grpc;
pub mod host;
pub mod http;
pub mod input;
pub mod lane;
pub mod metrics;
pub mod network;
pub mod otlp;
pub mod resources;
pub mod runtime;
pub mod stats;
pub mod store;
pub mod systemd;
pub mod tcs;
pub mod version;
pub mod websocket;
