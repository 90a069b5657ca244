//! One trial on several processes, with real ones over loopback: the numbers are those of one process,
//! killed and resumed gangs end with the same bits, and nothing that happens to one rank hangs the
//! others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use muster_common::id::Generation;
use muster_common::manifest::{Assignment, Manifest, SearchSpace, TrainingSettings, TrialSettings};
use muster_common::run::{Directive, FailureClass, Gang, RunExit, RunReport};
use muster_common::seed::Seed;
use muster_common::storage::CheckpointKey;
use muster_tests::gang::{Laboratory, Rank, committed, finish};
use muster_tests::gradient::gradient_of;
use muster_tests::process::send_signal;
use muster_tests::sample::repository;
use muster_worker::checkpoint::Snapshot;
use muster_worker::collective::{Membership, RankFailure, Rendezvous, share};
use muster_worker::data::Split;
use muster_worker::model::{Classifier, Frozen, NamedTensors, Pretrained};
use muster_worker::train::{Examples, Trainer, TrialPlan};
use tch::{Device, Tensor};

const FAMILIES: [&str; 3] = ["bert", "distilbert", "roberta"];

/// Dropout differs between ranks, so only without it are world sizes comparable.
const EXACT: &str = "hyperparameters: {learning_rate: 3e-3, global_batch_size: 8, micro_batch_size: 3, dropout: 0.0}\n";

fn model(family: &str) -> PathBuf {
    repository().join("tests/golden/hf/families").join(format!("{family}-classification"))
}

fn bits(tensors: &NamedTensors) -> Vec<(String, Vec<u32>)> {
    let flat = |tensor: &Tensor| Vec::<f32>::try_from(tensor.view([-1])).unwrap();
    let bits = |tensor| flat(tensor).into_iter().map(f32::to_bits).collect();
    tensors.iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
}

fn assert_same_bits(found: &Snapshot, wanted: &Snapshot) {
    assert_eq!(found.progress.step, wanted.progress.step);
    assert!(bits(&found.model) == bits(&wanted.model), "weights differ");
    assert!(bits(&found.optimizer) == bits(&wanted.optimizer), "optimizer differs");
}

fn evaluation(reports: &[RunReport]) -> (f64, u64) {
    let found = reports.iter().find_map(|report| match report {
        RunReport::Evaluated { evaluation, .. } => Some(evaluation.clone()),
        _ => None,
    });
    let found = found.unwrap();
    (found.loss, found.confusion.iter().flatten().sum())
}

/// Trains 100 steps with 1 to 4 ranks; the curves must be one.
fn assert_one_curve(model: &Path, settings: &str) {
    // 33 examples in batches of 8: the last batch of an epoch has one example, for one of the ranks.
    let mut alone = Laboratory::new(model, 43, settings).unwrap();
    let (_, reports) = alone.train(1, 100).unwrap();
    let (wanted, wanted_evaluation) = (alone.losses().unwrap(), evaluation(&reports));
    assert_eq!((wanted.len(), wanted_evaluation.1), (100, 10));
    assert!(wanted[99].1 < wanted[0].1, "nothing is learned: {wanted:?}");
    for world_size in 2..=4 {
        let mut laboratory = Laboratory::new(model, 43, settings).unwrap();
        let (_, reports) = laboratory.train(world_size, 100).unwrap();
        let found = laboratory.losses().unwrap();
        assert_eq!(found.len(), wanted.len());
        for ((step, found), (_, wanted)) in found.into_iter().zip(&wanted) {
            let what = format!("{world_size} ranks, step {step}: {found} instead of {wanted}");
            assert!((found - wanted).abs() < 2e-4 * wanted.abs().max(1.0), "{what}");
        }
        let (loss, count) = evaluation(&reports);
        assert_eq!(count, 10, "every example once");
        assert!((loss - wanted_evaluation.0).abs() < 2e-4, "{world_size} ranks: {loss}");
    }
}

#[test]
fn any_number_of_ranks_gives_the_curve_of_one() {
    for family in FAMILIES {
        assert_one_curve(&model(family), EXACT);
    }
}

