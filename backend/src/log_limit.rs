//! Keeps a guest from filling the disk with our log: each place in the code may say only so much in a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, Log, Metadata, Record};

/// Lines that one place may log in one [`PERIOD`].
const LINES: u32 = 20;
/// How long the count goes on.
const PERIOD: Duration = Duration::from_secs(1);

/// A logger whose every call site is limited. `debug` and `trace` are not: who asks for them wants them all.
pub struct Limited<L> {
    inner: L,
    places: Mutex<HashMap<(String, u32), Place>>,
}

struct Place {
    since: Instant,
    lines: u32,
    suppressed: u32,
}

impl<L: Log> Limited<L> {
    /// Limits `inner`.
    pub fn new(inner: L) -> Self {
        Self { inner, places: Mutex::new(HashMap::new()) }
    }

    /// Whether a line of this place may be logged now, and how many were not since the last one that was.
    fn admit(&self, record: &Record<'_>, now: Instant) -> Option<u32> {
        let key = (record.target().to_owned(), record.line().unwrap_or(0));
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(key).or_insert(Place { since: now, lines: 0, suppressed: 0 });
        if now.duration_since(place.since) >= PERIOD {
            *place = Place { since: now, lines: 0, suppressed: place.suppressed };
        }
        place.lines += 1;
        if place.lines > LINES {
            place.suppressed += 1;
            return None;
        }
        Some(core::mem::take(&mut place.suppressed))
    }
}

impl<L: Log> Log for Limited<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() > Level::Info {
            return self.inner.log(record);
        }
        if !self.enabled(record.metadata()) {
            return;
        }
        match self.admit(record, Instant::now()) {
            None => {}
            Some(0) => self.inner.log(record),
            Some(count) => self.inner.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{} ({count} more like this were left out)", record.args()))
                    .build(),
            ),
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Log for Silent {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, _: &Record<'_>) {}
        fn flush(&self) {}
    }

    #[test]
    fn a_place_that_says_too_much_is_cut_off_and_says_so_later() {
        let limited = Limited::new(Silent);
        let place = |line| Record::builder().target("t").line(Some(line)).level(Level::Warn).build();
        let start = Instant::now();
        let admitted = (0..100).filter(|_| limited.admit(&place(1), start).is_some()).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(limited.admit(&place(2), start), Some(0), "another place");
        assert_eq!(limited.admit(&place(1), start + PERIOD), Some(100 - LINES));
        assert_eq!(limited.admit(&place(1), start + PERIOD), Some(0));
    }
}
