//! GET_VERSION: starts the connection again (DSP0274 1.3 "GET_VERSION request and VERSION response messages").

use crate::transcript::Vca;
use crate::wire::{ErrorCode, GetVersion, Version, VersionNumber, VersionResponse};

use super::reject::{Handled, Next, Reject};
use super::state::{Connection, Request};
use super::{Core, EndReason};

impl Core {
    /// May come at any time, and "shall clear or reset the previously Negotiated State, if any" (DSP0274 1.3 "GET_VERSION request
    /// and VERSION response messages"). A session is made of that state, so every session ends with it, as in libspdm. Only a
    /// GET_VERSION in the clear does that: in a session the request is not allowed.
    pub(super) fn get_version(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        if request.session.is_some() {
            return Err(Reject::UNEXPECTED);
        }
        let (body, message) = request.parse(GetVersion::parse)?;
        if body.version != Version::V1_0 {
            // GET_VERSION and what answers it are always 1.0, whatever was negotiated before.
            return Err(Reject::InVersion(Version::V1_0, ErrorCode::VERSION_MISMATCH));
        }
        let mut entries = [VersionNumber::new(Version::V1_0); MAX_VERSIONS];
        let entries = entries.get_mut(..self.config.versions.len()).ok_or(Reject::INVALID)?;
        for (entry, &version) in entries.iter_mut().zip(&self.config.versions) {
            *entry = VersionNumber::new(version);
        }
        VersionResponse { entries }.encode(out)?;

        self.sessions.end_all(EndReason::Restarted);
        self.resynch = false;
        self.transfers.clear();
        self.deferrals.clear();
        let mut vca = Vca::new();
        vca.append(message);
        vca.append(out);
        self.connection = Connection::Version { vca };
        Ok(Next::Stay)
    }
}

/// 1.0 to 1.4.
const MAX_VERSIONS: usize = 5;
