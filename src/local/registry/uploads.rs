//! The uploads in progress, by id. Each belongs to one repository. This module owns their number and their age. Invariants: at most one
//! request writes to an upload at a time; a request that is given up puts its upload back; an upload that nobody continues is removed.

use super::blobs::{Blobs, Upload};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Maximum number of uploads of an account at a time.
pub(crate) const MAX_UPLOADS: usize = 200;
/// How long a request waits for an earlier one that writes to the same upload, and may be about to notice that its client is gone.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// The repository that an upload belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The account id of the registry.
    pub(crate) account: String,
    /// The repository's name.
    pub(crate) repository: String,
}

/// The reason why an upload cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// There is no such upload in this repository.
    Unknown,
    /// Another request writes to it.
    Busy,
    /// The account has too many uploads.
    TooMany,
}

#[derive(Debug)]
struct Slot {
    owner: Owner,
    /// When a request used it last.
    used: Instant,
    /// `None`: a request has it.
    upload: Option<Upload>,
    /// Wakes a request that waits for it.
    returned: Arc<Notify>,
}

/// All uploads in progress.
#[derive(Debug)]
pub(crate) struct Uploads {
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
    /// The time after which an upload that nobody continues is removed.
    idle: Duration,
}

/// An upload that this request has. It is put back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    id: String,
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
    /// `Some` until it is put back or finished.
    upload: Option<Upload>,
    /// It is removed instead of put back: only this request knows its id.
    is_private: bool,
}

