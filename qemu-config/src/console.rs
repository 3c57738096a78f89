//! The guest's serial console: kept, copied to a log file, and watched for a kernel panic.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const PANIC: &str = "Kernel panic - not syncing";

/// Everything the console has shown so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Console(Arc<Mutex<String>>);

impl Console {
    /// Follows a stream until its end, in a thread of its own, which ends with the stream.
    pub(crate) fn follow(stream: impl Read + Send + 'static, mut log: File) -> Self {
        let console = Self::default();
        let writer = console.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
                // A full disk must not stop the guest; the text is kept in memory as well.
                let _ = log.write_all(&line);
                writer.text().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        console
    }

    /// The last lines, for error messages.
    pub(crate) fn tail(&self, lines: usize) -> String {
        tail(&self.text(), lines)
    }

    pub(crate) fn copy(&self) -> String {
        self.text().clone()
    }

    pub(crate) fn panicked(&self) -> bool {
        self.text().contains(PANIC)
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 5), "a");
        assert_eq!(tail("", 5), "");
    }
}
