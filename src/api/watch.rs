//! `WatchRuns` and `WatchMachines`: the hub's watches as streams of messages.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::unfold;
use prost::Message;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::caller::Caller;
use super::codec::Encoded;
use super::convert::history::{entry, summary};
use super::convert::machine::machine;
use super::convert::timestamp;
use super::identity::Ended;
use super::show;
use super::status::{Answers, ApiError};
use crate::executor::Engine;
use crate::executor::error::EngineError;
use crate::executor::feed::{Event, Start, WatchItem};
use crate::ids::{Revision, RunId};
use crate::model::filter::{Filter, Subject};
use crate::model::scope::Scope;
use crate::model::{Machine, Run};
use crate::pb;

type Items<T> = Pin<Box<dyn Stream<Item = Result<WatchItem<T>, EngineError>> + Send>>;

/// Opens a watch of runs.
pub(super) async fn runs(
    engine: &Engine,
    caller: &Caller,
    request: pb::WatchRunsRequest,
) -> Result<Answers<Encoded<pb::RunEvent>>, ApiError> {
    let filter =
        Filter::parse_at(&request.filter, Subject::Run, engine.clock().now())?.and(caller.sees());
    if let Some(id) = filter.pinned("run_id") {
        // A watch of a run that does not exist would stay silent forever.
        let id = RunId::parse(id)
            .map_err(|error| EngineError::invalid("filter", format!("run_id {error}")))?;
        caller.run(engine, id).await?;
    }
    let options = Options {
        resume_from: request.resume_from,
        allow_bookmarks: request.allow_bookmarks,
        allow_reset: request.allow_reset,
        changes_only: request.changes_only,
    };
    watch::<Run>(engine, caller, filter, options).await
}

/// Opens a watch of machines.
pub(super) async fn machines(
    engine: &Engine,
    caller: &Caller,
    request: pb::WatchMachinesRequest,
) -> Result<Answers<Encoded<pb::MachineEvent>>, ApiError> {
    let filter = Filter::parse_at(&request.filter, Subject::Machine, engine.clock().now())?
        .and(caller.sees());
    let options = Options {
        resume_from: request.resume_from,
        allow_bookmarks: request.allow_bookmarks,
        allow_reset: request.allow_reset,
        changes_only: request.changes_only,
    };
    watch::<Machine>(engine, caller, filter, options).await
}

#[derive(Debug, Clone, Copy)]
struct Options {
    resume_from: u64,
    allow_bookmarks: bool,
    allow_reset: bool,
    changes_only: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Snapshot,
    Synced,
    Change,
    Removed,
    Bookmark,
    Reset,
}

/// A kind of record that clients watch.
trait Shown: Send + Sync + Sized + 'static {
    /// The message that clients receive.
    type Message: Message + Default + 'static;

    fn open(engine: &Engine, filter: Filter, start: Start) -> Items<Self>;
    /// The message of the record's present state.
    fn snapshot(engine: &Engine, record: &Self) -> impl Future<Output = Self::Message> + Send;
    /// The shared part of an event: without its kind and resume point, which differ between watches.
    fn event(engine: &Engine, event: &Event<Self>) -> impl Future<Output = Self::Message> + Send;
    /// A message that says how many records are left out because they cannot be read.
    fn left_out(unreadable_count: u64) -> Self::Message;
    /// Whether a caller with this scope may see the record.
    fn is_within(scope: &Scope, record: &Self) -> bool;
    /// What a watch says of a record that has left what its caller may see: that it is gone, and nothing of how it is now.
    fn gone(event: &Event<Self>) -> Self::Message;
    /// A message with only its kind and resume point.
    fn bare(kind: Kind, resume: Revision) -> Self::Message;
    /// Marks a message as of this kind.
    fn of_kind(kind: Kind, resume: Revision, message: Self::Message) -> Self::Message;
    /// Marks a message as current, and of this kind.
    fn now(engine: &Engine, kind: Kind, resume: Revision, message: Self::Message) -> Self::Message;
}

