//! The encoded documents of tasks, so that a task that has not changed is not encoded again.
//!
//! Owns the documents. They are found by the view of the task, which is shared while the task does not change. Invariant: a
//! document is kept only while its view is the newest one of its task, so at most two are kept for each task.

use super::version::Version;
use bytes::Bytes;
use ecs_core::model::TaskArn;
use ecs_core::model::view::TaskView;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The encoded documents of tasks.
#[derive(Debug, Default)]
pub(super) struct Documents(Mutex<BTreeMap<TaskArn, Encoded>>);

/// The documents of one task, each encoded when it was first asked for.
#[derive(Debug)]
struct Encoded {
    /// The view that the documents show. It is not kept alive.
    view: Weak<TaskView>,
    documents: [Option<Bytes>; 2],
}

impl Documents {
    /// The document of a task. `encode` makes it if there is none; an error is not kept.
    pub(super) fn get<E>(
        &self,
        view: &Arc<TaskView>,
        version: Version,
        encode: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let is_current = |encoded: &Encoded| std::ptr::eq(encoded.view.as_ptr(), Arc::as_ptr(view));
        {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let encoded = known.get(&view.arn).filter(|encoded| is_current(encoded));
            if let Some(bytes) = encoded.and_then(|encoded| encoded.documents[version as usize].clone()) {
                return Ok(bytes);
            }
        }
        let bytes = encode()?; // not under the lock, since other tasks' requests must not wait for it
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.get(&view.arn).is_some_and(is_current) {
            // Tasks that are gone, or of which there is a newer view, are forgotten here.
            known.retain(|_, encoded| encoded.view.strong_count() > 0);
            known.insert(view.arn.clone(), Encoded { view: Arc::downgrade(view), documents: [None, None] });
        }
        if let Some(encoded) = known.get_mut(&view.arn) {
            encoded.documents[version as usize] = Some(bytes.clone());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn view(arn: &str) -> Arc<TaskView> {
        Arc::new(TaskView { arn: arn.into(), ..TaskView::default() })
    }

    fn get(documents: &Documents, view: &Arc<TaskView>, version: Version, text: &'static str) -> Bytes {
        let Ok(bytes) = documents.get(view, version, || Ok::<_, Infallible>(Bytes::from_static(text.as_bytes())));
        bytes
    }

    #[test]
    fn a_document_is_encoded_once_for_each_view_and_version() {
        let (documents, first) = (Documents::default(), view("a"));
        assert_eq!(get(&documents, &first, Version::V4, "one"), "one");
        assert_eq!(get(&documents, &first, Version::V4, "two"), "one");
        assert_eq!(get(&documents, &first, Version::V3, "three"), "three");
        let next = view("a");
        assert_eq!(get(&documents, &next, Version::V4, "four"), "four");
        assert_eq!(get(&documents, &next, Version::V3, "five"), "five");
    }

    #[test]
    fn an_error_is_not_kept() {
        let (documents, task) = (Documents::default(), view("a"));
        assert_eq!(documents.get(&task, Version::V4, || Err::<Bytes, _>("no")), Err("no"));
        assert_eq!(get(&documents, &task, Version::V4, "one"), "one");
    }

    #[test]
    fn tasks_that_are_gone_are_forgotten() {
        let documents = Documents::default();
        for number in 0..1000 {
            get(&documents, &view(&number.to_string()), Version::V4, "text");
        }
        assert!(documents.0.lock().unwrap().len() <= 2);
    }
}
