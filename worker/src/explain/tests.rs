//! Explanations against Captum and transformers, on tiny random classifiers of three families.
//! `tests/golden/explain/generate.py` made the values and says how.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Device;

use super::*;
use crate::model::Classifier;

/// Of the largest value of a list: what single values of 32-bit floats can be held to.
const TOLERANCE: f64 = 1e-3;
const FAMILIES: [&str; 3] = ["bert", "distilbert", "roberta"];

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(golden_folder().join("explain/golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn model(family: &str) -> Classifier {
    let directory = golden_folder().join(format!("hf/families/{family}-classification"));
    Classifier::from_directory(&directory, Device::Cpu).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn counts(value: &Value) -> Vec<usize> {
    let items = value.as_array().unwrap().iter();
    items.map(|item| usize::try_from(item.as_u64().unwrap()).unwrap()).collect()
}

fn assert_close(what: &str, found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    for (found, wanted) in found.iter().zip(wanted) {
        let error = (found - wanted).abs();
        assert!(error <= tolerance * largest, "{what}: {found} instead of {wanted}, of {largest}");
    }
}

/// Runs `check` on every golden case of every family.
fn each(check: impl Fn(&str, &Value, &Subject<'_>)) {
    let golden = golden();
    for family in FAMILIES {
        let model = model(family);
        let eager = Eager::of(&model).unwrap();
        let pad = u32::try_from(golden[family]["pad"].as_u64().unwrap()).unwrap();
        let absent = eager.word(pad).unwrap();
        for (number, case) in golden[family]["cases"].as_array().unwrap().iter().enumerate() {
            let ids: Vec<u32> =
                counts(&case["tokens"]).into_iter().map(|id| u32::try_from(id).unwrap()).collect();
            let first = usize::try_from(case["first_segment"].as_u64().unwrap()).unwrap();
            let reading = Reading::new(&model, &[&ids], &[first]).unwrap();
            let ordinary =
                case["ordinary"].as_array().unwrap().iter().map(|is| is.as_bool().unwrap());
            let class = usize::try_from(case["class"].as_u64().unwrap()).unwrap();
            let subject =
                Subject::new(&eager, reading, ordinary.collect(), &absent, class).unwrap();
            check(&format!("{family}, case {number}"), case, &subject);
        }
    }
}

#[test]
fn logits_and_attention_are_those_of_transformers() {
    each(|what, case, subject| {
        let pass = subject.pass().unwrap();
        let logits = subject::doubles(&pass.logits).unwrap();
        assert_close(what, &logits, &numbers(&case["logits"]), 1e-5);
        let layers = case["attentions"].as_array().unwrap();
        assert_eq!(pass.attentions.len(), layers.len());
        for (attention, wanted) in pass.attentions.iter().zip(layers) {
            let found = subject::doubles(attention).unwrap();
            assert_close(what, &found, &numbers(wanted), 1e-5);
        }
    });
}

#[test]
fn integrated_gradients_are_captums_and_complete() {
    each(|what, case, subject| {
        let (found, completeness) = integrated_gradients(subject, 50).unwrap();
        assert_close(what, &found, &numbers(&case["integrated_gradients"]), TOLERANCE);
        assert!(completeness.relative() < 1e-3, "{what}: {completeness:?}");
        // Fewer steps leave a larger error, which is reported.
        let (_, coarse) = integrated_gradients(subject, 1).unwrap();
        assert!(coarse.error.abs() > 10.0 * completeness.error.abs(), "{what}: {coarse:?}");
    });
}

#[test]
fn gradients_times_inputs_are_captums() {
    each(|what, case, subject| {
        let found = gradient_times_input(subject).unwrap();
        assert_close(what, &found, &numbers(&case["gradient_times_input"]), TOLERANCE);
    });
}

#[test]
fn occlusion_is_captums() {
    each(|what, case, subject| {
        let groups: Vec<Vec<usize>> = (0..subject.length()).map(|at| vec![at]).collect();
        let all = occlusion(subject, &groups).unwrap();
        // Of special tokens nothing is taken away, so that nothing changes.
        for (at, value) in all.iter().enumerate() {
            assert!(subject.ordinary()[at] || value.abs() < 1e-6, "{what}: {value}");
        }
        let wanted = numbers(&case["occlusion"]);
        assert_close(what, &all, &wanted, TOLERANCE);
        let alone = single_tokens(subject);
        assert_eq!(alone.len(), subject.ordinary().iter().filter(|is| **is).count());
    });
}

#[test]
fn conductance_is_captums_and_complete_in_every_layer() {
    each(|what, case, subject| {
        let found = layer_conductance(subject, 50).unwrap();
        let wanted = case["conductance"].as_array().unwrap();
        assert_eq!(found.len(), wanted.len() + 1, "the embeddings too");
        for (layer, wanted) in found.iter().skip(1).zip(wanted) {
            assert_close(what, &layer.tokens, &numbers(wanted), TOLERANCE);
        }
        for layer in &found {
            assert!(layer.completeness.relative() < 1e-3, "{what}: {:?}", layer.completeness);
        }
    });
}

#[test]
fn rollout_and_heads_are_as_computed_with_torch() {
    each(|what, case, subject| {
        let pass = subject.pass().unwrap();
        let rows = rollout(&pass.attentions).unwrap();
        assert_close(what, &rows.concat(), &numbers(&case["rollout"]), 1e-5);
        let separators = counts(&case["separators"]);
        let layers = pass.attentions.iter();
        let heads = layers.map(|layer| summarize_heads(layer, &separators).unwrap());
        let found: Vec<f64> = heads
            .flatten()
            .flat_map(|head| [head.entropy, head.distance, head.first_share, head.separator_share])
            .collect();
        assert_close(what, &found, &numbers(&case["heads"]), 1e-5);
    });
}

#[test]
fn the_open_pass_gives_what_the_fused_one_gives() {
    for family in FAMILIES {
        let model = model(family);
        let eager = Eager::of(&model).unwrap();
        // One sequence, several of one length, and pairs.
        let batches: [(&[&[u32]], &[usize]); 3] = [
            (&[&[2, 9, 12, 3]], &[4]),
            (&[&[2, 9, 12, 7, 3], &[2, 30, 8, 22, 3], &[2, 11, 11, 5, 3]], &[5, 5, 5]),
            (&[&[2, 9, 3, 7, 3], &[2, 30, 8, 22, 3]], &[3, 5]),
        ];
        for (sequences, first) in batches {
            let tokens = model.batch_of_pairs(sequences, first).unwrap();
            let fused = tch::no_grad(|| model.forward(&tokens, 0.0)).unwrap();
            let reading = Reading::new(&model, sequences, first).unwrap();
            let words = eager.words(&reading).unwrap();
            let open = tch::no_grad(|| eager.forward(&words, &reading)).unwrap();
            let (fused, open) =
                (subject::doubles(&fused).unwrap(), subject::doubles(&open.logits).unwrap());
            assert_close(family, &open, &fused, 1e-5);
        }
        let uneven = Reading::new(&model, &[&[2, 9, 3], &[2, 3]], &[3, 2]);
        assert!(uneven.is_err());
        assert!(Reading::new(&model, &[], &[]).is_err());
    }
}

fn explainer(family: &str, baseline: Baseline) -> Explainer {
    let directory = golden_folder().join(format!("hf/families/{family}-classification"));
    let settings = SettingsRecord { steps: 20, baseline };
    Explainer::open(&directory, 1, Device::Cpu, settings).unwrap()
}

#[test]
fn texts_are_explained_in_words() {
    use crate::predict::Text;
    for family in FAMILIES {
        for baseline in [Baseline::Pad, Baseline::Mask, Baseline::Zero] {
            let explainer = explainer(family, baseline);
            let question = Question { class: Some(1), layers: true };
            let text =
                Text { text: "A good film!".to_owned(), text_pair: Some("goods".to_owned()) };
            let found = explainer.explain(&text, Some(0), question).unwrap();
            assert_eq!((found.explained.as_str(), found.label.as_deref()), ("so-so", Some("bad")));
            for word in &found.words {
                let source = if word.in_pair { "goods" } else { "A good film!" };
                assert_eq!(&source[word.start..word.end], word.text, "{family}");
            }
            let layers = found.layers.as_ref().unwrap();
            assert_eq!(
                (layers.conductance.len(), layers.rollout.len(), layers.heads.len()),
                (3, 2, 2)
            );
            for importance in &found.importance {
                assert_eq!(importance.tokens.len(), found.tokens.len());
                assert_eq!(importance.words.len(), found.words.len());
                for (token, value) in found.tokens.iter().zip(&importance.tokens) {
                    assert!(token.ordinary || *value == 0.0, "{family}: {token:?} has {value}");
                }
                // Both curves join the same two ends.
                let curves = importance.faithfulness.as_ref().unwrap();
                let (fall, rise) =
                    (&curves.deletion.probabilities, &curves.insertion.probabilities);
                assert!((fall[0] - rise[rise.len() - 1]).abs() < 1e-6);
                assert!((fall[fall.len() - 1] - rise[0]).abs() < 1e-6);
                assert!((fall[0] - found.classes[1].probability).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn a_text_without_words_has_nothing_to_explain() {
    let explainer = explainer("bert", Baseline::Pad);
    let question = Question { class: None, layers: true };
    let found = explainer.explain(&String::new().into(), None, question).unwrap();
    assert!(found.words.is_empty() && found.random.is_none());
    assert!(found.importance.iter().all(|importance| importance.faithfulness.is_none()));
    let whole = found.importance[0].completeness.unwrap();
    assert!(whole.relative().abs() < 1e-9, "{whole:?}");
}

#[test]
fn an_attribution_is_the_explanation_of_the_predicted_class() {
    use crate::predict::Text;
    for family in FAMILIES {
        let explainer = explainer(family, Baseline::Pad);
        let text = Text { text: "A good film!".to_owned(), text_pair: Some("goods".to_owned()) };
        let found = explainer.attribute(&text).unwrap();
        let question = Question { class: None, layers: false };
        let wanted = explainer.explain(&text, None, question).unwrap();
        assert_eq!(found.predicted, wanted.predicted);
        assert_eq!(found.words.len(), wanted.words.len());
        for ((word, weight), wanted) in
            found.words.iter().zip(&wanted.importance[0].words).zip(&wanted.words)
        {
            let place = (word.in_pair, word.start, word.end);
            assert_eq!(place, (wanted.in_pair, wanted.start, wanted.end));
            assert!((word.weight - weight).abs() < 1e-9, "{family}: {word:?} and {weight}");
        }
    }
    let explainer = explainer("bert", Baseline::Pad);
    assert!(explainer.attribute(&String::new().into()).unwrap().words.is_empty());
}