#[test]
fn frozen_layers_and_late_ones_give_the_curve_of_one() {
    // The model's section is the last of the manifest around it.
    let frozen = format!("  freeze: {{embeddings: true, layers: 1}}\n{EXACT}");
    assert_one_curve(&model("bert"), &frozen);
    let late = format!(
        "{EXACT}training:
  unfreeze: {{every: {{steps: 7}}}}
  class_weights: balanced
  evaluate_every: {{steps: 20}}
  early_stopping: {{patience: 100}}
"
    );
    assert_one_curve(&model("bert"), &late);
}

const DROPOUT: &str = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, micro_batch_size: 2, dropout: 0.2}
checkpoint: {every_steps: 20}
";

#[test]
fn three_killed_ranks_resume_with_the_bits_of_undisturbed_ones() {
    let new = || Laboratory::new(&model("bert"), 60, DROPOUT).unwrap();
    let mut quiet = new();
    let (key, _) = quiet.train(3, 600).unwrap();
    let (wanted, wanted_losses) = (quiet.load(&key).unwrap(), quiet.losses().unwrap());
    let mut again = new();
    let (key, _) = again.train(3, 600).unwrap();
    assert_same_bits(&again.load(&key).unwrap(), &wanted);
    assert_eq!(again.losses().unwrap(), wanted_losses);

    let mut laboratory = new();
    let mut resume_from = None;
    for _ in 0..2 {
        let mut ranks = laboratory.ranks(3).unwrap();
        laboratory.start(&mut ranks, 600, resume_from.as_ref()).unwrap();
        resume_from = Some(ranks[0].wait_for(committed).unwrap());
        for rank in &ranks {
            send_signal("KILL", rank.pid()).unwrap();
        }
    }
    let mut ranks = laboratory.ranks(3).unwrap();
    laboratory.start(&mut ranks, 600, resume_from.as_ref()).unwrap();
    let (key, _) = finish(&mut ranks).unwrap();
    assert_same_bits(&laboratory.load(&key).unwrap(), &wanted);
}

#[test]
fn ranks_share_the_writing_of_a_checkpoint() {
    let with = |shard_mib: &str| {
        let settings =
            DROPOUT.replace("{every_steps", &format!("{{shard_mib: {shard_mib}, every_steps"));
        Laboratory::new(&model("bert"), 60, &settings).unwrap()
    };
    let mut first_writes = with("1000000");
    let (key, _) = first_writes.train(3, 200).unwrap();
    let wanted = first_writes.load(&key).unwrap();
    assert_eq!(
        first_writes.objects(&key).unwrap(),
        ["index.json", "model", "optimizer", "progress"]
    );

    let mut laboratory = with("0");
    let mut ranks = laboratory.ranks(3).unwrap();
    laboratory.start(&mut ranks, 200, None).unwrap();
    let resume_from = ranks[0].wait_for(committed).unwrap();
    for rank in &ranks {
        send_signal("KILL", rank.pid()).unwrap();
    }
    let mut ranks = laboratory.ranks(3).unwrap();
    laboratory.start(&mut ranks, 200, Some(&resume_from)).unwrap();
    let (key, _) = finish(&mut ranks).unwrap();
    let shards = |part| (1..=3).map(move |number| format!("{part}-{number}-of-3"));
    let mut names: Vec<String> = shards("model").chain(shards("optimizer")).collect();
    names.extend(["index.json", "progress"].map(str::to_owned));
    names.sort();
    assert_eq!(laboratory.objects(&key).unwrap(), names);
    assert_same_bits(&laboratory.load(&key).unwrap(), &wanted);

    // A shard that is lost is named, and the checkpoint is not used.
    let lost = laboratory.directory.path().join("store").join(key.part("model-2-of-3").as_ref());
    std::fs::remove_file(lost).unwrap();
    let refused = laboratory.load(&key).unwrap_err().to_string();
    assert!(refused.contains("`model-2-of-3`"), "{refused}");
}

#[test]
fn another_number_of_ranks_goes_on_with_the_same_examples() {
    let mut alone = Laboratory::new(&model("bert"), 43, EXACT).unwrap();
    alone.train(1, 100).unwrap();
    let wanted = alone.losses().unwrap();
    let mut laboratory = Laboratory::new(&model("bert"), 43, EXACT).unwrap();
    let mut resume_from = None;
    for (world_size, target_step) in [(3, 30), (2, 61), (1, 80), (4, 100)] {
        let mut ranks = laboratory.ranks(world_size).unwrap();
        laboratory.start(&mut ranks, target_step, resume_from.as_ref()).unwrap();
        resume_from = Some(finish(&mut ranks).unwrap().0);
    }
    let found = laboratory.losses().unwrap();
    assert_eq!(found.len(), wanted.len());
    for ((step, found), (_, wanted)) in found.into_iter().zip(&wanted) {
        let what = format!("step {step}: {found} instead of {wanted}");
        assert!((found - wanted).abs() < 2e-4 * wanted.abs().max(1.0), "{what}");
    }
}

