//! A coordinator that goes away while somebody follows what it says, and is started again.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use super::client::said;

/// How long it is waited for, and the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether the coordinator is away, and since when.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
}

impl Outage {
    /// It was heard of again.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// Waits until asking again makes sense. An error where the coordinator is there and says no, or has been away for
    /// too long.
    pub(super) async fn wait(&mut self, status: &Status) -> anyhow::Result<()> {
        let is_away = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        if !is_away {
            return Err(said(status));
        }
        if self.since.is_none() {
            eprintln!("the coordinator went away, trying again: {}", status.message());
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(said(status));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_there_and_says_no_is_not_waited_for() {
        let mut outage = Outage::default();
        for status in [Status::not_found("no experiment"), Status::permission_denied("not you")] {
            let error = outage.wait(&status).await.unwrap_err().to_string();
            assert!(error.contains(status.message()), "{error}");
        }
        assert!(outage.since.is_none());
    }

    #[tokio::test]
    async fn patience_has_an_end_and_begins_anew() {
        let away = Status::unavailable("nobody is there");
        let mut outage = Outage { since: Instant::now().checked_sub(PATIENCE * 2) };
        let error = outage.wait(&away).await.unwrap_err().to_string();
        assert!(error.contains("went away: nobody is there"), "{error}");
        outage.end();
        outage.wait(&away).await.unwrap();
        assert!(outage.since.is_some());
    }
}
