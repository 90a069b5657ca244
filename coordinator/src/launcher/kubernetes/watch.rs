//! The watches that keep the [`Mirror`] like the cluster. One that breaks off, for whatever reason, is begun anew
//! with a new list: after a pause that doubles and varies, so that not all come back at once when an API server
//! does. One that ends in order, each minute, is continued where it was.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, DefaultBackoff};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::failure;
use super::mirror::{Mirror, Table};

/// How long one request to watch lasts, seconds. A connection that is dead without anybody knowing shows a picture
/// that old, a little more than this at most: far less than the time in which a submission counts as unclear.
const WATCH_SECONDS: u32 = 60;

/// The mirror, and a number that changes with it. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    mirror: Arc<Mutex<Mirror>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { mirror: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }
}

impl Shared {
    /// Looks at the mirror. Not to be held while something is waited for.
    pub(super) fn look(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, and wakes those who wait for that.
    pub(super) fn change(&self, change: impl FnOnce(&mut Mirror)) {
        change(&mut self.look());
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Tells of changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// Which of the mirror's tables.
pub(super) type Pick<K> = fn(&mut Mirror) -> &mut Table<K>;

/// Keeps one of the tables like what `config` selects, for ever.
pub(super) async fn follow<K>(api: Api<K>, config: watcher::Config, shared: Shared, pick: Pick<K>)
where
    K: Resource<Scope = NamespaceResourceScope> + ResourceExt,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let config = watcher::Config { timeout: Some(WATCH_SECONDS), ..config };
    let mut pauses = DefaultBackoff::default();
    loop {
        let mut told = std::pin::pin!(watcher::watcher(api.clone(), config.clone()));
        let error = loop {
            match told.next().await {
                Some(Ok(event)) => shared.change(|mirror| pick(mirror).apply(event)),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        let trouble = error.as_ref().map_or_else(|| "it ended".to_owned(), words);
        let is_stale = error.as_ref().is_some_and(is_stale);
        shared.change(|mirror| pick(mirror).lost(trouble.clone()));
        if is_stale {
            tracing::debug!(kind, trouble, "a watch is too far behind; it begins anew");
            tokio::task::yield_now().await;
            continue;
        }
        let pause = pauses.next().unwrap_or(Duration::from_secs(30));
        tracing::warn!(kind, trouble, ?pause, "a watch has broken off");
        tokio::time::sleep(pause).await;
    }
}

/// The server has forgotten where the watch was (410 Gone): nothing is wrong.
fn is_stale(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

fn words(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(cause) => format!("list: {}", failure::words(cause)),
        WatchStartFailed(cause) | WatchFailed(cause) => format!("watch: {}", failure::words(cause)),
        other => super::state::shortened(&other.to_string()),
    }
}
