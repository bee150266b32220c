//! The counters of a container in control groups of version 2.
//!
//! Owns which files have which counter. The choice of files, and what is zero if a file is missing, are Docker's.

use super::parse;
use super::quiet::{Quiet, Settled};
use super::source::{Access, Source};
use ecs_core::model::usage::{BlockIo, CgroupVersion, MemoryUsage, Pids, Usage};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// The files of one container.
#[derive(Debug)]
pub(super) struct FilesV2 {
    directory: PathBuf,
    cpu: Source,
    memory: [Source; 4],
    io: Source,
    pids: [Source; 2],
    quiet: Quiet,
}

impl FilesV2 {
    /// The files in this directory.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            cpu: Source::new("cpu.stat"),
            memory: ["memory.stat", "memory.current", "memory.max", "memory.events"].map(Source::new),
            io: Source::new("io.stat"),
            pids: ["pids.current", "pids.max"].map(Source::new),
            quiet: Quiet::default(),
        }
    }

    /// All counters except the network's and the host's.
    pub(super) fn read(&mut self, access: &mut Access<'_>) -> io::Result<Usage> {
        let directory = Some(self.directory.as_path());
        let cpu = access.read(&mut self.cpu, directory, parse::cpu_v2)?.flatten();
        let cpu = cpu.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no processor time is counted"))?;
        let [stat, usage, limit, events] = &mut self.memory;
        let in_use = access.number(usage, directory)?;
        let entries = access.read(&mut self.io, directory, parse::block_v2)?;
        let block_io = BlockIo { service_bytes: entries.filter(|entries| !entries.is_empty()), ..BlockIo::default() };
        if let Some(Settled { memory, pids, .. }) = self.quiet.settled(cpu.total, in_use, access.now) {
            return Ok(Usage { cpu, memory, block_io, pids, networks: Vec::new() });
        }
        let details = access.read(stat, directory, |text| parse::memory(text, CgroupVersion::V2))?;
        // Compat: Docker counts how often the container ran out of memory, not how often it reached its limit.
        let failures = access.read(events, directory, |text| parse::value(text, "oom"))?.flatten();
        let memory = MemoryUsage {
            details: details.unwrap_or_default(),
            usage: in_use,
            max_usage: 0,
            failures: failures.unwrap_or_default(),
            limit: access.number(limit, directory)?,
        };
        let [current, upper] = &mut self.pids;
        let pids = Pids { current: access.number(current, directory)?, limit: access.number(upper, directory)? };
        self.quiet.keep(&cpu, &memory, pids, access.now);
        Ok(Usage { cpu, memory, block_io, pids, networks: Vec::new() })
    }
}
