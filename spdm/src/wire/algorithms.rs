//! NEGOTIATE_ALGORITHMS and ALGORITHMS (DSP0274 1.4 "NEGOTIATE_ALGORITHMS request and ALGORITHMS response messages"),
//! and the supported algorithms block of CAPABILITIES, which is the former without its beginning.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Put, Reader};

/// `MeasurementSpecification`: DMTF measurements.
pub const MEASUREMENT_SPECIFICATION_DMTF: u8 = 1;
/// `OtherParamsSupport`: opaque data format 0, the free form.
pub const OPAQUE_FORMAT_NONE: u8 = 1;
/// `OtherParamsSupport`: opaque data format 1, the general form.
pub const OPAQUE_FORMAT_GENERAL: u8 = 2;
/// `OtherParamsSupport` from 1.3 on: several keys of whoever receives this are in use (`ResponderMultiKeyConn` in
/// the request, `RequesterMultiKeyConn` in the response).
pub const MULTI_KEY_CONNECTION: u8 = 1 << 4;
/// `KeySchedule`: the SPDM key schedule.
pub const KEY_SCHEDULE_SPDM: u16 = 1;
/// `MeasurementHashAlgo` bit 0: raw bit streams only. Bit n+1 of it is bit n of `BaseHashSel`.
pub const MEASUREMENT_HASH_RAW_ONLY: u32 = 1;

const TABLE_DHE: u8 = 2;
const TABLE_AEAD: u8 = 3;
const TABLE_REQUESTER_ASYM: u8 = 4;
const TABLE_KEY_SCHEDULE: u8 = 5;
const TABLE_REQUESTER_PQC_ASYM: u8 = 6;
const TABLE_KEM: u8 = 7;
/// Each table carries two bytes of fixed algorithms.
const TABLE_FIXED_SIZE: u8 = 2 << 4;
const EXTENDED_SIZE: usize = 4;
/// `Length` of NEGOTIATE_ALGORITHMS without tables.
const REQUEST_SIZE: u16 = 32;
/// `Length` of the supported algorithms block without tables.
const BLOCK_SIZE: u16 = 30;

/// What differs between versions.
struct Form {
    /// No NEGOTIATE_ALGORITHMS may be longer, in bytes (`Length`).
    max_length: usize,
    /// No more extended algorithms in total than this (`ExtAsymCount` and the tables).
    max_extended: usize,
    /// Highest type of an algorithm structure table. 0: there are none, and param1 counts nothing.
    last_table: u8,
    /// Bits of `OtherParamsSupport` and `OtherParamsSelection` that are not reserved.
    other_params: u8,
    /// Bits of `PqcAsymAlgo` and `PqcAsymSel` that are not reserved.
    pqc_asym: u32,
    /// Bits of `MELspecification` that are not reserved.
    mel_specification: u8,
}

impl Form {
    const V1_1: Self = Self {
        max_length: 128,
        max_extended: 20,
        last_table: TABLE_KEY_SCHEDULE,
        other_params: 0,
        pqc_asym: 0,
        mel_specification: 0,
    };

    const fn of(version: Version) -> Self {
        match version.0 {
            ..=0x10 => Self { max_length: 64, max_extended: 8, last_table: 0, ..Self::V1_1 },
            0x11 => Self::V1_1,
            // What selects keys came with 1.3, as did the log.
            0x12 => Self { other_params: 0x0F, ..Self::V1_1 },
            0x13 => Self { other_params: 0xFF, mel_specification: 0xFF, ..Self::V1_1 },
            0x14.. => Self {
                last_table: TABLE_KEM,
                other_params: 0xFF,
                pqc_asym: u32::MAX,
                mel_specification: 0xFF,
                ..Self::V1_1
            },
        }
    }

    /// Number of tables behind a message whose param1 is `param1`.
    const fn table_count(&self, param1: u8) -> u8 {
        if self.last_table == 0 { 0 } else { param1 }
    }
}

