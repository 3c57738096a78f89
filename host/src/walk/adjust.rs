//! What may change while an interface runs: keys, P2P streams, attributes, and what the vendor has to say (PCIe 6.1 §6.33.3,
//! §11.3.18 to §11.3.26).

use tdisp::wire::ide_km::KeySet;
use tdisp::wire::{MmioRange, RangeAttributes, RegistryId, Request, Response, Vdm};

use super::{Seen, Walk};
use crate::cli::{AttributeArgs, P2pCommand, Side, VdmArgs};
use crate::error::{Error, Result};
use crate::output::hex;
use crate::output::record::Layer;
use crate::pci::ide::selective_streams;

const PAGE: u64 = 4096;

impl Walk {
    /// Fresh keys on the other key set, then the old ones stopped; the stream stays secure throughout.
    pub(super) fn rekey(&mut self) -> Result<()> {
        let (stream_id, set) = (self.bound()?.stream_id, self.bound()?.key_set());
        let other = match set {
            KeySet::Zero => KeySet::One,
            KeySet::One => KeySet::Zero,
        };
        self.program_keys(stream_id, other)?;
        self.stop_keys(stream_id, set)?;
        if let Some(bound) = &mut self.bound {
            bound.second_set = other == KeySet::One;
        }
        self.state(None).map(|_| ())
    }

    pub(super) fn p2p(&mut self, command: &P2pCommand) -> Result<()> {
        match command {
            P2pCommand::Key { stream_id, requester } => {
                let requester = match requester.as_deref() {
                    Some(&[first, last]) => Some((first, last)),
                    Some(_) | None => None,
                };
                self.key_peer(*stream_id, requester)
            }
            P2pCommand::Bind { stream_id } => {
                self.step(Layer::Tdisp, "BIND_P2P_STREAM", "accepted", |walk| {
                    walk.ask(Request::BindP2p(*stream_id), |response| {
                        matches!(response, Response::BindP2p).then_some(())
                    })?;
                    Ok(Seen::good((), format!("stream {stream_id} is bound")))
                })
            }
            P2pCommand::Unbind { stream_id } => {
                self.step(Layer::Tdisp, "UNBIND_P2P_STREAM", "accepted", |walk| {
                    walk.ask(Request::UnbindP2p(*stream_id), |response| {
                        matches!(response, Response::UnbindP2p).then_some(())
                    })?;
                    Ok(Seen::good((), format!("stream {stream_id} is not bound any more")))
                })
            }
        }
    }

    /// A selective stream that is neither in use nor the interface's own gets an id and keys, and is enabled.
    fn key_peer(&mut self, stream_id: u8, requester: Option<(u16, u16)>) -> Result<()> {
        let own = self.bound()?.stream_index;
        let stream =
            self.step(Layer::Ide, "stream for the peer", "one that is free takes the id", |walk| {
                let found = walk.found()?.inventory.as_ref().and_then(|inventory| inventory.ide);
                let offset =
                    found.ok_or_else(|| Error::NoDevice("the function has no IDE capability".into()))?;
                let config = walk.configuration()?;
                for stream in selective_streams(config, offset)? {
                    if Some(stream.index) != own && !stream.enabled(config)? {
                        stream.program_peer(config, stream_id, requester)?;
                        let text = format!("selective stream {}, stream id {stream_id}", stream.index);
                        return Ok(Seen::good(stream, text));
                    }
                }
                Err(Error::NoDevice("every selective stream is in use".into()))
            })?;
        self.program_keys(stream_id, KeySet::Zero)?;
        self.enable_stream(stream)
    }

    pub(super) fn attribute(&mut self, args: &AttributeArgs) -> Result<()> {
        let offset = self.bound()?.mmio_offset;
        let bar = self.transport.memory_bars().iter().find(|bar| bar.index == args.bar);
        let bar = bar.ok_or_else(|| Error::NoDevice(format!("there is no memory in BAR {}", args.bar)))?;
        if !args.offset.is_multiple_of(PAGE) {
            return Err(Error::Usage(format!("offset {:#x} is not a multiple of 4096", args.offset)));
        }
        let address = bar.address.wrapping_add(args.offset).wrapping_add(offset);
        let range = MmioRange {
            first_page: address / PAGE,
            pages: args.pages,
            attributes: RangeAttributes::new().with_non_tee(args.side == Side::Shared),
            range_id: args.bar.into(),
        };
        self.step(Layer::Tdisp, "SET_MMIO_ATTRIBUTE", "accepted", |walk| {
            walk.ask(Request::SetMmioAttribute(range), |response| {
                matches!(response, Response::SetMmioAttribute).then_some(())
            })?;
            let side = if args.side == Side::Shared { "shared" } else { "private" };
            Ok(Seen::good(
                (),
                format!("{} pages at BAR {} + {:#x} are {side}", args.pages, args.bar, args.offset),
            ))
        })
    }

    pub(super) fn vdm(&mut self, args: &VdmArgs) -> Result<()> {
        self.step(Layer::Tdisp, "VDM", "an answer of the same vendor", |walk| {
            let vendor = args.vendor.to_le_bytes();
            let message = Vdm::new(RegistryId::PCI_SIG, &vendor, &args.data.0)
                .map_err(|e| Error::Usage(e.to_string()))?;
            let (id, data) = walk.ask(Request::Vdm(message), |response| {
                let Response::Vdm(vdm) = response else { return None };
                (vdm.registry == RegistryId::PCI_SIG).then(|| (vdm.vendor_id().to_vec(), vdm.data.to_vec()))
            })?;
            Ok(Seen::checked((), hex(&data), id == vendor))
        })
    }
}
