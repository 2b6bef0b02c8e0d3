//! The gRPC services: thin handlers that validate requests, call the engine, and convert its answers.

mod access;
mod audit;
mod batch;
mod caller;
pub mod codec;
mod convert;
mod history;
mod identity;
mod limits;
mod lists;
mod locks;
mod machines;
mod mask;
pub mod methods;
pub(crate) mod page;
mod plans;
mod register;
mod roles;
mod runs;
mod scope;
mod server;
mod show;
pub mod signed;
mod start;
pub mod status;
mod update;
pub mod validate;
mod wait;
mod watch;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tonic::service::Routes;

use crate::executor::Engine;
use crate::pb::audit_service_server::AuditServiceServer;
use crate::pb::lock_service_server::LockServiceServer;
use crate::pb::machine_service_server::MachineServiceServer;
use crate::pb::plan_service_server::PlanServiceServer;
use crate::pb::run_service_server::RunServiceServer;
use crate::pb::server_service_server::ServerServiceServer;

pub use caller::{ACTOR_METADATA, Deadline};
pub use identity::{Ended, Identity, Proof};
pub use limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
pub use server::{DataFacts, Facts, Host, ReceiverFacts};

/// The services, to which a server adds its own.
#[must_use]
pub fn routes(engine: Engine) -> Routes {
    services(engine, None, Arc::new(signed::HeadSigner::none()))
}

/// The services of a server that reports facts about its host, and signs its audit.
#[must_use]
pub fn routes_on(engine: Engine, host: Host, signer: Arc<signed::HeadSigner>) -> Routes {
    services(engine, Some(host), signer)
}

fn services(engine: Engine, host: Option<Host>, signer: Arc<signed::HeadSigner>) -> Routes {
    let audit = AuditServiceServer::new(audit::Audit::new(engine.clone(), signer))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let locks = LockServiceServer::new(locks::Locks::new(engine.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let machines = MachineServiceServer::new(machines::Machines::new(engine.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let plans = PlanServiceServer::new(plans::Plans::new(engine.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let server = ServerServiceServer::new(server::Server::new(engine.clone(), host))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let runs = RunServiceServer::new(runs::Runs::new(engine))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    Routes::new(machines)
        .add_service(plans)
        .add_service(server)
        .add_service(audit)
        .add_service(locks)
        .add_service(runs)
}
