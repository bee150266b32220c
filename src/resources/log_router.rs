//! The files of a task's log router (FireLens; spec `resources.md` §6.2).
//!
//! Owns `firelens/<task id>` in the agent's data directory: the configuration, the customer's own part of it, and the directory
//! of the socket. `router_config` generates the text of the configuration. Invariants: a file is complete or does not exist;
//! nothing outside this directory is changed, whatever the task's id is.

use super::own_files::{self, make_directory};
use super::router_config::{self, Facts};
use super::settings::Settings;
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::roles::RoleCredentials;
use crate::aws::services::s3::{self, Object, ObjectError};
use crate::lane::Lane;
use ecs_core::model::resource::{ExternalConfig, LogRouterSpec};
use ecs_core::model::{Failure, ResourceRequest, TaskArn, with_causes};
use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The beginning of a file's name while it is written.
const TEMPORARY: &str = "temp_config_file";
/// The mode of the directory that contains the directories of all tasks. Docker mounts those; other users of the host need no
/// access.
const TOP_MODE: u32 = 0o700;

/// Fetches the customer's own configuration from S3; `None` = the router has none in S3.
pub(super) async fn external(
    sdk: &Sdk,
    router: &LogRouterSpec,
    role: Option<&RoleCredentials>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let Some(ExternalConfig::S3(arn)) = &router.external else { return Ok(None) };
    let reason_for = |cause: &str| format!("unable to download firelens s3 config file: {cause}");
    let Some(role) = role else {
        let text = "unable to get execution role credentials for fetching the configuration of the log router";
        return Err(Failure::ends_task(reason_for(text)));
    };
    let parsed = Object::parse(arn);
    let object =
        parsed.map_err(|error| Failure::ends_task(reason_for(&format!("unable to parse bucket and key: {error}"))))?;
    match s3::get(sdk, &object, role).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ObjectError::Bucket { text, may_pass: true } | ObjectError::Object { text, may_pass: true }) => {
            Err(Failure::retryable("", reason_for(&text)))
        }
        Err(ObjectError::Bucket { text, .. }) => {
            let bucket = object.bucket;
            Err(Failure::ends_task(reason_for(&format!("unable to initialize s3 client for bucket {bucket}: {text}"))))
        }
        Err(ObjectError::Object { text, .. }) => Err(Failure::ends_task(reason_for(&text))),
    }
}

/// Writes all files of a router. Existing files are replaced.
pub(super) async fn create(
    settings: &Settings,
    disk: &Lane,
    request: &ResourceRequest,
    router: &LogRouterSpec,
    external: Option<Zeroizing<Vec<u8>>>,
) -> Result<(), Failure> {
    let directory = directory(settings, &request.task)?;
    let definition = format!("{}:{}", request.family, request.version);
    let facts = Facts {
        cluster: &settings.cluster,
        task: request.task.as_str(),
        definition: &definition,
        instance: &settings.instance_id,
    };
    let text = router_config::text(router, &facts).map_err(|error| {
        Failure::ends_task(format!(
            "unable to generate firelens config file: unable to generate firelens config: {error}"
        ))
    })?;
    let user = router.user.clone();
    let work = move |directory: &Path| write_all(directory, &user, &text, external.as_deref().map(Vec::as_slice));
    on_disk(disk, directory, work).await
}

/// Removes all files of a router. Files that do not exist are success.
pub(super) async fn remove(settings: &Settings, disk: &Lane, task: &TaskArn) -> Result<(), Failure> {
    let directory = directory(settings, task)?;
    on_disk(disk, directory, move |directory| match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let text = format!("unable to remove firelens resource directory {}: {error}", directory.display());
            Err(Failure::retryable("", text))
        }
        Ok(()) | Err(_) => Ok(()),
    })
    .await
}

/// Runs work on a thread that may block. A disk that does not answer now may answer later, so this failure is retryable.
async fn on_disk(
    disk: &Lane,
    directory: PathBuf,
    work: impl FnOnce(&Path) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let what = directory.display().to_string();
    let done = disk.run(&what, move || work(&directory)).await;
    done.unwrap_or_else(|error| {
        Err(Failure::retryable("", format!("the files of the log router: {}", with_causes(&error))))
    })
}

fn directory(settings: &Settings, task: &TaskArn) -> Result<PathBuf, Failure> {
    let id = task.task_id();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.is_empty() || !id.bytes().all(is_plain) {
        return Err(Failure::ends_task(format!(
            "unable to initialize resource directory: the task id '{id}' is not a plain name"
        )));
    }
    Ok(settings.data_dir.join("firelens").join(id))
}

fn write_all(directory: &Path, user: &str, text: &str, external: Option<&[u8]>) -> Result<(), Failure> {
    let no_directory = |error: String| {
        Failure::ends_task(format!("unable to initialize resource directory {}: {error}", directory.display()))
    };
    for name in ["config", "socket"] {
        make_directories(directory, name)
            .map_err(|error| no_directory(format!("unable to create {name} directory: {error}")))?;
    }
    give_to(&directory.join("socket"), user)
        .map_err(|error| no_directory(format!("unable to set socket directory ownership: {error}")))?;
    if let Some(bytes) = external {
        write(directory, "external.conf", bytes)
            .map_err(|error| Failure::ends_task(format!("unable to download firelens s3 config file: {error}")))?;
    }
    write(directory, "fluent.conf", text.as_bytes())
        .map_err(|error| Failure::ends_task(format!("unable to generate firelens config file: {error}")))
}

