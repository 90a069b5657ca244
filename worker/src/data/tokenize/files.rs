//! The files of a tokenizer in Hugging Face layout: `tokenizer.json`, else `vocab.txt` (WordPiece of
//! BERT and DistilBERT), else `vocab.json` with `merges.txt` (byte-level BPE of RoBERTa).

use std::path::{Path, PathBuf};

use muster_common::digest::ContentHash;
use muster_common::model::TokenizerKind;
pub(super) use muster_common::model::tokenizer_file::{MERGES, PIECES, WHOLE, WORDS};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Model, Tokenizer, decoders};

use super::{DataError, read, refused};

/// Settings beside the vocabularies.
pub(super) const SETTINGS: &str = "tokenizer_config.json";
/// Names of special tokens beside the vocabularies.
pub(super) const SPECIAL: &str = "special_tokens_map.json";

/// A tokenizer as its files describe it, the file it is named after in messages, and the digest of
/// everything that decides on its tokens.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) tokenizer: Tokenizer,
    pub(super) sha256: ContentHash,
}

/// Opens the first kind of tokenizer whose files are there.
pub(super) fn open(directory: &Path) -> Result<Opened, DataError> {
    match TokenizerKind::find(directory) {
        Some(TokenizerKind::Whole) => open_whole(directory.join(WHOLE)),
        Some(TokenizerKind::Words) => open_word_piece(directory),
        Some(TokenizerKind::BytePairs) => open_byte_pairs(directory),
        None => Err(refused(directory, TokenizerKind::missing())),
    }
}

fn open_whole(path: PathBuf) -> Result<Opened, DataError> {
    let bytes = read(&path)?;
    let tokenizer = Tokenizer::from_bytes(&bytes)
        .map_err(|error| refused(&path, format!("not a tokenizer: {error}")))?;
    let sha256 = ContentHash::of(&bytes);
    Ok(Opened { path, tokenizer, sha256 })
}

/// Contents of `name`, or of an empty JSON object where there is no such file.
fn optional(directory: &Path, name: &str) -> Result<Vec<u8>, DataError> {
    let path = directory.join(name);
    if path.exists() { read(&path) } else { Ok(b"{}".to_vec()) }
}

/// Digest over several files: each with its length first, so that two files never hash like two
/// others that are cut elsewhere.
fn digest(files: &[&[u8]]) -> ContentHash {
    let mut hashed = Vec::new();
    for file in files {
        hashed.extend((file.len() as u64).to_le_bytes());
        hashed.extend_from_slice(file);
    }
    ContentHash::of(&hashed)
}

/// What `tokenizer_config.json` says beside a `vocab.txt`; defaults are those of BERT.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct WordPieceSettings {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: Option<bool>,
}

impl Default for WordPieceSettings {
    fn default() -> Self {
        Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
    }
}

fn open_word_piece(directory: &Path) -> Result<Opened, DataError> {
    let (path, settings_path) = (directory.join(WORDS), directory.join(SETTINGS));
    let settings = optional(directory, SETTINGS)?;
    let parsed = serde_json::from_slice(&settings)
        .map_err(|error| refused(&settings_path, error.to_string()))?;
    let bytes = read(&path)?;
    let tokenizer = word_piece(&bytes, &parsed).map_err(|why| refused(&path, why))?;
    Ok(Opened { path, tokenizer, sha256: digest(&[&bytes, &settings]) })
}

/// The number of a token that must be there.
fn number(model: &impl Model, token: &str) -> Result<(String, u32), String> {
    let id = model.token_to_id(token).ok_or_else(|| format!("there is no `{token}`"))?;
    Ok((token.to_owned(), id))
}

/// As `BertTokenizerFast` of transformers builds it.
pub(super) fn word_piece(
    vocabulary: &[u8],
    settings: &WordPieceSettings,
) -> Result<Tokenizer, String> {
    let vocabulary = WordPiece::read_bytes(vocabulary).map_err(|error| error.to_string())?;
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .unk_token("[UNK]".to_owned())
        .build()
        .map_err(|error| error.to_string())?;
    let processor = BertProcessing::new(number(&model, "[SEP]")?, number(&model, "[CLS]")?);
    number(&model, "[UNK]")?;
    let there = |token: &&str| model.token_to_id(token).is_some();
    // Written in a text, the name of a special token is that token, as in the original.
    let special: Vec<AddedToken> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .filter(|token| there(token))
        .map(|token| AddedToken::from(*token, true))
        .collect();
    let normalizer = BertNormalizer::new(
        true,
        settings.tokenize_chinese_chars,
        settings.strip_accents,
        settings.do_lower_case,
    );
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| error.to_string())?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer)).with_post_processor(Some(processor));
    tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    tokenizer.add_special_tokens(special).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

/// What the files beside a `vocab.json` say; defaults are those of RoBERTa.
#[derive(Debug)]
pub(super) struct BytePairSettings {
    add_prefix_space: bool,
    /// Whether the mask takes the blank before it.
    mask_strips: bool,
    /// Names of the beginning, the end, padding, unknown and mask.
    names: [String; 5],
}

