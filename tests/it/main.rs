//! Integration tests against the real server binary, on free ports.

mod accept;
mod configuration;
mod health;
mod metrics;
mod reflection;
mod runs;
mod shutdown;
mod support;