#[test]
fn ranks_that_are_told_in_the_last_evaluation_end_alike() {
    // The evaluation takes as long as hundreds of steps.
    let mut laboratory = Laboratory::new(&model("bert"), 6000, EXACT).unwrap();
    let text =
        laboratory.text.replace("validation: {examples: 10}", "validation: {examples: 5000}");
    laboratory.manifest = Manifest::parse(&text).unwrap();
    let mut ranks = laboratory.ranks(2).unwrap();
    let generation = laboratory.start(&mut ranks, 20, None).unwrap();
    let key = ranks[0].wait_for(committed).unwrap();
    ranks[1].direct(generation, Directive::Preempt).unwrap();
    let ends: Vec<_> = ranks.iter_mut().map(|rank| rank.end().unwrap()).collect();
    assert_eq!(ends[0].0, ends[1].0);
    if ends[0].0 == RunExit::Completed {
        assert_eq!(evaluation(&ends[0].1).1, 5000);
        return;
    }
    assert_eq!(ends[0].0, RunExit::Preempted);
    laboratory.start(&mut ranks, 20, Some(&key)).unwrap();
    let (_, reports) = finish(&mut ranks).unwrap();
    assert_eq!(evaluation(&reports).1, 5000);
}

#[test]
fn what_was_trained_is_saved_by_who_is_told_in_the_last_evaluation() {
    // The best weights count, and which these are shows only when the one step has been scored.
    let settings = format!(
        "{EXACT}training: {{evaluate_every: {{steps: 50}}, early_stopping: {{patience: 100}}}}\n"
    );
    for world_size in [1, 2] {
        let mut laboratory = Laboratory::new(&model("bert"), 6000, &settings).unwrap();
        let text =
            laboratory.text.replace("validation: {examples: 10}", "validation: {examples: 5000}");
        laboratory.manifest = Manifest::parse(&text).unwrap();
        let mut ranks = laboratory.ranks(world_size).unwrap();
        let generation = laboratory.start(&mut ranks, 1, None).unwrap();
        ranks[0].first_step().unwrap();
        ranks[0].direct(generation, Directive::Preempt).unwrap();
        let ends: Vec<_> = ranks.iter_mut().map(|rank| rank.end().unwrap()).collect();
        assert!(ends.iter().all(|(exit, _)| *exit == RunExit::Preempted), "{ends:?}");
        let key = ends[0].1.iter().rev().find_map(committed).unwrap();
        assert_eq!(key.step, 1);
        laboratory.start(&mut ranks, 1, Some(&key)).unwrap();
        let (_, reports) = finish(&mut ranks).unwrap();
        assert_eq!(evaluation(&reports).1, 5000);
    }
}

/// Starts ranks that train for very long, and waits until they do.
fn busy(settings: &str, world_size: u32) -> (Laboratory, Vec<Rank>, Generation) {
    let mut laboratory = Laboratory::new(&model("bert"), 60, settings).unwrap();
    let mut ranks = laboratory.ranks(world_size).unwrap();
    let generation = laboratory.start(&mut ranks, 1_000_000, None).unwrap();
    ranks[0].wait_for(committed).unwrap();
    (laboratory, ranks, generation)
}

fn assert_failed(rank: &mut Rank, wanted: FailureClass, word: &str) {
    let (exit, _) = rank.end().unwrap();
    let RunExit::Failed { message, class, permanent } = &exit else { panic!("{exit:?}") };
    assert_eq!(*class, wanted, "{message}");
    assert!(message.contains(word) && !permanent, "{message}");
    rank.gone().unwrap();
}

#[test]
fn the_others_learn_which_rank_was_killed() {
    for victim in [2, 0] {
        let (_laboratory, mut ranks, _) = busy(DROPOUT, 3);
        send_signal("KILL", ranks[victim].pid()).unwrap();
        for (number, rank) in ranks.iter_mut().enumerate() {
            if number != victim {
                assert_failed(rank, FailureClass::Lost, &format!("rank {victim}"));
            }
        }
    }
}

