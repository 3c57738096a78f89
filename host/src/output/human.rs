//! Text for people: layer by layer, a mark and a time for every step, colours only where asked for.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::record::{Fact, Layer, RangeRow, Record};
use super::{Form, Item, Summary, hex, printable};

/// Column at which what was seen begins.
const STEP_WIDTH: usize = 34;
/// Bytes of a value on one line.
const VALUE_LINE: usize = 16;

/// The text form.
pub(super) struct Human {
    colours: bool,
    layer: Option<Layer>,
}

impl Human {
    pub(super) fn new(colours: bool) -> Self {
        Self { colours, layer: None }
    }

    fn paint(&self, style: Style, text: impl Display) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    fn step(&mut self, out: &mut dyn Write, record: &Record) -> io::Result<()> {
        if self.layer.replace(record.layer) != Some(record.layer) {
            let rule = "─".repeat(66usize.saturating_sub(record.layer.name().len()));
            writeln!(
                out,
                "{}",
                self.paint(Style::new().bold(), format_args!("── {} {rule}", record.layer.name()))
            )?;
        }
        let (colour, mark) = match record.ok {
            Some(true) => (AnsiColor::Green, "ok     "),
            Some(false) => (AnsiColor::Red, "FAILED "),
            None => (AnsiColor::Yellow, "skipped"),
        };
        let mark = self.paint(colour.on_default(), mark);
        let seen = printable(&record.seen);
        let took = self.paint(Style::new().dimmed(), time(record.took));
        writeln!(out, "  {mark} {:<STEP_WIDTH$} {seen}  {took}", record.step)?;
        if record.ok == Some(false) {
            writeln!(out, "          {:<STEP_WIDTH$} expected {}", "", record.expected)?;
        }
        Ok(())
    }

    fn ranges(&self, out: &mut dyn Write, rows: &[RangeRow]) -> io::Result<()> {
        let head = format!(
            "  {:>3} {:>5} {:>12} {:>20} {:>8}  {}",
            "id", "BAR", "offset", "address", "pages", "access"
        );
        writeln!(out, "{}", self.paint(Style::new().bold(), head))?;
        for row in rows {
            let bar = row.bar.map_or("-".into(), |bar| bar.to_string());
            let offset = row.offset.map_or("-".into(), |offset| format!("{offset:#x}"));
            let (colour, access) =
                if row.private { (AnsiColor::Magenta, "private") } else { (AnsiColor::Cyan, "shared ") };
            let notes =
                if row.notes.is_empty() { String::new() } else { format!("  {}", row.notes.join(", ")) };
            writeln!(
                out,
                "  {:>3} {bar:>5} {offset:>12} {:>#20x} {:>8}  {}{notes}",
                row.range_id,
                row.address,
                row.pages,
                self.paint(colour.on_default(), access)
            )?;
        }
        Ok(())
    }

    fn facts(&self, out: &mut dyn Write, title: &str, facts: &[Fact]) -> io::Result<()> {
        writeln!(out, "{}", self.paint(Style::new().bold(), title))?;
        let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in facts {
            writeln!(out, "  {:<width$}  {}", printable(name), printable(value))?;
        }
        Ok(())
    }

    fn summary(&self, out: &mut dyn Write, summary: &Summary<'_>) -> io::Result<()> {
        if let Some(error) = summary.error {
            let red = AnsiColor::Red.on_default().bold();
            writeln!(out, "{} {}", self.paint(red, "error:"), printable(&error.to_string()))?;
        }
        if summary.steps == 0 {
            return Ok(());
        }
        let skipped = match summary.skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        let good = summary.steps - summary.failed - summary.skipped;
        let colour = if summary.exit_code == 0 { AnsiColor::Green } else { AnsiColor::Red };
        let text = format!("{good} of {} steps ok{skipped}, {}", summary.steps, time(summary.took));
        writeln!(out, "{}", self.paint(colour.on_default().bold(), text))
    }
}

impl Form for Human {
    fn print(&mut self, out: &mut dyn Write, item: &Item<'_>) -> io::Result<()> {
        match item {
            Item::Step(record) => self.step(out, record),
            Item::Facts(title, facts) => self.facts(out, title, facts),
            Item::Ranges(rows) => self.ranges(out, rows),
            Item::Value(_, offset, bytes) => {
                for (line, at) in bytes.chunks(VALUE_LINE).zip((*offset..).step_by(VALUE_LINE)) {
                    writeln!(out, "{at:#010x}  {}", hex(line))?;
                }
                Ok(())
            }
            Item::Told(_, _, text) => text.lines().try_for_each(|line| writeln!(out, "{}", printable(line))),
            Item::Summary(summary) => {
                self.layer = None;
                self.summary(out, summary)
            }
        }
    }
}

fn time(took: Duration) -> String {
    match took.as_micros() {
        us @ 0..1000 => format!("{us} µs"),
        us @ 1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        us => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}
