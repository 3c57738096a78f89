//! DEVICE_FEATURE's payload and DMA_BUF's data, golden and not.

use super::super::{Command, Request};
use super::*;

/// GET of DMA_BUF: two ranges of region 2, `O_RDWR | O_CLOEXEC` as x86 has them.
const GOLDEN: [u32; 14] = [56, 1 << 16 | 11, 2, 0x8_0002, 0, 2, 0x1000, 0, 0x3000, 0, 0, 1, 0x1000, 0];
const RANGES: [DmaRange; 2] = [DmaRange::new(0x1000, 0x3000), DmaRange::new(1 << 32, 0x1000)];

fn golden() -> Vec<u8> {
    GOLDEN.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn dma_buf_is_golden_in_both_directions() {
    let wanted = DmaBuf { region: 2, open_flags: 0x8_0002, flags: 0, ranges: &RANGES };
    let data = wanted.encode();
    let feature = Feature::new(FeatureFlags::get(DmaBuf::INDEX), &data);
    let golden = golden();
    assert_eq!(feature.encode(), golden);
    assert_eq!(Request::parse(Command::DEVICE_FEATURE, &golden), Ok(Request::Feature(feature)));
    assert_eq!(DmaBuf::parse(feature.data), Ok(wanted));
    assert_eq!(feature.room(), DmaBuf::FIXED + size_of_val(&RANGES));
}

#[test]
fn every_truncation_of_dma_buf_is_refused() {
    let golden = golden();
    for end in 0..golden.len() {
        let parsed = Feature::parse(&golden[..end]).and_then(|feature| DmaBuf::parse(feature.data));
        let error = if end < FIXED + DmaBuf::FIXED { DecodeError::Length } else { DecodeError::Count };
        assert_eq!(parsed, Err(error), "cut at {end}");
    }
}

#[test]
fn bytes_behind_the_ranges_are_not_looked_at() {
    let mut payload = golden();
    let whole = DmaBuf::parse(&payload[FIXED..]).map(|wanted| wanted.ranges.to_vec());
    for _ in 0..40 {
        payload.push(0xA5);
        assert_eq!(DmaBuf::parse(&payload[FIXED..]).map(|wanted| wanted.ranges.to_vec()), whole);
    }
}

#[test]
fn a_count_of_ranges_that_are_not_there_is_refused() {
    let mut payload = golden();
    for count in [3, 4, 1 << 28, (1 << 28) + 2, u32::MAX] {
        payload[20..24].copy_from_slice(&count.to_le_bytes());
        assert_eq!(DmaBuf::parse(&payload[FIXED..]), Err(DecodeError::Count), "{count:#x}");
    }
    for count in [0, 1] {
        payload[20..24].copy_from_slice(&u32::to_le_bytes(count));
        let parsed = DmaBuf::parse(&payload[FIXED..]).unwrap();
        assert_eq!(parsed.ranges, &RANGES[..count as usize]);
    }
}

#[test]
fn flags_are_checked_as_the_kernel_does() {
    let feature = |argsz: u32, flags: u32| {
        Feature::parse(&[argsz.to_le_bytes(), flags.to_le_bytes()].concat()).map(|f| f.flags)
    };
    let (get, set, probe) = (1 << 16, 1 << 17, 1 << 18);
    assert_eq!(feature(7, get), Err(DecodeError::Argsz));
    assert_eq!(feature(8, get | set), Err(DecodeError::Flags));
    assert_eq!(feature(8, 1 << 19), Err(DecodeError::Flags));
    let flags = FeatureFlags { index: 11, get: true, set: true, probe: true };
    assert_eq!(feature(8, 11 | get | set | probe), Ok(flags));
    assert_eq!(feature(u32::MAX, 11 | get), Ok(FeatureFlags::get(11)));
    assert_eq!(feature(8, 11 | get | probe), Ok(FeatureFlags::probe_get(11)));
    for bits in 0..8 {
        let flags =
            FeatureFlags { index: 0x8001, get: bits & 1 != 0, set: bits & 2 != 0, probe: bits & 4 != 0 };
        let parsed = feature(8, flags.bits());
        assert_eq!(parsed == Ok(flags), bits != 3, "{flags:?}");
    }
    assert_eq!(Feature::parse(&[0; 7]), Err(DecodeError::Length));
}