#[test]
fn a_rank_that_stands_still_is_given_up_at_the_deadline() {
    // Longer than a busy machine lets a healthy rank stand still.
    let settings = format!("{DROPOUT}training: {{step_deadline_s: 10}}\n");
    for victim in [1, 0] {
        let (_laboratory, mut ranks, _) = busy(&settings, 3);
        send_signal("STOP", ranks[victim].pid()).unwrap();
        for (number, rank) in ranks.iter_mut().enumerate() {
            if number != victim {
                assert_failed(rank, FailureClass::Hang, "");
            }
        }
    }
}

#[test]
fn ranks_leave_at_the_same_step_when_one_is_told_first() {
    let (laboratory, mut ranks, generation) = busy(DROPOUT, 3);
    ranks[1].direct(generation, Directive::Preempt).unwrap();
    let mut last = None;
    for rank in &mut ranks {
        let (exit, reports) = rank.end().unwrap();
        assert_eq!(exit, RunExit::Preempted);
        last = last.or(reports.iter().rev().find_map(committed));
    }
    assert!(laboratory.load(&last.unwrap()).unwrap().progress.step > 20);
    // They are as good as new.
    let mut laboratory = laboratory;
    laboratory.start(&mut ranks, 30, None).unwrap();
    finish(&mut ranks).unwrap();
    let generation = laboratory.start(&mut ranks, 1_000_000, None).unwrap();
    for rank in &mut ranks {
        rank.direct(generation, Directive::Cancel).unwrap();
    }
    for rank in &mut ranks {
        assert_eq!(rank.end().unwrap().0, RunExit::Canceled);
    }
}

#[test]
fn a_rank_that_was_told_to_save_itself_does_not_fail_for_want_of_another() {
    let (_laboratory, mut ranks, generation) = busy(DROPOUT, 2);
    send_signal("STOP", ranks[1].pid()).unwrap();
    ranks[0].direct(generation, Directive::Preempt).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    send_signal("KILL", ranks[1].pid()).unwrap();
    // Its process ends, and its supervisor, which gave it the word, says that it was preempted.
    ranks[0].gone().unwrap();
    let said = ranks[0].end();
    assert!(said.is_err(), "{said:?}");
}

/// A run that goes on where the last one on its slot ended takes over its state instead of reading it.
#[test]
fn what_a_run_left_is_what_its_checkpoint_holds() {
    let watched = "training: {evaluate_every: {steps: 8}, early_stopping: {patience: 100}, \
                   average: {type: ema, decay: 0.9}}\n";
    for training in ["", watched] {
        let settings = format!("{DROPOUT}{training}");
        let mut laboratory = Laboratory::new(&model("bert"), 60, &settings).unwrap();
        let mut kept = laboratory.ranks(1).unwrap();
        let _other_log = laboratory.next_generation();
        let mut fresh = laboratory.ranks(1).unwrap();
        let mut continue_on = |ranks: &mut [Rank], target, from: Option<&CheckpointKey>| {
            laboratory.start(ranks, target, from).unwrap();
            let (key, _) = finish(ranks).unwrap();
            (laboratory.load(&key).unwrap(), key)
        };
        let (_, middle) = continue_on(&mut kept, 20, None);
        let (found, _) = continue_on(&mut kept, 44, Some(&middle));
        let (wanted, _) = continue_on(&mut fresh, 44, Some(&middle));
        assert!(kept[0].log().contains("is_warm=true"), "{}", kept[0].log());
        assert!(fresh[0].log().contains("is_warm=false"), "{}", fresh[0].log());
        assert_same_bits(&found, &wanted);
        assert_eq!(found.progress, wanted.progress);
        assert!(bits(&found.average) == bits(&wanted.average), "averages differ");
        assert!(bits(&found.best) == bits(&wanted.best), "best weights differ");
        // What was left is of the last checkpoint only.
        let (again, _) = continue_on(&mut kept, 44, Some(&middle));
        assert_same_bits(&again, &wanted);
        assert_eq!(kept[0].log().matches("is_warm=false").count(), 1, "{}", kept[0].log());
    }
}

