use super::*;
use crate::plan::{Diagnostic, SourceFile, compile_actions, compile_with, render};

fn repave(script: &str) -> Simulation {
    Simulation {
        approve: Some(true),
        plans: Vec::new(),
        plan_id: "repave-join".to_owned(),
        after: Vec::new(),
        machines: 1,
        phase: None,
        labels: BTreeMap::new(),
        parameters: BTreeMap::new(),
        force: false,
        script: script.to_owned(),
        timing: None,
        seed: 1,
    }
}

fn took_ms(run: &pb::Run) -> i64 {
    let ms = |at: &Option<prost_types::Timestamp>| {
        at.as_ref().map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000)
    };
    ms(&run.finished_at) - ms(&run.started_at)
}

#[test]
fn a_run_takes_as_long_as_its_plan_expects() {
    let simulated = simulate(&repave("")).unwrap();
    let plan = BUILT_IN.iter().find(|plan| plan.id == "plan/repave-join").unwrap();
    let expected: u64 = plan.steps.iter().map(|step| step.expected_ms).sum();
    assert_eq!(simulated.runs[0].phase(), pb::RunPhase::Succeeded);
    assert_eq!(took_ms(&simulated.runs[0]), i64::try_from(expected).unwrap());
}

#[test]
fn a_simulation_replays_from_its_seed() {
    let chance = Simulation { machines: 20, ..repave("p=0.3 do=fail") };
    let texts: Vec<_> = [1, 1, 2]
        .map(|seed| simulate(&Simulation { seed, ..chance.clone() }).unwrap())
        .iter()
        .map(|simulated| format!("{:?}", simulated.events))
        .collect();
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}

#[test]
fn failures_are_played_and_a_hold_ends_the_simulation() {
    let hung = simulate(&repave("step=repave do=hang")).unwrap();
    let smooth = simulate(&repave("")).unwrap();
    assert!(took_ms(&hung.runs[0]) > took_ms(&smooth.runs[0]), "{:?}", hung.runs[0]);
    let failed = simulate(&repave("step=repave do=fail-permanent")).unwrap();
    assert_eq!(failed.runs[0].phase(), pb::RunPhase::Failed);
    let script = "step=repave do=fail-after; step=repave do=unknowable";
    let held = simulate(&repave(script)).unwrap();
    assert!(is_held_for_good(&held.runs[0]), "{:?}", held.runs[0]);
}

#[test]
fn machines_can_be_as_other_plans_leave_them() {
    let fresh = Simulation { plan_id: "upgrade".to_owned(), ..repave("") };
    let joined = Simulation { after: vec!["repave-join".to_owned()], ..fresh.clone() };
    let simulated = simulate(&joined).unwrap();
    let status = |machines: &[pb::Machine]| machines[0].status.clone().unwrap();
    assert_eq!(status(&simulated.before).effective_state(), pb::EffectiveState::InService);
    assert_eq!(simulated.runs[0].phase(), pb::RunPhase::Succeeded);
    assert!(
        simulated
            .events
            .iter()
            .all(|event| event.snapshot.as_ref().unwrap().plan_id == "plan/upgrade")
    );
    // Whatever repave-join refuses on a server it refuses here.
    let again = Simulation { plan_id: "repave-join".to_owned(), ..joined };
    let error = simulate(&again).unwrap_err();
    assert!(
        matches!(&error, SimulateError::Refused(status)
        if status.code() == tonic::Code::FailedPrecondition),
        "{error:?}"
    );
}

#[test]
fn mistakes_are_named() {
    let text = |simulation| simulate(&simulation).unwrap_err().to_string();
    assert!(text(repave("do=nothing")).contains("rule 1"));
    let plan = Simulation { plan_id: "repave-jion".to_owned(), ..repave("") };
    assert!(text(plan).contains("did you mean repave-join?"));
    let timing = Simulation { timing: Some("fast".to_owned()), ..repave("") };
    assert!(text(timing).contains("expected default, slow, zero"));
}

/// What the files of a folder below examples/ compile to.
fn compiled<T>(
    folder: &str,
    compile: impl Fn(&[SourceFile<'_>]) -> Result<T, Vec<Diagnostic>>,
) -> T {
    let folder = format!("{}/examples/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    let files: Vec<SourceFile<'_>> =
        files.iter().map(|(name, bytes)| SourceFile { name, bytes }).collect();
    compile(&files).unwrap_or_else(|diagnostics| panic!("{}", render(&files, &diagnostics, false)))
}

/// The plans of examples/plans, with the actions of examples/actions.
fn examples() -> Vec<Plan> {
    let actions = compiled("actions", compile_actions);
    compiled("plans", |files| compile_with(files, &actions))
}

/// A machine in service, and a value for every required parameter.
fn example(plan: &Plan, script: &str) -> Simulation {
    let required = plan.params.iter().filter(|param| param.required());
    Simulation {
        plans: vec![plan.clone()],
        plan_id: plan.id.to_string(),
        after: vec!["repave-join".to_owned()],
        parameters: required.map(|param| (param.name.to_string(), "0".to_owned())).collect(),
        force: true,
        ..repave(script)
    }
}

/// How a simulation ended, in a line: the run, the steps that did anything, whether the machine counts as in service.
fn ending(simulation: &Simulation) -> String {
    let simulated = simulate(simulation).unwrap();
    let run = &simulated.runs[0];
    let steps = run.steps.iter().filter(|step| step.attempt > 0).map(|step| {
        let mark = match step.state() {
            pb::StepState::Succeeded => "",
            pb::StepState::Failed => "!",
            pb::StepState::Canceled => "~",
            pb::StepState::Unspecified
            | pb::StepState::Waiting
            | pb::StepState::Running
            | pb::StepState::Skipped => "?",
        };
        format!("{}{mark}", step.name)
    });
    let status = simulated.after[0].status.clone().unwrap();
    let serves = status.conditions.iter().any(|condition| {
        condition.r#type() == pb::ConditionType::InCustomerCluster && condition.status
    });
    let phase = run.phase().as_str_name().trim_start_matches("RUN_PHASE_");
    let serves = if serves { "serves" } else { "does not serve" };
    format!("{phase}, {serves}: {}", steps.collect::<Vec<_>>().join(", "))
}

#[test]
fn the_examples_do_what_they_say_whatever_fails() {
    let mut table = String::from("`!` failed, `~` canceled, `?` held for an operator.\n");
    for plan in examples() {
        let mut line = |what: &str, simulation: &Simulation| {
            let _ = writeln!(table, "{what:<28} {}", ending(simulation));
        };
        line(&format!("\n{}", plan.name()), &example(&plan, ""));
        for step in plan.steps.iter() {
            if step.action.asks() {
                let asked = example(&plan, "");
                let no = Simulation { approve: Some(false), ..asked.clone() };
                line(&format!("  {}: no", step.name), &no);
                line(
                    &format!("  {}: no answer", step.name),
                    &Simulation { approve: None, ..asked },
                );
            }
            if step.action.is_own() {
                continue;
            }
            for fault in ["fail-permanent", "fail-after", "hang"] {
                let script = format!("step={} do={fault}", step.name);
                line(&format!("  {}: {fault}", step.name), &example(&plan, &script));
            }
        }
        table.push('\n');
    }
    crate::assert_golden!("example_plans", table);
}
