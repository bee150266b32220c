//! Pulls and digests, with a real registry.

use crate::{connect, settings};
use ecs_agent::docker::{AuthMap, Docker, PullJob};
use ecs_core::model::image::ListedImage;
use ecs_core::model::waiting::PullProgress;
use ecs_core::model::{Failure, OpError, RegistryCredentials, Secret, Span, Timestamp};
use ecs_testing::docker::{Cluster, ENDPOINT, Image, available, docker, has_containerd_store, inspect, unique};
use ecs_testing::registry::{Registry, basic};
use ecs_testing::registry_front::{Fault, RegistryFront};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Characters that base64 turns into `+` and `/`.
const PASSWORD: &str = "p~~~???>>>:w";

fn recorded_reason(file: &str) -> String {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let changes: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    changes[0]["containers"][0]["reason"].as_str().unwrap().to_owned()
}

fn failure_text(error: OpError) -> String {
    match error {
        OpError::Failed(failure) => failure.to_string(),
        OpError::Unknown(failure) => panic!("a pull never is in doubt: {failure}"),
    }
}

async fn pull(edge: &Docker, image: &str, digest: Option<&str>, with: &RegistryCredentials) -> Result<(), OpError> {
    let progress = watch::Sender::default();
    let job = PullJob { image, digest, waits_for_limits: false, progress: &progress, now: &Timestamp::default };
    edge.pull(&job, || async { Ok(with.clone()) }).await
}

async fn resolve(edge: &Docker, image: &str, with: &RegistryCredentials) -> Result<Option<String>, OpError> {
    let progress = watch::Sender::default();
    let job = PullJob { image, digest: None, waits_for_limits: false, progress: &progress, now: &Timestamp::default };
    edge.resolve_manifest(&job, || async { Ok(with.clone()) }).await
}

#[tokio::test]
async fn every_form_of_credentials_pulls() {
    if !available("every_form_of_credentials_pulls") {
        return;
    }
    let cluster = Cluster::new();
    let edge = Arc::new(connect(&cluster.name).await);
    let registry = Registry::start(&[("alice", PASSWORD)]);
    let image = registry.push_busybox("team/app:1", &["ENV IMAGE_VAR=1"]);
    let (host, auth) = (&registry.host, basic("alice", PASSWORD));
    let plain = json!({"username": "alice", "password": PASSWORD, "email": "a@example.com"});
    let documents = [
        ("dockercfg", json!({host: {"auth": auth}})),
        ("docker", json!({format!("http://{host}"): plain})),
        ("docker", json!({host: {"auth": auth}})),
        ("dockercfg", json!({"auths": {host: {"auth": auth}}})),
        ("docker", json!({"auths": {format!("https://{host}"): plain}})),
        (
            "docker",
            json!({
                "r.example": {"username": "bob", "password": "x"}, "https://index.docker.io/v1/": {"auth": basic("bob", "x")},
                host: {"username": "bob", "password": "wrong"}, format!("{host}/team"): plain,
            }),
        ),
    ];
    for (auth_type, document) in documents {
        let (map, problems) = AuthMap::parse(auth_type, &Secret::new(document.to_string()));
        assert!(problems.is_empty(), "{problems:?}");
        let (credentials, _) = map.credentials(&image).await.unwrap();
        let digest = resolve(&edge, &image, &credentials).await.unwrap().expect("the registry returns the digest");
        assert_eq!(edge.image_present(&image).await.unwrap(), None, "{auth_type}: it is not there yet");
        // The executor pulls on another task, so the future must be `Send`.
        let mut tasks = tokio::task::JoinSet::new();
        let (edge_there, image_there, digest_there) = (Arc::clone(&edge), image.clone(), digest.clone());
        tasks.spawn(async move { pull(&edge_there, &image_there, Some(&digest_there), &credentials).await });
        tasks.join_next().await.unwrap().unwrap().unwrap();
        let facts = edge.image_present(&image).await.unwrap().expect("findable under its tag after a pull by digest");
        assert_eq!(facts.repo_digest.as_ref(), Some(&digest), "{auth_type}");
        assert!(facts.env_keys.contains(&"IMAGE_VAR".to_owned()) && facts.id.starts_with("sha256:"));
        assert_eq!(edge.local_digest(&image).await.unwrap(), Some(digest.clone()));
        Image::remove_locally(&image);
        Image::remove_locally(&format!("{host}/team/app@{digest}"));
    }
}

