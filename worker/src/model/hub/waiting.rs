//! Waiting for a hub, or for another process that downloads the same: never without end, and not against
//! the will of whoever waits.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::progress::Watch;

/// A hub that sends nothing for so long has stopped answering.
const STALL: Duration = Duration::from_secs(120);
/// Nothing takes longer, and nobody waits longer for another process that downloads it.
const DEADLINE: Duration = Duration::from_secs(6 * 60 * 60);
/// How often directives, the deadline and another process's lock are looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// Waits for `download`, which tells `watch` how far it is. `None`: `go_on`, asked a few times a second with a
/// line for people, said to stop. Where nothing came for too long, `failed` makes the error of these words.
pub(crate) async fn attend<T, E>(
    download: impl Future<Output = Result<T, E>>,
    watch: &Watch,
    mut go_on: impl FnMut(&str) -> ControlFlow<()>,
    failed: impl FnOnce(String) -> E,
) -> Result<Option<T>, E> {
    let begun = Instant::now();
    let mut download = std::pin::pin!(download);
    loop {
        if let Ok(done) = tokio::time::timeout(INTERVAL, &mut download).await {
            return done.map(Some);
        }
        if go_on(&watch.line()).is_break() {
            return Ok(None);
        }
        if watch.silence() > STALL || begun.elapsed() > DEADLINE {
            let seconds = begun.elapsed().as_secs();
            return Err(failed(format!("the hub stopped answering after {seconds} s")));
        }
    }
}

/// The lock of a folder of the cache at `cache`, such as `models--org--tiny`.
pub(crate) fn lock_path(cache: &Path, folder: &str) -> PathBuf {
    cache.join(".locks").join(format!("muster--{folder}.lock"))
}

/// Waits until nobody else has the lock at `path`. It ends with the file, and with the process.
pub(crate) async fn lock(path: &Path, watch: &Watch) -> io::Result<File> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    let file = File::create(path)?;
    let mut waited = false;
    loop {
        match file.try_lock() {
            Ok(()) => {
                watch.ask();
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) => {
                watch.wait();
                if !waited {
                    tracing::info!("{}", watch.line());
                    waited = true;
                }
                tokio::time::sleep(INTERVAL).await;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_another_process_is_told_so_and_may_leave() {
        let cache = tempfile::tempdir().unwrap();
        let path = lock_path(cache.path(), "datasets--org--set");
        let watch = Watch::new("org/set".to_owned());
        let held = lock(&path, &watch).await.unwrap();
        let mut lines = Vec::new();
        let leave_soon = |line: &str| {
            lines.push(line.to_owned());
            if lines.len() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let waiting = attend(lock(&path, &watch), &watch, leave_soon, io::Error::other).await;
        assert!(waiting.unwrap().is_none());
        assert_eq!(lines, vec!["another process downloads org/set; waiting for it"; 3]);
        drop(held);
        assert!(lock(&path, &watch).await.is_ok());
    }
}
