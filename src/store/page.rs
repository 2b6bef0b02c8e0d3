//! Fills one page of a list within its bounds.

use std::sync::Arc;

use super::{Order, Page, Position, Query, SCAN_ROWS_MAX, Unreadable};
use crate::ids::Revision;
use crate::model::Record;

/// A page that is being filled with rows in the order of the query.
#[derive(Debug)]
pub(super) struct Filling<T> {
    items: Vec<Arc<T>>,
    limit: usize,
    bytes: usize,
    bytes_max: usize,
    examined: usize,
    order: Order,
    last: Option<Position>,
    more: bool,
    unreadable: Vec<Unreadable>,
}

impl<T: Record> Filling<T> {
    /// An empty page; a limit of zero counts as one, since an empty page would lead nowhere.
    pub(super) fn new(query: &Query) -> Self {
        let limit = query.limit.max(1);
        let order = query.order;
        Self {
            items: Vec::new(),
            limit,
            bytes: 0,
            bytes_max: query.bytes_max.unwrap_or(usize::MAX),
            examined: 0,
            order,
            last: None,
            more: false,
            unreadable: Vec::new(),
        }
    }

    /// Whether the next row is beyond the page. Call it before examining a row that exists.
    pub(super) fn is_full(&mut self) -> bool {
        self.more = self.items.len() >= self.limit
            || self.examined >= SCAN_ROWS_MAX
            || (self.bytes >= self.bytes_max && !self.items.is_empty());
        self.more
    }

    /// Counts a row: `item` if it matches.
    pub(super) fn push(&mut self, ordinal: u64, id: &impl ToString, item: Option<Arc<T>>) {
        self.examined += 1;
        self.last = Some(match self.order {
            Order::Created => Position::Ordinal(ordinal),
            Order::Id => Position::Id(id.to_string()),
        });
        self.bytes += item.as_ref().map_or(0, |item| item.weight());
        self.items.extend(item);
    }

    /// Counts a row that cannot be read.
    pub(super) fn leave_out(&mut self, ordinal: u64, unreadable: Unreadable) {
        self.push(ordinal, &unreadable.id, None);
        self.unreadable.push(unreadable);
    }

    /// The page.
    pub(super) fn finish(self, as_of: Revision) -> Page<T> {
        Page {
            items: self.items,
            next: self.last.filter(|_| self.more),
            as_of,
            unreadable: self.unreadable,
        }
    }
}
