//! Who makes a cache entry when several workers want it at the same time: the one that puts its
//! claim into the store first. The others wait for the entry. A claim is renewed while the work goes
//! on; one that is not renewed any more is taken over. Should two workers take it over at once, both
//! make the same bytes, so a claim saves work but nothing depends on it.

use std::time::Duration;

use muster_common::storage::{Store, StoreError};
use object_store::path::Path;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::moves::moved;

/// A claim is renewed so often.
const RENEWAL: Duration = Duration::from_secs(2);
/// A claim that was not renewed for so long is nobody's.
const EXPIRY: Duration = Duration::from_secs(15);
/// Those who wait look so often.
const LOOK: Duration = Duration::from_millis(250);

/// The right to make an entry. Given back with [`Claim::release`]; dropped, it expires.
#[derive(Debug)]
pub(super) struct Claim {
    store: Store,
    key: Path,
    renewal: JoinHandle<()>,
}

/// What came of waiting.
#[derive(Debug)]
pub(super) enum Turn {
    /// The entry is to be made here.
    Mine(Claim),
    /// Somebody has made it.
    Made,
}

/// Waits until the entry that `index` commits is there, or it is this worker's turn to make it.
pub(super) async fn turn(store: &Store, index: &Path) -> Result<Turn, StoreError> {
    turn_within(store, index, EXPIRY).await
}

async fn turn_within(store: &Store, index: &Path, expiry: Duration) -> Result<Turn, StoreError> {
    let key = Path::from(format!("{}.claim", index.as_ref().trim_end_matches(".index.json")));
    let mut seen = None;
    let mut since = Instant::now();
    loop {
        match store.create(&key, stamp(0)).await {
            Ok(()) => return Ok(Turn::Mine(Claim::begin(store, key))),
            Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        if store.find(index).await?.is_some() {
            return Ok(Turn::Made);
        }
        let now = store.find(&key).await?;
        if now != seen {
            (seen, since) = (now, Instant::now());
            moved();
        } else if since.elapsed() >= expiry {
            store.put(&key, stamp(0)).await?;
            return Ok(Turn::Mine(Claim::begin(store, key)));
        }
        sleep(LOOK).await;
    }
}

/// Contents of a claim: they change with every renewal, and differ between processes.
fn stamp(renewals: u64) -> Vec<u8> {
    format!("{} {renewals}\n", std::process::id()).into_bytes()
}

impl Claim {
    fn begin(store: &Store, key: Path) -> Self {
        let (renewed, place) = (store.clone(), key.clone());
        let renewal = tokio::spawn(async move {
            for renewals in 1.. {
                sleep(RENEWAL).await;
                if let Err(error) = renewed.put(&place, stamp(renewals)).await {
                    tracing::debug!("a claim was not renewed: {error}");
                }
            }
        });
        Self { store: store.clone(), key, renewal }
    }

    /// Ends the claim: the entry is there, or somebody else may try.
    pub(super) async fn release(self) {
        self.renewal.abort();
        if let Err(error) = self.store.delete(&self.key).await {
            tracing::debug!("a claim was not removed: {error}");
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::storage::Layout;

    #[tokio::test]
    async fn one_makes_the_entry_and_the_others_wait_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let index = Layout::cache_index("h", "data");
        let Turn::Mine(claim) = turn(&store, &index).await.unwrap() else { panic!("first") };
        let (other, place) = (store.clone(), index.clone());
        let waiting = tokio::spawn(async move { turn(&other, &place).await });
        sleep(3 * LOOK).await;
        assert!(!waiting.is_finished());
        store.put(&index, "made").await.unwrap();
        claim.release().await;
        let next = waiting.await.unwrap().unwrap();
        // Which of the two it sees first is chance; either way it looks at the entry again.
        assert!(matches!(next, Turn::Made | Turn::Mine(_)));
        if let Turn::Mine(claim) = next {
            claim.release().await;
        }
        assert_eq!(store.list(&Layout::cache("h")).await.unwrap(), [index]);
    }

    #[tokio::test]
    async fn a_claim_of_the_dead_is_taken_over_and_one_of_the_living_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let index = Layout::cache_index("h", "data");
        drop(turn(&store, &index).await.unwrap());
        let begun = Instant::now();
        let next = turn_within(&store, &index, RENEWAL * 2).await.unwrap();
        assert!(matches!(next, Turn::Mine(_)));
        assert!(begun.elapsed() >= RENEWAL * 2);
        // A renewal may be late on a busy machine.
        let third = turn_within(&store, &index, RENEWAL * 5);
        assert!(tokio::time::timeout(RENEWAL * 6, third).await.is_err());
    }
}
