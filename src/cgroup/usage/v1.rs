//! The counters of a container in control groups of version 1.
//!
//! Owns which files have which counter. The choice of files, and what is zero if a file is missing, are Docker's.

use super::find::CONTROLLERS;
use super::parse;
use super::quiet::{Quiet, Settled};
use super::source::{Access, Source};
use ecs_core::model::usage::{BlockIo, CgroupVersion, CpuUsage, MemoryUsage, Pids, Usage};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of one container.
#[derive(Debug)]
pub(super) struct FilesV1 {
    /// The directory of each of [`CONTROLLERS`]; `None`: the container has no group there.
    directories: Arc<[Option<PathBuf>; CONTROLLERS.len()]>,
    cpu_total: Source,
    cpu_times: Source,
    per_cpu: Source,
    throttling: Source,
    memory: [Source; 5],
    /// The counters of a scheduler that older kernels have.
    scheduler: [Source; 8],
    throttle: [Source; 2],
    pids: [Source; 2],
    quiet: Quiet,
}

impl FilesV1 {
    /// The files below these directories, each with its controller.
    pub(super) fn new(found: &[(&'static str, PathBuf)]) -> Self {
        let directories = CONTROLLERS.map(|controller| {
            let places = found.iter().filter(|(name, _)| *name == controller).map(|(_, path)| path);
            places.into_iter().find(|path| path.is_dir()).cloned()
        });
        Self {
            directories: Arc::new(directories),
            cpu_total: Source::new("cpuacct.usage"),
            cpu_times: Source::new("cpuacct.stat"),
            per_cpu: Source::new("cpuacct.usage_percpu"),
            throttling: Source::new("cpu.stat"),
            memory: [
                "memory.stat",
                "memory.usage_in_bytes",
                "memory.max_usage_in_bytes",
                "memory.failcnt",
                "memory.limit_in_bytes",
            ]
            .map(Source::new),
            scheduler: [
                "blkio.io_service_bytes_recursive",
                "blkio.io_serviced_recursive",
                "blkio.io_queued_recursive",
                "blkio.io_service_time_recursive",
                "blkio.io_wait_time_recursive",
                "blkio.io_merged_recursive",
                "blkio.time_recursive",
                "blkio.sectors_recursive",
            ]
            .map(Source::new),
            throttle: ["blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"].map(Source::new),
            pids: ["pids.current", "pids.max"].map(Source::new),
            quiet: Quiet::default(),
        }
    }

    /// All counters except the network's and the host's.
    pub(super) fn read(&mut self, access: &mut Access<'_>) -> io::Result<Usage> {
        let directories = Arc::clone(&self.directories);
        let [cpuacct, cpu, memory, blkio, pids] = directories.each_ref().map(Option::as_deref);
        let (total, per_cpu) = self.read_total(access, cpuacct)?;
        let in_use = access.number(&mut self.memory[1], memory)?;
        let block_io = self.read_block_io(access, blkio)?;
        if let Some(Settled { cpu, memory, pids }) = self.quiet.settled(total, in_use, access.now) {
            return Ok(Usage { cpu, memory, block_io, pids, networks: Vec::new() });
        }
        let cpu = self.read_cpu(access, cpuacct, cpu)?;
        let cpu = CpuUsage { total, per_cpu, ..cpu };
        let memory = MemoryUsage { usage: in_use, ..self.read_memory(access, memory)? };
        let [current, limit] = &mut self.pids;
        let current = access.number(current, pids)?;
        // No limit is shown as 0 here, but not in version 2.
        let limit = access.number(limit, pids)?;
        let pids = Pids { current, limit: if limit == u64::MAX { 0 } else { limit } };
        self.quiet.keep(&cpu, &memory, pids, access.now);
        Ok(Usage { cpu, memory, block_io, pids, networks: Vec::new() })
    }

    /// The processor time, of all processors and of each.
    fn read_total(&mut self, access: &mut Access<'_>, cpuacct: Option<&Path>) -> io::Result<(u64, Vec<u64>)> {
        let per_cpu = access.read(&mut self.per_cpu, cpuacct, parse::per_cpu)?.unwrap_or_default();
        let total = match per_cpu.as_slice() {
            [] => access.read(&mut self.cpu_total, cpuacct, parse::number)?.flatten(),
            // The kernel adds up the other file from the same counters.
            counters => Some(counters.iter().copied().fold(0, u64::saturating_add)),
        };
        let total = total.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no processor time is counted"))?;
        Ok((total, per_cpu))
    }

    /// The other counters of the processors.
    fn read_cpu(
        &mut self,
        access: &mut Access<'_>,
        cpuacct: Option<&Path>,
        cpu: Option<&Path>,
    ) -> io::Result<CpuUsage> {
        let mut found = CpuUsage::default();
        access.read(&mut self.cpu_times, cpuacct, |text| parse::cpu_times(text, &mut found))?;
        found.throttling = access.read(&mut self.throttling, cpu, parse::throttling)?.unwrap_or_default();
        Ok(found)
    }

    /// The memory, but for what is in use.
    fn read_memory(&mut self, access: &mut Access<'_>, directory: Option<&Path>) -> io::Result<MemoryUsage> {
        let [stat, _, max_usage, failures, limit] = &mut self.memory;
        let details = access.read(stat, directory, |text| parse::memory(text, CgroupVersion::V1))?;
        Ok(MemoryUsage {
            usage: 0,
            max_usage: access.number(max_usage, directory)?,
            failures: access.number(failures, directory)?,
            limit: access.number(limit, directory)?,
            details: details.unwrap_or_default(),
        })
    }

    fn read_block_io(&mut self, access: &mut Access<'_>, directory: Option<&Path>) -> io::Result<BlockIo> {
        let (mut io, mut is_empty) = (BlockIo::empty(), true);
        let lists = [
            &mut io.service_bytes,
            &mut io.serviced,
            &mut io.queued,
            &mut io.service_time,
            &mut io.wait_time,
            &mut io.merged,
            &mut io.time,
            &mut io.sectors,
        ];
        for (source, list) in self.scheduler.iter_mut().zip(lists) {
            if let Some(found) = access.read(source, directory, parse::block_v1)? {
                is_empty &= found.is_empty();
                *list = Some(found);
            }
        }
        // That scheduler may be there, but not be in use.
        if is_empty {
            for (source, list) in self.throttle.iter_mut().zip([&mut io.service_bytes, &mut io.serviced]) {
                *list = Some(access.read(source, directory, parse::block_v1)?.unwrap_or_default());
            }
        }
        Ok(io)
    }
}
