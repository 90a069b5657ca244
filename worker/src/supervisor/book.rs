//! What a supervisor keeps in mind about its runs: report numbers and the last log lines.

use std::collections::VecDeque;

use muster_common::id::Generation;

/// Log lines quoted when a runner dies.
const LINES_MAX: usize = 5;
/// Longest quoted line, in characters.
const LINE_MAX: usize = 300;

/// Notes of a supervisor.
#[derive(Debug, Default)]
pub(super) struct Book {
    numbered: Option<(Generation, u64)>,
    lines: VecDeque<String>,
}

impl Book {
    /// The number of the next report of a run, from 1.
    pub(super) fn number(&mut self, generation: Generation) -> u64 {
        let last = match self.numbered {
            Some((of, last)) if of == generation => last,
            _ => 0,
        };
        self.numbered = Some((generation, last + 1));
        last + 1
    }

    /// Whether a run that is assigned again has been worked on before: it is not started twice.
    pub(super) fn has_ended(&self, generation: Generation) -> bool {
        self.numbered.is_some_and(|(of, _)| of >= generation)
    }

    pub(super) fn note_line(&mut self, line: &str) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.chars().take(LINE_MAX).collect());
    }

    pub(super) fn forget_lines(&mut self) {
        self.lines.clear();
    }

    /// One line about a death, with the last words.
    pub(super) fn obituary(&self, how: &str) -> String {
        let words: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        if words.is_empty() {
            return format!("the runner died: {how}");
        }
        format!("the runner died: {how}; its last lines: {}", words.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_numbered_per_run_and_old_runs_are_known() {
        let mut book = Book::default();
        assert_eq!((book.number(Generation(3)), book.number(Generation(3))), (1, 2));
        assert_eq!(book.number(Generation(5)), 1);
        assert!(book.has_ended(Generation(5)) && book.has_ended(Generation(3)));
        assert!(!book.has_ended(Generation(6)));
    }

    #[test]
    fn an_obituary_quotes_the_last_lines_only() {
        let mut book = Book::default();
        for number in 0..9 {
            book.note_line(&format!("line {number}"));
        }
        let text = book.obituary("signal 9");
        assert!(text.contains("signal 9") && text.contains("line 8") && !text.contains("line 3"));
    }
}