fn slots<T>(slots: &Mutex<BTreeMap<String, Slot>>, look: impl FnOnce(&mut BTreeMap<String, Slot>) -> T) -> T {
    look(&mut slots.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Uploads {
    /// No uploads yet.
    pub(crate) fn new(idle: Duration) -> Self {
        Self { slots: Arc::default(), idle }
    }

    /// Begins an upload and returns its id.
    ///
    /// # Errors
    /// If the account has too many.
    pub(crate) fn begin(&self, blobs: &Blobs, owner: Owner) -> Result<String, Unavailable> {
        let id = uuid::Uuid::new_v4().to_string();
        slots(&self.slots, |slots| {
            if slots.values().filter(|slot| slot.owner.account == owner.account).count() >= MAX_UPLOADS {
                return Err(Unavailable::TooMany);
            }
            let slot = Slot { owner, used: Instant::now(), upload: Some(blobs.begin()), returned: Arc::default() };
            slots.insert(id.clone(), slot);
            Ok(id)
        })
    }

    /// Takes an upload of this repository. Waits some time for a request that has it.
    ///
    /// # Errors
    /// If there is no such upload, or another request keeps it.
    pub(crate) async fn take(&self, owner: &Owner, id: &str) -> Result<Taken, Unavailable> {
        let end = Instant::now() + BUSY_LIMIT;
        loop {
            let returned = match self.try_take(owner, id)? {
                Ok(taken) => return Ok(taken),
                Err(returned) => returned,
            };
            let mut wake = pin!(returned.notified());
            wake.as_mut().enable();
            // It may have been returned before this request was listed as one that waits.
            if let Ok(taken) = self.try_take(owner, id)? {
                return Ok(taken);
            }
            if timeout_at(end, wake).await.is_err() {
                return self.try_take(owner, id)?.map_err(|_returned| Unavailable::Busy);
            }
        }
    }

    /// The upload, or what wakes a request that waits for it.
    fn try_take(&self, owner: &Owner, id: &str) -> Result<Result<Taken, Arc<Notify>>, Unavailable> {
        slots(&self.slots, |slots| {
            let slot = slots.get_mut(id).filter(|slot| slot.owner == *owner).ok_or(Unavailable::Unknown)?;
            slot.used = Instant::now();
            Ok(match slot.upload.take() {
                Some(upload) => {
                    let (id, slots) = (id.to_owned(), Arc::clone(&self.slots));
                    Ok(Taken { id, slots, upload: Some(upload), is_private: false })
                }
                None => Err(Arc::clone(&slot.returned)),
            })
        })
    }

    /// Removes an upload. A request that has it cannot put it back.
    ///
    /// # Errors
    /// If there is no such upload in this repository.
    pub(crate) fn remove(&self, owner: &Owner, id: &str) -> Result<(), Unavailable> {
        let removed = slots(&self.slots, |slots| {
            let is_there = slots.get(id).is_some_and(|slot| slot.owner == *owner);
            is_there.then(|| slots.remove(id)).flatten()
        });
        removed.map(|slot| slot.returned.notify_waiters()).ok_or(Unavailable::Unknown)
    }

    /// Takes the uploads off the list that nobody has used for too long.
    pub(crate) fn expire(&self) -> Vec<Upload> {
        let is_old = |slot: &Slot| slot.upload.is_some() && slot.used.elapsed() >= self.idle;
        slots(&self.slots, |slots| {
            let old: Vec<String> = slots.iter().filter(|(_, slot)| is_old(slot)).map(|(id, _)| id.clone()).collect();
            old.iter().filter_map(|id| slots.remove(id)?.upload).collect()
        })
    }

    /// Takes the uploads off the list whose account and repository do not pass: their repository was deleted.
    pub(crate) fn retain(&self, has_repository: impl Fn(&str, &str) -> bool) -> Vec<Upload> {
        let is_gone = |owner: &Owner| !has_repository(&owner.account, &owner.repository);
        slots(&self.slots, |slots| {
            let gone: Vec<String> =
                slots.iter().filter(|(_, slot)| is_gone(&slot.owner)).map(|(id, _)| id.clone()).collect();
            gone.iter().filter_map(|id| slots.remove(id)?.upload).collect()
        })
    }

    /// The time between two looks for uploads that nobody continues.
    pub(crate) fn pause(&self) -> Duration {
        (self.idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(60))
    }

    /// Takes all uploads off the list, at the end.
    pub(crate) fn clear(&self) -> Vec<Upload> {
        slots(&self.slots, std::mem::take).into_values().filter_map(|slot| slot.upload).collect()
    }

    /// Number of uploads.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        slots(&self.slots, |slots| slots.len())
    }
}

impl Taken {
    /// The upload. `None` never happens before [`Self::finish`].
    pub(crate) fn upload(&mut self) -> Option<&mut Upload> {
        self.upload.as_mut()
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::length)
    }

    /// The upload is still on the list: no other request has removed it.
    pub(crate) fn is_listed(&self) -> bool {
        slots(&self.slots, |slots| slots.contains_key(&self.id))
    }

    /// Makes this upload end with this request.
    pub(crate) fn make_private(&mut self) {
        self.is_private = true;
    }

    /// Takes the upload off the list: it is finished or of no more use. `None`: another request has removed it.
    pub(crate) fn finish(mut self) -> Option<Upload> {
        let slot = slots(&self.slots, |slots| slots.remove(&self.id))?;
        slot.returned.notify_waiters();
        self.upload.take()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let mut upload = Some(upload);
        slots(&self.slots, |slots| {
            if self.is_private {
                slots.remove(&self.id);
            } else if let Some(slot) = slots.get_mut(&self.id) {
                slot.used = Instant::now();
                slot.upload = upload.take();
                slot.returned.notify_one();
            }
        });
        // If it was removed meanwhile, it ends here, after the lock.
        drop(upload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(account: &str, repository: &str) -> Owner {
        Owner { account: account.to_owned(), repository: repository.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_has_one_writer_and_one_repository() {
        let (blobs, uploads) = (Blobs::in_memory(1000), Uploads::new(Duration::from_secs(60)));
        let own = owner("1", "a");
        let id = uploads.begin(&blobs, own.clone()).unwrap();
        for other in [owner("1", "b"), owner("2", "a")] {
            assert_eq!(uploads.take(&other, &id).await.err(), Some(Unavailable::Unknown));
            assert_eq!(uploads.remove(&other, &id), Err(Unavailable::Unknown));
        }
        let mut taken = uploads.take(&own, &id).await.unwrap();
        taken.upload().unwrap().append(b"abc").await.unwrap();
        assert_eq!(uploads.take(&own, &id).await.err(), Some(Unavailable::Busy), "after a while");
        let (waiting, ()) = tokio::join!(uploads.take(&own, &id), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(taken);
        });
        assert_eq!(waiting.unwrap().length(), 3, "put back with what was written");
        uploads.remove(&own, &id).unwrap();
        assert_eq!(uploads.take(&own, &id).await.err(), Some(Unavailable::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_that_nobody_continues_are_removed() {
        let (blobs, uploads) = (Blobs::in_memory(1000), Uploads::new(Duration::from_secs(60)));
        let own = owner("1", "a");
        let ids = [0, 1, 2].map(|_| uploads.begin(&blobs, own.clone()).unwrap());
        let taken = uploads.take(&own, &ids[0]).await.unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        drop(uploads.take(&own, &ids[1]).await.unwrap());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(uploads.expire().len(), 1);
        assert_eq!(uploads.count(), 2, "one is in use, one was used since");
        assert_eq!(uploads.take(&own, &ids[2]).await.err(), Some(Unavailable::Unknown));
        let mut private = uploads.take(&own, &ids[1]).await.unwrap();
        private.make_private();
        drop(private);
        assert_eq!(uploads.count(), 1, "it ends with its request");
        let other = uploads.begin(&blobs, owner("1", "b")).unwrap();
        assert_eq!(uploads.retain(|_, name| name != "b").len(), 1);
        assert_eq!(uploads.take(&owner("1", "b"), &other).await.err(), Some(Unavailable::Unknown));
        assert_eq!(uploads.retain(|_, name| name == "b").len(), 0, "a request has it");
        assert_eq!(uploads.take(&own, &ids[0]).await.err(), Some(Unavailable::Unknown), "its repository was deleted");
        assert_eq!(uploads.clear().len(), 0);
        assert!(!taken.is_listed());
        assert!(taken.finish().is_none(), "nothing is finished after the end");
        assert_eq!(uploads.count(), 0);
    }

    #[tokio::test]
    async fn the_uploads_of_an_account_are_bounded() {
        let (blobs, uploads) = (Blobs::in_memory(1000), Uploads::new(Duration::from_secs(60)));
        for _ in 0..MAX_UPLOADS {
            uploads.begin(&blobs, owner("1", "a")).unwrap();
        }
        assert_eq!(uploads.begin(&blobs, owner("1", "b")), Err(Unavailable::TooMany));
        assert!(uploads.begin(&blobs, owner("2", "a")).is_ok());
    }
}
