//! What a TVM may change of its TDI in RUN: P2P streams (PCIe 6.1 §11.3.18, §11.3.20) and the attributes of MMIO ranges
//! (§11.3.22); and which stream its DMA takes in consequence. Nothing refused here changes anything.

use crate::SessionId;
use crate::ide::{KeyState, StreamIndex};
use crate::wire::{MmioRange, RangeAttributes, TdiState};

use super::config::ReservedFields;
use super::effect::Effect;
use super::refusal::Refusal;
use super::tdi::{Binding, Event, Tdi};
use super::view::FunctionView;
use super::{Dsm, P2pAccess};

impl Dsm {
    /// BIND_P2P_STREAM_REQUEST.
    pub(super) fn bind_p2p(
        &mut self,
        session: SessionId,
        view: &FunctionView,
        stream_id: u8,
    ) -> Result<(), Refusal> {
        let function = view.number;
        self.happen(function, Event::Adjust)?;
        let binding = self.bound(function)?;
        if !binding.lock.flags.bind_p2p() {
            return Err(Refusal::P2pNotLocked);
        }
        if !view.interface_info.ats() {
            return Err(Refusal::AtsDisabled);
        }
        let stream = self.check_p2p_stream(session, stream_id)?;
        if binding.stream == stream || binding.p2p.contains(&stream) {
            return Err(Refusal::StreamBound(stream));
        }
        if let Some(binding) = self.tdis.get_mut(function).and_then(Tdi::binding_mut) {
            binding.p2p.push(stream);
        }
        self.tdis.effects.push_back(Effect::P2pStream { function, stream, bound: true });
        Ok(())
    }

    /// UNBIND_P2P_STREAM_REQUEST. What went through the stream is drained before the answer leaves.
    pub(super) fn unbind_p2p(&mut self, function: usize, stream_id: u8) -> Result<(), Refusal> {
        self.happen(function, Event::Adjust)?;
        let ide = &self.ide;
        let binding = self.tdis.get_mut(function).and_then(Tdi::binding_mut).ok_or(Refusal::Interface)?;
        let named = |stream: &StreamIndex| {
            ide.view(*stream).is_some_and(|view| view.control.stream_id() == stream_id)
        };
        let place = binding.p2p.iter().position(named).ok_or(Refusal::P2pNotBound(stream_id))?;
        let stream = binding.p2p.remove(place);
        self.tdis.effects.push_back(Effect::DrainDma { function });
        self.tdis.effects.push_back(Effect::P2pStream { function, stream, bound: false });
        Ok(())
    }

    /// SET_MMIO_ATTRIBUTE_REQUEST: pages of one updatable range become private or shared.
    pub(super) fn set_mmio_attribute(&mut self, function: usize, wanted: &MmioRange) -> Result<(), Refusal> {
        self.happen(function, Event::Adjust)?;
        let binding = self.bound(function)?;
        let within = |reported: &MmioRange| {
            let end = |range: &MmioRange| range.first_page.checked_add(range.pages.into());
            reported.range_id == wanted.range_id
                && reported.first_page <= wanted.first_page
                && end(wanted).is_some_and(|wanted| end(reported).is_some_and(|reported| wanted <= reported))
        };
        let range = binding.ranges.iter().find(|range| wanted.pages > 0 && within(&range.reported)).ok_or(
            Refusal::NoRange {
                first_page: wanted.first_page,
                pages: wanted.pages,
                range_id: wanted.range_id,
            },
        )?;
        if !range.reported.attributes.updatable() {
            return Err(Refusal::RangeFixed(wanted.range_id));
        }
        self.check_attributes(wanted.attributes)?;
        // Cannot lose anything: the pages lie inside the range.
        let into = u32::try_from(wanted.first_page - range.reported.first_page).unwrap_or(u32::MAX);
        let effect = Effect::MmioAttribute {
            function,
            bar: range.bar,
            first_page: range.first_page.saturating_add(into),
            pages: wanted.pages,
            non_tee: wanted.attributes.non_tee(),
        };
        self.tdis.effects.push_back(effect);
        Ok(())
    }

    /// Bits 1:0 "must be zero"; all others but IS_NON_TEE_MEM are reserved (PCIe 6.1 Table 11-24).
    fn check_attributes(&self, attributes: RangeAttributes) -> Result<(), Refusal> {
        let forbidden = RangeAttributes::new().with_msix_table(true).with_msix_pba(true);
        let looked_at = match self.config.reserved_fields {
            ReservedFields::Ignore => forbidden,
            ReservedFields::Reject => RangeAttributes::from_bits(u16::MAX).with_non_tee(false),
        };
        if attributes.into_bits() & looked_at.into_bits() != 0 {
            return Err(Refusal::Attributes(attributes.into_bits()));
        }
        Ok(())
    }

    /// What a stream must be for a TDI that `session` locked to use it with a peer.
    fn check_p2p_stream(&self, session: SessionId, stream_id: u8) -> Result<StreamIndex, Refusal> {
        let stream = self.ide.find(stream_id).ok_or(Refusal::NoStream(stream_id))?;
        let view = self.ide.view(stream).ok_or(Refusal::NoStream(stream_id))?;
        if matches!(stream, StreamIndex::Link(_)) {
            return Err(Refusal::NotSelective(stream));
        }
        let in_use = |stream: &crate::ide::StreamView| stream.control.into_bits() != 0;
        let same = self.ide.streams().filter(in_use).filter(|view| view.control.stream_id() == stream_id);
        if same.count() > 1 {
            return Err(Refusal::SeveralStreams(stream_id));
        }
        if view.control.default_stream() {
            return Err(Refusal::DefaultStream(stream));
        }
        if !matches!(view.keys, KeyState::Complete(_)) {
            return Err(Refusal::Keys(stream));
        }
        if !self.ide.keys_from(stream, session) {
            return Err(Refusal::KeysOfAnotherSession(stream));
        }
        if !view.secure {
            return Err(Refusal::StreamInsecure(stream));
        }
        match self.ide.overlap(stream) {
            Some(other) => Err(Refusal::AssociationsOverlap(stream, other)),
            None => Ok(stream),
        }
    }

    fn bound(&self, function: usize) -> Result<&Binding, Refusal> {
        self.tdis.get(function).and_then(Tdi::binding).ok_or(Refusal::Interface)
    }

    /// The stream that carries a memory request of a TDI in RUN (PCIe 6.1 §11.3.18): a bound P2P stream whose address
    /// association has the address, if that is a translated one and need not go upstream, and else the default stream.
    /// `None` in every other state: such a TDI does no DMA on a stream.
    pub fn stream_of(&self, function: usize, access: P2pAccess) -> Option<StreamIndex> {
        let tdi = self.tdis.get(function).filter(|tdi| tdi.state() == TdiState::RUN)?;
        let binding = tdi.binding()?;
        let direct = access.translated && !binding.lock.flags.all_request_redirect();
        let peer = binding
            .p2p
            .iter()
            .find(|stream| direct && self.ide.associated(**stream, access.address, access.length));
        Some(peer.copied().unwrap_or(binding.stream))
    }
}
