//! Wakes a thread that waits for connections when it is time to send: finer than the millisecond that it could wait for by itself.

use std::io::Result;
use std::time::Duration;

use mio::{Registry, Token};

/// Ticks until it is dropped.
pub(super) struct Ticker {
    #[cfg(target_os = "linux")]
    _timer: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Ticker {
    /// Shortest time between two ticks: more of them would cost more than they tell. What is due in between goes out together, and
    /// its latency counts from when it was meant to.
    const SHORTEST: Duration = Duration::from_micros(50);

    /// An event with that token about as often as `interval` says.
    ///
    /// # Errors
    /// The system has no more timers.
    pub(super) fn start(
        registry: &Registry,
        token: Token,
        interval: Duration,
    ) -> Result<Option<Self>> {
        use std::os::fd::AsRawFd;

        use mio::Interest;
        use mio::unix::SourceFd;
        use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let every = interval.max(Self::SHORTEST).min(Duration::from_secs(3600));
        let every = rustix::time::Timespec {
            tv_sec: i64::try_from(every.as_secs()).unwrap_or(1),
            tv_nsec: every.subsec_nanos().into(),
        };
        let times = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        // Each tick is an event of its own even if nobody reads the timer.
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Some(Self { _timer: timer }))
    }
}

#[cfg(not(target_os = "linux"))]
impl Ticker {
    /// None: the thread wakes up to a millisecond late, and latencies say so.
    ///
    /// # Errors
    /// Never.
    pub(super) fn start(
        _registry: &Registry,
        _token: Token,
        _interval: Duration,
    ) -> Result<Option<Self>> {
        Ok(None)
    }
}
