//! TDISP 1.0 and IDE_KM without I/O: the wire formats, the IDE capability with its keys, and the device
//! security manager (DSM) that owns one state machine per TEE device interface (TDI).
//!
//! Bytes and plain descriptions go in; bytes and [`Effect`]s come out. No sockets, no clock, no threads.
//!
//! - [`wire`]: messages, objects and the interface report, parsed and encoded in both directions.
//! - [`ide`]: the IDE extended capability's register image and the key state behind it.
//! - [`dsm`]: the states, the checks of LOCK, the events that move a TDI, and the cascades between them.
//! - [`cxl`]: what a device without a CXL link answers to CXL's IDE_KM and TSP.
//!
//! ```
//! use tdisp::wire::{Request, RequestMessage, Response, ResponseMessage};
//! use tdisp::{Answer, Dsm, DsmConfig, FunctionId, FunctionView, TdiState};
//!
//! let mut dsm = Dsm::new(DsmConfig::default())?;
//! let functions = vec![FunctionView::default()];
//! let (mut request, mut response) = (Vec::new(), Vec::new());
//! let interface = FunctionId::new(0x0100, None).into();
//! RequestMessage { interface, request: Request::GetState }.encode(&mut request);
//!
//! let mut no_entropy = |_: &mut [u8]| false;
//! let answer = dsm.tdisp(Some(1), &request, &functions, &mut no_entropy, &mut response);
//! assert_eq!(answer, Answer::Respond);
//! let message = ResponseMessage::decode(&response)?;
//! assert_eq!(message.response, Response::State(TdiState::CONFIG_UNLOCKED));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod cxl;
pub mod dsm;
pub mod ide;
pub mod wire;

/// An SPDM session, as the transport below names it. Only compared for equality.
pub type SessionId = u32;

pub use dsm::{Answer, Cause, ConfigError, ConfigWrite, Dsm, DsmConfig, Effect, FunctionView};
pub use ide::{Ide, IdeConfig, StreamIndex};
pub use wire::{ErrorCode, FunctionId, InterfaceId, LockFlags, Nonce, TdiState};
