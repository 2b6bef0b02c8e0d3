//! How receivers of notifications are doing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Timestamp;
use crate::notify::Status;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabels {
    receiver: String,
}

/// The figures of every receiver.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    delivered: Family<ReceiverLabels, Counter>,
    refused: Family<ReceiverLabels, Counter>,
    retries: Family<ReceiverLabels, Counter>,
    gaps: Family<ReceiverLabels, Counter>,
    waiting: Family<ReceiverLabels, Gauge>,
    lag: Family<ReceiverLabels, Gauge>,
}

impl Receivers {
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("notify_delivered", "Events that a receiver has taken", &self.delivered),
            (
                "notify_refused",
                "Events that were left out: refused by their receiver, or not taken for too long",
                &self.refused,
            ),
            ("notify_retries", "Failed attempts at an event", &self.retries),
            (
                "notify_gaps",
                "How often history was deleted before a receiver was notified of it",
                &self.gaps,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let help = "Events known to wait for a receiver that does not take them";
        registry.register("notify_waiting_events", help, self.waiting.clone());
        let help = "Time since the oldest event that a receiver has not taken";
        registry.register_with_unit("notify_lag", help, Unit::Seconds, self.lag.clone());
    }

    pub(super) fn read(&self, receivers: &[Arc<Status>], now: Timestamp) {
        for status in receivers {
            let standing = status.standing();
            let labels = ReceiverLabels { receiver: status.receiver().to_owned() };
            for (counter, value) in [
                (&self.delivered, standing.delivered),
                (&self.refused, standing.refused),
                (&self.retries, standing.retries),
                (&self.gaps, standing.gaps),
            ] {
                counter.get_or_create(&labels).inner().store(value, Relaxed);
            }
            let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.waiting.get_or_create(&labels).set(signed(standing.waiting));
            let lag = standing.oldest.map_or(0, |at| now.since(at).as_secs());
            self.lag.get_or_create(&labels).set(signed(lag));
        }
    }
}