#[tokio::test]
async fn a_pull_by_tag_works_without_credentials() {
    if !available("a_pull_by_tag_works_without_credentials") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let registry = Registry::start(&[]);
    let image = registry.push_busybox("app", &[]);
    pull(&edge, &image, None, &RegistryCredentials::default()).await.unwrap();
    let _clean = Image { reference: image.clone() };
    let digest = edge.local_digest(&image).await.unwrap().unwrap();
    // An image that exists under another name is used as well.
    assert!(edge.has_without_pull(&image, None).await.unwrap());
    Image::remove_locally(&image);
    docker(&["pull", "-q", &format!("{image}@{digest}")]);
    assert!(!edge.has_without_pull(&image, None).await.unwrap(), "not under its name");
    let strange = format!("sha256:{}", "0".repeat(64));
    assert!(!edge.has_without_pull(&image, Some(&strange)).await.unwrap(), "that one never was here");
    assert!(edge.has_without_pull(&image, Some(&digest)).await.unwrap());
    assert!(edge.image_present(&image).await.unwrap().is_some(), "and it has its name again");
    // A reference that contains a digest needs no look-up.
    let by_digest = format!("{}/app@{digest}", registry.host);
    let resolved = resolve(&edge, &by_digest, &RegistryCredentials::default()).await.unwrap();
    assert_eq!(resolved, Some(digest));
    pull(&edge, &by_digest, None, &RegistryCredentials::default()).await.unwrap();
    Image::remove_locally(&by_digest);
}

#[tokio::test]
async fn refusals_say_what_the_go_agent_says() {
    if !available("refusals_say_what_the_go_agent_says") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let registry = Registry::start(&[("alice", PASSWORD)]);
    let image = registry.push_busybox("app:1", &[]);
    let alice = RegistryCredentials { username: "alice".into(), password: PASSWORD.into(), ..Default::default() };
    let wrong = RegistryCredentials { username: "alice".into(), password: "wrong".into(), ..Default::default() };
    let unknown = format!("{}/no/such:1", registry.host);
    let refused = "127.0.0.1:9/app:1"; // the discard port: nobody listens

    // With all attempts and waits each of these takes about 14 s, so they run at the same time.
    let (manifest_unknown, manifest_refused, pull_unknown, pull_wrong, manifest_wrong) = tokio::join!(
        resolve(&edge, &unknown, &alice),
        resolve(&edge, refused, &alice),
        pull(&edge, &unknown, None, &alice),
        pull(&edge, &image, None, &wrong),
        resolve(&edge, &image, &wrong),
    );
    assert_eq!(failure_text(manifest_unknown.unwrap_err()), recorded_reason("submit_task_stopped_pull_failure.json"));
    let recorded = recorded_reason("submit_task_stopped_pull_refused.json").replace("127.0.0.1:5009", "127.0.0.1:9");
    assert_eq!(failure_text(manifest_refused.unwrap_err()), recorded);
    let text = failure_text(pull_unknown.unwrap_err());
    let wanted = if has_containerd_store() {
        format!("failed to resolve reference \"{unknown}\": {unknown}: not found")
    } else {
        format!("manifest for {unknown} not found: manifest unknown: manifest unknown")
    };
    assert_eq!(text, format!("CannotPullContainerError: Error response from daemon: {wanted}"));
    for text in [failure_text(pull_wrong.unwrap_err()), failure_text(manifest_wrong.unwrap_err())] {
        let is_refusal = text.contains("no basic auth credentials") || text.to_lowercase().contains("unauthorized");
        assert!(is_refusal, "{text}");
        assert!(text.contains("Error response from daemon: ") && !text.contains(&basic("alice", "wrong")), "{text}");
    }
    assert_eq!(edge.image_present(&image).await.unwrap(), None);
}

#[tokio::test]
async fn credentials_are_asked_for_and_their_failure_ends_the_pull() {
    if !available("credentials_are_asked_for_and_their_failure_ends_the_pull") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let asked = AtomicU32::new(0);
    let refuse = || async {
        asked.fetch_add(1, Ordering::Relaxed);
        Err(Failure::permanent("CannotPullECRContainerError", "engine ecr credentials: not found"))
    };
    let progress = watch::Sender::default();
    let job = PullJob {
        image: "127.0.0.1:9/app:1",
        digest: None,
        waits_for_limits: true,
        progress: &progress,
        now: &Timestamp::default,
    };
    let text = failure_text(edge.pull(&job, refuse).await.unwrap_err());
    assert_eq!(text, "CannotPullECRContainerError: engine ecr credentials: not found");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is not tried again");
}

