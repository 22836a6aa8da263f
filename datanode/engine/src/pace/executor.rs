//! The event loop below a shard: glommio's, or a simulated one whose order of tasks, time and pauses come from a seed.
//! Everything that a shard asks of its loop goes through here, so that the whole shard runs under a seed as it is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use glommio::{Latency, Shares, TaskQueueHandle};

thread_local! {
    static SIMULATION: RefCell<Option<Rc<Simulation>>> = const { RefCell::new(None) };
}

/// Tasks that share processor time by their shares.
#[derive(Clone, Copy)]
pub enum Queue {
    Glommio(TaskQueueHandle),
    Simulated,
}

impl Queue {
    /// A queue of this thread's event loop.
    #[must_use]
    pub fn new(name: &str, shares: usize, latency: Latency) -> Self {
        match simulation() {
            Some(_) => Self::Simulated,
            None => Self::Glommio(glommio::executor().create_task_queue(Shares::Static(shares), latency, name)),
        }
    }

    /// Begins a task in this queue.
    pub fn spawn<T: 'static>(self, future: impl Future<Output = T> + 'static) -> Task<T> {
        match (self, simulation()) {
            (Self::Glommio(queue), _) => {
                let task = glommio::spawn_local_into(future, queue).expect("a queue lives as long as its executor");
                Task(Kind::Glommio(task))
            }
            (Self::Simulated, Some(simulation)) => Task(Kind::Simulated(simulation.spawn(future))),
            (Self::Simulated, None) => unreachable!("a simulated queue is used within its simulation"),
        }
    }
}

/// A task that was begun; resolves to its result, ends where it stands when dropped.
pub struct Task<T>(Kind<T>);

enum Kind<T> {
    Glommio(glommio::Task<T>),
    Simulated(SimulatedTask<T>),
}

impl<T: 'static> Task<T> {
    /// Lets it run to its end by itself.
    pub fn detach(self) {
        match self.0 {
            Kind::Glommio(task) => drop(task.detach()),
            Kind::Simulated(mut task) => task.is_detached = true,
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Kind::Glommio(task) => task.poll_unpin(context),
            Kind::Simulated(task) => task.poll(context),
        }
    }
}

/// Waits for so long.
pub async fn sleep(wait: Duration) {
    match simulation() {
        Some(simulation) => {
            let until = simulation.now.get() + wait;
            Timer { simulation, until }.await;
        }
        None => glommio::timer::sleep(wait).await,
    }
}

/// The clock, which a simulation moves itself.
#[must_use]
pub fn now() -> Instant {
    simulation().map_or_else(Instant::now, |simulation| simulation.start + simulation.now.get())
}

/// Whether this thread runs a simulation.
#[must_use]
pub fn is_simulated() -> bool {
    simulation().is_some()
}

/// A moment at which a simulation may let others run: nothing on a real event loop.
pub async fn pause() {
    let Some(simulation) = simulation() else { return };
    // Mostly the same task goes on: long stretches without a change are as telling as many changes.
    let rounds = match simulation.random() % 8 {
        0..=4 => 0,
        5 | 6 => 1,
        _ => 2,
    };
    for _ in 0..rounds {
        Turn(false).await;
    }
}

fn simulation() -> Option<Rc<Simulation>> {
    SIMULATION.with_borrow(Clone::clone)
}

/// Runs a future and all tasks that it begins in an order that the seed decides; same seed, same run. Time passes only
/// when every task waits.
///
/// # Panics
/// When all tasks wait for one another.
pub fn simulate<T>(seed: u64, future: impl Future<Output = T>) -> T {
    let simulation = Rc::new(Simulation {
        seed: Cell::new(seed),
        start: Instant::now(),
        now: Cell::new(Duration::ZERO),
        tasks: RefCell::default(),
        task_next: Cell::new(MAIN + 1),
        ready: Arc::default(),
        timers: RefCell::default(),
        timer_next: Cell::new(0),
    });
    let _scope = Scope::enter(&simulation);
    let mut main = std::pin::pin!(future);
    let ready = Arc::clone(&simulation.ready);
    let waker = Waker::from(Arc::new(TaskWaker { task: MAIN, ready }));
    waker.wake_by_ref();
    loop {
        match simulation.take_ready() {
            Some(MAIN) => {
                if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return result;
                }
            }
            Some(task) => simulation.poll(task),
            None => assert!(simulation.pass_time(), "seed {seed}: all tasks wait for one another"),
        }
    }
}

/// Number of the future that [`simulate`] was called with.
const MAIN: u64 = 0;

struct Simulation {
    seed: Cell<u64>,
    start: Instant,
    now: Cell<Duration>,
    /// `None` while it is polled.
    tasks: RefCell<BTreeMap<u64, Option<LocalBoxFuture<'static, ()>>>>,
    task_next: Cell<u64>,
    ready: Arc<Mutex<Vec<u64>>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    timer_next: Cell<u64>,
}

