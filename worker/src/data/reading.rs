//! Files to rows: read once, checked, and divided into splits.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use muster_common::count::counted_are;
use muster_common::manifest::{
    Holdout, LabelRule, Manifest, NearDuplicates, SourceFormat, TrainingObjective,
};
use muster_common::run::{DataFlaws, DataSummary};
use muster_common::storage::Layout;

use super::cache::FINDINGS;
use super::census::{Census, Survey};
use super::inputs::Inputs;
use super::origin::{self, Places};
use super::parallel::threads_per_slot;
use super::rows::{Rows, TextSpill};
use super::source::{Role, Wanted};
use super::spill::failed;
use super::split::{Division, HeldOut, divide};
use super::{DataError, balance, problem, sentence};

/// Remarks kept in a summary.
const REMARKS_MAX: usize = 20;

/// Rows that were just read.
pub(super) struct Read {
    pub(super) rows: Rows,
    /// The list of findings, at its beginning.
    pub(super) findings: std::fs::File,
    /// Where the examples of the test split stand, where each is a row.
    pub(super) places: Places,
    /// Without what only tokens can tell, and without the name of their cache entry.
    pub(super) summary: DataSummary,
}

/// Reads all files, whose rows will be known as cache entry `hash`.
pub(super) fn read(manifest: &Manifest, inputs: &Inputs, hash: &str) -> Result<Read, DataError> {
    let data = &manifest.data;
    let wanted = Wanted {
        text: data.text.clone(),
        pair: data.text_pair.clone(),
        label: data.label.as_ref().map(|label| label.column().to_owned()),
        documents: manifest.objective.pairs_sentences(),
    };
    let survey = Survey {
        wanted: &wanted,
        rule: data.label.as_ref(),
        hygiene: data.hygiene,
        near: data.hygiene.near_duplicates == NearDuplicates::Together,
        num_threads: threads_per_slot(),
    };
    let mut texts = TextSpill::new(&inputs.folder, wanted.pair.is_some())?;
    let census = survey.take(&inputs.files, &mut texts)?;
    let held_out = HeldOut { validation: &data.validation, test: &data.test };
    let division = divide(&census, held_out, data.hygiene, manifest.seed)?;
    let rows = texts.finish(&census.classes, &division.fates)?;
    let places = match manifest.objective {
        TrainingObjective::Classification => origin::places(&rows, &census),
        _ => Places::default(),
    };
    let findings = || {
        let mut file = BufWriter::new(tempfile::tempfile_in(&inputs.folder)?);
        problem::list(&census, &census.findings, &mut file)?;
        problem::list(&census, &division.findings, &mut file)?;
        file.flush()?;
        let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    let findings = findings().map_err(|source| failed(&inputs.folder, source))?;
    let summary = summarize(hash, manifest, &rows, &census, &division);
    for remark in &summary.remarks {
        tracing::info!("data: {remark}");
    }
    Ok(Read { rows, findings, places, summary })
}

fn summarize(
    hash: &str,
    manifest: &Manifest,
    rows: &Rows,
    census: &Census,
    division: &Division,
) -> DataSummary {
    let count = |role| rows.len(role) as u64;
    let labels = if manifest.objective.pairs_sentences() {
        sentence::CLASS_NAMES.map(str::to_owned).to_vec()
    } else {
        census.names.clone()
    };
    let mut summary = DataSummary {
        cache: String::new(),
        num_train: count(Role::Train),
        num_validation: count(Role::Validation),
        num_test: count(Role::Test),
        labels,
        num_rows: census.len() as u64,
        num_left_out: census.num_left_out,
        num_duplicates: 0,
        mean_tokens: None,
        remarks: Vec::new(),
        flaws: DataFlaws {
            num_near_duplicates: division.num_near_duplicates,
            ..DataFlaws::default()
        },
    };
    summary.remarks.extend(balance::remarks(census, division));
    let findings = [census.findings.as_slice(), &division.findings].concat();
    problem::count(census, &findings, &mut summary);
    if division.num_near_duplicates > 0 {
        let count = division.num_near_duplicates;
        summary.remarks.push(format!(
            "{} nearly the same as another one and stay on its side",
            counted_are(count, "training row")
        ));
    }
    if is_unsplit_imdb(manifest, census) {
        summary.remarks.push(
            "this looks like the 50,000 film reviews of IMDB without their split: reviews of one \
             film stand on both sides of a random cut, and scores do not compare with published \
             ones; the folder aclImdb or the set stanfordnlp/imdb has the official split"
                .to_owned(),
        );
    }
    if !findings.is_empty() {
        let key = Layout::cache(hash).join(FINDINGS);
        summary.remarks.push(format!(
            "{} listed in {key} of the store",
            counted_are(findings.len(), "finding")
        ));
    }
    summary.remarks.truncate(REMARKS_MAX);
    summary
}

/// `IMDB Dataset.csv`, as it is passed around.
fn is_unsplit_imdb(manifest: &Manifest, census: &Census) -> bool {
    let data = &manifest.data;
    let is_cut = !matches!(data.test, Holdout::Source(_));
    let is_csv = matches!(data.train.format, SourceFormat::Delimited { .. });
    let label = data.label.as_ref().map(LabelRule::column);
    let columns = data.text == "review" && label == Some("sentiment");
    is_cut && is_csv && columns && census.rows(Role::Train).len() == 50_000
}
