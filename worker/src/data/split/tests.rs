//! What becomes of rows, on small tables.

use muster_common::manifest::{Delimiter, LabelRule, SourceFormat};
use proptest::prelude::*;

use super::*;
use crate::data::census::Survey;
use crate::data::rows::TextSpill;
use crate::data::source::{SourceFile, Wanted};

/// Rows of one role: texts and labels, in a CSV file of its own.
type Table<'a> = (Role, &'a str, &'a [(&'a str, &'a str)]);

fn census(tables: &[Table<'_>], hygiene: Hygiene) -> Result<Census, DataError> {
    let file = |(role, name, rows): &Table<'_>| {
        let row = |(text, label): &(&str, &str)| format!("\"{text}\",{label}\n");
        let body: String = rows.iter().map(row).collect();
        let columns = Some(vec!["text".to_owned(), "label".to_owned()]);
        let format = SourceFormat::Delimited { delimiter: Delimiter::Comma, columns };
        (*role, vec![SourceFile::of_bytes(name, format, body.as_bytes())])
    };
    let files: Vec<(Role, Vec<SourceFile>)> = tables.iter().map(file).collect();
    let label = Some("label".to_owned());
    let wanted = Wanted { text: "text".to_owned(), pair: None, label, documents: false };
    let names = Some(vec!["no".to_owned(), "yes".to_owned()]);
    let rule = LabelRule::Class { column: "label".to_owned(), names };
    let near = hygiene.near_duplicates == muster_common::manifest::NearDuplicates::Together;
    let survey = Survey { wanted: &wanted, rule: Some(&rule), hygiene, near, num_threads: 2 };
    survey.take(&files, &mut TextSpill::new(&std::env::temp_dir(), false)?)
}

