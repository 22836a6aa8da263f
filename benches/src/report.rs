//! What was measured, as text for people and as JSON for programs.

use serde::Serialize;

/// A figure: what, how much, in which unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

impl Figure {
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit }
    }
}

/// Prints figures, one a line, or as one JSON array.
pub fn print(figures: &[Figure], json: bool) {
    if json {
        let text = serde_json::to_string(figures).expect("figures are plain values");
        println!("{text}");
        return;
    }
    for figure in figures {
        println!("{:<44} {:>14.2} {}", figure.name, figure.value, figure.unit);
    }
}

/// The value below which a share of the sorted samples lies, by the nearest rank.
///
/// # Panics
/// On no samples.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    assert!(!sorted.is_empty(), "a percentile of nothing");
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples = [1.0, 2.0, 3.0, 4.0];
        assert_eq!((percentile(&samples, 0.5), percentile(&samples, 0.95), percentile(&samples, 0.0)), (2.0, 4.0, 1.0));
    }
}