#[tokio::test]
async fn local_images_and_bad_references() {
    if !available("local_images_and_bad_references") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let image = Image::make(&format!("{}:1", unique("ecs-test-image")), &[]);
    // In containerd's store, every image has a digest. In Docker's own, one that was built here has none, which is no error.
    let digest = edge.local_digest(&image.reference).await.unwrap();
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image.reference]);
    assert_eq!(digest, has_containerd_store().then_some(id));
    let text = failure_text(edge.local_digest("ecs-test-no-such:1").await.unwrap_err());
    assert_eq!(text, "CannotPullImageManifestError: Error response from daemon: No such image: ecs-test-no-such:1");
    let anonymous = RegistryCredentials::default();
    assert_eq!(
        failure_text(pull(&edge, "../containers?x", None, &anonymous).await.unwrap_err()),
        "CannotPullContainerError: invalid reference format"
    );
    let text = failure_text(pull(&edge, "app:1", Some("nonsense"), &anonymous).await.unwrap_err());
    assert!(
        text.contains("failed to prepare a canonical reference with image 'app:1' and digest 'nonsense'"),
        "{text}"
    );

    // An image that was pulled under another name only: the digest in that repository does not count for this one.
    let registry = Registry::start(&[]);
    let pulled = registry.push_busybox("app", &[]);
    pull(&edge, &pulled, None, &anonymous).await.unwrap();
    let _clean = Image { reference: pulled.clone() };
    let other = Image { reference: format!("{}:1", unique("ecs-test-other")) };
    docker(&["tag", &pulled, &other.reference]);
    let digest = edge.local_digest(&other.reference).await;
    if has_containerd_store() {
        assert!(digest.unwrap().is_some(), "there, every name has the digest");
        return;
    }
    let text = failure_text(digest.unwrap_err());
    let wanted = format!("CannotPullImageManifestError: failed to find a repo digest matching '{}'", other.reference);
    assert_eq!(text, wanted);
}

async fn listed(edge: &Docker, id: &str) -> Option<ListedImage> {
    edge.list_images(false, false).await.unwrap().images.into_iter().find(|image| image.id == id)
}

/// Pushes an index (a manifest list) with this pushed image as its only platform; returns the index' reference and digest.
async fn push_index(registry: &Registry, image: &str) -> (String, String) {
    ecs_agent::aws::install_tls(); // reqwest wants a provider, also for plain http
    let (name, tag) = image.strip_prefix(&format!("{}/", registry.host)).unwrap().rsplit_once(':').unwrap();
    let manifests = format!("http://{}/v2/{name}/manifests", registry.host);
    let kinds = ["application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"];
    let client = reqwest::Client::new();
    let got = client.get(format!("{manifests}/{tag}")).header("Accept", kinds.join(", ")).send().await.unwrap();
    let head = |name: &str| got.headers()[name].to_str().unwrap().to_owned();
    let (digest, kind) = (head("docker-content-digest"), head("content-type"));
    let architecture = docker(&["version", "--format", "{{.Server.Arch}}"]);
    let size = got.bytes().await.unwrap().len();
    let kind_of_index = "application/vnd.docker.distribution.manifest.list.v2+json";
    let index = json!({
        "schemaVersion": 2, "mediaType": kind_of_index,
        "manifests": [{
            "mediaType": kind, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture},
        }],
    });
    let put = client.put(format!("{manifests}/index")).header("Content-Type", kind_of_index).body(index.to_string());
    let put = put.send().await.unwrap().error_for_status().unwrap();
    let digest = put.headers()["docker-content-digest"].to_str().unwrap().to_owned();
    (format!("{}/{name}:index", registry.host), digest)
}

