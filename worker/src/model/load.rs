//! A pretrained model from a Hugging Face directory: names are brought to one form, and missing and
//! unexpected ones are errors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use muster_common::digest::ContentHash;
use muster_common::model::{
    CONFIG_FILE, DirectoryError, ModelConfig, is_buffer, modern_name, weights_files,
};

use super::family::Described;
use super::parameters::NamedTensors;
use super::tensors::named_tensors;
use super::{ModelError, NameList};

/// A pretrained encoder as it lies in a Hugging Face directory.
#[derive(Debug)]
pub struct Pretrained {
    /// Where it was read.
    pub directory: PathBuf,
    /// Its `config.json`.
    pub config: ModelConfig,
    /// The encoder's parameters, and the pooler's where there is one, in 32-bit floats, named as in
    /// models with a head (`bert.` and the like in front).
    pub weights: NamedTensors,
    /// Parameters of the heads in the files. The decoders of language models, which share the word
    /// embeddings, are left out.
    pub heads: NamedTensors,
    /// Digest of `config.json` and of the weights.
    pub sha256: ContentHash,
}

/// Tells the files of a pretrained model from ones that were written over them, without reading
/// the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PretrainedStamp {
    directory: PathBuf,
    files: Vec<(u64, Option<SystemTime>)>,
}

impl PretrainedStamp {
    pub(crate) fn of(directory: &Path) -> Result<Self, ModelError> {
        let mut names = weights_files(directory)?;
        names.push(CONFIG_FILE.to_owned());
        let stamp = |name: &String| {
            let file = std::fs::metadata(directory.join(name)).ok();
            let bytes = file.as_ref().map_or(0, std::fs::Metadata::len);
            (bytes, file.and_then(|file| file.modified().ok()))
        };
        let files = names.iter().map(stamp).collect();
        Ok(Self { directory: directory.to_path_buf(), files })
    }
}

