//! Weights from safetensors files: names as in the file, missing and unexpected ones are errors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use muster_common::digest::ContentHash;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use super::batch::extent;
use super::config::BertConfig;
use super::parameters::NamedTensors;
use super::{ModelError, NameList};

/// Name of the weights in a model directory.
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";

/// A pretrained encoder as it lies in a Hugging Face directory.
#[derive(Debug)]
pub struct Pretrained {
    /// Where it was read.
    pub directory: PathBuf,
    /// Its `config.json`.
    pub config: BertConfig,
    /// Parameters in 32-bit floats, named as in `BertForSequenceClassification` (`bert.` in front).
    pub weights: NamedTensors,
    /// Digest of the weights file.
    pub sha256: ContentHash,
}

impl Pretrained {
    /// Reads `config.json` and `model.safetensors`. Files of a bare encoder (names without `bert.`)
    /// and of models with a head are accepted; heads are left aside, a pooler may be missing.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        let (pretrained, head) = Self::read_parts(directory)?;
        if !head.is_empty() {
            tracing::info!(
                directory = %directory.display(),
                "the pretrained model has a classifier of its own; a new one is trained"
            );
        }
        Ok(pretrained)
    }

    /// As [`Pretrained::read`], with the parameters of the classifier.
    pub(crate) fn read_with_head(directory: &Path) -> Result<(Self, NamedTensors), ModelError> {
        Self::read_parts(directory)
    }

    fn read_parts(directory: &Path) -> Result<(Self, NamedTensors), ModelError> {
        let config = BertConfig::read(directory)?;
        let path = directory.join(WEIGHTS_FILE);
        let shown = path.display().to_string();
        let bytes = std::fs::read(&path)
            .map_err(|source| ModelError::Read { path: shown.clone(), source })?;
        let sha256 = ContentHash::of(&bytes);
        let found = named_tensors(&bytes)
            .map_err(|reason| ModelError::Damaged { path: shown.clone(), reason })?;
        drop(bytes);
        let Sorted { weights, head, unexpected } = sort_names(found, &config);
        let missing: Vec<String> = expected_names(&config)
            .filter(|name| !weights.contains_key(name))
            .filter(|name| !is_pooler(name) || weights.keys().any(|name| is_pooler(name)))
            .collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            let (missing, unexpected) = (NameList(missing), NameList(unexpected));
            return Err(ModelError::Names { path: shown, missing, unexpected });
        }
        Ok((Self { directory: directory.to_path_buf(), config, weights, sha256 }, head))
    }
}

struct Sorted {
    weights: NamedTensors,
    head: NamedTensors,
    unexpected: Vec<String>,
}

/// Brings the names to one form and tells encoder, head and strangers apart.
fn sort_names(found: NamedTensors, config: &BertConfig) -> Sorted {
    let bare = !found.keys().any(|name| name.starts_with("bert."));
    let expected: BTreeSet<String> = expected_names(config).collect();
    let mut sorted =
        Sorted { weights: NamedTensors::new(), head: NamedTensors::new(), unexpected: Vec::new() };
    for (name, tensor) in found {
        // A buffer of old files (0, 1, 2, ...), and the heads of BERT's own pretraining.
        if name.ends_with("embeddings.position_ids") || name.starts_with("cls.") {
            continue;
        }
        if name == "classifier.weight" || name == "classifier.bias" {
            sorted.head.insert(name, tensor);
            continue;
        }
        let full = if bare { format!("bert.{name}") } else { name.clone() };
        // Files converted from the first release call the parameters of LayerNorm so.
        let full = full
            .replace("LayerNorm.gamma", "LayerNorm.weight")
            .replace("LayerNorm.beta", "LayerNorm.bias");
        if expected.contains(&full) {
            sorted.weights.insert(full, tensor);
        } else {
            sorted.unexpected.push(name);
        }
    }
    sorted
}

fn is_pooler(name: &str) -> bool {
    name.starts_with("bert.pooler.")
}

/// Names of the encoder's parameters and of the pooler's.
fn expected_names(config: &BertConfig) -> impl Iterator<Item = String> + use<> {
    const LAYER_MODULES: [&str; 8] = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ];
    let tables = ["word", "position", "token_type"]
        .map(|table| format!("bert.embeddings.{table}_embeddings.weight"));
    let layers = (0..config.num_hidden_layers).flat_map(|number| {
        LAYER_MODULES.map(|module| format!("bert.encoder.layer.{number}.{module}"))
    });
    let modules = ["bert.embeddings.LayerNorm", "bert.pooler.dense"].map(str::to_owned);
    let modules = modules.into_iter().chain(layers);
    let both = modules.flat_map(|module| ["weight", "bias"].map(|leaf| format!("{module}.{leaf}")));
    tables.into_iter().chain(both)
}

/// The tensors of the safetensors file at `path`, floats of any width as 32-bit floats.
pub fn read_tensors(path: &Path) -> Result<NamedTensors, ModelError> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| ModelError::Read { path: shown(), source })?;
    named_tensors(&bytes).map_err(|reason| ModelError::Damaged { path: shown(), reason })
}

