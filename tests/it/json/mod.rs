//! JSON over HTTP/1.1 and HTTP/2, as curl and clients of Connect send it.

mod calls;
mod client;
mod command;
mod held;
mod identity;
mod streams;
