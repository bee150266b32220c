//! The files of manifests: each is written once, before a state names it, and removed after no state names it any more. So the state,
//! which is written with every change, stays small. Only the task that saves the state calls this, so nothing is written and removed
//! at the same time. Everything here blocks.

use super::directory::{Directory, MANIFESTS, digest_of, sync};
use crate::ecr::Digest;
use crate::ecr::manifest::MAX_MANIFEST;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::PoisonError;

impl Directory {
    /// Looks once which manifests have files.
    pub(super) fn find_manifests(&self) -> io::Result<()> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(self.path().join(MANIFESTS))? {
            found.extend(entry?.file_name().to_str().and_then(digest_of));
        }
        self.manifests(|manifests| *manifests = found);
        Ok(())
    }

    /// No manifest has a file.
    pub(crate) fn has_no_manifests(&self) -> bool {
        self.manifests(|manifests| manifests.is_empty())
    }

    /// Reads a manifest. More than the largest manifest is not read.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be read.
    pub(crate) fn read_manifest(&self, digest: &Digest) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        File::open(self.manifest_path(digest))?.take(MAX_MANIFEST as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Writes the manifests that have no file yet. They are on disk afterwards. Returns their digests.
    ///
    /// # Errors
    /// If one cannot be written. None of them stays then.
    pub(crate) fn write_manifests(&self, needed: &BTreeMap<Digest, Bytes>) -> io::Result<Vec<Digest>> {
        let is_fresh = |digest: &&Digest| self.manifests(|manifests| !manifests.contains(digest));
        let fresh: Vec<Digest> = needed.keys().filter(is_fresh).copied().collect();
        if fresh.is_empty() {
            return Ok(fresh);
        }
        let written =
            fresh.iter().filter_map(|digest| Some((digest, needed.get(digest)?))).try_for_each(|(digest, manifest)| {
                let mut temporary = self.temporary()?;
                temporary.file()?.write_all(manifest)?;
                temporary.place(&self.manifest_path(digest))?;
                self.manifests(|manifests| manifests.insert(*digest));
                Ok(())
            });
        if let Err(error) = written.and_then(|()| sync(&self.path().join(MANIFESTS))) {
            self.remove_manifests(&fresh);
            return Err(error);
        }
        Ok(fresh)
    }

    /// Removes the files of these manifests, as far as they have any. What cannot be removed now is removed later.
    pub(crate) fn remove_manifests(&self, digests: &[Digest]) {
        for digest in digests {
            let is_gone = match std::fs::remove_file(self.manifest_path(digest)) {
                Err(error) => error.kind() == io::ErrorKind::NotFound,
                Ok(()) => true,
            };
            if is_gone {
                self.manifests(|manifests| manifests.remove(digest));
            }
        }
    }

    /// Removes the files of all manifests that are not needed.
    pub(crate) fn sweep_manifests(&self, is_needed: impl Fn(&Digest) -> bool) {
        let superfluous: Vec<Digest> =
            self.manifests(|manifests| manifests.iter().filter(|digest| !is_needed(digest)).copied().collect());
        self.remove_manifests(&superfluous);
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.path().join(MANIFESTS).join(digest.hex())
    }

    fn manifests<T>(&self, look: impl FnOnce(&mut BTreeSet<Digest>) -> T) -> T {
        look(&mut self.manifests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    fn manifests(seeds: &[&str]) -> BTreeMap<Digest, Bytes> {
        let entry = |seed: &&str| (Digest::compute(seed.as_bytes()), Bytes::copy_from_slice(seed.as_bytes()));
        seeds.iter().map(entry).collect()
    }

    #[test]
    fn a_manifest_is_written_once_and_found_again() {
        let scratch = Scratch::new("manifests");
        let (directory, _) = Directory::open(&scratch.registry()).unwrap();
        assert!(directory.has_no_manifests());
        let (first, both) = (manifests(&["a"]), manifests(&["a", "b"]));
        let (a, b) = (Digest::compute(b"a"), Digest::compute(b"b"));
        assert_eq!(directory.write_manifests(&first).unwrap(), [a]);
        assert_eq!(directory.write_manifests(&both).unwrap(), [b], "the other one is there");
        assert_eq!(scratch.names("uploads"), [""; 0]);
        drop(directory);
        let (directory, _) = Directory::open(&scratch.registry()).unwrap();
        assert_eq!(directory.write_manifests(&both).unwrap(), []);
        assert_eq!(directory.read_manifest(&a).unwrap(), "a");
        directory.sweep_manifests(|digest| *digest == b);
        assert_eq!(directory.read_manifest(&a).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(scratch.names("manifests"), [b.hex()]);
        directory.remove_manifests(&[a, b]);
        assert!(directory.has_no_manifests() && scratch.names("manifests").is_empty());
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let scratch = Scratch::new("unwritten");
        let (directory, _) = Directory::open(&scratch.registry()).unwrap();
        directory.write_manifests(&manifests(&["a"])).unwrap();
        // The second of the new ones has a folder in its place.
        let fresh = manifests(&["a", "b", "c"]);
        let (a, last) = (Digest::compute(b"a"), fresh.keys().filter(|digest| **digest != Digest::compute(b"a")).max());
        std::fs::create_dir(scratch.registry().join("manifests").join(last.unwrap().hex())).unwrap();
        assert!(directory.write_manifests(&fresh).is_err());
        std::fs::remove_dir(scratch.registry().join("manifests").join(last.unwrap().hex())).unwrap();
        assert_eq!((scratch.names("manifests"), scratch.names("uploads").len()), (vec![a.hex()], 0));
    }
}
