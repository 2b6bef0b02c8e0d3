//! Integration tests against the real server binary, on free ports.

mod accept;
mod configuration;
mod health;
mod kill;
mod metrics;
mod reflection;
mod runs;
mod service_config;
mod shutdown;
mod storage;
mod support;
