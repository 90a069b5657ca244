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
    // The Thrift string after the key is its length (2 as a varint: 0x01 * 1 char) and the digit.
    let at = raw.windows(newer.len()).rposition(|window| window == newer).unwrap() + newer.len();
    let digit = raw[at..].iter().position(|byte| *byte == b'1').unwrap();
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