/// In containerd's store, the id of such an image is the digest of the index; in Docker's own, that of the configuration.
#[tokio::test]
async fn an_image_for_several_platforms_has_its_indexs_digest() {
    if !available("an_image_for_several_platforms_has_its_indexs_digest") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let registry = Registry::start(&[]);
    let single = registry.push_busybox("team/app:1", &[]);
    Image::remove_locally(&single);
    let (image, digest) = push_index(&registry, &single).await;
    let anonymous = RegistryCredentials::default();
    assert_eq!(resolve(&edge, &image, &anonymous).await.unwrap().as_ref(), Some(&digest), "this is reported");
    pull(&edge, &image, Some(&digest), &anonymous).await.unwrap();
    let _clean = Image { reference: image.clone() };
    let facts = edge.image_present(&image).await.unwrap().unwrap();
    assert_eq!(
        (facts.repo_digest.as_ref(), edge.local_digest(&image).await.unwrap()),
        (Some(&digest), Some(digest.clone()))
    );
    assert_eq!(facts.id == digest, has_containerd_store());

    // The clean-up compares the ids of containers with those of the list.
    let label = format!("com.amazonaws.ecs.cluster={}", cluster.name);
    let container = docker(&["create", "--label", &label, &image, "true"]);
    assert_eq!(inspect(&container)["Image"], facts.id);
    let listing = edge.list_images(false, false).await.unwrap();
    let user = listing.containers.iter().find(|listed| listed.id.as_str() == container).unwrap();
    assert_eq!(user.image_id, facts.id);
    let found = listed(&edge, &facts.id).await.unwrap();
    let by_digest = format!("{}/team/app@{digest}", registry.host);
    assert_eq!((&found.names, &found.digests), (&vec![image.clone()], &vec![by_digest]));
    assert!(found.size > 10_000 && found.age < Span::secs(3600), "{found:?}");
    let refused = edge.remove_image(&facts.id, &found.names).await;
    assert!(refused.is_err(), "a container uses it");
    docker(&["rm", &container]);
    edge.remove_image(&facts.id, &found.names).await.unwrap();
    assert_eq!(listed(&edge, &facts.id).await, None, "the name by digest goes with the last tag");
}

/// As with a tag such as `latest`: the old image has no tag then, and the clean-up must find it so.
#[tokio::test]
async fn an_image_whose_tag_moved_on_has_no_name_and_can_be_removed() {
    if !available("an_image_whose_tag_moved_on_has_no_name_and_can_be_removed") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let registry = Registry::start(&[]);
    let anonymous = RegistryCredentials::default();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let image = registry.push_busybox("team/app:latest", &[]);
        let digest = resolve(&edge, &image, &anonymous).await.unwrap().unwrap();
        pull(&edge, &image, Some(&digest), &anonymous).await.unwrap();
        ids.push((image.clone(), edge.image_present(&image).await.unwrap().unwrap().id));
    }
    let [(image, old), (_, new)] = <[_; 2]>::try_from(ids).unwrap();
    assert_eq!(listed(&edge, &new).await.unwrap().names, std::slice::from_ref(&image));
    assert_eq!(listed(&edge, &old).await.unwrap().names, [""; 0]);
    edge.remove_image(&old, &[]).await.unwrap();
    assert_eq!(listed(&edge, &old).await, None);
    edge.remove_image(&new, &[image]).await.unwrap();
    assert_eq!(listed(&edge, &new).await, None);
}

/// With the containerd image store, the daemon repeats the progress of a download in which no byte arrives.
#[tokio::test]
async fn a_registry_that_stalls_in_a_layer_is_asked_again() {
    if !available("a_registry_that_stalls_in_a_layer_is_asked_again") {
        return;
    }
    let cluster = Cluster::new();
    let mut limits = settings(ENDPOINT, &cluster.name);
    (limits.pull_inactivity, limits.pull_timeout) = (Span::secs(3), Span::secs(60));
    let edge = Docker::connect(limits).await.unwrap();
    let registry = Registry::start(&[]);
    let front = RegistryFront::start(&registry.host).await;
    let image = registry.push_larger("app:1", 4 << 20);
    Image::remove_locally(&image);
    // The configuration is small enough to arrive whole, and enough of the layer arrives that every daemon shows progress.
    front.inject(&["GET", "/blobs/"], 2, Fault::Slow(3 << 20, Duration::from_secs(3600)));
    let image = Image { reference: front.image(&image) };
    let progress = watch::Sender::new(PullProgress::default());
    let job = PullJob {
        image: &image.reference,
        digest: None,
        waits_for_limits: false,
        progress: &progress,
        now: &Timestamp::default,
    };
    edge.pull(&job, || async { Ok(RegistryCredentials::default()) }).await.unwrap();
    let shown = progress.borrow().clone();
    let why = shown.failure.unwrap_or_default();
    assert!(shown.attempt == 2 && why.contains("inactivity time exceeded"), "{} {why}", shown.attempt);
}