fn divided(
    tables: &[Table<'_>],
    validation: &Holdout,
    hygiene: Hygiene,
) -> Result<(Census, Division), DataError> {
    let census = census(tables, hygiene)?;
    let has_test = tables.iter().any(|(role, ..)| *role == Role::Test);
    let file = muster_common::manifest::Source {
        paths: Vec::new(),
        hub: None,
        format: SourceFormat::Text,
    };
    let test = if has_test { Holdout::Source(file) } else { Holdout::Absent };
    let held_out = HeldOut { validation, test: &test };
    let division = divide(&census, held_out, hygiene, Seed(1))?;
    Ok((census, division))
}

fn cut_only(rows: &[(&str, &str)], count: u64) -> Result<(Census, Division), DataError> {
    divided(&[(Role::Train, "t.csv", rows)], &Holdout::Count(count), Hygiene::default())
}

fn file() -> Holdout {
    let format = SourceFormat::Text;
    Holdout::Source(muster_common::manifest::Source { paths: Vec::new(), hub: None, format })
}

/// Rows of a role, by number.
fn rows(division: &Division, role: Role) -> Vec<u32> {
    let fates = (0..).zip(&division.fates);
    fates.filter(|(_, fate)| **fate == Fate::In(role)).map(|(row, _)| row).collect()
}

fn problems(division: &Division) -> Vec<(u32, Problem, bool, Option<u32>)> {
    let line = |f: &Finding| (f.row, f.problem, f.kept, f.other);
    division.findings.iter().map(line).collect()
}

#[test]
fn repeated_texts_count_once_and_every_row_is_accounted_for() {
    let train = [("a", "no"), (" a ", "yes"), ("b", "yes"), ("", "no"), ("c", "no"), ("a", "no")];
    let (census, division) = cut_only(&train, 1).unwrap();
    let expected = [
        (1, Problem::Duplicate, false, Some(0)),
        (1, Problem::Contrary, false, Some(0)),
        (5, Problem::Duplicate, false, Some(0)),
    ];
    assert_eq!(problems(&division), expected);
    assert_eq!(census.findings, [Finding::of(3, Problem::Empty, false)]);
    assert_eq!(census.place(3), "t.csv:4");
    let held = rows(&division, Role::Validation).len();
    assert_eq!((rows(&division, Role::Train).len(), held), (2, 1));
}

#[test]
fn held_out_files_stay_whole_and_leave_the_training_file() {
    let tables: [Table<'_>; 3] = [
        (Role::Train, "t.csv", &[("a", "no"), ("b", "yes"), ("c", "no"), ("d", "yes")]),
        (Role::Validation, "v.csv", &[("b", "yes"), ("e", "no"), ("e", "no")]),
        (Role::Test, "s.csv", &[("e", "no"), ("a ", "no"), ("a", "no")]),
    ];
    let (census, division) = divided(&tables, &file(), Hygiene::default()).unwrap();
    assert_eq!(rows(&division, Role::Train), [2, 3]);
    assert_eq!(rows(&division, Role::Validation), [4]);
    assert_eq!(rows(&division, Role::Test), [7, 8, 9]);
    let expected = [
        (0, Problem::Leak, false, Some(8)),
        (1, Problem::Leak, false, Some(4)),
        (5, Problem::Leak, false, Some(7)),
        (6, Problem::Leak, false, Some(7)),
        (9, Problem::HeldOutDuplicate, true, Some(8)),
    ];
    assert_eq!(problems(&division), expected);
    assert_eq!((census.place(5).as_str(), census.place(9).as_str()), ("v.csv:2", "s.csv:3"));
}

#[test]
fn the_manifest_decides_whether_rows_stay_or_the_data_is_refused() {
    let tables: [Table<'_>; 2] = [
        (Role::Train, "t.csv", &[("a", "no"), ("b", "yes"), ("b", "yes"), ("c", "no")]),
        (Role::Validation, "v.csv", &[("c", "no"), ("x", "yes")]),
    ];
    let keep = Hygiene { duplicates: Policy::Keep, leaks: Policy::Keep, ..Hygiene::default() };
    let (_, division) = divided(&tables, &file(), keep).unwrap();
    assert_eq!(rows(&division, Role::Train), [0, 1, 2, 3]);
    let expected = [(2, Problem::Duplicate, true, Some(1)), (3, Problem::Leak, true, Some(4))];
    assert_eq!(problems(&division), expected);
    let refuse = |hygiene| divided(&tables, &file(), hygiene).unwrap_err().to_string();
    let duplicates = Hygiene { duplicates: Policy::Refuse, ..Hygiene::default() };
    assert_eq!(refuse(duplicates), "t.csv:3: the same text stands at t.csv:2");
    let leaks = Hygiene { leaks: Policy::Refuse, ..Hygiene::default() };
    assert_eq!(refuse(leaks), "t.csv:4: the same text stands at v.csv:1");
    let bad: [Table<'_>; 1] = [(Role::Train, "t.csv", &[("a", "no"), ("b", "maybe"), ("", "yes")])];
    let drop = Hygiene { unknown_labels: Policy::Drop, ..Hygiene::default() };
    let found = census(&bad, drop).unwrap().findings;
    let unknown = Finding::of(1, Problem::UnknownLabel, false);
    assert_eq!(found, [unknown, Finding::of(2, Problem::Empty, false)]);
    let error = census(&bad, Hygiene::default()).unwrap_err().to_string();
    assert!(error.starts_with("t.csv:2: label `maybe` is none of the classes"), "{error}");
    let empty = Hygiene { empty: Policy::Refuse, ..drop };
    assert!(census(&bad, empty).unwrap_err().to_string().starts_with("t.csv:3: the row has no"));
}

const LONG: &str = "this film begins slowly and ends with the best chase that I have seen in years \
    so stay until the end and do not mind the first half hour which is there for the critics";

#[test]
fn near_duplicates_stay_on_one_side_and_leaks_are_told() {
    let other = LONG.to_uppercase();
    let third = LONG.replace(" in ", " - in - ");
    let words: Vec<String> =
        (0..40).map(|n| format!("word{n} stands{n} alone{n} here{n}")).collect();
    let label = |n: usize| if n.is_multiple_of(2) { "no" } else { "yes" };
    let mut train: Vec<(&str, &str)> =
        words.iter().enumerate().map(|(n, text)| (text.as_str(), label(n))).collect();
    train.extend([(LONG, "no"), (other.as_str(), "no"), (third.as_str(), "no")]);
    for seed in 0..20 {
        let census = census(&[(Role::Train, "t.csv", &train)], Hygiene::default()).unwrap();
        let (validation, test) = (Holdout::Count(9), Holdout::Count(12));
        let held_out = HeldOut { validation: &validation, test: &test };
        let division = divide(&census, held_out, Hygiene::default(), Seed(seed)).unwrap();
        let sides: Vec<Fate> = division.fates[40..].to_vec();
        assert!(sides.iter().all(|side| *side == sides[0]), "{sides:?}");
        assert_eq!(division.num_near_duplicates, 3);
        assert_eq!(rows(&division, Role::Validation).len(), 9);
        assert_eq!(rows(&division, Role::Test).len(), 12);
    }
    let tables: [Table<'_>; 2] = [
        (Role::Train, "t.csv", &train),
        (Role::Validation, "v.csv", &[(&third.replace("best", "very best"), "no"), ("q", "yes")]),
    ];
    let (_, division) = divided(&tables, &file(), Hygiene::default()).unwrap();
    let near: Vec<u32> = (40..43).collect();
    let expected: Vec<_> =
        near.iter().map(|row| (*row, Problem::NearLeak, true, Some(43))).collect();
    assert_eq!(problems(&division), expected);
    let drop = Hygiene { near_leaks: Policy::Drop, ..Hygiene::default() };
    let (_, division) = divided(&tables, &file(), drop).unwrap();
    assert!(near.iter().all(|row| division.fates[*row as usize] == Fate::Out));
    let refuse = Hygiene { near_leaks: Policy::Refuse, ..Hygiene::default() };
    let error = divided(&tables, &file(), refuse).unwrap_err().to_string();
    assert_eq!(error, "t.csv:41: nearly the same text stands at v.csv:1");
}

#[test]
fn groups_are_broken_only_where_a_count_cannot_be_met_otherwise() {
    let texts: Vec<String> = (0..6).map(|n| format!("{LONG}{}", "!".repeat(n))).collect();
    let mut train: Vec<(&str, &str)> = texts.iter().map(|text| (text.as_str(), "no")).collect();
    train.push(("yes", "yes"));
    let (_, division) = cut_only(&train, 3).unwrap();
    assert_eq!(rows(&division, Role::Validation).len(), 3);
    let apart = division.findings.iter().filter(|finding| finding.problem == Problem::Apart);
    assert_eq!(apart.count(), 3);
}

#[test]
fn too_few_examples_and_unseen_classes_are_refused_with_counts() {
    let error = cut_only(&[("a", "no"), ("b", "yes"), ("c", "no")], 3).unwrap_err();
    assert!(error.is_permanent());
    assert!(error.to_string().contains("3 usable examples"), "{error}");
    let error = cut_only(&[("a", "no"), ("b", "no")], 1).unwrap_err();
    assert!(error.to_string().contains("class `yes`"), "{error}");
    let tables: [Table<'_>; 2] =
        [(Role::Train, "t.csv", &[("a", "no"), ("b", "yes")]), (Role::Validation, "v.csv", &[])];
    let error = divided(&tables, &file(), Hygiene::default()).unwrap_err().to_string();
    assert_eq!(error, "data.validation: no usable example is left in the split");
}

proptest! {
    #[test]
    fn cuts_are_exact_and_do_not_depend_on_the_order_of_rows(
        labels in proptest::collection::vec(0u32..2, 4..120), share in 0.0f64..0.9, seed: u64,
    ) {
        let texts: Vec<String> = (0..labels.len()).map(|n| format!("t{n} u{n} v{n}")).collect();
        let name = |label: &u32| if *label == 0 { "no" } else { "yes" };
        let table: Vec<(&str, &str)> =
            texts.iter().map(String::as_str).zip(labels.iter().map(name)).collect();
        let mut shuffled = table.clone();
        Seed(seed).child("rows", 0).draws().shuffle(&mut shuffled);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let count = (share * labels.len() as f64) as usize;
        let cut = |table: &[(&str, &str)]| {
            let census = census(&[(Role::Train, "t.csv", table)], Hygiene::default()).unwrap();
            let mut divider = Divider::new(&census, Hygiene::default());
            let pool: Vec<u32> = census.rows(Role::Train).collect();
            let mut units = Units::new(&census, &pool, BTreeMap::new(), Seed(seed));
            divider.cut(&mut units, count, Role::Test);
            let is_cut = |row: &u32| divider.is_in(*row, Role::Test);
            let mut texts: Vec<(String, String)> = pool
                .iter()
                .filter(|row| is_cut(row))
                .map(|row| table[*row as usize])
                .map(|(text, label)| (text.to_owned(), label.to_owned()))
                .collect();
            texts.sort();
            texts
        };
        let (a, b) = (cut(&table), cut(&shuffled));
        prop_assert_eq!(a.len(), count);
        for class in ["no", "yes"] {
            let all = table.iter().filter(|(_, label)| *label == class).count();
            let found = a.iter().filter(|(_, label)| label == class).count() as f64;
            prop_assert!((found - all as f64 * count as f64 / labels.len() as f64).abs() < 1.0);
        }
        prop_assert_eq!(a, b);
    }
}
