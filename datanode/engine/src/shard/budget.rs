//! Memory of a shard's scans together. Who finds none left waits, and is refused when that takes too long.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use meridian_proto::Refusal;

use super::flush::wait_at_most;
use crate::pace::{Signal, executor};

/// Scans that wait for memory, at most; more are refused at once.
const WAITING_MAX: usize = 1024;

pub struct ScanBudget {
    bytes_max: usize,
    wait: Duration,
    taken: Cell<usize>,
    waiting: Cell<usize>,
    freed: Signal,
}

/// Memory that a scan has; given back when dropped.
pub struct Permit {
    budget: Rc<ScanBudget>,
    bytes: usize,
}

impl ScanBudget {
    pub fn new(bytes_max: usize, wait: Duration) -> Rc<Self> {
        let (taken, waiting) = (Cell::new(0), Cell::new(0));
        Rc::new(Self { bytes_max, wait, taken, waiting, freed: Signal::default() })
    }

    /// Bytes that scans have.
    pub fn bytes(&self) -> usize {
        self.taken.get()
    }

    /// Bytes that nobody has.
    pub fn bytes_left(&self) -> usize {
        self.bytes_max.saturating_sub(self.taken.get())
    }

    /// Waits for so many bytes. More than there are at all are given to one that is alone.
    pub async fn take(self: &Rc<Self>, bytes: usize) -> Result<Permit, Refusal> {
        let fits = || self.taken.get() == 0 || self.taken.get() + bytes <= self.bytes_max;
        if !fits() {
            if self.waiting.get() >= WAITING_MAX {
                let reason = format!("{WAITING_MAX} scans wait for memory of the shard; run fewer queries at once");
                return Err(Refusal::Overloaded(reason));
            }
            self.waiting.set(self.waiting.get() + 1);
            let _waiting = Waiting(&self.waiting);
            let deadline = executor::now() + self.wait;
            loop {
                let freed = self.freed.next();
                if fits() {
                    break;
                }
                let left = deadline.saturating_duration_since(executor::now());
                if left.is_zero() || !wait_at_most(freed, left).await && !fits() {
                    let reason =
                        "scans of the shard have no memory left; run fewer queries at once, or give scans more";
                    return Err(Refusal::Memory(reason.to_owned()));
                }
            }
        }
        self.taken.set(self.taken.get() + bytes);
        Ok(Permit { budget: Rc::clone(self), bytes })
    }
}

impl Permit {
    /// What it turned out to be.
    pub fn set(&mut self, bytes: usize) {
        let taken = &self.budget.taken;
        taken.set(taken.get() - self.bytes + bytes);
        self.bytes = bytes;
        self.budget.freed.raise();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Counts a waiting scan for as long as it lives.
struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::executor::{Queue, simulate};

    #[test]
    fn who_finds_no_memory_waits_until_it_is_given_back() {
        simulate(1, async {
            let budget = ScanBudget::new(100, Duration::from_secs(5));
            let first = budget.take(80).await.unwrap();
            let (waiting, start) = (Rc::clone(&budget), executor::now());
            let second = Queue::Simulated.spawn(async move {
                let permit = waiting.take(50).await.unwrap();
                (permit.bytes, executor::now() - start)
            });
            executor::sleep(Duration::from_secs(2)).await;
            drop(first);
            assert_eq!(second.await, (50, Duration::from_secs(2)));
            assert_eq!(budget.taken.get(), 0);
        });
    }

    #[test]
    fn who_waits_too_long_is_refused_with_53200_and_too_many_at_once_with_53300() {
        simulate(2, async {
            let budget = ScanBudget::new(100, Duration::from_secs(5));
            let mut all = budget.take(1000).await.unwrap();
            let refused = budget.take(1).await.err().unwrap();
            assert_eq!(refused.sqlstate(), "53200");
            budget.waiting.set(WAITING_MAX);
            assert_eq!(budget.take(1).await.err().unwrap().sqlstate(), "53300");
            all.set(99);
            assert!(budget.take(1).await.is_ok());
        });
    }
}
