use super::*;
use ecs_core::model::{ContainerSpec, Protocol};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;

const TASK: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/f6ec705346cd43cca575d36142d315e9";

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A data directory that is removed at the end of the test.
struct Data(Settings);

impl Data {
    fn new() -> Self {
        let data_dir = std::env::temp_dir().join(format!("ecs-metadata-{}", uuid::Uuid::new_v4().simple()));
        let instance = InstanceFacts {
            cluster: "judge".to_owned(),
            container_instance:
                "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef"
                    .to_owned(),
            availability_zone: "us-west-2b".to_owned(),
            private_ipv4: "10.0.1.23".to_owned(),
            public_ipv4: "203.0.113.10".to_owned(),
        };
        Self(Settings { data_dir, instance, ..Settings::default() })
    }

    fn directory(&self) -> PathBuf {
        self.0.data_dir.join("metadata/judge/f6ec705346cd43cca575d36142d315e9/main")
    }

    fn file(&self) -> Option<String> {
        fs::read_to_string(self.directory().join(METADATA_FILE)).ok()
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.directory()).unwrap().count() - 1
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

fn request(task: &str, container: &str) -> CreateRequest {
    CreateRequest {
        task: task.into(),
        family: "judge-family".to_owned(),
        version: "7".to_owned(),
        spec: ContainerSpec { name: container.into(), ..ContainerSpec::default() },
        ..CreateRequest::default()
    }
}

/// Writes the first form.
async fn begun(data: &Data, task: &str, container: &str) -> bool {
    begin(&data.0, &lane(), &request(task, container)).await
}

fn complete_file() -> MetadataFile {
    let binding = |ip: &str| PortBinding {
        container_port: 80,
        host_port: 28480,
        bind_ip: ip.to_owned(),
        protocol: Protocol::Tcp,
    };
    let running = RunningContainer {
        runtime_id: "34a12bcec38a25de73aef21db991e7ee1557fbf52597787912f2ca304a2a4a7a".into(),
        runtime_name: "ecs-judge-family-7-main-a689c8b9c48ff5b72400".to_owned(),
        image: "judge/busybox:latest".to_owned(),
        image_id: "sha256:4ef2856f2a986e4ec092ec2775964f37ddde4acd701a28b2d014b227fc478a34".to_owned(),
        bindings: vec![binding("0.0.0.0"), binding("::")],
        networks: vec![Network { name: "bridge".to_owned(), ipv4: "172.17.0.2".to_owned(), ipv6: String::new() }],
    };
    MetadataFile {
        task: TASK.into(),
        family: "judge-family".to_owned(),
        version: "7".to_owned(),
        container: "main".into(),
        running: Some(running),
    }
}

#[tokio::test]
async fn a_complete_file_is_the_recorded_one() {
    let data = Data::new();
    assert!(begun(&data, TASK, "main").await);
    complete(&data.0, &lane(), complete_file()).await;
    let text = data.file().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), golden("container_metadata_file"));
    assert!(
        text.starts_with("{\n\t\"Cluster\": \"judge\",\n\t\"ContainerInstanceARN\"") && text.ends_with("\"\n}"),
        "{text}"
    );
    assert_eq!(fs::metadata(data.directory().join(METADATA_FILE)).unwrap().mode() & 0o777, 0o644);
    assert_eq!(data.leftovers(), 0);
}

#[tokio::test]
async fn the_first_form_says_nothing_about_docker() {
    let data = Data::new();
    assert!(begun(&data, TASK, "main").await);
    let text: Value = serde_json::from_str(&data.file().unwrap()).unwrap();
    let mut wanted = golden("container_metadata_file");
    for key in
        ["ContainerID", "DockerContainerName", "ImageID", "ImageName", "PortMappings", "Networks", "MetadataFileStatus"]
    {
        assert!(wanted.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    assert_eq!(text, wanted);
    assert_eq!(fs::metadata(data.0.data_dir.join("metadata")).unwrap().mode() & 0o777, 0o700);
}

/// A restart of the agent requests the complete file again, and may request the first form again.
#[tokio::test]
async fn a_complete_file_is_never_written_again() {
    let data = Data::new();
    assert!(begun(&data, TASK, "main").await);
    complete(&data.0, &lane(), complete_file()).await;
    let before = data.file();
    let mut later = complete_file();
    later.running.as_mut().unwrap().networks.clear();
    complete(&data.0, &lane(), later).await;
    assert!(begun(&data, TASK, "main").await);
    assert_eq!(data.file(), before);
}

#[tokio::test]
async fn a_kill_while_a_file_is_written_leaves_the_form_before() {
    let data = Data::new();
    assert!(begun(&data, TASK, "main").await);
    fs::write(data.directory().join(TEMPORARY), "{\"half").unwrap();
    assert!(!is_complete(&data.directory().join(METADATA_FILE)));
    complete(&data.0, &lane(), complete_file()).await;
    assert!(data.file().unwrap().contains("READY"));
    assert_eq!(data.leftovers(), 0);
}

#[tokio::test]
async fn a_removal_takes_the_task_s_files_and_no_others() {
    let data = Data::new();
    let other = TASK.replace("f6ec", "0000");
    for task in [TASK, &other] {
        assert!(begun(&data, task, "main").await && begun(&data, task, "side").await);
    }
    for _ in 0..2 {
        remove(&data.0, &lane(), &TASK.into()).await;
        assert_eq!(data.file(), None);
    }
    let (_, other) = other.split_once("task/").unwrap();
    assert!(data.0.data_dir.join("metadata").join(other).join("side").join(METADATA_FILE).exists());
    complete(&data.0, &lane(), complete_file()).await;
    assert_eq!(data.file(), None, "a late request makes no directory");
}

#[tokio::test]
async fn nothing_outside_the_data_directory_is_written() {
    let data = Data::new();
    let outside = std::env::temp_dir().join(format!("ecs-outside-{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(data.0.data_dir.join("metadata")).unwrap();
    std::os::unix::fs::symlink(&outside, data.0.data_dir.join("metadata/judge")).unwrap();
    assert!(!begun(&data, TASK, "main").await);
    for (task, container) in [(TASK, "../../x"), ("arn:aws:ecs:r:1:task/../x", "main")] {
        assert!(!begun(&data, task, container).await);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    fs::remove_dir_all(outside).unwrap();
}
