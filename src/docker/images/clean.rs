//! The engine calls of the image clean-up: listing images and containers, measuring the disk, removing (spec `images.md` §7).
//!
//! Owns these calls; the core decides what to remove. Invariant: no removal is forced, so the daemon keeps an image that a
//! container uses. Removing what does not exist is success.

use crate::docker::Docker;
use crate::docker::api::error::DockerError;
use crate::docker::api::info::has_containerd_store;
use crate::docker::observe;
use ecs_core::model::image::{ImageListing, ListedContainer, ListedImage};
use ecs_core::model::text::cleaned;
use ecs_core::model::{Failure, OpError, RuntimeId, Span, with_causes};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many containers are inspected at the same time.
const INSPECTS_AT_ONCE: usize = 8;
const IMAGES_ERROR: &str = "CannotListImagesError";
const CONTAINERS_ERROR: &str = "CannotListContainersError";
const REMOVE_ERROR: &str = "CannotRemoveImageError";

/// How often images are listed if one of them vanishes meanwhile.
const LISTINGS: u32 = 5;

/// Asks for a list again if the daemon answers that something was not found: with the containerd image store, one image that is removed
/// meanwhile fails the whole list.
async fn again_if_missing<T, F>(ask: impl Fn() -> F) -> Result<T, DockerError>
where
    F: Future<Output = Result<T, DockerError>>,
{
    for _ in 1..LISTINGS {
        match ask().await {
            Err(error) if error.is_not_found() => {}
            answer => return answer,
        }
    }
    ask().await
}

impl Docker {
    /// Lists all images and containers. With `ends`, also how long ago each container ended; with `disk`, also how full the file
    /// system of the images is.
    ///
    /// # Errors
    /// Fails if the images or the containers cannot be listed.
    pub async fn list_images(&self, ends: bool, disk: bool) -> Result<ImageListing, OpError> {
        let limit = self.settings.limits.list;
        let images = again_if_missing(|| self.reader.get(&["images", "json"], &[], limit)).await;
        let images = entries(images.map_err(|error| error.to_read_error(IMAGES_ERROR, "listing"))?, IMAGES_ERROR)?;
        let containers = self.reader.get(&["containers", "json"], &[("all", "1")], limit).await;
        let containers =
            entries(containers.map_err(|error| error.to_read_error(CONTAINERS_ERROR, "listing"))?, CONTAINERS_ERROR)?;
        let now = seconds_since_epoch();
        let inspections = containers.into_iter().filter_map(|entry| {
            let (container, is_not_running) = listed_container(&entry)?;
            Some(self.with_end(container, ends && is_not_running, now))
        });
        Ok(ImageListing {
            images: images.iter().filter_map(|entry| image(entry, now)).collect(),
            containers: stream::iter(inspections).buffer_unordered(INSPECTS_AT_ONCE).collect().await,
            disk_percent: if disk { self.disk_percent().await } else { None },
            running_owners: None,
        })
    }

    /// Adds how long ago the container ended, if `ends` is set.
    async fn with_end(&self, container: ListedContainer, ends: bool, now: i64) -> ListedContainer {
        let ended = if ends { self.ended(&container.id, now).await } else { None };
        ListedContainer { ended, ..container }
    }

    /// How long ago a container ended; `None` if that is unknown.
    async fn ended(&self, id: &RuntimeId, now: i64) -> Option<Span> {
        let limit = self.settings.limits.inspect;
        let answer = self.reader.get(&["containers", &id.0, "json"], &[], limit).await.ok()?;
        // Compat: a container that never ran has the zero time, and is removed at once.
        match seconds(answer["State"]["FinishedAt"].as_str()?)? {
            never if never <= 0 => Some(Span::MAX),
            ended => Some(Span::secs(u64::try_from(now - ended).unwrap_or(0))),
        }
    }

    /// How full the file system of the images is, in percent; `None` if the agent cannot see their directory.
    async fn disk_percent(&self) -> Option<u8> {
        let answer = self.reader.get(&["info"], &[], self.settings.limits.inspect).await.ok()?;
        let images = directory_of_images(&answer)?;
        let why = match self.used(images).await {
            Ok(percent) => return Some(percent),
            Err(error) => error,
        };
        // An agent in a container may see only Docker's directory. On most hosts both are on one disk.
        let docker = answer["DockerRootDir"].as_str().filter(|docker| *docker != images);
        let instead = match docker {
            Some(docker) => self.used(docker).await.ok(),
            None => None,
        };
        let text = match instead {
            Some(_) => "the disk of Docker's directory is looked at instead",
            None => "ECS_IMAGE_DISK_HIGH_PERCENT has no effect",
        };
        let directory = cleaned(images);
        tracing::warn!(directory, error = why, "the agent cannot see the directory of Docker's images; {text}");
        instead
    }