impl Pretrained {
    /// Reads `config.json` and `model.safetensors`, or the files that
    /// `model.safetensors.index.json` names. Files of a bare encoder (names without `bert.` in
    /// front) and of models with a head are accepted; a pooler may be missing.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::read(directory)?;
        let mut identity = format!("{CONFIG_FILE} {}\n", digest(&read(directory, CONFIG_FILE)?));
        let mut found = NamedTensors::new();
        let mut repeated = Vec::new();
        for file in weights_files(directory)? {
            let bytes = read(directory, &file)?;
            identity += &format!("{file} {}\n", digest(&bytes));
            let tensors = named_tensors(&bytes).map_err(|reason| ModelError::Damaged {
                path: directory.join(&file).display().to_string(),
                reason,
            })?;
            for (name, tensor) in tensors {
                if found.insert(name.clone(), tensor).is_some() {
                    repeated.push(name);
                }
            }
        }
        let Sorted { weights, heads, mut unexpected } = sort_names(found, &config);
        unexpected.extend(repeated);
        let has_pooler = config.family.pooler_names().any(|name| weights.contains_key(&name));
        let pooler = config.family.pooler_names().filter(|_| has_pooler);
        let missing: Vec<String> = encoder_names(&config)
            .chain(pooler)
            .filter(|name| !weights.contains_key(name))
            .collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            let (missing, unexpected) = (NameList(missing), NameList(unexpected));
            let path = directory.display().to_string();
            return Err(ModelError::Names { path, missing, unexpected });
        }
        let sha256 = ContentHash::of(identity.as_bytes());
        Ok(Self { directory: directory.to_path_buf(), config, weights, heads, sha256 })
    }

    /// Refuses sequences of up to `max_length` tokens if the model cannot take them.
    pub fn check_max_length(&self, max_length: u32) -> Result<(), ModelError> {
        match self.config.misfit_of_length(max_length) {
            None => Ok(()),
            Some(misfit) => Err(ModelError::Misfit(misfit)),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    ContentHash::of(bytes).as_str().to_owned()
}

fn read(directory: &Path, file: &str) -> Result<Vec<u8>, DirectoryError> {
    let path = directory.join(file);
    std::fs::read(&path)
        .map_err(|source| DirectoryError::Read { path: path.display().to_string(), source })
}

struct Sorted {
    weights: NamedTensors,
    heads: NamedTensors,
    unexpected: Vec<String>,
}

/// Brings the names to one form and tells encoder, heads and strangers apart.
fn sort_names(found: NamedTensors, config: &ModelConfig) -> Sorted {
    let family = config.family.description();
    let prefix = format!("{}.", family.encoder);
    let bare = !found.keys().any(|name| name.starts_with(&prefix));
    let expected: BTreeSet<String> =
        encoder_names(config).chain(config.family.pooler_names()).collect();
    let is_head = |name: &str| family.heads.iter().any(|head| name.starts_with(head));
    let mut sorted =
        Sorted { weights: NamedTensors::new(), heads: NamedTensors::new(), unexpected: Vec::new() };
    let second_bias = |name: &str| name == family.masked.decoder_bias;
    let has_bias = found.contains_key(family.masked.bias);
    for (name, tensor) in found {
        if is_buffer(&name) {
            continue;
        }
        let mut full = modern_name(&name);
        if bare && !is_head(&full) {
            full = format!("{prefix}{full}");
        }
        if second_bias(&full) && !has_bias {
            family.masked.bias.clone_into(&mut full);
        }
        // What a decoder shares is here already.
        if full == family.masked.decoder || (full != family.masked.bias && second_bias(&full)) {
            continue;
        }
        let place = if expected.contains(&full) {
            &mut sorted.weights
        } else if is_head(&full) {
            &mut sorted.heads
        } else {
            sorted.unexpected.push(name);
            continue;
        };
        if place.insert(full, tensor).is_some() {
            sorted.unexpected.push(name);
        }
    }
    sorted
}

/// Names of the encoder's parameters, without the pooler's.
fn encoder_names(config: &ModelConfig) -> impl Iterator<Item = String> + use<> {
    let family = config.family;
    let layers = (0..config.num_hidden_layers).flat_map(move |number| family.layer_names(number));
    family.embedding_names().chain(layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::model::{Family, read_tensors, serialize_tensors};
    use muster_common::model::{WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
    use tch::Tensor;

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

    fn family_directory(family: &str, task: &str) -> PathBuf {
        let name = format!("../tests/golden/hf/families/{family}-{task}");
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn write(path: &Path, tensors: &NamedTensors) {
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        std::fs::write(path, serialize_tensors(named, BTreeMap::new()).unwrap()).unwrap();
    }

    /// A copy of a golden model with its tensors in two files and an index.
    fn sharded(family: &str) -> tempfile::TempDir {
        let (source, directory) =
            (family_directory(family, "masked"), tempfile::tempdir().unwrap());
        std::fs::copy(source.join(CONFIG_FILE), directory.path().join(CONFIG_FILE)).unwrap();
        let (mut map, mut parts) = (BTreeMap::new(), [NamedTensors::new(), NamedTensors::new()]);
        let tensors = read_tensors(&source.join(WEIGHTS_FILE)).unwrap();
        for (index, (name, tensor)) in tensors.into_iter().enumerate() {
            map.insert(name.clone(), format!("part-{}.safetensors", index % 2));
            parts[index % 2].insert(name, tensor);
        }
        for (index, part) in parts.iter().enumerate() {
            write(&directory.path().join(format!("part-{index}.safetensors")), part);
        }
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        std::fs::write(directory.path().join(WEIGHTS_INDEX_FILE), index.to_string()).unwrap();
        directory
    }

    #[test]
    fn weights_in_several_files_are_read_by_their_index() {
        for family in ["bert", "distilbert", "roberta"] {
            let directory = sharded(family);
            let whole = Pretrained::read(&family_directory(family, "masked")).unwrap();
            let parts = Pretrained::read(directory.path()).unwrap();
            assert_eq!((&parts.weights, &parts.heads), (&whole.weights, &whole.heads));
            assert!(!parts.heads.is_empty());
            let before = parts.sha256;
            let config = directory.path().join(CONFIG_FILE);
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, text.replace("\"vocab_size\"", "\"vocab_size\" ")).unwrap();
            assert_ne!(Pretrained::read(directory.path()).unwrap().sha256, before);
            std::fs::remove_file(directory.path().join("part-1.safetensors")).unwrap();
            let error = Pretrained::read(directory.path()).unwrap_err();
            assert!(error.to_string().contains("part-1.safetensors"), "{error}");
        }
    }

    #[test]
    fn an_index_names_files_beside_it_only() {
        let directory = sharded("bert");
        for (wrong, said) in [
            (r#"{"weight_map": {"a": "../secret.safetensors"}}"#, "secret"),
            (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "passwd"),
            ("{}", "weight_map"),
        ] {
            std::fs::write(directory.path().join(WEIGHTS_INDEX_FILE), wrong).unwrap();
            let error = Pretrained::read(directory.path()).unwrap_err();
            assert!(error.to_string().contains(said) && error.is_permanent(), "{error}");
        }
    }

    #[test]
    fn pickled_weights_are_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(tiny().join(CONFIG_FILE), directory.path().join(CONFIG_FILE)).unwrap();
        let error = Pretrained::read(directory.path()).unwrap_err();
        assert!(error.to_string().contains(WEIGHTS_FILE), "{error}");
        std::fs::write(directory.path().join("pytorch_model.bin"), b"pickle").unwrap();
        let error = Pretrained::read(directory.path()).unwrap_err();
        assert!(error.to_string().contains("save_pretrained") && error.is_permanent(), "{error}");
    }

    /// The names of every family, as bare encoders and with the decoder written a second time.
    #[test]
    fn bare_encoders_and_shared_decoders_of_every_family_are_accepted() {
        for family in Family::ALL {
            let description = family.description();
            let directory = family_directory(family.model_type(), "masked");
            let whole = Pretrained::read(&directory).unwrap();
            let masked = &description.masked;
            let mut tensors = read_tensors(&directory.join(WEIGHTS_FILE)).unwrap();
            let word = format!("{}.embeddings.word_embeddings.weight", description.encoder);
            let decoder = tensors[&word].shallow_clone();
            tensors.insert(masked.decoder.to_owned(), decoder);
            if masked.decoder_bias != masked.bias {
                let bias = tensors.remove(masked.bias).unwrap();
                tensors.insert(masked.decoder_bias.to_owned(), bias);
            }
            let copy = tempfile::tempdir().unwrap();
            std::fs::copy(directory.join(CONFIG_FILE), copy.path().join(CONFIG_FILE)).unwrap();
            write(&copy.path().join(WEIGHTS_FILE), &tensors);
            let again = Pretrained::read(copy.path()).unwrap();
            assert_eq!((&again.weights, &again.heads), (&whole.weights, &whole.heads));

            let prefix = format!("{}.", description.encoder);
            tensors.retain(|name, _| name.starts_with(&prefix));
            rename(&mut tensors, |name| name[prefix.len()..].to_owned());
            let hidden = whole.config.hidden_size;
            let pooler = Tensor::zeros([hidden, hidden], (tch::Kind::Float, tch::Device::Cpu));
            if family == Family::Roberta {
                tensors.insert("pooler.dense.weight".to_owned(), pooler);
            }
            write(&copy.path().join(WEIGHTS_FILE), &tensors);
            assert_eq!(Pretrained::read(copy.path()).unwrap().weights, whole.weights);
            tensors.insert("transformer.layer.7.odd".to_owned(), Tensor::from_slice(&[0f32]));
            write(&copy.path().join(WEIGHTS_FILE), &tensors);
            let error = Pretrained::read(copy.path()).unwrap_err();
            assert!(error.to_string().contains("layer.7.odd"), "{error}");
        }
    }
}
