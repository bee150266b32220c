//! Finds and removes what sessions left: their agents, containers, volumes, control groups and directories. This module owns the
//! recognition of a session's containers, by the label that names their task. Invariant: nothing of a session that runs is
//! removed, except by that session itself.

use super::child::output;
use super::output::print_error;
use super::session::{self, Kind, Session};
use super::shared_volumes::still_there;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The label with the ARN of a container's task.
const TASK_LABEL: &str = "com.amazonaws.ecs.task-arn";
/// The account that `ecs-local` imitates, in an ARN.
const ACCOUNT: &str = ":123456789012:";
/// The time limit for an agent to end.
const AGENT_LIMIT: Duration = Duration::from_secs(20);
/// The time limit for another session's guard to clean up.
const GUARD_LIMIT: Duration = Duration::from_secs(60);
/// Interval between two looks at something that is about to end.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often containers are listed and removed: one that was just being created may appear later.
const ROUNDS: usize = 3;

/// A container of a session.
#[derive(Debug)]
struct Container {
    id: String,
    /// The ARN of its task.
    task: String,
    /// The session of its task.
    session: String,
    /// Name and state, for people.
    shown: String,
    /// The names of its volumes.
    volumes: Vec<String>,
}

/// What was removed, and what stays.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// Number of containers.
    pub(super) containers: usize,
    /// The volumes that stay, since a person or another task may need their data.
    pub(super) volumes: BTreeSet<String>,
}

/// Ends the agent of a session that has ended, and removes its containers and its directory.
///
/// # Errors
/// Something could not be removed, or Docker could not be asked. The directory then stays, so that the rest is found again.
pub(super) async fn remove_session(session: Session) -> Result<Removed, String> {
    let mut removed = remove_content(&session).await?;
    removed.volumes.extend(session.volumes());
    session.remove()?;
    Ok(removed)
}

/// The same for the guard, which cannot print: if volumes stay, so does the directory with their names, and the next session says so.
///
/// # Errors
/// As above.
pub(super) async fn remove_session_unseen(session: Session) -> Result<(), String> {
    let removed = remove_content(&session).await?;
    if removed.volumes.is_empty() { session.remove() } else { session.note_volumes(&removed.volumes) }
}

async fn remove_content(session: &Session) -> Result<Removed, String> {
    if let Some(pid) = session.agent().and_then(Pid::from_raw) {
        let _sent = kill_process(pid, Signal::TERM);
        if !ends_within(session, AGENT_LIMIT).await {
            let _sent = kill_process(pid, Signal::KILL);
            ends_within(session, AGENT_LIMIT).await;
        }
    }
    remove_containers(&session.id).await
}

/// Waits for the end of the session's agent. Returns false if it still runs.
async fn ends_within(session: &Session, limit: Duration) -> bool {
    let end = tokio::time::Instant::now() + limit;
    while session.agent().is_some() && tokio::time::Instant::now() < end {
        tokio::time::sleep(INTERVAL).await;
    }
    session.agent().is_none()
}

