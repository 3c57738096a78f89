//! `tdispd bars`: shows what a function's BARs consist of, as a table, as a picture, or as JSON.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use mmio::{BarSet, ByteSize};
use serde::Serialize;

use crate::cli::BarsCommand;
use crate::config::{Bar, ConfigError, Function, RangeKind, Side, Width};

/// Columns of a BAR's picture between its brackets, unless its ranges need more.
const PICTURE: usize = 64;

/// Reads the configuration and returns what to print.
///
/// # Errors
/// What is wrong in the file.
pub fn run(command: &BarsCommand, colours: bool) -> Result<String, ConfigError> {
    let config = command.config()?;
    let functions = config.functions.len().max(1);
    let config = config.for_sockets(functions)?;
    let maps =
        config.functions.iter().enumerate().map(|(number, function)| FunctionMap::new(number, function));
    let maps = maps.collect::<Result<Vec<_>, _>>()?;
    if command.json {
        // Nothing in a map can fail to be written but a path that is not UTF-8, and those come from a TOML file.
        return Ok(serde_json::to_string_pretty(&maps).unwrap_or_default() + "\n");
    }
    Ok(maps.iter().map(|map| map.text(colours)).collect::<Vec<_>>().join("\n"))
}

/// Whether standard output is for eyes that like colours (no-color.org, bixense.com/clicolors).
pub fn colours() -> bool {
    let is = |name, test: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| test(&value));
    let forbidden = is("NO_COLOR", |value| !value.is_empty());
    let forced = is("CLICOLOR_FORCE", |value| !value.is_empty() && value != "0");
    let dumb = is("TERM", |value| value == "dumb");
    !forbidden && (forced || std::io::stdout().is_terminal() && !dumb)
}

/// One function.
#[derive(Debug, Serialize)]
struct FunctionMap {
    function: usize,
    /// MSI-X, or INTA# without it.
    msix: bool,
    bars: Vec<BarMap>,
}

/// One BAR; the fields are those of the configuration, and what follows from them.
#[derive(Debug, Serialize)]
struct BarMap {
    index: u8,
    width: Width,
    prefetchable: bool,
    size: u64,
    ranges: Vec<RangeMap>,
}

/// One range.
#[derive(Debug, Serialize)]
struct RangeMap {
    offset: u64,
    size: u64,
    kind: RangeKind,
    side: Side,
    updatable: bool,
    file: Option<PathBuf>,
}

impl FunctionMap {
    fn new(number: usize, function: &Function) -> Result<Self, ConfigError> {
        let set = function.layout(number)?;
        let mut bars: Vec<_> = function.bars_in_effect().iter().map(|bar| BarMap::new(bar, &set)).collect();
        bars.sort_by_key(|bar| bar.index);
        Ok(Self { function: number, msix: set.msix().is_some(), bars })
    }

    fn text(&self, colours: bool) -> String {
        let interrupts = if self.msix { "MSI-X" } else { "INTA#" };
        let mut out = format!("function {}, interrupts by {interrupts}\n\n", self.function);
        table(&self.bars, &mut out);
        out.push('\n');
        for bar in &self.bars {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "BAR {} {:>5} [{}]",
                bar.index,
                ByteSize(bar.size).to_string(),
                picture(bar, colours)
            );
        }
        let mark = |side: Side| coloured(&fill(side).to_string(), side, colours);
        let _ = writeln!(out, "            {} private  {} shared", mark(Side::Private), mark(Side::Shared));
        out
    }
}

impl BarMap {
    fn new(bar: &Bar, set: &BarSet) -> Self {
        let placed = set.bars().iter().find(|placed| placed.index() == bar.index);
        let ranges = placed.map(|placed| placed.ranges()).unwrap_or_default();
        Self {
            index: bar.index,
            width: bar.width,
            prefetchable: bar.prefetchable,
            size: placed.map(|placed| placed.size()).unwrap_or_default(),
            ranges: ranges
                .iter()
                .zip(&bar.ranges)
                .map(|(placed, range)| RangeMap {
                    offset: placed.offset(),
                    size: placed.size(),
                    kind: range.kind,
                    side: range.side,
                    updatable: range.updatable,
                    file: range.file.clone(),
                })
                .collect(),
        }
    }
}

