//! The binary: arguments in, a walk over a transport, an exit code out.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;
use tdispctl::cli::{Cli, Command, Options};
use tdispctl::control::{self, ReportCommand};
use tdispctl::error::{Error, Result};
use tdispctl::guest;
use tdispctl::output::Output;
use tdispctl::shell;
use tdispctl::transport::Transport;
use tdispctl::transport::sysfs::{DEVICES, Sysfs};
use tdispctl::transport::tcp::Tcp;
use tdispctl::transport::vfio_user::VfioUser;
use tdispctl::tsm;
use tdispctl::vmm;
use tdispctl::walk::Walk;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.options.verbose);
    if let Command::Tsm(command) = &cli.command {
        let output = || make_output(&cli.options);
        return tsm::run(command, &cli.options, &mut io::stdin().lock(), &output).into();
    }
    if let Command::Vmm(args) = &cli.command {
        let output = make_output(&cli.options);
        return vmm::run(args, &cli.options, &mut io::stdin().lock(), output).into();
    }
    let mut output = make_output(&cli.options);
    if let Command::Guest(command) = &cli.command {
        return guest::run(command, &cli.options, output).into();
    }
    if let Some(path) = &cli.options.control {
        return control::run(path, &cli.options, &cli.command, &mut io::stdin().lock(), output).into();
    }
    let transport = match check(&cli).and_then(|()| open(&cli.options)) {
        Ok(transport) => transport,
        Err(e) => return output.finish(Err(e)).into(),
    };
    let mut walk = match Walk::new(transport, cli.options.clone(), output) {
        Ok(walk) => walk,
        Err(e) => return make_output(&cli.options).finish(Err(e)).into(),
    };
    let code = if matches!(cli.command, Command::Shell) {
        shell::run(&mut walk, io::stdin().lock())
    } else {
        walk.command(&cli.command)
    };
    walk.close();
    code.into()
}

/// What does not fit together, beyond what the command line's grammar says.
fn check(cli: &Cli) -> Result<()> {
    let alone = matches!(
        cli.command,
        Command::Discover
            | Command::Identify
            | Command::Csr(_)
            | Command::Certificate(_)
            | Command::Bank(_)
            | Command::KeyPair(_)
            | Command::Events(_)
            | Command::Run(_)
            | Command::Shell
    );
    let from_the_side = matches!(
        cli.command,
        Command::Watch(_) | Command::Dmabuf(_) | Command::Report(ReportCommand { action: Some(_), .. })
    );
    if from_the_side {
        return Err(Error::Usage("watch, dmabuf and report get, set and reset need --control".into()));
    }
    if cli.options.vfio_user.is_some() && !alone {
        return Err(Error::Usage(
            "over vfio-user a disconnect resets the device, so a command of its own would find and leave it fresh; use run, \
             or put the commands into one shell"
                .into(),
        ));
    }
    if cli.options.vfio_user.is_some() && cli.options.session.is_some() {
        return Err(Error::Usage(
            "over vfio-user no session outlives the connection; leave --session out".into(),
        ));
    }
    Ok(())
}

fn open(options: &Options) -> Result<Box<dyn Transport>> {
    let timeout = options.patience();
    if let Some(path) = &options.vfio_user {
        return Ok(Box::new(VfioUser::open(path, timeout)?));
    }
    if let Some(target) = &options.tcp {
        return Ok(Box::new(Tcp::connect(target, options.tcp_hello, timeout)?));
    }
    let devices = Path::new(DEVICES);
    Ok(Box::new(match options.device {
        Some(address) => Sysfs::open(devices, address)?,
        None => Sysfs::find(devices)?,
    }))
}

fn make_output(options: &Options) -> Output {
    let out = io::stdout();
    if options.json {
        return Output::json(Box::new(out));
    }
    // no-color.org and bixense.com/clicolors: any value but an empty one forbids, any but 0 forces.
    let is = |name, test: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| test(&value));
    let forbidden = is("NO_COLOR", |value| !value.is_empty());
    let forced = is("CLICOLOR_FORCE", |value| !value.is_empty() && value != "0");
    let dumb = is("TERM", |value| value == "dumb");
    let colours = !forbidden && (forced || out.is_terminal() && !dumb);
    Output::human(Box::new(out), colours)
}

/// `-v` traces on stderr; RUST_LOG has the last word.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format(|out, record| writeln!(out, "{:5} {}", record.level(), record.args()))
        .init();
}
