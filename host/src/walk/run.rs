//! The whole walk in one go, with a look at the pages in every state.

use tdisp::wire::{Request, Response, TdiState};

use super::device_memory::{Phase, Places};
use super::{Seen, Walk};
use crate::cli::RunArgs;
use crate::error::{Error, Result};
use crate::output::record::Layer;
use crate::pci::{COMMAND, COMMAND_MASTER, Width};

impl Walk {
    /// Walks; if it ends early, leaves no locked interface and no session behind.
    pub(super) fn run(&mut self, args: &RunArgs) -> Result<()> {
        let result = self.walk_through(args);
        if result.is_err() {
            self.clean_up();
        }
        result
    }

    fn walk_through(&mut self, args: &RunArgs) -> Result<()> {
        if self.requester.session().is_some() {
            return Err(Error::Usage("there is a session already; end it first".into()));
        }
        self.identify(false)?;
        self.enable_device()?;
        let info = self
            .requester
            .connection()
            .copied()
            .ok_or_else(|| Error::Protocol("the connection is gone".into()))?;
        self.open_session(&info)?;
        self.begin_binding(&args.lock);
        self.bring_up_stream(&args.lock)?;
        self.tdisp_version()?;
        self.tdisp_capabilities()?;
        self.unlock_leftover()?;
        if !args.no_use {
            self.check_unlocked()?;
        }

        self.lock_interface(&args.lock)?;
        let rows = self.read_report(&args.report)?;
        let places = if args.no_use { None } else { Some(self.places(&rows)?) };
        self.look(places.as_ref(), Phase::Locked)?;
        self.start()?;
        self.look(places.as_ref(), Phase::Run)?;
        if places.is_some() {
            self.use_device()?;
        }
        self.stop()?;
        self.look(places.as_ref(), Phase::Stopped)?;

        if args.provoke_error {
            self.provoke_error(args, places.as_ref())?;
        }
        self.end()
    }

    fn look(&mut self, places: Option<&Places>, phase: Phase) -> Result<()> {
        places.map_or(Ok(()), |places| self.check_places(places, phase))
    }

    /// Once more to RUN, then Bus Master Enable goes away under it.
    fn provoke_error(&mut self, args: &RunArgs, places: Option<&Places>) -> Result<()> {
        if self.transport.config().is_none() {
            return self.step(Layer::Pci, "provoke ERROR", "", |_| {
                Ok(Seen::skipped((), "this target has no configuration space"))
            });
        }
        self.lock_interface(&args.lock)?;
        self.start()?;
        self.look(places, Phase::Run)?;
        self.set_bus_master(false)?;
        self.state(Some(TdiState::ERROR))?;
        self.look(places, Phase::Error)?;
        self.stop()?;
        self.set_bus_master(true)?;
        self.look(places, Phase::Stopped)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<()> {
        let word = if on { "set" } else { "clear" };
        self.step(Layer::Pci, &format!("{word} Bus Master Enable"), word, |walk| {
            let Some(config) = walk.transport.config() else {
                return Err(Error::NoDevice("this target has no configuration space".into()));
            };
            let command = config.read(COMMAND, Width::Word)?;
            let wanted = if on { command | COMMAND_MASTER } else { command & !COMMAND_MASTER };
            config.write(COMMAND, Width::Word, wanted)?;
            let seen = config.read(COMMAND, Width::Word)?;
            Ok(Seen::checked((), format!("Command {seen:#06x}"), seen == wanted))
        })
    }

    /// As much of STOP and END as still works; what went wrong has been told.
    pub(super) fn clean_up(&mut self) {
        if self.requester.session().is_none() {
            return;
        }
        let stopped = self.ask(Request::Stop, |response| matches!(response, Response::Stop).then_some(()));
        let ended = self.spdm_command(spdm::requester::Command::EndSession { clear_negotiated_state: false });
        log::debug!("cleaning up: stop {stopped:?}, end {ended:?}");
        if let Some(bound) = self.bound.take()
            && let Err(e) = self.disable_stream(&bound)
        {
            log::debug!("cleaning up: {e}");
        }
    }
}