fn table(bars: &[BarMap], out: &mut String) {
    const HEAD: [&str; 9] = ["BAR", "width", "range", "offset", "size", "kind", "side", "updatable", "file"];
    let mut rows = vec![HEAD.map(String::from)];
    for bar in bars {
        for (at, range) in bar.ranges.iter().enumerate() {
            // What is the BAR's stands at its first range.
            let once = |text: String| if at == 0 { text } else { String::new() };
            let prefetchable = if bar.prefetchable { ", prefetchable" } else { "" };
            rows.push([
                once(bar.index.to_string()),
                once(format!("{}{prefetchable}", i64::from(bar.width))),
                at.to_string(),
                format!("{:#x}", range.offset),
                ByteSize(range.size).to_string(),
                range.kind.name().into(),
                range.side.name().into(),
                if range.updatable { "yes" } else { "" }.into(),
                range.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
            ]);
        }
    }
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for ((at, cell), width) in row.iter().enumerate().zip(widths) {
            let padding = " ".repeat(width - cell.chars().count());
            // Numbers of a range to the right.
            let _ = if (2..5).contains(&at) {
                write!(line, "{padding}{cell}  ")
            } else {
                write!(line, "{cell}{padding}  ")
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

const fn fill(side: Side) -> char {
    match side {
        Side::Private => '#',
        Side::Shared => '.',
    }
}

fn coloured(text: &str, side: Side, colours: bool) -> String {
    if !colours {
        return text.into();
    }
    let colour = match side {
        Side::Private => AnsiColor::Red,
        Side::Shared => AnsiColor::Green,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

/// The ranges side by side, each filled with the mark of its side around its number and kind.
fn picture(bar: &BarMap, colours: bool) -> String {
    let sizes: Vec<_> = bar.ranges.iter().map(|range| range.size).collect();
    let drawn = bar.ranges.iter().enumerate().zip(columns(&sizes)).map(|((at, range), columns)| {
        let labels = [format!(" {at} {} ", range.kind.name()), format!(" {at} "), at.to_string()];
        let label = labels.into_iter().find(|label| label.len() + 2 <= columns).unwrap_or_default();
        let mark = fill(range.side).to_string();
        let left = (columns - label.len()) / 2;
        let right = columns - label.len() - left;
        coloured(&format!("{}{label}{}", mark.repeat(left), mark.repeat(right)), range.side, colours)
    });
    drawn.collect::<Vec<_>>().join("|")
}

/// How wide each range is drawn, with a column between neighbours: to scale, but wide enough for its number.
fn columns(sizes: &[u64]) -> Vec<usize> {
    let total: u128 = sizes.iter().map(|size| u128::from(*size)).sum();
    let room = (PICTURE + 1).saturating_sub(sizes.len());
    let least = |at: usize| at.to_string().len() + 2;
    let share = |size: u64| (u128::from(size) * room as u128 / total.max(1)) as usize;
    let mut columns: Vec<_> =
        sizes.iter().enumerate().map(|(at, size)| share(*size).max(least(at))).collect();
    loop {
        let sum: usize = columns.iter().sum();
        // What is missing goes to the widest, what is too much comes from the widest that can do without.
        let mut wide: Vec<_> = columns.iter_mut().enumerate().collect();
        wide.sort_by_key(|(at, columns)| (core::cmp::Reverse(**columns), *at));
        let changed = if sum < room {
            wide.into_iter().next().map(|(_, columns)| *columns += room - sum)
        } else if sum > room {
            wide.into_iter().find(|(at, columns)| **columns > least(*at)).map(|(_, columns)| *columns -= 1)
        } else {
            None
        };
        if changed.is_none() {
            return columns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_drawn_to_scale_and_wide_enough_for_a_number() {
        assert_eq!(columns(&[4096]), [64]);
        assert_eq!(columns(&[4096, 4096]), [32, 31], "and a column between them");
        assert_eq!(columns(&[4096, 8192, 4096]), [15, 32, 15]);
        assert_eq!(columns(&[1 << 43, 4096]), [60, 3]);
        assert_eq!(columns(&[4096, 8 << 30, 4096]), [3, 56, 3]);
        let many = columns(&[4096; 64]);
        assert_eq!((many.first(), many.last()), (Some(&3), Some(&4)), "more than fit");
        assert_eq!(columns(&[]), [] as [usize; 0]);
    }

    #[test]
    fn colours_are_around_what_they_mean() {
        let function = Function::default();
        let map = FunctionMap::new(0, &function).unwrap();
        let (plain, coloured) = (map.text(false), map.text(true));
        assert!(!plain.contains('\u{1b}'));
        assert!(coloured.contains("\u{1b}[31m#\u{1b}[0m private  \u{1b}[32m.\u{1b}[0m shared"), "{coloured}");
        let stripped = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
    }
}
