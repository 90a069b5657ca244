//! How far a parameter lies from the output, by its Hugging Face name.

/// Place of a parameter in its model, from the input to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// What turns tokens into vectors.
    Embeddings,
    /// An encoder layer, counted from the input.
    Layer(usize),
    /// The dense layer over the first token that BERT was pretrained with.
    Pooler,
    /// What is made for the task: classifiers and the heads of pretraining.
    Head,
}

impl Depth {
    /// Depth of the parameter called `name` in BERT, RoBERTa and DistilBERT.
    pub fn of(name: &str) -> Self {
        let encoder = ["bert.", "roberta.", "distilbert."]
            .iter()
            .find_map(|family| name.strip_prefix(family))
            .unwrap_or_default();
        if encoder.starts_with("embeddings.") {
            return Self::Embeddings;
        }
        if encoder.starts_with("pooler.") {
            return Self::Pooler;
        }
        ["encoder.layer.", "transformer.layer."]
            .iter()
            .find_map(|stack| encoder.strip_prefix(stack))
            .and_then(|rest| rest.split('.').next())
            .and_then(|number| number.parse().ok())
            .map_or(Self::Head, Self::Layer)
    }

    /// Places between the head and here: 0 for the head, 1 for the pooler, 2 for the top one of
    /// `num_layers` encoder layers, and so on. The same in all families, with a pooler or without.
    pub fn below_head(self, num_layers: usize) -> usize {
        match self {
            Self::Head => 0,
            Self::Pooler => 1,
            Self::Layer(number) => 1 + num_layers.saturating_sub(number),
            Self::Embeddings => 2 + num_layers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_families_have_their_depth() {
        for (name, depth) in [
            ("bert.embeddings.word_embeddings.weight", Depth::Embeddings),
            ("bert.embeddings.LayerNorm.bias", Depth::Embeddings),
            ("bert.encoder.layer.11.attention.self.query.weight", Depth::Layer(11)),
            ("bert.pooler.dense.bias", Depth::Pooler),
            ("classifier.weight", Depth::Head),
            ("cls.predictions.transform.LayerNorm.weight", Depth::Head),
            ("cls.seq_relationship.weight", Depth::Head),
            ("roberta.embeddings.position_embeddings.weight", Depth::Embeddings),
            ("roberta.encoder.layer.0.output.dense.weight", Depth::Layer(0)),
            ("classifier.out_proj.bias", Depth::Head),
            ("lm_head.layer_norm.weight", Depth::Head),
            ("distilbert.embeddings.word_embeddings.weight", Depth::Embeddings),
            ("distilbert.transformer.layer.5.ffn.lin1.weight", Depth::Layer(5)),
            ("pre_classifier.weight", Depth::Head),
            ("vocab_layer_norm.bias", Depth::Head),
            ("vocab_transform.weight", Depth::Head),
        ] {
            assert_eq!(Depth::of(name), depth, "{name}");
        }
    }

    #[test]
    fn depths_are_ordered_and_counted_from_the_head() {
        let depths = [
            Depth::Head,
            Depth::Pooler,
            Depth::Layer(2),
            Depth::Layer(1),
            Depth::Layer(0),
            Depth::Embeddings,
        ];
        assert!(depths.windows(2).all(|pair| pair[0] > pair[1]));
        let places: Vec<usize> = depths.iter().map(|depth| depth.below_head(3)).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    }
}
