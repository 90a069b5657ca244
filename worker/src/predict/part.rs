//! Rows in parts: texts of a part are sorted by length and answered together. However long a file is, no more of it is
//! in memory; and whoever writes a stream slowly need not fill a part to be answered.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::data::{DataError, WideRow};

/// Rows of a part, or so many bytes of text.
pub(super) const PART: usize = 4096;
const PART_BYTES: usize = 16 << 20;
/// Rows of a part of a stream: a few seconds of work, as somebody may be looking.
const LIVE_PART: usize = 256;
/// How long the first row of a part of a stream waits for others.
const PATIENCE: Duration = Duration::from_millis(50);

type Row = Result<WideRow, DataError>;

/// Rows in parts.
pub(super) struct Parts {
    rows: Rows,
    /// Where the rows end that are before it; they are answered first.
    failure: Option<DataError>,
}

enum Rows {
    /// There as soon as they are asked for.
    Here(Box<dyn Iterator<Item = Row>>),
    /// Read by a thread.
    Live(Receiver<Row>),
}

impl Parts {
    /// Of a file, or of what is in memory.
    pub(super) fn of_rows(rows: impl Iterator<Item = Row> + 'static) -> Self {
        Self { rows: Rows::Here(Box::new(rows)), failure: None }
    }

    /// Of a stream, which `open` opens. Its thread ends with the stream, or with the process.
    pub(super) fn of_stream<I: Iterator<Item = Row>>(
        open: impl FnOnce() -> Result<I, DataError> + Send + 'static,
    ) -> anyhow::Result<Self> {
        // As many as the next part takes, so that it is there when this one is answered.
        let (sender, receiver) = sync_channel(LIVE_PART);
        let read = move || match open() {
            Ok(mut rows) => {
                // Nobody receives any more when the reader of the answers has left.
                let _left = rows.try_for_each(|row| sender.send(row));
            }
            Err(error) => {
                let _left = sender.send(Err(error));
            }
        };
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(read)
            .context("cannot start the thread that reads the input")?;
        Ok(Self { rows: Rows::Live(receiver), failure: None })
    }

    /// The next part, which is never empty; `None` at the end.
    pub(super) fn next_part(&mut self) -> Result<Option<Vec<WideRow>>, DataError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        let mut until = None;
        let most = match self.rows {
            Rows::Here(_) => PART,
            Rows::Live(_) => LIVE_PART,
        };
        while part.len() < most && bytes < PART_BYTES {
            match self.rows.next(until) {
                None => break,
                Some(Ok(row)) => {
                    bytes += row.text.len() + row.pair.as_ref().map_or(0, String::len);
                    part.push(row);
                    until = until.or_else(|| Some(Instant::now() + PATIENCE));
                }
                Some(Err(error)) if part.is_empty() => return Err(error),
                Some(Err(error)) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(Some(part).filter(|part| !part.is_empty()))
    }
}

impl Rows {
    /// The next row, or none if none has come until then. Nothing bounds the wait for the first row of a part: that is
    /// for the writer to say.
    fn next(&mut self, until: Option<Instant>) -> Option<Row> {
        match (self, until) {
            (Self::Here(rows), _) => rows.next(),
            (Self::Live(rows), None) => rows.recv().ok(),
            (Self::Live(rows), Some(until)) => {
                rows.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::data::Rest;

    fn row(at: u64, text: &str) -> WideRow {
        WideRow { at, text: text.to_owned(), pair: None, rest: Rest::Nothing }
    }

    fn sizes(parts: &mut Parts) -> Vec<usize> {
        std::iter::from_fn(|| parts.next_part().unwrap().map(|part| part.len())).collect()
    }

    #[test]
    fn parts_are_bounded_in_rows_and_bytes() {
        let mut parts = Parts::of_rows((0..=PART as u64).map(|at| Ok(row(at, "a"))));
        assert_eq!(sizes(&mut parts), [PART, 1]);
        let long = "a".repeat(PART_BYTES / 2);
        let mut parts = Parts::of_rows((0..3).map(move |at| Ok(row(at, &long))));
        assert_eq!(sizes(&mut parts), [2, 1]);
    }

    #[test]
    fn rows_before_a_mistake_are_answered() {
        let wrong = || DataError::Changed { path: "a".to_owned() };
        let mut parts = Parts::of_rows([Ok(row(1, "a")), Err(wrong())].into_iter());
        assert_eq!(parts.next_part().unwrap().map(|part| part.len()), Some(1));
        assert!(parts.next_part().is_err());
        let mut parts = Parts::of_stream(move || Err::<std::iter::Empty<Row>, _>(wrong())).unwrap();
        assert!(parts.next_part().is_err());
        assert!(parts.next_part().unwrap().is_none());
    }

    #[test]
    fn a_slow_writer_need_not_fill_a_part() {
        let (sender, receiver) = channel();
        let mut parts = Parts::of_stream(move || Ok(receiver.into_iter())).unwrap();
        for at in 1..3 {
            sender.send(Ok(row(at, "a"))).unwrap();
            let part = parts.next_part().unwrap().unwrap();
            assert_eq!(part.iter().map(|row| row.at).collect::<Vec<_>>(), [at]);
        }
        drop(sender);
        assert!(parts.next_part().unwrap().is_none());
    }
}
