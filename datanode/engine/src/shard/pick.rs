//! Which segments of a chunk to put together next. Pure: facts in, a job out.
//!
//! Segments stand in order of arrival. Two whose times do not overlap cost a reader nothing; of those that do, at most
//! [`CompactionLimits::overlap_max`] lie over one moment, so that a reader merges few and a late row is found quickly.
//! Small segments are put together whether they overlap or not, eight of a size at a time, so that each row is rewritten
//! once per factor of eight.
//!
//! A job never changes the order in which rows of equal key arrived: the result takes the place of the job's last
//! segment, and a segment that is left out and came between two of the job must not overlap the earlier one.

use meridian_proto::SegmentId;

/// Below it all sizes are about the same: opening the file costs more than reading its rows.
const TINY_BYTES: u64 = 256 << 10;
/// Sizes within a factor of eight, 3 bits, are about the same.
const TIER_BITS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Segments over one moment, at most.
    pub overlap_max: usize,
    /// Segments of one job, at most.
    pub fan_in_max: usize,
    /// Segments of one job that are all tiny, at most: a flush makes one for each undecided transaction.
    pub tiny_max: usize,
    /// So many segments of about the same size are put together.
    pub small_count: usize,
    /// Above it a segment is put together with others only where they overlap too much.
    pub small_bytes_max: u64,
}

impl Default for CompactionLimits {
    fn default() -> Self {
        // 64 MiB: some ten million rows at 6 bytes, 1 % of what a chunk of a few GiB has.
        Self { overlap_max: 8, fan_in_max: 16, tiny_max: 128, small_count: 8, small_bytes_max: 64 << 20 }
    }
}

/// What is known of a segment without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFacts {
    pub segment: SegmentId,
    pub bytes: u64,
    /// Range of the times, both ends inclusive; `None`: any time.
    pub time: Option<(i64, i64)>,
    /// Undecided or compressed: compaction leaves it alone.
    pub is_fixed: bool,
    /// Counts for the overlap, as compressed segments do; those of an undecided transaction do not.
    pub is_compressed: bool,
}

/// Segments to be put together, in order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub inputs: Vec<SegmentId>,
}

/// The next job, if one is due. `runs` in order of arrival.
#[must_use]
pub fn pick(runs: &[RunFacts], limits: CompactionLimits) -> Option<Job> {
    let compressed = usize::from(runs.iter().any(|run| run.is_compressed));
    let overlap_max = limits.overlap_max.max(2).saturating_sub(compressed).max(1);
    let free: Vec<RunFacts> = runs.iter().filter(|run| !run.is_fixed).copied().collect();
    let picked = pick_tiny(&free, limits)
        .or_else(|| pick_overlapping(&free, overlap_max, limits))
        .or_else(|| pick_small(&free, limits))?;
    Some(Job { inputs: picked.into_iter().map(|at| free[at].segment).collect() })
}

/// Most segments that lie over one moment; compressed ones, which do not overlap one another, count as one.
#[must_use]
pub fn overlap(runs: &[RunFacts]) -> usize {
    let compressed = usize::from(runs.iter().any(|run| run.is_compressed));
    let free: Vec<RunFacts> = runs.iter().filter(|run| !run.is_fixed).copied().collect();
    deepest(&free).len() + compressed
}

/// Whether putting these together (positions, ascending) keeps the order of arrival of rows with equal times.
#[must_use]
pub fn keeps_arrival(runs: &[RunFacts], picked: &[usize]) -> bool {
    left_between(runs, picked).is_none()
}

/// Positions of the segments over the moment with the most of them, the earliest of several.
fn deepest(runs: &[RunFacts]) -> Vec<usize> {
    let span = |run: &RunFacts| run.time.unwrap_or((i64::MIN, i64::MAX));
    // The most segments lie over a moment at which one begins.
    let mut starts: Vec<i64> = runs.iter().map(|run| span(run).0).collect();
    let mut ends: Vec<i64> = runs.iter().map(|run| span(run).1).collect();
    starts.sort_unstable();
    ends.sort_unstable();
    let (mut ended, mut best) = (0, (0, 0));
    for (begun, start) in starts.iter().enumerate() {
        while ends[ended] < *start {
            ended += 1;
        }
        let depth = begun + 1 - ended;
        if depth > best.0 {
            best = (depth, *start);
        }
    }
    let covers = |run: &RunFacts| span(run).0 <= best.1 && best.1 <= span(run).1;
    (0..runs.len()).filter(|at| covers(&runs[*at])).collect()
}

