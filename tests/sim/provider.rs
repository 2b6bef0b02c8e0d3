//! The provider as one incarnation reaches it, over a wire that is slow and that outlives the incarnation.

use std::sync::Arc;
use std::task::Poll;

use bmdemo::ids::Epoch;
use bmdemo::provider::fake::{FakeProvider, World};
use bmdemo::provider::{
    Acted, Call, Capabilities, Fut, Health, Logs, Observation, Provider, ProviderError, Target,
    Verification,
};
use tokio::sync::oneshot;

use crate::gate::{Incarnation, Life};
use crate::oracle::{Answered, Asked};
use crate::sim::{CallKind, Point, Sim, poll_once};

/// The fake provider, seen by one incarnation.
#[derive(Clone)]
pub(crate) struct SimProvider {
    pub(crate) sim: Arc<Sim>,
    pub(crate) who: Incarnation,
    pub(crate) world: World,
    /// While there is trouble.
    pub(crate) rough: Arc<FakeProvider>,
    /// Once the world has healed.
    pub(crate) calm: Arc<FakeProvider>,
}

impl std::fmt::Debug for SimProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimProvider").field("who", &self.who).finish_non_exhaustive()
    }
}

/// A call on the wire. Dropping it cuts the wire, but what a dead incarnation has sent arrives.
struct Wire {
    sim: Arc<Sim>,
    who: Incarnation,
    task: tokio::task::AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.sim.gates.life(self.who) == Life::Open {
            self.task.abort();
        }
    }
}

impl SimProvider {
    fn provider(&self) -> Arc<FakeProvider> {
        if self.sim.is_healed() { self.calm.clone() } else { self.rough.clone() }
    }

    async fn send<T: Answered + Send + 'static>(
        &self,
        asked: Asked,
        call: impl FnOnce(Arc<FakeProvider>) -> Fut<'static, T> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let (sim, who) = (&self.sim, self.who);
        sim.point(who, Point::BeforeCall(asked.kind, asked.call.as_ref())).await;
        sim.oracle().sent(&asked);
        let (reply, answer) = oneshot::channel();
        let this = self.clone();
        let late = sim.trouble(sim.profile.late_permille);
        let travel_ms = if late { sim.profile.late_ms } else { sim.profile.wire_ms };
        let travel_ms = sim.below(travel_ms);
        let kind = asked.kind;
        let operation = asked.call.clone();
        let task = tokio::spawn(async move {
            if travel_ms > 0 {
                this.sim.sleep_ms(travel_ms).await;
            }
            let acts = asked.kind == CallKind::Act;
            let begun_before = if acts { this.world.ledger().len() } else { 0 };
            let mut going = call(this.provider());
            let answer = poll_once(&mut going).await;
            let ledger = if acts { this.world.ledger() } else { Vec::new() };
            {
                let mut oracle = this.sim.oracle();
                for entry in ledger.iter().skip(begun_before) {
                    oracle.began(&asked, entry, &ledger);
                }
                if let Poll::Ready(answer) = &answer {
                    oracle.answered(&asked, answer.as_ref().map(Answered::look));
                }
            }
            let answer = match answer {
                Poll::Ready(answer) => answer,
                Poll::Pending => going.await,
            };
            drop(reply.send(answer));
        });
        let wire = Wire { sim: sim.clone(), who, task: task.abort_handle() };
        let answer = answer.await;
        sim.point(who, Point::AfterCall(kind, operation.as_ref())).await;
        sim.delay(sim.profile.wire_ms).await;
        sim.gates.pass(who).await;
        drop(wire);
        match answer {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    fn asked(&self, kind: CallKind, target: &Target, call: Option<&Call>, epoch: Epoch) -> Asked {
        let machine = target.machine_id.clone();
        Asked { by: self.who, kind, machine, call: call.cloned(), epoch }
    }
}

impl Provider for SimProvider {
    fn name(&self) -> &str {
        self.calm.name()
    }

    fn capabilities(&self, target: &Target) -> Capabilities {
        self.calm.capabilities(target)
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        let asked = self.asked(CallKind::Fence, target, None, epoch);
        let target = target.clone();
        Box::pin(self.send(asked, move |provider| {
            Box::pin(async move { provider.fence(&target, epoch, uses).await })
        }))
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        let asked = self.asked(CallKind::Observe, target, Some(call), call.epoch);
        let (target, call) = (target.clone(), call.clone());
        Box::pin(self.send(asked, move |provider| {
            Box::pin(async move { provider.observe(&target, &call, logs).await })
        }))
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        let asked = self.asked(CallKind::Act, target, Some(call), call.epoch);
        let (target, call) = (target.clone(), call.clone());
        Box::pin(self.send(asked, move |provider| {
            Box::pin(async move { provider.act(&target, &call, logs).await })
        }))
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        let asked = self.asked(CallKind::Verify, target, Some(call), call.epoch);
        let (target, call) = (target.clone(), call.clone());
        Box::pin(self.send(asked, move |provider| {
            Box::pin(async move { provider.verify(&target, &call, logs).await })
        }))
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        let asked = self.asked(CallKind::Stop, target, Some(call), call.epoch);
        let (target, call) = (target.clone(), call.clone());
        Box::pin(self.send(asked, move |provider| {
            Box::pin(async move { provider.stop(&target, &call).await })
        }))
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        let asked = self.asked(CallKind::Probe, target, None, Epoch(0));
        let target = target.clone();
        let is_swapped = self.sim.is_swapped(&target.machine_id);
        Box::pin(self.send(asked, move |provider| {
            Box::pin(async move {
                let mut health = provider.probe(&target).await?;
                if is_swapped && health.reachable {
                    health.facts.serial = format!("OTHER-{}", target.machine_id);
                }
                Ok(health)
            })
        }))
    }

    fn is_real(&self) -> bool {
        self.calm.is_real()
    }
}
