//! Dynamic masking of tokens for language models: Devlin et al. 2019, section 3.1, drawn anew
//! whenever a sequence is seen (Liu et al. 2019). A pure function of a seed.

use std::collections::BTreeSet;

use muster_common::manifest::MaskingSettings;
use muster_common::seed::{Draws, Seed};
use tokenizers::models::ModelWrapper;
use tokenizers::{Model, Tokenizer};

use super::ModelError;

/// In front of byte-level BPE tokens that begin a word: a blank, as that encoding writes it.
const LEADING_SPACE: char = 'Ġ';

/// Names of the mask token, by family of tokenizers.
const MASK_TOKENS: [&str; 2] = ["[MASK]", "<mask>"];

/// What masking knows of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskingVocabulary {
    mask: u32,
    special: BTreeSet<u32>,
    /// Every token that is not special, in order.
    ordinary: Vec<u32>,
    /// By token: whether it continues the word before it.
    continues: Vec<bool>,
}

/// A sequence with some tokens to guess.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaskedTokens {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// Where it has to guess, ascending.
    pub positions: Vec<u32>,
    /// What stood there.
    pub originals: Vec<u32>,
}

impl From<Vec<u32>> for MaskedTokens {
    /// Nothing is masked.
    fn from(tokens: Vec<u32>) -> Self {
        Self { tokens, ..Self::default() }
    }
}

impl MaskingVocabulary {
    /// Of the tokenizer that makes the tokens: WordPiece, whose pieces inside a word begin with
    /// `##`, or byte-level BPE, where the first piece of a word begins with a blank.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let lacks = |what: &str| ModelError::Masking { reason: what.to_owned() };
        let mask = MASK_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
        let mask = mask.ok_or_else(|| lacks("it has neither [MASK] nor <mask>"))?;
        let added = tokenizer.get_added_tokens_decoder();
        let special: BTreeSet<u32> =
            added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let vocabulary = tokenizer.get_model().get_vocab();
        let largest = vocabulary.values().copied().max().unwrap_or(0);
        let inside: Box<dyn Fn(&str) -> bool> = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => {
                let prefix = model.continuing_subword_prefix.clone();
                Box::new(move |token| token.starts_with(&prefix))
            }
            ModelWrapper::BPE(_) => Box::new(|token| !token.starts_with(LEADING_SPACE)),
            _ => return Err(lacks("it is neither WordPiece nor byte-level BPE")),
        };
        let mut continues = vec![false; largest as usize + 1];
        for (token, id) in &vocabulary {
            if let Some(continues) = continues.get_mut(*id as usize) {
                *continues = inside(token);
            }
        }
        Self::new(mask, special, continues)
    }

    /// Of its parts: the mask token, tokens that are never touched, and for every token from 0
    /// whether it goes on with the word before it.
    pub fn new(
        mask: u32,
        mut special: BTreeSet<u32>,
        continues: Vec<bool>,
    ) -> Result<Self, ModelError> {
        special.insert(mask);
        let tokens = (0..).zip(&continues).map(|(token, _)| token);
        let ordinary: Vec<u32> = tokens.filter(|token| !special.contains(token)).collect();
        if ordinary.is_empty() {
            return Err(ModelError::Masking { reason: "all its tokens are special".to_owned() });
        }
        Ok(Self { mask, special, ordinary, continues })
    }

    /// The same without tokens that a model of `vocab_size` tokens does not have.
    pub fn within(mut self, vocab_size: i64) -> Result<Self, ModelError> {
        let fits = |token: &u32| i64::from(*token) < vocab_size;
        self.ordinary.retain(fits);
        if fits(&self.mask) && !self.ordinary.is_empty() {
            return Ok(self);
        }
        let reason = format!("its mask token is {}, but the model has {vocab_size}", self.mask);
        Err(ModelError::Masking { reason })
    }

    /// The token that stands for something to guess.
    pub fn mask_token(&self) -> u32 {
        self.mask
    }

    /// Whether `token` is never masked and never put in the place of another.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    fn continues(&self, token: u32) -> bool {
        self.continues.get(token as usize).copied().unwrap_or(false)
    }

    /// What `original` becomes when it is to be guessed.
    fn substitute(&self, original: u32, settings: &MaskingSettings, draws: &mut Draws) -> u32 {
        let draw = draws.unit();
        if draw < settings.mask_share {
            return self.mask;
        }
        if draw < settings.mask_share + settings.random_share {
            let index = draws.below(self.ordinary.len().max(1) as u64);
            let index = usize::try_from(index).unwrap_or(0);
            return self.ordinary.get(index).copied().unwrap_or(self.mask);
        }
        original
    }
}

