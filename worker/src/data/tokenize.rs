//! Texts to token ids, with the tokenizer that belongs to the pretrained weights.

use std::path::Path;
use std::thread;

use muster_common::digest::ContentHash;
use serde::Deserialize;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{Model as _, Tokenizer, TruncationParams};

use super::DataError;

/// Files of a tokenizer in Hugging Face layout; the first is enough, the others are read without it.
const WHOLE: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.txt";
const SETTINGS: &str = "tokenizer_config.json";

/// Turns texts into token ids, special tokens included.
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    sha256: ContentHash,
    path: String,
}

/// Tokens of one example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// So many of the first tokens are in segment 0, the rest in segment 1.
    pub first_segment: usize,
}

/// One text or two to be read as one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// The text.
    pub text: &'a str,
    /// The second text of a pair.
    pub pair: Option<&'a str>,
}

/// What `tokenizer_config.json` says beside a `vocab.txt`; defaults are those of BERT.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct WordPieceSettings {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: Option<bool>,
}

impl Default for WordPieceSettings {
    fn default() -> Self {
        Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
    }
}

impl TextTokenizer {
    /// Opens `tokenizer.json`, or `vocab.txt` where there is none, in a Hugging Face directory.
    /// Texts of more than `max_length` tokens, special tokens counted, keep their head.
    pub fn open(directory: &Path, max_length: u32) -> Result<Self, DataError> {
        let whole = directory.join(WHOLE);
        let vocabulary = directory.join(VOCABULARY);
        let (path, tokenizer, sha256) = if whole.exists() || !vocabulary.exists() {
            let bytes = read(&whole)?;
            let tokenizer = Tokenizer::from_bytes(&bytes)
                .map_err(|error| refused(&whole, format!("not a tokenizer: {error}")))?;
            (whole, tokenizer, ContentHash::of(&bytes))
        } else {
            let settings = directory.join(SETTINGS);
            let settings_bytes = if settings.exists() { read(&settings)? } else { b"{}".to_vec() };
            let parsed = serde_json::from_slice(&settings_bytes)
                .map_err(|error| refused(&settings, error.to_string()))?;
            let bytes = read(&vocabulary)?;
            let tokenizer = word_piece(&bytes, &parsed).map_err(|why| refused(&vocabulary, why))?;
            // Length first: two files never hash like two others cut elsewhere.
            let length = (bytes.len() as u64).to_le_bytes();
            let hashed = [&length[..], &bytes, &settings_bytes].concat();
            (vocabulary, tokenizer, ContentHash::of(&hashed))
        };
        let tokenizer = settle(tokenizer, max_length).map_err(|why| refused(&path, why))?;
        Ok(Self { tokenizer, sha256, path: path.display().to_string() })
    }

    /// Digest of the files that decide on the tokens.
    pub fn sha256(&self) -> &ContentHash {
        &self.sha256
    }

    /// Token ids of every text, in order. The result does not depend on `num_threads`.
    pub fn encode(&self, texts: &[&str], num_threads: usize) -> Result<Vec<Vec<u32>>, DataError> {
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input { text, pair: None }).collect();
        let sequences = self.encode_inputs(&inputs, num_threads)?;
        Ok(sequences.into_iter().map(|sequence| sequence.ids).collect())
    }

    /// Tokens of every example, in order. The result does not depend on `num_threads`.
    pub fn encode_inputs(
        &self,
        inputs: &[Input<'_>],
        num_threads: usize,
    ) -> Result<Vec<Sequence>, DataError> {
        // The pool inside the library takes every core of the machine; a slot has its own share.
        set_parallelism(false);
        let size = inputs.len().div_ceil(num_threads.max(1)).max(1);
        let parts: Vec<Result<Vec<Sequence>, DataError>> = thread::scope(|scope| {
            let spawn = |part| scope.spawn(move || self.encode_part(part));
            let threads: Vec<_> = inputs.chunks(size).map(spawn).collect();
            let panicked = |_| self.refused("the tokenizer panicked".to_owned());
            threads.into_iter().map(|thread| thread.join().map_err(panicked)?).collect()
        });
        let parts: Result<Vec<_>, _> = parts.into_iter().collect();
        Ok(parts?.into_iter().flatten().collect())
    }

    fn encode_part(&self, inputs: &[Input<'_>]) -> Result<Vec<Sequence>, DataError> {
        let encode = |input: &Input<'_>| {
            let encoding = match input.pair {
                Some(pair) => self.tokenizer.encode_fast((input.text, pair), true),
                None => self.tokenizer.encode_fast(input.text, true),
            };
            let encoding = encoding.map_err(|error| self.refused(error.to_string()))?;
            let first_segment = match input.pair {
                Some(_) => encoding.get_type_ids().iter().take_while(|kind| **kind == 0).count(),
                None => encoding.get_ids().len(),
            };
            Ok(Sequence { ids: encoding.get_ids().to_vec(), first_segment })
        };
        inputs.iter().map(encode).collect()
    }

    fn refused(&self, message: String) -> DataError {
        DataError::refused(&*self.path, message)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path)
        .map_err(|source| DataError::Read { path: path.display().to_string(), source })
}

