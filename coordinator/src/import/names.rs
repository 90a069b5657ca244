//! What others call the hyperparameters and the metrics that Muster knows.

use muster_common::manifest::{Category, HyperparameterSpec};
use muster_common::objective::ObjectiveMetric;

/// Other names of hyperparameters, in lower case with `_`.
const ALIASES: [(&str, &str); 40] = [
    ("lr", "learning_rate"),
    ("base_lr", "learning_rate"),
    ("base_learning_rate", "learning_rate"),
    ("init_lr", "learning_rate"),
    ("batch_size", "global_batch_size"),
    ("batchsize", "global_batch_size"),
    ("bs", "global_batch_size"),
    ("train_batch_size", "global_batch_size"),
    ("per_device_train_batch_size", "global_batch_size"),
    ("per_gpu_train_batch_size", "global_batch_size"),
    ("dropout_rate", "dropout"),
    ("dropout_prob", "dropout"),
    ("hidden_dropout_prob", "dropout"),
    ("wd", "weight_decay"),
    ("decay", "weight_decay"),
    ("warmup_proportion", "warmup_ratio"),
    ("num_warmup_steps", "warmup_steps"),
    ("max_seq_length", "max_length"),
    ("max_sequence_length", "max_length"),
    ("max_len", "max_length"),
    ("seq_length", "max_length"),
    ("llrd", "layer_decay"),
    ("layerwise_lr_decay", "layer_decay"),
    ("label_smoothing_factor", "label_smoothing"),
    ("gradient_clip_val", "max_grad_norm"),
    ("grad_clip", "max_grad_norm"),
    ("clip_grad_norm", "max_grad_norm"),
    ("beta1", "adam_beta1"),
    ("beta_1", "adam_beta1"),
    ("beta2", "adam_beta2"),
    ("eps", "adam_epsilon"),
    ("epsilon", "adam_epsilon"),
    ("scheduler", "schedule"),
    ("lr_schedule", "schedule"),
    ("lr_scheduler", "schedule"),
    ("lr_scheduler_type", "schedule"),
    ("scheduler_type", "schedule"),
    ("mixed_precision", "precision"),
    ("ema", "average"),
    ("use_ema", "average"),
];

/// Other words for what hyperparameters can be, in lower case with `_`.
const WORDS: [(&str, Category); 16] = [
    ("constant_with_warmup", Category::Constant),
    ("linear_with_warmup", Category::Linear),
    ("cosine_with_warmup", Category::Cosine),
    ("cosine_annealing", Category::Cosine),
    ("poly", Category::Polynomial),
    ("fp32", Category::Float32),
    ("32", Category::Float32),
    ("no", Category::Float32),
    ("bf16", Category::Bfloat16),
    ("bf16_mixed", Category::Bfloat16),
    ("fp16", Category::Float16),
    ("16", Category::Float16),
    ("16_mixed", Category::Float16),
    ("true", Category::Ema),
    ("false", Category::LastStep),
    ("uniform", Category::Equal),
];

/// Names of the number of epochs.
const EPOCHS: [&str; 6] =
    ["epochs", "num_epochs", "n_epochs", "num_train_epochs", "max_epochs", "epoch"];

/// Other names of metrics, without what says that they are of the validation split.
const METRICS: [(&str, ObjectiveMetric); 14] = [
    ("acc", ObjectiveMetric::Accuracy),
    ("top1", ObjectiveMetric::Accuracy),
    ("accuracy_score", ObjectiveMetric::Accuracy),
    ("f1", ObjectiveMetric::MacroF1),
    ("f1_score", ObjectiveMetric::MacroF1),
    ("f1_macro", ObjectiveMetric::MacroF1),
    ("f1_weighted", ObjectiveMetric::WeightedF1),
    ("f1_micro", ObjectiveMetric::MicroF1),
    ("precision", ObjectiveMetric::MacroPrecision),
    ("recall", ObjectiveMetric::MacroRecall),
    ("matthews_correlation", ObjectiveMetric::Mcc),
    ("roc_auc", ObjectiveMetric::Auc),
    ("auroc", ObjectiveMetric::Auc),
    ("mae", ObjectiveMetric::MeanAbsoluteError),
];

fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', '.', '/', ' '], "_")
}

/// The hyperparameter that a name means; nested names are looked at by their last part.
pub(super) fn hyperparameter(name: &str) -> Option<&'static HyperparameterSpec> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let plain = plain(last);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == plain).map(|(_, known)| *known);
    HyperparameterSpec::find(alias.unwrap_or(&plain))
}

/// What a word means for a hyperparameter.
pub(super) fn category(spec: &HyperparameterSpec, word: &str) -> Option<Category> {
    let plain = plain(word.trim());
    let own = spec.categories.iter().find(|category| category.name() == plain);
    let meant = || WORDS.iter().find(|(word, _)| *word == plain).map(|(_, category)| *category);
    own.copied().or_else(meant).filter(|category| spec.categories.contains(category))
}

/// Whether a name means the length of the training in epochs.
pub(super) fn is_epochs(name: &str) -> bool {
    EPOCHS.contains(&plain(name.rsplit('.').next().unwrap_or(name)).as_str())
}

/// The metric that a name means.
pub(super) fn metric(name: &str) -> Option<ObjectiveMetric> {
    let mut plain = plain(name);
    for prefix in ["validation_", "valid_", "val_", "eval_", "dev_"] {
        if let Some(rest) = plain.strip_prefix(prefix) {
            plain = rest.to_owned();
            break;
        }
    }
    // Metrics of hidden tokens are of manifests without labels.
    let of_classes = |metric: &ObjectiveMetric| !metric.name().contains("mask");
    let mut known = ObjectiveMetric::ALL.into_iter().filter(of_classes);
    let known = known.find(|metric| metric.name() == plain && plain != "perplexity");
    known.or_else(|| METRICS.iter().find(|(name, _)| *name == plain).map(|(_, metric)| *metric))
}
