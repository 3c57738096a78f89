//! The two clocks of the process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Time since the start, to a few milliseconds: to know it better is a hundredth of what a trapped access costs.
pub(crate) struct Clock {
    started: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Self::uptime() }
    }

    pub(crate) fn now(&self) -> Duration {
        Self::uptime().saturating_sub(self.started)
    }

    fn uptime() -> Duration {
        Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
    }
}

/// Seconds since 1970, by the system's clock as it is set now.
pub(crate) fn time_of_day() -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
