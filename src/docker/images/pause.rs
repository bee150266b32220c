//! The image of pause containers, loaded from an archive or built here (spec `images.md` §9, `docker-mapping.md` §11).
//!
//! Owns the loading: from the operator's archive if there is one, otherwise as an image of one file that is built here. The
//! image is loaded when a pause container is to be created and the image is missing, so an image that was removed comes back.
//! Invariant: the image built here is the same on every host of one architecture.
//!
//! The file is a program of two system calls. Since it is process 1 of a shared process namespace, it ignores SIGCHLD, so that
//! the kernel reaps orphans. Then it waits for ever. It handles no signal: its containers are stopped with SIGKILL.

use crate::docker::Docker;
use crate::docker::api::error::DockerError;
use crate::lane::read_file;
use bytes::Bytes;
use ecs_core::model::task::PAUSE_IMAGE;
use ecs_core::model::text::cleaned;
use ecs_core::model::{Failure, OpError, with_causes};
use serde_json::Value;
use std::io::ErrorKind;

/// The name of the program in the image.
const PROGRAM: &str = "pause";
/// The largest archive that is loaded, far larger than any pause image.
const MAX_ARCHIVE_BYTES: u64 = 64 << 20;

/// The name of the image. Later tasks need it as well, so no clean-up may remove it.
pub fn pause_image() -> &'static str {
    PAUSE_IMAGE
}

/// This build has a pause program for its processor, so it can build the image itself.
pub fn can_build_pause_image() -> bool {
    machine_code().is_some()
}

impl Docker {
    /// Makes sure that the image exists.
    pub(crate) async fn ensure_pause_image(&self) -> Result<(), OpError> {
        let _turn = self.pause_image.lock().await;
        if self.image_present(PAUSE_IMAGE).await?.is_some() {
            return Ok(());
        }
        match self.load_pause_archive().await {
            Ok(true) if self.image_present(PAUSE_IMAGE).await?.is_some() => return Ok(()),
            Ok(true) => tracing::warn!(image = PAUSE_IMAGE, "the archive of the pause image contains another image"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the archive of the pause image cannot be loaded"),
        }
        let failed = |text: &str| OpError::Failed(Failure::permanent("CannotCreateContainerError", text));
        let code = machine_code().ok_or_else(|| failed("there is no pause image for this processor"))?;
        let archive = Bytes::from(tar(PROGRAM, &elf(code)));
        let (repository, tag) = PAUSE_IMAGE.split_once(':').unwrap_or((PAUSE_IMAGE, "latest"));
        let change = format!("ENTRYPOINT [\"/{PROGRAM}\"]");
        let query = [("fromSrc", "-"), ("repo", repository), ("tag", tag), ("changes", &change)];
        let limit = self.settings.limits.load_image;
        let answer = self.changer.upload(&["images", "create"], &query, archive, limit).await;
        let answer = answer.and_then(|answer| check_load(&answer));
        tracing::info!(image = PAUSE_IMAGE, ok = answer.is_ok(), "Built the pause image");
        answer.map_err(|error| error.to_read_error("CannotCreateContainerError", "loading image"))
    }

    /// Loads the operator's archive; `false` = there is no such file.
    async fn load_pause_archive(&self) -> Result<bool, DockerError> {
        let (path, shown) = (self.settings.pause_archive.clone(), self.settings.pause_archive.display().to_string());
        let archive = match self.files.run(&shown, move || read_file(&path, MAX_ARCHIVE_BYTES)).await {
            Ok(Ok(archive)) => archive,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Ok(Err(error)) => return Err(DockerError::Unusable(format!("{shown}: {error}"))),
            Err(error) => return Err(DockerError::Unusable(with_causes(&error))),
        };
        let limit = self.settings.limits.load_image;
        let answer = self.changer.upload(&["images", "load"], &[("quiet", "1")], archive.into(), limit).await?;
        check_load(&answer).map(|()| true)
    }
}

/// Checks the answer to a load. The daemon answers with lines of JSON, and one may be an error although the HTTP status is a
/// success.
fn check_load(answer: &[u8]) -> Result<(), DockerError> {
    let lines = answer.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    match lines.into_iter().find_map(|line| line.get("error")?.as_str().map(str::to_owned)) {
        Some(error) => Err(DockerError::Stream(cleaned(&error))),
        None => Ok(()),
    }
}

/// A program for one processor; [`IGNORE`] follows its instructions in the file.
#[derive(Clone, Copy, Debug)]
struct Code {
    /// `e_machine` of the ELF header.
    machine: u16,
    /// The instructions.
    text: &'static [u8],
}

/// The kernel's `struct sigaction`: the handler `SIG_IGN` (1), and no flags, restorer or mask.
const IGNORE: [u8; 32] = {
    let mut action = [0; 32];
    action[0] = 1;
    action
};

#[rustfmt::skip] // one instruction, one line
const X86_64: Code = Code { machine: 62, text: &[
    0xb8, 13, 0, 0, 0,                 // mov eax, 13            rt_sigaction(
    0xbf, 17, 0, 0, 0,                 // mov edi, 17              SIGCHLD,
    0x48, 0x8d, 0x35, 23, 0, 0, 0,     // lea rsi, [rip + 23]      IGNORE,
    0x31, 0xd2,                        // xor edx, edx             NULL,
    0x41, 0xba, 8, 0, 0, 0,            // mov r10d, 8              8)
    0x0f, 0x05,                        // syscall
    0xb8, 34, 0, 0, 0,                 // mov eax, 34            pause()
    0x0f, 0x05,                        // syscall
    0xeb, 0xf7,                        // jmp -9                 again, should a signal end it
    0x90, 0x90, 0x90, 0x90,            // nop                    IGNORE begins at 40
] };

#[rustfmt::skip] // one instruction, one line
const AARCH64: Code = Code { machine: 183, text: &[
    0xc8, 0x10, 0x80, 0xd2,            // mov x8, #134           rt_sigaction(
    0x20, 0x02, 0x80, 0xd2,            // mov x0, #17              SIGCHLD,
    0x81, 0x01, 0x00, 0x10,            // adr x1, +48              IGNORE,
    0x02, 0x00, 0x80, 0xd2,            // mov x2, #0               NULL,
    0x03, 0x01, 0x80, 0xd2,            // mov x3, #8               8)
    0x01, 0x00, 0x00, 0xd4,            // svc #0
    0x00, 0x00, 0x80, 0xd2,            // mov x0, #0             ppoll(NULL,
    0x01, 0x00, 0x80, 0xd2,            // mov x1, #0               0,
    0x02, 0x00, 0x80, 0xd2,            // mov x2, #0               NULL,
    0x03, 0x00, 0x80, 0xd2,            // mov x3, #0               NULL)
    0x04, 0x00, 0x80, 0xd2,            // mov x4, #0
    0x28, 0x09, 0x80, 0xd2,            // mov x8, #73
    0x01, 0x00, 0x00, 0xd4,            // svc #0
    0xf9, 0xff, 0xff, 0x17,            // b -28                  again, should a signal end it
] };

/// The program for the processor that this build is for; `None` = there is none.
fn machine_code() -> Option<Code> {
    if cfg!(target_arch = "x86_64") {
        Some(X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(AARCH64)
    } else {
        None
    }
}

/// A static ELF program. Its only segment is the whole file, mapped readable and executable.
fn elf(code: Code) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    let size = (HEADERS + code.text.len() + IGNORE.len()) as u64;
    let mut file = Vec::with_capacity(256);
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // 64 bit, little endian
    file.extend(2_u16.to_le_bytes()); // e_type: EXEC
    file.extend(code.machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes()); // e_version
    file.extend((BASE + HEADERS as u64).to_le_bytes()); // e_entry
    file.extend(64_u64.to_le_bytes()); // e_phoff
    file.extend(0_u64.to_le_bytes()); // e_shoff: no sections
    file.extend(0_u32.to_le_bytes()); // e_flags
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    }
    file.extend(1_u32.to_le_bytes()); // p_type: LOAD
    file.extend(5_u32.to_le_bytes()); // p_flags: read, run
    for long in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend(long.to_le_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    }
    file.extend(code.text);
    file.extend(IGNORE);
    file
}

