//! Says whether a history of appends keeps the promises: nothing acknowledged is lost or doubled, a statement is atomic,
//! and a read sees everything that was acknowledged before it began.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, OpId, Told};

/// What a history came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub reads: usize,
    /// Broken promises, in words.
    pub violations: Vec<String>,
}

/// Checks all events; the last read must have been made after all appends ended.
#[must_use]
pub fn check(events: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut sizes: BTreeMap<OpId, i64> = BTreeMap::new();
    let mut acknowledged: BTreeSet<OpId> = BTreeSet::new();
    let mut refused: BTreeSet<OpId> = BTreeSet::new();
    // What each open read must see: everything acknowledged before it began.
    let mut due: BTreeMap<usize, BTreeSet<OpId>> = BTreeMap::new();
    // What some read has shown must be shown by every read that begins later.
    let mut shown: BTreeSet<OpId> = BTreeSet::new();
    for event in events {
        match event {
            Event::Invoked { op, rows } => {
                sizes.insert(*op, *rows);
            }
            Event::Ended { op, told } => match told {
                Told::Acknowledged => {
                    verdict.acknowledged += 1;
                    acknowledged.insert(*op);
                }
                Told::Refused(_) => {
                    verdict.refused += 1;
                    refused.insert(*op);
                }
                Told::Unknown(_) => verdict.unknown += 1,
            },
            Event::ReadInvoked { read } => {
                due.insert(*read, acknowledged.union(&shown).copied().collect());
            }
            Event::ReadEnded { read, rows } => {
                verdict.reads += 1;
                let due = due.remove(read).unwrap_or_default();
                check_read(*read, rows, &due, &sizes, &refused, &mut verdict.violations);
                shown.extend(rows.keys());
            }
        }
    }
    verdict
}

fn check_read(
    read: usize,
    rows: &BTreeMap<OpId, i64>,
    due: &BTreeSet<OpId>,
    sizes: &BTreeMap<OpId, i64>,
    refused: &BTreeSet<OpId>,
    violations: &mut Vec<String>,
) {
    for op in due.iter().filter(|op| !rows.contains_key(op)) {
        violations.push(format!("read {read} lacks append {op}, which was acknowledged or shown before"));
    }
    for (op, count) in rows {
        match sizes.get(op) {
            None => violations.push(format!("read {read} shows append {op}, which nobody made")),
            Some(size) if size != count => {
                violations.push(format!("read {read} shows {count} of {size} rows of append {op}"));
            }
            Some(_) if refused.contains(op) => {
                violations.push(format!("read {read} shows append {op}, which was refused"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: Vec<Event>) -> Vec<String> {
        check(&events).violations
    }

    fn append(op: OpId, told: Told) -> [Event; 2] {
        [Event::Invoked { op, rows: 3 }, Event::Ended { op, told }]
    }

    fn read(number: usize, rows: &[(OpId, i64)]) -> [Event; 2] {
        let rows = rows.iter().copied().collect();
        [Event::ReadInvoked { read: number }, Event::ReadEnded { read: number, rows }]
    }

    fn refusal() -> Told {
        Told::Refused("57P03".to_owned())
    }

    #[test]
    fn a_history_that_keeps_the_promises_passes() {
        let unknown = Told::Unknown("08007".to_owned());
        let events =
            [append(1, Told::Acknowledged), append(2, refusal()), append(3, unknown), read(0, &[(1, 3), (3, 3)])];
        assert_eq!(run(events.concat()), Vec::<String>::new());
    }

    #[test]
    fn planted_violations_are_found() {
        let found = |events: Vec<[Event; 2]>, word: &str| {
            let violations = run(events.concat());
            assert!(violations.len() == 1 && violations[0].contains(word), "{violations:?}");
        };
        found(vec![append(1, Told::Acknowledged), read(0, &[])], "lacks append 1");
        found(vec![append(1, Told::Acknowledged), read(0, &[(1, 2)])], "2 of 3 rows");
        found(vec![append(1, Told::Acknowledged), read(0, &[(1, 6)])], "6 of 3 rows");
        found(vec![append(1, refusal()), read(0, &[(1, 3)])], "which was refused");
        found(vec![read(0, &[(9, 3)])], "nobody made");
        let unknown = Told::Unknown("08007".to_owned());
        found(vec![append(1, unknown), read(0, &[(1, 3)]), read(1, &[])], "lacks append 1");
    }
}