/// Removes the containers of a session's tasks, the volumes that the agent made for them alone, and their control groups.
///
/// # Errors
/// Docker could not be asked.
pub(super) async fn remove_containers(session: &str) -> Result<Removed, String> {
    let (mut removed, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..ROUNDS {
        let mut found = containers().await?;
        found.retain(|container| container.session == session);
        if found.is_empty() {
            break;
        }
        remove(&found).await;
        volumes.extend(shared_volumes(&found));
        removed.extend(found.into_iter().map(|container| container.id));
    }
    remove_control_groups(session);
    Ok(Removed { containers: removed.len(), volumes })
}

/// Before a new session begins: waits for a guard that cleans up, and removes what other sessions of `up` left.
pub(super) async fn tidy_before_up() {
    let waiting = async {
        while session::is_any_ending() {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let _ended = tokio::time::timeout(GUARD_LIMIT, waiting).await;
    for ended in session::ended().into_iter().filter(|session| session.kind == Kind::Up) {
        // Otherwise its guard has cleaned up.
        if ended.volumes().is_empty() {
            print_error(&format!("removing what the session {} left: it ended without cleaning up", ended.id));
        }
        match remove_session(ended).await {
            Ok(removed) => still_there(removed.volumes).await.iter().for_each(|text| print_error(text)),
            Err(problem) => print_error(&problem),
        }
    }
}

/// What sessions left that do not run, or may not, and how to remove it, in words; `None` if there is nothing.
pub(super) async fn found() -> Option<String> {
    let ended = session::ended();
    let agents = ended.iter().filter(|session| session.agent().is_some()).count();
    // Without Docker there is nothing to report; the agent will say what is wrong.
    let listed = containers().await;
    let is_listed = listed.is_ok();
    let mut containers = listed.unwrap_or_default();
    containers.retain(|container| is_abandoned(container, &ended));
    let (abandoned, elsewhere): (Vec<Container>, Vec<Container>) =
        containers.into_iter().partition(|container| has_session(container, &ended));
    let noted = ended.iter().flat_map(Session::volumes);
    let volumes = still_there(noted.chain(shared_volumes(&abandoned)).collect()).await;
    // A `serve` keeps its directory for the sake of its containers only.
    for session in ended.into_iter().filter(|session| is_listed && session.kind == Kind::Serve) {
        if !abandoned.iter().any(|container| container.session == session.id) {
            // What stays is found by `clean`.
            let _removed = session.remove();
        }
    }
    in_words(agents, &abandoned, volumes, &elsewhere)
}

/// What a session of `serve` leaves at its end, and how to remove it, in words; `None`: there is nothing.
pub(super) async fn after_serve(session: &str) -> Option<String> {
    // Without Docker there are no containers.
    let mut found = containers().await.unwrap_or_default();
    found.retain(|container| container.session == session);
    left_by_serve(&found)
}

fn left_by_serve(containers: &[Container]) -> Option<String> {
    let lines: String = containers.iter().map(|container| format!("\n  {}", container.shown)).collect();
    (!containers.is_empty()).then(|| {
        format!(
            "containers of this session are left:{lines}\nTo remove them, when your agent has ended: ecs-local clean"
        )
    })
}

/// What is left: agents, containers and volumes (in words) of sessions that have ended, and containers of sessions without a directory
/// here. Nobody knows whether the latter run.
fn in_words(agents: usize, ended: &[Container], volumes: Option<String>, elsewhere: &[Container]) -> Option<String> {
    let list = |containers: &[Container]| {
        let lines = containers.iter().map(|container| format!("\n  {} of task {}", container.shown, container.task));
        lines.collect::<String>()
    };
    let mut parts = Vec::new();
    if agents > 0 || !ended.is_empty() {
        let running = if agents == 1 { "agent of `up`, which still runs" } else { "agents of `up`, which still run" };
        let running = if agents > 0 { format!("\n  {agents} {running}") } else { String::new() };
        parts.push(format!(
            "Earlier sessions, which do not run any more, left:{running}{}\nTo remove it: ecs-local clean (end an agent that you \
             started yourself first)",
            list(ended)
        ));
    }
    parts.extend(volumes);
    if !elsewhere.is_empty() {
        parts.push(format!("{}{}", without_directory(elsewhere.len()), list(elsewhere)));
    }
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// Says that there are containers of sessions that cannot be seen from here.
pub(super) fn without_directory(count: usize) -> String {
    format!(
        "containers of sessions without a directory here: {count}. Their sessions may run with another TMPDIR. If none does, \
         `ecs-local clean --all` removes them."
    )
}

/// What was removed, and what was not.
#[derive(Debug, Default)]
pub(super) struct Cleaned {
    pub(super) containers: usize,
    pub(super) directories: usize,
    /// The volumes that stay, and how to remove them, in words; `None`: there are none.
    pub(super) volumes: Option<String>,
    /// Containers of sessions without a directory here. They may belong to a session with another `TMPDIR`, which runs.
    pub(super) kept: usize,
}

/// Removes what sessions that do not run left. `all`: also the containers of sessions without a directory here.
///
/// # Errors
/// Something could not be removed, or Docker could not be asked.
pub(super) async fn clean(all: bool) -> Result<Cleaned, String> {
    let (mut cleaned, mut volumes) = (Cleaned::default(), BTreeSet::new());
    for session in session::ended() {
        let removed = remove_session(session).await?;
        cleaned.containers += removed.containers;
        cleaned.directories += 1;
        volumes.extend(removed.volumes);
    }
    let mut rest = containers().await?;
    rest.retain(|container| is_abandoned(container, &[]));
    let sessions: BTreeSet<&str> = rest.iter().map(|container| container.session.as_str()).collect();
    if !all {
        cleaned.kept = rest.len();
    }
    for session in sessions.into_iter().filter(|_| all) {
        let removed = remove_containers(session).await?;
        cleaned.containers += removed.containers;
        volumes.extend(removed.volumes);
    }
    cleaned.volumes = still_there(volumes).await;
    Ok(cleaned)
}

/// The container's session does not run. `ended` are sessions that have ended, which are locked for that reason.
fn is_abandoned(container: &Container, ended: &[Session]) -> bool {
    has_session(container, ended) || !session::is_running(&container.session)
}

fn has_session(container: &Container, sessions: &[Session]) -> bool {
    sessions.iter().any(|session| session.id == container.session)
}

/// The containers of all sessions.
async fn containers() -> Result<Vec<Container>, String> {
    let format =
        format!("{{{{.ID}}}}\t{{{{.Label \"{TASK_LABEL}\"}}}}\t{{{{.Names}}}} ({{{{.Status}}}})\t{{{{.Mounts}}}}");
    let filter = format!("label={TASK_LABEL}");
    let listed = output("docker", &["ps", "--all", "--no-trunc", "--filter", &filter, "--format", &format]).await;
    let listed = listed.map_err(|problem| format!("the containers of sessions cannot be listed: {problem}"))?;
    Ok(listed.lines().filter_map(container).collect())
}

/// Reads a line of the list; `None` if the container is not one of `ecs-local`.
fn container(line: &str) -> Option<Container> {
    let mut fields = line.split('\t').map(str::to_owned);
    let (id, task, shown) = (fields.next()?, fields.next()?, fields.next()?);
    let session = session::session_of(&task).filter(|_| task.contains(ACCOUNT))?.to_owned();
    let mounts = fields.next().unwrap_or_default();
    let volumes = mounts.split(',').filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect();
    Some(Container { id, task, session, shown, volumes })
}

/// The volumes of containers that stay when the containers are removed.
fn shared_volumes(containers: &[Container]) -> BTreeSet<String> {
    let all = containers.iter().flat_map(|container| &container.volumes);
    all.filter(|name| !is_task_volume(name) && !is_anonymous(name)).cloned().collect()
}

async fn remove(containers: &[Container]) {
    let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
    let mounted = containers.iter().flat_map(|container| &container.volumes);
    let volumes: BTreeSet<&String> = mounted.filter(|name| is_task_volume(name)).collect();
    if let Err(problem) = output("docker", &[&["rm", "--force", "--volumes"], &ids[..]].concat()).await {
        // Two processes may clean up at the same time.
        if !problem.contains("No such container") && !problem.contains("already in progress") {
            print_error(&problem);
        }
    }
    for volume in volumes {
        let _removed = output("docker", &["volume", "rm", volume]).await;
    }
}

/// The control groups of a session's tasks. On hosts where systemd manages control groups, the group is a slice of systemd, which
/// stays until the next boot.
fn remove_control_groups(session: &str) {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let top = Path::new("/sys/fs/cgroup");
    for group in entries(top).map(|hierarchy| hierarchy.join("ecs")).chain([top.join("ecs")]) {
        for task in entries(&group) {
            if task.file_name().and_then(|name| name.to_str()).and_then(session::session_of) == Some(session) {
                let _removed = std::fs::remove_dir(&task);
            }
        }
    }
}

/// The name is one that the agent gives to a volume of a single task: `ecs-<family>-<revision>-<volume>-<20 hex>`.
fn is_task_volume(volume: &str) -> bool {
    let suffix = volume.strip_prefix("ecs-").and_then(|rest| rest.rsplit_once('-')).map_or("", |(_, suffix)| suffix);
    suffix.len() == 20 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The name is one that Docker made up: it removes such a volume with its container.
fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_of_sessions_are_recognised() {
        let id = "10ca1abcde0123456789abcdef012345";
        let line = |account: &str, id: &str| {
            format!("c1\tarn:aws:ecs:us-west-2:{account}:task/default/{id}\tweb (Up 2 hours)\tdata,/srv/x")
        };
        let found = container(&line("123456789012", id)).unwrap();
        assert_eq!((found.session.as_str(), found.shown.as_str()), ("10ca1abcde", "web (Up 2 hours)"));
        assert_eq!(found.volumes, ["data"], "a directory of the host is no volume");
        assert!(container(&line("999999999999", id)).is_none(), "a task of a real account");
        assert!(container(&line("123456789012", &"0".repeat(32))).is_none(), "a task of a test");
    }

    #[test]
    fn serve_names_what_it_leaves() {
        let task = "arn:aws:ecs:us-west-2:123456789012:task/default/10ca1abcde0123456789abcdef012345";
        let left = container(&format!("c1\t{task}\tecs-greeter-1-greeter (Exited (7) 2 hours ago)\t")).unwrap();
        let text = left_by_serve(&[left]).unwrap();
        assert!(text.contains("ecs-greeter-1-greeter (Exited (7)") && text.ends_with("ecs-local clean"), "{text}");
        assert_eq!(left_by_serve(&[]), None);
    }

    #[test]
    fn a_session_without_a_directory_here_may_run() {
        let container = |shown: &str| Container {
            id: "c".to_owned(),
            task: "t".to_owned(),
            session: "10ca1abcde".to_owned(),
            shown: shown.to_owned(),
            volumes: Vec::new(),
        };
        let (ended, elsewhere) = ([container("old (Exited)")], [container("web (Up 2 hours)")]);
        let (gone, clean) = ("do not run any more", "ecs-local clean (");
        let text = in_words(0, &[], None, &elsewhere).unwrap();
        assert!(text.contains("may run with another TMPDIR") && text.contains("web (Up 2 hours) of task t"), "{text}");
        assert!(!text.contains(gone) && !text.contains(clean), "{text}");
        let text = in_words(1, &ended, None, &[]).unwrap();
        assert!(text.contains(gone) && text.contains(clean) && text.contains("1 agent of `up`"), "{text}");
        assert!(!text.contains("--all"), "{text}");
        let text = in_words(0, &ended, Some("volumes".to_owned()), &elsewhere).unwrap();
        let (first, second) = text.split_once("containers of sessions without").unwrap();
        assert!(
            first.ends_with("\nvolumes\n") && first.contains("old (Exited)") && second.contains("web (Up 2 hours)"),
            "{text}"
        );
        assert_eq!(in_words(0, &[], None, &[]), None);
    }

    #[test]
    fn volumes_of_one_task_are_recognised() {
        assert!(is_task_volume("ecs-web-1-data-0123456789abcdef0123"));
        assert!(!is_task_volume("ecs-web-1-data-mine") && !is_task_volume("data-0123456789abcdef0123"));
    }

    #[test]
    fn only_volumes_with_a_name_of_their_own_stay() {
        let anonymous = "0123456789abcdef".repeat(4);
        let mounts = format!("b,ecs-web-1-data-0123456789abcdef0123,a,{anonymous},/srv/x");
        let task = format!("arn:aws:ecs:us-west-2{ACCOUNT}task/default/10ca1abcde0123456789abcdef012345");
        let found = container(&format!("c1\t{task}\tweb\t{mounts}")).unwrap();
        assert_eq!(shared_volumes(&[found]), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }
}
