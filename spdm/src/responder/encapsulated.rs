//! GET_ENCAPSULATED_REQUEST and DELIVER_ENCAPSULATED_RESPONSE: conversations in which the responder asks
//! (DSP0274 1.3 "Encapsulated requests").
//!
//! Every session has room for one, and so has the connection outside. While one is under way, nothing else is answered
//! where it takes place.

use crate::codec::Reader;
use crate::wire::{
    Code, Continuation, DeliverEncapsulatedResponse, EncapsulatedRequest, EncapsulatedResponseAck, ErrorCode,
    GetDigests, GetEncapsulatedRequest, Header, Version, encapsulates,
};

use super::Core;
use super::endpoint_info::EndpointQuestion;
use super::interview::{Interview, Step};
use super::key_exchange::handshake_in_the_clear;
use super::keys::KeyRenewal;
use super::mutual::Proof;
use super::reject::{Handled, Next, Reject};
use super::sessions::Stage;
use super::state::Request;

const BAD_RESPONSE: Reject = Reject::error(ErrorCode::INVALID_RESPONSE_CODE);

/// Where a conversation takes place, or what it is about: a session, or the connection outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Outside,
    Session(usize),
}

/// The responder's questions on one channel.
#[derive(Debug)]
pub(super) struct Conversation {
    /// Number of the request that is out.
    id: u8,
    /// The request that is out; empty before the first.
    request: Vec<u8>,
    topic: Topic,
}

/// What it is about.
#[derive(Debug)]
enum Topic {
    /// Who the requester is.
    Identity(Interview),
    /// The responder's key.
    Key(KeyRenewal),
    /// What the requester is.
    Endpoint(EndpointQuestion),
}

/// What follows a response.
pub(super) enum Heard {
    /// Another question.
    More,
    /// Nothing.
    Enough,
    /// The requester is to sign FINISH with the key of this slot.
    Slot(u8),
}

impl Conversation {
    fn new(topic: Topic) -> Self {
        Self { id: 0, request: Vec::new(), topic }
    }

    pub(super) fn interview(interview: Interview) -> Self {
        Self::new(Topic::Identity(interview))
    }

    /// An interview whose first question KEY_EXCHANGE_RSP stands for, under number 0.
    pub(super) fn digests_asked(version: Version) -> Self {
        let mut interview = Interview::new(false);
        interview.step = Step::Digests;
        let mut conversation = Self::interview(interview);
        GetDigests { version }.encode(&mut conversation.request);
        conversation
    }

    /// Numbers begin with 1 and never come back to the 0 of an acknowledgement without request.
    const fn next_id(&self) -> u8 {
        if self.id == u8::MAX { 1 } else { self.id + 1 }
    }
}

