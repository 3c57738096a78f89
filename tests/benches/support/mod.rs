//! Work beside other work in the same run: by turns, so that whatever else the machine does meets all of it.
#![allow(dead_code, unreachable_pub)]

use std::fmt;
use std::time::Instant;

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Seconds of `rounds` runs of each, by turns.
pub fn by_turns<const N: usize>(rounds: usize, mut runs: [&mut dyn FnMut(); N]) -> [Vec<f64>; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            times.push(seconds(run));
        }
    }
    times
}

/// A median, and between what the middle half lies.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    low: f64,
    pub median: f64,
    high: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: usize| values[(values.len() - 1) * part / 4];
        Self { low: at(1), median: at(2), high: at(3) }
    }

    /// Of the ratios of each run to that of its turn.
    pub fn of_ratios(times: &[f64], to: &[f64]) -> Self {
        Self::of(times.iter().zip(to).map(|(time, to)| time / to).collect())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// A line of results.
pub fn row(what: &str, spread: Spread) {
    println!("{what:<82} {spread}");
}
