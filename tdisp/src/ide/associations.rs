//! What the association registers of a selective stream say: which requester ids and addresses belong to it
//! (PCIe 6.1 §7.9.26.5.4, §7.9.26.5.5). Registers that are not valid say nothing.

use super::registers::{AddressAssociation1, RidAssociation1, RidAssociation2};
use super::streams::{Address, SelectiveRegisters};

/// Both ends belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span<T> {
    first: T,
    last: T,
}

impl<T: Ord + Copy> Span<T> {
    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl SelectiveRegisters {
    /// Requester ids with their segment above them. Within one segment, as the registers have it.
    fn requesters(&self) -> Option<Span<u32>> {
        let two = RidAssociation2::from_bits(self.rid_2);
        let limit = RidAssociation1::from_bits(self.rid_1).limit();
        let in_segment = |id: u16| u32::from(two.segment()) << 16 | u32::from(id);
        two.valid().then(|| Span { first: in_segment(two.base()), last: in_segment(limit) })
    }

    fn addresses(&self) -> impl Iterator<Item = Span<u64>> + '_ {
        self.addresses.iter().filter_map(Address::span)
    }

    /// Whether some requester id or address belongs to both.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        let requesters = self.requesters().zip(other.requesters()).is_some_and(|(a, b)| a.overlaps(b));
        requesters || self.addresses().any(|one| other.addresses().any(|another| one.overlaps(another)))
    }

    /// Whether all of `length` bytes at `address` belong to one of the address ranges.
    pub(super) fn has(&self, address: u64, length: u64) -> bool {
        let Some(last) = address.checked_add(length.saturating_sub(1)) else { return false };
        self.addresses().any(|span| span.first <= address && last <= span.last)
    }
}

impl Address {
    /// Base and limit are multiples of 1 MiB, and the limit's own mebibyte belongs to the range.
    fn span(&self) -> Option<Span<u64>> {
        let one = AddressAssociation1::from_bits(self.one);
        let address = |upper: u32, low: u16| u64::from(upper) << 32 | u64::from(low) << 20;
        let first = address(self.base_upper, one.base_low());
        let last = address(self.limit_upper, one.limit_low()) | 0xF_FFFF;
        (one.valid() && first <= last).then_some(Span { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(spans: &[(u64, u64)]) -> SelectiveRegisters {
        let block = |&(base, limit): &(u64, u64)| Address {
            one: AddressAssociation1::new()
                .with_valid(true)
                .with_base_low((base >> 20 & 0xFFF) as u16)
                .with_limit_low((limit >> 20 & 0xFFF) as u16)
                .into_bits(),
            base_upper: (base >> 32) as u32,
            limit_upper: (limit >> 32) as u32,
        };
        SelectiveRegisters { addresses: spans.iter().map(block).collect(), ..SelectiveRegisters::default() }
    }

    fn requesters(segment: u8, base: u16, limit: u16) -> SelectiveRegisters {
        SelectiveRegisters {
            rid_1: RidAssociation1::new().with_limit(limit).into_bits(),
            rid_2: RidAssociation2::new().with_valid(true).with_base(base).with_segment(segment).into_bits(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn an_address_range_ends_with_the_mebibyte_of_its_limit() {
        let one = addresses(&[(0x12_3450_0000, 0x12_3460_0000)]);
        for (address, length, belongs) in [
            (0x12_3450_0000, 1, true),
            (0x12_344F_FFFF, 1, false),
            (0x12_344F_FFFF, 2, false),
            (0x12_346F_FFFF, 1, true),
            (0x12_346F_FFFF, 2, false),
            (0x12_3450_0000, 0x20_0000, true),
            (u64::MAX, 2, false),
        ] {
            assert_eq!(one.has(address, length), belongs, "{address:#x}+{length:#x}");
        }
        assert!(one.overlap(&addresses(&[(0, 0), (0x12_3460_0000, 0x12_3460_0000)])));
        assert!(!one.overlap(&addresses(&[(0, 0x12_3440_0000), (0x12_3470_0000, u64::MAX)])));
        assert!(
            !addresses(&[(0x20_0000, 0x10_0000)]).has(0x20_0000, 1),
            "nothing from a base above its limit"
        );
    }

    #[test]
    fn requester_ids_meet_within_a_segment() {
        let one = requesters(0, 0x100, 0x1FF);
        assert!(one.overlap(&requesters(0, 0x1FF, 0x1FF)) && one.overlap(&requesters(0, 0, 0xFFFF)));
        assert!(!one.overlap(&requesters(0, 0x200, 0x2FF)) && !one.overlap(&requesters(1, 0x100, 0x1FF)));
        let invalid = SelectiveRegisters { rid_2: one.rid_2 & !1, rid_1: one.rid_1, addresses: Vec::new() };
        assert!(!one.overlap(&invalid));
    }
}