/// Some of the segments over the deepest moment: neighbours by arrival, none of which is large beside the others. Merging
/// a large one with little else is what rewrites rows again and again: the cheapest neighbours rewrote each row 40 times in
/// a run of flushes over the same times; a test holds this rule below 6.
fn pick_overlapping(runs: &[RunFacts], overlap_max: usize, limits: CompactionLimits) -> Option<Vec<usize>> {
    let over = deepest(runs);
    let surplus = over.len().checked_sub(overlap_max).filter(|surplus| *surplus > 0)?;
    let fan_in_max = limits.fan_in_max.max(2);
    let widths = (surplus + 1).min(fan_in_max)..=over.len().min(fan_in_max);
    let windows = widths.flat_map(|width| over.windows(width));
    let unevenness = |window: &&[usize]| {
        let bytes = || window.iter().map(|at| u128::from(runs[*at].bytes));
        let largest = bytes().max().unwrap_or(0);
        (largest * 1024 / (bytes().sum::<u128>() - largest).max(1), std::cmp::Reverse(window.len()))
    };
    let mut windows: Vec<&[usize]> = windows.collect();
    windows.sort_by_cached_key(unevenness);
    let fitting = windows.into_iter().map(|window| closed(runs, window)).find(|picked| picked.len() <= fan_in_max);
    fitting.or_else(|| {
        // Too much lies between. Neighbours can always be put together, and then less does.
        let closest = over.windows(2).min_by_key(|pair| pair[1] - pair[0])?;
        Some((closest[0]..=closest[1]).take(fan_in_max).collect())
    })
}

/// The positions, with all that must come along so that the order of arrival stays.
fn closed(runs: &[RunFacts], window: &[usize]) -> Vec<usize> {
    let mut picked = window.to_vec();
    while let Some(between) = left_between(runs, &picked) {
        let place = picked.partition_point(|at| *at < between);
        picked.insert(place, between);
    }
    picked
}

/// A segment that is left out though it came between two picked ones and overlaps an earlier one.
fn left_between(runs: &[RunFacts], picked: &[usize]) -> Option<usize> {
    let (first, last) = (*picked.first()?, *picked.last()?);
    let is_overtaken =
        |between: usize| picked.iter().any(|at| *at < between && overlaps(runs[*at].time, runs[between].time));
    (first..last).find(|between| !picked.contains(between) && is_overtaken(*between))
}

fn overlaps(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => true,
    }
}

/// The first neighbours that are all tiny, if they are too many for other jobs: what a file costs, not a row, makes these
/// slow, and they come faster than sixteen at a time can go.
fn pick_tiny(runs: &[RunFacts], limits: CompactionLimits) -> Option<Vec<usize>> {
    let is_tiny = |at: &usize| runs[*at].bytes <= TINY_BYTES;
    let all: Vec<usize> = (0..runs.len()).collect();
    let mut stretches = all.split(|at| !is_tiny(at));
    let stretch = stretches.find(|stretch| stretch.len() > limits.fan_in_max)?;
    Some(stretch[..stretch.len().min(limits.tiny_max.max(2))].to_vec())
}

