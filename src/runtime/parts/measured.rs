//! From the statistics to what telemetry publishes: both have their own types, since neither edge knows the other.

use crate::stats::{ContainerStats, CounterSet, FloatSet, Gathered, NetworkSets, StorageSets, TaskStats};
use crate::tcs::metrics::{ContainerMetrics, Counter, Direction, Interval, Network, Storage, Summary, TaskMetrics};

impl From<Gathered> for Interval {
    fn from(gathered: Gathered) -> Self {
        match gathered {
            Gathered::Idle => Self::Idle,
            Gathered::TooLittle => Self::TooLittle,
            Gathered::Tasks(tasks) => Self::Tasks(tasks.into_iter().map(TaskMetrics::from).collect()),
        }
    }
}

impl From<TaskStats> for TaskMetrics {
    fn from(task: TaskStats) -> Self {
        let TaskStats { arn, family, version, containers } = task;
        Self { arn, family, version, containers: containers.into_iter().map(ContainerMetrics::from).collect() }
    }
}

impl From<ContainerStats> for ContainerMetrics {
    fn from(container: ContainerStats) -> Self {
        Self {
            name: container.name,
            cpu: Some(container.cpu.into()),
            memory: Some(container.memory.into()),
            network: container.network.map(Network::from),
            storage: container.storage.map(Storage::from),
            restarts: container.restarts,
        }
    }
}

impl From<FloatSet> for Summary {
    fn from(set: FloatSet) -> Self {
        let FloatSet { min, max, sum, count } = set;
        Self { min, max, sum, count }
    }
}

impl From<CounterSet> for Counter {
    fn from(set: CounterSet) -> Self {
        let CounterSet { min, overflow_min, max, overflow_max, sum, overflow_sum, count } = set;
        Self { min, overflow_min, max, overflow_max, sum, overflow_sum, count }
    }
}

impl From<StorageSets> for Storage {
    fn from(sets: StorageSets) -> Self {
        Self { read: sets.read.into(), written: sets.written.into() }
    }
}

impl From<NetworkSets> for Network {
    fn from(sets: NetworkSets) -> Self {
        Self {
            received: Direction {
                bytes: sets.rx_bytes.into(),
                packets: sets.rx_packets.into(),
                dropped: sets.rx_dropped.into(),
                errors: sets.rx_errors.into(),
                bytes_per_second: sets.rx_rate.map(Summary::from),
            },
            sent: Direction {
                bytes: sets.tx_bytes.into(),
                packets: sets.tx_packets.into(),
                dropped: sets.tx_dropped.into(),
                errors: sets.tx_errors.into(),
                bytes_per_second: sets.tx_rate.map(Summary::from),
            },
        }
    }
}
