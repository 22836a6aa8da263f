//! Between tokio and the shards: the only file that knows both runtimes.
//!
//! A shard is a thread with a glommio executor, pinned to a core; what it owns (`S`) never leaves it. Requests come in
//! through one bounded inbox as closures over `S`, each becomes a task of its own, and answers go back through oneshot
//! channels. A request that panics is answered; a thread that panics ends the process, since what it owned is gone.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use meridian_engine::pace;
use meridian_proto::{Refusal, ShardId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{error, info};

/// Of a shard's thread. A condition of a thousand parts is walked recursively; what is not used takes no memory.
const STACK_BYTES: usize = 8 << 20;
/// Requests of the write lane that a shard has at a time, waiting ones included.
pub const MAILBOX_MESSAGES_MAX: usize = 1024;
/// Scans that a shard runs at a time. Each holds a few batches and its aggregates, whose memory has a limit of its own.
pub const SCANS_MAX: usize = 64;
/// Room in the inbox beside those: heartbeats, status, shutdown.
const CONTROL_MESSAGES_MAX: usize = 64;
/// Longest wait for room before a request is refused.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How often a shard is asked whether it lives, and how long it may take to say so.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(5);
/// Registered I/O buffers per ring; an executor has three, pinned: 2 shards x 3 x 1 MiB. What does not fit is allocated.
const IO_MEMORY_BYTES: usize = 1 << 20;

/// Which task queue of a shard a request runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Short requests, and whatever waits for the WAL.
    Write,
    /// Long ones, which yield to the others batch by batch.
    Scan,
    /// Heartbeats, status, shutdown: in the queue of the writes, without waiting for room.
    Control,
}

type Job<S> = Box<dyn FnOnce(S) -> LocalBoxFuture<'static, ()> + Send>;

enum Message<S> {
    Run {
        lane: Lane,
        job: Job<S>,
    },
    /// Ends the loop. What was sent before has been started.
    Stop,
}

/// Sends requests to one shard. Cheap to clone.
pub struct ShardHandle<S>(Arc<Mailbox<S>>);

struct Mailbox<S> {
    shard: ShardId,
    inbox: flume::Sender<Message<S>>,
    writes: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S> Clone for ShardHandle<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The answer of a request that was sent.
pub struct Answer<T> {
    receiver: oneshot::Receiver<Result<T, Refusal>>,
    lane: Lane,
    shard: ShardId,
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.receiver.poll_unpin(context).map(|answer| match answer {
            Ok(answer) => answer,
            Err(_) => Err(lost(self.lane, format!("shard {} has stopped", self.shard))),
        })
    }
}

/// Starts a shard's thread; `open` runs on it first, and makes what the shard owns.
///
/// # Errors
/// What `open` says, or why there is no executor. Call `probe_io_uring` first: where io_uring is forbidden, making an
/// executor panics.
pub async fn start_shard<S, R, O, Fut>(shard: ShardId, open: O) -> Result<(ShardHandle<S>, R), String>
where
    S: Clone + 'static,
    R: Send + 'static,
    O: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(S, R), String>> + 'static,
{
    let (inbox, messages) = flume::bounded(MAILBOX_MESSAGES_MAX + SCANS_MAX + CONTROL_MESSAGES_MAX);
    let (opened, opening) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let run = AssertUnwindSafe(|| run_executor(shard, open, messages, opened));
            if let Err(panic) = catch_unwind(run) {
                let reason = panic_message(panic.as_ref());
                end_process(&format!("shard {shard} panicked: {reason}"));
            }
        })
        .map_err(|error| format!("could not start the thread of shard {shard}: {error}"))?;
    let report = opening.await.map_err(|_| format!("the thread of shard {shard} ended"))??;
    let mailbox = Mailbox {
        shard,
        inbox,
        writes: Arc::new(Semaphore::new(MAILBOX_MESSAGES_MAX)),
        scans: Arc::new(Semaphore::new(SCANS_MAX)),
        thread: Mutex::new(Some(thread)),
    };
    Ok((ShardHandle(Arc::new(mailbox)), report))
}

