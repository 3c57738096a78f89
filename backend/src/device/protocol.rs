//! From a data object to its answer: discovery, SPDM, and what SPDM carries for the DSM and the CXL target.

use core::time::Duration;

use spdm::doe::{DiscoveryRequest, DiscoveryResponse, Object, ObjectType, VENDOR_PCI_SIG};
use spdm::responder::{
    Answer, ConfigError, Event, MeasurementValue, Responder, VendorAnswer, VendorHandler, VendorRequest,
};
use spdm::wire::DeviceClass;
use tdisp::cxl;
use tdisp::dsm::{Dsm, Functions};
use tdispd_proto::control::{Happening, Hex};

use super::journal::Journal;
use super::keeper::Keeper;
use super::words;

/// Registry of standards bodies (DSP0274 1.3 "Registry or standards body ID"): PCI-SIG, whose vendor id is its own.
const STANDARD_PCI_SIG: u16 = 3;
const VENDOR_ID: [u8; 2] = VENDOR_PCI_SIG.to_le_bytes();
/// The CXL Consortium's vendor id.
const CXL_VENDOR_ID: [u8; 2] = 0x1E98_u16.to_le_bytes();
/// Protocol ids of both (PCIe 6.1 §6.31.3; CXL 3.1 "CXL_IDE_KM", "TEE Security Protocol").
const PROTOCOL_IDE_KM: u8 = 0;
const PROTOCOL_TDISP: u8 = 1;
const CXL_PROTOCOL_IDE_KM: u8 = 0;
const CXL_PROTOCOL_TSP: u8 = 1;
/// SPDM ERROR codes.
const ERROR_UNSUPPORTED_REQUEST: u8 = 0x07;
const VENDOR_DEFINED_REQUEST: u8 = 0xFE;

/// What answers data objects: the responder, the DSM behind it, and a CXL target if there is one.
pub(super) struct Protocol {
    pub(super) responder: Responder,
    pub(super) dsm: Dsm,
    cxl: Option<cxl::Target>,
    keeper: Keeper,
    payload: Vec<u8>,
}

impl Protocol {
    pub(super) fn new(responder: Responder, dsm: Dsm, cxl: Option<cxl::Target>, keeper: Keeper) -> Self {
        Self { responder, dsm, cxl, keeper, payload: Vec::new() }
    }

    /// Answers `object` into `response` (a whole data object). False: there is no answer.
    pub(super) fn answer(
        &mut self,
        now: Duration,
        object: &[u8],
        functions: &dyn Functions,
        response: &mut Vec<u8>,
        journal: &mut Journal,
    ) -> bool {
        response.clear();
        let object = match Object::parse(object) {
            Ok(object) => object,
            Err(error) => {
                log::warn!("DOE: object discarded: {error}");
                return false;
            }
        };
        log::debug!("DOE: object {:04x}:{:?}, {} bytes", object.vendor, object.kind, object.payload.len());
        let mut vendor = Vendor { dsm: &mut self.dsm, cxl: self.cxl.as_mut(), functions };
        let answer = match (object.vendor, object.kind) {
            (VENDOR_PCI_SIG, ObjectType::DISCOVERY) => match discovery(object.payload) {
                Some(body) => {
                    self.payload.clear();
                    self.payload.extend_from_slice(&body);
                    Answer::Respond
                }
                None => Answer::Silent,
            },
            (VENDOR_PCI_SIG, ObjectType::SPDM) => {
                self.responder.handle_clear(now, object.payload, &mut vendor, &mut self.payload)
            }
            (VENDOR_PCI_SIG, ObjectType::SECURED_SPDM) => {
                self.responder.handle_secured(now, object.payload, &mut vendor, &mut self.payload)
            }
            (vendor, kind) => {
                log::warn!("DOE: object of unknown type {vendor:04x}:{kind:?} discarded");
                return false;
            }
        };
        self.follow_events(journal);
        match answer {
            Answer::Respond => {
                let object = Object { payload: &self.payload, ..object };
                if let Err(error) = object.encode(response) {
                    log::error!("DOE: answer dropped: {error}");
                    return false;
                }
                true
            }
            Answer::Silent => false,
        }
    }

    /// Conventional reset: sessions, negotiated state, keys and TDIs are gone.
    pub(super) fn reset(&mut self, journal: &mut Journal) {
        self.responder.reset();
        // The DSM has its own way to forget sessions; slots may have been written that waited for the reset.
        while let Some(event) = self.responder.poll_event() {
            self.tell(&event, journal);
        }
        self.dsm.conventional_reset();
        if let Some(cxl) = &mut self.cxl {
            cxl.reset();
        }
    }

    /// A measurement has another value; sessions whose requester wants that end.
    ///
    /// # Errors
    /// No such measurement, or one that cannot hold the value.
    pub(super) fn change_measurement(
        &mut self,
        index: u8,
        value: &MeasurementValue,
        journal: &mut Journal,
    ) -> Result<(), ConfigError> {
        self.responder.change_measurement(index, value)?;
        self.follow_events(journal);
        Ok(())
    }

    /// Firmware was updated, and no session outlives it.
    pub(super) fn firmware_updated(&mut self, journal: &mut Journal) {
        self.responder.firmware_updated();
        self.follow_events(journal);
    }

    /// Ends sessions whose heartbeat stopped.
    pub(super) fn tick(&mut self, now: Duration, journal: &mut Journal) {
        self.responder.tick(now);
        self.follow_events(journal);
    }

