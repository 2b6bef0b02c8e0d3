//! Integration tests against the real server binary, on free ports.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: whatever fails fails the test, and what they say is for people"
)]

mod abuse;
mod accept;
mod audit;
mod canary;
mod classes;
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the store")]
mod cluster;
mod configuration;
mod copies;
mod demo;
mod disk;
mod files;
mod fleet;
mod health;
mod ipmi;
mod json;
mod kill;
mod linear;
mod load;
mod material;
mod metrics;
mod mounts;
mod notifications;
mod operator;
#[cfg(feature = "otlp")]
mod otlp;
mod paging;
mod postgres;
mod power;
mod programs;
mod receiver;
mod redfish;
mod reflection;
mod restore;
mod runs;
mod service_config;
mod shutdown;
mod stops;
mod storage;
mod support;
mod terminal;
mod tls;
mod transcripts;
mod unreadable;
mod watching;
mod webhooks;
