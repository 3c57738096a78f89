//! How the demo talks: headings, verdicts and quoted output, coloured only on a terminal.

use anstyle::{AnsiColor, Style};
use std::io::{self, IsTerminal};
use std::time::Instant;

/// Where everything the demo says goes through.
pub(crate) struct Show {
    coloured: bool,
    started: Instant,
    stage: u32,
}

impl Show {
    pub(crate) fn new() -> Self {
        let coloured =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { coloured, started: Instant::now(), stage: 0 }
    }

    /// A new part of the demo.
    pub(crate) fn heading(&mut self, title: &str) {
        self.stage += 1;
        let text = self.paint(Style::new().bold(), &format!("{}. {title}", self.stage));
        let time =
            self.paint(Style::new().dimmed(), &format!("[{:.1} s]", self.started.elapsed().as_secs_f64()));
        println!("\n{text}  {time}");
    }

    /// Something worth knowing.
    pub(crate) fn fact(&self, text: &str) {
        println!("   {text}");
    }

    /// A line of another program's output.
    pub(crate) fn quote(&self, line: &str) {
        println!("   │ {line}");
    }

    /// A line of progress detail.
    pub(crate) fn aside(&self, text: &str) {
        println!("   {}", self.paint(Style::new().dimmed(), text));
    }

    /// Whether something was as it has to be.
    pub(crate) fn verdict(&self, good: bool, text: &str) {
        let (symbol, colour) = if good { ("✓", AnsiColor::Green) } else { ("✗", AnsiColor::Red) };
        println!("   {} {text}", self.paint(colour.on_default().bold(), symbol));
    }

    /// Whether colours may be used.
    pub(crate) fn coloured(&self) -> bool {
        self.coloured
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.coloured { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
