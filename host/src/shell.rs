//! The shell: commands from a terminal or a pipe, one a line, over one connection and one session.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Parser;

use crate::cli::Command;
use crate::walk::Walk;

/// Longest line taken.
const MAX_LINE: usize = 4096;

/// A line of the shell.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// What a line says.
#[derive(Debug)]
enum Said {
    Nothing,
    Leave,
    Do(Box<Command>),
    /// Not understood, or asked for help: what to print, and whether it is an error.
    Print(String, bool),
}

fn understand(line: &str) -> Said {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Said::Nothing;
    }
    if matches!(line, "quit" | "exit") {
        return Said::Leave;
    }
    match Line::try_parse_from(line.split_whitespace()) {
        Ok(Line { command: Command::Shell }) => Said::Print("this is a shell already\n".into(), true),
        Ok(Line { command }) => Said::Do(Box::new(command)),
        Err(e) => Said::Print(e.to_string(), e.use_stderr()),
    }
}

/// Reads lines until the end of input, `quit` or `exit`, and carries them out. The first failure's exit code is returned;
/// later lines are carried out all the same.
pub fn run(walk: &mut Walk, input: impl BufRead) -> u8 {
    walk.interactive();
    let prompt = io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut exit_code = 0;
    let mut input = input;
    loop {
        if prompt {
            eprint!("tdispctl> ");
            let _ = io::stderr().flush();
        }
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut input, MAX_LINE as u64);
        let code = match limited.read_until(b'\n', &mut line) {
            Ok(0) => return exit_code,
            Ok(_) => match understand(&String::from_utf8_lossy(&line)) {
                Said::Nothing => 0,
                Said::Leave => return exit_code,
                Said::Do(command) => walk.command(&command),
                Said::Print(text, error) => {
                    eprint!("{text}");
                    if error { 2 } else { 0 }
                }
            },
            Err(e) => {
                eprintln!("reading a command: {e}");
                return 1;
            }
        };
        if exit_code == 0 {
            exit_code = code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_without_the_programs_name() {
        for (line, wanted) in
            [("lock --ide-order enable-first\n", "Lock"), ("  state", "State"), ("mmio read 0 0 8", "Mmio")]
        {
            let Said::Do(command) = understand(line) else { panic!("{line}") };
            assert!(format!("{command:?}").starts_with(wanted), "{command:?}");
        }
    }

    #[test]
    fn comments_blanks_help_and_nonsense_are_told_apart() {
        for line in ["", " \n", "# lock"] {
            assert!(matches!(understand(line), Said::Nothing));
        }
        assert!(matches!(understand("quit\n"), Said::Leave));
        assert!(matches!(understand("help"), Said::Print(_, false)));
        for line in ["locked", "shell", "mmio read", "lock --json"] {
            assert!(matches!(understand(line), Said::Print(_, true)), "{line}");
        }
    }
}