    /// How much of the disk of this directory is used, in percent. The error is a text for the log.
    async fn used(&self, directory: &str) -> Result<u8, String> {
        let path = directory.to_owned();
        match self.disk.run(directory, move || percent_used(&path)).await {
            Ok(Ok(percent)) => Ok(percent),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(with_causes(&error)),
        }
    }

    /// Removes these names of an image; the image goes with its last name. If `names` is empty, removes the image by its id. A
    /// name that cannot be removed does not keep the others from being removed.
    ///
    /// # Errors
    /// Fails if a name, or the image itself, exists and cannot be removed; the first such error is returned.
    /// [`OpError::Unknown`]: there was no answer.
    pub async fn remove_image(&self, id: &str, names: &[String]) -> Result<(), OpError> {
        let by_id = [id.to_owned()];
        let mut failed = Ok(());
        for name in if names.is_empty() { &by_id } else { names } {
            let limit = self.settings.limits.remove_image;
            if let Err(error) = self.changer.delete(&["images", name], &[], limit).await
                && !is_gone(&error)
            {
                failed = failed.and(Err(error.to_change_error(REMOVE_ERROR, "removing image")));
            }
        }
        failed
    }

    /// Removes a container that has ended, even if this agent did not create it.
    ///
    /// # Errors
    /// Fails if the engine does not remove the container, for instance because it runs. [`OpError::Unknown`]: there was no
    /// answer.
    pub async fn remove_foreign(&self, id: &RuntimeId) -> Result<(), OpError> {
        match self.changer.delete(&["containers", &id.0], &[("v", "1")], self.settings.limits.remove).await {
            Err(error) if !error.is_no_container() => {
                Err(error.to_change_error("CannotRemoveContainerError", "removing"))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The directory of the images, from the answer to `GET /info`. With the containerd image store, they are below containerd's
/// directory, which may be on another disk. Docker does not tell that directory; a containerd that Docker has started itself is
/// below Docker's own.
fn directory_of_images(info: &Value) -> Option<&str> {
    const CONTAINERD: &str = "/var/lib/containerd";
    // Docker before 27 does not tell the address; it then is most likely the host's containerd, as the packages set it up.
    let address = info.pointer("/Containerd/Address").and_then(Value::as_str);
    // Docker's own is below a directory `docker`, as in /var/run/docker/containerd/containerd.sock.
    let is_the_hosts = address.is_none_or(|address| !address.ends_with("/docker/containerd/containerd.sock"));
    if has_containerd_store(info) && is_the_hosts { Some(CONTAINERD) } else { info["DockerRootDir"].as_str() }
}

fn is_gone(error: &DockerError) -> bool {
    matches!(error, DockerError::Daemon { message, .. } if message.to_ascii_lowercase().contains("no such image"))
}

fn entries(list: Value, name: &str) -> Result<Vec<Value>, OpError> {
    match list {
        Value::Array(entries) => Ok(entries),
        _ => Err(OpError::Failed(Failure::retryable(name, "the answer is not an array"))),
    }
}

/// A container from an entry of the list, and whether it is not running.
fn listed_container(entry: &Value) -> Option<(ListedContainer, bool)> {
    let is_not_running = matches!(entry["State"].as_str(), Some("exited" | "dead" | "created"));
    // A name with a second `/` is the name of a link to the container.
    let mut names = entry["Names"].as_array().into_iter().flatten().filter_map(|name| name.as_str()?.strip_prefix('/'));
    let container = ListedContainer {
        id: RuntimeId::from(entry["Id"].as_str()?),
        name: names.find(|name| !name.contains('/')).unwrap_or_default().to_owned(),
        owner: observe::owner(&entry["Labels"]),
        image_id: entry["ImageID"].as_str().unwrap_or_default().to_owned(),
        ended: None,
    };
    Some((container, is_not_running))
}

fn image(entry: &Value, now: i64) -> Option<ListedImage> {
    let all = |member: &str| {
        let all = entry[member].as_array().into_iter().flatten().filter_map(Value::as_str);
        all.filter(|name| !name.contains("<none>")).map(str::to_owned).collect::<Vec<_>>()
    };
    // With the containerd image store, the list of tags also has the names by which the image was pulled by digest. They must not
    // look like tags: an image whose last tag has moved on has none.
    let (mut digests, names): (Vec<_>, Vec<_>) = all("RepoTags").into_iter().partition(|name| name.contains('@'));
    digests.extend(all("RepoDigests"));
    digests.sort_unstable();
    digests.dedup();
    Some(ListedImage {
        id: entry["Id"].as_str()?.to_owned(),
        names,
        digests,
        size: entry["Size"].as_u64().unwrap_or(0),
        age: Span::secs(u64::try_from(now - entry["Created"].as_i64().unwrap_or(now)).unwrap_or(0)),
    })
}

fn seconds_since_epoch() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// Whole seconds since the epoch of an RFC 3339 time in UTC, as the daemon prints it.
fn seconds(time: &str) -> Option<i64> {
    let part = |from: usize, to: usize| time.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    // Days since 1970. The year is made to begin in March, so that the leap day is its last day.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 719_469;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn percent_used(directory: &str) -> std::io::Result<u8> {
    let stat = rustix::fs::statvfs(directory)?;
    // As `df` does it: blocks reserved for root count as not available.
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let all = used.saturating_add(stat.f_bavail);
    Ok(u8::try_from((used.saturating_mul(100)).div_ceil(all.max(1))).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_list_is_asked_for_again_if_an_image_vanishes() {
        let daemon = |status| DockerError::Daemon { status, message: "content digest sha256:1: not found".to_owned() };
        for (failures, status, is_listed, asked) in
            [(0, 404, true, 1), (2, 404, true, 3), (LISTINGS, 404, false, LISTINGS), (1, 500, false, 1)]
        {
            let calls = std::sync::atomic::AtomicU32::new(0);
            let ask = || {
                let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::future::ready(if call < failures { Err(daemon(status)) } else { Ok(()) })
            };
            assert_eq!(again_if_missing(ask).await.is_ok(), is_listed, "{failures} of {status}");
            assert_eq!(calls.into_inner(), asked, "{failures} of {status}");
        }
    }

    #[test]
    fn the_daemons_times_are_seconds_since_the_epoch() {
        for (time, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56.123456789Z", Some(951_827_696)),
            ("2026-11-22T11:09:02Z", Some(1_795_345_742)),
            ("2024-12-31T23:59:59Z", Some(1_735_689_599)),
            ("soon", None),
        ] {
            assert_eq!(seconds(time), wanted, "{time}");
        }
        assert!(seconds("0001-01-01T00:00:00Z").is_some_and(|never| never < 0));
    }

    #[test]
    fn an_image_without_names_has_none_whatever_the_daemon_prints() {
        let entry = json!({
            "Id": "sha256:1", "RepoTags": ["<none>:<none>"], "RepoDigests": ["a@sha256:2", "<none>@<none>"],
            "Size": 7, "Created": 40,
        });
        let digests = vec!["a@sha256:2".to_owned()];
        let image_at = |now| image(&entry, now).unwrap();
        let wanted = ListedImage { id: "sha256:1".into(), names: vec![], digests, size: 7, age: Span::secs(60) };
        assert_eq!(image_at(100), wanted);
        assert_eq!(image_at(10).age, Span::default(), "built in the future");
        let containerd = json!({
            "Id": "sha256:2", "RepoTags": ["a:1", "a@sha256:2"], "RepoDigests": ["a@sha256:2", "a@sha256:2", "b@sha256:2"],
        });
        let seen = image(&containerd, 100).unwrap();
        let digests = vec!["a@sha256:2".to_owned(), "b@sha256:2".to_owned()];
        assert_eq!((seen.names, seen.digests), (vec!["a:1".to_owned()], digests));
        let null = json!({"Id": "sha256:1", "RepoTags": null, "RepoDigests": null});
        assert_eq!(image(&null, 5).unwrap(), ListedImage { id: "sha256:1".into(), ..ListedImage::default() });
        assert_eq!(image(&json!({}), 5), None);
    }

    #[test]
    fn images_are_below_docker_or_below_the_hosts_containerd() {
        let containerd = json!([["driver-type", "io.containerd.snapshotter.v1"]]);
        let overlay = json!([["Backing Filesystem", "extfs"], ["Supports d_type", "true"]]);
        let (host, own) = ("/run/containerd/containerd.sock", "/var/run/docker/containerd/containerd.sock");
        for (status, address, wanted) in [
            (&overlay, Some(host), "/data/docker"),
            (&containerd, Some(own), "/data/docker"),
            (&containerd, Some(host), "/var/lib/containerd"),
            (&containerd, Some("/var/run/containerd/containerd.sock"), "/var/lib/containerd"),
            (&containerd, None, "/var/lib/containerd"),
            (&json!(null), None, "/data/docker"),
        ] {
            let mut info = json!({"DockerRootDir": "/data/docker", "DriverStatus": status});
            if let Some(address) = address {
                info["Containerd"] = json!({"Address": address, "Namespaces": {"Containers": "moby"}});
            }
            assert_eq!(directory_of_images(&info), Some(wanted), "{info}");
        }
        assert_eq!(directory_of_images(&json!({})), None);
    }

    #[test]
    fn the_disk_is_between_empty_and_full() {
        assert!(percent_used("/").is_ok_and(|percent| percent <= 100));
        assert!(percent_used("/nonexistent/directory").is_err());
    }
}