impl Simulation {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&self) -> u64 {
        let state = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn spawn<T: 'static>(self: &Rc<Self>, future: impl Future<Output = T> + 'static) -> SimulatedTask<T> {
        let slot = Rc::new(Slot { result: Cell::new(None), waiting: Cell::new(None) });
        let task = self.task_next.get();
        self.task_next.set(task + 1);
        let filled = Rc::clone(&slot);
        let future = async move {
            filled.result.set(Some(future.await));
            if let Some(waker) = filled.waiting.take() {
                waker.wake();
            }
        };
        self.tasks.borrow_mut().insert(task, Some(future.boxed_local()));
        lock(&self.ready).push(task);
        SimulatedTask { task, simulation: Rc::clone(self), slot, is_detached: false }
    }

    fn take_ready(&self) -> Option<u64> {
        let mut ready = lock(&self.ready);
        let count = ready.len();
        (count > 0).then(|| ready.swap_remove((self.random() % count as u64) as usize))
    }

    fn poll(&self, task: u64) {
        let taken = self.tasks.borrow_mut().get_mut(&task).and_then(Option::take);
        let Some(mut future) = taken else { return };
        let waker = Waker::from(Arc::new(TaskWaker { task, ready: Arc::clone(&self.ready) }));
        let is_done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let ended = {
            let mut tasks = self.tasks.borrow_mut();
            match tasks.get_mut(&task) {
                Some(slot) if !is_done => {
                    *slot = Some(future);
                    None
                }
                // Done, or cancelled while it ran.
                _ => {
                    tasks.remove(&task);
                    Some(future)
                }
            }
        };
        // Outside the borrow: what it owns may cancel tasks.
        drop(ended);
    }

    /// Goes on to the next timer; false when there is none.
    fn pass_time(&self) -> bool {
        let next = self.timers.borrow_mut().pop_first();
        let Some(((at, _), waker)) = next else { return false };
        self.now.set(self.now.get().max(at));
        waker.wake();
        true
    }
}

/// Sets the thread's simulation for as long as it lives; then all tasks that are left end where they stand.
struct Scope(Rc<Simulation>);

impl Scope {
    fn enter(simulation: &Rc<Simulation>) -> Self {
        let before = SIMULATION.replace(Some(Rc::clone(simulation)));
        assert!(before.is_none(), "a simulation does not run within another one");
        Self(Rc::clone(simulation))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        loop {
            let task = self.0.tasks.borrow_mut().pop_first();
            if task.is_none() {
                break;
            }
        }
        SIMULATION.set(None);
    }
}

struct TaskWaker {
    task: u64,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

fn lock(ready: &Mutex<Vec<u64>>) -> std::sync::MutexGuard<'_, Vec<u64>> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a task leaves for whoever waits for it.
struct Slot<T> {
    result: Cell<Option<T>>,
    waiting: Cell<Option<Waker>>,
}

struct SimulatedTask<T> {
    task: u64,
    simulation: Rc<Simulation>,
    slot: Rc<Slot<T>>,
    is_detached: bool,
}

impl<T> SimulatedTask<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        match self.slot.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                self.slot.waiting.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for SimulatedTask<T> {
    fn drop(&mut self) {
        if !self.is_detached {
            // One that is being polled is dropped after that.
            let removed = self.simulation.tasks.borrow_mut().remove(&self.task);
            drop(removed);
        }
    }
}

struct Timer {
    simulation: Rc<Simulation>,
    until: Duration,
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.simulation.now.get() >= self.until {
            return Poll::Ready(());
        }
        let number = self.simulation.timer_next.get();
        self.simulation.timer_next.set(number + 1);
        self.simulation.timers.borrow_mut().insert((self.until, number), context.waker().clone());
        Poll::Pending
    }
}

/// Pending once.
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tasks that note their turns.
    fn turns(seed: u64) -> Vec<(u32, Duration)> {
        simulate(seed, async {
            let noted = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..3)
                .map(|number| {
                    let noted = Rc::clone(&noted);
                    Queue::new("test", 100, Latency::NotImportant).spawn(async move {
                        for round in 0..5 {
                            pause().await;
                            noted
                                .borrow_mut()
                                .push((number, SIMULATION.with_borrow(|s| s.as_ref().unwrap().now.get())));
                            sleep(Duration::from_millis(round % 3)).await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            noted.take()
        })
    }

    #[test]
    fn the_same_seed_runs_tasks_in_the_same_order_and_others_in_another() {
        assert_eq!(turns(1), turns(1));
        assert_eq!(turns(1).len(), 15);
        assert!((2..20).any(|seed| turns(seed) != turns(1)));
    }

    #[test]
    fn time_passes_only_while_all_wait() {
        simulate(1, async {
            let start = now();
            sleep(Duration::from_secs(3600)).await;
            assert_eq!(now() - start, Duration::from_secs(3600));
        });
    }

    #[test]
    fn a_dropped_task_ends_where_it_stands() {
        simulate(1, async {
            let reached = Rc::new(Cell::new(0));
            let counted = Rc::clone(&reached);
            let task = Queue::Simulated.spawn(async move {
                loop {
                    counted.set(counted.get() + 1);
                    sleep(Duration::from_secs(1)).await;
                }
            });
            sleep(Duration::from_millis(2500)).await;
            drop(task);
            let before = reached.get();
            assert_eq!(before, 3);
            sleep(Duration::from_secs(60)).await;
            assert_eq!((reached.get(), Rc::strong_count(&reached)), (before, 1));
        });
    }

    #[test]
    #[should_panic(expected = "all tasks wait for one another")]
    fn tasks_that_wait_for_one_another_are_noticed() {
        simulate(1, std::future::pending::<()>());
    }
}