/// The oldest small segments of about the same size, if there are enough of them.
fn pick_small(runs: &[RunFacts], limits: CompactionLimits) -> Option<Vec<usize>> {
    let count = limits.small_count.clamp(2, limits.fan_in_max.max(2));
    let tier = |run: &RunFacts| run.bytes.max(TINY_BYTES).ilog2() / TIER_BITS;
    let is_small = |run: &&RunFacts| run.bytes <= limits.small_bytes_max;
    let mut tiers: Vec<u32> = runs.iter().filter(is_small).map(tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers.into_iter().find_map(|wanted| {
        let is_wanted = |at: &usize| is_small(&&runs[*at]) && tier(&runs[*at]) == wanted;
        let of_tier: Vec<usize> = (0..runs.len()).filter(is_wanted).collect();
        let window = of_tier.windows(count).find(|window| keeps_arrival(runs, window));
        window.map(<[usize]>::to_vec)
    })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const LIMITS: CompactionLimits =
        CompactionLimits { overlap_max: 8, fan_in_max: 16, tiny_max: 30, small_count: 8, small_bytes_max: 64 << 20 };
    const LARGE: u64 = 100 << 20;

    fn run(segment: u64, bytes: u64, time: impl Into<Option<(i64, i64)>>) -> RunFacts {
        RunFacts { segment: SegmentId(segment), bytes, time: time.into(), is_fixed: false, is_compressed: false }
    }

    fn picked(runs: &[RunFacts]) -> Vec<u64> {
        pick(runs, LIMITS).map_or(Vec::new(), |job| job.inputs.iter().map(|segment| segment.0).collect())
    }

    /// What the chunk consists of after the job.
    fn apply(runs: &[RunFacts], job: &Job, result: u64) -> Vec<RunFacts> {
        let is_input = |run: &RunFacts| job.inputs.contains(&run.segment);
        let inputs: Vec<RunFacts> = runs.iter().filter(|run| is_input(run)).copied().collect();
        let time = inputs.iter().map(|run| run.time).reduce(|a, b| Some((a?.0.min(b?.0), a?.1.max(b?.1)))).flatten();
        let merged = run(result, inputs.iter().map(|run| run.bytes).sum(), time);
        let last = inputs.last().unwrap().segment;
        let kept = runs.iter().filter(|run| !is_input(run) || run.segment == last);
        kept.map(|run| if run.segment == last { merged } else { *run }).collect()
    }

    #[test]
    fn segments_side_by_side_are_left_alone() {
        let runs: Vec<_> = (0..7).map(|n| run(n, 1 << 20, (n as i64 * 10, n as i64 * 10 + 9))).collect();
        assert!(picked(&runs).is_empty());
        let large: Vec<_> = (0..100).map(|n| run(n, LARGE, (n as i64 * 10, n as i64 * 10 + 9))).collect();
        assert!(picked(&large).is_empty());
        assert!(picked(&[]).is_empty());
    }

    #[test]
    fn eight_over_one_moment_are_allowed_and_of_nine_those_of_a_size_are_put_together() {
        let mut runs: Vec<_> = (0..8).map(|n| run(n, LARGE, (0, 100))).collect();
        assert!(picked(&runs).is_empty());
        runs.push(run(8, LARGE, (50, 60)));
        assert_eq!(picked(&runs), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let mut beside: Vec<_> = (0..2).map(|n| run(n, 100 * LARGE, (0, 100))).collect();
        beside.extend((2..9).map(|n| run(n, LARGE, (0, 100))));
        assert_eq!(picked(&beside), [2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn small_segments_are_put_together_eight_at_a_time_the_oldest_first() {
        let runs: Vec<_> = (0..16).map(|n| run(n, 10_000 + n, (n as i64 * 10, n as i64 * 10 + 9))).collect();
        assert_eq!(picked(&runs), [0, 1, 2, 3, 4, 5, 6, 7]);
        let apart: Vec<_> = (0..8).map(|n| run(n, if n == 3 { LARGE } else { 10_000 }, (n as i64, n as i64))).collect();
        assert!(picked(&apart).is_empty(), "only seven are small");
    }

    #[test]
    fn tiny_segments_that_pile_up_are_put_together_many_at_a_time() {
        let mut runs: Vec<_> = (0..100).map(|n| run(n, 10_000, (0, 100))).collect();
        runs[20].bytes = LARGE;
        assert_eq!(picked(&runs), Vec::from_iter(0..20));
        runs[10].bytes = LARGE;
        assert_eq!(picked(&runs), Vec::from_iter(21..51));
    }

    #[test]
    fn what_came_between_and_overlaps_comes_along() {
        let mut runs = vec![run(0, 10, (0, 100)), run(1, 10, (0, 40)), run(2, 10, (90, 100))];
        runs.extend((3..11).map(|n| run(n, LARGE, (90, 200))));
        let picked = picked(&runs);
        assert!(picked.contains(&0) && picked.contains(&1) && picked.contains(&2), "{picked:?}");
    }

    #[test]
    fn undecided_and_compressed_segments_are_no_inputs_and_compressed_ones_count_once() {
        let mut runs: Vec<_> = (0..3).map(|n| run(n, LARGE, None)).collect();
        runs.iter_mut().for_each(|run| (run.is_fixed, run.is_compressed) = (true, true));
        runs.push(RunFacts { is_fixed: true, ..run(3, 10, None) });
        runs.extend((4..11).map(|n| run(n, LARGE, None)));
        assert_eq!((overlap(&runs), picked(&runs)), (8, vec![]));
        runs.push(run(11, LARGE, None));
        let picked = picked(&runs);
        assert!(picked.len() >= 2 && picked.iter().all(|segment| *segment >= 4), "{picked:?}");
    }

    fn random_runs(random: &mut ChaCha8Rng) -> Vec<RunFacts> {
        let span = random.random_range(1..1000);
        let count = random.random_range(0..60);
        let facts = |segment| {
            let start = random.random_range(0..1000);
            let time = random.random_ratio(19, 20).then(|| (start, start + random.random_range(0..span)));
            let is_compressed = random.random_ratio(1, 15);
            RunFacts {
                is_fixed: is_compressed || random.random_ratio(1, 10),
                is_compressed,
                ..run(segment, 1 << random.random_range(10..30), time)
            }
        };
        (0..count).map(facts).collect()
    }

    #[test]
    fn jobs_end_with_bounded_overlap_and_keep_the_order_of_arrival() {
        for seed in 0..2000 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut runs = random_runs(&mut random);
            let fixed = runs.iter().filter(|run| run.is_fixed).count();
            let limits = CompactionLimits { fan_in_max: random.random_range(2..20), ..LIMITS };
            let mut jobs = 0;
            while let Some(job) = pick(&runs, limits) {
                let free: Vec<_> = runs.iter().filter(|run| !run.is_fixed).copied().collect();
                let at: Vec<usize> = (0..free.len()).filter(|at| job.inputs.contains(&free[*at].segment)).collect();
                assert_eq!(at.len(), job.inputs.len(), "seed {seed}: inputs are free segments, each once");
                let is_tiny = at.iter().all(|at| free[*at].bytes <= TINY_BYTES);
                let most = if is_tiny { limits.fan_in_max.max(limits.tiny_max) } else { limits.fan_in_max };
                assert!((2..=most).contains(&at.len()), "seed {seed}: {job:?}");
                assert!(keeps_arrival(&free, &at), "seed {seed}: {job:?} of {free:?}");
                runs = apply(&runs, &job, 1000 + jobs);
                jobs += 1;
                assert!(jobs < 100, "seed {seed}: no end");
            }
            assert!(overlap(&runs) <= LIMITS.overlap_max, "seed {seed}: {runs:?}");
            assert_eq!(runs.iter().filter(|run| run.is_fixed).count(), fixed, "seed {seed}");
        }
    }

    #[test]
    fn rows_are_rewritten_a_few_times_only() {
        // A flush a minute over the same times, and one after the other.
        for is_late in [true, false] {
            let (mut runs, mut written, count) = (Vec::new(), 0, 1000);
            for n in 0..count {
                let time = if is_late { (0, 1000) } else { (n as i64 * 10, n as i64 * 10 + 9) };
                runs.push(run(n, 100 << 10, time));
                while let Some(job) = pick(&runs, LIMITS) {
                    let inputs = runs.iter().filter(|run| job.inputs.contains(&run.segment));
                    written += inputs.map(|run| run.bytes).sum::<u64>();
                    runs = apply(&runs, &job, 10_000 + written);
                }
                assert!(overlap(&runs) <= 8 && runs.len() < 40, "{n}: {}", runs.len());
            }
            let times = written as f64 / (count as f64 * (100 << 10) as f64);
            assert!(times < 6.0, "late: {is_late}, each row was rewritten {times} times");
        }
    }
}
