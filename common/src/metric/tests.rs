//! Reader rules and file format.

use proptest::prelude::*;

use super::*;

fn trial() -> TrialId {
    TrialId { experiment: "demo-1".parse().unwrap(), number: 2 }
}

fn point(attempt: u32, resumed_from: u64, step: u64, value: f64) -> MetricPoint {
    MetricPoint {
        trial: trial(),
        attempt: Attempt(attempt),
        resumed_from,
        rank: 0,
        step,
        name: MetricName::TRAIN_LOSS,
        value,
        recorded_at: Timestamp(1000 + step),
        unit: "nats".into(),
        host: "here".into(),
        superseded: false,
    }
}

fn steps_and_values(points: &[MetricPoint]) -> Vec<(u64, f64)> {
    points.iter().map(|point| (point.step, point.value)).collect()
}

#[test]
fn an_attempt_supersedes_what_lies_behind_its_checkpoint() {
    let points = vec![
        point(1, 0, 10, 1.0),
        point(1, 0, 20, 1.1),
        point(1, 0, 30, 1.2), // trained, then lost: attempt 2 continued from step 20
        point(2, 20, 25, 2.5),
    ];
    let kept = effective(points);
    assert_eq!(steps_and_values(&kept), vec![(10, 1.0), (20, 1.1), (25, 2.5)]);
}

#[test]
fn a_rewind_counts_even_behind_a_later_attempt_that_rewound_less() {
    let points = vec![
        point(1, 0, 30, 1.0),
        point(2, 10, 20, 2.0),
        point(3, 20, 40, 3.0), // does not rewind behind 20, but attempt 2 rewound to 10
    ];
    assert_eq!(steps_and_values(&effective(points)), vec![(20, 2.0), (40, 3.0)]);
}

#[test]
fn a_promoted_trial_keeps_every_row() {
    let points = vec![point(1, 0, 10, 1.0), point(2, 10, 20, 2.0), point(3, 20, 30, 3.0)];
    assert_eq!(effective(points.clone()), points);
}

#[test]
fn a_step_evaluated_again_and_a_file_sent_twice_count_once() {
    let mut again = point(2, 10, 10, 2.0);
    again.name = MetricName::VALIDATION_LOSS;
    let mut first = point(1, 0, 10, 1.0);
    first.name = MetricName::VALIDATION_LOSS;
    let points = vec![again.clone(), first, again.clone()];
    assert_eq!(effective(points), vec![again]);
}

#[test]
fn ranks_and_trials_do_not_mix() {
    let other_trial = TrialId { number: 3, ..trial() };
    let other = MetricPoint { trial: other_trial, ..point(2, 0, 5, 9.0) };
    let other_rank = MetricPoint { rank: 1, ..point(1, 0, 5, 8.0) };
    let kept = effective(vec![point(1, 0, 5, 7.0), other_rank, other]);
    assert_eq!(kept.iter().map(|point| point.value).collect::<Vec<_>>(), vec![7.0, 8.0, 9.0]);
}

#[test]
fn names_are_checked() {
    for bad in ["", "Loss", "1st", "a b", "_x", &"x".repeat(64)] {
        assert!(bad.parse::<MetricName>().is_err(), "{bad}");
    }
    assert_eq!("train_loss".parse::<MetricName>().unwrap(), MetricName::TRAIN_LOSS);
}

#[test]
fn the_directory_is_the_one_files_lie_in() {
    let file = Layout::metrics(&trial(), Attempt(4), 1, 2);
    assert!(file.prefix_matches(&directory(&trial())));
    assert_eq!(file.parts().count(), directory(&trial()).parts().count() + 1);
}