/// Keys of the special tokens and RoBERTa's names.
const ROLES: [(&str, &str); 5] = [
    ("cls_token", "<s>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("unk_token", "<unk>"),
    ("mask_token", "<mask>"),
];

impl BytePairSettings {
    /// From the contents of `tokenizer_config.json` and `special_tokens_map.json`; a name in the
    /// former wins.
    pub(super) fn parse(settings: &Value, special: &Value) -> Result<Self, String> {
        let add_prefix_space = match settings.get("add_prefix_space") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(truth)) => *truth,
            Some(other) => return Err(format!("add_prefix_space is {other}, no truth value")),
        };
        let name = |(role, default): (&str, &str)| {
            let written = [settings, special].into_iter().find_map(|file| file.get(role));
            match written {
                None | Some(Value::Null) => Ok(default.to_owned()),
                Some(Value::String(name)) => Ok(name.clone()),
                Some(Value::Object(fields)) => fields
                    .get("content")
                    .and_then(Value::as_str)
                    .map(ToOwned::to_owned)
                    .ok_or_else(|| format!("{role} has no `content`")),
                Some(other) => Err(format!("{role} is {other}, no name")),
            }
        };
        let mask_fields = [settings, special].into_iter().find_map(|file| file.get("mask_token"));
        let mask_strips = mask_fields.and_then(|fields| fields.get("lstrip")?.as_bool());
        let mask_strips = mask_strips.unwrap_or(true);
        let [cls, sep, pad, unk, mask] = ROLES.map(name);
        Ok(Self { add_prefix_space, mask_strips, names: [cls?, sep?, pad?, unk?, mask?] })
    }
}

fn open_byte_pairs(directory: &Path) -> Result<Opened, DataError> {
    let (path, merges_path) = (directory.join(PIECES), directory.join(MERGES));
    let (vocabulary, merges) = (read(&path)?, read(&merges_path)?);
    let settings = optional(directory, SETTINGS)?;
    let special = optional(directory, SPECIAL)?;
    let json = |name: &str, bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes)
            .map_err(|error| refused(&directory.join(name), error.to_string()))
    };
    let parsed = BytePairSettings::parse(&json(SETTINGS, &settings)?, &json(SPECIAL, &special)?)
        .map_err(|why| refused(&directory.join(SETTINGS), why))?;
    let parsed_merges = parse_merges(&merges).map_err(|why| refused(&merges_path, why))?;
    let tokenizer =
        byte_pairs(&vocabulary, parsed_merges, &parsed).map_err(|why| refused(&path, why))?;
    let sha256 = digest(&[&vocabulary, &merges, &settings, &special]);
    Ok(Opened { path, tokenizer, sha256 })
}

/// Two pieces per line; a first line that begins with `#version` is a remark.
pub(super) fn parse_merges(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let remark = number == 1 && line.starts_with("#version");
        if remark || line.is_empty() {
            continue;
        }
        let mut pieces = line.split(' ');
        match (pieces.next(), pieces.next(), pieces.next()) {
            (Some(left), Some(right), None) if !left.is_empty() && !right.is_empty() => {
                merges.push((left.to_owned(), right.to_owned()));
            }
            _ => return Err(format!("line {number} is not two pieces with a blank between")),
        }
    }
    Ok(merges)
}

/// As `RobertaTokenizerFast` of transformers builds it.
pub(super) fn byte_pairs(
    vocabulary: &[u8],
    merges: Vec<(String, String)>,
    settings: &BytePairSettings,
) -> Result<Tokenizer, String> {
    let vocabulary: std::collections::BTreeMap<String, u32> =
        serde_json::from_slice(vocabulary).map_err(|error| error.to_string())?;
    let vocabulary: Vocab = vocabulary.into_iter().collect();
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .build()
        .map_err(|error| error.to_string())?;
    let [cls, sep, pad, unk, mask] = &settings.names;
    let processor = RobertaProcessing::new(number(&model, sep)?, number(&model, cls)?)
        .trim_offsets(true)
        .add_prefix_space(settings.add_prefix_space);
    let mut special = Vec::new();
    for token in [cls, pad, sep, unk] {
        if model.token_to_id(token).is_some() {
            special.push(AddedToken::from(token.as_str(), true));
        }
    }
    if model.token_to_id(mask).is_some() {
        // A word with the blank before it is one piece, and so is what stands for it.
        special.push(AddedToken::from(mask.as_str(), true).lstrip(settings.mask_strips));
    }
    let mut tokenizer = Tokenizer::new(model);
    let pieces = ByteLevel::new(settings.add_prefix_space, true, true);
    tokenizer.with_pre_tokenizer(Some(pieces)).with_post_processor(Some(processor));
    tokenizer.with_decoder(Some(pieces));
    tokenizer.add_special_tokens(special).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}
