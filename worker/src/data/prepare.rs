//! Rows to tokens, split by split. One chunk of rows is in memory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use muster_common::manifest::TrainingObjective;
use muster_common::seed::Seed;

use super::DataError;
use super::dataset::Split;
use super::moves::moved;
use super::rows::{RowText, Rows, SPLITS};
use super::sentence::{pairs, sentences};
use super::source::Role;
use super::spill::{Assembly, SplitFiles, SplitSpill, failed};
use super::tokenize::{Input, Sequence, TextTokenizer};
use crate::ffi::MappedFile;

/// Rows of a chunk at most.
const CHUNK_ROWS: usize = 4096;
/// Bytes of text of a chunk, roughly at most.
const CHUNK_BYTES: usize = 4 << 20;

/// How rows become tokens.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) objective: TrainingObjective,
    pub(super) tokenizer: Arc<TextTokenizer>,
    pub(super) seed: Seed,
    pub(super) num_threads: usize,
    /// Where files without names are put.
    pub(super) folder: PathBuf,
}

impl Recipe {
    /// Tokenizes all rows. `None`: `go_on`, asked before every chunk of some thousands, said to stop.
    pub(super) fn tokenize(
        &self,
        rows: &Rows,
        mut go_on: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Vec<(&'static str, SplitFiles)>>, DataError> {
        let mut splits = Vec::new();
        for (role, name) in SPLITS {
            if rows.len(role) == 0 {
                continue;
            }
            let Some(files) = self.split(rows, role, &mut go_on)? else { return Ok(None) };
            if files.num_examples > 0 {
                splits.push((name, files));
            }
        }
        Ok(Some(splits))
    }

    /// Tokenizes and maps one split, which has rows.
    pub(super) fn open_split(&self, rows: &Rows, role: Role) -> Result<Split, DataError> {
        let files = self.split(rows, role, &mut || ControlFlow::Continue(()))?;
        files.map_or_else(
            || Ok(Split::new(Vec::new(), Vec::new())),
            |files| self.open("rows", files),
        )
    }

    fn split(
        &self,
        rows: &Rows,
        role: Role,
        go_on: &mut impl FnMut() -> ControlFlow<()>,
    ) -> Result<Option<SplitFiles>, DataError> {
        let mut spill = SplitSpill::new(&self.folder, rows.has_pairs())?;
        // Sentences of each document, for the objective that needs them.
        let mut counts = Vec::new();
        let labels = rows.labels(role);
        let mut next = 0;
        while next < rows.len(role) {
            if go_on().is_break() {
                return Ok(None);
            }
            moved();
            let chunk = chunk(rows, role, next);
            let indices: Vec<u32> = (0u32..).skip(next).take(chunk).collect();
            let texts = rows.texts(role, &indices)?;
            let labels = labels.get(next..next + chunk).unwrap_or_default();
            self.chunk(&texts, labels, &mut spill, &mut counts)?;
            next += chunk;
        }
        let files = spill.finish()?;
        if !self.objective.pairs_sentences() {
            return Ok(Some(files));
        }
        let name = SPLITS.iter().find(|(known, _)| *known == role).map_or("", |(_, name)| name);
        self.pair_up(name, files, &counts).map(Some)
    }

    /// Tokens of rows of which each makes one example.
    pub(super) fn examples(&self, texts: &[RowText]) -> Result<Vec<Sequence>, DataError> {
        let inputs: Vec<Input<'_>> = texts.iter().map(RowText::input).collect();
        self.tokenizer.encode_inputs(&inputs, self.num_threads)
    }

    fn chunk(
        &self,
        texts: &[RowText],
        labels: &[u32],
        spill: &mut SplitSpill,
        counts: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        match self.objective {
            TrainingObjective::Classification => {
                for (sequence, label) in self.examples(texts)?.iter().zip(labels) {
                    spill.push(sequence, *label)?;
                }
            }
            TrainingObjective::MaskedLm => {
                let texts: Vec<&str> = texts.iter().map(|row| row.text.as_str()).collect();
                let bare = self.tokenizer.encode_bare(&texts, self.num_threads)?;
                for (ids, label) in bare.iter().zip(labels) {
                    for piece in self.tokenizer.wrap_pieces(ids) {
                        spill.push(&piece, *label)?;
                    }
                }
            }
            TrainingObjective::NextSentence | TrainingObjective::Pretraining => {
                self.documents(texts, labels, spill, counts)?;
            }
        }
        Ok(())
    }

    /// Sentences of documents, without special tokens: they are paired up when all are there.
    fn documents(
        &self,
        texts: &[RowText],
        labels: &[u32],
        spill: &mut SplitSpill,
        counts: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        let documents: Vec<Vec<&str>> = texts.iter().map(|row| sentences(&row.text)).collect();
        let flat: Vec<&str> = documents.iter().flatten().copied().collect();
        let mut bare = self.tokenizer.encode_bare(&flat, self.num_threads)?.into_iter();
        for (document, label) in documents.iter().zip(labels) {
            counts.push(u32::try_from(document.len()).unwrap_or(u32::MAX));
            for ids in bare.by_ref().take(document.len()) {
                let first_segment = ids.len();
                spill.push(&Sequence { ids, first_segment }, *label)?;
            }
        }
        Ok(())
    }

    /// Pairs of the sentences of one split.
    fn pair_up(
        &self,
        name: &str,
        files: SplitFiles,
        counts: &[u32],
    ) -> Result<SplitFiles, DataError> {
        let mut spill = SplitSpill::new(&self.folder, true)?;
        if files.num_examples == 0 {
            return spill.finish();
        }
        let place = format!("data.{name}");
        if counts.iter().filter(|count| **count > 0).count() < 2 {
            let message = "one document has no sentences to draw from another: give at least two";
            return Err(DataError::refused(place, message));
        }
        self.tokenizer.check_pairs()?;
        let sentences = self.open(name, files)?;
        for pair in pairs(self.seed.child(name, 0), counts) {
            let ids =
                |sentence: u64| sentences.tokens(usize::try_from(sentence).unwrap_or(usize::MAX));
            let sequence = self.tokenizer.wrap_pair(ids(pair.first), ids(pair.second));
            spill.push(&sequence, pair.class)?;
        }
        let files = spill.finish()?;
        if files.num_examples == 0 {
            let message = "no document has two sentences: separate documents by blank lines, and \
                           put one sentence on a line";
            return Err(DataError::refused(place, message));
        }
        Ok(files)
    }

    /// Maps a split that was just written.
    fn open(&self, name: &str, files: SplitFiles) -> Result<Split, DataError> {
        let failed = |source| failed(&self.folder, source);
        // The name of the split in an object of its own; the columns are called after it.
        let splits = [("sentences", files)];
        let assembly = Assembly::new(&splits);
        let mut file = tempfile::tempfile_in(&self.folder).map_err(failed)?;
        let mut reader = assembly.reader().map_err(failed)?;
        std::io::copy(&mut reader, &mut file).map_err(failed)?;
        let mapped = Arc::new(MappedFile::open(&file).map_err(failed)?);
        Split::mapped(&mapped, "sentences").map_err(|reason| {
            failed(std::io::Error::other(format!("the sentences of {name}: {reason}")))
        })
    }
}

/// Rows from `first` on that make a chunk.
fn chunk(rows: &Rows, role: Role, first: usize) -> usize {
    let (mut count, mut num_bytes) = (0, 0);
    while count < CHUNK_ROWS && num_bytes < CHUNK_BYTES && first + count < rows.len(role) {
        num_bytes += rows.num_bytes(role, first + count);
        count += 1;
    }
    count
}
