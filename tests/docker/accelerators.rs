//! Containers that need a special runtime, on a daemon that has only the default one.

use crate::{request, settings};
use ecs_agent::docker::Docker;
use ecs_core::model::SecretValues;
use ecs_testing::docker::{Cluster, ENDPOINT, Image, available, inspect, unique};
use serde_json::json;

#[tokio::test]
async fn a_runtime_is_asked_for_by_the_operators_name() {
    if !available("a_runtime_is_asked_for_by_the_operators_name") {
        return;
    }
    let image = Image::make(&format!("{}:1", unique("ecs-test-image")), &[]);
    let cluster = Cluster::new();
    let mut settings = settings(ENDPOINT, &cluster.name);
    settings.nvidia_runtime = "runc".to_owned();
    let edge = Docker::connect(settings).await.unwrap();
    let more = json!({"runtime": "Nvidia", "gpus": ["GPU-1"], "environment": {"NVIDIA_VISIBLE_DEVICES": "GPU-1"}});
    let gpu = request(&cluster.name, "gpu", &image.reference, &["true"], more);
    edge.create(&gpu, &SecretValues::default()).await.unwrap();
    assert_eq!(inspect(&gpu.runtime_name)["HostConfig"]["Runtime"], "runc");
    edge.start(&gpu.runtime_name).await.unwrap();
    let neuron = request(&cluster.name, "neuron", &image.reference, &["true"], json!({"runtime": "Neuron"}));
    // Depending on its version, the daemon refuses the unknown runtime at the create or at the start.
    let refused = match edge.create(&neuron, &SecretValues::default()).await {
        Ok(_) => edge.start(&neuron.runtime_name).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(format!("{refused:?}").contains("neuron"), "{refused:?}");
}
