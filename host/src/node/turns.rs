//! How long a data thread runs before others may.
//!
//! A thread that wakes up waits until the one on its core has had its turn: milliseconds where that one merges tables or belongs to
//! another program. Linux lets a thread ask for shorter turns of its own, for which it gets the core sooner (EEVDF, since 6.12).
//! It gets no more of the core than before.

/// Nanoseconds of a turn; usual are one to three milliseconds. With the least that Linux grants, 100 us, data threads take the core
/// from each other.
#[cfg(target_os = "linux")]
const TURN_NS: u64 = 400_000;

/// Has the calling thread run in short turns from now on, where the system knows of them.
#[cfg(target_os = "linux")]
pub(super) fn take_short_turns() {
    let Some(mut attributes) = attributes() else {
        return;
    };
    // Only of ordinary threads is this the length of a turn.
    if attributes.sched_policy == libc::SCHED_OTHER.cast_unsigned() {
        attributes.sched_runtime = TURN_NS;
        if !set(&attributes) {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "a data thread takes turns of the usual length");
        }
    }
}

/// Other systems have no word for it.
#[cfg(not(target_os = "linux"))]
pub(super) fn take_short_turns() {}

/// How the calling thread is scheduled.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither std nor rustix has this call")]
fn attributes() -> Option<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let bytes = size_of_val(&attributes);
    // SAFETY: it writes to a structure of which it is told the size; 0 is this thread.
    let outcome =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    (outcome == 0).then_some(attributes)
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither std nor rustix has this call")]
fn set(attributes: &libc::sched_attr) -> bool {
    // SAFETY: it reads a structure that carries its own size; 0 is this thread.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_ref(attributes),
            0,
        )
    };
    outcome == 0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_priority() {
        let thread = std::thread::spawn(|| {
            let mut polite = attributes().unwrap();
            polite.sched_nice = 5;
            assert!(set(&polite));
            let before = attributes().unwrap();
            take_short_turns();
            let after = attributes().unwrap();
            assert_eq!(
                (after.sched_policy, after.sched_nice),
                (before.sched_policy, 5)
            );
            // Kernels before 6.12 say nothing of turns.
            assert!([before.sched_runtime, TURN_NS].contains(&after.sched_runtime));
        });
        thread.join().unwrap();
    }
}
