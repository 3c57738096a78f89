//! GET_SUPPORTED_EVENT_TYPES, SUBSCRIBE_EVENT_TYPES, SEND_EVENT, their responses, and the lists in them
//! (DSP0274 1.3 "Event mechanism"). They came with 1.3 and travel in sessions only.

use super::{Code, Header, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// `EventGroupVer` of the group that DSP0274 itself defines.
pub const DMTF_EVENT_GROUP_VERSION: u16 = 1;

/// Attribute of a subscription: every event type of the group.
const ALL_TYPES: u32 = 1;

/// Whose event types they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventGroupId {
    /// Registry that assigned the vendor id (DSP0274 1.3 "Registry or standards body ID"); 0 for DMTF.
    pub registry: u8,
    /// Vendor id, as long as its registry wants it; empty for DMTF.
    pub vendor_id: Vec<u8>,
}

impl EventGroupId {
    /// The event types of DSP0274.
    pub const DMTF: Self = Self { registry: 0, vendor_id: Vec::new() };

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let registry = reader.u8("event group registry")?;
        let length = reader.u8("event group vendor id")?;
        let vendor_id = reader.bytes(length.into(), "event group vendor id")?.to_vec();
        Ok(Self { registry, vendor_id })
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u8::try_from(self.vendor_id.len()).map_err(|_| EncodeError("event group vendor id"))?;
        out.put(&[self.registry, length]);
        out.put(&self.vendor_id);
        Ok(())
    }
}

/// Types of one group: those a notifier has, or those a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventGroup {
    /// The group.
    pub id: EventGroupId,
    /// `EventGroupVer`.
    pub version: u16,
    /// In a subscription, every type of the group is wanted, whatever is listed.
    pub all: bool,
    /// The types.
    pub types: Vec<u16>,
}

impl EventGroup {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = EventGroupId::parse(reader)?;
        let count = reader.u16("number of event types")?;
        let version = reader.u16("event group version")?;
        let attributes = reader.u32("event group attributes")?;
        let mut types = Vec::new();
        for _ in 0..count {
            types.push(reader.u16("event type")?);
            reader.u16("reserved")?;
        }
        Ok(Self { id, version, all: attributes & ALL_TYPES != 0, types })
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.id.encode(out)?;
        out.put_u16(u16::try_from(self.types.len()).map_err(|_| EncodeError("event types"))?);
        out.put_u16(self.version);
        out.put_u32(if self.all { ALL_TYPES } else { 0 });
        for kind in &self.types {
            out.put_u16(*kind);
            out.put_u16(0);
        }
        Ok(())
    }

    /// `count` groups that fill a list preceded by its length.
    fn parse_list(reader: &mut Reader<'_>, count: u8) -> Result<Vec<Self>, DecodeError> {
        const LIST: &str = "event group list";
        let length = usize::try_from(reader.u32(LIST)?).unwrap_or(usize::MAX);
        let mut list = Reader::new(reader.bytes(length, LIST)?);
        let groups = (0..count).map(|_| Self::parse(&mut list)).collect::<Result<_, _>>()?;
        list.finish(0)?;
        Ok(groups)
    }

    fn encode_list(groups: &[Self], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut list = Vec::new();
        groups.iter().try_for_each(|group| group.encode(&mut list))?;
        out.put_u32(u32::try_from(list.len()).map_err(|_| EncodeError("event groups"))?);
        out.put(&list);
        Ok(())
    }

    fn count(groups: &[Self]) -> Result<u8, EncodeError> {
        u8::try_from(groups.len()).map_err(|_| EncodeError("event groups"))
    }
}

/// GET_SUPPORTED_EVENT_TYPES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetSupportedEventTypes {
    /// Version of the message.
    pub version: Version,
}

impl GetSupportedEventTypes {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_SUPPORTED_EVENT_TYPES)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::GET_SUPPORTED_EVENT_TYPES, 0, 0).encode(out);
    }
}

/// SUPPORTED_EVENT_TYPES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedEventTypes {
    /// Version of the message.
    pub version: Version,
    /// What the notifier has; one group at least.
    pub groups: Vec<EventGroup>,
}

