//! Which parameters a trial trains, told without reading a weight: what checkpoints hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::config::ModelConfig;
use super::depth::Depth;
use super::directory::weights_files;
use super::head::head;
use super::name::{fits, is_buffer, modern_name};
use super::{DirectoryError, Family};
use crate::manifest::{ModelSettings, TrainingObjective};

/// Sizes of tensors by name, outermost first.
pub type Shapes = BTreeMap<String, Vec<u64>>;

/// Largest head of a safetensors file that is read, bytes; that of the reference implementation.
const HEAD_BYTES_MAX: u64 = 100_000_000;

/// What the head of a safetensors file says of a tensor, as far as it is of use.
#[derive(Debug, Deserialize)]
struct TensorEntry {
    shape: Vec<u64>,
}

/// Shapes of the tensors in the weights files of the model in `directory`, by the names in these files. Of the files
/// the heads are read only. Source of the layout: `safetensors`' README, "Format".
pub fn read_shapes(directory: &Path) -> Result<Shapes, DirectoryError> {
    let mut shapes = Shapes::new();
    for file in weights_files(directory)? {
        let path = directory.join(file);
        let unread = |source| DirectoryError::Read { path: path.display().to_string(), source };
        shapes.append(&mut shapes_of_file(&path).map_err(unread)?);
    }
    Ok(shapes)
}

fn shapes_of_file(path: &Path) -> std::io::Result<Shapes> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_BYTES_MAX {
        return Err(std::io::Error::other(format!("its head takes {length} bytes")));
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text)?;
    // Texts beside the tensors.
    entries.remove("__metadata__");
    let shape = |(name, entry): (String, serde_json::Value)| -> std::io::Result<_> {
        let TensorEntry { shape } = serde_json::from_value(entry)?;
        Ok((name, shape))
    };
    entries.into_iter().map(shape).collect()
}

/// The parameters that a trial trains of a model whose files hold `found`: all of the encoder and of the heads of
/// what is learned, but for what is frozen. What is drawn anew, because it is wanted so or because the files lack
/// it, is trained whatever its name is.
pub fn trained(
    config: &ModelConfig,
    found: &Shapes,
    settings: &ModelSettings,
    (objective, num_classes): (TrainingObjective, u64),
) -> Shapes {
    let modules = head(config, objective, num_classes);
    let wanted: BTreeSet<&String> = modules.iter().flat_map(Shapes::keys).collect();
    // A classifier in the files has learned another task; only its pooler is gone on with.
    let is_given = |name: &str| {
        objective != TrainingObjective::Classification || Depth::of(name) == Depth::Pooler
    };
    let reinitialized = usize::try_from(settings.reinitialize_layers).unwrap_or(usize::MAX);
    let first_new = config.num_hidden_layers.saturating_sub(reinitialized);
    let is_new = |name: &str| match Depth::of(name) {
        Depth::Layer(number) => number >= first_new,
        Depth::Pooler => reinitialized > 0,
        Depth::Embeddings | Depth::Head => false,
    };
    let (mut drawn, mut kept) = (Shapes::new(), Shapes::new());
    for (name, shape) in full_names(config.family, found) {
        let in_layers = Depth::of(&name) < Depth::Pooler;
        if is_new(&name) && in_layers {
            drawn.insert(name, shape);
        } else if !is_new(&name) && (in_layers || (wanted.contains(&name) && is_given(&name))) {
            kept.insert(name, shape);
        }
    }
    for module in &modules {
        if !module.keys().all(|name| kept.contains_key(name)) {
            drawn.extend(module.clone());
        }
    }
    kept.retain(|name, _| !is_frozen(settings, name));
    // What is drawn takes the place of what is kept.
    kept.extend(drawn);
    kept
}

/// Whether a parameter that the files hold is not trained.
fn is_frozen(settings: &ModelSettings, name: &str) -> bool {
    let is_covered = match Depth::of(name) {
        Depth::Embeddings => settings.freeze_embeddings,
        Depth::Layer(number) => u32::try_from(number).is_ok_and(|n| n < settings.freeze_layers),
        Depth::Pooler | Depth::Head => false,
    };
    is_covered || settings.freeze_patterns.iter().any(|pattern| fits(pattern, name))
}

