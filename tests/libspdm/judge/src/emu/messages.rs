//! What spdm_requester_emu sends in a session before it turns to SPDM itself: PCI IDE_KM, TDISP, CXL IDE_KM and CXL TSP, with
//! every check that its requester libraries make of an answer.

use super::Run;

const PCI_SIG: u16 = 0x0001;
const CXL: u16 = 0x1E98;
/// FUNCTION_ID 0xbeef and the rest of INTERFACE_ID.
const INTERFACE: [u8; 12] = [0xEF, 0xBE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Run {
    /// A VENDOR_DEFINED_REQUEST, as a whole message: the payload of its answer after the protocol.
    fn vendor(&mut self, session: u32, vendor: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(1 + payload.len()).unwrap();
        let mut message = vec![self.state.version, 0xFE, 0, 0, 3, 0, 2];
        message.extend_from_slice(&vendor.to_le_bytes());
        message.extend_from_slice(&length.to_le_bytes());
        message.push(protocol);
        message.extend_from_slice(payload);
        let answer = self.reference.message(Some(session), &message);
        let what = format!("{vendor:04x}:{protocol} {:02x?}", &payload[..payload.len().min(20)]);
        assert_eq!((answer[0], answer[1]), (self.state.version, 0x7E), "{what}: {answer:02x?}");
        assert_eq!((&answer[4..9], answer[11]), (&message[4..9], protocol), "{what}");
        let length = usize::from(u16::from_le_bytes([answer[9], answer[10]]));
        answer[12..11 + length].to_vec()
    }

    /// PCI IDE_KM for port 1 and stream 0: two keys of six, and both stopped again.
    pub(super) fn pci_ide_km(&mut self, session: u32) {
        let mut ask = |payload: &[u8]| self.vendor(session, PCI_SIG, 0, payload);
        let query = ask(&[0, 0, 1]);
        assert_eq!((query[0], query[2], (query.len() - 7) % 4), (1, 1, 0));
        assert!((query.len() - 7) / 4 <= 74, "spdm-emu has room for 74 registers");
        // K0|RX and K0|TX of the sub-stream for posted requests.
        for key in [0x00, 0x02] {
            let mut message = vec![2, 0, 0, 0, 0, key, 1];
            message.extend_from_slice(&[0x3C; 32]);
            message.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
            assert_eq!(ask(&message), [3, 0, 0, 0, 0, key, 1]);
        }
        for (object, key) in [(4, 0x00), (4, 0x02), (5, 0x00), (5, 0x02)] {
            assert_eq!(ask(&[object, 0, 0, 0, 0, key, 1]), [6, 0, 0, 0, 0, key, 1]);
        }
    }

    fn tdisp(&mut self, session: u32, request: u8, body: &[u8], length: Option<usize>) -> Vec<u8> {
        let message = [&[0x10, request, 0, 0][..], &INTERFACE, body].concat();
        let answer = self.vendor(session, PCI_SIG, 1, &message);
        assert_eq!(answer[..2], [0x10, request & 0x7F], "{answer:02x?}");
        assert_eq!(answer[4..16], INTERFACE);
        if let Some(length) = length {
            assert_eq!(answer.len(), 16 + length);
        }
        answer[16..].to_vec()
    }

    fn tdi_state(&mut self, session: u32, expected: u8) {
        assert_eq!(self.tdisp(session, 0x85, &[], Some(1)), [expected]);
    }

    /// TDISP from GET_TDISP_VERSION to CONFIG_UNLOCKED again.
    pub(super) fn tdisp_walk(&mut self, session: u32) {
        assert_eq!(self.tdisp(session, 0x81, &[], Some(2)), [1, 0x10]);
        let capabilities = self.tdisp(session, 0x82, &[0; 4], Some(28));
        self.tdi_state(session, 0);
        // All LOCK flags there are, stream 0, MMIO reporting offset 0xD0000000, no peer-to-peer mask.
        let mut lock = vec![capabilities[20], capabilities[21], 0, 0];
        lock.extend_from_slice(&0xD000_0000_u64.to_le_bytes());
        lock.extend_from_slice(&[0; 8]);
        let nonce = self.tdisp(session, 0x83, &lock, Some(32));
        self.tdi_state(session, 1);
        let mut report = Vec::new();
        loop {
            let offset = u16::try_from(report.len()).unwrap().to_le_bytes();
            let part = self.tdisp(session, 0x84, &[offset[0], offset[1], 0xC0, 0], None);
            let portion = usize::from(u16::from_le_bytes([part[0], part[1]]));
            assert_eq!(part.len(), 4 + portion);
            report.extend_from_slice(&part[4..]);
            if part[2..4] == [0, 0] {
                break;
            }
        }
        let ranges = usize::try_from(u32::from_le_bytes(report[12..16].try_into().unwrap())).unwrap();
        assert!(ranges > 0 && report.len() >= 16 + 16 * ranges + 4);
        self.tdisp(session, 0x86, &nonce, Some(0));
        self.tdi_state(session, 2);
        self.tdisp(session, 0x87, &[], Some(0));
        self.tdi_state(session, 0);
    }

    /// CXL IDE_KM for port 0: one key asked for, one of each direction programmed, started and stopped.
    pub(super) fn cxl_ide_km(&mut self, session: u32) {
        let mut ask = |payload: &[u8]| self.vendor(session, CXL, 0, payload);
        let query = ask(&[0, 0, 0]);
        assert_eq!((query[0], query[2], (query.len() - 8) % 4), (1, 0, 0));
        assert!((query.len() - 8) / 4 <= 9, "spdm-emu has room for 9 registers");
        let key = ask(&[7, 0, 0, 0, 0, 0x80, 0]);
        assert_eq!((key.len(), &key[..7]), (51, &[8, 0, 0, 0, 0, 0x80, 0][..]));
        for direction in [0x80, 0x82] {
            let message = [&[2, 0, 0, 0, 0, direction, 0], &key[7..]].concat();
            let ack = ask(&message);
            assert_eq!((ack.len(), ack[0], ack[3], ack[5], ack[6]), (7, 3, 0, direction, 0));
        }
        for (object, direction) in [(4, 0x80), (4, 0x82), (5, 0x80), (5, 0x82)] {
            assert_eq!(ask(&[object, 0, 0, 0, 0, direction, 0]), [6, 0, 0, 0, 0, direction, 0]);
        }
    }

    fn tsp(&mut self, session: u32, request: u8, body: &[u8], length: usize) -> Vec<u8> {
        let answer = self.vendor(session, CXL, 1, &[&[0x10, request], body].concat());
        assert_eq!(answer[..2], [0x10, request & 0x7F], "{answer:02x?}");
        assert_eq!(answer.len(), length);
        answer
    }

    /// CXL TSP from its version to a locked configuration.
    pub(super) fn cxl_tsp(&mut self, session: u32) {
        assert_eq!(self.tsp(session, 0x81, &[0; 2], 6)[4..], [1, 0x10]);
        let capabilities = self.tsp(session, 0x82, &[0; 2], 52);
        // It wants features, and numbers of keys and sessions, to go together.
        assert!(capabilities[2..].iter().all(|byte| *byte == 0));
        let mut configuration = vec![0; 350];
        for (at, value) in [(0, 1), (2, 2), (10, 0x16), (22, 1)] {
            configuration[at] = value;
        }
        for entry in 1..8 {
            configuration[46 + 16 * entry + 8] = 0xFF;
        }
        self.tsp(session, 0x83, &configuration, 4);
        let read = self.tsp(session, 0x84, &[0; 2], 192);
        assert!(read[2..37].iter().all(|byte| *byte == 0), "nothing is on, and nothing is locked");
        let report = self.tsp(session, 0x85, &[0, 0, 0, 0, 0x40, 0], 12);
        assert_eq!(report[4..8], [4, 0, 0, 0]);
        self.tsp(session, 0x86, &[0; 2], 4);
        assert_eq!(self.tsp(session, 0x84, &[0; 2], 192)[36], 1);
    }
}
