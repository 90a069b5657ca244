//! The second pass over the files: rows that stay are tokenized and written, split by split. One
//! chunk of rows is in memory.

use std::path::Path;
use std::sync::Arc;

use muster_common::manifest::TrainingObjective;
use muster_common::seed::Seed;

use super::DataError;
use super::census::Census;
use super::dataset::Split;
use super::sentence::{pairs, sentences};
use super::source::{Role, Row, SourceFile, Wanted};
use super::spill::{Assembly, SplitFiles, SplitSpill};
use super::split::Fate;
use super::tokenize::{Input, Sequence, TextTokenizer};
use crate::ffi::MappedFile;

/// Rows of a chunk at most.
const CHUNK_ROWS: usize = 4096;
/// Bytes of text of a chunk, roughly at most.
const CHUNK_BYTES: usize = 4 << 20;

/// How rows become tokens.
pub(super) struct Recipe<'a> {
    pub(super) objective: TrainingObjective,
    pub(super) tokenizer: &'a TextTokenizer,
    pub(super) wanted: &'a Wanted,
    pub(super) seed: Seed,
    pub(super) num_threads: usize,
    /// Where files without names are put.
    pub(super) folder: &'a Path,
}

/// Names of the splits in the cache, in the order of roles.
pub(super) const SPLITS: [(Role, &str); 3] =
    [(Role::Train, "train"), (Role::Validation, "validation"), (Role::Test, "test")];

/// Splits that are being written, in the order of [`SPLITS`].
struct Writers {
    spills: Vec<SplitSpill>,
    /// Sentences of each document, for the objective that needs them.
    sentences: Vec<Vec<u32>>,
}

impl Writers {
    fn split(&mut self, role: Role) -> Option<(&mut SplitSpill, &mut Vec<u32>)> {
        let index = SPLITS.iter().position(|(known, _)| *known == role)?;
        Some((self.spills.get_mut(index)?, self.sentences.get_mut(index)?))
    }
}

impl Recipe<'_> {
    /// Tokenizes all rows that stay.
    pub(super) fn tokenize(
        &self,
        files: &[(Role, Vec<SourceFile>)],
        census: &Census,
        fates: &[Fate],
    ) -> Result<Vec<(&'static str, SplitFiles)>, DataError> {
        let pairs = self.wanted.pair.is_some();
        let spills = SPLITS.iter().map(|_| SplitSpill::new(self.folder, pairs));
        let spills = spills.collect::<Result<Vec<_>, _>>()?;
        let mut writers = Writers { spills, sentences: vec![Vec::new(); SPLITS.len()] };
        let mut next_row = 0usize;
        for file in files.iter().flat_map(|(_, files)| files) {
            self.file(file, census, fates, &mut next_row, &mut writers)?;
            file.check_unchanged()?;
        }
        if next_row != census.len() {
            return Err(DataError::Changed { path: census.pool().to_owned() });
        }
        let Writers { spills, sentences } = writers;
        let mut splits = Vec::new();
        for (((_, name), spill), counts) in SPLITS.iter().zip(spills).zip(sentences) {
            let files = spill.finish()?;
            let files = if self.objective.pairs_sentences() {
                self.pair_up(name, files, &counts)?
            } else {
                files
            };
            if files.num_examples > 0 {
                splits.push((*name, files));
            }
        }
        Ok(splits)
    }

    fn file(
        &self,
        file: &SourceFile,
        census: &Census,
        fates: &[Fate],
        next_row: &mut usize,
        writers: &mut Writers,
    ) -> Result<(), DataError> {
        let mut rows = file.rows(self.wanted)?;
        let mut chunk: Vec<(Row, Role, u32)> = Vec::with_capacity(CHUNK_ROWS);
        loop {
            chunk.clear();
            let (mut num_bytes, mut ended) = (0, true);
            for row in rows.by_ref() {
                let row = row.map_err(|why| why.of_file(&file.shown, file.has_lines()))?;
                let label = census.classes.get(*next_row).copied().unwrap_or(0);
                if let Some(Fate::In(role)) = fates.get(*next_row) {
                    num_bytes += row.text.len() + row.pair.as_ref().map_or(0, String::len);
                    chunk.push((row, *role, label));
                }
                *next_row += 1;
                if chunk.len() == CHUNK_ROWS || num_bytes >= CHUNK_BYTES {
                    ended = false;
                    break;
                }
            }
            self.chunk(&chunk, writers)?;
            if ended {
                return Ok(());
            }
        }
    }

    fn chunk(&self, chunk: &[(Row, Role, u32)], writers: &mut Writers) -> Result<(), DataError> {
        match self.objective {
            TrainingObjective::Classification => {
                let inputs: Vec<Input<'_>> = chunk
                    .iter()
                    .map(|(row, ..)| Input { text: &row.text, pair: row.pair.as_deref() })
                    .collect();
                let sequences = self.tokenizer.encode_inputs(&inputs, self.num_threads)?;
                for ((_, role, label), sequence) in chunk.iter().zip(sequences) {
                    if let Some((spill, _)) = writers.split(*role) {
                        spill.push(&sequence, *label)?;
                    }
                }
            }
            TrainingObjective::MaskedLm => {
                let texts: Vec<&str> = chunk.iter().map(|(row, ..)| row.text.as_str()).collect();
                let bare = self.tokenizer.encode_bare(&texts, self.num_threads)?;
                for ((_, role, label), ids) in chunk.iter().zip(bare) {
                    let Some((spill, _)) = writers.split(*role) else { continue };
                    for piece in self.tokenizer.wrap_pieces(&ids) {
                        spill.push(&piece, *label)?;
                    }
                }
            }
            TrainingObjective::NextSentence | TrainingObjective::Pretraining => {
                self.documents(chunk, writers)?;
            }
        }
        Ok(())
    }

    /// Sentences of documents, without special tokens: they are paired up when all are there.
    fn documents(
        &self,
        chunk: &[(Row, Role, u32)],
        writers: &mut Writers,
    ) -> Result<(), DataError> {
        let documents: Vec<Vec<&str>> =
            chunk.iter().map(|(row, ..)| sentences(&row.text)).collect();
        let flat: Vec<&str> = documents.iter().flatten().copied().collect();
        let mut bare = self.tokenizer.encode_bare(&flat, self.num_threads)?.into_iter();
        for ((_, role, label), document) in chunk.iter().zip(&documents) {
            let Some((spill, counts)) = writers.split(*role) else { continue };
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
        let mut spill = SplitSpill::new(self.folder, true)?;
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
        let failed =
            |source| DataError::Spill { folder: self.folder.display().to_string(), source };
        // The name of the split in an object of its own; the columns are called after it.
        let splits = [("sentences", files)];
        let assembly = Assembly::new(&splits);
        let mut file = tempfile::tempfile_in(self.folder).map_err(failed)?;
        let mut reader = assembly.reader().map_err(failed)?;
        std::io::copy(&mut reader, &mut file).map_err(failed)?;
        let mapped = Arc::new(MappedFile::open(&file).map_err(failed)?);
        Split::mapped(&mapped, "sentences").map_err(|reason| {
            failed(std::io::Error::other(format!("the sentences of {name}: {reason}")))
        })
    }
}
