//! Reads the change feed of the store for watchers that lag: once for all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::event::{Event, Happened, Part};
use super::watched::{Interest, Watched};
use crate::ids::Revision;
use crate::model::Change;
use crate::store::{Store, StoreError};

/// Pages kept for watchers that need them after the one that read them.
const PAGES_MAX: usize = 8;

/// The most recently read pages of the change feed. A watcher whose position is inside one of them uses its rest, so
/// that lagging watchers soon read page by page together.
pub(super) struct Backlog<T> {
    /// Locked while a page is read: another watcher that waits for the lock usually needs the same page.
    pages: Mutex<VecDeque<Arc<Page<T>>>>,
}

/// Consecutive commits of the change feed.
pub(super) struct Page<T> {
    /// The revision before its first commit.
    after: Revision,
    /// The revision of its last commit; `after` if there is none.
    pub(super) last: Revision,
    commits: Vec<Commit<T>>,
}

/// What a commit did to records of the kind `T`.
struct Commit<T> {
    revision: Revision,
    changes: Vec<(Change, Arc<Event<T>>)>,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { pages: Mutex::default() }
    }
}

impl<T: Watched> Backlog<T> {
    /// A page with the commits after `position`, if there are any.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if the store has deleted some of them, even if a page still holds them: deleted
    /// history is not shown.
    pub(super) async fn page(
        &self,
        store: &dyn Store,
        position: Revision,
        changes_max: usize,
    ) -> Result<Arc<Page<T>>, StoreError> {
        let mut pages = self.pages.lock().await;
        let (_, oldest) = store.revisions().await?;
        pages.retain(|page| page.last > oldest);
        if position < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let found = pages.iter().find(|page| page.after <= position && position < page.last);
        if let Some(page) = found {
            return Ok(page.clone());
        }
        let changes = store.changes(position, changes_max).await?;
        let page = Arc::new(Page::new(position, changes));
        if position < page.last {
            if pages.len() >= PAGES_MAX {
                pages.pop_front();
            }
            pages.push_back(page.clone());
        }
        Ok(page)
    }
}

impl<T: Watched> Page<T> {
    fn new(after: Revision, changes: Vec<Change>) -> Self {
        let mut page = Self { after, last: after, commits: Vec::new() };
        for change in changes {
            page.last = change.revision;
            let Some(event) = Happened::<T>::of(&change).map(|mut happened| happened.event())
            else {
                continue;
            };
            match page.commits.last_mut() {
                Some(commit) if commit.revision == change.revision => {
                    commit.changes.push((change, event));
                }
                Some(_) | None => {
                    let revision = change.revision;
                    page.commits.push(Commit { revision, changes: vec![(change, event)] });
                }
            }
        }
        page
    }

    /// What the commits after `position` mean to a watch.
    pub(super) fn parts<'a>(
        &'a self,
        position: Revision,
        interest: &'a Interest<T>,
    ) -> impl Iterator<Item = Part<T>> + use<'a, T> {
        let commits = self.commits.iter().filter(move |commit| commit.revision > position);
        commits.map(move |commit| {
            let mut part = Part::new(commit.revision);
            for (change, event) in &commit.changes {
                if event.record.keys().contains(&interest.key)
                    && let Some(mut happened) = Happened::again(change, event)
                {
                    happened.judge(interest, &mut part);
                }
            }
            part
        })
    }
}
