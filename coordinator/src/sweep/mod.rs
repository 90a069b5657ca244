//! What to try and what to stop. Pure: settings and results in, decisions out.

pub mod asha;
pub mod front;
pub mod hyperband;
pub mod importance;
pub mod patience;
pub mod percentile;
pub mod population;
pub mod sampler;

/// What becomes of a trial that has reached a rung, with the numbers that were compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It trains on, to the next rung.
    GoOn(String),
    /// It ends.
    Stop(String),
}

impl Verdict {
    /// From whether it goes on.
    fn of(goes_on: bool, text: String) -> Self {
        if goes_on { Self::GoOn(text) } else { Self::Stop(text) }
    }

    /// The numbers that were compared.
    pub fn text(&self) -> &str {
        match self {
            Self::GoOn(text) | Self::Stop(text) => text,
        }
    }
}