#[test]
fn newer_and_truncated_files_are_refused() {
    let bytes = encode(&[point(1, 0, 1, 0.5)]).unwrap();
    for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(decode(bytes.slice(..cut)), Err(MetricError::Damaged { .. })), "{cut}");
    }
    let newer = b"muster.metrics.format".as_slice();
    let mut raw = bytes.to_vec();
    // The Thrift string after the key is its length and the digit.
    let at = raw.windows(newer.len()).rposition(|window| window == newer).unwrap() + newer.len();
    let digit = raw[at..].iter().position(|byte| *byte == b'2').unwrap();
    raw[at + digit] = b'9';
    assert!(matches!(decode(raw.into()), Err(MetricError::NewerFormat { format: 9 })));
}

#[tokio::test]
async fn a_trial_is_read_from_its_files_and_a_bad_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap()).unwrap();
    assert_eq!(read_trial(&store, &trial()).await.unwrap(), Vec::new());
    let (a, b) = (point(1, 0, 1, 0.5), point(1, 0, 2, f64::INFINITY));
    for (sequence, point) in [&a, &b].into_iter().enumerate() {
        let key = Layout::metrics(&trial(), Attempt(1), 0, u32::try_from(sequence).unwrap());
        store.put(&key, encode(std::slice::from_ref(point)).unwrap()).await.unwrap();
    }
    assert_eq!(read_trial(&store, &trial()).await.unwrap(), vec![a, b]);
    let key = Layout::metrics(&trial(), Attempt(2), 0, 0);
    store.put(&key, &b"not parquet"[..]).await.unwrap();
    let error = read_trial(&store, &trial()).await.unwrap_err().to_string();
    assert!(error.contains("2-0-000000.parquet"), "{error}");
}

#[test]
fn what_does_not_count_is_marked_and_every_key_is_there_once() {
    let points = vec![
        point(1, 0, 30, 1.2), // lost: attempt 2 continued from 20
        point(1, 0, 20, 1.1), // evaluated again by attempt 2
        point(2, 20, 20, 2.0),
        point(2, 20, 25, 2.5),
        point(2, 20, 25, 2.5), // a file that was sent twice
    ];
    let marked = marked(points);
    let found: Vec<(u32, u64, bool)> =
        marked.iter().map(|point| (point.attempt.0, point.step, point.superseded)).collect();
    assert_eq!(found, [(1, 20, true), (2, 20, false), (2, 25, false), (1, 30, true)]);
}

#[test]
fn units_are_known_of_every_name_the_trainer_writes() {
    for metric in crate::objective::ObjectiveMetric::ALL {
        assert!(!MetricName::validation(metric).unit().is_empty(), "{}", metric.name());
    }
    let group = MetricName::learning_rate_of_group(3);
    assert_eq!((group.as_str(), group.unit()), ("learning_rate_group_3", "1"));
    assert_eq!("validation_masked_loss".parse::<MetricName>().unwrap().unit(), "nats");
    assert_eq!("of_another_build".parse::<MetricName>().unwrap().unit(), "");
}

/// Written by pyarrow with the columns of format 1; see `generate_format_1.py` beside it.
const FORMAT_1: &[u8] = include_bytes!("golden/format_1.parquet");

#[test]
fn files_of_format_1_are_read() {
    let read = decode(FORMAT_1.into()).unwrap();
    let old = |step, value| MetricPoint { host: "".into(), ..point(2, 20, step, value) };
    let at = |point: MetricPoint, at| MetricPoint { recorded_at: Timestamp(at), ..point };
    let first = at(old(21, 0.5), 1_700_000_000_000);
    assert_eq!(read, [first, at(old(22, f64::INFINITY), 1_700_000_000_001)]);
}

async fn store_with(files: &[(u32, u32, Vec<MetricPoint>)]) -> Store {
    let store = Store::in_memory();
    for (attempt, sequence, points) in files {
        let key = Layout::metrics(&trial(), Attempt(*attempt), 0, *sequence);
        store.put(&key, encode(points).unwrap()).await.unwrap();
    }
    store
}

