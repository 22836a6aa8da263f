//! Whether this machine lets us use io_uring. Asked before glommio is touched, which panics where the answer is no.

use std::fs;
use std::io;

/// Entries of the ring that is made to see whether one can be made.
const PROBE_ENTRIES: libc::c_uint = 4;
/// `struct io_uring_params` is 120 bytes; the kernel fills it in.
const PARAMS_BYTES: usize = 120;
/// `IORING_REGISTER_PROBE` (kernel 5.6), which glommio asks first.
const REGISTER_PROBE: libc::c_uint = 8;
/// `struct io_uring_probe` with room for 256 operations: 16 + 256 x 8 bytes.
const PROBE_BYTES: usize = 16 + 256 * 8;
const PROBE_OPERATIONS: libc::c_uint = 256;
/// Open files, when the limit cannot be read: what Linux allows unless told otherwise.
const OPEN_FILES_UNKNOWN: u64 = 1024;
/// Locked memory that an executor asks for at least (glommio checks it against the soft limit).
const MEMLOCK_BYTES_MIN: libc::rlim_t = 512 << 10;

/// Asks the kernel for a ring and for enough locked memory.
///
/// # Errors
/// One line that says what to change.
pub fn probe_io_uring() -> Result<(), String> {
    let error = match probe_ring() {
        Ok(()) => return probe_memlock(),
        Err(error) => error,
    };
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    Err(explain(&error, disabled.as_deref().map(str::trim)))
}

fn probe_ring() -> io::Result<()> {
    let mut params = [0u64; PARAMS_BYTES / 8];
    // SAFETY: the kernel writes at most the 120 bytes of its parameters, and we own as many, aligned.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, PROBE_ENTRIES, params.as_mut_ptr()) };
    let Ok(ring @ 0..) = libc::c_int::try_from(ring) else { return Err(io::Error::last_os_error()) };
    let mut operations = [0u64; PROBE_BYTES / 8];
    // SAFETY: the kernel writes at most 256 operations behind the header, and we own as many, aligned.
    let registered = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_PROBE, operations.as_mut_ptr(), PROBE_OPERATIONS)
    };
    let outcome = if registered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: we opened it and nobody else knows it.
    unsafe { libc::close(ring) };
    outcome
}

/// `disabled` is what `kernel.io_uring_disabled` says, where the kernel has it.
fn explain(error: &io::Error, disabled: Option<&str>) -> String {
    let advice = match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(value @ ("1" | "2"))) => {
            format!("kernel.io_uring_disabled is {value}; set it to 0 (sysctl -w kernel.io_uring_disabled=0)")
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp filter forbids it; in a container allow it (docker: --security-opt seccomp=unconfined, or a \
             profile that lists io_uring_setup, io_uring_enter and io_uring_register)"
                .to_owned()
        }
        (Some(libc::ENOSYS | libc::EINVAL), _) => {
            "this kernel does not have it, or a seccomp filter hides it; Linux 5.8 or newer is needed, and in a \
             container docker's --security-opt seccomp=unconfined"
                .to_owned()
        }
        (Some(libc::ENOMEM), _) => {
            "too little memory may be locked; raise the memlock limit (ulimit -l 8192, or LimitMEMLOCK=8M)".to_owned()
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "too few files may be open; raise the limit (ulimit -n 65536)".to_owned()
        }
        _ => "Linux 5.8 or newer with io_uring is needed".to_owned(),
    };
    format!("io_uring cannot be used ({error}): {advice}")
}

fn probe_memlock() -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, which we own.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return Err(format!("the memlock limit cannot be read: {}", io::Error::last_os_error()));
    }
    if limit.rlim_cur >= MEMLOCK_BYTES_MIN {
        return Ok(());
    }
    let found = limit.rlim_cur >> 10;
    // Up to the hard limit we may raise it ourselves.
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit, which we own.
    if limit.rlim_max >= MEMLOCK_BYTES_MIN && unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } == 0 {
        return Ok(());
    }
    Err(format!(
        "only {found} KiB of memory may be locked, io_uring needs {} KiB: raise the memlock limit (ulimit -l 8192, \
         LimitMEMLOCK=8M, or docker --ulimit memlock=8388608)",
        MEMLOCK_BYTES_MIN >> 10
    ))
}

/// How many files this process may have open. Raises its limit as far as it may itself.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, which we own.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return OPEN_FILES_UNKNOWN;
    }
    let found = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit, which we own.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 { limit.rlim_max } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_probed_without_harm() {
        // Either answer is right; a machine that runs the other tests says yes.
        assert_eq!(probe_io_uring(), Ok(()));
    }

    #[test]
    fn each_refusal_says_what_to_change() {
        let check = |code: i32, disabled: Option<&str>, expected: &str| {
            let line = explain(&io::Error::from_raw_os_error(code), disabled);
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        };
        check(libc::EPERM, Some("2"), "sysctl -w kernel.io_uring_disabled=0");
        check(libc::EPERM, Some("0"), "seccomp");
        check(libc::EPERM, None, "seccomp");
        check(libc::ENOSYS, None, "5.8");
        check(libc::ENOMEM, None, "memlock");
        check(libc::EMFILE, None, "ulimit -n");
    }
}
