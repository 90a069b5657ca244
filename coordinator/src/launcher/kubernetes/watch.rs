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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::{Client, Config};
    use serde_json::json;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// An API server that has forgotten where the first watch begins. Its n-th list has the pod `pod-n`; the second
    /// watch tells nothing.
    async fn forgetful_server(listener: TcpListener) {
        let (mut num_lists, mut num_watches) = (0, 0);
        let mut open = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(stream.read_line(&mut head).await.unwrap() > 0, "half a request: {head}");
            }
            let is_watch = head.lines().next().unwrap_or_default().contains("watch=");
            let body = if is_watch {
                num_watches += 1;
                json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {},
                    "status": "Failure", "message": "too old resource version: 1 (2)",
                    "reason": "Expired", "code": 410}})
            } else {
                num_lists += 1;
                json!({"kind": "PodList", "apiVersion": "v1",
                    "metadata": {"resourceVersion": num_lists.to_string()},
                    "items": [{"metadata": {"name": format!("pod-{num_lists}")}}]})
            };
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            if num_watches < 2 || !is_watch {
                stream.write_all(format!("{body}\n").as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            } else {
                stream.flush().await.unwrap();
                open.push(stream);
            }
        }
    }

    #[tokio::test]
    async fn a_watch_that_the_server_has_forgotten_begins_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        let shared = Shared::default();
        let pods: Api<Pod> = Api::namespaced(client, "n");
        let mut changes = shared.changes();
        let config = watcher::Config::default();
        let work = follow(pods, config, shared.clone(), |mirror| &mut mirror.pods);
        let told = async {
            while shared.look().pods.get("pod-2").is_none() {
                changes.changed().await.unwrap();
            }
        };
        let both = async {
            tokio::select! {
                () = forgetful_server(listener) => {}
                () = work => {}
                () = told => {}
            }
        };
        timeout(Duration::from_secs(30), both).await.unwrap();
        assert!(shared.look().pods.get("pod-1").is_none(), "what is gone is forgotten");
    }
}