/// Creates the directory `name` in the directory of a task, and its parents. No link below the data directory is followed.
fn make_directories(directory: &Path, name: &str) -> io::Result<()> {
    if let Some(data) = directory.parent().and_then(Path::parent) {
        fs::create_dir_all(data)?;
    }
    let modes = [(directory.parent(), TOP_MODE), (Some(directory), 0o755), (Some(&directory.join(name)), 0o755)];
    modes
        .into_iter()
        .filter_map(|(path, mode)| Some((path?, mode)))
        .try_for_each(|(path, mode)| make_directory(path, mode))
}

/// Gives a directory to the user (`uid[:gid]`) as whom the router creates its socket there.
fn give_to(directory: &Path, user: &str) -> Result<(), String> {
    if user.is_empty() {
        return Ok(());
    }
    let number =
        |text: &str| text.parse::<u32>().map_err(|_| format!("the user '{user}' of the log router is not numeric"));
    let (uid, gid) = match user.split_once(':') {
        Some((uid, gid)) => (number(uid)?, Some(number(gid)?)),
        None => (number(user)?, None),
    };
    lchown(directory, Some(uid), gid).map_err(|error| error.to_string())
}

/// Writes a file of the router. The router never sees an incomplete file.
fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    own_files::write(&directory.join(format!("{TEMPORARY}_{name}")), &directory.join("config").join(name), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{self, Answer, Fake, role};
    use ecs_core::model::resource::{LogOutput, LogRouterKind, ResourceSpec};
    use ecs_core::model::{FailureKind, ResourceKind};
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt;

    /// A directory that is removed at the end of the test.
    struct Data(Settings);

    impl Data {
        fn new() -> Self {
            let data_dir = std::env::temp_dir().join(format!("ecs-router-{}", uuid::Uuid::new_v4().simple()));
            fs::create_dir(&data_dir).unwrap();
            Self(Settings { data_dir, cluster: "judge".to_owned(), ..Settings::default() })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.data_dir.join("firelens/abc").join(name)
        }
    }

    impl Drop for Data {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.data_dir);
        }
    }

    fn lane() -> Lane {
        Lane::new("test", super::super::OWN_FILES)
    }

    fn router() -> LogRouterSpec {
        LogRouterSpec { outputs: Vec::new(), ..router_config::tests::router(LogRouterKind::Fluentbit, &[]) }
    }

    fn request(task: &str, router: &LogRouterSpec) -> ResourceRequest {
        let kind = ResourceKind::LogRouter(router.clone());
        ResourceRequest {
            task: task.into(),
            family: "judge-family".to_owned(),
            version: "7".to_owned(),
            spec: ResourceSpec { name: "firelens".to_owned(), needed_by: Vec::new(), kind },
            execution_credentials: None,
            role_id: None,
            pause_pid: 0,
            tickets: None,
        }
    }

    async fn created(data: &Data, router: &LogRouterSpec) -> Result<(), String> {
        let request = request("arn:aws:ecs:us-west-2:1:task/judge/abc", router);
        create(&data.0, &lane(), &request, router, None).await.map_err(|failure| failure.to_string())
    }

    #[tokio::test]
    async fn files_are_written_again_and_removed_with_leftovers() {
        let data = Data::new();
        let mut router = router();
        for buffer in [16, 32] {
            router.buffer = buffer;
            created(&data, &router).await.unwrap();
            let text = fs::read_to_string(data.path("config/fluent.conf")).unwrap();
            assert!(text.contains(&format!("Mem_Buf_Limit {buffer}MB")) && text.contains("judge-family:7"), "{text}");
        }
        assert_eq!(fs::metadata(data.path("config/fluent.conf")).unwrap().mode() & 0o777, 0o644);
        let listed = fs::read_dir(data.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut listed: Vec<_> = listed.map(|name| name.into_string().unwrap()).collect();
        listed.sort();
        assert_eq!(listed, ["config", "socket"]);
        fs::write(data.path("socket/fluent.sock"), "").unwrap();
        std::os::unix::fs::symlink("/etc", data.path("socket/link")).unwrap();
        for _ in 0..2 {
            remove(&data.0, &lane(), &"arn:aws:ecs:us-west-2:1:task/judge/abc".into()).await.unwrap();
            assert!(!data.path("").exists());
        }
        assert!(Path::new("/etc/passwd").exists());
    }

    #[tokio::test]
    async fn the_socket_s_directory_is_the_users() {
        let data = Data::new();
        let mut router = router();
        let own = fs::metadata(&data.0.data_dir).unwrap();
        router.user = format!("{}:{}", own.uid(), own.gid());
        created(&data, &router).await.unwrap();
        let socket = fs::metadata(data.path("socket")).unwrap();
        assert_eq!((socket.uid(), socket.gid()), (own.uid(), own.gid()));
        for user in ["fluent", "1000:staff", "-1", "1:"] {
            router.user = user.to_owned();
            let error = created(&data, &router).await.unwrap_err();
            let wanted =
                format!("unable to set socket directory ownership: the user '{user}' of the log router is not numeric");
            assert!(error.ends_with(&wanted), "{error}");
        }
    }

    #[tokio::test]
    async fn no_task_id_leads_out_of_the_directory() {
        let data = Data::new();
        for task in ["arn:task/..", "arn:task/.", "arn:task/", "arn:task/a b", "arn:task/\u{e4}"] {
            let error = create(&data.0, &lane(), &request(task, &router()), &router(), None).await.unwrap_err();
            assert!(error.message.starts_with("unable to initialize resource directory: the task id"), "{error}");
            remove(&data.0, &lane(), &task.into()).await.unwrap_err();
        }
        assert!(data.0.data_dir.exists() && !data.0.data_dir.join("firelens").exists());
    }

    #[tokio::test]
    async fn a_failed_generation_or_write_gives_a_reason() {
        let data = Data::new();
        let mut broken = router();
        let options = BTreeMap::from([("region".to_owned(), "r".to_owned())]);
        broken.outputs = vec![LogOutput { container: "app".into(), options }];
        let error = created(&data, &broken).await.unwrap_err();
        let start =
            "unable to generate firelens config file: unable to generate firelens config: unable to apply log options";
        assert!(error.starts_with(start), "{error}");
        fs::write(data.0.data_dir.join("firelens"), "in the way").unwrap();
        let error = created(&data, &router()).await.unwrap_err();
        assert!(error.contains("unable to create config directory: "), "{error}");
        assert!(error.ends_with("/firelens is in the way: it is no directory (a link is not followed)"), "{error}");
    }

    #[tokio::test]
    async fn links_in_the_data_directory_are_not_followed() {
        for name in ["firelens", "firelens/abc", "firelens/abc/socket", "firelens/abc/config"] {
            let (data, other) = (Data::new(), Data::new());
            let link = data.0.data_dir.join(name);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&other.0.data_dir, &link).unwrap();
            let mut router = router();
            router.user = "1000:1000".to_owned();
            let error = created(&data, &router).await.unwrap_err();
            assert!(error.ends_with("is in the way: it is no directory (a link is not followed)"), "{name}: {error}");
            assert_eq!(fs::read_dir(&other.0.data_dir).unwrap().count(), 0, "{name}: nothing was written there");
            assert_ne!(fs::metadata(&other.0.data_dir).unwrap().uid(), 1000, "{name}: its owner is unchanged");
        }
        let (data, other) = (Data::new(), Data::new());
        let (target, kept) = (other.0.data_dir.join("passwd"), "not ours");
        fs::write(&target, kept).unwrap();
        fs::create_dir_all(data.path("")).unwrap();
        std::os::unix::fs::symlink(&target, data.path("temp_config_file_fluent.conf")).unwrap();
        created(&data, &router()).await.unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), kept);
    }

    #[tokio::test]
    async fn other_users_do_not_see_the_files_of_routers() {
        let data = Data::new();
        created(&data, &router()).await.unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(data.0.data_dir.join("firelens")), 0o700);
        assert_eq!((mode(data.path("socket")), mode(data.path("config"))), (0o755, 0o755), "the router sees these");
    }

    #[tokio::test]
    async fn the_customers_own_configuration_comes_from_s3() {
        let fake = Fake::start(|request| match request.path.as_str() {
            "/b" => Answer::text(200, ""),
            "/b/mine.conf" => Answer::text(200, "[FILTER]\n"),
            _ => Answer::text(404, "<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"),
        })
        .await;
        let sdk = Sdk::new(fake::settings(&fake)).unwrap();
        let mut router = router();
        router.external = Some(ExternalConfig::S3("arn:aws:s3:::b/mine.conf".to_owned()));
        let bytes = external(&sdk, &router, Some(&role("exec"))).await.unwrap().unwrap();
        let data = Data::new();
        let request = request("arn:task/abc", &router);
        create(&data.0, &lane(), &request, &router, Some(bytes)).await.unwrap();
        assert_eq!(fs::read_to_string(data.path("config/external.conf")).unwrap(), "[FILTER]\n");

        let start = "unable to download firelens s3 config file: ";
        let failure = external(&sdk, &router, None).await.unwrap_err();
        assert!(failure.message.starts_with(start), "{failure}");
        for (arn, why) in [
            ("arn:aws:s3:::b/gone", "NoSuchKey: gone"),
            ("arn:aws:s3:::gone/k", "unable to initialize s3 client for bucket gone: bucket not found"),
            ("nonsense", "unable to parse bucket and key: invalid s3 arn: nonsense"),
        ] {
            router.external = Some(ExternalConfig::S3(arn.to_owned()));
            let failure = external(&sdk, &router, Some(&role("exec"))).await.unwrap_err();
            assert!(failure.message.starts_with(start) && failure.message.ends_with(why), "{failure}");
            assert_eq!(failure.kind, FailureKind::EndsTask);
        }
    }
}
