//! Telling people and programs what happened: one sink, two forms.

mod human;
mod json;
pub mod record;

use std::io::Write;
use std::time::{Duration, Instant};

use self::record::{Fact, RangeRow, Record};
use crate::error::Error;

/// One thing to tell.
#[derive(Debug)]
pub enum Item<'a> {
    /// A step of the walk.
    Step(&'a Record),
    /// Named facts under a title.
    Facts(&'a str, &'a [Fact]),
    /// The interface report's ranges.
    Ranges(&'a [RangeRow]),
    /// Bytes read from a register or memory: where, offset, bytes in memory order.
    Value(&'a str, u64, &'a [u8]),
    /// What a control socket told: what it is, as it came, and for people.
    Told(&'a str, &'a serde_json::Value, &'a str),
    /// The end of a command.
    Summary(&'a Summary<'a>),
}

/// How a command ended.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Steps taken.
    pub steps: u32,
    /// Steps whose expectation did not hold, or that failed.
    pub failed: u32,
    /// Steps left out.
    pub skipped: u32,
    /// Time it all took.
    pub took: Duration,
    /// What ended it early, or made it fail.
    pub error: Option<&'a Error>,
    /// The process's exit code.
    pub exit_code: u8,
}

/// Prints items in one form.
trait Form {
    fn print(&mut self, out: &mut dyn Write, item: &Item<'_>) -> std::io::Result<()>;
}

/// Where output goes, and the count of what went wrong.
pub struct Output {
    out: Box<dyn Write>,
    form: Box<dyn Form>,
    start: Instant,
    steps: u32,
    failed: u32,
    skipped: u32,
    broken: bool,
}

impl Output {
    /// JSON lines.
    pub fn json(out: Box<dyn Write>) -> Self {
        Self::new(out, Box::new(json::Json))
    }

    /// Text for people.
    pub fn human(out: Box<dyn Write>, colours: bool) -> Self {
        Self::new(out, Box::new(human::Human::new(colours)))
    }

    fn new(out: Box<dyn Write>, form: Box<dyn Form>) -> Self {
        Self { out, form, start: Instant::now(), steps: 0, failed: 0, skipped: 0, broken: false }
    }

    /// Tells one thing. A reader that went away is not an error: the walk goes on to its end.
    pub fn tell(&mut self, item: &Item<'_>) {
        if let Item::Step(record) = item {
            self.steps += 1;
            match record.ok {
                Some(true) => {}
                Some(false) => self.failed += 1,
                None => self.skipped += 1,
            }
        }
        if self.broken {
            return;
        }
        let told = self.form.print(&mut self.out, item).and_then(|()| self.out.flush());
        if let Err(e) = told {
            log::debug!("output: {e}");
            self.broken = true;
        }
    }

    /// A command begins now, after a wait for it that is not part of its time.
    pub fn begin(&mut self) {
        self.start = Instant::now();
    }

    /// Whether whoever read along has gone.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Steps that failed since the last [`Self::finish`].
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Ends a command: its exit code, and the summary for whoever reads along. Starts counting anew.
    ///
    /// A command without an error still fails if a check did not hold.
    pub fn finish(&mut self, result: Result<(), Error>) -> u8 {
        let failed = self.failed;
        let error = match result {
            Ok(()) if failed > 0 => {
                Some(Error::Check(format!("{failed} of {} checks did not hold", self.steps)))
            }
            Ok(()) => None,
            Err(e) => Some(e),
        };
        let exit_code = error.as_ref().map_or(0, Error::exit_code);
        let summary = Summary {
            steps: self.steps,
            failed,
            skipped: self.skipped,
            took: self.start.elapsed(),
            error: error.as_ref(),
            exit_code,
        };
        self.tell(&Item::Summary(&summary));
        (self.steps, self.failed, self.skipped, self.start) = (0, 0, 0, Instant::now());
        exit_code
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Text from a device with everything that could steer a terminal made visible.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::record::Layer;
    use super::*;
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(ok: Option<bool>) -> Record {
        Record {
            layer: Layer::Tdisp,
            step: "GET_DEVICE_INTERFACE_STATE".into(),
            expected: "RUN".into(),
            seen: "ERROR".into(),
            ok,
            took: Duration::from_micros(1500),
        }
    }

    fn told(colours: Option<bool>) -> (String, u8) {
        let shared = Shared::default();
        let out = Box::new(shared.clone());
        let mut output = match colours {
            Some(colours) => Output::human(out, colours),
            None => Output::json(out),
        };
        for ok in [Some(true), Some(false), None] {
            output.tell(&Item::Step(&record(ok)));
        }
        output.tell(&Item::Facts("certificate 0", &[("subject".into(), "CN=a\u{1b}[2J".into())]));
        output.tell(&Item::Ranges(&[RangeRow {
            range_id: 2,
            bar: Some(2),
            offset: Some(0x1000),
            address: 0x80_0000_1000,
            pages: 3,
            private: true,
            notes: vec![],
        }]));
        output.tell(&Item::Value("BAR2", 0x10, &[0xde, 0xad]));
        let code = output.finish(Ok(()));
        assert_eq!(output.failed(), 0, "counting starts anew");
        (String::from_utf8(shared.0.borrow().clone()).unwrap(), code)
    }

    #[test]
    fn every_json_line_is_an_object_with_a_type() {
        let (text, code) = told(None);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["step", "step", "step", "facts", "ranges", "value", "summary"]);
        assert_eq!(
            lines[1],
            serde_json::json!({
                "type": "step", "layer": "TDISP", "step": "GET_DEVICE_INTERFACE_STATE",
                "expected": "RUN", "seen": "ERROR", "ok": false, "microseconds": 1500
            })
        );
        assert_eq!(lines[2]["ok"], serde_json::Value::Null);
        assert_eq!(lines[4]["ranges"][0]["private"], true);
        assert_eq!(lines[4]["ranges"][0]["pages"], 3);
        assert_eq!(lines[5]["hex"], "dead");
        let summary = &lines[6];
        assert_eq!((code, summary["exit_code"].as_u64()), (6, Some(6)));
        assert_eq!((summary["ok"].as_bool(), summary["failed"].as_u64()), (Some(false), Some(1)));
        assert_eq!((summary["steps"].as_u64(), summary["skipped"].as_u64()), (Some(3), Some(1)));
        assert_eq!(summary["error"]["kind"], "check");
    }

    #[test]
    fn people_see_layers_marks_and_expectations() {
        let (text, _) = told(Some(false));
        for part in ["TDISP", "ok", "FAILED", "expected RUN", "skipped", "private", "0x1000", "dead"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "no colours asked for, and none smuggled in: {text:?}");
        assert!(told(Some(true)).0.contains("\u{1b}["));
    }

    #[test]
    fn an_error_decides_the_exit_code() {
        let mut output = Output::json(Box::new(Shared::default()));
        output.tell(&Item::Step(&record(Some(false))));
        assert_eq!(output.finish(Err(Error::Verification("signature".into()))), 5);
        assert_eq!(output.finish(Ok(())), 0);
    }

    #[test]
    fn a_reader_that_went_away_does_not_stop_the_walk() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::json(Box::new(Gone));
        output.tell(&Item::Step(&record(Some(true))));
        assert_eq!(output.finish(Ok(())), 0);
    }
}
