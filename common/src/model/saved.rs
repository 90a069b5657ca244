//! How many bytes a checkpoint takes, told before there is one.
//!
//! The parts of a checkpoint are safetensors files of 32-bit floats: the parameters that are trained, both moments of
//! `AdamW` for each, and where there are any, an average of the weights and the weights that scored best.

use std::collections::BTreeMap;

use serde::Serialize;

use super::trained::Shapes;
use crate::manifest::WeightAverage;

/// In front of the name of a parameter: `AdamW`'s average of its gradients.
pub const FIRST_MOMENT: &str = "exp_avg";
/// The same of their squares.
pub const SECOND_MOMENT: &str = "exp_avg_sq";

/// Bytes of an element.
const ELEMENT_BYTES: u64 = 4;
/// Bytes in front of the head of a safetensors file, which say how long that is.
const LENGTH_BYTES: u64 = 8;
/// The head of a safetensors file takes a multiple of so many bytes.
const HEAD_ALIGNMENT: u64 = 8;

/// What a head says of a tensor.
#[derive(Debug, Serialize)]
struct TensorEntry<'a> {
    dtype: &'static str,
    shape: &'a [u64],
    data_offsets: (u64, u64),
}

/// What the checkpoints of a trial are made of.
#[derive(Debug, Clone)]
pub struct SavedParts<'a> {
    /// The parameters that are trained.
    pub trained: &'a Shapes,
    /// What is averaged.
    pub average: WeightAverage,
}

impl SavedParts<'_> {
    /// Bytes of all parts that hold tensors, of a checkpoint that one rank writes. `moments` are the steps whose
    /// weights an average over checkpoints holds; `has_best`: the best weights so far are in it. The progress, which is
    /// a text of one or two kilobytes, is not counted, nor are the few numbers of loss scaling.
    pub fn bytes(&self, moments: &[u64], has_best: bool) -> u64 {
        let plain = file_bytes(self.named([""]));
        let optimizer =
            file_bytes(self.named([format!("{FIRST_MOMENT}."), format!("{SECOND_MOMENT}.")]));
        let average = match self.average {
            WeightAverage::Off => 0,
            WeightAverage::Ema { .. } => plain,
            WeightAverage::Checkpoints { .. } if moments.is_empty() => 0,
            WeightAverage::Checkpoints { .. } => {
                file_bytes(self.named(moments.iter().map(|step| format!("{step}/"))))
            }
        };
        let best = if has_best { plain } else { 0 };
        plain + optimizer + average + best
    }

    /// Every trained parameter once with each of the beginnings.
    fn named(&self, beginnings: impl IntoIterator<Item: AsRef<str>>) -> BTreeMap<String, &[u64]> {
        let mut named = BTreeMap::new();
        for beginning in beginnings {
            let beginning = beginning.as_ref();
            let own = self.trained.iter();
            named.extend(own.map(|(name, shape)| (format!("{beginning}{name}"), shape.as_slice())));
        }
        named
    }
}

/// Bytes of a safetensors file of these tensors. Source of the layout: `safetensors`' README, "Format".
fn file_bytes(tensors: BTreeMap<String, &[u64]>) -> u64 {
    let mut end = 0;
    let mut entries = BTreeMap::new();
    for (name, shape) in tensors {
        let begin = end;
        end += ELEMENT_BYTES * shape.iter().product::<u64>();
        let entry = TensorEntry { dtype: "F32", shape, data_offsets: (begin, end) };
        entries.insert(name, entry);
    }
    // Texts and numbers always become JSON.
    let head = serde_json::to_string(&entries).map_or(0, |text| text.len() as u64);
    LENGTH_BYTES + head.next_multiple_of(HEAD_ALIGNMENT) + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> Shapes {
        Shapes::from([("a.weight".to_owned(), vec![3, 5]), ("b".to_owned(), vec![7])])
    }

    #[test]
    fn a_file_is_its_head_and_its_elements() {
        let trained = shapes();
        let head = concat!(
            r#"{"a.weight":{"dtype":"F32","shape":[3,5],"data_offsets":[0,60]},"#,
            r#""b":{"dtype":"F32","shape":[7],"data_offsets":[60,88]}}"#
        );
        let head = (head.len() as u64).next_multiple_of(8);
        let parts = SavedParts { trained: &trained, average: WeightAverage::Off };
        assert_eq!(file_bytes(parts.named([""])), 8 + head + 88);
        // No tensors are a file too.
        assert_eq!(file_bytes(BTreeMap::new()), 16);
    }

    #[test]
    fn averages_and_best_weights_are_parts_of_their_own() {
        let trained = shapes();
        let of = |average, moments: &[u64], has_best| {
            SavedParts { trained: &trained, average }.bytes(moments, has_best)
        };
        let plain =
            file_bytes(SavedParts { trained: &trained, average: WeightAverage::Off }.named([""]));
        let off = of(WeightAverage::Off, &[], false);
        assert_eq!(of(WeightAverage::Off, &[], true) - off, plain);
        assert_eq!(of(WeightAverage::Ema { decay: 0.9 }, &[], false) - off, plain);
        let every = crate::manifest::Budget::Steps(10);
        let mean = WeightAverage::Checkpoints { last: 2, every };
        assert_eq!(of(mean, &[], false), off);
        let two = of(mean, &[90, 100], false) - off;
        // Both moments in one file, whose names tell their step.
        assert!((2 * 88..2 * 88 + 400).contains(&two), "{two}");
        assert!(of(mean, &[1000, 1010], false) >= off + two);
    }
}