/// A tar archive of one executable file: a ustar header, the file in blocks of 512 bytes, two empty blocks.
fn tar(name: &str, file: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000555\0"); // mode
    field(108, "0000000\0"); // uid
    field(116, "0000000\0"); // gid
    field(124, &format!("{:011o}\0", file.len()));
    field(136, "00000000000\0"); // mtime
    field(148, "        "); // the checksum counts as spaces
    field(156, "0"); // a regular file
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend(file);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_point_at_the_action_that_follows_them() {
        assert_eq!(X86_64.text.len(), 17 + usize::from(X86_64.text[13]), "lea counts from its end, at 17");
        let adr = u32::from_le_bytes(AARCH64.text[8..12].try_into().unwrap());
        let distance = ((adr >> 5 & 0x7_ffff) << 2 | adr >> 29 & 3) as usize;
        assert_eq!(
            (adr & 0x9f00_001f, AARCH64.text.len()),
            (0x1000_0001, 8 + distance),
            "adr counts from itself, at 8"
        );
        for code in [X86_64, AARCH64] {
            let file = elf(code);
            assert_eq!(file.len(), 120 + code.text.len() + IGNORE.len());
            assert_eq!(file[96..104], (file.len() as u64).to_le_bytes(), "p_filesz");
            assert_eq!(file[24..32], 0x40_0078_u64.to_le_bytes(), "e_entry");
            assert_eq!(&file[120..120 + code.text.len()], code.text);
        }
    }

    #[test]
    fn tar_reads_the_archive() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let archive = tar("pause", &elf(X86_64));
        let mut child =
            Command::new("tar").args(["-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let listed = child.wait_with_output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.starts_with("-r-xr-xr-x 0/0") && listed.trim_end().ends_with("pause"), "{listed}");
        assert!(listed.contains(&format!(" {} ", elf(X86_64).len())), "{listed}");
    }

    #[test]
    fn an_error_line_in_the_answer_to_a_load_is_an_error() {
        assert!(check_load(b"{\"status\":\"sha256:1\"}\r\n").is_ok());
        let error = check_load(b"{\"status\":\"a\"}\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\n");
        assert!(matches!(error, Err(DockerError::Stream(text)) if text == "no"));
    }
}
