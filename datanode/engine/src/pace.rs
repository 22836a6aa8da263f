//! Keeping a shard responsive: long work breathes between steps, and tasks of one shard wake one another.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Lets others run when this task had its share. Call it every 100 us or so: it costs a few nanoseconds when there is
/// no need.
pub async fn breathe() {
    glommio::yield_if_needed().await;
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
