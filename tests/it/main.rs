//! Integration tests against the real server binary, on free ports.

mod accept;
mod configuration;
mod disk;
mod health;
mod kill;
mod linear;
mod load;
mod metrics;
mod mounts;
mod power;
mod reflection;
mod runs;
mod service_config;
mod shutdown;
mod storage;
mod support;
