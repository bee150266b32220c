//! Holds `task_definition.md` and `model/reasons.md` to what is so: every parameter has a row, every reason has a test or cannot be
//! given, and every test they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const STATUSES: [&str; 5] = ["supported", "refused", "later", "ignored", "ECS"];

/// Status and tests of each `Shape.member`.
fn rows() -> BTreeMap<String, (String, Vec<String>)> {
    let mut shape = "";
    let mut rows = BTreeMap::new();
    for line in include_str!("task_definition.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            shape = title;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", member, status, _, tests, ""] = cells[..] else { continue };
        let Some(member) = member.strip_prefix('`').and_then(|member| member.strip_suffix('`')) else { continue };
        let tests = tests.split(',').map(|name| name.trim().trim_matches('`').to_owned()).filter(|name| name != "-");
        let row = (status.to_owned(), tests.collect());
        assert_eq!(rows.insert(format!("{shape}.{member}"), row), None, "{shape}.{member} stands there twice");
    }
    rows
}

/// Every function of a test in the sources.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().map(str::trim).peekable();
            while let Some(line) = lines.next() {
                let is_test = line == "#[test]" || line.starts_with("#[tokio::test");
                let name =
                    lines.peek().filter(|_| is_test).and_then(|next| next.split("fn ").nth(1)?.split('(').next());
                found.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_parameter_has_a_row_and_every_test_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows();
    let members = std::fs::read_to_string(top.join("tests/corpus/task_definition_members.txt")).unwrap();
    let members: BTreeSet<&str> = members.lines().collect();
    let documented: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(documented, members);
    assert!(members.len() > 150, "{}", members.len());

    let mut tests = BTreeSet::new();
    tests_below(&top.join("src"), &mut tests);
    tests_below(&top.join("tests"), &mut tests);
    for (name, (status, proofs)) in &rows {
        assert!(STATUSES.contains(&status.as_str()), "{name}: {status}");
        assert!(!proofs.is_empty() || !["supported", "refused"].contains(&status.as_str()), "{name} names no test");
        for proof in proofs {
            assert!(tests.contains(proof), "{name}: there is no test {proof}");
        }
    }
}

/// Names of the catalogue (spec `task-engine.md` §15) and the reasons that have none.
const REASONS: [&str; 44] = [
    "DockerTimeoutError",
    "CannotPullContainerError",
    "CannotPullECRContainerError",
    "CannotPullContainerAuthError",
    "CannotPullImageManifestError",
    "TaskStoppedBeforePullBeginError",
    "CannotCreateContainerError",
    "CannotStartContainerError",
    "CannotStopContainerError",
    "CannotInspectContainerError",
    "CannotDescribeContainerError",
    "CannotRemoveContainerError",
    "CannotListContainersError",
    "CannotListImagesError",
    "CannotListPluginsError",
    "CannotCreateVolumeError",
    "CannotInspectVolumeError",
    "CannotRemoveVolumeError",
    "CannotCreateContainerExecError",
    "CannotStartContainerExecError",
    "CannotInspectContainerExecError",
    "CannotGetDockerclientError",
    "CannotGetDockerClientVersionError",
    "OutOfMemoryError",
    "DockerStateError",
    "ContainerVanishedError",
    "ContainerNetworkingError",
    "ImpossibleStateTransitionError",
    "TaskDependencyError",
    "ResourceInitializationError",
    "HostConfigError",
    "DockerClientConfigError",
    "CgroupError",
    "VolumeError",
    "TaskStateError",
    "UnrecogniedTaskError",
    "fetching secret data from SSM",
    "fetching from Secrets Manager",
    "asm fetching secret",
    "environment files",
    "error parsing firelens options",
    "network bindings",
    "unsupported credentialspec ARN",
    "rpc error: code =",
];

#[test]
fn every_reason_has_a_test_or_is_never_given() {
    let page = include_str!("../model/reasons.md");
    for reason in REASONS {
        assert!(page.lines().any(|line| line.starts_with('|') && line.contains(reason)), "{reason} has no row");
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    tests_below(&top.join("src"), &mut tests);
    tests_below(&top.join("tests"), &mut tests);
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| reason"));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", _, proofs, why, ""] = cells[..] else { panic!("not a row: {row}") };
        assert!((proofs == "-") != why.is_empty(), "tests, or why there are none: {row}");
        for proof in proofs.split(',').map(|name| name.trim().trim_matches('`')).filter(|name| *name != "-") {
            assert!(tests.contains(proof), "there is no test {proof}: {row}");
        }
    }
}
