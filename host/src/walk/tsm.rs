//! The walk in the pieces that a TSM is asked for: connect, bind, guest requests, unbind, disconnect. TDIs share the session, so each
//! has a binding of its own, which stands in for the session's while one is at work.

use spdm::wire::Nonce;
use tdisp::wire::ide_km::KeySet;
use tdisp::wire::{FunctionId, InterfaceReport, TdiState};

use super::link::failed;
use super::{Seen, Walk};
use crate::cli::LockArgs;
use crate::error::{Error, Result};
use crate::output::Item;
use crate::output::record::Layer;
use crate::pci::Bdf;
use crate::session_file::Binding;

/// Bytes of the report to ask for at a time.
const PORTION: u16 = 1024;

/// FUNCTION_ID of a function. It has eight bits for the segment; with one segment only it need not be named.
pub(crate) fn function_id(address: Bdf) -> u32 {
    let [segment, high] = address.segment.to_le_bytes();
    let segment = (segment != 0 || high != 0).then_some(segment);
    FunctionId::new(address.requester_id(), segment).0
}

impl Walk {
    /// Something is asked for, after a wait for it.
    pub(crate) fn begin(&mut self, item: &Item<'_>) {
        self.output.begin();
        self.output.tell(item);
    }

    /// Tells the end of what was asked for.
    pub(crate) fn finish(&mut self, result: Result<()>) {
        self.output.finish(result);
    }

    /// From certificates to keys in use. `stream` is the id of one that the kernel has set up and will enable; without it the
    /// device's own registers get one, if it has any. Nothing is left open if a check does not hold.
    pub(crate) fn tsm_connect(&mut self, args: &LockArgs, stream: Option<u8>) -> Result<()> {
        let result = self.establish(args, stream).and_then(|()| self.all_held());
        if result.is_err() {
            self.clean_up();
        }
        result
    }

    fn establish(&mut self, args: &LockArgs, stream: Option<u8>) -> Result<()> {
        self.identify(false)?;
        // No session with a device that is not what it should be.
        self.all_held()?;
        let info = self.requester.connection().copied();
        self.open_session(&info.ok_or_else(|| Error::Protocol("the connection is gone".into()))?)?;
        self.begin_binding(args);
        let Some(id) = stream else {
            return self.stream_without_kernel(args);
        };
        self.step(Layer::Ide, "stream", "set up by the kernel", |_| Ok(Seen::good((), format!("id {id}"))))?;
        if let Some(bound) = &mut self.bound {
            bound.stream_id = id;
        }
        self.program_keys(id, KeySet::Zero)
    }

    fn stream_without_kernel(&mut self, args: &LockArgs) -> Result<()> {
        let has_ide = self.found()?.inventory.as_ref().is_some_and(|inventory| inventory.ide.is_some());
        let text = if has_ide { "none: only the device's registers are programmed" } else { "no IDE" };
        self.step(Layer::Ide, "stream", "set up by the kernel", |_| Ok(Seen::skipped((), text)))?;
        if has_ide { self.bring_up_stream(args) } else { Ok(()) }
    }

    /// A binding for one more function in the session there is.
    pub(crate) fn tsm_binding(&self, function_id: u32) -> Result<Binding> {
        let session = self.bound()?;
        Ok(Binding { function_id, nonce: None, ..session.clone() })
    }

    /// LOCK_INTERFACE. What was locked for nothing is unlocked.
    pub(crate) fn tsm_bind(&mut self, args: &LockArgs, binding: &mut Binding) -> Result<()> {
        self.with_binding(binding, |walk| {
            let result = walk.lock_in_session(args).and_then(|()| walk.all_held());
            if result.is_err()
                && let Err(e) = walk.stop()
            {
                log::debug!("unlocking what was not to be bound: {e}");
            }
            result
        })
    }

    /// STOP_INTERFACE.
    pub(crate) fn tsm_unbind(&mut self, binding: &mut Binding) -> Result<()> {
        self.with_binding(binding, Self::stop)
    }

    /// START_INTERFACE.
    pub(crate) fn tsm_start(&mut self, binding: &mut Binding) -> Result<()> {
        self.with_binding(binding, |walk| walk.start().and_then(|()| walk.all_held()))
    }

    /// GET_DEVICE_INTERFACE_STATE.
    pub(crate) fn tsm_state(&mut self, binding: &mut Binding) -> Result<TdiState> {
        self.with_binding(binding, |walk| walk.state(None))
    }

    /// GET_DEVICE_INTERFACE_REPORT: bytes that are a report, as the device sent them. What it says the guest has to judge.
    pub(crate) fn tsm_report(&mut self, binding: &mut Binding) -> Result<Vec<u8>> {
        self.with_binding(binding, |walk| {
            walk.step(Layer::Tdisp, "GET_DEVICE_INTERFACE_REPORT", "a report", |walk| {
                let (bytes, portions) = walk.report_bytes(PORTION)?;
                let report = InterfaceReport::decode(&bytes)
                    .map_err(|e| Error::Protocol(format!("interface report: {e}")))?;
                let text =
                    format!("{} ranges, {} bytes in {portions} portions", report.ranges.len(), bytes.len());
                Ok(Seen::good(bytes, text))
            })
        })
    }

    /// The certificates that the session began with, in DER, one after the other.
    pub(crate) fn tsm_certificates(&mut self) -> Result<Vec<u8>> {
        self.chain.as_ref().map(|found| found.chain.certificates.concat()).ok_or_else(|| {
            Error::Verification("the session began with a pre-shared key, not with certificates".into())
        })
    }

    /// GET_MEASUREMENTS with the guest's nonce: what it can verify by itself.
    pub(crate) fn tsm_evidence(&mut self, nonce: &Nonce) -> Result<Vec<u8>> {
        let slot = self.options.slot;
        self.step(Layer::Spdm, "MEASUREMENTS for the guest", "all of them, signed over its nonce", |walk| {
            let evidence = walk.spdm()?.evidence(slot, *nonce).map_err(failed)?;
            let mut bytes = Vec::new();
            evidence.encode(&mut bytes).map_err(|e| Error::Protocol(format!("evidence: {e}")))?;
            let text = format!("{} bytes", bytes.len());
            Ok(Seen::good(bytes, text))
        })
    }

    /// END_SESSION. A stream that lived by it is disabled, whatever the device says to that.
    pub(crate) fn tsm_disconnect(&mut self) -> Result<()> {
        let bound = self.bound.clone();
        let ended = self.end();
        if ended.is_err()
            && let Some(bound) = bound
            && let Err(e) = self.disable_stream(&bound)
        {
            log::debug!("disabling the stream: {e}");
        }
        ended
    }

    fn with_binding<T>(
        &mut self,
        binding: &mut Binding,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let session = self.bound.replace(binding.clone());
        let result = act(self);
        if let Some(bound) = std::mem::replace(&mut self.bound, session) {
            *binding = bound;
        }
        result
    }

    /// Checks that do not hold are told by their steps; to a TSM they are reasons to refuse.
    fn all_held(&self) -> Result<()> {
        match self.output.failed() {
            0 => Ok(()),
            failed => Err(Error::Check(format!("{failed} checks did not hold"))),
        }
    }
}
