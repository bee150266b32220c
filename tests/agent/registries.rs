//! Private registries: credentials from a real `ecs.config`, real registries that ask for a password.

use super::credentials::answering;
use super::rig::{Plan, Rig, shell};
use ecs_local::{Task, TaskStatus};
use ecs_testing::docker::Image;
use ecs_testing::registry::{Registry, basic};
use serde_json::{Value, json};

/// A password with every character that could get lost on the way from a file: quotes, braces, `=`, `#`, `:`, `$`, a backslash,
/// white space at the end.
pub(super) const PASSWORD: &str = r#"it's "one" {two}=[3]: #4 \5 $HOME, 6= "#;
const OTHER_PASSWORD: &str = "correct-horse-battery-staple";
const WRONG_PASSWORD: &str = "hunter2-is-not-the-password";

/// `ECS_ENGINE_AUTH_*` of these registries as an operator writes them: host, user, password.
fn auth(auth_type: &str, wrapped: bool, entries: &[(&str, &str, &str)]) -> String {
    let entry = |user: &str, password: &str| match auth_type {
        "dockercfg" => json!({"auth": basic(user, password), "email": "me@example.com"}),
        _ => json!({"username": user, "password": password, "email": "me@example.com"}),
    };
    let pair = |(host, user, password): &(&str, &str, &str)| ((*host).to_owned(), entry(user, password));
    let mut data = Value::Object(entries.iter().map(pair).collect());
    if wrapped {
        data = json!({"auths": data, "HttpHeaders": {"User-Agent": "Docker-Client"}});
    }
    format!("ECS_ENGINE_AUTH_TYPE={auth_type}\nECS_ENGINE_AUTH_DATA={data}\n")
}

/// Starts the agent with this `ecs.config`.
pub(super) async fn start_with(rig: &mut Rig, lines: &str) {
    std::fs::write(rig.directory.path().join("ecs.config"), format!("ECS_LOGLEVEL=debug\n{lines}")).unwrap();
    rig.start_agent();
    rig.registered().await;
}

/// Runs a task with a container of each image, which end at once.
pub(super) fn run(rig: &Rig, images: &[&str]) -> String {
    let containers = images.iter().enumerate().map(|(number, image)| shell(&format!("c{number}"), image, "exit 0"));
    let definition = json!({"family": "pulls", "containerDefinitions": containers.collect::<Vec<_>>()});
    rig.server.run_task(&definition).unwrap()
}

pub(super) fn exit_codes(task: &Task) -> Vec<Option<i64>> {
    task.containers.iter().map(|container| container.exit_code).collect()
}

/// The reason of the only container.
pub(super) fn reason(task: &Task) -> &str {
    task.containers[0].reason.as_deref().unwrap_or_default()
}

/// Everything that the agent has sent or written: log, calls, messages, reports, state on disk, introspection.
pub(super) async fn all_output(rig: &Rig) -> String {
    let records = |state: &ecs_local::State| {
        state.records().map(|record| format!("{} {}\n", record.name, record.body)).collect::<String>()
    };
    let shown = rig.introspect("/v1/tasks").await;
    let mut output = format!("{}\n{}\n{shown}\n", rig.log(), rig.server.read(records));
    for file in std::fs::read_dir(rig.directory.path().join("data")).unwrap() {
        output.push_str(&String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()));
    }
    output
}