/// How rank 1 ends that comes to a rank 0 which is gone, and is told `directive` itself a moment later.
/// `has_port`: rank 0 left before it took the connection in, and not before it was there.
fn end_of_latecomer(has_port: bool, directive: Option<Directive>) -> RunExit {
    let mut laboratory = Laboratory::new(&model("bert"), 60, DROPOUT).unwrap();
    let generation = laboratory.next_generation();
    let mut ranks = laboratory.ranks(1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let rendezvous = Some(listener.local_addr().unwrap().to_string());
    let gang = Gang { rank: 1, world_size: 2, rendezvous };
    let listener = has_port.then_some(listener);
    let manifest = laboratory.manifest.clone();
    laboratory.start_rank(&mut ranks[0], &manifest, generation, (1000, None), Some(gang)).unwrap();
    if let Some(listener) = listener {
        drop(listener.accept().unwrap());
    }
    std::thread::sleep(Duration::from_millis(500));
    if let Some(directive) = directive {
        ranks[0].direct(generation, directive).unwrap();
    }
    ranks[0].end().unwrap().0
}

#[test]
fn a_rank_that_comes_too_late_waits_for_its_own_directive() {
    for has_port in [false, true] {
        let exits =
            [(Directive::Cancel, RunExit::Canceled), (Directive::Preempt, RunExit::Preempted)];
        for (directive, wanted) in exits {
            assert_eq!(end_of_latecomer(has_port, Some(directive)), wanted, "{has_port}");
        }
    }
    let exit = end_of_latecomer(false, None);
    let RunExit::Failed { message, permanent, .. } = &exit else { panic!("{exit:?}") };
    assert!(message.contains("rank 0") && !permanent, "{message}");
}

#[test]
fn ranks_that_do_not_train_the_same_say_what_differs() {
    let mut laboratory = Laboratory::new(&model("bert"), 60, DROPOUT).unwrap();
    let mut other = laboratory.manifest.clone();
    other.seed = Seed(77);
    let manifests = [laboratory.manifest.clone(), other];
    let mut ranks = laboratory.ranks(2).unwrap();
    let generation = laboratory.next_generation();
    laboratory.start_each(&mut ranks, generation, &manifests, 50, None).unwrap();
    for rank in &mut ranks {
        let (exit, _) = rank.end().unwrap();
        let RunExit::Failed { message, class, permanent } = &exit else { panic!("{exit:?}") };
        assert!(*permanent && *class == FailureClass::BadData, "{exit:?}");
        assert!(message.contains("rank 1 does not train what rank 0 does"), "{message}");
        assert!(message.contains("digest"), "{message}");
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_all_ranks_at_the_same_step() {
    let sick = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model("bert").join(name), sick.path().join(name)).unwrap();
    }
    let weights = Tensor::read_safetensors(model("bert").join("model.safetensors")).unwrap();
    for (name, tensor) in &weights {
        if name.ends_with("word_embeddings.weight") {
            // One word that only some examples, and so only some ranks, have.
            let _filled = tensor.get(12).fill_(f64::NAN);
        }
    }
    Tensor::write_safetensors(&weights, sick.path().join("model.safetensors")).unwrap();
    let mut laboratory = Laboratory::new(sick.path(), 60, DROPOUT).unwrap();
    let mut ranks = laboratory.ranks(3).unwrap();
    laboratory.start(&mut ranks, 200, None).unwrap();
    let exits: Vec<RunExit> = ranks.iter_mut().map(|rank| rank.end().unwrap().0).collect();
    assert!(matches!(exits[0], RunExit::Diverged { .. }), "{exits:?}");
    assert!(exits.iter().all(|exit| *exit == exits[0]), "{exits:?}");
}

#[test]
fn short_gradients_stay_close_to_long_ones() {
    let curve = |compression: &str| {
        let settings = format!("{EXACT}training: {{gradient_compression: {compression}}}\n");
        let mut laboratory = Laboratory::new(&model("bert"), 43, &settings).unwrap();
        laboratory.train(2, 60).unwrap();
        laboratory.losses().unwrap()
    };
    let wanted = curve("none");
    for compression in ["bfloat16", "float16"] {
        let found = curve(compression);
        assert_ne!(found, wanted, "{compression} changes nothing");
        for ((step, found), (_, wanted)) in found.iter().zip(&wanted) {
            let off = (found - wanted).abs();
            assert!(off < 0.05, "{compression}, step {step}: {found} instead of {wanted}");
        }
    }
}

/// Gradients of one step over 32 examples, by `world_size` ranks that are threads here, each with
/// micro-batches of this size. All ranks must have the same bits.
fn gradient(world_size: u32, micro_batch_size: u64) -> Vec<f32> {
    let (sender, address) = std::sync::mpsc::channel();
    let first =
        std::thread::spawn(move || rank_gradient(0, world_size, micro_batch_size, Err(sender)));
    let address = if world_size > 1 { address.recv().unwrap() } else { String::new() };
    let others: Vec<_> = (1..world_size)
        .map(|rank| {
            let address = address.clone();
            std::thread::spawn(move || {
                rank_gradient(rank, world_size, micro_batch_size, Ok(address))
            })
        })
        .collect();
    let wanted = first.join().unwrap();
    for other in others {
        assert!(other.join().unwrap() == wanted, "ranks have other gradients");
    }
    wanted
}

/// 32 sequences of nine tokens.
fn sentences() -> Vec<Vec<u32>> {
    let mut draws = Seed(21).draws();
    let mut token = move || u32::try_from(3 + draws.below(80)).unwrap();
    (0..32).map(|_| (0..9).map(|_| token()).collect()).collect()
}

fn rank_gradient(
    rank: u32,
    world_size: u32,
    micro_batch_size: u64,
    address: Result<String, Sender<String>>,
) -> Vec<f32> {
    tch::set_num_threads(1);
    let data = Split::new(sentences(), (0..32).map(|index| index % 3).collect());
    let settings = TrialSettings {
        global_batch_size: 32,
        micro_batch_size,
        dropout: Some(0.0),
        ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
    };
    let plan = TrialPlan {
        settings,
        training: TrainingSettings::default(),
        stopping_objective: None,
        seed: Seed(4),
        total_steps: 40,
        data: String::new(),
        rank,
    };
    let pretrained = Pretrained::read(&repository().join("tests/golden/hf/tiny")).unwrap();
    let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
    let model =
        Classifier::to_train(&pretrained, labels, Frozen::default(), Seed(3), Device::Cpu).unwrap();
    let mut trainer = Trainer::new(plan, model, Examples::of_tokens(&data)).unwrap();
    let batch: Vec<u32> = (0..32).collect();
    let normalizer = trainer.normalizer(1, &batch);
    let gradients = |trainer: &Trainer<'_>| {
        let flat = |(_, tensor): (&str, &Tensor)| {
            Vec::<f32>::try_from(gradient_of(tensor).view([-1])).unwrap()
        };
        trainer.model().unwrap().trained().flat_map(flat).collect()
    };
    if world_size == 1 {
        let _loss = trainer.accumulate(1, &batch, normalizer).unwrap();
        return gradients(&trainer);
    }
    let (rendezvous, sender) = match address {
        Ok(address) => (Some(address), None),
        Err(sender) => (None, Some(sender)),
    };
    let membership = Membership {
        generation: Generation(1),
        gang: Gang { rank, world_size, rendezvous },
        step_deadline: Duration::from_secs(60),
    };
    let go_on = || ControlFlow::Continue(());
    let on_failure = |failure: &RankFailure| panic!("{failure:?}");
    let rendezvous = Rendezvous::open(membership, on_failure, go_on).unwrap().unwrap();
    if let Some(sender) = sender {
        sender.send(rendezvous.address().to_string()).unwrap();
    }
    let identity = trainer.identity("tiny");
    let group = rendezvous.join(identity, Device::Cpu, go_on).unwrap().unwrap();
    trainer.join(group.clone()).unwrap();
    let own = share(&batch, |_| 9, rank, world_size);
    assert_eq!(own.len(), 32 / usize::try_from(world_size).unwrap());
    let _loss = trainer.accumulate(1, &own, normalizer).unwrap();
    let found = gradients(&trainer);
    drop(trainer);
    group.close();
    rendezvous.leave();
    found
}

#[test]
fn a_batch_of_32_is_four_of_8_and_two_ranks_of_16() {
    let whole = gradient(1, 32);
    let largest = whole.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (world_size, micro_batch_size) in [(1, 8), (2, 16), (2, 8), (4, 4)] {
        let found = gradient(world_size, micro_batch_size);
        let off = found.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(
            off < 2e-6 * largest,
            "{world_size} ranks in {micro_batch_size}: {off} of {largest}"
        );
    }
}
