//! Many machines in one request, each with its own result.

use tokio::task::JoinSet;

use super::caller::Caller;
use super::convert::machine::machine;
use super::lists;
use super::register::{new_machine, reason};
use super::start::{self, Recipe};
use super::status::{ApiError, item_error};
use super::validate::Checks;
use crate::clock::Timestamp;
use crate::executor::Engine;
use crate::executor::error::EngineError;
use crate::executor::request::Origin;
use crate::ids::MachineId;
use crate::model::filter::{Filter, Subject};
use crate::pb;
use crate::store::Query;

/// Most machines in one request.
const BATCH_MAX: usize = 1000;

/// Runs of one batch that are being accepted at the same time: enough for the store to commit them in groups.
const IN_FLIGHT: usize = 64;

/// Registers machines, in the order given.
pub(super) async fn register_machines(
    engine: &Engine,
    caller: &Caller,
    mut request: pb::BatchRegisterMachinesRequest,
) -> Result<pb::BatchRegisterMachinesResponse, ApiError> {
    let (in_service, why) = (request.in_service, request.reason.clone());
    let origin = caller.origin(&mut request, &why, None);
    let given = &request.machines;
    let mut checks = Checks::default();
    reason(&mut checks, in_service, &why);
    if given.is_empty() || given.len() > BATCH_MAX {
        checks.refuse(
            "machines",
            format!("must have 1 to {BATCH_MAX} elements, not {}", given.len()),
        );
    }
    checks.done(Some(()))?;
    let mut outcomes: Vec<Option<Result<pb::Machine, ApiError>>> = Vec::new();
    let mut good = Vec::new();
    for given in given {
        let mut checks = Checks::default();
        let new = new_machine(engine, &mut checks, Some(given), in_service);
        match checks.done(new) {
            Ok(new) => {
                good.push(new);
                outcomes.push(None);
            }
            Err(error) => outcomes.push(Some(Err(error))),
        }
    }
    let registered = if request.validate_only {
        engine.would_register(&origin, good).await
    } else {
        engine.register_machines(&origin, good).await?
    };
    let mut registered = registered.into_iter();
    let results = given.iter().zip(outcomes).map(|(given, outcome)| {
        let outcome = outcome.unwrap_or_else(|| match registered.next() {
            Some(result) => result.map(|stored| machine(&stored)).map_err(ApiError::from),
            None => Err(EngineError::Internal("a result is missing".to_owned()).into()),
        });
        pb::MachineResult {
            machine_id: given.machine_id.clone(),
            outcome: Some(match outcome {
                Ok(machine) => pb::machine_result::Outcome::Machine(machine),
                Err(error) => pb::machine_result::Outcome::Error(item_error(error)),
            }),
        }
    });
    Ok(pb::BatchRegisterMachinesResponse { results: results.collect() })
}

/// Starts a run on each of many machines.
pub(super) async fn start_runs(
    engine: &Engine,
    caller: &Caller,
    mut request: pb::BatchStartRunsRequest,
) -> Result<pb::BatchStartRunsResponse, ApiError> {
    let mut checks = Checks::default();
    checks.request_id(&request.request_id);
    let recipe = start::recipe(
        &mut checks,
        start::Asked {
            plan_id: &request.plan_id,
            run_type: request.r#type,
            plan_digest: &request.plan_digest,
        },
        &request.parameters,
        request.force,
        &request.reason,
    );
    let chosen = choice(&mut checks, &request, engine.clock().now());
    let (recipe, chosen) = checks.done(recipe.zip(chosen))?;
    let machines = match chosen {
        Choice::Named(machines) => machines,
        Choice::Filter(filter, max) => matching(engine, filter.and(caller.sees()), max).await?,
    };
    // The list of machines is not part of the digest of each item: a repetition may name only the remaining ones.
    request.machine_ids.clear();
    request.filter.clear();
    request.max_machines = 0;
    let reason = request.reason.clone();
    let origin = caller.origin(&mut request, &reason, None);
    let results = start_each(engine, &origin, &recipe, machines, request.validate_only).await;
    Ok(pb::BatchStartRunsResponse { results: bounded(results) })
}

/// The results that fit one answer: what was started must be reported, even without the run itself.
fn bounded(mut results: Vec<pb::RunResult>) -> Vec<pb::RunResult> {
    if !lists::fit(&results) {
        for result in &mut results {
            if let Some(pb::run_result::Outcome::Run(run)) = &mut result.outcome {
                run.steps.clear();
                run.parameters.clear();
            }
        }
    }
    results
}

enum Choice {
    Named(Vec<MachineId>),
    Filter(Filter, usize),
}

