//! The audit: in the commit that it speaks of, and a chain from its first entry to its last.

use super::*;
use crate::model::{AuditHead, AuditRow, Chain};
use crate::store::codec::decode_audit;
use crate::store::{Retention, TRIM_ROWS_MAX};

/// The whole audit, which must be a chain.
async fn verified(store: &dyn Store) -> Vec<AuditRow> {
    let (anchor, head) = store.audit_ends().await.unwrap();
    let mut chain = Chain::after(anchor, Some(head)).unwrap();
    let mut rows: Vec<AuditRow> = Vec::new();
    loop {
        let after = rows.last().map_or(0, |row| row.seq);
        // Pages of several sizes make up the whole.
        let page = store.audit(after, 1 + rows.len() % 7).await.unwrap();
        if page.is_empty() {
            assert_eq!(chain.end(), Ok(head));
            return rows;
        }
        page.iter().for_each(|row| chain.follow(row).unwrap());
        rows.extend(page);
    }
}

pub(super) async fn the_audit_is_written_with_what_it_speaks_of(fresh: Fresh) {
    let Fresh { mut store, reopen, clock, .. } = fresh;
    assert_eq!(store.audit_ends().await.unwrap(), Default::default());
    assert_eq!(store.audit(0, 9).await.unwrap(), []);
    for number in 1..=20 {
        clock.set(T0.plus_ms(number));
        let entry = samples::audit_entry(number);
        let write = machine_write(None, &samples::machine(number));
        let committed = store.commit(Batch { audit: vec![entry.clone()], ..Batch::of(write) });
        let committed = committed.await.unwrap();
        let rows = store.audit(number - 1, 9).await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].seq, rows[0].revision), (number, committed.revision));
        assert_eq!((rows[0].at, decode_audit(&rows[0].body)), (committed.at, Ok(entry)));
        if let Some(reopen) = reopen.as_ref().filter(|_| number % 6 == 0) {
            store = reopen(store);
        }
    }
    let several = (21..=25).map(samples::audit_entry).collect();
    store.commit(Batch { audit: several, ..Batch::default() }).await.unwrap();
    let rows = verified(&*store).await;
    assert!(rows.iter().map(|row| row.seq).eq(1..=25));
    assert!(rows[20..].iter().all(|row| row.revision == rows[20].revision));
}

pub(super) async fn a_refused_batch_is_not_in_the_audit(fresh: Fresh) {
    let store = &*fresh.store;
    let write = || machine_write(None, &samples::machine(1));
    let audited =
        |number| Batch { audit: vec![samples::audit_entry(number)], ..Batch::of(write()) };
    store.commit(audited(1)).await.unwrap();
    for number in 2..5 {
        store.commit(audited(number)).await.unwrap_err();
    }
    assert_eq!(verified(store).await.len(), 1);
    register(store, 2).await;
    assert_eq!(verified(store).await.len(), 1, "what has no entry is not in it");
}

pub(super) async fn the_audit_goes_on_after_what_was_deleted(fresh: Fresh) {
    let Fresh { mut store, reopen, clock, .. } = fresh;
    let add = async |store: &dyn Store, number: u64| {
        clock.set(T0.plus_ms(number * 1000));
        let audit = vec![samples::audit_entry(number)];
        store.commit(Batch { audit, ..Batch::default() }).await.unwrap();
    };
    let many = TRIM_ROWS_MAX as u64 + 40;
    for number in 1..=many {
        add(&*store, number).await;
    }
    let whole = verified(&*store).await;
    let keep = Retention { audit_before: T0, ..trims::KEEP };
    let trim = async |store: &dyn Store, policy| store.trim(policy).await.unwrap().audit;
    assert_eq!(trim(&*store, keep).await, 0);
    let by_age = Retention { audit_before: T0.plus_ms(11_000), ..keep };
    assert_eq!(trim(&*store, by_age).await, 10);
    assert_eq!(trim(&*store, by_age).await, 0);
    assert_eq!(verified(&*store).await, whole[10..]);
    let by_number = Retention { audit_max: 5, ..keep };
    assert_eq!(trim(&*store, by_number).await, TRIM_ROWS_MAX as u64, "a bounded number at a time");
    assert_eq!(trim(&*store, by_number).await, 25);
    assert_eq!(verified(&*store).await, whole[whole.len() - 5..]);
    // All of it: the next entry follows the last one all the same, after a restart too.
    trim(&*store, Retention { audit_before: LATER, ..keep }).await;
    let last = whole.last().map(|row| AuditHead { seq: row.seq, hash: row.hash });
    assert_eq!(store.audit_ends().await.unwrap().1, last.unwrap());
    if let Some(reopen) = &reopen {
        store = reopen(store);
    }
    add(&*store, many + 1).await;
    assert_eq!(verified(&*store).await[0].seq, many + 1);
    let (anchor, _) = store.audit_ends().await.unwrap();
    assert_eq!(Some(anchor), last);
}

/// An instant after every commit of a test.
const LATER: Timestamp = Timestamp(T0.0 + 1_000_000_000);
