//! Words of other systems, for hints: whoever comes from transformers, Ray Tune, Optuna or W&B writes theirs first.
//! Nothing is ever read under such a word.

use super::settings::HYPERPARAMETERS;

/// Words elsewhere, in lower case with `_`, and ours.
const WORDS: &[(&[&str], &str)] = &[
    (&["lr", "peak_lr", "max_lr"], "learning_rate"),
    (&["batch_size", "train_batch_size", "per_device_train_batch_size"], "global_batch_size"),
    (&["per_device_batch_size", "microbatch_size"], "micro_batch_size"),
    (&["max_seq_length", "max_seq_len", "max_len", "seq_len", "sequence_length"], "max_length"),
    (&["warmup", "num_warmup_steps"], "warmup_steps"),
    (&["adam_eps", "eps", "epsilon"], "adam_epsilon"),
    (&["beta1"], "adam_beta1"),
    (&["beta2"], "adam_beta2"),
    (&["grad_clip", "gradient_clip_val", "clip_grad_norm", "max_norm"], "max_grad_norm"),
    (&["wd"], "weight_decay"),
    (&["model_name", "model_name_or_path", "pretrained_model_name_or_path"], "pretrained"),
    (&["num_epochs", "n_epochs", "num_train_epochs", "max_epochs"], "epochs"),
    (&["max_steps", "num_steps", "num_train_steps"], "steps"),
    (&["num_trials", "n_trials", "num_samples", "run_cap", "maxtrialcount"], "max_trials"),
    (&["max_concurrent_trials", "paralleltrialcount", "n_jobs"], "max_concurrent"),
    (&["eta", "halving_factor"], "reduction_factor"),
    (&["grace_period", "min_resource", "min_iter"], "min_budget"),
    (&["search_space", "param_space", "parameters", "params", "config"], "hyperparameters"),
    (&["search", "sweep", "tuner"], "searcher"),
    (&["scheduler", "early_terminate", "early_stopping"], "pruner"),
    (&["search_alg", "method", "algorithm"], "sampler"),
    (&["direction", "goal"], "mode"),
    (&["random_seed", "random_state"], "seed"),
    (&["gpus", "num_gpus", "n_gpus", "num_slots", "slots_per_trial"], "slots"),
    (&["eval", "dev", "val", "valid"], "validation"),
    (&["text_column"], "text"),
    (&["label_column", "target"], "label"),
    (&["choices", "choice", "categories", "categorical"], "values"),
    (&["low", "lower"], "min"),
    (&["high", "upper"], "max"),
    (&["maximize", "maximise"], "max"),
    (&["minimize", "minimise"], "min"),
    (&["loguniform", "log_uniform", "log_uniform_values", "reverse_log_uniform"], "log"),
    (&["uniform"], "linear"),
    (&["f1", "f1_score", "eval_f1", "val_f1", "macro_f1_score"], "macro_f1"),
    (&["acc", "val_acc", "val_accuracy", "eval_accuracy", "validation_accuracy"], "accuracy"),
    (&["val_loss", "eval_loss", "validation_loss", "cross_entropy"], "loss"),
    (&["roc_auc", "auroc"], "auc"),
    (&["matthews_correlation", "matthews"], "mcc"),
    (&["bayes", "bayesian", "bayesian_optimization", "bayesopt"], "gp"),
    (&["optuna", "hyperopt"], "tpe"),
    (&["cma_es", "cma"], "cmaes"),
    (&["successive_halving", "sha", "async_halving", "adaptive_asha"], "asha"),
    (&["pbt"], "population"),
    (&["lr_scheduler", "lr_scheduler_type", "lr_schedule", "scheduler_type"], "schedule"),
    (&["mixed_precision", "dtype", "torch_dtype"], "precision"),
    (&["constant_with_warmup"], "constant"),
    (&["cosine_annealing", "cosine_with_warmup"], "cosine"),
    (&["poly"], "polynomial"),
    (&["exponential_moving_average"], "ema"),
    (&["fp32", "float", "full"], "float32"),
    (&["bf16"], "bfloat16"),
    (&["fp16", "half"], "float16"),
];

/// Keys that are written at other places than where they belong, by the section that has them.
const HOMES: &[(&str, &[&str])] = &[
    ("budget", &["epochs", "steps", "examples"]),
    ("model", &["pretrained", "truncation", "freeze", "reinitialize_layers"]),
    ("data", &["train", "validation", "test", "text", "text_pair", "label", "hygiene"]),
    (
        "searcher",
        &[
            "metric",
            "mode",
            "sampler",
            "pruner",
            "max_trials",
            "max_concurrent",
            "objectives",
            "constraints",
            "target",
        ],
    ),
    ("resources", &["slots", "priority", "max_slots"]),
    (
        "training",
        &[
            "schedule",
            "precision",
            "class_weights",
            "average",
            "early_stopping",
            "evaluate_every",
            "unfreeze",
        ],
    ),
    ("checkpoint", &["every_steps", "keep_last", "keep_best"]),
];

/// What `word` is called here, of `names`.
pub(super) fn synonym<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_lowercase().replace('-', "_");
    let ours: Vec<&str> = WORDS
        .iter()
        .filter(|(words, _)| words.contains(&word.as_str()))
        .map(|(_, ours)| *ours)
        .collect();
    names.into_iter().find(|name| ours.contains(name))
}

/// The section that `key`, or what it is called here, belongs to, and its name there.
pub(super) fn home(key: &str) -> Option<(&'static str, &'static str)> {
    // What is a word is one for all trials, as a rule.
    let numbers = HYPERPARAMETERS.iter().filter(|spec| spec.categories.is_empty());
    let hyperparameters = numbers.map(|spec| ("hyperparameters", spec.name));
    let others =
        HOMES.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)));
    let all: Vec<(&str, &str)> = hyperparameters.chain(others).collect();
    let name = match all.iter().find(|(_, name)| *name == key) {
        Some((_, name)) => name,
        None => synonym(key, all.iter().map(|(_, name)| *name))?,
    };
    all.iter().find(|(_, other)| *other == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_systems_words_lead_to_ours() {
        let of = |word: &str, names: &[&'static str]| synonym(word, names.iter().copied());
        assert_eq!(of("lr", &["learning_rate", "dropout"]), Some("learning_rate"));
        assert_eq!(
            of("per-device-train-batch-size", &["global_batch_size"]),
            Some("global_batch_size")
        );
        assert_eq!(of("maxTrialCount", &["max_trials"]), Some("max_trials"));
        assert_eq!(of("lr", &["dropout"]), None, "only what exists there is offered");
        assert_eq!(home("epochs"), Some(("budget", "epochs")));
        assert_eq!(home("num_train_epochs"), Some(("budget", "epochs")));
        assert_eq!(home("learning_rate"), Some(("hyperparameters", "learning_rate")));
        assert_eq!(home("entity"), None);
    }

    #[test]
    fn what_is_ours_is_no_word_of_others() {
        for (words, ours) in WORDS {
            assert!(!words.contains(ours), "{ours}");
            assert!(words.iter().all(|word| *word == word.to_lowercase()), "{ours}");
        }
    }
}
