//! The two namespaces of a change: the host's, and that of the task's pause container.
//!
//! Invariant: the task's namespace is that of the pause container's process. A process that came after it with the same number is
//! not taken for it.

use super::job::Job;
use super::steps::{Cause, Done, StepFailure};
use ecs_core::model::RuntimeId;
use ecs_netlink::{Errno, Error, Namespace, Protocol, Socket};
use rustix::fs::{Mode, OFlags, open, openat};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Upper limit of a process's list of control groups, in bytes.
const MAX_CGROUPS: u64 = 64 * 1024;

/// The namespaces, each with a socket for links, addresses and routes.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) host_namespace: Arc<Namespace>,
    pub(super) host: Socket,
    pub(super) task_namespace: Namespace,
    pub(super) task: Socket,
}

/// Whose process has the number of the pause container's.
enum Process {
    /// That of the pause container, with its network.
    Pause(Namespace),
    /// There is none with this number.
    None,
    /// Another one.
    Other,
}

/// Why a set-up cannot begin.
pub(super) fn no_pause(job: &Job) -> StepFailure {
    let pid = job.request.pause_pid;
    let is_other = host(job).is_ok_and(|(host, _)| matches!(task_namespace(job, &host), Ok(Process::Other)));
    let cause = match is_other {
        true => format!("process {pid} is not that of the pause container, which has ended"),
        false => format!("its process {pid} has ended"),
    };
    StepFailure { step: "open the network namespace of the pause container".to_owned(), cause }
}

impl Places {
    /// Opens them. `None`: the pause container does not run any more.
    pub(super) fn open(job: &Job) -> Done<Option<Self>> {
        let (host_namespace, host) = host(job)?;
        job.steps.take_anyway("open the network namespace of the pause container", || {
            let Process::Pause(task_namespace) = task_namespace(job, &host_namespace)? else { return Ok(None) };
            let task = task_namespace.socket(Protocol::Route).map_err(|error| lacks(error, "CAP_SYS_ADMIN"))?;
            let task = task.with_fault(job.planted.fault.clone());
            Ok(Some(Self { host_namespace, host, task_namespace, task }))
        })
    }

    /// A socket for nf_tables in the task's namespace.
    pub(super) fn netfilter(&self, job: &Job) -> ecs_netlink::Result<Socket> {
        Ok(self.task_namespace.socket(Protocol::Netfilter)?.with_fault(job.planted.fault.clone()))
    }
}

/// The host's namespace.
pub(super) fn host(job: &Job) -> Done<(Arc<Namespace>, Socket)> {
    job.steps.take_anyway("open the network namespace of the host", || {
        let fault = job.planted.fault.clone();
        // A thread of a lane is in the namespace of this process.
        Ok(match &job.planted.host {
            Some(host) => (Arc::clone(host), host.socket(Protocol::Route)?.with_fault(fault)),
            None => (Arc::new(Namespace::current()?), Socket::open(Protocol::Route)?.with_fault(fault)),
        })
    })
}

fn task_namespace(job: &Job, host: &Namespace) -> Result<Process, Cause> {
    let (pid, kernel) = (job.request.pause_pid, |errno: Errno| Cause::Kernel(errno.into()));
    if pid == 0 {
        return Ok(Process::None);
    }
    // An open directory of a process stays that of this process, whoever has its number later.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = job.settings.processes.join(pid.to_string());
    let process = match open(&path, flags | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Process::None),
        opened => opened.map_err(kernel)?,
    };
    let namespace = match openat(&process, "ns/net", flags, Mode::empty()) {
        // A process that has ended and was not waited for has no namespace.
        Err(Errno::NOENT | Errno::SRCH) => return Ok(Process::None),
        // The container may have another user, or capabilities that this process does not have.
        Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(lacks(error.into(), "CAP_SYS_PTRACE")),
        opened => Namespace::from(opened.map_err(kernel)?),
    };
    let is_host = namespace.id()? == host.id()? || namespace.id()? == Namespace::current()?.id()?;
    let is_other = is_host || is_in_another_container(&process, &job.request.pause);
    Ok(if is_other { Process::Other } else { Process::Pause(namespace) })
}

fn lacks(error: Error, capability: &str) -> Cause {
    if error.is(Errno::PERM) || error.is(Errno::ACCESS) {
        return Cause::Text(format!("{error}: this process lacks {capability}"));
    }
    error.into()
}

/// Whether the process belongs to a container other than the pause. Control groups carry Docker's ids in their paths, but not those
/// of every runtime: a process without such an id counts as the pause.
fn is_in_another_container(process: &OwnedFd, pause: &RuntimeId) -> bool {
    let mut text = String::new();
    let read = openat(process, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .is_ok_and(|file| File::from(file).take(MAX_CGROUPS).read_to_string(&mut text).is_ok());
    read && names_another(&text, pause)
}

fn names_another(cgroups: &str, pause: &RuntimeId) -> bool {
    let words = cgroups.split(|c: char| !c.is_ascii_alphanumeric());
    let mut ids = words.filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())).peekable();
    ids.peek().is_some() && pause.0.len() == 64 && !ids.any(|id| *id == *pause.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_container_is_not_the_pause() {
        let (pause, other) = ("ab".repeat(32), "cd".repeat(32));
        let id = RuntimeId::from(pause.clone());
        for (cgroups, expected) in [
            (format!("0::/system.slice/docker-{pause}.scope\n"), false),
            (format!("0::/system.slice/docker-{other}.scope\n"), true),
            (format!("12:cpu:/ecs/task/{other}\n1:name=systemd:/ecs/task/{pause}\n"), false),
            ("0::/user.slice/session-1.scope\n".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(names_another(&cgroups, &id), expected, "{cgroups}");
        }
        assert!(!names_another(&format!("0::/docker-{other}.scope"), &RuntimeId::from("short")));
    }
}
