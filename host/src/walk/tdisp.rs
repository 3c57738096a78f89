//! The interface's life: versions, capabilities, LOCK, START, STATE, STOP (PCIe 6.1 §11.3).

use std::time::Duration;

use tdisp::wire::{
    Capabilities, ErrorCode, FunctionId, LockFlags, LockRequest, Nonce, Request, RequestBitmap,
    RequestMessage, Response, ResponseMessage, TdiState, VERSION_1_0,
};

use super::{Seen, Walk, function_id};
use crate::cli::LockArgs;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::output::record::Layer;
use crate::pci::bars;
use crate::session_file::{Binding, SavedNonce};

/// Protocol id of TDISP in a vendor-defined message of PCI-SIG's.
const PROTOCOL_TDISP: u8 = 1;
/// How often a busy DSM is asked again, and how long is waited before.
const BUSY_RETRIES: u32 = 20;
const BUSY_DELAY: Duration = Duration::from_millis(50);

impl Walk {
    /// From wherever things are to a locked interface. A session that was opened for nothing is ended again.
    pub(super) fn lock(&mut self, args: &LockArgs) -> Result<()> {
        if self.requester.session().is_some() {
            if let (Some(id), Some(bound)) = (args.function_id, &mut self.bound) {
                bound.function_id = id;
            }
            return self.lock_in_session(args);
        }
        let result = self.open_for(args).and_then(|()| self.lock_in_session(args));
        if result.is_err() {
            self.clean_up();
        }
        result
    }

    fn open_for(&mut self, args: &LockArgs) -> Result<()> {
        self.discover()?;
        self.enable_device()?;
        let info = self.connect()?;
        self.authenticate(&info)?;
        self.open_session(&info)?;
        self.begin_binding(args);
        self.bring_up_stream(args)
    }

    pub(super) fn lock_in_session(&mut self, args: &LockArgs) -> Result<()> {
        self.tdisp_version()?;
        self.tdisp_capabilities()?;
        self.unlock_leftover()?;
        self.lock_interface(args)
    }

    /// Notes what the session is for.
    pub(super) fn begin_binding(&mut self, args: &LockArgs) {
        let function = args.function_id.unwrap_or_else(|| self.own_function_id());
        self.bound = Some(Binding {
            stream_id: 0,
            stream_index: None,
            function_id: function,
            mmio_offset: args.mmio_offset,
            nonce: None,
            second_set: false,
        });
    }

    /// FUNCTION_ID of the function the transport leads to; 0 where its address is not known.
    pub(super) fn own_function_id(&self) -> u32 {
        self.transport.address().map_or(0, function_id)
    }

    /// Memory Space Enable and Bus Master Enable, before the interface is locked.
    pub(super) fn enable_device(&mut self) -> Result<()> {
        if self.transport.config().is_none() {
            return Ok(());
        }
        self.step(Layer::Pci, "Command", "memory space and bus mastering on", |walk| {
            if let Some(config) = walk.transport.config() {
                bars::enable(config)?;
            }
            Ok(Seen::good((), "on"))
        })
    }

    /// GET_TDISP_VERSION.
    pub(super) fn tdisp_version(&mut self) -> Result<()> {
        self.step(Layer::Tdisp, "GET_TDISP_VERSION", "1.0 among them", |walk| {
            let versions = walk.ask(Request::GetVersion, |response| {
                if let Response::Version(versions) = response { Some(versions.to_vec()) } else { None }
            })?;
            let names: Vec<_> = versions.iter().map(|v| format!("{}.{}", v >> 4, v & 0xf)).collect();
            Ok(Seen::checked((), names.join(" "), versions.contains(&VERSION_1_0)))
        })
    }

    /// GET_TDISP_CAPABILITIES.
    pub(super) fn tdisp_capabilities(&mut self) -> Result<Capabilities> {
        self.step(Layer::Tdisp, "GET_TDISP_CAPABILITIES", "all seven required requests", |walk| {
            let caps = walk.ask(Request::GetCapabilities { tsm_caps: 0 }, |response| {
                if let Response::Capabilities(caps) = response { Some(caps) } else { None }
            })?;
            let text = format!(
                "{} requests, LOCK flags {:#06x}, {} address bits",
                caps.requests.codes().count(),
                caps.lock_flags.into_bits(),
                caps.dev_addr_width
            );
            let complete = RequestBitmap::REQUIRED.codes().all(|code| caps.requests.contains(code));
            Ok(Seen::checked(caps, text, complete))
        })
    }

    /// STATE before LOCK: an interface that an earlier walk left behind is stopped first.
    pub(super) fn unlock_leftover(&mut self) -> Result<()> {
        let state = self.state(None)?;
        if state == TdiState::CONFIG_UNLOCKED { Ok(()) } else { self.stop() }
    }