fn choice(
    checks: &mut Checks,
    request: &pb::BatchStartRunsRequest,
    now: Timestamp,
) -> Option<Choice> {
    let max = match usize::try_from(request.max_machines) {
        Ok(0) => BATCH_MAX,
        Ok(max) if max <= BATCH_MAX => max,
        Ok(_) | Err(_) => {
            checks.refuse("max_machines", format!("must be 0 to {BATCH_MAX}"));
            BATCH_MAX
        }
    };
    match (request.machine_ids.is_empty(), request.filter.trim().is_empty()) {
        (true, true) => {
            checks.refuse("machine_ids", "must be given, or else a non-empty filter");
            None
        }
        (false, false) => {
            checks.refuse("filter", "must be empty when machine_ids are given");
            None
        }
        (true, false) => match Filter::parse_at(&request.filter, Subject::Machine, now) {
            Ok(filter) => Some(Choice::Filter(filter, max)),
            Err(error) => {
                checks.refuse("filter", error.to_string());
                None
            }
        },
        (false, true) => {
            let given = request.machine_ids.len();
            if given > BATCH_MAX {
                checks.refuse(
                    "machine_ids",
                    format!("must have at most {BATCH_MAX} elements, not {given}"),
                );
                return None;
            }
            let mut machines = Vec::with_capacity(given);
            for (place, id) in request.machine_ids.iter().enumerate() {
                let field = format!("machine_ids[{place}]");
                let Some(id) = checks.machine_id(&field, id) else { continue };
                machines.push(id);
            }
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = machines.iter().find(|id| !seen.insert(*id)) {
                checks.refuse("machine_ids", format!("{twice} is given twice"));
            }
            Some(Choice::Named(machines))
        }
    }
}

/// The machines that match, in the order of registration; refused if there are too many.
async fn matching(engine: &Engine, filter: Filter, max: usize) -> Result<Vec<MachineId>, ApiError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let query =
            Query { filter: filter.clone(), after, limit: BATCH_MAX + 1, ..Query::default() };
        let page = engine.store().machines(query).await?;
        found.extend(page.items.iter().map(|machine| machine.id.clone()));
        if found.len() > max {
            return Err(EngineError::invalid(
                "filter",
                format!("matches more than {max} machines: narrow it, or send several requests"),
            )
            .into());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

async fn start_each(
    engine: &Engine,
    origin: &Origin,
    recipe: &Recipe,
    machines: Vec<MachineId>,
    validate_only: bool,
) -> Vec<pb::RunResult> {
    let mut outcomes: Vec<Option<Result<pb::Run, ApiError>>> = vec![None; machines.len()];
    let mut waiting = machines.iter().enumerate();
    let mut starting = JoinSet::new();
    loop {
        while starting.len() < IN_FLIGHT
            && let Some((place, id)) = waiting.next()
        {
            let (engine, origin, new) = (engine.clone(), origin.clone(), recipe.on(id.clone()));
            starting.spawn(async move {
                let outcome = if let Err(error) = engine.may_start(&origin, &new).await {
                    Err(error.into())
                } else if validate_only {
                    start::dry_run(&engine, &origin, &new).await
                } else {
                    start::start(&engine, &origin, new).await
                };
                (place, outcome)
            });
        }
        match starting.join_next().await {
            Some(Ok((place, outcome))) => outcomes[place] = Some(outcome),
            // A panic becomes that machine's result, below.
            Some(Err(error)) => tracing::error!(%error, "a run of a batch was not started"),
            None => break,
        }
    }
    let results = machines.into_iter().zip(outcomes).map(|(id, outcome)| {
        let missing = || Err(EngineError::Internal("a result is missing".to_owned()).into());
        pb::RunResult {
            machine_id: id.to_string(),
            outcome: Some(match outcome.unwrap_or_else(missing) {
                Ok(run) => pb::run_result::Outcome::Run(run),
                Err(error) => pb::run_result::Outcome::Error(item_error(error)),
            }),
        }
    });
    results.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(count: usize, bytes: usize) -> Vec<pb::RunResult> {
        let parameters: std::collections::HashMap<_, _> =
            [("note".to_owned(), "x".repeat(bytes))].into();
        let result = |number| {
            let run_id = format!("run-{number}");
            let run = pb::Run {
                run_id,
                parameters: parameters.clone().into_iter().collect(),
                ..Default::default()
            };
            pb::RunResult {
                machine_id: format!("m-{number}"),
                outcome: Some(pb::run_result::Outcome::Run(run)),
            }
        };
        (0..count).map(result).collect()
    }

    #[test]
    fn results_that_are_too_large_come_without_steps() {
        let light = results(BATCH_MAX, 1024);
        assert_eq!(bounded(light.clone()), light);
        let heavy = bounded(results(BATCH_MAX, 4096));
        for (number, result) in heavy.iter().enumerate() {
            let Some(pb::run_result::Outcome::Run(run)) = &result.outcome else {
                panic!("{result:?}")
            };
            assert_eq!(run.run_id, format!("run-{number}"));
            assert!(run.parameters.is_empty());
        }
        assert!(lists::fit(&heavy));
        assert_eq!(bounded(Vec::new()), []);
    }
}