fn refused(path: &Path, message: String) -> DataError {
    DataError::refused(path.display().to_string(), message)
}

/// Our length, no padding, and a check that texts are wrapped in special tokens.
fn settle(mut tokenizer: Tokenizer, max_length: u32) -> Result<Tokenizer, String> {
    tokenizer.with_padding(None);
    let probe = tokenizer.encode_fast("", true).map_err(|error| error.to_string())?;
    let special = probe.get_special_tokens_mask();
    if special.len() < 2 || special.contains(&0) {
        return Err(
            "the tokenizer puts no special tokens around a text: it belongs to no BERT model"
                .to_owned(),
        );
    }
    let max_length = usize::try_from(max_length).unwrap_or(usize::MAX);
    if max_length <= special.len() {
        let count = special.len();
        return Err(format!("{count} special tokens leave no room in {max_length} tokens"));
    }
    let truncation = TruncationParams { max_length, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

fn word_piece(vocabulary: &[u8], settings: &WordPieceSettings) -> Result<Tokenizer, String> {
    let vocabulary = WordPiece::read_bytes(vocabulary).map_err(|error| error.to_string())?;
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .unk_token("[UNK]".to_owned())
        .build()
        .map_err(|error| error.to_string())?;
    let special = |token: &str| {
        let id = model.token_to_id(token).ok_or_else(|| format!("there is no `{token}`"))?;
        Ok::<_, String>((token.to_owned(), id))
    };
    let processor = BertProcessing::new(special("[SEP]")?, special("[CLS]")?);
    special("[UNK]")?;
    let normalizer = BertNormalizer::new(
        true,
        settings.tokenize_chinese_chars,
        settings.strip_accents,
        settings.do_lower_case,
    );
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| error.to_string())?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer)).with_post_processor(Some(processor));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::{PaddingParams, PaddingStrategy};

    const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\n##s\n!\nna\n##ive\n";

    fn directory(name: &str, contents: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), contents).unwrap();
        directory
    }

    fn from_words(max_length: u32) -> TextTokenizer {
        TextTokenizer::open(directory(VOCABULARY, WORDS.as_bytes()).path(), max_length).unwrap()
    }

    #[test]
    fn words_become_pieces_between_special_tokens() {
        let texts = ["Good  films!", "Naïve", "", "unknown", "good good good good"];
        let tokens = from_words(5).encode(&texts, 1).unwrap();
        let expected: [&[u32]; 5] =
            [&[2, 4, 5, 6, 3], &[2, 8, 9, 3], &[2, 3], &[2, 1, 3], &[2, 4, 4, 4, 3]];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn settings_stored_with_the_tokenizer_do_not_count() {
        let parsed = WordPieceSettings::default();
        let mut stored = word_piece(WORDS.as_bytes(), &parsed).unwrap();
        let strategy = PaddingStrategy::Fixed(16);
        stored.with_padding(Some(PaddingParams { strategy, ..PaddingParams::default() }));
        let truncation = TruncationParams { max_length: 4, ..TruncationParams::default() };
        stored.with_truncation(Some(truncation)).unwrap();
        let directory = directory(WHOLE, stored.to_string(false).unwrap().as_bytes());
        let tokenizer = TextTokenizer::open(directory.path(), 6).unwrap();
        let tokens = tokenizer.encode(&["good", "good film good film good film"], 1).unwrap();
        assert_eq!(tokens, [vec![2, 4, 3], vec![2, 4, 5, 4, 5, 3]]);
    }

    #[test]
    fn case_counts_where_the_settings_say_so() {
        let directory = directory(VOCABULARY, WORDS.as_bytes());
        std::fs::write(directory.path().join(SETTINGS), r#"{"do_lower_case": false}"#).unwrap();
        let cased = TextTokenizer::open(directory.path(), 8).unwrap();
        assert_eq!(cased.encode(&["Good good"], 1).unwrap(), [[2, 1, 4, 3]]);
        assert_ne!(cased.sha256(), from_words(8).sha256());
    }

    #[test]
    fn tokenizers_that_cannot_serve_are_refused_with_their_file() {
        let open = |name: &str, contents: &[u8], max_length: u32| {
            let error =
                TextTokenizer::open(directory(name, contents).path(), max_length).unwrap_err();
            assert!(error.is_permanent());
            error.to_string()
        };
        assert!(open(WHOLE, b"{}", 8).contains("tokenizer.json: not a tokenizer"));
        assert!(open(VOCABULARY, b"good\nfilm\n", 8).contains("there is no `[SEP]`"));
        assert!(open(VOCABULARY, WORDS.as_bytes(), 2).contains("leave no room in 2"));
        let mut bare = word_piece(WORDS.as_bytes(), &WordPieceSettings::default()).unwrap();
        bare.with_post_processor(None::<BertProcessing>);
        let bare = bare.to_string(false).unwrap();
        assert!(open(WHOLE, bare.as_bytes(), 8).contains("no special tokens"));
        assert!(open("other", b"", 8).contains("tokenizer.json"));
    }

    #[test]
    fn the_vocabulary_alone_gives_the_tokens_of_the_demo_model() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/demo");
        let (model, data) = (root.join("minilm"), root.join("movie-reviews/sentences.tsv"));
        if !model.exists() || !data.exists() {
            let name = "the_vocabulary_alone_gives_the_tokens_of_the_demo_model";
            println!(
                "MUSTER-SKIP {name}: demo inputs are missing, run deploy/setup/demo_inputs.sh"
            );
            return;
        }
        let words = directory(VOCABULARY, &std::fs::read(model.join(VOCABULARY)).unwrap());
        let words = TextTokenizer::open(words.path(), 64).unwrap();
        let whole = TextTokenizer::open(&model, 64).unwrap();
        assert_eq!(whole.encode(&["Hello world"], 1).unwrap(), [[101, 7592, 2088, 102]]);
        let text = std::fs::read_to_string(data).unwrap();
        let texts: Vec<&str> = text.lines().collect();
        assert!(texts.len() > 10_000);
        assert!(words.encode(&texts, 2).unwrap() == whole.encode(&texts, 1).unwrap());
    }

    proptest! {
        #[test]
        fn any_text_becomes_tokens_whatever_the_number_of_threads(
            texts in proptest::collection::vec(".{0,40}", 0..12), threads in 0usize..5,
            max_length in 3u32..12,
        ) {
            let tokenizer = from_words(max_length);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let tokens = tokenizer.encode(&texts, threads).unwrap();
            prop_assert_eq!(tokens.len(), texts.len());
            for tokens in &tokens {
                prop_assert!((2..=max_length as usize).contains(&tokens.len()));
                prop_assert_eq!((tokens.first(), tokens.last()), (Some(&2), Some(&3)));
            }
            prop_assert_eq!(tokenizer.encode(&texts, 1).unwrap(), tokens);
        }
    }
}
