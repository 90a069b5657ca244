//! Checkpoints of a real model: how long the training loop stands still for one, and how fast it is written
//! and read.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use muster_common::id::{Attempt, Generation, TrialId};
use muster_common::manifest::{Assignment, SearchSpace, TrainingSettings, TrialSettings};
use muster_common::seed::Seed;
use muster_common::storage::Store;
use muster_worker::checkpoint::{self, Origin, Snapshot, Writer};
use muster_worker::data::Split;
use muster_worker::model::{Classifier, Frozen, Pretrained};
use muster_worker::train::{Examples, Trainer, TrialPlan};
use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::Flags;

/// Tokens of an example, and examples.
const SHAPE: (u64, u32) = (64, 256);

/// Random sentences of one length.
fn examples(vocabulary: u64) -> anyhow::Result<Split> {
    let mut draws = Seed(1).draws();
    let mut tokens = Vec::new();
    for _ in 0..SHAPE.1 {
        let token = |_| u32::try_from(1 + draws.below(vocabulary - 1));
        tokens.push((0..SHAPE.0).map(token).collect::<Result<Vec<u32>, _>>()?);
    }
    Ok(Split::new(tokens, (0..SHAPE.1).map(|n| n % 2).collect()))
}

/// Copies every tensor once, which is the least that training on must wait for.
fn copy_seconds(snapshot: &Snapshot) -> f64 {
    let begun = Instant::now();
    let tensors = snapshot.model.values().chain(snapshot.optimizer.values());
    let copies: Vec<Tensor> = tensors.map(Tensor::copy).collect();
    let seconds = begun.elapsed().as_secs_f64();
    drop(copies);
    seconds
}

/// Trains, saves now and then, and reads the last checkpoint again.
pub(super) fn storage(flags: &Flags) -> anyhow::Result<Value> {
    tch::set_num_threads(flags.number("threads", 1)?);
    let (every, repeat): (u64, u64) = (flags.number("every", 10)?, flags.number("repeat", 3)?);
    let runtime = tokio::runtime::Runtime::new()?;
    let store = Store::open(flags.text("store")?)?;
    let pretrained = Pretrained::read(&flags.path("model")?)?;
    let labels = ["0", "1"].map(str::to_owned).to_vec();
    let model = Classifier::to_train(&pretrained, labels, Frozen::default(), Seed(0), Device::Cpu)?;
    let settings = TrialSettings {
        learning_rate: 1e-5,
        global_batch_size: flags.number("batch", 16)?,
        ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
    };
    let plan = TrialPlan {
        settings,
        training: TrainingSettings::default(),
        stopping_objective: None,
        seed: Seed(0),
        total_steps: 1 + every * (repeat + 1),
        data: String::new(),
        rank: 0,
    };
    let split = examples(flags.number("vocabulary", 30_000)?)?;
    let mut trainer = Trainer::new(plan, model, Examples::of_tokens(&split))?;
    let trial = TrialId { experiment: "bench-1".parse()?, number: 1 };
    let sha256 = pretrained.sha256.clone();
    let origin = Origin {
        trial,
        generation: Generation(1),
        attempt: Attempt(1),
        parent: None,
        pretrained: sha256.clone(),
    };
    let mut writer =
        Writer::new(runtime.handle().clone(), store.clone(), origin, Arc::new(|| Ok(())));
    trainer.train_step()?;
    let num_bytes = trainer.snapshot()?.num_bytes();
    let (mut copies, mut stalls, mut saves, mut restores) = (vec![], vec![], vec![], vec![]);
    // Alone: nothing trains meanwhile.
    for _ in 0..repeat {
        copies.push(copy_seconds(&trainer.snapshot()?));
        trainer.train_step()?;
        let begun = Instant::now();
        writer.begin(trainer.snapshot()?)?;
        stalls.push(begun.elapsed().as_secs_f64());
        let key = writer.finish()?.context("nothing was written")?;
        saves.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        trainer.restore(checkpoint::load(runtime.handle(), &store, &key, &sha256)?)?;
        restores.push(begun.elapsed().as_secs_f64());
    }
    // In the loop: writing goes on beside the training, and is waited for if it is not done in time.
    let (begun, mut stalled) = (Instant::now(), 0.0);
    for step in 0..every * repeat {
        trainer.train_step()?;
        if step % every == 0 {
            let saving = Instant::now();
            writer.begin(trainer.snapshot()?)?;
            stalled += saving.elapsed().as_secs_f64();
        }
    }
    let share = stalled / begun.elapsed().as_secs_f64();
    writer.finish()?;
    Ok(json!({
        "megabytes": num_bytes as f64 / 1e6, "copy_s": copies, "stall_s": stalls, "save_s": saves,
        "restore_s": restores, "stall_share": share,
    }))
}