/// Ends the process: its memory or its disk can no longer be trusted, and others take over what they have copies of.
pub fn end_process(reason: &str) -> ! {
    error!(reason, "ending the process");
    eprintln!("meridian: {reason}");
    std::process::exit(1);
}

impl<S: Clone + 'static> ShardHandle<S> {
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.0.shard
    }

    /// Sends a request and waits for its answer. Not waiting any longer does not end the request.
    pub async fn call<T, F, Fut>(&self, lane: Lane, request: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(S) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Refusal>> + 'static,
    {
        self.submit(lane, request).await?.await
    }

    /// Sends a request; waits only for room in the mailbox.
    ///
    /// # Errors
    /// `Overloaded` when there is none for [`ROOM_WAIT`], `Unavailable` when the shard has stopped. Neither was applied.
    pub async fn submit<T, F, Fut>(&self, lane: Lane, request: F) -> Result<Answer<T>, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(S) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Refusal>> + 'static,
    {
        let shard = self.0.shard;
        let permit = self.room(lane).await?;
        let (sender, receiver) = oneshot::channel();
        let job: Job<S> = Box::new(move |owned| {
            Box::pin(async move {
                let _awaited = (lane == Lane::Write).then(pace::Awaited::begin);
                let outcome = AssertUnwindSafe(async move { request(owned).await }).catch_unwind().await;
                let answer = outcome.unwrap_or_else(|panic| Err(panicked(shard, lane, panic.as_ref())));
                drop(permit);
                // Nobody waits any more when the caller was canceled.
                let _ = sender.send(answer);
            })
        });
        self.send(Message::Run { lane, job })?;
        Ok(Answer { receiver, lane, shard })
    }

    async fn room(&self, lane: Lane) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let room = match lane {
            Lane::Write => &self.0.writes,
            Lane::Scan => &self.0.scans,
            Lane::Control => return Ok(None),
        };
        match tokio::time::timeout(ROOM_WAIT, Arc::clone(room).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) => Err(Refusal::Unavailable(format!("shard {} is stopping", self.0.shard))),
            Err(_) => Err(Refusal::Overloaded(format!("shard {} had no room for {ROOM_WAIT:?}", self.0.shard))),
        }
    }

    fn send(&self, message: Message<S>) -> Result<(), Refusal> {
        self.0.inbox.try_send(message).map_err(|error| match error {
            flume::TrySendError::Full(_) => Refusal::Overloaded(format!("the inbox of shard {} is full", self.0.shard)),
            flume::TrySendError::Disconnected(_) => Refusal::Unavailable(format!("shard {} has stopped", self.0.shard)),
        })
    }

    /// Drains: takes nothing new, waits for what runs, then runs `close` on the shard and ends its thread.
    pub async fn stop<F, Fut>(&self, patience: Duration, close: F)
    where
        F: FnOnce(S) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let shard = self.0.shard;
        let drained = async {
            // All permits in our hands: nothing runs, nothing waits.
            let _writes = self.0.writes.acquire_many(MAILBOX_MESSAGES_MAX as u32).await;
            let _scans = self.0.scans.acquire_many(SCANS_MAX as u32).await;
            self.0.writes.close();
            self.0.scans.close();
        };
        if tokio::time::timeout(patience, drained).await.is_err() {
            info!(%shard, "requests still run; stopping all the same");
            self.0.writes.close();
            self.0.scans.close();
        }
        let closed = self.call(Lane::Control, |owned| async {
            close(owned).await;
            Ok(())
        });
        if let Err(error) = closed.await {
            error!(%shard, %error, "shard did not close");
        }
        // A shard that is gone already needs no telling.
        let _ = self.send(Message::Stop);
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread contains its own panics and ends the process for them.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Asks the shard for a sign of life, over and over, until its inbox is closed. Says when there was none.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(HEARTBEAT_EVERY).await;
            if self.0.inbox.is_disconnected() || self.0.writes.is_closed() {
                return;
            }
            let mut heartbeat = std::pin::pin!(self.call(Lane::Control, |_| async { Ok(()) }));
            let mut silent = Duration::ZERO;
            while tokio::time::timeout(HEARTBEAT_DEADLINE, &mut heartbeat).await.is_err() {
                silent += HEARTBEAT_DEADLINE;
                error!(shard = %self.0.shard, silent_s = silent.as_secs(), "shard does not answer");
            }
            if !silent.is_zero() {
                error!(shard = %self.0.shard, silent_s = silent.as_secs(), "shard answers again");
            }
        }
    }
}

