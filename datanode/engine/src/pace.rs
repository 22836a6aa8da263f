//! Keeping a shard responsive: long work breathes between steps, and tasks of one shard wake one another.
//!
//! glommio preempts by a timer in its latency ring, and that has a hole: where the timer fires between the executor's
//! poll for I/O and its first task (the thread was descheduled there for as long as the timer runs), the executor takes
//! itself for idle and parks with tasks ready to run, until something else wakes it. With a timer of 500 us on busy cores
//! one start in a hundred hung that way. So the timer is as good as off ([`PREEMPT_TIMER`]), and long work turns to the
//! executor by a clock of its own.

pub mod executor;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// For the builder of a shard's executor, and as the latency of its queues: never fires.
pub const PREEMPT_TIMER: Duration = Duration::from_secs(24 * 3600);
/// Longest time between two looks of the executor at its rings while there is long work: what a finished write of the
/// log may wait.
const SLICE: Duration = Duration::from_micros(250);
/// The same while somebody waits for a write, which takes some six such turns: its record, the write and the sync of the
/// log, and the decision likewise.
const SLICE_BESIDE_WRITES: Duration = Duration::from_micros(100);
/// Reading rests for so many slices after each of its own while writes come: whoever sends them needs the core, too.
const RESTS: u32 = 2;
/// Writes with less than that between them come in a row.
const LULL: Duration = Duration::from_millis(10);
/// As short as a timer can be that is not over before it is first looked at.
const TURN: Duration = Duration::from_micros(1);

thread_local! {
    /// When the long work of this thread last came from a turn of the executor; `None` outside a shard.
    static SLICE_START: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Writes of this shard that somebody waits for.
    static WRITES: Cell<usize> = const { Cell::new(0) };
    /// When the last one of them was answered.
    static LAST_WRITE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A write that somebody waits for. While it lives, long work of this shard goes in smaller steps.
pub struct Awaited(());

impl Awaited {
    #[must_use]
    pub fn begin() -> Self {
        WRITES.set(WRITES.get() + 1);
        Self(())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        WRITES.set(WRITES.get() - 1);
        LAST_WRITE.set(Some(Instant::now()));
    }
}

/// Whether somebody waits for a write of this shard.
pub fn is_awaited() -> bool {
    WRITES.get() > 0
}

/// Declares this thread a shard's: from now on [`breathe`] yields. To be called within its executor.
pub fn begin() {
    SLICE_START.set(Some(Instant::now()));
}

/// Lets others run, and finished I/O be seen, when long work had its share. Call it every 100 us or so: without need it
/// only looks at the clock.
pub async fn breathe() {
    breathe_for(|_| TURN).await;
}

/// [`breathe`] for work that only reads: while writes come, it takes a third of the time.
pub async fn breathe_reading() {
    let is_beside_writes = || is_awaited() || LAST_WRITE.get().is_some_and(|last| last.elapsed() < LULL);
    // A slice that began before this work did says nothing about it.
    breathe_for(|slice| if is_beside_writes() { slice.min(SLICE) * RESTS } else { TURN }).await;
}

/// `rest` is told how long the slice was.
async fn breathe_for(rest: impl FnOnce(Duration) -> Duration) {
    if executor::is_simulated() {
        return executor::pause().await;
    }
    let Some(start) = SLICE_START.get() else { return };
    let slice = start.elapsed();
    if slice < if is_awaited() { SLICE_BESIDE_WRITES } else { SLICE } {
        return;
    }
    // Threads that wait for this core come first: turns of the kernel are some milliseconds long.
    std::thread::yield_now();
    // A timer and no plain yield: after that the executor would go on with the next ready task and not look at its rings.
    // All long work stops here until it did, since the slice begins anew only afterwards.
    glommio::timer::sleep(rest(slice)).await;
    if SLICE_START.get() == Some(start) {
        begin();
    }
}

/// Something happened: wakes every task of this shard that waits for it.
#[derive(Default)]
pub struct Signal {
    raised: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    pub fn raise(&self) {
        self.raised.set(self.raised.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Resolves at the next [`Self::raise`]. Take it before looking at the condition, so that none is missed.
    pub fn next(&self) -> Raised<'_> {
        Raised { signal: self, seen: self.raised.get() }
    }
}

pub struct Raised<'a> {
    signal: &'a Signal,
    seen: u64,
}

impl Future for Raised<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.raised.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.signal.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::testing;

    fn work() {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(50) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn long_work_of_several_tasks_lets_timers_of_others_run() {
        testing::run(async {
            let fired = Rc::new(Cell::new(false));
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let fired = Rc::clone(&fired);
                    glommio::spawn_local(async move {
                        while !fired.get() {
                            work();
                            breathe().await;
                        }
                    })
                })
                .collect();
            glommio::timer::sleep(Duration::from_millis(2)).await;
            fired.set(true);
            for task in tasks {
                task.await;
            }
        });
    }

    #[test]
    fn an_executor_with_ready_tasks_does_not_park_when_its_thread_was_descheduled() {
        // Blocking the thread between two polls is what a busy machine does to it.
        testing::run(async {
            for _ in 0..50 {
                let task = glommio::spawn_local(async { std::thread::sleep(Duration::from_millis(1)) });
                breathe().await;
                task.await;
            }
        });
    }
}
