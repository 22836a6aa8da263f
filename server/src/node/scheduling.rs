//! How the threads of a node share cores. A shard's thread has work for as long as a scan lasts; whoever serves a client
//! works for some microseconds and waits again, and each of these turns would stand behind the shard's turn, which is
//! milliseconds long. So those threads ask the kernel for short turns, which it lets go first, without more processor time
//! in all.

use std::mem;

/// The shortest turn that the scheduler grants, in nanoseconds.
const TURN_NS: u64 = 100_000;

/// `struct sched_attr` of its first version (sched_setattr(2)).
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short turns for this thread. Kernels before 6.12 know no such wish and ignore it; one that is refused costs
/// latency under load and nothing else.
pub fn take_short_turns() {
    let size = mem::size_of::<Attributes>() as u32;
    let mut attributes =
        Attributes { size, policy: 0, flags: 0, nice: 0, priority: 0, runtime: 0, deadline: 0, period: 0 };
    // SAFETY: the kernel writes at most `size` bytes, all of which make valid fields.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if read != 0 || attributes.policy != libc::SCHED_OTHER as u32 {
        return;
    }
    // The kernel says how much it knows, and takes no more back.
    attributes.size = size;
    attributes.runtime = TURN_NS;
    // SAFETY: the kernel reads `size` bytes of what is above.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "this thread has turns of the usual length");
    }
}