/// The tensors by the names that they have in models with a head.
fn full_names(family: Family, found: &Shapes) -> Shapes {
    let prefix = format!("{}.", family.model_type());
    let is_bare = !found.keys().any(|name| name.starts_with(&prefix));
    let parameters = found.iter().filter(|(name, _)| !is_buffer(name));
    let full = |(name, shape): (&String, &Vec<u64>)| {
        let modern = modern_name(name);
        let of_encoder = format!("{prefix}{modern}");
        let is_of_encoder = is_bare && Depth::of(&of_encoder) != Depth::Head;
        (if is_of_encoder { of_encoder } else { modern }, shape.clone())
    };
    parameters.map(full).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}"#;

    fn settings(rest: &str) -> ModelSettings {
        let text = format!(
            "version: 1
name: e
model: {{pretrained: m{rest}}}
data:
  train: {{path: d.csv}}
  validation: {{fraction: 0.1}}
  text: text
  label: {{column: label}}
budget: {{epochs: 1}}
"
        );
        Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}")).model
    }

    fn found(names: &[&str]) -> Shapes {
        names.iter().map(|name| ((*name).to_owned(), vec![3])).collect()
    }

    fn names(found: &Shapes, rest: &str) -> Vec<String> {
        let config = ModelConfig::parse(CONFIG.as_bytes()).unwrap();
        let what = (TrainingObjective::Classification, 3);
        trained(&config, found, &settings(rest), what).into_keys().collect()
    }

    const FILE: [&str; 7] = [
        "bert.embeddings.position_ids",
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.output.LayerNorm.gamma",
        "bert.encoder.layer.1.output.dense.bias",
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.predictions.bias",
    ];
    const HEAD: [&str; 4] = [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ];
    const WORDS: &str = "bert.embeddings.word_embeddings.weight";
    const LOW: &str = "bert.encoder.layer.0.output.LayerNorm.weight";
    const HIGH: &str = "bert.encoder.layer.1.output.dense.bias";

    fn with_head(encoder: &[&'static str]) -> Vec<&'static str> {
        encoder.iter().copied().chain(HEAD).collect()
    }

    #[test]
    fn what_is_frozen_is_not_trained() {
        let file = found(&FILE);
        assert_eq!(names(&file, ""), with_head(&[WORDS, LOW, HIGH]));
        assert_eq!(names(&file, ", freeze: {embeddings: true, layers: 1}"), with_head(&[HIGH]));
        assert_eq!(names(&file, ", freeze: {embeddings: true, layers: 2}"), with_head(&[]));
        let patterns = names(&file, ", freeze: {patterns: ['*layer*', '*.pooler.dense.bias']}");
        let rest = [WORDS, "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"];
        assert_eq!(patterns, rest);
    }

    #[test]
    fn what_is_drawn_anew_is_trained_whatever_it_is_called() {
        let all = ", freeze: {patterns: ['*']}";
        assert_eq!(names(&found(&FILE), all), ["classifier.bias", "classifier.weight"]);
        let headless: Vec<&str> =
            FILE.into_iter().filter(|name| !name.contains("pooler")).collect();
        assert_eq!(names(&found(&headless), all), HEAD);
        let anew = ", freeze: {patterns: ['*']}, reinitialize_layers: 1";
        assert_eq!(names(&found(&FILE), anew), with_head(&[HIGH]));
    }

    #[test]
    fn files_of_bare_encoders_are_brought_to_the_same_names() {
        let bare: Vec<&str> = FILE
            .into_iter()
            .filter(|name| !name.starts_with("cls."))
            .map(|name| name.trim_start_matches("bert."))
            .collect();
        assert_eq!(names(&found(&bare), ""), names(&found(&FILE), ""));
    }

    #[test]
    fn shapes_are_read_from_the_files_that_count_and_from_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, head: &str| {
            let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
            bytes.extend(head.as_bytes());
            std::fs::write(directory.path().join(file), bytes).unwrap();
        };
        let entry = |name: &str| {
            format!(r#""{name}":{{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#)
        };
        write("other.safetensors", &format!("{{{}}}", entry("x")));
        write(
            "one.safetensors",
            &format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}"#, entry("a")),
        );
        write("two.safetensors", &format!("{{{}}}", entry("b")));
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        std::fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
        let read = || read_shapes(directory.path());
        let both = Shapes::from([("a".to_owned(), vec![2, 3]), ("b".to_owned(), vec![2, 3])]);
        assert_eq!(read().unwrap(), both);
        write("two.safetensors", "{");
        assert!(read().unwrap_err().to_string().contains("two.safetensors"));
        write("model.safetensors", &format!("{{{}}}", entry("c")));
        assert_eq!(read().unwrap().into_keys().collect::<Vec<_>>(), ["c"]);
    }
}
