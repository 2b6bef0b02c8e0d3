//! Integration tests against the real server binary, on free ports.

mod accept;
mod configuration;
mod health;
mod reflection;
mod shutdown;
mod support;
