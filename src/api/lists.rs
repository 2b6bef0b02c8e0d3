//! Pages of lists.

use std::fmt::Display;

use prost::Message;

use super::limits::RESPONSE_BYTES_MAX;
use super::page::{List, Place};
use super::status::ApiError;
use super::validate::Checks;
use crate::clock::Timestamp;
use crate::model::filter::{self, Filter};
use crate::store::{Fut, Order, Page, Position, Query, Store};

/// Most store pages that one request reads while none of them has a match: a filter without an index reads a bounded
/// number of rows per page, and a client should rarely see an empty page that is not the last.
const STORE_PAGES_MAX: usize = 8;

/// Most bytes of the objects of an answer, so that it is never larger than clients accept.
const ANSWER_BYTES_MAX: usize = RESPONSE_BYTES_MAX / 4 * 3;

/// Most bytes of the objects of one page: less, since other calls wait while it is encoded.
const PAGE_BYTES_MAX: usize = RESPONSE_BYTES_MAX / 4;

/// Objects of a page that are made into messages at a time: some tenths of a millisecond.
pub(super) const PART: usize = 100;

/// Bytes that a message takes in a list in addition to its own: a tag and a length.
const FRAME_BYTES: usize = 8;

/// Whether one answer can hold all of these messages.
pub(super) fn fit<M: Message>(shown: &[M]) -> bool {
    how_many(shown, ANSWER_BYTES_MAX) == shown.len()
}

/// How many of these messages one page can hold; at least one.
pub(super) fn fitting<M: Message>(shown: &[M]) -> usize {
    how_many(shown, PAGE_BYTES_MAX)
}

fn how_many<M: Message>(shown: &[M], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |message: &&M| {
        bytes += message.encoded_len() + FRAME_BYTES;
        bytes <= bytes_max
    };
    shown.iter().take_while(fits).count().max(1).min(shown.len())
}

/// One page of machines or runs.
pub(super) struct Listed<T> {
    pub(super) page: Page<T>,
    pub(super) next_page_token: String,
    /// How many match on all pages, if requested.
    pub(super) total_size: Option<u64>,
    /// How many records were left out because they cannot be read.
    pub(super) unreadable_count: u64,
    order: Order,
    list: List,
}

impl<T> Listed<T> {
    /// As many of the page's messages as one answer can hold; the next page starts with the rest.
    pub(super) fn bounded<M: Message>(
        &mut self,
        mut shown: Vec<M>,
        place: fn(&T) -> (u64, &dyn Display),
    ) -> Vec<M> {
        let fits = fitting(&shown);
        if fits < shown.len() {
            shown.truncate(fits);
            if let Some(last) = self.page.items.get(fits - 1) {
                let (ordinal, id) = place(last);
                self.next_page_token = self.list.token_of(&match self.order {
                    Order::Created => Place::Numbers(ordinal, 0),
                    Order::Id => Place::Id(id.to_string()),
                });
            }
        }
        shown
    }
}

/// What a list request asks for.
pub(super) struct ListRequest<'a> {
    pub(super) method: &'static str,
    pub(super) subject: filter::Subject,
    pub(super) filter: &'a str,
    /// What the caller may see.
    pub(super) scope: Filter,
    pub(super) order_by: &'a str,
    pub(super) page_size: i32,
    pub(super) page_token: &'a str,
    pub(super) with_total_size: bool,
}

/// Reads a page with `read`, and counts with `count` if requested.
pub(super) async fn list<T>(
    store: &dyn Store,
    now: Timestamp,
    request: ListRequest<'_>,
    read: for<'s> fn(&'s dyn Store, Query) -> Fut<'s, Page<T>>,
    count: for<'s> fn(&'s dyn Store, Filter) -> Fut<'s, u64>,
) -> Result<Listed<T>, ApiError> {
    let mut checks = Checks::default();
    let limit = checks.page_size(request.page_size);
    let (order, descending) = checks.order(request.order_by);
    checks.done(Some(()))?;
    let order_name = match (order, descending) {
        (Order::Created, false) => "",
        (Order::Created, true) => "desc",
        (Order::Id, false) => "id",
        (Order::Id, true) => "id desc",
    };
    let scope = request.scope;
    // A digest of the filter as given, since its relative times move by the next page, and of what the caller may
    // see: a token from one caller must not work for another who may see less.
    let list = List::new(request.method, &[request.filter, &scope.to_string(), order_name]);
    let filter = Filter::parse_at(request.filter, request.subject, now)?.and(scope);
    let mut after = list.place(request.page_token)?.map(|place| match place {
        Place::Numbers(ordinal, _) => Position::Ordinal(ordinal),
        Place::Id(id) => Position::Id(id),
    });
    let active_only = request.subject == filter::Subject::Run
        && matches!(filter.pinned("phase"), Some("PENDING" | "RUNNING"));
    let total_size = match request.with_total_size {
        true => Some(count(store, filter.clone()).await?),
        false => None,
    };
    let (mut pages, mut unreadable_count) = (1, 0);
    loop {
        let filter = filter.clone();
        // What an answer cannot hold is not read.
        let bytes_max = Some(PAGE_BYTES_MAX);
        let query = Query { filter, order, after, limit, bytes_max, descending, active_only };
        let page = read(store, query).await?;
        unreadable_count += u64::try_from(page.unreadable.len()).unwrap_or(u64::MAX);
        if page.items.is_empty() && page.next.is_some() && pages < STORE_PAGES_MAX {
            after = page.next;
            pages += 1;
            continue;
        }
        let next = page.next.clone().map(|next| match next {
            Position::Ordinal(ordinal) => Place::Numbers(ordinal, 0),
            Position::Id(id) => Place::Id(id),
        });
        let next_page_token = next.map(|next| list.token_of(&next)).unwrap_or_default();
        return Ok(Listed { page, next_page_token, total_size, unreadable_count, order, list });
    }
}