/// The thread of a shard, from its executor's start to its end.
fn run_executor<S, R, O, Fut>(
    shard: ShardId,
    open: O,
    messages: flume::Receiver<Message<S>>,
    opened: oneshot::Sender<Result<R, String>>,
) where
    S: Clone + 'static,
    R: Send + 'static,
    O: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(S, R), String>> + 'static,
{
    let executor = LocalExecutorBuilder::new(placement(shard))
        .name("shard")
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(pace::PREEMPT_TIMER)
        .spin_before_park(Duration::ZERO)
        .make();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            // The starter hears of it, unless it has given up.
            let _ = opened.send(Err(format!("could not start the executor of shard {shard}: {error}")));
            return;
        }
    };
    executor.run(async move {
        let queues = Queues::create();
        pace::begin();
        // The whole life of the shard belongs to the write lane; what the engine spawns inherits it.
        let life = glommio::spawn_local_into(live(open, messages, opened, queues), queues.write);
        life.expect("the queue was made above").await;
    });
}

#[derive(Clone, Copy)]
struct Queues {
    write: TaskQueueHandle,
    scan: TaskQueueHandle,
}

impl Queues {
    fn create() -> Self {
        let executor = glommio::executor();
        let shares = Shares::Static(1000);
        Self {
            // What matters here is that a wake-up from outside interrupts long work; the timer is off.
            write: executor.create_task_queue(shares.clone(), Latency::Matters(pace::PREEMPT_TIMER), "write"),
            scan: executor.create_task_queue(shares, Latency::NotImportant, "scan"),
        }
    }
}

async fn live<S, R, O, Fut>(
    open: O,
    messages: flume::Receiver<Message<S>>,
    opened: oneshot::Sender<Result<R, String>>,
    queues: Queues,
) where
    S: Clone + 'static,
    O: FnOnce() -> Fut,
    Fut: Future<Output = Result<(S, R), String>>,
{
    let owned = match open().await {
        Ok((owned, report)) => {
            if opened.send(Ok(report)).is_err() {
                return;
            }
            owned
        }
        Err(error) => {
            // The starter hears of it, unless it has given up.
            let _ = opened.send(Err(error));
            return;
        }
    };
    while let Ok(Message::Run { lane, job }) = messages.recv_async().await {
        let queue = match lane {
            Lane::Write | Lane::Control => queues.write,
            Lane::Scan => queues.scan,
        };
        let task = glommio::spawn_local_into(job(owned.clone()), queue);
        task.expect("queues live as long as the shard").detach();
    }
}

/// The n-th of the cores that this process may use, and again from the first when there are more shards than cores.
fn placement(shard: ShardId) -> Placement {
    let cores = allowed_cores();
    match cores.get(usize::from(shard.0) % cores.len().max(1)) {
        Some(core) => Placement::Fixed(*core),
        None => Placement::Unbound,
    }
}

/// Cores of this process's affinity mask: a container may have been given few of many.
fn allowed_cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size given, which we own. The main thread's mask is the process's.
    let outcome =
        unsafe { libc::sched_getaffinity(std::process::id() as libc::pid_t, size_of_val(&set), &raw mut set) };
    if outcome != 0 {
        return Vec::new();
    }
    // SAFETY: only indexes within the set are asked for.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Number of cores that this process may use, at least 1.
#[must_use]
pub fn core_count() -> usize {
    allowed_cores().len().max(1)
}

