//! GET_MEASUREMENTS and MEASUREMENTS.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample("GET_MEASUREMENTS 1.2", "12e00000", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.0 signed", "10e001ff 11*32", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.1 signed", "11e001ff 11*32 02", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.2 signed", "12e001ff 11*32 02", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.3 signed", "13e00705 11*32 0f 22*8", again!(GetMeasurements::parse)),
        sample(
            "MEASUREMENTS 1.2 count",
            "12600500 00 000000 11*32 0000",
            again!(|reader| Measurements::parse(reader, 0)),
        ),
        sample(
            "MEASUREMENTS 1.0 signed",
            "10600000 01 0b0000 01010700 810400 deadbeef 11*32 0000 cc*64",
            again!(|reader| Measurements::parse(reader, SIGNATURE)),
        ),
        sample(
            "MEASUREMENTS 1.1 signed",
            "11600003 01 0b0000 01010700 810400 deadbeef 11*32 0000 cc*64",
            again!(|reader| Measurements::parse(reader, SIGNATURE)),
        ),
        sample(
            "MEASUREMENTS 1.3 signed",
            "13600023 01 0b0000 01010700 810400 deadbeef 11*32 0000 22*8 cc*64",
            again!(|reader| Measurements::parse(reader, SIGNATURE)),
        ),
    ]
}

#[test]
fn illegal_fields_are_named() {
    names_illegal_fields(&[("MEASUREMENTS 1.3 signed", "content changed", 3, 0x30)]);
}

#[test]
fn fields_of_later_versions_do_not_travel() {
    rewritten("MEASUREMENTS 1.2 count", "106005ff 00 000000 11*32 0000", "10600500 00 000000 11*32 0000");
    rewritten("MEASUREMENTS 1.2 count", "116005ff 00 000000 11*32 0000", "1160050f 00 000000 11*32 0000");
}

#[test]
fn measurement_blocks_are_walked_to_the_first_error() {
    let record = hex("01010700 810400 deadbeef 02010400 050100 77");
    let measurements = |record| Measurements {
        version: Version::V1_2,
        total: 0,
        slot: 0,
        changed: ContentChanged::NotDetected,
        blocks: 2,
        record,
        nonce: [0; NONCE_SIZE],
        opaque: &[],
        context: None,
        signature: &[],
    };
    let blocks: Result<Vec<_>, _> = measurements(&record).iter().collect();
    assert_eq!(
        blocks.unwrap(),
        [
            MeasurementBlock { index: 1, kind: 1, raw: true, value: &[0xDE, 0xAD, 0xBE, 0xEF] },
            MeasurementBlock { index: 2, kind: 5, raw: false, value: &[0x77] },
        ]
    );
    let cut = measurements(&record[..13]);
    let results: Vec<_> = cut.iter().collect();
    assert_eq!(results.len(), 2);
    assert!(results[0].is_ok() && results[1].is_err());
}
