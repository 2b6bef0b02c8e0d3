//! Counts the machines of which limits are a share: what a run had to wait for then changes with the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dispatch::Scheduler;
use super::slots::Place;
use crate::model::filter::{Filter, Subject};

/// Time between two counts, in milliseconds.
const COUNT_MS: u64 = 30_000;

impl Scheduler {
    /// Counts at once what was never counted, and everything again at intervals, as long as a limit is a share. Never
    /// returns.
    pub(in crate::executor) async fn keep_shares(self) {
        loop {
            let uncounted = self.uncounted().notified();
            if self.count_machines().await {
                tokio::select! {
                    biased;
                    () = uncounted => {}
                    () = self.ports().clock.sleep(Duration::from_millis(COUNT_MS)) => {}
                }
            } else {
                uncounted.await;
            }
        }
    }

    /// Counts the machines of which limits are a share: `false` if no limit is one.
    async fn count_machines(&self) -> bool {
        let (of_all, places) = self.slots().shares();
        if !of_all && places.is_empty() {
            return false;
        }
        let store = &self.ports().store;
        let machines = match of_all {
            true => Some(self.read(|| store.count_machines(Filter::default())).await),
            false => None,
        };
        let mut at = BTreeMap::new();
        for place in places {
            let filter = with_label(&place);
            let count = self.read(|| store.count_machines(filter.clone())).await;
            at.insert(place, count);
        }
        let served = self.slots().set_machines(machines, at);
        self.admit(served);
        true
    }
}

/// The machines of a place. Labels of machines can have any text that a filter can quote; one that it could not would
/// select none, and its share would be one.
fn with_label((key, value): &Place) -> Filter {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("labels.\"{}\" = \"{}\"", quoted(key), quoted(value));
    let none = || Filter::parse("machine_id = \"\"", Subject::Machine).unwrap_or_default();
    Filter::parse(&text, Subject::Machine).unwrap_or_else(|_| none())
}