macro_rules! shown {
    ($record:ty, $message:ident, $kinds:ident, $watch:ident, $show:expr, $ids:expr, $takes:ident, $only_id:expr) => {
        impl Shown for $record {
            type Message = pb::$message;

            fn open(engine: &Engine, filter: Filter, start: Start) -> Items<Self> {
                Box::pin(engine.watch().$watch(engine.store().clone(), filter, start))
            }

            async fn snapshot(engine: &Engine, record: &Self) -> pb::$message {
                pb::$message { snapshot: Some($show(engine, record).await), ..Default::default() }
            }

            async fn event(engine: &Engine, event: &Event<Self>) -> pb::$message {
                let (machine_id, run_id) = $ids(&*event.record);
                let entries = event.entries.iter();
                pb::$message {
                    ts: Some(timestamp(event.at)),
                    message: summary(&event.entries),
                    entries: entries
                        .map(|one| entry(one, event.revision, event.at, &machine_id, &run_id))
                        .collect(),
                    ..Self::snapshot(engine, &event.record).await
                }
            }

            fn is_within(scope: &Scope, record: &Self) -> bool {
                scope.$takes(record)
            }

            fn gone(event: &Event<Self>) -> pb::$message {
                let snapshot = Some($only_id(&*event.record));
                pb::$message { ts: Some(timestamp(event.at)), snapshot, ..Default::default() }
            }

            fn left_out(unreadable_count: u64) -> pb::$message {
                pb::$message { unreadable_count, ..Default::default() }
            }

            fn bare(kind: Kind, resume: Revision) -> pb::$message {
                let kind = match kind {
                    Kind::Snapshot => pb::$kinds::Snapshot,
                    Kind::Synced => pb::$kinds::Synced,
                    Kind::Change => pb::$kinds::Change,
                    Kind::Removed => pb::$kinds::Removed,
                    Kind::Bookmark => pb::$kinds::Bookmark,
                    Kind::Reset => pb::$kinds::Reset,
                };
                pb::$message { r#type: kind.into(), revision: resume.0, ..Default::default() }
            }

            fn of_kind(kind: Kind, resume: Revision, message: pb::$message) -> pb::$message {
                let pb::$message { r#type, revision, .. } = Self::bare(kind, resume);
                pb::$message { r#type, revision, ..message }
            }

            fn now(
                engine: &Engine,
                kind: Kind,
                resume: Revision,
                message: pb::$message,
            ) -> pb::$message {
                let ts = Some(timestamp(engine.clock().now()));
                Self::of_kind(kind, resume, pb::$message { ts, ..message })
            }
        }
    };
}

shown!(
    Run,
    RunEvent,
    RunEventType,
    watch_runs,
    show::run,
    |run: &Run| { (run.machine_id.to_string(), run.id.to_string()) },
    takes_run,
    |run: &Run| pb::Run { run_id: run.id.to_string(), ..Default::default() }
);
shown!(
    Machine,
    MachineEvent,
    MachineEventType,
    watch_machines,
    |_: &Engine, record: &Machine| std::future::ready(machine(record)),
    |machine: &Machine| (machine.id.to_string(), String::new()),
    takes_machine,
    |machine: &Machine| pb::Machine { machine_id: machine.id.to_string(), ..Default::default() }
);

/// Opens a watch. Errors known now are answered at once, not by a stream that fails.
async fn watch<T: Shown>(
    engine: &Engine,
    caller: &Caller,
    filter: Filter,
    options: Options,
) -> Result<Answers<Encoded<T::Message>>, ApiError> {
    let mut reset = false;
    if options.resume_from > 0 {
        let (newest, oldest) = engine.store().revisions().await?;
        if Revision(options.resume_from) < oldest && !options.allow_reset {
            return Err(EngineError::Compacted { oldest }.into());
        }
        // A revision that this store has not reached is one of another store: of one that was replaced or restored.
        reset = Revision(options.resume_from) > newest && options.allow_reset;
    }
    let start = match (options.resume_from, options.changes_only) {
        _ if reset => Start::Snapshot,
        (0, false) => Start::Snapshot,
        (0, true) => Start::Now,
        (revision, _) => Start::Resume(Revision(revision)),
    };
    let items = T::open(engine, filter.clone(), start);
    let watch = Watch {
        engine: engine.clone(),
        items,
        filter,
        scope: caller.scope().cloned(),
        options,
        reset,
        last: Revision(if reset { 0 } else { options.resume_from }),
        unreadable_count: 0,
    };
    let messages = unfold(Some((watch, caller.ended())), |watching| async move {
        let (mut watch, mut ended) = watching?;
        let message = tokio::select! {
            biased;
            () = &mut ended => {
                let error = ApiError::CredentialsEnded { resume_from: watch.last.0 };
                return Some((Err(error.into()), None));
            }
            message = watch.next() => message?.map_err(|error| ApiError::from(error).into()),
        };
        Some((message, Some((watch, ended))))
    });
    Ok(Box::pin(messages.fuse()))
}

/// A stream until the credentials of its caller end.
pub(super) fn while_accepted<T: Send + 'static>(
    items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ended: Ended,
) -> Answers<T> {
    let items: Answers<T> = Box::pin(items);
    Box::pin(unfold(Some((items, ended)), |state| async move {
        let (mut items, mut ended) = state?;
        let item = tokio::select! {
            biased;
            () = &mut ended => {
                return Some((Err(ApiError::CredentialsEnded { resume_from: 0 }.into()), None));
            }
            item = items.next() => item?,
        };
        Some((item, Some((items, ended))))
    }))
}

struct Watch<T> {
    engine: Engine,
    items: Items<T>,
    filter: Filter,
    /// What the caller may see.
    scope: Option<Arc<Scope>>,
    options: Options,
    /// Whether the first message is a RESET.
    reset: bool,
    /// Where the client resumes after what it was sent.
    last: Revision,
    /// How many records the list before the next SYNCED left out.
    unreadable_count: u64,
}

impl<T: Shown> Watch<T> {
    async fn next(&mut self) -> Option<Result<Encoded<T::Message>, EngineError>> {
        if std::mem::take(&mut self.reset) {
            return Some(Ok(self.now(Kind::Reset, Revision(0), T::Message::default())));
        }
        loop {
            let message = match self.items.next().await? {
                Ok(WatchItem::Bookmark(_)) if !self.options.allow_bookmarks => continue,
                Ok(WatchItem::Snapshot(record, _)) => {
                    let message = T::snapshot(&self.engine, &record).await;
                    // No revision: a client that stops here does not have all of the present state yet.
                    self.now(Kind::Snapshot, Revision(0), message)
                }
                Ok(WatchItem::LeftOut(count)) => {
                    // What cannot be read may be anyone's.
                    self.unreadable_count += if self.scope.is_some() { 0 } else { count };
                    continue;
                }
                Ok(WatchItem::Synced(revision)) => {
                    self.last = revision;
                    let message = T::left_out(std::mem::take(&mut self.unreadable_count));
                    self.now(Kind::Synced, revision, message)
                }
                Ok(WatchItem::Bookmark(revision)) => {
                    self.last = revision;
                    self.now(Kind::Bookmark, revision, T::Message::default())
                }
                Ok(WatchItem::Change { event, resume }) => {
                    self.last = resume;
                    encoded(&self.engine, Kind::Change, resume, &event).await
                }
                Ok(WatchItem::Removed { event, resume }) => {
                    self.last = resume;
                    match &self.scope {
                        Some(scope) if !T::is_within(scope, &event.record) => {
                            T::of_kind(Kind::Removed, resume, T::gone(&event)).into()
                        }
                        Some(_) | None => {
                            encoded(&self.engine, Kind::Removed, resume, &event).await
                        }
                    }
                }
                Err(EngineError::Compacted { .. }) if self.options.allow_reset => {
                    self.items = T::open(&self.engine, self.filter.clone(), Start::Snapshot);
                    self.unreadable_count = 0;
                    self.last = Revision(0);
                    self.now(Kind::Reset, Revision(0), T::Message::default())
                }
                Err(error) => return Some(Err(error)),
            };
            return Some(Ok(message));
        }
    }

    fn now(&self, kind: Kind, resume: Revision, message: T::Message) -> Encoded<T::Message> {
        T::now(&self.engine, kind, resume, message).into()
    }
}

/// An event, encoded once for all watchers.
async fn encoded<T: Shown>(
    engine: &Engine,
    kind: Kind,
    resume: Revision,
    event: &Event<T>,
) -> Encoded<T::Message> {
    let encode = || async { T::event(engine, event).await.encode_to_vec().into() };
    let shared: &Arc<[u8]> = event.encoded.get_or_init(encode).await;
    Encoded::new(shared.clone(), T::bare(kind, resume))
}
