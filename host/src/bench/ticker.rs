//! Wakes a thread that waits for connections when it is time to send: finer than the millisecond that it could wait for by itself.

use std::io::Result;
use std::time::Duration;

use mio::{Registry, Token};

/// A timer of the system, off at first.
pub(super) struct Ticker {
    #[cfg(target_os = "linux")]
    timer: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Ticker {
    /// Shortest sleep: waking up more often would cost more than it tells. What is due in between goes out together, and its
    /// latency counts from when it was meant to.
    const SHORTEST: Duration = Duration::from_micros(50);

    /// A timer whose end is an event with that token.
    ///
    /// # Errors
    /// The system has no more timers.
    pub(super) fn new(registry: &Registry, token: Token) -> Result<Option<Self>> {
        use std::os::fd::AsRawFd;

        use rustix::time::{TimerfdClockId, TimerfdFlags};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let source = timer.as_raw_fd();
        let mut source = mio::unix::SourceFd(&source);
        registry.register(&mut source, token, mio::Interest::READABLE)?;
        Ok(Some(Self { timer }))
    }

    /// Wakes once after so long, instead of what was said before. That is an event of its own even if nobody reads the timer.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn wake(&self, after: Duration) -> Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec};

        let after = after.clamp(Self::SHORTEST, Duration::from_secs(3600));
        let spec = |time: Duration| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or_default(),
            tv_nsec: time.subsec_nanos().into(),
        };
        let times = Itimerspec {
            it_interval: spec(Duration::ZERO),
            it_value: spec(after),
        };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Ticker {
    /// None: the thread wakes up to a millisecond late, and latencies say so.
    ///
    /// # Errors
    /// Never.
    pub(super) fn new(_registry: &Registry, _token: Token) -> Result<Option<Self>> {
        Ok(None)
    }

    /// Nothing to do.
    ///
    /// # Errors
    /// Never.
    pub(super) fn wake(&self, _after: Duration) -> Result<()> {
        Ok(())
    }
}