#[tokio::test]
async fn one_file_takes_the_place_of_many() {
    let files = [
        (1, 0, vec![point(1, 0, 10, 1.0), point(1, 0, 20, 1.1)]),
        (1, 1, vec![point(1, 0, 30, 1.2)]),
        (2, 0, vec![point(2, 20, 25, 2.5)]),
    ];
    let store = store_with(&files).await;
    let before = read_trial(&store, &trial()).await.unwrap();
    let parts = store.list(&directory(&trial())).await.unwrap();
    let done = compact(&store, &trial()).await.unwrap();
    assert_eq!(done, Compaction::Done { num_rows: 4, num_files: 3 });
    let whole = Layout::trial_metrics(&trial());
    assert_eq!(store.list(&directory(&trial())).await.unwrap(), std::slice::from_ref(&whole));
    assert_eq!(read_trial(&store, &trial()).await.unwrap(), before);
    assert_eq!(compact(&store, &trial()).await.unwrap(), Compaction::Needless);
    // As after a kill before the parts were deleted: everything is there twice and counts once.
    let (attempt, sequence, points) = &files[0];
    let again = Layout::metrics(&trial(), Attempt(*attempt), 0, *sequence);
    store.put(&again, encode(points).unwrap()).await.unwrap();
    assert_eq!(read_trial(&store, &trial()).await.unwrap(), before);
    // And what a worker that was thought lost wrote in the end.
    let late = MetricPoint { rank: 1, ..point(2, 20, 26, 9.0) };
    store.put(&parts[1], encode(std::slice::from_ref(&late)).unwrap()).await.unwrap();
    let done = compact(&store, &trial()).await.unwrap();
    assert_eq!(done, Compaction::Done { num_rows: 5, num_files: 3 });
    let after = read_trial(&store, &trial()).await.unwrap();
    assert_eq!((after.len(), after.contains(&late)), (before.len() + 1, true));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_everything_as_it_is() {
    let store = store_with(&[(1, 0, vec![point(1, 0, 10, 1.0)])]).await;
    store.put(&Layout::metrics(&trial(), Attempt(1), 0, 1), &b"no"[..]).await.unwrap();
    let before = store.list(&directory(&trial())).await.unwrap();
    assert!(matches!(compact(&store, &trial()).await, Err(MetricError::File { .. })));
    assert_eq!(store.list(&directory(&trial())).await.unwrap(), before);
}

fn any_point() -> impl Strategy<Value = MetricPoint> {
    let ids = (1u32..4, 1u32..5, 0u32..3);
    (ids, 0u64..50, 0u64..50, "[a-z][a-z0-9_]{0,9}", any::<f64>(), 0u64..1 << 40).prop_map(
        |((number, attempt, rank), resumed_from, step, name, value, at)| MetricPoint {
            trial: TrialId { number, ..trial() },
            attempt: Attempt(attempt),
            resumed_from,
            rank,
            step,
            name: name.parse().unwrap(),
            value,
            recorded_at: Timestamp(at),
            unit: "1".into(),
            host: format!("node-{rank}").into(),
            superseded: at % 7 == 0,
        },
    )
}

proptest! {
    #[test]
    fn files_round_trip(points in proptest::collection::vec(any_point(), 0..60)) {
        let read = decode(encode(&points).unwrap()).unwrap();
        prop_assert_eq!(read.len(), points.len());
        for (a, b) in read.iter().zip(&points) {
            prop_assert_eq!(a.value.to_bits(), b.value.to_bits());
            let value = 0.0;
            prop_assert_eq!(
                MetricPoint { value, ..a.clone() },
                MetricPoint { value, ..b.clone() }
            );
        }
    }

    #[test]
    fn a_compacted_trial_says_what_its_parts_said(
        points in proptest::collection::vec(any_point(), 0..60),
    ) {
        let marked = marked(points.clone());
        let kept = decode(super::parquet::encode_small(&marked).unwrap()).unwrap();
        prop_assert_eq!(format!("{kept:?}"), format!("{marked:?}"));
        let text = |points: Vec<MetricPoint>| format!("{points:?}");
        prop_assert_eq!(text(effective(kept.clone())), text(effective(points.clone())));
        let keys: std::collections::BTreeSet<_> = kept
            .iter()
            .map(|point| (&point.trial, point.attempt, point.rank, point.step, &point.name))
            .collect();
        prop_assert_eq!(keys.len(), kept.len());
        let counted = kept.iter().filter(|point| !point.superseded).count();
        prop_assert_eq!(counted, effective(points).len());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, tail in 0u32..64) {
        let mut framed = b"PAR1".to_vec();
        framed.extend(&bytes);
        framed.extend(tail.to_le_bytes());
        framed.extend(b"PAR1");
        prop_assert!(decode(framed.into()).is_err());
        prop_assert!(decode(bytes.into()).is_err());
    }

    #[test]
    fn one_flipped_bit_never_panics(at: usize, bit in 0u8..8) {
        let mut raw = encode(&[point(1, 0, 1, 0.5), point(1, 0, 2, 0.25)]).unwrap().to_vec();
        let at = at % raw.len();
        raw[at] ^= 1 << bit;
        let _read = decode(raw.into());
    }

    #[test]
    fn the_order_of_files_does_not_matter(
        points in proptest::collection::vec(any_point(), 0..40), seed: u64,
    ) {
        let mut shuffled = points.clone();
        crate::seed::Seed(seed).draws().shuffle(&mut shuffled);
        let text = |points: &[MetricPoint]| format!("{points:?}");
        prop_assert_eq!(text(&effective(points)), text(&effective(shuffled)));
    }
}

/// What happens to a file on a bad disk or in bad hands.
#[derive(Debug, Clone)]
enum Damage {
    /// Other bytes at some place.
    Overwrite(usize, Vec<u8>),
    /// Bytes are missing.
    Cut(usize, usize),
    /// A piece of the file stands at another place.
    Move(usize, usize, usize),
    /// A number of the footer, which is full of them, becomes another.
    Footer(usize, u8),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        (any::<usize>(), 1usize..64).prop_map(|(at, count)| Damage::Cut(at, count)),
        (any::<usize>(), any::<usize>(), 1usize..64)
            .prop_map(|(from, to, count)| Damage::Move(from, to, count)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Footer(at, byte)),
    ]
}