impl Core {
    /// Refuses requests that were not advertised, as for all others.
    pub(super) fn check_encapsulation(&self, code: Code) -> Result<(), Reject> {
        match self.connection.peer() {
            Some(peer) if !encapsulates(peer.version, peer.flags, self.flags) => {
                Err(Reject::unsupported(code))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A handshake in the clear takes place outside its session.
    fn channel(&mut self, request: &Request<'_>) -> Channel {
        if let Some(index) = request.session {
            return Channel::Session(index);
        }
        let clear = self
            .connection
            .negotiated()
            .is_ok_and(|negotiated| handshake_in_the_clear(self.flags, negotiated));
        match self.sessions.last_handshake() {
            Some(index) if clear && self.is_interviewed(index) => Channel::Session(index),
            _ => Channel::Outside,
        }
    }

    fn is_interviewed(&self, index: usize) -> bool {
        let stage = self.sessions.get(index).map(|entry| &entry.stage);
        matches!(stage, Some(Stage::Handshake { proof: Proof::Untold, .. }))
    }

    fn conversation(&mut self, channel: Channel) -> Result<&mut Option<Conversation>, Reject> {
        match channel {
            Channel::Outside => Ok(&mut self.connection.negotiated()?.conversation),
            Channel::Session(index) => {
                Ok(&mut self.sessions.get_mut(index).ok_or(Reject::UNEXPECTED)?.conversation)
            }
        }
    }

    /// While the responder waits for answers, it gives none (DSP0274 1.3 "RequestInFlight").
    pub(super) fn check_conversation(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        if matches!(
            request.header.code,
            Code::GET_ENCAPSULATED_REQUEST | Code::DELIVER_ENCAPSULATED_RESPONSE | Code::END_SESSION
        ) {
            return Ok(());
        }
        let channel = self.channel(request);
        match self.conversation(channel)? {
            Some(_) => Err(Reject::error(ErrorCode::REQUEST_IN_FLIGHT)),
            None => Ok(()),
        }
    }

    /// The question that is out, for a requester that missed it, or the first of a new conversation.
    pub(super) fn get_encapsulated_request(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, _) = request.parse(GetEncapsulatedRequest::parse)?;
        let channel = self.channel(request);
        let mut conversation = match self.conversation(channel)?.take() {
            Some(conversation) => conversation,
            None => self.begin(channel)?,
        };
        if conversation.request.is_empty() {
            conversation.id = conversation.next_id();
            self.ask(channel, &mut conversation)?;
        }
        EncapsulatedRequest { version: body.version, id: conversation.id, request: &conversation.request }
            .encode(out);
        *self.conversation(channel)? = Some(conversation);
        Ok(Next::Stay)
    }

    pub(super) fn deliver_encapsulated_response(
        &mut self,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        let (body, _) = request.parse(DeliverEncapsulatedResponse::parse)?;
        let channel = self.channel(request);
        let slot = self.conversation(channel)?;
        let expected = |conversation: &mut Conversation| !conversation.request.is_empty();
        let mut conversation = slot.take_if(expected).ok_or(Reject::UNEXPECTED)?;
        if body.id != conversation.id {
            *slot = Some(conversation);
            return Err(Reject::INVALID);
        }
        let heard = self.hear(channel, &mut conversation, body.response);
        let heard = heard.map_err(|reject| self.fail_conversation(request, channel, reject))?;
        let next = match heard {
            Heard::Enough => Continuation::Done,
            Heard::Slot(slot) => Continuation::Slot(slot),
            Heard::More => {
                conversation.id = conversation.next_id();
                self.ask(channel, &mut conversation)?;
                Continuation::Request { id: conversation.id, request: &conversation.request }
            }
        };
        EncapsulatedResponseAck { version: body.version, acknowledged: body.id, next }.encode(out);
        if matches!(heard, Heard::More) {
            *self.conversation(channel)? = Some(conversation);
        }
        Ok(Next::Stay)
    }

    /// A conversation for a requester that asks whether there is anything to ask.
    fn begin(&mut self, channel: Channel) -> Result<Conversation, Reject> {
        let nothing = if self.connection.error_version() >= Version::V1_3 {
            Reject::error(ErrorCode::NO_PENDING_REQUESTS)
        } else {
            Reject::UNEXPECTED
        };
        let Channel::Session(index) = channel else { return self.begin_endpoint_info(nothing) };
        let entry = self.sessions.get_mut(index).ok_or(Reject::UNEXPECTED)?;
        match &mut entry.stage {
            // An interview that the requester broke off can be begun again.
            Stage::Handshake { proof: Proof::Untold, .. } => {
                Ok(Conversation::interview(Interview::new(false)))
            }
            Stage::Handshake { .. } | Stage::PskHandshake { .. } => Err(Reject::UNEXPECTED),
            Stage::Application { renew_key: wanted @ true, .. } => {
                *wanted = false;
                Ok(Conversation::new(Topic::Key(KeyRenewal::Wanted)))
            }
            Stage::Application { .. } => self.begin_endpoint_info(nothing),
        }
    }

    /// Who the requester is has been settled by then, and keys go first.
    fn begin_endpoint_info(&mut self, nothing: Reject) -> Result<Conversation, Reject> {
        let question = self.endpoint_question()?.ok_or(nothing)?;
        Ok(Conversation::new(Topic::Endpoint(question)))
    }

    /// Puts the next question into the conversation.
    fn ask(&mut self, channel: Channel, conversation: &mut Conversation) -> Result<(), Reject> {
        conversation.request.clear();
        match &mut conversation.topic {
            Topic::Identity(interview) => self.question(interview, &mut conversation.request),
            Topic::Key(renewal) => self.renew(channel, renewal, &mut conversation.request),
            Topic::Endpoint(question) => self.ask_what_it_is(question, &mut conversation.request),
        }
    }

    /// Takes the answer to the question that is out.
    fn hear(
        &mut self,
        channel: Channel,
        conversation: &mut Conversation,
        response: &[u8],
    ) -> Result<Heard, Reject> {
        let header = Header::parse(&mut Reader::new(response)).map_err(|_| BAD_RESPONSE)?;
        if header.version != self.connection.error_version() {
            return Err(BAD_RESPONSE);
        }
        // The requester cannot, or not now: whether that is acceptable shows elsewhere, in FINISH for example.
        if header.code == Code::ERROR {
            return Ok(Heard::Enough);
        }
        match &mut conversation.topic {
            Topic::Identity(interview) => self.answered(channel, interview, &conversation.request, response),
            Topic::Key(renewal) => renewal.acknowledged(response),
            Topic::Endpoint(question) => {
                self.endpoint_described(channel, question, &conversation.request, response)
            }
        }
    }

    /// A session whose requester does not answer properly when asked who it is never comes to be.
    fn fail_conversation(&mut self, request: &Request<'_>, channel: Channel, reject: Reject) -> Reject {
        match (channel, reject) {
            (Channel::Session(index), Reject::Error { code, .. }) if self.is_interviewed(index) => {
                self.fail_handshake(request, index, code)
            }
            _ => reject,
        }
    }
}