impl SupportedEventTypes {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SUPPORTED_EVENT_TYPES)?;
        if header.param1 == 0 {
            return Err(DecodeError::illegal("number of event groups"));
        }
        Ok(Self { version: header.version, groups: EventGroup::parse_list(reader, header.param1)? })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = EventGroup::count(&self.groups)?;
        Header::new(self.version, Code::SUPPORTED_EVENT_TYPES, count, 0).encode(out);
        EventGroup::encode_list(&self.groups, out)
    }
}

/// SUBSCRIBE_EVENT_TYPES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeEventTypes {
    /// Version of the message.
    pub version: Version,
    /// What is wanted from now on instead of what was; empty for nothing.
    pub groups: Vec<EventGroup>,
}

impl SubscribeEventTypes {
    /// Parses the message. Without groups it ends with its header.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SUBSCRIBE_EVENT_TYPES)?;
        let groups = match header.param1 {
            0 => Vec::new(),
            count => EventGroup::parse_list(reader, count)?,
        };
        Ok(Self { version: header.version, groups })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = EventGroup::count(&self.groups)?;
        Header::new(self.version, Code::SUBSCRIBE_EVENT_TYPES, count, 0).encode(out);
        if self.groups.is_empty() { Ok(()) } else { EventGroup::encode_list(&self.groups, out) }
    }
}

/// SUBSCRIBE_EVENT_TYPES_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeEventTypesAck {
    /// Version of the message.
    pub version: Version,
}

impl SubscribeEventTypesAck {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SUBSCRIBE_EVENT_TYPES_ACK)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::SUBSCRIBE_EVENT_TYPES_ACK, 0, 0).encode(out);
    }
}

/// Indexes of measurements, a bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct MeasurementSet(pub [u8; 32]);

impl MeasurementSet {
    /// Adds an index.
    pub fn insert(&mut self, index: u8) {
        if let Some(byte) = self.0.get_mut(usize::from(index / 8)) {
            *byte |= 1 << (index % 8);
        }
    }

    /// Whether it holds an index.
    pub fn contains(&self, index: u8) -> bool {
        self.0.get(usize::from(index / 8)).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// The indexes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|&index| self.contains(index))
    }
}

impl FromIterator<u8> for MeasurementSet {
    fn from_iter<T: IntoIterator<Item = u8>>(indexes: T) -> Self {
        let mut set = Self::default();
        indexes.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl core::fmt::Debug for MeasurementSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What happened (DSP0274 1.3 "DMTF event types"), or what somebody else's event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventDetail {
    /// Events were lost: those after the one, up to and including the other.
    EventLost {
        /// Instance id of the last event that was acknowledged.
        last_acknowledged: u32,
        /// Instance id of the last event that was lost.
        last_lost: u32,
    },
    /// Measurements have changed.
    MeasurementChanged(MeasurementSet),
    /// Measurements will change when an update takes effect.
    MeasurementPreUpdate(MeasurementSet),
    /// What these slots hold has changed, bit per slot.
    CertificateChanged(u8),
    /// An event of another group.
    Other {
        /// The group.
        group: EventGroupId,
        /// Type within the group.
        kind: u16,
        /// Its content.
        detail: Vec<u8>,
    },
}

impl EventDetail {
    /// `EventTypeId` of [`Self::EventLost`].
    pub const EVENT_LOST: u16 = 1;
    /// `EventTypeId` of [`Self::MeasurementChanged`].
    pub const MEASUREMENT_CHANGED: u16 = 2;
    /// `EventTypeId` of [`Self::MeasurementPreUpdate`].
    pub const MEASUREMENT_PRE_UPDATE: u16 = 3;
    /// `EventTypeId` of [`Self::CertificateChanged`].
    pub const CERTIFICATE_CHANGED: u16 = 4;
    /// Every type of the DMTF group.
    pub const DMTF_TYPES: [u16; 4] = [
        Self::EVENT_LOST,
        Self::MEASUREMENT_CHANGED,
        Self::MEASUREMENT_PRE_UPDATE,
        Self::CERTIFICATE_CHANGED,
    ];

