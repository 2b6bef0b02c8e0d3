//! Renderers with hand-made messages.

use crate::pb;

use super::*;

fn rendered(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn machine(
    id: &str,
    phase: pb::Phase,
    effective: pb::EffectiveState,
    conditions: &[(pb::ConditionType, bool)],
) -> pb::Machine {
    pb::Machine {
        machine_id: id.to_owned(),
        status: Some(pb::MachineStatus {
            phase: phase.into(),
            effective_state: effective.into(),
            conditions: conditions
                .iter()
                .map(|(kind, status)| pb::Condition {
                    r#type: (*kind).into(),
                    status: *status,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn hybrid_example() -> Vec<pb::Machine> {
    use pb::ConditionType::{Degraded, InCustomerCluster};
    let mut third =
        machine("machine-3", pb::Phase::FactoryReady, pb::EffectiveState::Provisioning, &[]);
    third.status.as_mut().unwrap().active_run_id =
        "0190f5fe-7c00-7a00-8000-000000000000".to_owned();
    vec![
        machine(
            "machine-1",
            pb::Phase::Ready,
            pb::EffectiveState::InService,
            &[(InCustomerCluster, true)],
        ),
        machine(
            "machine-2",
            pb::Phase::Maintenance,
            pb::EffectiveState::Maintenance,
            &[(InCustomerCluster, true), (Degraded, true)],
        ),
        third,
    ]
}

#[test]
fn the_example_rows_of_the_hybrid_model() {
    let text = rendered(|out| write_machines(out, Look::default(), &hybrid_example(), true));
    // MACHINE, PHASE, EFFECTIVE and CONDITIONS as in the description of the model.
    let expected = [
        ["machine-1", "READY", "IN_SERVICE", "InCustomerCluster=✓"],
        ["machine-2", "MAINTENANCE", "MAINTENANCE", "InCustomerCluster=✓, Degraded=✓"],
        ["machine-3", "FACTORY_READY", "PROVISIONING", "(active run)"],
    ];
    for (line, [id, phase, effective, conditions]) in text.lines().skip(1).zip(expected) {
        assert!(line.starts_with(&format!("{id:13} {phase:14} {effective:14} ")), "{line}");
        assert!(line.ends_with(&format!(" {conditions}")), "{line}");
    }
    crate::assert_golden!("list_wide", text);
}

#[test]
fn the_list_has_the_shape_of_the_seed() {
    let machines: Vec<pb::Machine> = (1..=3)
        .map(|n| {
            machine(
                &format!("machine-{n}"),
                pb::Phase::FactoryReady,
                pb::EffectiveState::FactoryReady,
                &[],
            )
        })
        .collect();
    let text = rendered(|out| write_machines(out, Look::default(), &machines, false));
    assert_eq!(
        text,
        "\
MACHINE_ID    PHASE          EFFECTIVE      REACHABLE  IN_CLUSTER  ACTIVE_RUN
machine-1     FACTORY_READY  FACTORY_READY  -          -           -
machine-2     FACTORY_READY  FACTORY_READY  -          -           -
machine-3     FACTORY_READY  FACTORY_READY  -          -           -
"
    );
}

#[test]
fn marks_take_one_column_and_long_ids_widen_theirs() {
    use pb::ConditionType::{InCustomerCluster, Reachable};
    let machines = [
        machine(
            "a-machine-with-a-long-name",
            pb::Phase::Ready,
            pb::EffectiveState::InService,
            &[(Reachable, true), (InCustomerCluster, false)],
        ),
        machine("m\u{1b}[2J", pb::Phase::Ready, pb::EffectiveState::Ready, &[]),
    ];
    let plain = rendered(|out| write_machines(out, Look::default(), &machines, false));
    let ascii = Look { ascii: true, ..Look::default() };
    let ascii = rendered(|out| write_machines(out, ascii, &machines, false));
    assert!(ascii.is_ascii());
    let color = Look { color: true, ..Look::default() };
    let colored = rendered(|out| write_machines(out, color, &machines, false));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    crate::assert_golden!(
        "list_long_ids",
        format!("{plain}\n{ascii}\n{}", colored.replace('\u{1b}', "ESC"))
    );
}

#[test]
fn the_import_table_has_the_shape_of_the_seed() {
    let mut one =
        machine("machine-1", pb::Phase::FactoryReady, pb::EffectiveState::FactoryReady, &[]);
    one.spec = Some(pb::MachineSpec {
        mac_addresses: vec!["02:00:00:00:00:01".to_owned()],
        ..Default::default()
    });
    let text = rendered(|out| {
        write_import_header(out, Look::default(), 9)?;
        write_import_row(out, &one, 9)
    });
    assert_eq!(
        text,
        "MACHINE_ID    MAC                 PHASE\nmachine-1     02:00:00:00:00:01   FACTORY_READY\n"
    );
}

fn step(name: &str, state: pb::StepState, attempt: i32, message: &str) -> pb::StepStatus {
    pb::StepStatus {
        name: name.to_owned(),
        state: state.into(),
        attempt,
        message: message.to_owned(),
        max_attempts: 3,
        ..Default::default()
    }
}

fn run(phase: pb::RunPhase, steps: Vec<pb::StepStatus>) -> pb::Run {
    pb::Run {
        run_id: "abc12345-0000-7000-8000-000000000000".to_owned(),
        machine_id: "machine-1".to_owned(),
        r#type: pb::RunType::Repave.into(),
        plan_id: "plan/repave-join".to_owned(),
        phase: phase.into(),
        steps,
        started_at: Some(prost_types::Timestamp { seconds: 100, nanos: 0 }),
        finished_at: Some(prost_types::Timestamp { seconds: 102, nanos: 460_000_000 }),
        ..Default::default()
    }
}

/// Everything that a watcher sees of these snapshots.
fn watched(snapshots: &[pb::Run], look: Look) -> String {
    let mut progress = Progress::default();
    rendered(|out| {
        for (index, run) in snapshots.iter().enumerate() {
            if index == 0 {
                write_header(out, look, run)?;
            }
            for line in progress.advance(run) {
                write_line(out, look, &line)?;
            }
        }
        write_result(out, look, &snapshots[snapshots.len() - 1])
    })
}

#[test]
fn a_watched_run_has_the_shape_of_the_seed() {
    use pb::StepState::{Running, Succeeded, Waiting};
    let names = ["set-netboot", "repave", "mint-join", "join", "verify"];
    let snapshot = |done: usize, running: bool| {
        let steps = names.iter().enumerate().map(|(at, name)| match at {
            _ if at < done => step(name, Succeeded, 1, ""),
            _ if at == done && running => step(name, Running, 1, ""),
            _ => step(name, Waiting, 0, ""),
        });
        run(
            if done == 5 { pb::RunPhase::Succeeded } else { pb::RunPhase::Running },
            steps.collect(),
        )
    };
    let one_by_one: Vec<pb::Run> =
        (0..5).flat_map(|done| [snapshot(done, true), snapshot(done + 1, false)]).collect();
    let text = watched(&one_by_one, Look::default());
    let line = "─".repeat(61);
    assert_eq!(
        text,
        format!(
            "\
┌{line}
│ Run: abc12345-0000-7000-8000-000000000000
│ Machine: machine-1
│ Type: REPAVE | Plan: plan/repave-join
└{line}

→ set-netboot...
  ✓ set-netboot
→ repave...
  ✓ repave
→ mint-join...
  ✓ mint-join
→ join...
  ✓ join
→ verify...
  ✓ verify

┌{line}
│ ✓ SUCCEEDED
│ Duration: 2.5s
│ Steps: 5/5 completed
└{line}
"
        )
    );
    // Whatever a watcher misses between two snapshots, the lines are the same.
    for keep in 1..=one_by_one.len() {
        let coarse: Vec<pb::Run> = one_by_one
            .iter()
            .enumerate()
            .filter(|(at, _)| at % keep == 0 || *at == 9)
            .map(|(_, run)| run.clone())
            .collect();
        assert_eq!(watched(&coarse, Look::default()), text, "every {keep}th snapshot");
    }
    assert!(watched(&one_by_one, Look { ascii: true, ..Look::default() }).is_ascii());
}

#[test]
fn retries_failures_skips_and_cancels() {
    use pb::StepState::{Canceled, Failed, Running, Skipped, Succeeded, Waiting};
    let mut failed = run(
        pb::RunPhase::Failed,
        vec![
            step("drain", Skipped, 0, "guard says no"),
            step("repave", Failed, 3, "image checksum mismatch\u{1b}[2J"),
            step("join", Canceled, 0, ""),
            step("undo drain", Succeeded, 1, ""),
        ],
    );
    failed.steps[3].compensates = "drain".to_owned();
    failed.error = Some(pb::RunError {
        code: "STEP_FAILED".to_owned(),
        message: "repave: image checksum mismatch".to_owned(),
        ..Default::default()
    });
    let begun = run(
        pb::RunPhase::Running,
        vec![
            step("drain", Waiting, 0, ""),
            step("repave", Running, 1, ""),
            step("join", Waiting, 0, ""),
            step("undo drain", Waiting, 0, ""),
        ],
    );
    let mut again = begun.clone();
    again.steps[1] = step("repave", Running, 2, "BMC timed out");
    let canceled = run(
        pb::RunPhase::Canceled,
        vec![
            step("set-netboot", Succeeded, 1, ""),
            step("repave", Canceled, 1, ""),
            step("join", Canceled, 0, ""),
        ],
    );
    let color = Look { color: true, ..Look::default() };
    let text = [
        watched(&[begun.clone(), again, failed.clone()], Look::default()),
        watched(&[begun, failed.clone()], Look { ascii: true, ..Look::default() }),
        watched(&[canceled], Look::default()),
        watched(&[failed], color).replace('\u{1b}', "ESC"),
    ];
    crate::assert_golden!("watched_failures", text.join("\n"));
}

#[test]
fn a_hold_is_shown_once() {
    let mut held = run(pb::RunPhase::Running, vec![step("wipe", pb::StepState::Running, 1, "")]);
    held.finished_at = None;
    held.waiting = Some(pb::Waiting {
        reason: pb::WaitReason::OutcomeUnknown.into(),
        message: "wipe: the BMC does not answer".to_owned(),
        ..Default::default()
    });
    let mut progress = Progress::default();
    let first = progress.new_hold(&held).cloned();
    assert!(first.is_some());
    assert!(progress.new_hold(&held).is_none());
    let text = rendered(|out| write_hold(out, Look::default(), &first.unwrap()));
    assert_eq!(text, "  ⏸ held: OUTCOME_UNKNOWN wipe: the BMC does not answer\n");
    held.waiting = None;
    assert!(progress.new_hold(&held).is_none());
    held.waiting =
        Some(pb::Waiting { reason: pb::WaitReason::Paused.into(), ..Default::default() });
    assert!(progress.new_hold(&held).is_some());
}

#[test]
fn runs_and_plans_are_tables() {
    let mut going = run(pb::RunPhase::Running, vec![step("drain", pb::StepState::Running, 1, "")]);
    going.finished_at = None;
    going.machine_id = "machine-with-a-long-name".to_owned();
    going.current_step = "drain".to_owned();
    going.waiting =
        Some(pb::Waiting { reason: pb::WaitReason::Backoff.into(), ..Default::default() });
    let done = run(
        pb::RunPhase::Succeeded,
        vec![step("a", pb::StepState::Succeeded, 1, ""), step("b", pb::StepState::Skipped, 0, "")],
    );
    let runs = [done, going];
    let plan = pb::Plan {
        plan_id: "plan/rma".to_owned(),
        display_name: "Return to manufacturer".to_owned(),
        steps: ["drain", "wipe", "notify"]
            .map(|name| pb::PlanStep { name: name.to_owned(), ..Default::default() })
            .to_vec(),
        ..Default::default()
    };
    let now_ms = 165_000;
    let text = rendered(|out| {
        write_runs(out, Look::default(), &runs, now_ms, false)?;
        writeln!(out)?;
        write_runs(out, Look::default(), &runs, now_ms, true)?;
        writeln!(out)?;
        write_plans(out, Look::default(), &[plan])
    });
    crate::assert_golden!("runs_and_plans", text);
}

#[test]
fn history_says_who_and_why() {
    let entry = pb::HistoryEntry {
        at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
        kind: "phase.changed".to_owned(),
        from: "READY".to_owned(),
        to: "MAINTENANCE".to_owned(),
        reason: "fan is loud".to_owned(),
        actor: Some(pb::Actor {
            kind: "operator".to_owned(),
            name: "ops".to_owned(),
            verified: false,
        }),
        ..Default::default()
    };
    let step = pb::HistoryEntry {
        at: entry.at,
        kind: "step.succeeded".to_owned(),
        step: "repave".to_owned(),
        message: "image is on the disk".to_owned(),
        actor: Some(pb::Actor { kind: "engine".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    crate::assert_golden!(
        "history",
        rendered(|out| write_history(out, Look::default(), &[entry, step], 0, Subjects::default()))
    );
}

#[test]
fn details_of_the_server_become_lines_and_hints() {
    use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};
    let mut details = ErrorDetails::new();
    details.set_error_info(
        "INVALID_PARAMETER",
        "baremetal.v1",
        [("hint".to_owned(), "see plan describe".to_owned())],
    );
    details.set_bad_request(vec![FieldViolation::new("parameters.image", "must be one of a, b")]);
    details.set_precondition_failure(vec![PreconditionViolation::new(
        "PHASE",
        "machine-1",
        "RMA allows only RETIRED",
    )]);
    details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
    let status =
        tonic::Status::with_error_details(tonic::Code::InvalidArgument, "2 problems\u{7}", details);
    let error = super::super::error::Error::rpc(status);
    let text = rendered(|out| write_error(out, Look::default(), &error, &["machine-1".to_owned()]));
    crate::assert_golden!("error_details", text);
}

#[test]
fn a_narrow_terminal_gets_one_record_after_the_other() {
    let narrow = Look { columns: Some(40), ..Look::default() };
    let text = rendered(|out| {
        write_machines(out, narrow, &hybrid_example()[..2], true)?;
        write_header(out, narrow, &run(pb::RunPhase::Running, Vec::new()))
    });
    assert!(text.lines().all(|line| line.chars().count() <= 50));
    crate::assert_golden!("list_narrow", text);
}

#[test]
fn a_held_run_is_marked_and_only_the_steps_of_the_plan_are_counted() {
    let step = |name: &str, role: &str, state: pb::StepState| pb::StepStatus {
        name: name.to_owned(),
        role: role.to_owned(),
        state: state.into(),
        ..Default::default()
    };
    let run = pb::Run {
        run_id: "r-1".to_owned(),
        phase: pb::RunPhase::Running.into(),
        steps: vec![
            step("drain", "steps", pb::StepState::Succeeded),
            step("guarded", "steps", pb::StepState::Skipped),
            step("ask", "steps", pb::StepState::Failed),
            step("call", "on_failure", pb::StepState::Succeeded),
            step("tell", "finally", pb::StepState::Succeeded),
        ],
        waiting: Some(pb::Waiting {
            reason: pb::WaitReason::Approval.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let text = rendered(|out| write_runs(out, Look::default(), &[run], 0, false));
    assert!(text.contains(" HELD ") && text.contains(" 2/3 "), "{text}");
}
