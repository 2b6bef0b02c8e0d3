//! The server process: configuration, wiring, connections, health, logs, shutdown.

mod accept;
mod config;
mod connection;
mod edge;
mod health;
mod reflection;
mod telemetry;