/// Masks `tokens`. The same seed gives the same; special tokens are never touched, and no token
/// becomes one except the mask.
pub fn mask_tokens(
    tokens: &[u32],
    vocabulary: &MaskingVocabulary,
    settings: &MaskingSettings,
    seed: Seed,
) -> MaskedTokens {
    let mut draws = seed.draws();
    let mut result = MaskedTokens::from(tokens.to_vec());
    let mut chosen = false;
    let mut inside_word = false;
    for (position, (token, place)) in (0..).zip(tokens.iter().zip(&mut result.tokens)) {
        if vocabulary.is_special(*token) {
            inside_word = false;
            continue;
        }
        let same_word = settings.whole_words && inside_word && vocabulary.continues(*token);
        if !same_word {
            chosen = draws.unit() < settings.rate;
        }
        inside_word = true;
        if chosen {
            *place = vocabulary.substitute(*token, settings, &mut draws);
            result.positions.push(position);
            result.originals.push(*token);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const SPECIAL: [u32; 5] = [0, 1, 2, 3, 4];

    /// A tokenizer of these tokens, of which the first are special.
    fn tokenizer(model: &Value, tokens: &[String], num_special: usize) -> Tokenizer {
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id.into())).collect();
        let special: Vec<Value> = tokens
            .iter()
            .zip(0u32..)
            .take(num_special)
            .map(|(token, id)| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let mut whole = json!({"version": "1.0", "added_tokens": special, "model": model});
        whole["model"]["vocab"] = vocabulary.into();
        Tokenizer::from_bytes(whole.to_string()).unwrap()
    }

    /// Tokens 5 to 44; every third goes on with the word before it.
    fn word_piece() -> MaskingVocabulary {
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let words =
            (5..45).map(|id| if id % 3 == 0 { format!("##w{id}") } else { format!("w{id}") });
        let tokens: Vec<String> = special.into_iter().chain(words).collect();
        let model = json!({"type": "WordPiece", "unk_token": "[UNK]",
                           "continuing_subword_prefix": "##", "max_input_chars_per_word": 100});
        MaskingVocabulary::of(&tokenizer(&model, &tokens, 5)).unwrap()
    }

    #[test]
    fn a_leading_space_begins_a_word_of_byte_level_bpe() {
        let tokens = ["<s>", "<mask>", "a", "b", "Ġ", "Ġa"].map(str::to_owned);
        let model = json!({"type": "BPE", "merges": [["Ġ", "a"]]});
        let vocabulary = MaskingVocabulary::of(&tokenizer(&model, &tokens, 2)).unwrap();
        assert_eq!(vocabulary.mask_token(), 1);
        assert!(vocabulary.continues(2) && !vocabulary.continues(5));
        // "<s> b| a b| a|": three words.
        let settings = MaskingSettings { whole_words: true, rate: 0.5, ..Default::default() };
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let masked = mask_tokens(&[0, 3, 5, 3, 5], &vocabulary, &settings, Seed(seed));
            seen.insert(masked.positions);
        }
        assert_eq!(seen.len(), 8, "every set of words and nothing else: {seen:?}");
        assert!(seen.contains(&vec![2, 3]) && !seen.contains(&vec![2]));
    }

    #[test]
    fn shares_are_those_of_the_settings() {
        let vocabulary = word_piece();
        let tokens: Vec<u32> = (0..100_000).map(|index| 5 + index % 40).collect();
        let masked = mask_tokens(&tokens, &vocabulary, &MaskingSettings::default(), Seed(7));
        let count = masked.positions.len() as f64;
        let share = |fits: &dyn Fn(u32, u32) -> bool| {
            let places = masked.positions.iter().zip(&masked.originals);
            let hits = places.filter(|(place, old)| fits(masked.tokens[**place as usize], **old));
            hits.count() as f64 / count
        };
        assert!((count / 100_000.0 - 0.15).abs() < 0.005, "{count}");
        assert!((share(&|new, _| new == vocabulary.mask_token()) - 0.8).abs() < 0.01);
        // A random token is by chance the old one in one of forty cases.
        assert!((share(&|new, old| new == old) - 0.1025).abs() < 0.01);
    }

    #[test]
    fn tokenizers_without_a_mask_are_refused() {
        let model = json!({"type": "WordPiece", "unk_token": "[UNK]",
                           "continuing_subword_prefix": "##", "max_input_chars_per_word": 100});
        let tokenizer = tokenizer(&model, &["[UNK]", "a"].map(str::to_owned), 1);
        let error = MaskingVocabulary::of(&tokenizer).unwrap_err();
        assert!(error.to_string().contains("[MASK]"), "{error}");
    }

    proptest! {
        #[test]
        fn special_tokens_are_never_touched_and_nothing_is_lost(
            tokens in proptest::collection::vec(0u32..45, 0..60), seed: u64,
            rate in 0.0f64..=1.0, whole_words: bool,
        ) {
            let vocabulary = word_piece();
            let settings = MaskingSettings { rate, whole_words, ..Default::default() };
            let masked = mask_tokens(&tokens, &vocabulary, &settings, Seed(seed));
            prop_assert_eq!(&masked, &mask_tokens(&tokens, &vocabulary, &settings, Seed(seed)));
            prop_assert_eq!(masked.tokens.len(), tokens.len());
            prop_assert!(masked.positions.is_sorted_by(|a, b| a < b));
            let mut restored = masked.tokens.clone();
            for (position, original) in masked.positions.iter().zip(&masked.originals) {
                prop_assert!(!SPECIAL.contains(original));
                let new = restored[*position as usize];
                prop_assert!(!SPECIAL.contains(&new) || new == vocabulary.mask_token());
                restored[*position as usize] = *original;
            }
            prop_assert_eq!(&restored, &tokens);
            for (position, token) in tokens.iter().enumerate().skip(1) {
                let ordinary = |token: &u32| !SPECIAL.contains(token);
                if whole_words && token % 3 == 0 && ordinary(token) && ordinary(&tokens[position - 1]) {
                    let guessed = |position: usize| {
                        masked.positions.contains(&u32::try_from(position).unwrap())
                    };
                    prop_assert_eq!(guessed(position), guessed(position - 1));
                }
            }
        }
    }
}
