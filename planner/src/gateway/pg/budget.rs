//! Memory for what clients send: one budget over all connections of a gateway. Messages below a connection's own share
//! are not counted; longer ones take from the budget, wait for others when it is used up, and are refused in the end. So
//! no number of clients makes a node hold more than shares and budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::SqlError;

/// What a connection holds without asking. 1000 connections x 64 KiB = 64 MiB beside the budget.
pub const SHARE_BYTES: usize = 64 << 10;
/// What is taken from the budget at a time. 1 GiB has 16384 of them.
const UNIT_BYTES: usize = 64 << 10;
/// Longest wait for messages of others to be done with.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Silence after which a message that is not whole gives its memory to those that wait. Shorter than their wait.
pub const STALL_MAX: Duration = Duration::from_secs(3);

pub struct Budget {
    units: Arc<Semaphore>,
    bytes_max: usize,
    wait_max: Duration,
    waiting: AtomicUsize,
}

/// A message's part of the budget; gives it back when dropped.
#[derive(Debug, Default)]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        let units = Arc::new(Semaphore::new(units_of(bytes_max)));
        Self { units, bytes_max, wait_max: WAIT_MAX, waiting: AtomicUsize::new(0) }
    }

    /// Refuses a message that could never be held. `bytes`: as announced.
    pub fn check(&self, bytes: usize) -> Result<(), SqlError> {
        if bytes.saturating_sub(SHARE_BYTES) <= self.bytes_max {
            return Ok(());
        }
        let detail = format!("It has {bytes} bytes; messages of all clients may take {} together.", self.bytes_max);
        Err(SqlError::new("53200", "out of memory for a message of this length").with_detail(detail).with_hint(HINT))
    }

    /// Makes `held` cover `bytes`.
    pub async fn cover(&self, held: &mut Held, bytes: usize) -> Result<(), SqlError> {
        let more = units_of(bytes).saturating_sub(held.units());
        if more == 0 {
            return Ok(());
        }
        if bytes > self.bytes_max {
            return Err(self.used_up());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(more) {
            held.add(permit);
            return Ok(());
        }
        let _waiting = Waiting::count(&self.waiting);
        match timeout(self.wait_max, Arc::clone(&self.units).acquire_many_owned(more)).await {
            Ok(Ok(permit)) => {
                held.add(permit);
                Ok(())
            }
            _ => Err(self.used_up()),
        }
    }

    /// Whether somebody waits for memory.
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub fn used_up(&self) -> SqlError {
        let detail = format!("Messages of all clients may take {} bytes together.", self.bytes_max);
        SqlError::new("53200", "out of memory for messages of clients").with_detail(detail).with_hint(HINT)
    }
}

const HINT: &str = "Send less at a time, rows with COPY, or raise \"sql.message_memory\".";

impl Held {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn units(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
    }
}

fn units_of(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

/// One of those that wait, even if its wait is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_not_asked_for_again() {
        let budget = Budget::new(3 * UNIT_BYTES);
        let mut held = Held::default();
        for (bytes, units) in [(0, 0), (1, 1), (UNIT_BYTES, 1), (2 * UNIT_BYTES, 2), (1, 2)] {
            budget.cover(&mut held, bytes).await.unwrap();
            assert_eq!(held.units(), units, "{bytes} bytes");
        }
        drop(held);
        assert_eq!(budget.units.available_permits(), 3);
    }

    #[test]
    fn what_could_never_be_held_is_refused_at_once() {
        let budget = Budget::new(1 << 20);
        assert_eq!(budget.check(SHARE_BYTES + (1 << 20)), Ok(()));
        assert_eq!(budget.check(SHARE_BYTES + (1 << 20) + 1).unwrap_err().sqlstate, "53200");
    }

    #[tokio::test]
    async fn nobody_waits_for_more_than_there_is() {
        let budget = Budget::new(1 << 20);
        let mut held = Held::default();
        budget.cover(&mut held, 1 << 20).await.unwrap();
        assert_eq!(budget.cover(&mut held, (1 << 20) + 1).await.unwrap_err().sqlstate, "53200");
    }

    #[tokio::test]
    async fn a_message_waits_for_memory_and_is_refused_in_the_end() {
        let mut budget = Budget::new(2 * UNIT_BYTES);
        let bytes = 2 * UNIT_BYTES;
        let (mut first, mut second) = (Held::default(), Held::default());
        budget.cover(&mut first, bytes).await.unwrap();
        budget.wait_max = Duration::from_millis(5);
        assert_eq!(budget.cover(&mut second, bytes).await.unwrap_err().sqlstate, "53200");
        assert!(!budget.is_awaited());
        budget.wait_max = WAIT_MAX;
        let (covered, ()) = tokio::join!(budget.cover(&mut second, bytes), async {
            tokio::task::yield_now().await;
            assert!(budget.is_awaited());
            drop(first);
        });
        covered.unwrap();
    }
}
