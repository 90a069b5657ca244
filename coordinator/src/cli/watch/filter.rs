//! What `/` narrows: the rows of one pane.

use super::state::Pane;

/// Words that rows must contain, in the pane that they were typed for.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// As it was typed.
    pub(super) text: String,
    /// Keys go to it.
    pub(super) is_open: bool,
    pane: Option<Pane>,
}

impl Filter {
    /// Takes keys, for rows of a pane.
    pub(super) fn open(&mut self, pane: Pane) {
        if self.pane != Some(pane) {
            self.text.clear();
        }
        self.pane = Some(pane);
        self.is_open = true;
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What narrows a pane; empty: nothing does.
    pub(super) fn of(&self, pane: Pane) -> &str {
        if self.pane == Some(pane) { self.text.trim() } else { "" }
    }

    /// Whether a row is shown: all words of the filter are in it, whatever their case.
    pub(super) fn lets(&self, pane: Pane, row: &str) -> bool {
        let wanted = self.of(pane);
        if wanted.is_empty() {
            return true;
        }
        let row = row.to_lowercase();
        wanted.to_lowercase().split_whitespace().all(|word| row.contains(word))
    }
}