pub(super) fn assert_nowhere(output: &str, user: &str, password: &str) {
    let escaped = json!(password).to_string();
    for secret in [password, escaped.trim_matches('"'), &basic(user, password)] {
        let line = output.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret:?} is in the output");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_open_one_registry_and_several() {
    let plan = Plan { users: &[("me", PASSWORD)], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("registries", plan).await else { return };
    let other = Registry::start(&[("you", OTHER_PASSWORD)]);
    let (mine, yours) = (rig.image(), other.push_busybox("team/app", &[]));
    let (host, team) = (rig.registry.host.clone(), format!("https://{}/team/", other.host));
    let single = [(host.as_str(), "me", PASSWORD)];
    let both = [single[0], (team.as_str(), "you", OTHER_PASSWORD)];
    let (alone, together): (&[&String], &[&String]) = (&[&mine], &[&mine, &yours]);
    let mut table = Vec::new();
    for auth_type in ["dockercfg", "docker"] {
        for wrapped in [false, true] {
            table.push((auth_type, wrapped, &single[..], alone));
            table.push((auth_type, wrapped, &both[..], together));
        }
    }
    for (auth_type, wrapped, entries, images) in table {
        images.iter().for_each(|image| Image::remove_locally(image));
        start_with(&mut rig, &auth(auth_type, wrapped, entries)).await;
        let arn = run(&rig, &images.iter().map(|image| image.as_str()).collect::<Vec<_>>());
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        let case = format!("{auth_type} wrapped={wrapped} {} registries", entries.len());
        assert_eq!(exit_codes(&task), vec![Some(0); images.len()], "{case}: {task:?}");
        assert!(rig.terminate().success(), "{case}");
    }
    rig.start_agent();
    let output = all_output(&rig).await;
    assert!(
        output.contains(&format!("source=\"ECS_ENGINE_AUTH_DATA entry {host}\"")),
        "the log names the entry that was used"
    );
    assert_nowhere(&output, "me", PASSWORD);
    assert_nowhere(&output, "you", OTHER_PASSWORD);
    images_gone(&[&mine, &yours]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_none_stop_the_task_with_docker_s_reason() {
    let plan = Plan { users: &[("me", PASSWORD)], ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("wrong password", plan).await else { return };
    let (other, open) = (Registry::start(&[("you", OTHER_PASSWORD)]), Registry::start(&[]));
    let (unnamed, refused) = (rig.image(), other.push_busybox("app", &[]));
    let public = open.push_busybox("app", &[]);
    for image in [&unnamed, &refused, &public] {
        Image::remove_locally(image);
    }
    start_with(&mut rig, &auth("docker", false, &[(&other.host, "you", WRONG_PASSWORD)])).await;
    let arns = [&refused, &unnamed, &public].map(|image| run(&rig, &[image]));

    let task = rig.task(&arns[2], TaskStatus::Stopped).await;
    assert_eq!(exit_codes(&task), [Some(0)], "a public image is not held up: {task:?}");
    let refusals = ["unauthorized: authentication required", "no basic auth credentials"];
    for (arn, refusal) in arns.iter().zip(refusals) {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        let reason = reason(&task);
        // Between the two, Docker may name the request that it made.
        let is_right = reason.starts_with("CannotPullImageManifestError: Error response from daemon: ");
        assert!(is_right && reason.ends_with(refusal), "{reason}");
        assert_eq!(exit_codes(&task), [None]);
        assert_eq!(rig.statuses(arn).last().map(String::as_str), Some("STOPPED"));
    }
    assert!(rig.terminate().success());
    start_with(&mut rig, &auth("dockercfg", true, &[(&other.host, "you", WRONG_PASSWORD)])).await;
    let task = rig.task(&run(&rig, &[&refused]), TaskStatus::Stopped).await;
    assert!(reason(&task).ends_with(refusals[0]), "the other format: {task:?}");
    let output = all_output(&rig).await;
    assert_nowhere(&output, "you", WRONG_PASSWORD);
    images_gone(&[&unnamed, &refused, &public]);
}

/// Public images still work.
#[tokio::test(flavor = "multi_thread")]
async fn unusable_credentials_are_logged_once() {
    let Some(mut rig) = Rig::without_agent("unusable", Plan::default()).await else { return };
    let image = rig.image();
    let table = [
        (
            format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={{\"a\":\"{WRONG_PASSWORD}\"\n"),
            "not valid JSON at column",
        ),
        (
            format!(
                "ECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={{\"a.io\":{{\"auth\":\"{WRONG_PASSWORD}\"}}}}\n"
            ),
            "auth is not base64",
        ),
        (
            format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA=[\"{WRONG_PASSWORD}\"]\n"),
            "is not a JSON object of registries",
        ),
        ("ECS_ENGINE_AUTH_TYPE=docker\n".to_owned(), "without ECS_ENGINE_AUTH_DATA"),
        (
            format!("ECS_ENGINE_AUTH_DATA={{\"a.io\":{{\"auth\":\"{WRONG_PASSWORD}\"}}}}\n"),
            "without ECS_ENGINE_AUTH_TYPE",
        ),
        (
            format!(
                "ECS_ENGINE_AUTH_TYPE=podman\nECS_ENGINE_AUTH_DATA={{\"a.io\":{{\"auth\":\"{WRONG_PASSWORD}\"}}}}\n"
            ),
            "ECS_ENGINE_AUTH_TYPE",
        ),
    ];
    for (lines, problem) in table {
        let before = rig.log().len();
        start_with(&mut rig, &lines).await;
        let arn = run(&rig, &[&image]);
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(exit_codes(&task), [Some(0)], "{problem}: {task:?}");
        let log = rig.log()[before..].to_owned();
        let found: Vec<&str> =
            log.lines().filter(|line| line.contains("ECS_ENGINE_AUTH") && !line.contains("source=")).collect();
        assert!(found.len() == 1 && found[0].contains(problem), "{problem}: {found:#?}");
        assert!(found[0].contains("level=error") || found[0].contains("level=warn"), "{found:?}");
        assert!(rig.terminate().success());
    }
    assert!(!rig.log().contains(WRONG_PASSWORD));
    images_gone(&[&image]);
}

/// Base64 in lines of 76 characters, as `base64`, Python and OpenSSL write it.
fn in_lines(text: &str, end: &str) -> String {
    let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("{}{end}", lines.join(end))
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_as_people_write_them_open_their_registry() {
    const LONG: &str = "a-token-that-is-longer-than-a-line-of-base64-0123456789-0123456789-0123456789-0123456789";
    const LINE_END: &str = "made-with-echo\n";
    let Some(mut rig) = Rig::without_agent("people", Plan::default()).await else { return };
    let registry = Registry::start(&[("me", LONG), ("you", LINE_END)]);
    let host = &registry.host;
    let image = registry.push_busybox("team/app", &[]);
    let programs = rig.directory.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    answering(&programs, "echo", host, "you", LINE_END);
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    rig.environment.push(("PATH".into(), path));
    let long = basic("me", LONG);
    assert!(long.len() > 76);
    let table = [
        ("dockercfg", json!({"auths": {host: {"auth": in_lines(&long, "\n")}}})),
        ("docker", json!({host: {"auth": in_lines(&long, "\r\n")}})),
        ("dockercfg", json!({"AUTHS": {host: {"Auth": long.trim_end_matches('=')}}, "CredHelpers": null})),
        ("docker", json!({host: {"Username": "me", "PASSWORD": LONG, "Email": null}})),
        ("dockercfg", json!({host: {"auth": basic("you", LINE_END)}})),
        ("docker", json!({"credHelpers": {host: "echo"}})),
    ];
    for (auth_type, data) in table {
        Image::remove_locally(&image);
        let before = rig.log().len();
        let lines = format!("ECS_ENGINE_AUTH_TYPE={auth_type}\nECS_ENGINE_AUTH_DATA={data}\n");
        start_with(&mut rig, &lines).await;
        let task = rig.task(&run(&rig, &[&image]), TaskStatus::Stopped).await;
        assert_eq!(exit_codes(&task), [Some(0)], "{data}: {task:?}");
        let log = rig.log()[before..].to_owned();
        let hints: Vec<&str> = log.lines().filter(|line| line.contains("ends in a new line")).collect();
        let data = data.to_string();
        // Once at the start for what the operator wrote, and once with each pull.
        let wanted = match () {
            () if data.contains(&basic("you", LINE_END)) => {
                vec!["in ECS_ENGINE_AUTH_DATA", "ECS_ENGINE_AUTH_DATA entry"]
            }
            () if data.contains("credHelpers") => vec!["docker-credential-echo for"],
            () => Vec::new(),
        };
        let is_whole = |hint: &&str| hint.contains(host) && hint.contains("level=warn");
        assert!(hints.iter().all(is_whole) && hints.is_empty() == wanted.is_empty(), "{data}: {hints:?}");
        for text in wanted {
            assert!(hints.iter().any(|hint| hint.contains(text)), "{data}: {text}: {hints:?}");
        }
        assert!(rig.terminate().success());
    }
    rig.start_agent();
    let output = all_output(&rig).await;
    assert_nowhere(&output, "me", LONG);
    assert!(!output.contains("made-with-echo"));
    images_gone(&[&image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_path_serves_no_name_that_begins_like_it() {
    let Some(mut rig) = Rig::without_agent("paths", Plan::default()).await else { return };
    let registry = Registry::start(&[("me", PASSWORD)]);
    let (own, other) = (registry.push_busybox("team/app", &[]), registry.push_busybox("team-evil/app", &[]));
    let key = format!("{}/team", registry.host);
    start_with(&mut rig, &auth("docker", false, &[(&key, "me", PASSWORD)])).await;
    for (image, wanted) in [(&own, Some(0)), (&other, None)] {
        Image::remove_locally(image);
        let task = rig.task(&run(&rig, &[image]), TaskStatus::Stopped).await;
        assert_eq!(exit_codes(&task), [wanted], "{image}: {task:?}");
        assert_eq!(reason(&task).ends_with("no basic auth credentials"), wanted.is_none(), "{image}: {task:?}");
    }
    images_gone(&[&own, &other]);
}

pub(super) fn images_gone(images: &[&str]) {
    images.iter().for_each(|image| Image::remove_locally(image));
}