    /// `EventTypeId` within its group.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::EventLost { .. } => Self::EVENT_LOST,
            Self::MeasurementChanged(_) => Self::MEASUREMENT_CHANGED,
            Self::MeasurementPreUpdate(_) => Self::MEASUREMENT_PRE_UPDATE,
            Self::CertificateChanged(_) => Self::CERTIFICATE_CHANGED,
            Self::Other { kind, .. } => *kind,
        }
    }

    fn parse(group: EventGroupId, kind: u16, detail: &[u8]) -> Result<Self, DecodeError> {
        if group.registry != EventGroupId::DMTF.registry {
            return Ok(Self::Other { group, kind, detail: detail.to_vec() });
        }
        if group != EventGroupId::DMTF {
            return Err(DecodeError::illegal("event group vendor id"));
        }
        let mut reader = Reader::new(detail);
        let parsed = match kind {
            Self::EVENT_LOST => Self::EventLost {
                last_acknowledged: reader.u32("last acknowledged event")?,
                last_lost: reader.u32("last lost event")?,
            },
            Self::MEASUREMENT_CHANGED => {
                Self::MeasurementChanged(MeasurementSet(reader.array("measurements")?))
            }
            Self::MEASUREMENT_PRE_UPDATE => {
                Self::MeasurementPreUpdate(MeasurementSet(reader.array("measurements")?))
            }
            Self::CERTIFICATE_CHANGED => Self::CertificateChanged(reader.u8("slots")?),
            _ => return Err(DecodeError::illegal("event type")),
        };
        reader.finish(0).map_err(|_| DecodeError::illegal("event detail length"))?;
        Ok(parsed)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::EventLost { last_acknowledged, last_lost } => {
                out.put_u32(*last_acknowledged);
                out.put_u32(*last_lost);
            }
            Self::MeasurementChanged(set) | Self::MeasurementPreUpdate(set) => out.put(&set.0),
            Self::CertificateChanged(slots) => out.put(&[*slots]),
            Self::Other { detail, .. } => out.put(detail),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventData {
    /// `EventInstanceID`: the session's events are numbered.
    pub instance: u32,
    /// What happened.
    pub detail: EventDetail,
}

impl EventData {
    /// Parses one event of a list.
    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let instance = reader.u32("event instance id")?;
        reader.u32("reserved")?;
        let group = EventGroupId::parse(reader)?;
        let kind = reader.u16("event type")?;
        let detail = reader.sized16("event detail")?;
        Ok(Self { instance, detail: EventDetail::parse(group, kind, detail)? })
    }

    /// Appends one event of a list.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut detail = Vec::new();
        self.detail.encode(&mut detail);
        out.put_u32(self.instance);
        out.put_u32(0);
        if let EventDetail::Other { group, .. } = &self.detail {
            group.encode(out)?;
        } else {
            EventGroupId::DMTF.encode(out)?;
        }
        out.put_u16(self.detail.kind());
        out.put_u16(u16::try_from(detail.len()).map_err(|_| EncodeError("event detail"))?);
        out.put(&detail);
        Ok(())
    }
}

/// SEND_EVENT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendEvent {
    /// Version of the message.
    pub version: Version,
    /// The events; one at least. Their instance ids follow each other without gaps, in any order.
    pub events: Vec<EventData>,
}

impl SendEvent {
    /// Bytes before the first event.
    pub const OVERHEAD: usize = 8;
    /// Most bytes that one event of the DMTF group takes.
    pub const LONGEST_DMTF_EVENT: usize = 14 + 32;

    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SEND_EVENT)?;
        let count = reader.u32("number of events")?;
        if count == 0 {
            return Err(DecodeError::illegal("number of events"));
        }
        // The message's length bounds the list, whatever the count says.
        let events = (0..count).map(|_| EventData::parse(reader)).collect::<Result<Vec<_>, _>>()?;
        if !consecutive(&events) {
            return Err(DecodeError::illegal("event instance id"));
        }
        Ok(Self { version: header.version, events })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = u32::try_from(self.events.len()).map_err(|_| EncodeError("events"))?;
        Header::new(self.version, Code::SEND_EVENT, 0, 0).encode(out);
        out.put_u32(count);
        self.events.iter().try_for_each(|event| event.encode(out))
    }
}

/// Whether every instance id from the least to the greatest is there once.
fn consecutive(events: &[EventData]) -> bool {
    let mut ids: Vec<_> = events.iter().map(|event| event.instance).collect();
    ids.sort_unstable();
    ids.iter().zip(ids.iter().skip(1)).all(|(one, next)| one.checked_add(1) == Some(*next))
}

/// EVENT_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventAck {
    /// Version of the message.
    pub version: Version,
}

impl EventAck {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::EVENT_ACK)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::EVENT_ACK, 0, 0).encode(out);
    }
}
