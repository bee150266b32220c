//! Containers on other bridges than Docker's default one, as clients of 169.254.170.2 with real packets.

use super::port::{Neighbour, run};
use super::rig::LIMIT;
use super::roles::Scene;
use ecs_testing::wait::until;

/// The head of an answer, or nothing. Nobody has the id, so whoever is served gets status 400.
const ASK: &str = "printf 'GET /v2/credentials/x HTTP/1.0\\r\\n\\r\\n' | nc -w 3 169.254.170.2 80";
const SERVED: &str = " 400 ";

fn ok(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let (success, text) = run(&words);
    assert!(success, "{line}: {text}");
}

/// Makes a network with this name and subnet, and a container on it. Returns the id of the container.
fn container(scene: &Scene, network: &str, subnet: &str, more: &[&str]) -> String {
    let endpoint = scene.dockerd.endpoint();
    let docker = |words: &[&str]| {
        let (success, text) = run(&[&["docker", "-H", &endpoint], words].concat());
        assert!(success, "{words:?}: {text}");
        text.trim().to_owned()
    };
    docker(&[&["network", "create", "--subnet", subnet][..], more, &[network]].concat());
    docker(&["run", "--detach", "--network", network, &scene.image.reference, "sleep", "600"])
}

async fn becomes(scene: &Scene, what: &str, id: &str, served: bool) {
    let changed = async || {
        let answer = scene.dockerd.docker(&["exec", id, "sh", "-c", ASK]).unwrap_or_default();
        (answer.contains(SERVED) == served).then_some(())
    };
    until(what, LIMIT, changed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_on_each_bridge_of_docker_are_served() {
    let Some(scene) = Scene::start("networks", "log").await else { return };
    let named = |name: &str| format!("com.docker.network.bridge.name={name}");
    let plain = container(&scene, "plain", "172.31.78.0/24", &[]);
    becomes(&scene, "the container on a network without a name of its own", &plain, true).await;
    let weird = container(&scene, "weird", "172.31.79.0/24", &["-o", &named("weird0")]);
    becomes(&scene, "the container on the bridge weird0", &weird, true).await;

    // A bridge that is not Docker's is not let in, whoever is on it.
    let Some(neighbour) = Neighbour::new() else { return };
    let inside = |command: &str| ok(&format!("ip -n {} {command}", neighbour.name));
    ok("ip link add lan0 type bridge");
    ok("ip address add 172.31.80.1/24 dev lan0");
    ok("ip link set lan0 up");
    ok(&format!("ip link set {}a master lan0", neighbour.name));
    inside("address add 172.31.80.9/24 dev eth9");
    inside("route add 169.254.170.2/32 via 172.31.80.1");
    let neighbours_answer = || {
        let curl = "curl -s -o /dev/null -w %{http_code} --max-time 5 http://169.254.170.2/v2/credentials/x";
        let words: Vec<&str> = ["ip", "netns", "exec", &neighbour.name].into_iter().chain(curl.split(' ')).collect();
        run(&words).1
    };
    assert_eq!(neighbours_answer(), "000");

    // A network that takes this bridge: a neighbour by a pair cannot be told from a container.
    let lan = container(&scene, "lan", "172.31.80.0/24", &["--gateway", "172.31.80.1", "-o", &named("lan0")]);
    becomes(&scene, "the container on the bridge lan0", &lan, true).await;
    assert_eq!(neighbours_answer(), "400");
    // But a bridge with a port of another kind may lead anywhere.
    ok("ip tuntap add tap0 mode tap");
    ok("ip link set tap0 master lan0");
    let warned = async || {
        let log = scene.rig.log();
        (log.contains("bridge=lan0") && log.contains("its port tap0 leads off this host")).then_some(())
    };
    until("the warning about the bridge", LIMIT, warned).await;
    becomes(&scene, "the refusal on a bridge that leads off this host", &lan, false).await;
    assert_eq!(neighbours_answer(), "000");
    becomes(&scene, "the container on the bridge weird0", &weird, true).await;
}
