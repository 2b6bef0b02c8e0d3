//! Clients that keep a copy of what they list and watch, as any client of the API would.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, SystemClock};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A page of a list: its objects, the token of the next, the revision at which it was read.
pub(crate) type Page<T> = (Vec<T>, String, u64);

/// An event of a watch, of either kind.
pub(crate) enum News<T> {
    Snapshot(T),
    Synced,
    Change(T),
    Removed(T),
    Bookmark,
    Unexpected(i32),
}

/// The objects that the API lists and watches.
pub(crate) trait Kept: Clone + PartialEq + Debug + Send + Sync + 'static {
    fn id(&self) -> &str;

    fn page(
        channel: Channel,
        filter: &str,
        page_size: i32,
        page_token: String,
    ) -> impl Future<Output = Result<Page<Self>, Status>> + Send;

    /// Events, each with the revision to resume from.
    fn watch(
        channel: Channel,
        filter: &str,
        resume_from: u64,
    ) -> impl Future<
        Output = Result<
            impl Stream<Item = Result<(News<Self>, u64), Status>> + Send + Unpin + use<Self>,
            Status,
        >,
    > + Send;
}

impl Kept for pb::Machine {
    fn id(&self) -> &str {
        &self.machine_id
    }

    async fn page(
        channel: Channel,
        filter: &str,
        page_size: i32,
        page_token: String,
    ) -> Result<Page<Self>, Status> {
        let filter = filter.to_owned();
        let request =
            pb::ListMachinesRequest { filter, page_size, page_token, ..Default::default() };
        let page = MachineServiceClient::new(channel).list_machines(request).await?.into_inner();
        Ok((page.machines, page.next_page_token, page.revision))
    }

    async fn watch(
        channel: Channel,
        filter: &str,
        resume_from: u64,
    ) -> Result<impl Stream<Item = Result<(News<Self>, u64), Status>> + Send + Unpin + use<>, Status>
    {
        let filter = filter.to_owned();
        let request = pb::WatchMachinesRequest {
            filter,
            resume_from,
            allow_bookmarks: true,
            ..Default::default()
        };
        let events = MachineServiceClient::new(channel).watch_machines(request).await?.into_inner();
        Ok(events.map(|event| {
            let event = event?;
            let (kind, object) = (event.r#type, event.snapshot.clone().unwrap_or_default());
            let news = match event.r#type() {
                pb::MachineEventType::Snapshot => News::Snapshot(object),
                pb::MachineEventType::Synced => News::Synced,
                pb::MachineEventType::Change => News::Change(object),
                pb::MachineEventType::Removed => News::Removed(object),
                pb::MachineEventType::Bookmark => News::Bookmark,
                pb::MachineEventType::Reset | pb::MachineEventType::Unspecified => {
                    News::Unexpected(kind)
                }
            };
            Ok((news, event.revision))
        }))
    }
}

impl Kept for pb::Run {
    fn id(&self) -> &str {
        &self.run_id
    }

    async fn page(
        channel: Channel,
        filter: &str,
        page_size: i32,
        page_token: String,
    ) -> Result<Page<Self>, Status> {
        let filter = filter.to_owned();
        let request = pb::ListRunsRequest { filter, page_size, page_token, ..Default::default() };
        let page = RunServiceClient::new(channel).list_runs(request).await?.into_inner();
        Ok((page.runs, page.next_page_token, page.revision))
    }

    async fn watch(
        channel: Channel,
        filter: &str,
        resume_from: u64,
    ) -> Result<impl Stream<Item = Result<(News<Self>, u64), Status>> + Send + Unpin + use<>, Status>
    {
        let filter = filter.to_owned();
        let request = pb::WatchRunsRequest {
            filter,
            resume_from,
            allow_bookmarks: true,
            ..Default::default()
        };
        let events = RunServiceClient::new(channel).watch_runs(request).await?.into_inner();
        Ok(events.map(|event| {
            let event = event?;
            let (kind, object) = (event.r#type, event.snapshot.clone().unwrap_or_default());
            let news = match event.r#type() {
                pb::RunEventType::Snapshot => News::Snapshot(object),
                pb::RunEventType::Synced => News::Synced,
                pb::RunEventType::Change => News::Change(object),
                pb::RunEventType::Removed => News::Removed(object),
                pb::RunEventType::Bookmark => News::Bookmark,
                pb::RunEventType::Reset | pb::RunEventType::Unspecified => News::Unexpected(kind),
            };
            Ok((news, event.revision))
        }))
    }
}

/// Every page of a list, and the revision of the first: from there a watch misses nothing.
pub(crate) async fn list<T: Kept>(
    channel: &Channel,
    filter: &str,
    page_size: i32,
) -> Result<(Vec<T>, u64), Status> {
    let mut all = Vec::new();
    let (mut token, mut as_of) = (String::new(), None);
    loop {
        let (page, next, revision) = T::page(channel.clone(), filter, page_size, token).await?;
        all.extend(page);
        as_of.get_or_insert(revision);
        if next.is_empty() {
            return Ok((all, as_of.unwrap_or_default()));
        }
        token = next;
    }
}

