//! Vendor-defined messages.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample(
            "VENDOR_DEFINED_REQUEST",
            "12fe0000 0300 02 0100 0300 01aabb",
            again!(VendorDefined::parse_request, encode_request),
        ),
        sample(
            "VENDOR_DEFINED_REQUEST 1.4 large",
            "14fe8000 0300 02 0100 0000 03000000 01aabb",
            again!(VendorDefined::parse_request, encode_request),
        ),
        sample(
            "VENDOR_DEFINED_RESPONSE",
            "127e0000 0300 02 0100 0100 00",
            again!(VendorDefined::parse_response, encode_response),
        ),
    ]
}
