//! The requester's end of conversations in which the responder asks: who it is before FINISH or after CHALLENGE, and
//! whatever else when it comes with GET_ENCAPSULATED_REQUEST (DSP0274 1.3 "Encapsulated requests").

use super::command::{Challenged, Reply, Served};
use super::error::{Misuse, RequesterError, Violation};
use super::handshake::PendingFinish;
use super::respond::Refusal;
use super::state::{Core, Flow, Message, Next, Request};
use crate::transcript::Transcript;
use crate::wire::{
    Continuation, DeliverEncapsulatedResponse, EncapsulatedRequest, EncapsulatedResponseAck, ErrorCode,
    ErrorResponse, GetDigests, GetEncapsulatedRequest, encapsulates,
};

/// A responder may ask for a chain of 65,535 bytes in the smallest portions, but not for ever.
const MOST_QUESTIONS: u32 = 4096;

/// What follows the conversation.
pub(super) enum Goal {
    /// FINISH; TH up to and including KEY_EXCHANGE_RSP.
    Finish(Transcript),
    /// The reply of a challenge that has succeeded.
    Challenged(Challenged),
    /// A reply of its own.
    Serve,
}

/// A conversation under way.
pub(super) struct Conversation {
    pub(super) goal: Goal,
    /// What was done for the responder.
    pub(super) served: Served,
    /// Our M1/M2 without CHALLENGE, if the responder may challenge us.
    pub(super) log: Option<Transcript>,
    /// Slot we were challenged for.
    pub(super) challenged: Option<u8>,
    /// Bytes of the events that were taken.
    pub(super) event_bytes: usize,
    questions: u32,
}

/// An answer on its way.
pub(super) struct PendingDelivery {
    conversation: Conversation,
    id: u8,
}

impl Conversation {
    fn new(goal: Goal) -> Self {
        Self { goal, served: Served::default(), log: None, challenged: None, event_bytes: 0, questions: 0 }
    }

    /// GET_ENCAPSULATED_REQUEST because the caller has time for it.
    pub(super) fn serve(core: &Core) -> Result<Next, RequesterError> {
        let info = &core.connected()?.info;
        if !encapsulates(info.version, core.flags(info.version), info.capabilities) {
            return Err(Misuse::NotCapable("the responder's requests").into());
        }
        Self::start(core, Goal::Serve)
    }

    /// GET_ENCAPSULATED_REQUEST.
    pub(super) fn start(core: &Core, goal: Goal) -> Result<Next, RequesterError> {
        let conversation = Self::new(goal);
        let version = core.connected()?.info.version;
        let mut bytes = Vec::new();
        GetEncapsulatedRequest { version }.encode(&mut bytes);
        let secured = conversation.secured(core)?;
        let flow = Flow::EncapsulatedRequest(conversation);
        Ok(Next::Send(Request { version, bytes, secured, flow }))
    }

    /// DIGESTS, which KEY_EXCHANGE_RSP has asked for already.
    pub(super) fn start_with_digests(core: &mut Core, goal: Goal) -> Result<Next, RequesterError> {
        let mut request = Vec::new();
        GetDigests { version: core.connected()?.info.version }.encode(&mut request);
        Self::new(goal).answer(core, 0, &request)
    }

    /// A handshake in the clear takes place outside its session, as does what follows a challenge.
    fn secured(&self, core: &Core) -> Result<bool, Misuse> {
        match self.goal {
            Goal::Finish(_) => Ok(!core.handshakes_in_the_clear()?),
            Goal::Challenged(_) => Ok(false),
            Goal::Serve => Ok(core.in_session()),
        }
    }

    /// ENCAPSULATED_REQUEST.
    pub(super) fn requested(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        // What is inside reaches to the end: its own length says where padding begins.
        let (body, _) = message.parse(EncapsulatedRequest::parse)?;
        self.answer(core, body.id, body.request)
    }

    /// DELIVER_ENCAPSULATED_RESPONSE.
    fn answer(mut self, core: &mut Core, id: u8, request: &[u8]) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        self.questions += 1;
        let response = match self.respond(core, request) {
            Ok(response) => response,
            Err(Refusal::Error(code, data)) => {
                let mut response = Vec::new();
                ErrorResponse::new(version, code, data).worded().encode(&mut response);
                response
            }
            Err(Refusal::Failed(error)) => return Err(error),
        };
        let mut bytes = Vec::new();
        DeliverEncapsulatedResponse { version, id, response: &response }.encode(&mut bytes);
        let secured = self.secured(core)?;
        let flow = Flow::Delivery(PendingDelivery { conversation: self, id });
        Ok(Next::Send(Request { version, bytes, secured, flow }))
    }

    /// The responder has no more questions. `slot` is the one it wants FINISH to be signed for.
    fn conclude(
        self,
        core: &mut Core,
        message: &Message<'_>,
        slot: Option<u8>,
    ) -> Result<Next, RequesterError> {
        match self.goal {
            Goal::Finish(transcript) => {
                let slot = slot.unwrap_or(0);
                message.require(core.has_identity(slot)?, Violation::Slot)?;
                PendingFinish::start(core, transcript, Some(slot))
            }
            Goal::Challenged(challenged) => {
                let authenticated_as = self.challenged;
                Ok(Next::Done(Reply::Challenged(Challenged { authenticated_as, ..challenged })))
            }
            Goal::Serve => {
                // A new key that was announced and not used is no key.
                if let Some(active) = core.sessions.current_mut() {
                    if active.session.inbound_used() {
                        active.session.confirm_inbound();
                    } else {
                        active.session.revert_inbound();
                    }
                }
                Ok(Next::Done(Reply::Served(self.served)))
            }
        }
    }

    /// A responder that has nothing to ask says so with an ERROR.
    pub(super) fn nothing_asked(&self, code: ErrorCode) -> Option<Reply> {
        let idle = matches!(self.goal, Goal::Serve) && code == ErrorCode::NO_PENDING_REQUESTS;
        idle.then(|| Reply::Served(Served::default()))
    }
}

impl PendingDelivery {
    /// ENCAPSULATED_RESPONSE_ACK: the next question, or the end.
    pub(super) fn acknowledged(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (body, _) = message.parse(EncapsulatedResponseAck::parse)?;
        let acknowledges = body.version < crate::wire::Version::V1_2 || body.acknowledged == self.id;
        message.require(acknowledges, Violation::Echo("the number of the encapsulated request"))?;
        match body.next {
            Continuation::Done => self.conversation.conclude(core, message, None),
            Continuation::Slot(slot) => self.conversation.conclude(core, message, Some(slot)),
            Continuation::Request { id, request } => {
                message.require(self.conversation.questions < MOST_QUESTIONS, Violation::Questions)?;
                self.conversation.answer(core, id, request)
            }
        }
    }
}