/// The algorithm structure tables, as bit masks; `None` where a message carries no such table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlgorithmTables {
    /// Key exchange groups.
    pub dhe: Option<u16>,
    /// AEAD cipher suites.
    pub aead: Option<u16>,
    /// Signature algorithms of the requester, for mutual authentication.
    pub requester_asym: Option<u16>,
    /// Key schedules.
    pub key_schedule: Option<u16>,
    /// Post-quantum signature algorithms of the requester, from 1.4 on.
    pub requester_pqc_asym: Option<u16>,
    /// Key encapsulation mechanisms, from 1.4 on.
    pub kem: Option<u16>,
}

impl AlgorithmTables {
    const fn entries(&self) -> [(u8, Option<u16>); 6] {
        [
            (TABLE_DHE, self.dhe),
            (TABLE_AEAD, self.aead),
            (TABLE_REQUESTER_ASYM, self.requester_asym),
            (TABLE_KEY_SCHEDULE, self.key_schedule),
            (TABLE_REQUESTER_PQC_ASYM, self.requester_pqc_asym),
            (TABLE_KEM, self.kem),
        ]
    }

    /// Whether there is a table that names nothing.
    pub fn any_empty(&self) -> bool {
        self.entries().iter().any(|(_, mask)| *mask == Some(0))
    }

    /// The tables that a form has room for.
    fn sent(&self, form: &Form) -> impl Iterator<Item = (u8, u16)> {
        let last = form.last_table;
        self.entries()
            .into_iter()
            .filter_map(|(kind, mask)| Some((kind, mask?)))
            .filter(move |(kind, _)| *kind <= last)
    }

    fn count(&self, form: &Form) -> u8 {
        self.sent(form).map(|_| 1).sum()
    }

    fn encode(&self, form: &Form, out: &mut Vec<u8>) {
        for (kind, mask) in self.sent(form) {
            out.put(&[kind, TABLE_FIXED_SIZE]);
            out.put_u16(mask);
        }
    }

    /// `count` tables in ascending order of type; adds the extended algorithms they carry to `extended`.
    fn parse(
        reader: &mut Reader<'_>,
        form: &Form,
        count: u8,
        extended: &mut usize,
    ) -> Result<Self, DecodeError> {
        let mut tables = Self::default();
        let mut previous = 0;
        for _ in 0..form.table_count(count) {
            let kind = reader.u8("algorithm type")?;
            let counts = reader.u8("algorithm count")?;
            if kind <= previous || kind > form.last_table {
                return Err(DecodeError::illegal("algorithm type"));
            }
            previous = kind;
            if counts & 0xF0 != TABLE_FIXED_SIZE {
                return Err(DecodeError::illegal("algorithm count"));
            }
            let mask = reader.u16("algorithm mask")?;
            let slot = match kind {
                TABLE_DHE => &mut tables.dhe,
                TABLE_AEAD => &mut tables.aead,
                TABLE_REQUESTER_ASYM => &mut tables.requester_asym,
                TABLE_KEY_SCHEDULE => &mut tables.key_schedule,
                TABLE_REQUESTER_PQC_ASYM => &mut tables.requester_pqc_asym,
                TABLE_KEM => &mut tables.kem,
                _ => return Err(DecodeError::illegal("algorithm type")),
            };
            *slot = Some(mask);
            let external = usize::from(counts & 0xF);
            *extended += external;
            reader.bytes(external * EXTENDED_SIZE, "extended algorithms")?;
        }
        Ok(tables)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestBody {
    length: U16,
    measurement_specification: u8,
    other_params: u8,
    base_asym: U32,
    base_hash: U32,
    pqc_asym: U32,
    reserved: [u8; 8],
    extended_asym: u8,
    extended_hash: u8,
    reserved2: u8,
    mel_specification: u8,
}
const _: () = assert!(size_of::<RequestBody>() == 28);

/// NEGOTIATE_ALGORITHMS: bit masks of what the requester supports. Extended (non-DMTF) algorithms are checked and
/// skipped: nobody selects one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NegotiateAlgorithms {
    /// Version of the message.
    pub version: Version,
    /// Measurement specifications.
    pub measurement_specification: u8,
    /// Opaque data formats from 1.2 on, and multiple keys from 1.3 on.
    pub other_params: u8,
    /// Signature algorithms of the responder.
    pub base_asym: u32,
    /// Hash algorithms.
    pub base_hash: u32,
    /// Post-quantum signature algorithms of the responder, from 1.4 on.
    pub pqc_asym: u32,
    /// Measurement extension log specifications, 1.3.
    pub mel_specification: u8,
    /// The algorithm tables; there are none in 1.0.
    pub tables: AlgorithmTables,
}

impl Default for Version {
    fn default() -> Self {
        Self::V1_2
    }
}

impl NegotiateAlgorithms {
    /// Parses the message; its `Length` must be exactly what its counts say.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.consumed();
        let header = Header::expect(reader, Code::NEGOTIATE_ALGORITHMS)?;
        Self::parse_body(reader, start, header.version, header.param1)
    }

