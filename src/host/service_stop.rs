//! Finds out whether the service ends for good, for the step after its end (`ExecStopPost=`).
//!
//! Running tasks go on asking for credentials while the agent is started again, so their rules stay then. systemd's variables do not
//! tell `systemctl stop` from `systemctl restart`; the job does that the unit has meanwhile.

use super::program::{Call, Programs};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
/// The exit codes after which the unit does not start the agent again (`RestartPreventExitStatus=`).
const FINAL_CODES: [&str; 2] = ["2", "5"];
/// The unit, if this process is in no other.
const UNIT: &str = "ecs.service";

/// systemd's variables of the same names.
#[derive(Clone, Debug, Default)]
pub struct Exit {
    /// `SERVICE_RESULT`, such as `success` or `exit-code`; empty: systemd does not run this process.
    pub result: String,
    /// `EXIT_CODE`: `exited`, `killed` or `dumped`; empty: the agent was not started.
    pub code: String,
    /// `EXIT_STATUS`: a number, or the name of a signal.
    pub status: String,
}

/// Whether the service is not started again. A person who runs the command wants the settings removed.
pub async fn ends_for_good(programs: &Programs, exit: &Exit) -> bool {
    if exit.result.is_empty() {
        return true;
    }
    let unit = unit(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let arguments = ["--no-legend", "--plain", "list-jobs", &unit];
    let call = Call { program: "systemctl", arguments: &arguments, input: "", limit: LIMIT };
    let jobs = programs.run(&call).await.ok().filter(|outcome| outcome.is_success());
    decided(jobs.as_ref().map(|outcome| job(&outcome.output, &unit)), exit)
}

/// `job`: the kind of the unit's job; inside `None`: it has none; outside: systemd does not answer.
fn decided(job: Option<Option<&str>>, exit: &Exit) -> bool {
    match job {
        Some(Some(kind)) => kind == "stop",
        // It has ended by itself. After a start that failed there is no exit code of the agent.
        Some(None) => exit.code == "exited" && FINAL_CODES.contains(&exit.status.as_str()),
        // Without an answer: a clean end means that somebody has stopped it.
        None => exit.result == "success",
    }
}

/// The kind of the unit's job. A line has an id, the unit, the kind, and whether it runs.
fn job<'a>(list: &'a str, unit: &str) -> Option<&'a str> {
    list.lines().find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        (columns.next()? == unit).then(|| columns.next())?
    })
}

/// The unit of this process, by its control group.
fn unit(groups: &str) -> String {
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path)));
    let unit = path.and_then(|path| path.split('/').rfind(|name| name.ends_with(".service")));
    unit.unwrap_or(UNIT).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(result: &str, code: &str, status: &str) -> Exit {
        Exit { result: result.to_owned(), code: code.to_owned(), status: status.to_owned() }
    }

    #[test]
    fn the_settings_stay_if_the_service_is_started_again() {
        for (job, exit, is_for_good) in [
            (Some(Some("stop")), exit("success", "exited", "0"), true),
            (Some(Some("stop")), exit("timeout", "killed", "KILL"), true),
            (Some(Some("restart")), exit("success", "exited", "0"), false),
            (Some(Some("try-restart")), exit("success", "exited", "0"), false),
            // A crash, a clean exit by itself, and a step before the start that failed: Restart=always.
            (Some(None), exit("signal", "killed", "KILL"), false),
            (Some(None), exit("exit-code", "exited", "1"), false),
            (Some(None), exit("success", "exited", "0"), false),
            (Some(None), exit("exit-code", "", ""), false),
            (Some(None), exit("watchdog", "dumped", "ABRT"), false),
            (Some(None), exit("exit-code", "exited", "5"), true),
            (Some(None), exit("exit-code", "exited", "2"), true),
            (Some(None), exit("signal", "killed", "5"), false),
            (None, exit("success", "exited", "0"), true),
            (None, exit("exit-code", "exited", "1"), false),
        ] {
            assert_eq!(decided(job, &exit), is_for_good, "{job:?} {exit:?}");
        }
    }

    #[tokio::test]
    async fn a_person_removes_them_in_any_case() {
        assert!(ends_for_good(&Programs::in_directories("/nowhere"), &Exit::default()).await);
    }

    #[test]
    fn the_job_is_that_of_the_unit() {
        let list = "101 multi-user.target start waiting\n 77 ecs.service restart running\n";
        assert_eq!(job(list, "ecs.service"), Some("restart"));
        assert_eq!(job(list, "other.service"), None);
        assert_eq!(job("No jobs running.\n", "ecs.service"), None);
        assert_eq!(unit("0::/system.slice/my-ecs.service\n"), "my-ecs.service");
        assert_eq!(unit("0::/system.slice/ecs.service/control\n"), "ecs.service");
        assert_eq!(unit("4:cpu:/\n1:name=systemd:/system.slice/a.service\n"), "a.service");
        assert_eq!(unit("0::/user.slice/session-1.scope\n"), "ecs.service");
    }
}
