//! Tests of shrinking, on lists of numbers.

use proptest::prelude::*;

use super::{Judged, Shrink, Shrunk, shrink};

/// Numbers that can be left out or made half as large.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbers(Vec<u32>);

impl Shrink for Numbers {
    fn item_count(&self) -> usize {
        self.0.len()
    }

    fn without(&self, first: usize, end: usize) -> Self {
        let mut numbers = self.0.clone();
        numbers.drain(first..end);
        Self(numbers)
    }

    fn simpler(&self) -> Vec<(String, Self)> {
        let half = |(place, number): (usize, &u32)| {
            let mut numbers = self.0.clone();
            numbers[place] = number / 2;
            (format!("number {place}"), Self(numbers))
        };
        self.0.iter().enumerate().filter(|(_, number)| 0 < **number).map(half).collect()
    }
}

type Rule = fn(&[u32]) -> bool;

/// Things that a failing list may be about: some hold for more when more is there, some do not.
const RULES: [Rule; 5] = [
    |numbers| numbers.iter().any(|number| 100 < *number),
    |numbers| 300 < numbers.iter().sum::<u32>(),
    |numbers| numbers.iter().filter(|number| **number % 2 == 1).count() == 3,
    |numbers| numbers.windows(2).any(|pair| pair[1] < pair[0]),
    |numbers| numbers.len() % 3 == 2,
];

/// One after another, as a judge without threads does.
fn in_turn(fails: impl Fn(&[u32]) -> bool) -> impl FnMut(&[Numbers]) -> Judged<Numbers> {
    move |candidates| match candidates.iter().position(|candidate| fails(&candidate.0)) {
        Some(place) => Judged::Fails(place, candidates[place].clone()),
        None => Judged::NoneFails,
    }
}

fn is_minimal(numbers: &Numbers, fails: Rule) -> bool {
    let mut smaller: Vec<Numbers> =
        (0..numbers.item_count()).map(|item| numbers.without(item, item + 1)).collect();
    smaller.extend(numbers.simpler().into_iter().map(|(_, simpler)| simpler));
    !smaller.iter().any(|smaller| fails(&smaller.0))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is left fails, and nothing more can be taken from it, whatever the rule.
    #[test]
    fn what_is_left_is_minimal(
        numbers in proptest::collection::vec(0_u32..200, 0..60),
        rule in 0..RULES.len(),
    ) {
        prop_assume!(RULES[rule](&numbers));
        let Shrunk { smallest, is_minimal: is_done, .. } =
            shrink(Numbers(numbers), in_turn(RULES[rule]), |_| {});
        prop_assert!(is_done);
        prop_assert!(RULES[rule](&smallest.0), "{smallest:?}");
        prop_assert!(is_minimal(&smallest, RULES[rule]), "{smallest:?}");
    }

    /// A judge that stops the search at any moment leaves something that fails.
    #[test]
    fn a_stopped_search_still_fails(
        numbers in proptest::collection::vec(0_u32..200, 0..60),
        rule in 0..RULES.len(),
        judged_max in 0..40,
    ) {
        prop_assume!(RULES[rule](&numbers));
        let mut left = judged_max;
        let mut judge = in_turn(RULES[rule]);
        let count = numbers.len();
        let shrunk = shrink(
            Numbers(numbers),
            |candidates| {
                left -= 1;
                if left < 0 { Judged::Stop } else { judge(candidates) }
            },
            |_| {},
        );
        prop_assert!(RULES[rule](&shrunk.smallest.0));
        prop_assert!(shrunk.smallest.0.len() <= count);
    }

    /// Two items that matter are found among many with few questions.
    #[test]
    fn few_questions_are_asked(first in 0_usize..1_000, second in 0_usize..1_000) {
        let numbers: Vec<u32> =
            (0..1_000).map(|place| u32::from(place == first || place == second)).collect();
        let wanted: u32 = numbers.iter().sum();
        let mut tried = 0;
        let shrunk = shrink(
            Numbers(numbers),
            |candidates| {
                tried += candidates.len();
                in_turn(|numbers| numbers.iter().sum::<u32>() == wanted)(candidates)
            },
            |_| {},
        );
        prop_assert_eq!(shrunk.smallest.0.len(), usize::try_from(wanted).unwrap());
        prop_assert!(tried < 1_000, "{}", tried);
    }
}

/// Every step is told of, each smaller than the one before.
#[test]
fn steps_are_reported() {
    let mut counts = Vec::new();
    let mut names = Vec::new();
    let numbers = Numbers((60..124).collect());
    let fails = |numbers: &[u32]| numbers.iter().any(|number| 17 <= *number);
    let shrunk = shrink(numbers, in_turn(fails), |step| {
        counts.push(step.smallest.0.len());
        names.push(step.what.to_owned());
    });
    assert_eq!(shrunk.smallest.0.len(), 1);
    assert!(shrunk.smallest.0[0] < 34 && shrunk.step_count == counts.len());
    assert!(counts.is_sorted_by(|a, b| b <= a));
    assert!(names.contains(&"left out".to_owned()) && names.contains(&"number 0".to_owned()));
}
