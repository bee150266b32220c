//! The part with recording programs in the place of the host's.

use super::*;
use crate::host::program::Programs;
use ecs_core::model::fault::{BlackholePort, Direction, Fault, FaultId};
use ecs_core::model::view::TaskView;
use ecs_core::model::{Protocol, TaskStatus};
use std::path::PathBuf;

/// Records its command line. `-C` fails: nothing is running.
const PROGRAM: &str = r#"#!/bin/sh
echo "$*" >>"$(dirname "$0")/log"
case "$*" in *" -C "*) exit 1 ;; esac
[ ! -e "$(dirname "$0")/slow" ] || sleep 1
"#;

const PORT: BlackholePort = BlackholePort { direction: Direction::Ingress, protocol: Protocol::Tcp, port: 80 };

struct Host {
    directory: PathBuf,
    view: watch::Sender<Arc<View>>,
    operations: Operations,
    stop: CancellationToken,
    part: JoinSet<PartResult>,
}

impl Host {
    async fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("ecs-faults-part-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        for name in ["iptables", "ip6tables"] {
            ecs_testing::program::write(directory.join(name), PROGRAM);
        }
        let (view, views) = watch::channel(Arc::new(view(TaskStatus::Running)));
        let programs = Programs::in_directories(&format!("{}:/usr/bin:/bin", directory.display()));
        let (operations, keeper) = keeper(Faults::restored(programs, Some(&directory)).await, views);
        let (stop, mut part) = (CancellationToken::new(), JoinSet::new());
        part.spawn(keeper.run(stop.clone()));
        Self { directory, view, operations, stop, part }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    async fn logs(&self, text: &str) {
        for _ in 0..1200 {
            if self.log().contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{text}: {}", self.log());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

fn view(known: TaskStatus) -> View {
    let task = TaskView { arn: "task".into(), known, ..TaskView::default() };
    View { tasks: vec![Arc::new(task)], ..View::default() }
}

fn start() -> (FaultNetwork, FaultOperation) {
    let network = FaultNetwork { task: "task".into(), namespace: None, interfaces: Interfaces::default() };
    (network, FaultOperation::Start(Fault::Blackhole { port: PORT, spared: Vec::new() }))
}

#[tokio::test]
async fn a_fault_ends_with_its_task() {
    let mut host = Host::new().await;
    let (network, operation) = start();
    // A busy machine may need more than the time limit.
    let mut outcome = host.operations.carry_out(network.clone(), operation.clone()).await;
    while outcome == Err(FaultError::TimedOut) {
        outcome = host.operations.carry_out(network.clone(), operation.clone()).await;
    }
    assert_eq!(outcome, Ok(FaultStatus::Running));
    host.view.send_replace(Arc::new(view(TaskStatus::Running)));
    let status = FaultOperation::Status(FaultId::Blackhole(PORT));
    let _shown = host.operations.carry_out(network, status).await;
    assert!(!host.log().contains("-X") || host.log().contains("-X ingress-tcp-80"), "{}", host.log());
    host.view.send_replace(Arc::new(view(TaskStatus::Stopped)));
    host.logs("-X ingress-tcp-80").await;
    host.stop.cancel();
    assert_eq!(host.part.join_next().await.unwrap().unwrap(), Ok(()));
}

/// What a client has begun is carried out although the client does not wait.
#[tokio::test]
async fn a_client_that_goes_away_leaves_no_fault_half_made() {
    let host = Host::new().await;
    std::fs::write(host.directory.join("slow"), "").unwrap();
    let (network, operation) = start();
    {
        let asked = host.operations.carry_out(network, operation);
        let _gone = tokio::time::timeout(Duration::from_millis(300), asked).await;
    }
    std::fs::remove_file(host.directory.join("slow")).unwrap();
    // Either all of it was made, or it is removed again after the time limit.
    for _ in 0..1200 {
        let log = host.log();
        if log.contains("-I INPUT") || log.contains("-X ingress-tcp-80") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", host.log());
}
