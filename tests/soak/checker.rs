//! Checks a [`History`]: whether every observation is one that a gateway can give that loses nothing and revives
//! nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use crate::history::{Change, History, Micros, Observation, Outcome, Seen, Value};

/// Returns a sentence for each observation that no correct gateway can give.
pub(crate) fn violations(history: &History) -> Vec<String> {
    let mut registers: BTreeMap<&str, (Vec<&Change>, Vec<&Observation>)> = BTreeMap::new();
    for change in &history.changes {
        registers.entry(&change.register).or_default().0.push(change);
    }
    for observation in &history.observations {
        registers.entry(&observation.register).or_default().1.push(observation);
    }
    let mut found = Vec::new();
    for (changes, observations) in registers.values_mut() {
        changes.sort_by_key(|change| change.span.start);
        observations.sort_by_key(|observation| observation.span.start);
        check_values(changes, observations, &mut found);
        check_etags(changes, observations, &mut found);
    }
    check_half_moves(history, &registers, &mut found);
    found
}

/// Number of a change in its register; 0 is the state before the first one.
type ChangeNumber = usize;

/// Each observation is of the last change that was acknowledged before it or that somebody has seen, or of a later one
/// that was not refused.
fn check_values(changes: &[&Change], observations: &[&Observation], found: &mut Vec<String>) {
    // Observations that have ended and the change that each has seen, the earliest first.
    let mut ended: BinaryHeap<Reverse<(Micros, ChangeNumber)>> = BinaryHeap::new();
    let mut last_seen = 0;
    for observation in observations {
        while let Some(Reverse((_, seen))) =
            ended.peek().copied().filter(|Reverse((end, _))| *end <= observation.span.start)
        {
            ended.pop();
            last_seen = last_seen.max(seen);
        }
        let started = changes.partition_point(|change| change.span.start <= observation.span.end);
        let is_acknowledged =
            |change: &&Change| change.outcome == Outcome::Acknowledged && change.span.end <= observation.span.start;
        let acknowledged = changes[..started].iter().rposition(is_acknowledged).map_or(0, |at| at + 1);
        let floor = acknowledged.max(last_seen);
        let possible = (floor..=started).filter(|number| {
            *number == floor
                || changes.get(number.wrapping_sub(1)).is_some_and(|change| change.outcome != Outcome::Refused)
        });
        let value_after = |number: ChangeNumber| number.checked_sub(1).and_then(|at| changes[at].value);
        match &observation.seen {
            Seen::Damaged(why) => {
                found.push(format!("{}: {why}, seen in {:?}", observation.register, observation.span))
            }
            Seen::Value(value) => match possible.clone().find(|number| value_after(*number) == *value) {
                // Of several changes to one value the earliest: the check is weaker by that, and never wrong.
                Some(number) => ended.push(Reverse((observation.span.end, number))),
                None => found.push(describe_wrong_value(observation, *value, changes, floor)),
            },
        }
    }
}

fn describe_wrong_value(observation: &Observation, value: Value, changes: &[&Change], floor: ChangeNumber) -> String {
    let expected = floor.checked_sub(1).map(|at| changes[at]);
    let source = changes.iter().find(|change| change.value == value);
    format!(
        "{}: {value:?} was seen in {:?} although {expected:?} was in force; the value is that of {source:?}",
        observation.register, observation.span
    )
}

/// An entity tag stands for one content, and the content of an upload has the tag that the upload was answered with.
fn check_etags(changes: &[&Change], observations: &[&Observation], found: &mut Vec<String>) {
    let mut contents: HashMap<&str, Value> = HashMap::new();
    let tagged_changes = changes.iter().filter_map(|change| Some((change.etag.as_deref()?, change.value)));
    let tagged_observations = observations.iter().filter_map(|observation| match &observation.seen {
        Seen::Value(value) => Some((observation.etag.as_deref()?, *value)),
        Seen::Damaged(_) => None,
    });
    for (etag, value) in tagged_changes.chain(tagged_observations) {
        let first = *contents.entry(etag).or_insert(value);
        if first != value {
            found.push(format!("the entity tag {etag} stands for the contents {first:?} and {value:?}"));
        }
    }
    let uploads: HashMap<u64, &str> =
        changes.iter().filter_map(|change| Some((change.value?, change.etag.as_deref()?))).collect();
    let value_counts = changes.iter().filter_map(|change| change.value).fold(HashMap::new(), |mut counts, value| {
        *counts.entry(value).or_insert(0) += 1;
        counts
    });
    for observation in observations {
        let (Seen::Value(Some(value)), Some(etag)) = (&observation.seen, observation.etag.as_deref()) else { continue };
        // A content that has come back by MOVE or COPY has a tag of its own.
        let is_single = value_counts.get(value) == Some(&1);
        if let Some(expected) = uploads.get(value).filter(|expected| is_single && **expected != etag) {
            let Observation { register, span, .. } = observation;
            found.push(format!("{register}: unchanged, and its entity tag was {expected} and is {etag} in {span:?}"));
        }
    }
}

/// A MOVE whose connection was lost has moved or not: both names show the same.
fn check_half_moves(
    history: &History,
    registers: &BTreeMap<&str, (Vec<&Change>, Vec<&Observation>)>,
    found: &mut Vec<String>,
) {
    let mut moves: BTreeMap<u64, Vec<&Change>> = BTreeMap::new();
    for change in history.changes.iter().filter(|change| change.outcome == Outcome::Unknown) {
        moves.entry(change.operation).or_default().push(change);
    }
    for pair in moves.values().filter(|changes| changes.len() == 2) {
        let has_moved: Vec<Option<bool>> = pair
            .iter()
            .map(|change| {
                let (changes, observations) = registers.get(change.register.as_str())?;
                let next_start = changes.iter().map(|other| other.span.start).find(|start| *start > change.span.start);
                let after = observations.iter().find(|observation| observation.span.start >= change.span.end)?;
                if next_start.is_some_and(|start| start <= after.span.end) || had_value_before(change, changes) {
                    return None;
                }
                match &after.seen {
                    Seen::Value(value) => Some(*value == change.value),
                    Seen::Damaged(_) => None,
                }
            })
            .collect();
        if let [Some(first), Some(second)] = has_moved[..]
            && first != second
        {
            found.push(format!("a move was done by half: {pair:?}"));
        }
    }
}

/// Tells whether the register may have had the change's value already before it, so that seeing the value doesn't tell
/// whether the change was done: a MOVE of a file onto its own copy.
fn had_value_before(change: &Change, changes: &[&Change]) -> bool {
    let earlier = &changes[..changes.partition_point(|other| other.span.start < change.span.start)];
    let is_settled = |other: &&Change| other.outcome == Outcome::Acknowledged && other.span.end <= change.span.start;
    let settled = earlier.iter().rposition(is_settled);
    let is_first_state = settled.is_none() && change.value.is_none();
    let is_value = |other: &&Change| other.outcome != Outcome::Refused && other.value == change.value;
    is_first_state || earlier[settled.unwrap_or(0)..].iter().any(is_value)
}
