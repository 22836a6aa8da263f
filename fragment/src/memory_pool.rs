//! What operators of one process may hold together.
//!
//! Those that can spill (or hand on early what they have) get a fair share each, whatever the others hold, so that none
//! fails because another came first; more than that they get while a quarter of all is free. Who holds more than its share
//! is refused when it grows and spills, so that together they hold little more than there is, and not for long. The others
//! get what is free, and a quarter of all in any case: merges of what was spilled are among them, and small statements beside
//! large ones whose clients do not read on. A share is never less than an operator needs to go on at all, by spilling after
//! each batch: many of them together hold more than there is then, rather than fail.
//!
//! Hash aggregates count twice: they learn what they hold after they hold it, their buffers double when they grow, and what
//! they spill or hand out is copied beside the groups.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// A part of the names of consumers that are hash aggregates.
const HASH_AGGREGATE: &str = "HashAggregateStream";
/// This part of all is for those that cannot spill.
const OTHERS_PART: usize = 4;

#[derive(Debug)]
pub struct OperatorPool {
    bytes_max: usize,
    share_min: usize,
    held: Mutex<Held>,
}

/// Bytes as they are counted.
#[derive(Debug, Default)]
struct Held {
    spillers: usize,
    by_spillers: usize,
    by_others: usize,
}

impl OperatorPool {
    #[must_use]
    pub fn new(bytes_max: usize, share_min: usize) -> Self {
        Self { bytes_max, share_min, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        if consumer.can_spill() { &mut self.by_spillers } else { &mut self.by_others }
    }

    fn free(&self, bytes_max: usize) -> usize {
        bytes_max.saturating_sub(self.by_spillers + self.by_others)
    }

    /// Of one that can spill.
    fn share(&self, bytes_max: usize) -> usize {
        bytes_max.saturating_sub(self.by_others.max(bytes_max / OTHERS_PART)) / self.spillers.max(1)
    }
}

/// Bytes as they are counted.
fn counted(consumer: &MemoryConsumer, bytes: usize) -> usize {
    if consumer.name().contains(HASH_AGGREGATE) { bytes.saturating_mul(2) } else { bytes }
}

impl MemoryPool for OperatorPool {
    fn name(&self) -> &str {
        "operators"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.held().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.held().spillers -= usize::from(consumer.can_spill());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let consumer = reservation.consumer();
        *self.held().of(consumer) += counted(consumer, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let consumer = reservation.consumer();
        *self.held().of(consumer) -= counted(consumer, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        let wanted = counted(consumer, additional);
        let mut held = self.held();
        let free = held.free(self.bytes_max);
        let is_given = if consumer.can_spill() {
            let whole = counted(consumer, reservation.size().saturating_add(additional));
            whole <= held.share(self.bytes_max).max(self.share_min)
                || wanted <= free.saturating_sub(self.bytes_max / OTHERS_PART)
        } else {
            wanted <= free || held.by_others + wanted <= self.bytes_max / OTHERS_PART
        };
        if !is_given {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} holds {} bytes and finds no room for {additional} more: {free} of {} are free",
                consumer.name(),
                reservation.size(),
                self.bytes_max
            )));
        }
        *held.of(consumer) += wanted;
        Ok(())
    }

    fn reserved(&self) -> usize {
        let held = self.held();
        held.by_spillers + held.by_others
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

impl fmt::Display for OperatorPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operators(used: {}, most: {})", self.reserved(), self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn hash_aggregates_count_twice_and_give_back_what_was_counted() {
        let pool: Arc<dyn MemoryPool> = Arc::new(OperatorPool::new(100, 0));
        let join = MemoryConsumer::new("HashJoinInput").register(&pool);
        let groups = MemoryConsumer::new("FinalHashAggregateStream[1]").register(&pool);
        join.try_grow(40).unwrap();
        groups.try_grow(30).unwrap();
        assert!(groups.try_grow(1).is_err() && join.try_grow(1).is_err());
        assert_eq!(pool.reserved(), 100);
        groups.shrink(10);
        assert_eq!(pool.reserved(), 80);
        drop((join, groups));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn who_can_spill_gets_its_share_whatever_the_others_hold() {
        let pool: Arc<dyn MemoryPool> = Arc::new(OperatorPool::new(100, 30));
        let spiller = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let (first, second) = (spiller("ExternalSorter[0]"), spiller("ExternalSorter[1]"));
        // A quarter stays free for others, above the share of 37.
        first.try_grow(75).unwrap();
        assert!(first.try_grow(1).is_err());
        second.try_grow(37).unwrap();
        assert!(second.try_grow(1).is_err());
        let merge = MemoryConsumer::new("SortPreservingMergeExec[0]").register(&pool);
        merge.try_grow(25).unwrap();
        assert!(merge.try_grow(1).is_err());
        // It spilled.
        first.shrink(75);
        first.try_grow(25).unwrap();
        drop(second);
        first.try_grow(50).unwrap();
        // Of eleven, a ninth part of all would be too little to work with.
        let many: Vec<_> = (0..10).map(|_| spiller("ExternalSorter[2]")).collect();
        assert!(many.iter().all(|one| one.try_grow(30).is_ok() && one.try_grow(1).is_err()));
    }
}