    /// Keeps what an event changed, and tells of it.
    fn tell(&self, event: &Event, journal: &mut Journal) {
        let told = self.keeper.follow(event, self.responder.slots()).or_else(|| of_session(event));
        if let Some(what) = told {
            journal.tell(what);
        }
    }

    fn follow_events(&mut self, journal: &mut Journal) {
        while let Some(event) = self.responder.poll_event() {
            self.tell(&event, journal);
            if let Event::RequesterDescribed { session } = event
                && let Some(endpoint) = self.responder.requester_endpoint(session)
            {
                log_description(&endpoint.classes, endpoint.signed_by.is_some());
            }
            if let Event::SessionEnded { id, .. } = event {
                self.dsm.session_ended(id);
                if let Some(cxl) = &mut self.cxl {
                    cxl.session_ended(id);
                    log_note(cxl);
                }
            }
        }
    }
}

fn log_description(classes: &[DeviceClass], signed: bool) {
    let told = if signed { "with its signature" } else { "without signature" };
    for DeviceClass { registry, vendor_id, subordinates } in classes {
        log::info!(
            "the SPDM requester says, {told}, that it is of vendor {vendor_id:02x?} in registry {registry}: {subordinates:02x?}"
        );
    }
}

/// What is told of an event that is not the keeper's.
fn of_session(event: &Event) -> Option<Happening> {
    match event {
        Event::SessionEstablished { id } => Some(Happening::SessionEstablished { session: Hex(*id) }),
        Event::RequesterAuthenticated { session, slot } => {
            Some(Happening::RequesterAuthenticated { session: session.map(Hex), slot: *slot })
        }
        Event::SessionEnded { id, reason } => Some(words::session_ended(*id, *reason)),
        Event::RequesterDescribed { .. } | Event::SlotChanged { .. } | Event::KeyPairChanged { .. } => None,
    }
}

fn log_note(cxl: &mut cxl::Target) {
    if let Some(note) = cxl.take_note() {
        log::info!("CXL TSP: {note}");
    }
}

/// DOE discovery (PCIe 6.1 §6.30.1.1).
fn discovery(payload: &[u8]) -> Option<[u8; 4]> {
    const PROTOCOLS: [(u16, ObjectType); 3] = [
        (VENDOR_PCI_SIG, ObjectType::DISCOVERY),
        (VENDOR_PCI_SIG, ObjectType::SPDM),
        (VENDOR_PCI_SIG, ObjectType::SECURED_SPDM),
    ];
    match DiscoveryRequest::parse(payload) {
        Ok(request) => Some(DiscoveryResponse::answer(&PROTOCOLS, request.index).encode()),
        Err(error) => {
            log::warn!("DOE: discovery discarded: {error}");
            None
        }
    }
}

/// Vendor-defined requests of the PCI-SIG, on their way to the DSM, and of the CXL Consortium.
struct Vendor<'a> {
    dsm: &'a mut Dsm,
    cxl: Option<&'a mut cxl::Target>,
    functions: &'a dyn Functions,
}

impl VendorHandler for Vendor<'_> {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        let unsupported =
            VendorAnswer::Error { code: ERROR_UNSUPPORTED_REQUEST, data: VENDOR_DEFINED_REQUEST };
        let Some((protocol, message)) = request.payload.split_first() else { return unsupported };
        if request.standard_id != STANDARD_PCI_SIG {
            return unsupported;
        }
        response.clear();
        response.push(*protocol);
        let answer = if request.vendor_id == VENDOR_ID {
            self.pci_sig(request.session, *protocol, message, response)
        } else if request.vendor_id == CXL_VENDOR_ID {
            self.cxl(request.session, *protocol, message, response)
        } else {
            None
        };
        match answer {
            Some(tdisp::Answer::Respond) => VendorAnswer::Respond,
            Some(tdisp::Answer::Silent) => VendorAnswer::Silent,
            None => unsupported,
        }
    }
}

impl Vendor<'_> {
    /// A protocol of the PCI-SIG; `None` if it is not spoken here.
    fn pci_sig(
        &mut self,
        session: Option<u32>,
        protocol: u8,
        message: &[u8],
        response: &mut Vec<u8>,
    ) -> Option<tdisp::Answer> {
        match protocol {
            PROTOCOL_IDE_KM => Some(self.dsm.ide_km(session, message, response)),
            PROTOCOL_TDISP => {
                let mut random = |bytes: &mut [u8]| {
                    use ring::rand::SecureRandom;
                    ring::rand::SystemRandom::new().fill(bytes).is_ok()
                };
                Some(self.dsm.tdisp(session, message, self.functions, &mut random, response))
            }
            _ => None,
        }
    }

    /// A protocol of CXL; `None` if it is not spoken here.
    fn cxl(
        &mut self,
        session: Option<u32>,
        protocol: u8,
        message: &[u8],
        response: &mut Vec<u8>,
    ) -> Option<tdisp::Answer> {
        let cxl = self.cxl.as_deref_mut()?;
        match protocol {
            CXL_PROTOCOL_IDE_KM => Some(cxl.ide_km(session, message, response)),
            CXL_PROTOCOL_TSP => {
                let answer = cxl.tsp(session, message, response);
                log_note(cxl);
                Some(answer)
            }
            _ => None,
        }
    }
}
