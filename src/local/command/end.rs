//! What a person can do after a task of `up` that did not run. This module owns the texts. Invariant: it shows names and paths,
//! never the value of a secret.

use super::files::Directories;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The number of missing files that are named.
const MAX_FILES: usize = 5;

/// What to do after an end for this reason; `None`: nothing in particular.
pub(super) fn remedy(reason: &str, definition: &Value, directories: &Directories) -> Option<String> {
    const STORES: [(&str, Store); 4] = [
        ("invalid parameters:", Store::Parameters),
        ("Secrets Manager: GetSecretValue", Store::Secrets),
        ("bucket not found", Store::Buckets),
        ("S3: GetObject", Store::Buckets),
    ];
    if let Some((_, store)) = STORES.iter().find(|(part, _)| reason.contains(part)) {
        return match store.directory(directories) {
            None => Some(store.option().to_owned()),
            Some(directory) => missing(&store.files(definition), directory),
        };
    }
    if reason.contains("invalid reference format") {
        return Some("`image` is no name of an image: HOST/NAME:TAG, and NAME has no capital letters".to_owned());
    }
    if let Some(port) = taken_port(reason) {
        return Some(format!("use hostPort 0 for any free port, or end what uses port {port}"));
    }
    if let Some(volume) = missing_volume(reason) {
        return Some(format!(
            "add \"autoprovision\": true to its `dockerVolumeConfiguration`, or make it before `up`: docker volume create {volume}"
        ));
    }
    (reason.contains("CannotPull") || reason.contains(ECR)).then(|| without_pull(&image_in(reason, definition)))
}

/// What the names of ECR's registries contain.
const ECR: &str = ".dkr.ecr.";

/// How to do without the pull of an image.
pub(super) fn without_pull(image: &str) -> String {
    match image.contains(ECR) {
        true => {
            format!("Without an AWS account, give an image of yours this name before `up`: docker tag MY-IMAGE {image}")
        }
        false => format!(
            "If its registry does not give it, pull or build it before `up`, or give an image of yours this name: docker tag MY-IMAGE {image}"
        ),
    }
}

/// The image that a failure is about: the one that it names, or else that of the only container.
fn image_in(reason: &str, definition: &Value) -> String {
    let containers = definition["containerDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut images: Vec<&str> = containers.iter().filter_map(|container| container["image"].as_str()).collect();
    images.sort_unstable_by_key(|image| std::cmp::Reverse(image.len()));
    let named = images.iter().find(|image| reason.contains(**image)).or(images.first().filter(|_| images.len() == 1));
    named.map_or_else(|| "IMAGE".to_owned(), |image| (*image).to_owned())
}

/// The shared volume that does not exist and that the agent may not make, from the agent's reason; `None`: it is another reason.
fn missing_volume(reason: &str) -> Option<&str> {
    let (before, _) = reason.split_once("' does not exist and autoprovision is")?;
    before.rsplit_once("volume '").map(|(_, name)| name)
}

/// The port of the host that Docker could not have, from its error; `None`: it is another error. The forms are those of Docker:
/// `Bind for 0.0.0.0:8080 failed: port is already allocated`, `listen tcp4 0.0.0.0:8080: bind: address already in use`.
fn taken_port(reason: &str) -> Option<u16> {
    let words = ["failed: port is already allocated", "bind: address already in use"];
    let end = words.into_iter().find_map(|words| reason.find(words))?;
    reason[..end].trim_end_matches([' ', ':']).rsplit(':').next()?.parse().ok()
}

/// Says which of the files are not in a directory; `None`: all are there.
fn missing(files: &[String], directory: &Path) -> Option<String> {
    let mut paths: Vec<PathBuf> =
        files.iter().map(|file| directory.join(file)).filter(|path| !path.is_file()).collect();
    paths.sort();
    paths.dedup();
    let named: Vec<String> = paths.iter().take(MAX_FILES).map(|path| path.display().to_string()).collect();
    let more = paths.len().saturating_sub(MAX_FILES);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!paths.is_empty()).then(|| format!("there is no file {}{rest}", named.join(", ")))
}

/// Where the values of a task come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Parameters,
    Secrets,
    Buckets,
}

