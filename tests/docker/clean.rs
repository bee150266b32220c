//! The calls of the image clean-up against a real daemon: listing, removal, and that an image in use is not removed by force.

use crate::connect;
use ecs_agent::docker::Docker;
use ecs_core::model::Span;
use ecs_core::model::image::{ImageListing, ListedImage};
use ecs_testing::docker::{Cluster, Image, available, docker, unique};
use ecs_testing::wait::until;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn find<'a>(listing: &'a ImageListing, id: &str) -> Option<&'a ListedImage> {
    listing.images.iter().find(|image| image.id == id)
}

async fn listed(edge: &Docker) -> ImageListing {
    edge.list_images(true, true).await.unwrap()
}

#[tokio::test]
async fn names_go_one_by_one_and_what_a_container_uses_stays() {
    if !available("names_go_one_by_one_and_what_a_container_uses_stays") {
        return;
    }
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let (name, other) = (format!("{}:1", unique("ecs-test-clean")), format!("{}:2", unique("ecs-test-clean")));
    let _image = Image::make(&name, &[]);
    docker(&["tag", &name, &other]);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &name]);
    let label = format!("com.amazonaws.ecs.cluster={}", cluster.name);
    let user = docker(&["create", "--label", &label, &name, "true"]);

    let found = listed(&edge).await;
    let image = find(&found, &id).unwrap();
    let mut names = image.names.clone();
    names.sort();
    let mut wanted = vec![name.clone(), other.clone()];
    wanted.sort();
    assert_eq!(names, wanted);
    assert!(image.size > 10_000 && image.age < Span::secs(3600), "{image:?}");
    let container = found.containers.iter().find(|container| container.id.as_str() == user).unwrap();
    assert_eq!((&container.image_id, container.ended), (&id, Some(Span::MAX)), "it never ran");

    let refused = edge.remove_image(&id, &[name.clone(), other.clone()]).await;
    assert!(format!("{refused:?}").contains("CannotRemoveImageError"), "the last name stays: {refused:?}");
    assert_eq!(find(&listed(&edge).await, &id).unwrap().names.len(), 1);
    docker(&["start", "-a", &user]);
    // An engine may still record the end when `start -a` returns.
    let has_ended = async || {
        let containers = listed(&edge).await.containers;
        containers.into_iter().find(|container| container.id.as_str() == user).unwrap().ended
    };
    let ended = until("the end of the container", LIMIT, has_ended).await;
    assert!(ended < Span::secs(60), "{ended:?}");
    edge.remove_foreign(&user.as_str().into()).await.unwrap();
    edge.remove_foreign(&user.as_str().into()).await.unwrap();
    edge.remove_image(&id, &[name.clone(), other.clone()]).await.unwrap();
    assert_eq!(find(&listed(&edge).await, &id), None);
    edge.remove_image(&id, &[name]).await.unwrap();

    // An image whose tag was given to another image is removed by its id.
    let _image = Image::make(&other, &[]);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &other]);
    let _next = Image::make(&other, &[]);
    assert_eq!(find(&listed(&edge).await, &id).unwrap().names, [""; 0]);
    edge.remove_image(&id, &[]).await.unwrap();
    assert_eq!(find(&listed(&edge).await, &id), None);
}