    /// LOCK_INTERFACE and the state after it.
    pub(super) fn lock_interface(&mut self, args: &LockArgs) -> Result<()> {
        let default_stream_id = self.bound()?.stream_id;
        let request = LockRequest {
            flags: LockFlags::from_bits(args.lock_flags),
            default_stream_id,
            reserved: 0,
            mmio_reporting_offset: args.mmio_offset,
            bind_p2p_address_mask: 0,
        };
        let nonce = self.step(Layer::Tdisp, "LOCK_INTERFACE", "a nonce", |walk| {
            let nonce = walk.ask(Request::Lock(request), |response| {
                if let Response::Lock(nonce) = response { Some(nonce) } else { None }
            })?;
            // A nonce of zeros is what a device without one would send.
            let made = nonce.as_bytes().iter().any(|byte| *byte != 0);
            let text = format!(
                "bound to stream {default_stream_id}, {}",
                if made { "nonce" } else { "zeros as nonce" }
            );
            Ok(Seen::checked(nonce, text, made))
        })?;
        if let Some(bound) = &mut self.bound {
            bound.nonce = Some(SavedNonce(*nonce.as_bytes()));
            bound.mmio_offset = args.mmio_offset;
        }
        self.state(Some(TdiState::CONFIG_LOCKED)).map(|_| ())
    }

    /// START_INTERFACE and the state after it.
    pub(super) fn start(&mut self) -> Result<()> {
        let nonce = self.bound()?.nonce.clone();
        let nonce =
            nonce.ok_or_else(|| Error::Usage("there is no nonce; lock the interface first".into()))?;
        self.step(Layer::Tdisp, "START_INTERFACE", "accepted with LOCK's nonce", |walk| {
            walk.ask(Request::Start(Nonce::new(nonce.0)), |response| {
                matches!(response, Response::Start).then_some(())
            })?;
            Ok(Seen::good((), "accepted"))
        })?;
        if let Some(bound) = &mut self.bound {
            bound.nonce = None;
        }
        self.state(Some(TdiState::RUN)).map(|_| ())
    }

    /// STOP_INTERFACE and the state after it.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.step(Layer::Tdisp, "STOP_INTERFACE", "accepted", |walk| {
            walk.ask(Request::Stop, |response| matches!(response, Response::Stop).then_some(()))?;
            Ok(Seen::good((), "accepted"))
        })?;
        if let Some(bound) = &mut self.bound {
            bound.nonce = None;
        }
        self.state(Some(TdiState::CONFIG_UNLOCKED)).map(|_| ())
    }

    /// GET_DEVICE_INTERFACE_STATE; without an expectation any of the four states will do.
    pub(super) fn state(&mut self, expected: Option<TdiState>) -> Result<TdiState> {
        let wanted = expected.map_or("one of the four states".into(), |state| state.to_string());
        self.step(Layer::Tdisp, "GET_DEVICE_INTERFACE_STATE", &wanted, |walk| {
            let state = walk.ask(Request::GetState, |response| {
                if let Response::State(state) = response { Some(state) } else { None }
            })?;
            let good = expected.map_or(state.name().is_some(), |expected| expected == state);
            Ok(Seen::checked(state, state.to_string(), good))
        })
    }

    /// Sends a request to the bound interface and takes what its response has.
    pub(super) fn ask<T>(
        &mut self,
        request: Request<'_>,
        take: impl FnOnce(Response<'_>) -> Option<T>,
    ) -> Result<T> {
        let interface = FunctionId(self.bound()?.function_id).into();
        let code = request.code();
        let mut payload = vec![PROTOCOL_TDISP];
        RequestMessage { interface, request }.encode(&mut payload);
        let clock = SystemClock::new();
        log::debug!("TDISP {code} to {}", FunctionId(self.bound()?.function_id));
        for _ in 0..BUSY_RETRIES {
            let answer = self.vendor(&payload)?;
            let message = match answer.split_first() {
                Some((&PROTOCOL_TDISP, message)) => message,
                _ => return Err(Error::Protocol(format!("{code} was answered in another protocol"))),
            };
            let message = ResponseMessage::decode(message)
                .map_err(|e| Error::Protocol(format!("the answer to {code}: {e}")))?;
            log::debug!("TDISP {}", message.response.code());
            if message.interface != interface {
                return Err(Error::Protocol(format!(
                    "{code} was answered for {}",
                    message.interface.function
                )));
            }
            let Response::Error { code: reason, data, .. } = message.response else {
                let seen = message.response.code();
                return take(message.response)
                    .ok_or_else(|| Error::Protocol(format!("{code} was answered with {seen}")));
            };
            if reason != ErrorCode::BUSY {
                let data = if data == 0 { String::new() } else { format!(" (data {data:#x})") };
                return Err(Error::Refused { request: code.to_string(), reason: format!("{reason}{data}") });
            }
            clock.sleep(BUSY_DELAY);
        }
        Err(Error::TimedOut { what: format!("{code}: the DSM stays busy"), after: BUSY_DELAY * BUSY_RETRIES })
    }
}