fn panicked(shard: ShardId, lane: Lane, panic: &(dyn Any + Send)) -> Refusal {
    let reason = panic_message(panic);
    error!(%shard, ?lane, reason, "request panicked");
    lost(lane, format!("shard {shard} failed: {reason}"))
}

/// What a caller hears when nobody knows how far its request came.
fn lost(lane: Lane, reason: String) -> Refusal {
    match lane {
        Lane::Write => Refusal::OutcomeUnknown(reason),
        Lane::Scan | Lane::Control => Refusal::Statement { sqlstate: "XX000".to_owned(), message: reason },
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    async fn counter() -> ShardHandle<Rc<Cell<u64>>> {
        start_shard(ShardId(0), || async { Ok((Rc::new(Cell::new(0)), ())) }).await.unwrap().0
    }

    async fn stop(handle: &ShardHandle<Rc<Cell<u64>>>) {
        handle.stop(Duration::from_secs(5), |_| async {}).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_are_answered_by_the_shard_that_owns_the_state() {
        let handle = counter().await;
        let calls = (0..500u64).map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let count = |count: Rc<Cell<u64>>| async move {
                    count.set(count.get() + 1);
                    Ok(())
                };
                handle.call(Lane::Write, count).await.unwrap();
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert_eq!(handle.call(Lane::Scan, |count| async move { Ok(count.get()) }).await, Ok(500));
        stop(&handle).await;
        let refused = handle.call(Lane::Write, |_| async { Ok(()) }).await;
        assert!(matches!(refused, Err(Refusal::Unavailable(_))), "{refused:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_is_contained_and_answered() {
        let handle = counter().await;
        let scan = handle.call(Lane::Scan, |_| async { if true { panic!("planted") } else { Ok(()) } }).await;
        let Err(Refusal::Statement { sqlstate, message }) = scan else { panic!("{scan:?}") };
        assert_eq!(sqlstate, "XX000");
        assert!(message.contains("planted"), "{message}");
        let write = handle.call(Lane::Write, |_| async { if true { panic!("planted") } else { Ok(()) } }).await;
        assert!(matches!(write, Err(Refusal::OutcomeUnknown(_))), "{write:?}");
        assert_eq!(handle.call(Lane::Write, |count| async move { Ok(count.get()) }).await, Ok(0));
        stop(&handle).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_busy_scan_does_not_delay_a_write() {
        let handle = counter().await;
        let scan = handle
            .submit(Lane::Scan, |count: Rc<Cell<u64>>| async move {
                while count.get() == 0 {
                    std::hint::black_box((0..10_000u64).sum::<u64>());
                    pace::breathe().await;
                }
                Ok(())
            })
            .await
            .unwrap();
        let write = |count: Rc<Cell<u64>>| async move {
            count.set(1);
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(5), handle.call(Lane::Write, write)).await.unwrap().unwrap();
        scan.await.unwrap();
        stop(&handle).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_mailbox_is_answered_not_buffered() {
        let handle = counter().await;
        let (release, released) = flume::bounded::<()>(0);
        let mut waiting = Vec::new();
        for _ in 0..SCANS_MAX {
            let released = released.clone();
            let wait = |_| async move {
                let _ = released.recv_async().await;
                Ok(())
            };
            waiting.push(handle.submit(Lane::Scan, wait).await.unwrap());
        }
        let refused = handle.call(Lane::Scan, |_| async { Ok(()) }).await;
        assert!(matches!(refused, Err(Refusal::Overloaded(_))), "{refused:?}");
        drop(release);
        for answer in waiting {
            answer.await.unwrap();
        }
        assert_eq!(handle.call(Lane::Scan, |_| async { Ok(()) }).await, Ok(()));
        stop(&handle).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_shard_that_cannot_open_says_why() {
        let open = || async { Err::<(Rc<Cell<u64>>, ()), _>("no such folder".to_owned()) };
        let error = start_shard(ShardId(0), open).await.err().unwrap();
        assert_eq!(error, "no such folder");
    }
}
