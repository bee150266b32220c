//! Blobs in memory and in a directory: both behave alike.

use super::list::Pin;
use super::reading::{Absent, Way, read_at_once};
use super::*;
use futures_util::{FutureExt, StreamExt};
use std::path::PathBuf;

/// A directory for one test, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-local-blobs-{}-{name}", crate::ids::new_id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join("registry").join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Bytes that differ from block to block.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 + at) as u8).collect()
}

async fn push(blobs: &Blobs, bytes: &[u8], step: usize) -> Result<Pin, UploadError> {
    let mut upload = blobs.begin();
    for piece in bytes.chunks(step) {
        upload.append(piece).await?;
    }
    assert_eq!(upload.length(), bytes.len() as u64);
    upload.finish(Digest::compute(bytes)).await
}

async fn pull(blobs: &Blobs, digest: &Digest, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
    let reading = blobs.read(digest).await.unwrap()?;
    let pieces: Vec<_> = reading.stream(range).collect().await;
    Some(pieces.into_iter().flat_map(|piece| piece.unwrap()).collect())
}

/// Waits until a removal on another thread is done.
async fn until(what: &str, is_done: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what} does not happen");
}

#[tokio::test]
async fn bytes_come_back_whole_and_in_ranges() {
    let scratch = Scratch::new("ranges");
    for blobs in [Blobs::in_memory(u64::MAX), Blobs::open(&scratch.registry()).unwrap()] {
        for (length, step) in [(0, 1), (1, 1), (1000, 7), (256 * 1024, 65536), (1_000_003, 100_000), (600_000, 600_000)]
        {
            let content = bytes(length);
            let digest = Digest::compute(&content);
            let pin = push(&blobs, &content, step).await.unwrap();
            let size = length as u64;
            assert_eq!((pin.size, blobs.size(&digest)), (size, Some(size)));
            for (from, to) in [(0, size), (0, size.min(1)), (size / 2, size), (size / 3, size / 3 * 2), (size, size)] {
                let wanted = &content[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
                assert!(pull(&blobs, &digest, from..to).await.unwrap() == wanted, "{length}: {from} to {to}");
            }
        }
        assert_eq!(blobs.size(&Digest::compute(b"other")), None);
        assert_eq!(pull(&blobs, &Digest::compute(b"other"), 0..1).await, None);
    }
}

#[tokio::test]
async fn of_a_wrong_digest_nothing_stays() {
    let scratch = Scratch::new("wrong");
    for blobs in [Blobs::in_memory(u64::MAX), Blobs::open(&scratch.registry()).unwrap()] {
        let mut upload = blobs.begin();
        upload.append(&bytes(300_000)).await.unwrap();
        let wrong = Digest::compute(b"other");
        let error = upload.finish(wrong).await.unwrap_err();
        assert!(matches!(error, UploadError::WrongDigest(found) if found == Digest::compute(&bytes(300_000))));
        assert_eq!(blobs.size(&wrong), None);
    }
    until("the removal", || scratch.names("uploads").is_empty()).await;
    assert_eq!(scratch.names("blobs"), [""; 0]);
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let scratch = Scratch::new("given-up");
    let blobs = Blobs::open(&scratch.registry()).unwrap();
    for length in [1, 256 * 1024, 700_000] {
        let mut upload = blobs.begin();
        upload.append(&bytes(length)).await.unwrap();
        upload.rest().await.unwrap();
        upload.append(&bytes(length)).await.unwrap();
        drop(upload);
        let mut upload = blobs.begin();
        upload.append(&bytes(length)).await.unwrap();
        upload.discard().await;
    }
    until("the removal", || scratch.names("uploads").is_empty()).await;
}

#[tokio::test]
async fn room_in_memory_is_bounded_and_given_back() {
    let blobs = Blobs::in_memory(1_000_000);
    let used = || match &blobs.0.place {
        Place::Memory(room) => room.used(),
        Place::Directory(_) => panic!("in memory"),
    };
    let content = bytes(600_000);
    drop(push(&blobs, &content, 50_000).await.unwrap());
    assert_eq!(used(), 600_000);
    let error = push(&blobs, &bytes(600_001), 50_000).await.unwrap_err();
    assert!(matches!(error, UploadError::MemoryFull), "{error}");
    assert_eq!(used(), 600_000, "what was refused is given back");
    let digest = Digest::compute(&content);
    let reading = blobs.read(&digest).await.unwrap().unwrap();
    let Removal::Taken(taken) = blobs.take(&digest) else { panic!("nobody has just stored it") };
    blobs.remove(vec![taken]).await;
    assert_eq!((used(), blobs.size(&digest)), (600_000, None), "somebody still reads it");
    let read: Vec<_> = reading.stream(0..600_000).collect().await;
    assert_eq!(read.iter().map(|piece| piece.as_ref().unwrap().len()).sum::<usize>(), 600_000);
    drop(read);
    assert_eq!(used(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_uploads_at_once_become_one_blob() {
    let scratch = Scratch::new("equal");
    for blobs in [Blobs::in_memory(u64::MAX), Blobs::open(&scratch.registry()).unwrap()] {
        let content: Arc<[u8]> = bytes(100_000).into();
        let mut pushes = tokio::task::JoinSet::new();
        for step in 1..=200 {
            let (blobs, content) = (blobs.clone(), Arc::clone(&content));
            pushes.spawn(async move { push(&blobs, &content, step * 500).await.map(|pin| pin.size) });
        }
        for size in pushes.join_all().await {
            assert_eq!(size.unwrap(), 100_000);
        }
        let digest = Digest::compute(&content);
        assert!(pull(&blobs, &digest, 0..100_000).await.unwrap() == *content);
    }
    until("the removal", || scratch.names("uploads").is_empty()).await;
    assert_eq!(scratch.names("blobs").len(), 1);
}

#[tokio::test]
async fn a_blob_is_removed_while_it_is_read_and_stored_again() {
    let scratch = Scratch::new("removed");
    let blobs = Blobs::open(&scratch.registry()).unwrap();
    let content = bytes(900_000);
    let digest = Digest::compute(&content);
    let pin = push(&blobs, &content, 300_000).await.unwrap();
    assert!(matches!(blobs.take(&digest), Removal::Pinned), "no repository has it yet");
    drop(pin);
    let mut reading = Box::pin(blobs.read(&digest).await.unwrap().unwrap().stream(0..900_000));
    let mut read = reading.next().await.unwrap().unwrap().to_vec();
    let Removal::Taken(taken) = blobs.take(&digest) else { panic!("nobody has just stored it") };
    assert!(matches!(blobs.take(&digest), Removal::Nothing) && blobs.size(&digest).is_none());
    // The same bytes come again before the file is removed.
    drop(push(&blobs, &content, 300_000).await.unwrap());
    blobs.remove(vec![taken]).await;
    while let Some(piece) = reading.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read == content, "the reader has the whole");
    assert!(pull(&blobs, &digest, 0..900_000).await.unwrap() == content, "the new blob is there");
    assert_eq!(scratch.names("blobs").len(), 1);
}

#[tokio::test]
async fn a_layer_has_a_largest_size() {
    let blobs = Blobs::in_memory(u64::MAX);
    let mut upload = blobs.begin();
    upload.append(b"abc").await.unwrap();
    upload.pretend_length(52_000 * 1024 * 1024 - 1);
    upload.append(b"a").await.unwrap();
    assert!(matches!(upload.append(b"a").await, Err(UploadError::TooLarge(_))));
}

#[tokio::test]
async fn a_file_that_was_lost_is_replaced_by_a_push() {
    let scratch = Scratch::new("lost");
    let blobs = Blobs::open(&scratch.registry()).unwrap();
    let content = bytes(300_000);
    let digest = Digest::compute(&content);
    for damage in ["removed", "cut"] {
        drop(push(&blobs, &content, 100_000).await.unwrap());
        let path = scratch.registry().join("blobs").join(&scratch.names("blobs")[0]);
        match damage {
            "removed" => std::fs::remove_file(path).unwrap(),
            _ => std::fs::write(path, "cut").unwrap(),
        }
        drop(push(&blobs, &content, 100_000).await.unwrap());
        assert!(pull(&blobs, &digest, 0..300_000).await.unwrap() == content, "{damage}");
    }
}

/// A blob in a new directory, opened.
async fn opened(scratch: &Scratch, content: &[u8]) -> (Blobs, Digest, Reading) {
    let blobs = Blobs::open(&scratch.registry()).unwrap();
    push(&blobs, content, 100_000).await.unwrap();
    let digest = Digest::compute(content);
    let reading = blobs.read(&digest).await.unwrap().unwrap();
    (blobs, digest, reading)
}

#[tokio::test]
async fn what_is_in_memory_is_read_without_a_thread() {
    let scratch = Scratch::new("at-once");
    let content = bytes(1_000_000);
    let (blobs, _, reading) = opened(&scratch, &content).await;
    let Source::File(file, buffers) = &reading.source else { panic!("it is in a directory") };
    if let Err(Absent::Always) = read_at_once(file, buffers, 0, 1) {
        eprintln!("SKIPPED: the file system does not say what is in memory");
        return;
    }
    let mut stream = Box::pin(reading.stream(5..1_000_000));
    let (mut read, mut max_bytes) = (Vec::new(), 0);
    while let Some(piece) = stream.next().now_or_never().expect("nobody waits") {
        let piece = piece.unwrap();
        (max_bytes, read) = (max_bytes.max(piece.len()), [read, piece.to_vec()].concat());
    }
    assert!(read == content[5..] && max_bytes <= buffers::LENGTH);
    drop(stream);
    assert_eq!(blobs.0.buffers.count(), 1, "all pieces had the same buffer");
}

#[tokio::test]
async fn a_thread_reads_what_is_not_in_memory() {
    let scratch = Scratch::new("ahead");
    let content = bytes(1_000_000);
    let (blobs, digest, reading) = opened(&scratch, &content).await;
    let (mut stream, mut read) = (Box::pin(reading.stream_by(7..999_990, Way::Ahead(None))), Vec::new());
    while let Some(piece) = stream.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read == content[7..999_990]);
    assert!(blobs.0.buffers.count() <= 2, "one piece is read ahead");
    // A file that was cut is an error, and no short answer.
    let file = scratch.registry().join("blobs").join(&scratch.names("blobs")[0]);
    let reading = blobs.read(&digest).await.unwrap().unwrap();
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(400_000).unwrap();
    let pieces: Vec<_> = reading.stream(0..1_000_000).collect().await;
    assert_eq!(pieces.last().unwrap().as_ref().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