    /// The supported algorithms block of CAPABILITIES: the message from its first parameter on, with a `Length`
    /// that counts from there.
    pub(super) fn parse_block(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let start = reader.consumed();
        let [tables, _] = reader.array("parameters")?;
        Self::parse_body(reader, start, version, tables)
    }

    fn parse_body(
        reader: &mut Reader<'_>,
        start: usize,
        version: Version,
        tables: u8,
    ) -> Result<Self, DecodeError> {
        let body: RequestBody = reader.read("algorithms")?;
        let length = usize::from(body.length.get());
        let form = Form::of(version);
        if length > form.max_length {
            return Err(DecodeError::illegal("length"));
        }
        let mut extended = usize::from(body.extended_asym) + usize::from(body.extended_hash);
        if extended > form.max_extended {
            return Err(DecodeError::illegal("extended algorithm count"));
        }
        reader.bytes(extended * EXTENDED_SIZE, "extended algorithms")?;
        let tables = AlgorithmTables::parse(reader, &form, tables, &mut extended)?;
        if extended > form.max_extended {
            return Err(DecodeError::illegal("extended algorithm count"));
        }
        if reader.consumed() - start != length {
            return Err(DecodeError::illegal("length"));
        }
        Ok(Self {
            version,
            measurement_specification: body.measurement_specification,
            other_params: body.other_params & form.other_params,
            base_asym: body.base_asym.get(),
            base_hash: body.base_hash.get(),
            pqc_asym: body.pqc_asym.get() & form.pqc_asym,
            mel_specification: body.mel_specification & form.mel_specification,
            tables,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let tables = self.tables.count(&Form::of(self.version));
        Header::new(self.version, Code::NEGOTIATE_ALGORITHMS, tables, 0).encode(out);
        self.encode_body(REQUEST_SIZE, tables, out);
    }

    /// Appends the supported algorithms block of CAPABILITIES.
    pub(super) fn encode_block(&self, out: &mut Vec<u8>) {
        let tables = self.tables.count(&Form::of(self.version));
        out.put(&[tables, 0]);
        self.encode_body(BLOCK_SIZE, tables, out);
    }

    /// What follows the parameters; `size` is the length without tables.
    fn encode_body(&self, size: u16, tables: u8, out: &mut Vec<u8>) {
        let form = Form::of(self.version);
        out.put_fixed(&RequestBody {
            length: (size + 4 * u16::from(tables)).into(),
            measurement_specification: self.measurement_specification,
            other_params: self.other_params & form.other_params,
            base_asym: self.base_asym.into(),
            base_hash: self.base_hash.into(),
            pqc_asym: (self.pqc_asym & form.pqc_asym).into(),
            reserved: [0; 8],
            extended_asym: 0,
            extended_hash: 0,
            reserved2: 0,
            mel_specification: self.mel_specification & form.mel_specification,
        });
        self.tables.encode(&form, out);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ResponseBody {
    length: U16,
    measurement_specification: u8,
    other_params: u8,
    measurement_hash: U32,
    base_asym: U32,
    base_hash: U32,
    pqc_asym: U32,
    reserved: [u8; 7],
    mel_specification: u8,
    extended_asym: u8,
    extended_hash: u8,
    reserved2: [u8; 2],
}
const _: () = assert!(size_of::<ResponseBody>() == 32);

/// ALGORITHMS: what the responder selected, at most one bit per mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Version of the message.
    pub version: Version,
    /// Measurement specification.
    pub measurement_specification: u8,
    /// Opaque data format from 1.2 on, and multiple keys from 1.3 on.
    pub other_params: u8,
    /// Hash algorithm of measurements.
    pub measurement_hash: u32,
    /// Signature algorithm of the responder.
    pub base_asym: u32,
    /// Hash algorithm.
    pub base_hash: u32,
    /// Post-quantum signature algorithm of the responder, from 1.4 on, in place of the other one.
    pub pqc_asym: u32,
    /// Measurement extension log specification, 1.3.
    pub mel_specification: u8,
    /// The algorithm tables; there are none in 1.0.
    pub tables: AlgorithmTables,
}

impl Algorithms {
    /// Parses the message. Extended algorithms were never offered, so any is an error; so is more than one bit in
    /// a mask.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.consumed();
        let header = Header::expect(reader, Code::ALGORITHMS)?;
        let body: ResponseBody = reader.read("algorithms")?;
        let mut extended = usize::from(body.extended_asym) + usize::from(body.extended_hash);
        let form = Form::of(header.version);
        let tables = AlgorithmTables::parse(reader, &form, header.param1, &mut extended)?;
        let pqc_asym = body.pqc_asym.get() & form.pqc_asym;
        let other_params = body.other_params & form.other_params;
        if extended != 0 {
            return Err(DecodeError::illegal("extended algorithm count"));
        }
        if reader.consumed() - start != usize::from(body.length.get()) {
            return Err(DecodeError::illegal("length"));
        }
        let single = tables.entries().iter().all(|(_, mask)| mask.unwrap_or(0).count_ones() <= 1)
            && [body.base_hash, body.measurement_hash].iter().all(|mask| mask.get().count_ones() <= 1)
            && body.measurement_specification.count_ones() <= 1
            && (other_params & 0xF).count_ones() <= 1
            && (body.mel_specification & form.mel_specification).count_ones() <= 1;
        // What 1.4 added is an alternative: there is one signature algorithm, one exchange, one for the requester.
        let both = |one: Option<u16>, other: Option<u16>| one.unwrap_or(0) != 0 && other.unwrap_or(0) != 0;
        let single = single
            && body.base_asym.get().count_ones() + pqc_asym.count_ones() <= 1
            && !both(tables.dhe, tables.kem)
            && !both(tables.requester_asym, tables.requester_pqc_asym);
        if !single {
            return Err(DecodeError::illegal("selection"));
        }
        Ok(Self {
            version: header.version,
            measurement_specification: body.measurement_specification,
            other_params,
            measurement_hash: body.measurement_hash.get(),
            base_asym: body.base_asym.get(),
            base_hash: body.base_hash.get(),
            pqc_asym,
            mel_specification: body.mel_specification & form.mel_specification,
            tables,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let form = Form::of(self.version);
        let count = self.tables.count(&form);
        Header::new(self.version, Code::ALGORITHMS, count, 0).encode(out);
        out.put_fixed(&ResponseBody {
            length: (36 + 4 * u16::from(count)).into(),
            measurement_specification: self.measurement_specification,
            other_params: self.other_params & form.other_params,
            measurement_hash: self.measurement_hash.into(),
            base_asym: self.base_asym.into(),
            base_hash: self.base_hash.into(),
            pqc_asym: (self.pqc_asym & form.pqc_asym).into(),
            reserved: [0; 7],
            mel_specification: self.mel_specification & form.mel_specification,
            extended_asym: 0,
            extended_hash: 0,
            reserved2: [0; 2],
        });
        self.tables.encode(&form, out);
    }
}