fn damaged(mut file: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        let len = file.len().max(1);
        match one {
            Damage::Overwrite(at, bytes) => {
                for (offset, byte) in bytes.iter().enumerate() {
                    if let Some(place) = file.get_mut((at % len).saturating_add(offset)) {
                        *place = *byte;
                    }
                }
            }
            Damage::Cut(at, count) => {
                let from = at % len;
                file.drain(from..(from + count).min(file.len()));
            }
            Damage::Move(from, to, count) => {
                let from = from % len;
                let piece: Vec<u8> = file.drain(from..(from + count).min(file.len())).collect();
                let to = to % (file.len() + 1);
                file.splice(to..to, piece);
            }
            Damage::Footer(at, byte) => {
                // Behind the data: the last bytes but the eight of length and magic.
                let back = 9 + at % 600;
                if let Some(place) = file.len().checked_sub(back).and_then(|at| file.get_mut(at)) {
                    *place = *byte;
                }
            }
        }
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_damaged_file_is_read_or_refused(
        which in 0usize..3, damage in proptest::collection::vec(any_damage(), 1..4),
    ) {
        let points: Vec<MetricPoint> = (1..200).map(|step| point(1, 0, step, 0.5)).collect();
        let file = match which {
            0 => encode(&points).unwrap(),
            1 => super::parquet::encode_small(&points).unwrap(),
            _ => FORMAT_1.into(),
        };
        // Neither a panic nor memory for what such a file says of itself.
        if let Ok(read) = decode(damaged(file.to_vec(), &damage).into()) {
            prop_assert!(read.len() <= 1 << 20, "{} rows", read.len());
        }
    }
}
