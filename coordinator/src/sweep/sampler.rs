//! Which assignment trial `n` gets: a pure function of settings, seed and `n`, so a trial is the same
//! whatever happened before it was created.

use muster_common::manifest::{Assignment, Domain, ParameterValue, SamplerKind, SearchSpace};
use muster_common::seed::Seed;

/// The assignment of trial `number`, from 1. Constants are not part of an assignment.
pub fn assignment(kind: SamplerKind, space: &SearchSpace, seed: Seed, number: u32) -> Assignment {
    match kind {
        SamplerKind::Random => random(space, seed, number),
        SamplerKind::Grid => grid(space, number),
    }
}

/// Independent draws. Every hyperparameter has a generator of its own: adding one to a manifest
/// leaves the values of the others as they were.
fn random(space: &SearchSpace, seed: Seed, number: u32) -> Assignment {
    let seed = seed.child("sampler", u64::from(number));
    searched(space)
        .map(|(name, domain)| (name.clone(), domain.draw(&mut seed.child(name, 0).draws())))
        .collect()
}

/// Cartesian product, the last name varying fastest.
fn grid(space: &SearchSpace, number: u32) -> Assignment {
    let axes: Vec<(&String, Vec<ParameterValue>)> = searched(space)
        .filter_map(|(name, domain)| domain.enumerate().map(|values| (name, values)))
        .collect();
    let mut rest = number.saturating_sub(1) as usize;
    let mut assignment = Assignment::new();
    for (name, values) in axes.iter().rev() {
        if let Some(value) = values.get(rest % values.len().max(1)) {
            assignment.insert((*name).clone(), *value);
        }
        rest /= values.len().max(1);
    }
    assignment
}

fn searched(space: &SearchSpace) -> impl Iterator<Item = (&String, &Domain)> {
    space.iter().filter(|(_, domain)| domain.is_searched())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Scale;

    fn space() -> SearchSpace {
        let ints = |n: &[i64]| Domain::Values(n.iter().map(|n| ParameterValue::Int(*n)).collect());
        let mut space = SearchSpace::new();
        space.insert("a".to_owned(), ints(&[1, 2]));
        space.insert("b".to_owned(), ints(&[10, 20, 30]));
        space.insert("c".to_owned(), Domain::Constant(ParameterValue::Int(5)));
        space
    }

    #[test]
    fn a_grid_visits_every_point_once_in_order() {
        let points: Vec<(f64, f64)> = (1..=6)
            .map(|number| grid(&space(), number))
            .map(|point| (point["a"].as_f64(), point["b"].as_f64()))
            .collect();
        let expected =
            [(1.0, 10.0), (1.0, 20.0), (1.0, 30.0), (2.0, 10.0), (2.0, 20.0), (2.0, 30.0)];
        assert_eq!(points, expected);
        assert!(!grid(&space(), 1).contains_key("c"));
    }

    #[test]
    fn a_new_hyperparameter_leaves_the_others_alone() {
        let mut wider = space();
        let domain = Domain::Float { min: 1e-5, max: 1e-3, scale: Scale::Log };
        wider.insert("aa".to_owned(), domain);
        for number in 1..20 {
            let narrow = random(&space(), Seed(7), number);
            let wide = random(&wider, Seed(7), number);
            assert_eq!(narrow["a"], wide["a"]);
            assert_eq!(narrow["b"], wide["b"]);
        }
    }
}
