//! TLS of a real server, with certificates that the tests make.

mod client;
mod crossed;
mod files;
pub(crate) mod lab;
mod locked;
mod refused;
mod reload;
mod roles;
mod table;
pub(crate) mod tokens;
