//! Data whose tokens are made when they are asked for: training starts before all is tokenized.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use muster_common::run::DataSummary;

use super::cache::Entry;
use super::origin::Origins;
use super::prepare::Recipe;
use super::rows::Rows;
use super::source::Role;
use super::tokenize::Sequence;
use super::{DataError, Split};

/// Rows, and how they become tokens.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) rows: Rows,
    pub(super) recipe: Recipe,
    /// Splits that are tokenized whole.
    wholes: [OnceLock<Split>; 3],
    /// Nobody needs the rest.
    abandoned: AtomicBool,
    /// Nothing is tokenized in the background, any more.
    settled: AtomicBool,
}

impl Source {
    pub(super) fn new(rows: Rows, recipe: Recipe) -> Self {
        let (abandoned, settled) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { rows, recipe, wholes: [const { OnceLock::new() }; 3], abandoned, settled }
    }

    /// Break when nobody needs the rest.
    pub(super) fn go_on(&self) -> ControlFlow<()> {
        if self.abandoned.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Everything is tokenized: from here on tokens come from the cache.
    pub(super) fn fill(&self, entry: Box<Entry>) {
        let Entry { train, validation, test, .. } = *entry;
        let splits =
            [(Role::Train, Some(train)), (Role::Validation, Some(validation)), (Role::Test, test)];
        for (role, split) in splits {
            if let Some(split) = split {
                // One that was tokenized by itself in the meantime is the same.
                drop(self.whole(role).set(split));
            }
        }
    }

    /// The background has done what it could.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    fn whole(&self, role: Role) -> &OnceLock<Split> {
        let [train, validation, test] = &self.wholes;
        match role {
            Role::Train => train,
            Role::Validation => validation,
            Role::Test => test,
        }
    }
}

/// A dataset that is tokenized while it is used. Its examples are those of the
/// [`Dataset`](super::Dataset) that it becomes, in the same order.
#[derive(Debug)]
pub struct Stream {
    source: Arc<Source>,
    /// Examples to train on, in the order of the files.
    pub train: StreamedSplit,
    /// Examples the searcher decides on.
    pub validation: StreamedSplit,
    /// Examples scored once; absent if the manifest has none.
    pub test: Option<StreamedSplit>,
    /// What the data turned out to be, without what only all tokens can tell.
    pub summary: DataSummary,
    /// Who knows where the examples of the test split stand in the files.
    pub origins: Origins,
}

impl Stream {
    pub(super) fn new(source: Arc<Source>, summary: DataSummary, origins: Origins) -> Self {
        let split = |role| StreamedSplit {
            source: Arc::clone(&source),
            role,
            kept: Mutex::new(BTreeMap::new()),
        };
        let has_test = source.rows.len(Role::Test) > 0;
        Self {
            train: split(Role::Train),
            validation: split(Role::Validation),
            test: has_test.then(|| split(Role::Test)),
            source,
            summary,
            origins,
        }
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Whether the work in the background is over, well or not: in most cases everything is in the
    /// cache now.
    pub fn is_settled(&self) -> bool {
        self.source.settled.load(Ordering::Acquire)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.source.abandoned.store(true, Ordering::Relaxed);
    }
}

/// One split of a [`Stream`].
#[derive(Debug)]
pub struct StreamedSplit {
    source: Arc<Source>,
    role: Role,
    /// Examples that are tokenized, by index: those that were asked for together last.
    kept: Mutex<BTreeMap<u32, Sequence>>,
}

impl StreamedSplit {
    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.source.rows.len(self.role)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class of the example at `index`, which must be below [`StreamedSplit::len`]; 0 where there are
    /// no classes.
    pub fn label(&self, index: usize) -> u32 {
        self.source.rows.labels(self.role)[index]
    }

    /// Tokens of each of the examples at `indices`, which are below [`StreamedSplit::len`], special
    /// tokens counted. If one of them is not tokenized yet, all are, and are kept instead of those that
    /// were before, until their sequences are asked for.
    pub fn lengths(&self, indices: &[u32]) -> Result<Vec<u32>, DataError> {
        if let Some(split) = self.source.whole(self.role).get() {
            return Ok(indices.iter().map(|index| length(split.length(*index as usize))).collect());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if indices.iter().any(|index| !kept.contains_key(index)) {
            *kept = indices.iter().copied().zip(self.tokenize(indices)?).collect();
        }
        let found = |index| kept.get(index).map_or(0, |sequence| length(sequence.ids.len()));
        Ok(indices.iter().map(found).collect())
    }

    /// Tokens of the examples at `indices`, which are below [`StreamedSplit::len`].
    pub fn sequences(&self, indices: &[u32]) -> Result<Vec<Sequence>, DataError> {
        if let Some(split) = self.source.whole(self.role).get() {
            let sequence = |index: &u32| split.sequence(*index as usize);
            return Ok(indices.iter().map(sequence).collect());
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Option<Vec<Sequence>> =
            indices.iter().map(|index| kept.get(index).cloned()).collect();
        found.map_or_else(|| self.tokenize(indices), Ok)
    }

    /// Whether sequences have two segments.
    pub fn has_pairs(&self) -> bool {
        self.source.rows.has_pairs()
    }

    /// The split with everything tokenized: now, if it is not yet.
    pub fn whole(&self) -> Result<&Split, DataError> {
        let whole = self.source.whole(self.role);
        if let Some(split) = whole.get() {
            return Ok(split);
        }
        let split = self.source.recipe.open_split(&self.source.rows, self.role)?;
        Ok(whole.get_or_init(|| split))
    }

    fn tokenize(&self, indices: &[u32]) -> Result<Vec<Sequence>, DataError> {
        self.source.recipe.examples(&self.source.rows.texts(self.role, indices)?)
    }
}

fn length(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
