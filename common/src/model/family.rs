//! The families of encoders, and what tells them apart before any tensor is read.
//!
//! Sources, names unchanged:
//! <https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/bert/configuration_bert.py>,
//! `.../distilbert/configuration_distilbert.py` and `.../roberta/configuration_roberta.py` of the same version.

/// A family of encoders, by `model_type` of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Devlin et al. 2019.
    Bert,
    /// Sanh et al. 2019: no token types, no pooler.
    DistilBert,
    /// Liu et al. 2019: positions count from behind the padding token's number, no pooler.
    Roberta,
}

/// What is added to a token's embedding for the text of a pair that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTypes {
    /// Nothing; there is no table.
    Absent,
    /// Always the first row of the table, which is not zero.
    First,
    /// The row that the tokenizer's segment id names.
    BySegment,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 3] = [Self::Bert, Self::DistilBert, Self::Roberta];

    /// Its name in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::DistilBert => "distilbert",
            Self::Roberta => "roberta",
        }
    }

    /// How it tells the two texts of a pair apart.
    pub fn token_types(self) -> TokenTypes {
        match self {
            Self::Bert => TokenTypes::BySegment,
            Self::DistilBert => TokenTypes::Absent,
            Self::Roberta => TokenTypes::First,
        }
    }

    /// Whether positions count tokens that are not padding, from behind the padding token's number.
    pub fn positions_skip_padding(self) -> bool {
        self == Self::Roberta
    }

    /// Whether it was pretrained to say which sentence follows, so that it has a head for that.
    pub fn learns_next_sentence(self) -> bool {
        self == Self::Bert
    }
}
