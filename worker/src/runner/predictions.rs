//! What the file of predictions says of the examples themselves: how long they are, and what the model read where it
//! was surely wrong.

use muster_common::evaluation::confident_mistakes;
use muster_common::evaluation::prediction::{Origin, Prediction, TEXTS_MAX};

use super::task::TaskError;
use crate::data::TextTokenizer;
use crate::train::Examples;

/// The same predictions with numbers of tokens, and with the texts of the mistakes that the model was surest of. The
/// cache has tokens and no texts, so texts are what `tokenizer` makes of them; those of a pair are lines.
pub(super) fn described(
    mut rows: Vec<Prediction>,
    examples: Examples<'_>,
    tokenizer: &TextTokenizer,
) -> Result<Vec<Prediction>, TaskError> {
    let indices: Vec<u32> = rows.iter().map(index).collect();
    for (row, length) in rows.iter_mut().zip(examples.lengths(&indices)?) {
        row.num_tokens = Some(length);
    }
    for place in confident_mistakes(&rows, TEXTS_MAX) {
        let Some(row) = rows.get_mut(place) else { continue };
        let texts = examples.texts(index(row))?;
        let texts: Result<Vec<String>, _> =
            texts.into_iter().map(|ids| tokenizer.decode(ids)).collect();
        *row = row.clone().with_text(&texts?.join("\n"));
    }
    Ok(rows)
}

/// The same predictions with the places of the examples, which are in the order of the split.
pub(super) fn located(rows: Vec<Prediction>, origins: &[Origin]) -> Vec<Prediction> {
    let place = |row: &Prediction| origins.get(usize::try_from(row.row).ok()?).cloned();
    rows.into_iter().map(|row| Prediction { origin: place(&row), ..row }).collect()
}

/// Splits have less than 2^32 examples.
fn index(row: &Prediction) -> u32 {
    u32::try_from(row.row).unwrap_or(u32::MAX)
}