/// Objects by id.
pub(crate) type Objects<T> = BTreeMap<String, Arc<T>>;

pub(crate) fn by_id<T: Kept>(objects: Vec<T>) -> Objects<T> {
    objects.into_iter().map(|object| (object.id().to_owned(), Arc::new(object))).collect()
}

/// A client's state.
pub(crate) struct Copy<T> {
    pub(crate) filter: &'static str,
    pub(crate) objects: Objects<T>,
    /// Where the watch resumes; zero before the copy is complete.
    pub(crate) resume: u64,
    /// How often an object was reported as removed.
    pub(crate) removals: usize,
    /// How often it resumed after a lost connection.
    pub(crate) resumed: usize,
    /// The copy at every point where a watch can be resumed.
    pub(crate) seen: Vec<(u64, Objects<T>)>,
}

impl<T: Kept> Copy<T> {
    pub(crate) fn new(filter: &'static str) -> Self {
        let (objects, seen) = Default::default();
        Self { filter, objects, resume: 0, removals: 0, resumed: 0, seen }
    }

    /// A client that starts with the known state at a revision.
    pub(crate) fn at(filter: &'static str, resume: u64, objects: Objects<T>) -> Self {
        Self { objects, resume, ..Self::new(filter) }
    }

    fn take(&mut self, news: News<T>, revision: u64) {
        let is_synced = self.resume > 0;
        match news {
            News::Snapshot(object) => {
                assert!(!is_synced, "a snapshot after the list: {object:?}");
                self.objects.insert(object.id().to_owned(), Arc::new(object));
            }
            News::Synced => assert!(!is_synced, "synced twice"),
            News::Change(object) => {
                self.objects.insert(object.id().to_owned(), Arc::new(object));
            }
            News::Removed(object) => {
                self.removals += 1;
                self.objects.remove(object.id());
            }
            News::Bookmark => {}
            News::Unexpected(kind) => panic!("an event that was not asked for: {kind}"),
        }
        assert!(revision == 0 || revision >= self.resume, "{revision} after {}", self.resume);
        if revision > self.resume {
            self.resume = revision;
            self.seen.push((revision, self.objects.clone()));
        }
    }

    /// Starts over: with a list and a watch from there, or with a watch alone.
    async fn begin(&mut self, channel: &Channel, random: &mut SplitMix64) -> Result<(), Status> {
        self.objects.clear();
        if random.chance(1, 2) {
            let page_size = 1 + i32::try_from(random.below(4)).unwrap();
            let (objects, as_of) = list::<T>(channel, self.filter, page_size).await?;
            self.objects = by_id(objects);
            // A store without any commit is at revision zero.
            self.resume = as_of;
        }
        Ok(())
    }

    /// Watches over connections that break, by themselves and with the server, until everything is received up to the
    /// revision that `settle` names.
    pub(crate) async fn follow(
        mut self,
        mut random: SplitMix64,
        channels: watch::Receiver<Channel>,
        mut settle: watch::Receiver<Option<u64>>,
    ) -> Self {
        loop {
            let channel = channels.borrow().clone();
            let mut events_left = match *settle.borrow() {
                Some(_) => u64::MAX,
                None => 1 + random.below(40),
            };
            let watching = async {
                if self.resume == 0 {
                    self.begin(&channel, &mut random).await?;
                } else {
                    self.resumed += 1;
                }
                let mut events = T::watch(channel, self.filter, self.resume).await?;
                while events_left > 0 {
                    if settle.borrow().is_some_and(|head| self.resume >= head) {
                        return Ok(true);
                    }
                    tokio::select! {
                        event = events.next() => {
                            let Some(event) = event else { return Ok(false) };
                            let (news, revision) = event?;
                            self.take(news, revision);
                            events_left -= 1;
                        }
                        changed = settle.changed() => if changed.is_err() {
                            return Ok(true);
                        },
                    }
                }
                Ok::<_, Status>(false)
            };
            match watching.await {
                Ok(true) => return self,
                Ok(false) => {}
                // Errors while a server goes away; nothing is wrong with the watch itself.
                Err(status) => {
                    let broken =
                        [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
                    assert!(broken.contains(&status.code()), "{:?}: {status:?}", self.filter);
                    let ours = status.metadata().contains_key("bmdemo-version");
                    assert!(!ours || status.code() == Code::Unavailable, "{status:?}");
                    SystemClock::new().sleep(Duration::from_millis(5)).await;
                }
            }
            if self.resume == 0 {
                self.objects.clear();
            }
        }
    }
}