/// Tensors of a safetensors file, floats of any width as 32-bit floats, integers as they are.
pub(crate) fn named_tensors(bytes: &[u8]) -> Result<NamedTensors, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.iter() {
        let tensor = tensor_of(&view).map_err(|reason| format!("{name}: {reason}"))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// The texts beside the tensors of a safetensors file.
pub(crate) fn texts_of(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    Ok(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        other => return Err(format!("elements of type {other:?} are not read")),
    };
    let shape: Vec<i64> = view.shape().iter().map(|size| extent(*size)).collect();
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
    let tensor = match kind {
        Kind::Int64 | Kind::Float => tensor,
        _ => tensor.and_then(|tensor| tensor.f_to_kind(Kind::Float)),
    };
    tensor.map_err(|error| error.to_string())
}

/// A safetensors file of 32-bit float tensors, sorted by name, with a few texts beside them.
pub(crate) fn serialize_tensors<'a>(
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    texts: BTreeMap<String, String>,
) -> Result<Vec<u8>, ModelError> {
    let mut contents = Vec::new();
    for (name, tensor) in tensors {
        let shape: Vec<usize> =
            tensor.size().iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        let count = tensor.numel();
        let mut data = vec![0; count * 4];
        let flat = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?;
        flat.f_copy_data_u8(&mut data, count)?;
        contents.push((name, shape, data));
    }
    let views = contents
        .iter()
        .map(|(name, shape, data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data);
            view.map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>();
    let texts = (!texts.is_empty()).then(|| texts.into_iter().collect());
    views
        .and_then(|views| safetensors::serialize(views, texts))
        .map_err(|error| ModelError::Torch(format!("cannot write safetensors: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CONFIG_FILE;

    fn tiny() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/hf/tiny")
    }

    /// A copy of the tiny model whose tensors went through `change`.
    fn changed(change: impl Fn(&mut NamedTensors)) -> Result<Pretrained, ModelError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(tiny().join(CONFIG_FILE), directory.path().join(CONFIG_FILE)).unwrap();
        let mut tensors = read_tensors(&tiny().join(WEIGHTS_FILE)).unwrap();
        change(&mut tensors);
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        let bytes = serialize_tensors(named, BTreeMap::new()).unwrap();
        std::fs::write(directory.path().join(WEIGHTS_FILE), bytes).unwrap();
        Pretrained::read(directory.path())
    }

    fn rename(tensors: &mut NamedTensors, new_name: impl Fn(&str) -> String) {
        *tensors = std::mem::take(tensors).into_iter().map(|(k, v)| (new_name(&k), v)).collect();
    }

    #[test]
    fn names_of_older_and_of_bare_files_are_accepted() {
        let wanted = Pretrained::read(&tiny()).unwrap().weights;
        let bare = changed(|tensors| {
            tensors.retain(|name, _| !name.starts_with("classifier"));
            rename(tensors, |name| name.trim_start_matches("bert.").to_owned());
            tensors.insert("embeddings.position_ids".to_owned(), Tensor::from_slice(&[0i64, 1]));
        });
        let old = changed(|tensors| {
            rename(tensors, |name| {
                name.replace("LayerNorm.weight", "LayerNorm.gamma")
                    .replace("LayerNorm.bias", "LayerNorm.beta")
            });
            tensors.insert("cls.seq_relationship.bias".to_owned(), Tensor::from_slice(&[0f32]));
        });
        assert_eq!(bare.unwrap().weights, wanted);
        assert_eq!(old.unwrap().weights, wanted);
        let headless = changed(|tensors| tensors.retain(|name, _| !name.contains("pooler")));
        assert_eq!(headless.unwrap().weights.len(), wanted.len() - 2);
    }

    #[test]
    fn missing_and_unexpected_names_are_listed() {
        let query = "bert.encoder.layer.1.attention.self.query.weight";
        let error = changed(|tensors| {
            tensors.remove(query);
            tensors.remove("bert.pooler.dense.bias");
            tensors.insert("bert.encoder.layer.3.extra".to_owned(), Tensor::from_slice(&[0f32]));
        });
        let error = error.unwrap_err();
        assert!(error.is_permanent());
        for name in [query, "bert.pooler.dense.bias", "layer.3.extra"] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn narrow_floats_are_widened() {
        let tensor = Tensor::from_slice(&[1.5f32, -0.25]);
        for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
            let narrow = tensor.to_kind(kind);
            let mut data = vec![0; narrow.numel() * kind.elt_size_in_bytes()];
            narrow.copy_data_u8(&mut data, narrow.numel());
            let dtype = match kind {
                Kind::Half => Dtype::F16,
                Kind::BFloat16 => Dtype::BF16,
                _ => Dtype::F64,
            };
            let view = TensorView::new(dtype, vec![2], &data).unwrap();
            let bytes = safetensors::serialize([("x", view)], None).unwrap();
            assert_eq!(named_tensors(&bytes).unwrap()["x"], tensor);
        }
        assert!(named_tensors(b"no tensors at all").is_err());
    }
}
