//! CHUNK_SEND, CHUNK_GET and CHUNK_RESPONSE.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    let sent: Again = again!(Chunk::parse_request, encode_request);
    let received: Again = again!(Chunk::parse_response, encode_response);
    vec![
        sample("CHUNK_SEND first", "12850007 0000 0000 03000000 2b000000 aabbcc", sent),
        sample("CHUNK_SEND last", "13850107 0100 0000 02000000 ddee", sent),
        sample("CHUNK_SEND 1.4 first", "14850007 00000000 03000000 2b000000 aabbcc", sent),
        sample("CHUNK_SEND 1.4", "14850007 00000100 02000000 ddee", sent),
        sample("CHUNK_GET", "12860007 0100", again!(ChunkGet::parse)),
        sample("CHUNK_GET 1.4", "14860007 01000100", again!(ChunkGet::parse)),
        sample("CHUNK_RESPONSE first", "12060007 0000 0000 03000000 2b000000 aabbcc", received),
        sample("CHUNK_RESPONSE last", "13060107 0200 0000 01000000 ff", received),
        sample("CHUNK_RESPONSE 1.4 last", "14060107 02000000 01000000 ff", received),
        sample("ERROR LargeResponse", "127f0f00 07", again!(ErrorResponse::parse)),
    ]
}
