//! Why a layout is none: which BAR, which range, and what would be right.
use core::fmt;

use super::{AddressWidth, Kind};
use crate::ByteSize;

/// A layout that cannot be a BAR, or BARs that cannot be a function's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LayoutError {
    /// The BAR; of two that do not go together, the later one.
    pub bar: u8,
    /// Position of the range in the BAR, from 0, where it is one range's fault.
    pub range: Option<usize>,
    /// What is wrong there.
    pub problem: LayoutProblem,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bar, range, problem } = self;
        match range {
            Some(range) => write!(f, "BAR {bar} range {range}: {problem}"),
            None => write!(f, "BAR {bar}: {problem}"),
        }
    }
}

/// What is wrong with a BAR or a range. The text names neither: whoever knows the layout by other names says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutProblem {
    /// There are six base address registers, and a 64-bit BAR needs two of them.
    #[error("a {} BAR cannot be there: BAR 0 to 5 exist, and a 64-bit one takes the next, too", width_name(*.width))]
    NoSuchBar {
        /// The width asked for.
        width: AddressWidth,
    },
    /// Two BARs want the same register.
    #[error("its register already belongs to BAR {other}")]
    Occupied {
        /// The one that has the register.
        other: u8,
    },
    /// A BAR without ranges.
    #[error("has no ranges")]
    Empty,
    /// A range without pages.
    #[error("has no pages")]
    NoPages,
    /// The ranges do not add up to a power of two.
    #[error(
        "the ranges add up to {}, which is no power of two; a reserved range of {} would make it {}",
        ByteSize(*.size), ByteSize(size.next_power_of_two() - size), ByteSize(size.next_power_of_two())
    )]
    NotPowerOfTwo {
        /// The sum in bytes.
        size: u64,
    },
    /// More pages than a BAR of this width can have.
    #[error(
        "with it the BAR has {}; a {} BAR has {} at most",
        ByteSize(*.end), width_name(*.width), ByteSize(*.max)
    )]
    TooLarge {
        /// Bytes up to the end of this range.
        end: u64,
        /// The width asked for.
        width: AddressWidth,
        /// Most bytes at this width.
        max: u64,
    },
    /// A function has one range of this kind.
    #[error("{kind}: the function has that already, in BAR {other}, and once is all it can have")]
    Second {
        /// The kind.
        kind: Kind,
        /// Where the first is.
        other: u8,
    },
    /// Of MSI-X table and PBA one is missing.
    #[error("{kind}: MSI-X needs a table and a PBA, and the other is missing")]
    LoneMsix {
        /// The one that is there.
        kind: Kind,
    },
    /// The MSI-X capability cannot say where it is.
    #[error("begins 4G or more into the BAR, and the MSI-X capability has 32 bits for its offset")]
    MsixTooFar,
}

const fn width_name(width: AddressWidth) -> &'static str {
    match width {
        AddressWidth::Bits32 => "32-bit",
        AddressWidth::Bits64 => "64-bit",
    }
}
