//! Log lines that were said while there was no line to the coordinator. The newest of them are kept and sent when there
//! is one again, so that whoever follows a log across a restart of the coordinator misses nothing that was short.

use std::collections::VecDeque;

use muster_proto::v1::LogLines;

/// Lines that are kept; the object store has all of them.
const LINES_MAX: usize = 1000;

/// The lines, oldest first, each with the run it is of.
#[derive(Debug, Default)]
pub(super) struct Missed {
    lines: VecDeque<(Option<u64>, String)>,
}

impl Missed {
    /// Keeps what could not be sent.
    pub(super) fn push(&mut self, message: LogLines) {
        let LogLines { generation, lines } = message;
        self.lines.extend(lines.into_iter().map(|line| (generation, line)));
        let surplus = self.lines.len().saturating_sub(LINES_MAX);
        self.lines.drain(..surplus);
    }

    /// What is kept, in as few messages as there were runs one after the other.
    pub(super) fn take(&mut self) -> Vec<LogLines> {
        let mut messages: Vec<LogLines> = Vec::new();
        for (generation, line) in self.lines.drain(..) {
            match messages.last_mut() {
                Some(last) if last.generation == generation => last.lines.push(line),
                _ => messages.push(LogLines { generation, lines: vec![line] }),
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(generation: Option<u64>, lines: &[&str]) -> LogLines {
        LogLines { generation, lines: lines.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn lines_keep_their_order_and_their_run() {
        let mut missed = Missed::default();
        for (generation, line) in [(None, "a"), (Some(3), "b"), (Some(3), "c"), (Some(4), "d")] {
            missed.push(of(generation, &[line]));
        }
        let expected = [of(None, &["a"]), of(Some(3), &["b", "c"]), of(Some(4), &["d"])];
        assert_eq!(missed.take(), expected);
        assert!(missed.take().is_empty(), "sent once");
    }

    #[test]
    fn the_newest_are_kept() {
        let mut missed = Missed::default();
        for number in 0..LINES_MAX + 5 {
            missed.push(of(Some(1), &[&number.to_string()]));
        }
        let kept = missed.take();
        assert_eq!((kept.len(), kept[0].lines.len()), (1, LINES_MAX));
        assert_eq!(kept[0].lines[0], "5");
    }
}
