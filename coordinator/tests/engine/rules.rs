//! A journal is replayed by the rules it was written under; with new ones its hyperparameters have the same bits on
//! every machine.

use muster_common::manifest::{Domain, Manifest, Scale};
use muster_common::seed::Seed;
use muster_coordinator::engine::{Event, RULES};
use muster_coordinator::journal::Journal;

use super::cluster::{Cluster, manifest};

const BOUNDS: (f64, f64) = (1e-5, 1e-1);
/// The last rules under which the C library had a say.
const OLDER: u32 = 4;

/// Twenty-four random trials that differ in a learning rate on a logarithmic scale.
fn random() -> Manifest {
    let (min, max) = BOUNDS;
    let mut manifest = manifest("e", "1", "max_trials: 24");
    let domain = Domain::Float { min, max, scale: Scale::Log };
    manifest.hyperparameters.insert("learning_rate".to_owned(), domain);
    manifest.seed = Seed(7);
    manifest
}

/// What the trials have tried, by number.
fn tried(cluster: &Cluster) -> Vec<u64> {
    let experiment = cluster.engine.experiments().next().unwrap();
    let rates = experiment.trials.values().map(|trial| trial.assignment["learning_rate"]);
    rates.map(|rate| rate.as_f64().to_bits()).collect()
}

/// What trial `number` tries, with the functions that are given.
fn expected(number: u64, ln: fn(f64) -> f64, exp: fn(f64) -> f64) -> u64 {
    let seed = Seed(7).child("sampler", number).child("learning_rate", 0);
    let (low, high) = (ln(BOUNDS.0), ln(BOUNDS.1));
    exp(low + (high - low) * seed.draws().unit()).clamp(BOUNDS.0, BOUNDS.1).to_bits()
}

/// Half of the trials under older rules, then an upgrade.
fn upgraded() -> (Cluster, usize) {
    let mut cluster = Cluster::under(OLDER, &[("w0", "h")]);
    cluster.submit(random());
    let mut num_older = 0;
    while tried(&cluster).len() < 24 {
        if tried(&cluster).len() == 12 {
            num_older = 12;
            cluster.apply(Event::RulesAdopted { rules: RULES });
        }
        let spec = cluster.current().unwrap();
        cluster.finish(&spec);
    }
    (cluster, num_older)
}

#[test]
fn what_was_proposed_under_older_rules_is_proposed_again_and_the_rest_by_new_ones() {
    let (cluster, num_older) = upgraded();
    let tried = tried(&cluster);
    for (number, found) in (1..).zip(&tried) {
        let by_platform = expected(number, f64::ln, f64::exp);
        let portable = expected(number, libm::log, libm::exp);
        let wanted = if number <= num_older as u64 { by_platform } else { portable };
        assert_eq!(*found, wanted, "trial {number}");
    }
    let directory = tempfile::tempdir().unwrap();
    {
        let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
        for (position, (at, event)) in cluster.events.iter().enumerate() {
            engine.apply(*at, event.clone());
            journal.append(&[(*at, event.clone())]).unwrap();
            if position % 11 == 0 {
                journal.snapshot(&mut engine).unwrap();
            }
        }
    }
    let (_, engine) = Journal::open(directory.path()).unwrap();
    assert_eq!(engine, cluster.engine);
}

/// Worked out in Python from the seed tree and the published polynomials of `fdlibm`; glibc 2.36 has another last bit
/// for the first and the ninth.
#[test]
fn random_trials_have_these_bits_on_every_machine() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(random());
    while tried(&cluster).len() < 12 {
        let spec = cluster.current().unwrap();
        cluster.finish(&spec);
    }
    let wanted: [u64; 12] = [
        0x3f8e_75c9_d80a_e3b2,
        0x3f72_b24f_7564_11ea,
        0x3f09_807d_542b_252c,
        0x3f80_784a_5e51_b303,
        0x3fb3_6170_3c9e_7032,
        0x3ef5_40e3_c8f4_c335,
        0x3f60_8816_1ac0_6840,
        0x3f35_083e_9950_5771,
        0x3f07_8667_e048_17d4,
        0x3f03_c473_bb18_bf5f,
        0x3f27_418f_4dd6_3476,
        0x3f6b_09b8_fc4b_bc0e,
    ];
    assert_eq!(tried(&cluster)[..12], wanted);
}
