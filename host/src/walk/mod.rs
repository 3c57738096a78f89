//! The walk: what each command does with a device, step by step, every step a record.

mod adjust;
mod device_memory;
mod discover;
mod dma;
mod events;
mod ide;
mod identify;
mod inventory;
mod link;
mod provision;
mod raw;
mod report;
mod run;
mod session;
mod tdisp;
mod test_function;
mod trust;
mod tsm;

use std::time::{Duration, Instant};

use spdm::crypto::DefaultProvider;
use spdm::requester::{PeerCertificate, Requester, RequesterConfig};

use self::discover::Found;
use self::session::Bound;
use crate::cli::{Command, Options, ReportArgs};
use crate::control::ReportCommand;
use crate::error::{Error, Result};
use crate::output::record::{Layer, Record};
use crate::output::{Item, Output};
use crate::transport::Transport;

pub(crate) use self::identify::name_of;
pub(crate) use self::report::{facts as report_facts, misfit, resolve};
use self::trust::own_identity;
pub use self::trust::requester_config;
pub(crate) use self::trust::{clock_time, read_certificate, read_file};
pub(crate) use self::tsm::function_id;

/// The requester that `options` ask for; `encapsulated`: which the responder may ask, too.
fn requester(options: &Options, encapsulated: bool) -> Result<Requester> {
    let provider = DefaultProvider::new();
    let config = RequesterConfig { encapsulated, ..requester_config(options, &provider)? };
    Requester::with_identity(config, Box::new(provider), own_identity(options)?)
        .map_err(|e| Error::Usage(format!("SPDM settings: {e}")))
}

/// What a step saw.
struct Seen<T> {
    value: T,
    text: String,
    ok: Option<bool>,
}

impl<T> Seen<T> {
    /// As expected.
    fn good(value: T, text: impl Into<String>) -> Self {
        Self { value, text: text.into(), ok: Some(true) }
    }

    /// As expected or not; the walk goes on either way.
    fn checked(value: T, text: impl Into<String>, ok: bool) -> Self {
        Self { value, text: text.into(), ok: Some(ok) }
    }

    /// Left out, and why.
    fn skipped(value: T, why: impl Into<String>) -> Self {
        Self { value, text: why.into(), ok: None }
    }
}

/// A device, what is known about it, and where that is told.
pub struct Walk {
    transport: Box<dyn Transport>,
    options: Options,
    output: Output,
    requester: Requester,
    found: Option<Found>,
    bound: Option<Bound>,
    /// The certificates that were verified last.
    chain: Option<PeerCertificate>,
    /// One process for many commands: sessions stay in it.
    interactive: bool,
    /// BAR0 has the test function's registers.
    has_test_function: bool,
}

impl Walk {
    /// A walk that has not begun.
    ///
    /// # Errors
    /// [`Error::Usage`] for settings of trust or credentials that cannot be used.
    pub fn new(transport: Box<dyn Transport>, options: Options, output: Output) -> Result<Self> {
        let requester = requester(&options, false)?;
        Ok(Self {
            transport,
            options,
            output,
            requester,
            found: None,
            bound: None,
            chain: None,
            interactive: false,
            has_test_function: false,
        })
    }

    /// Carries out one command, tells its end, and returns the exit code.
    pub fn command(&mut self, command: &Command) -> u8 {
        let result = self.carry_out(command);
        self.output.finish(result)
    }

    fn carry_out(&mut self, command: &Command) -> Result<()> {
        match command {
            Command::Discover => self.discover(),
            Command::Identify => self.identify(true),
            Command::Csr(args) => self.csr(args),
            Command::Certificate(command) => self.certificate_command(command),
            Command::Bank(command) => self.bank_command(command),
            Command::KeyPair(command) => self.key_pair_command(command),
            Command::Events(args) => self.events(args),
            Command::Lock(args) => self.in_session(true, |walk| walk.lock(args)),
            Command::Report(ReportCommand { read, action: None }) => {
                self.in_session(false, |walk| walk.show_report(read))
            }
            Command::Report(_) | Command::Watch(_) | Command::Dmabuf(_) => {
                Err(Error::Usage("watch, dmabuf and report get, set and reset need --control".into()))
            }
            Command::Start => self.in_session(false, Self::start),
            Command::State => self.in_session(false, |walk| walk.state(None).map(|_| ())),
            Command::Stop { keep_session } => self.in_session(false, |walk| {
                walk.stop()?;
                if *keep_session { Ok(()) } else { walk.end() }
            }),
            Command::End => self.in_session(false, Self::end),
            Command::Run(args) => {
                if self.options.session.is_some() {
                    return Err(Error::Usage(
                        "run opens and ends a session of its own; it takes no --session".into(),
                    ));
                }
                self.run(args)
            }
            Command::Tsm(_) | Command::Vmm(_) | Command::Guest(_) => {
                Err(Error::Usage("tsm, vmm and guest are commands of their own".into()))
            }
            Command::Shell => Err(Error::Usage("this is a shell already".into())),
            Command::Rekey => self.in_session(false, Self::rekey),
            Command::P2p(command) => self.in_session(false, |walk| walk.p2p(command)),
            Command::Attribute(args) => self.in_session(false, |walk| walk.attribute(args)),
            Command::Vdm(args) => self.in_session(false, |walk| walk.vdm(args)),
            Command::Mmio(command) => self.mmio(command),
            Command::Config(command) => self.config_command(command),
        }
    }

    /// From now on commands come from one process, and a session lives in it unless there is a session file.
    pub fn interactive(&mut self) {
        self.interactive = true;
    }

    /// Takes leave of the device. A session that lives nowhere else ends, and its interface is stopped.
    pub fn close(&mut self) {
        if self.interactive {
            self.clean_up();
        }
        self.transport.close();
    }

    /// Does one thing and records it. An error is a failed step and ends the command; a check that does not hold is a
    /// failed step, too, and the command goes on.
    fn step<T>(
        &mut self,
        layer: Layer,
        step: &str,
        expected: &str,
        act: impl FnOnce(&mut Self) -> Result<Seen<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        let seen = act(self);
        let took = start.elapsed();
        let (text, ok) = match &seen {
            Ok(seen) => (seen.text.clone(), seen.ok),
            Err(e) => (e.to_string(), Some(false)),
        };
        let record = Record { layer, step: step.into(), expected: expected.into(), seen: text, ok, took };
        self.output.tell(&Item::Step(&record));
        seen.map(|seen| seen.value)
    }

    /// How long a DOE response may take.
    fn timeout(&self) -> Duration {
        self.options.patience()
    }

    fn show_report(&mut self, args: &ReportArgs) -> Result<()> {
        self.read_report(args).map(|_| ())
    }
}
