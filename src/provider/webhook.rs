//! A receiver over HTTP as a driver: each action is a signed JSON POST with its operation id as idempotency key.
//!
//! The receiver gets what a program of the driver `exec` gets. Its answer says what it did: done, accepted, or why not.

mod driver;
mod reply;

#[cfg(test)]
mod tests;

pub use driver::{Webhook, WebhookPorts, WebhookSettings};