impl Store {
    const fn option(self) -> &'static str {
        match self {
            Self::Parameters => "`--parameters DIR` names the directory with the values of SSM parameters",
            Self::Secrets => "`--secrets DIR` names the directory with the values of secrets",
            Self::Buckets => "`--buckets DIR` names the directory with the buckets",
        }
    }

    fn directory(self, directories: &Directories) -> Option<&Path> {
        match self {
            Self::Parameters => directories.parameters.as_deref(),
            Self::Secrets => directories.secrets.as_deref(),
            Self::Buckets => directories.buckets.as_deref(),
        }
    }

    /// The files that hold what the definition refers to, relative to the directory.
    fn files(self, definition: &Value) -> Vec<String> {
        let containers = definition["containerDefinitions"].as_array().into_iter().flatten();
        let list = |value: &'_ Value, member: &str| {
            let items = value.as_array().into_iter().flatten();
            items.filter_map(|item| item[member].as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let references = |container: &Value| match self {
            Self::Buckets => list(&container["environmentFiles"], "value"),
            Self::Parameters | Self::Secrets => {
                let mut all = list(&container["secrets"], "valueFrom");
                all.extend(list(&container["logConfiguration"]["secretOptions"], "valueFrom"));
                all.retain(|from| from.contains(":secretsmanager:") == (self == Self::Secrets));
                let password = container["repositoryCredentials"]["credentialsParameter"].as_str();
                all.extend(password.filter(|_| self == Self::Secrets).map(str::to_owned));
                all
            }
        };
        containers.flat_map(references).filter_map(|reference| self.file(&reference)).collect()
    }

    /// The file for a name or an ARN; `None`: it names nothing.
    fn file(self, reference: &str) -> Option<String> {
        let name = match self {
            Self::Buckets => reference.rsplit_once(":::").map_or(reference, |(_, object)| object),
            Self::Parameters => {
                let name = reference.split_once(":parameter").map_or(reference, |(_, name)| name);
                name.split(':').next().unwrap_or_default().trim_start_matches('/')
            }
            Self::Secrets => {
                let name = reference.split_once(":secret:").map_or(reference, |(_, name)| name);
                let name = name.split(':').next().unwrap_or_default();
                // AWS adds six characters to the name in an ARN.
                let is_arn = reference.starts_with("arn:");
                name.rsplit_once('-').filter(|(_, end)| is_arn && end.len() == 6).map_or(name, |(name, _)| name)
            }
        };
        (!name.is_empty()).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition() -> Value {
        json!({"containerDefinitions": [{
            "secrets": [
                {"name": "A", "valueFrom": "/team/none"},
                {"name": "B", "valueFrom": "arn:aws:ssm:us-west-2:123456789012:parameter/team/gone:3"},
                {"name": "C", "valueFrom": "arn:aws:secretsmanager:us-west-2:123456789012:secret:team/db-a1B2c3:password::"},
            ],
            "repositoryCredentials": {"credentialsParameter": "hub"},
            "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/dir/app.env"}],
        }]})
    }

    #[test]
    fn the_option_is_named_if_it_was_not_given() {
        let none = Directories::default();
        for (reason, part) in [
            ("ResourceInitializationError: … invalid parameters: /team/none", "`--parameters DIR`"),
            ("operation error Secrets Manager: GetSecretValue, …", "`--secrets DIR`"),
            ("unable to initialize s3 client for bucket gone: bucket not found", "`--buckets DIR`"),
        ] {
            assert!(remedy(reason, &definition(), &none).unwrap().starts_with(part), "{reason}");
        }
        let name = remedy("CannotInspectImageError: invalid reference format", &definition(), &none).unwrap();
        assert!(name.ends_with("NAME has no capital letters"), "{name}");
        assert_eq!(remedy("OutOfMemoryError: container killed", &definition(), &none), None);
    }

    #[test]
    fn the_missing_file_is_named_if_it_was_given() {
        let directory = std::env::temp_dir().join(format!("ecs-local-end-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join("team")).unwrap();
        std::fs::write(directory.join("hub"), "x").unwrap();
        let given = || Some(directory.clone());
        let all = Directories { secrets: given(), parameters: given(), buckets: given() };
        let at = directory.display();
        for (reason, wanted) in [
            ("invalid parameters: /team/none", format!("there is no file {at}/team/gone, {at}/team/none")),
            ("Secrets Manager: GetSecretValue", format!("there is no file {at}/team/db")),
            ("S3: GetObject", format!("there is no file {at}/bucket/dir/app.env")),
        ] {
            assert_eq!(remedy(reason, &definition(), &all), Some(wanted), "{reason}");
        }
        std::fs::write(directory.join("team/db"), "x").unwrap();
        assert_eq!(remedy("Secrets Manager: GetSecretValue", &definition(), &all), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_taken_port_is_named() {
        let end = |reason: &str| remedy(reason, &Value::Null, &Directories::default());
        for (reason, port) in [
            (
                "driver failed programming external connectivity on endpoint a: Bind for 0.0.0.0:8080 failed: port is already allocated",
                8080,
            ),
            ("Error starting userland proxy: listen tcp4 0.0.0.0:53: bind: address already in use", 53),
            ("listen udp6 [::]:5353: bind: address already in use)", 5353),
        ] {
            let wanted = format!("use hostPort 0 for any free port, or end what uses port {port}");
            assert_eq!(end(&format!("CannotStartContainerError: {reason}")), Some(wanted), "{reason}");
        }
        assert_eq!(end("CannotStartContainerError: bind: address already in use"), None);
    }

    #[test]
    fn every_image_that_cannot_be_pulled_has_a_remedy() {
        let definition =
            json!({"containerDefinitions": [{"image": "a"}, {"image": "1.dkr.ecr.us-west-2.amazonaws.com/a"}]});
        let end = |reason: &str| remedy(reason, &definition, &Directories::default()).unwrap();
        let other = end("container b: CannotPullContainerError: no such host");
        assert!(other.starts_with("If its registry does not") && other.ends_with(": docker tag MY-IMAGE a"), "{other}");
        let ecr = end("CannotPullECRContainerError: 1.dkr.ecr.us-west-2.amazonaws.com/a: no credentials");
        let tag = "docker tag MY-IMAGE 1.dkr.ecr.us-west-2.amazonaws.com/a";
        assert!(ecr.starts_with("Without an AWS account, ") && ecr.ends_with(tag), "{ecr}");
        assert_eq!(ecr.matches(": ").count(), 1, "{ecr}");
        assert_eq!(image_in("no such host", &Value::Null), "IMAGE");
    }

    #[test]
    fn a_missing_volume_has_a_remedy() {
        let reason = "ResourceInitializationError: initialize volume: volume detection failed, volume 'nov' does not exist and autoprovision \
                      is set to false";
        let text = remedy(reason, &Value::Null, &Directories::default()).unwrap();
        assert!(text.contains("\"autoprovision\": true") && text.ends_with("docker volume create nov"), "{text}");
    }
}
