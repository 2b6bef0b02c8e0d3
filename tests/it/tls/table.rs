//! Every method, with what it is to callers: written by the documentation, and not by the code.

/// What a method is to callers with a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is about one machine or run: there, or not there.
    Object,
    /// It shows machines or runs: those of the scope.
    Shows,
    /// Each of its machines has a result: found, or refused.
    Each,
    /// It makes a machine: in the scope, or refused.
    Makes,
    /// Like `Object`, with a plan for admins: outside of the scope not there, inside of it for admins.
    AdminsObject,
    /// Like `Each`, with a plan for admins: the results of others say so.
    AdminsEach,
    /// It does not depend on machines.
    Same,
    /// It is not for callers with a scope.
    Fleet,
    /// Nor is this, and it would stop the cases that follow: the request lacks something, and changes nothing.
    Stops,
}

use Kind::{AdminsEach, AdminsObject, Each, Fleet, Makes, Object, Same, Shows, Stops};

/// Least caller, kind, and a request that is right in everything: every method, once. Written by the documentation, and
/// not by the code.
pub(super) const TABLE: &[(&str, &str, Kind, &str)] = &[
    (
        "RegisterMachine",
        "operator",
        Makes,
        r#"{"machine":{"machineId":"m-new","labels":{"tenant":"a"},"spec":{"provider":"fake"}}}"#,
    ),
    ("GetMachine", "viewer", Object, r#"{"machineId":"m-a"}"#),
    ("ListMachines", "viewer", Shows, "{}"),
    (
        "UpdateMachine",
        "operator",
        Object,
        r#"{"machine":{"machineId":"m-a","labels":{"note":"x"}},"updateMask":"labels.note"}"#,
    ),
    ("ClearIntervention", "operator", Object, r#"{"machineId":"m-a","reason":"a test"}"#),
    ("InspectMachine", "operator", Object, r#"{"machineId":"m-a"}"#),
    ("ListMachineHistory", "viewer", Object, r#"{"machineId":"m-a"}"#),
    ("DeleteMachine", "admin", Object, r#"{"machineId":"m-a","reason":"a test"}"#),
    (
        "BatchRegisterMachines",
        "operator",
        Each,
        r#"{"machines":[{"machineId":"m-a","labels":{"tenant":"a"},"spec":{"provider":"fake"}}]}"#,
    ),
    ("WatchMachines", "viewer", Shows, "{}"),
    ("ListHistory", "viewer", Shows, "{}"),
    ("GetPlan", "viewer", Same, r#"{"planId":"plan/rma"}"#),
    ("ListPlans", "viewer", Same, "{}"),
    ("GetServerInfo", "viewer", Same, "{}"),
    ("WhoAmI", "viewer", Same, "{}"),
    ("CheckAccess", "viewer", Same, r#"{"method":"StartRun"}"#),
    ("ListAudit", "admin", Fleet, "{}"),
    ("GetAuditHead", "admin", Fleet, "{}"),
    ("VerifyAudit", "admin", Fleet, "{}"),
    ("StopAll", "admin", Stops, "{}"),
    ("ResumeAll", "admin", Stops, "{}"),
    ("CreateLock", "admin", Stops, "{}"),
    ("DeleteLock", "admin", Stops, "{}"),
    ("ListLocks", "viewer", Fleet, "{}"),
    (
        "StartRun",
        "operator",
        Object,
        r#"{"machineId":"m-a","planId":"plan/reboot","reason":"a test"}"#,
    ),
    ("GetRun", "viewer", Object, r#"{"runId":"RUN"}"#),
    ("ListRuns", "viewer", Shows, "{}"),
    ("CancelRun", "operator", Object, r#"{"runId":"RUN"}"#),
    ("WatchRuns", "viewer", Shows, "{}"),
    ("StreamRunLogs", "viewer", Object, r#"{"runId":"RUN"}"#),
    ("AbortRun", "operator", Object, r#"{"runId":"RUN","reason":"a test"}"#),
    ("PauseRun", "operator", Object, r#"{"runId":"RUN"}"#),
    ("ResumeRun", "operator", Object, r#"{"runId":"RUN"}"#),
    ("RetryRun", "operator", Object, r#"{"runId":"RUN"}"#),
    ("SkipStep", "operator", Object, r#"{"runId":"RUN","step":"restart","reason":"a test"}"#),
    (
        "ResolveStep",
        "operator",
        Object,
        r#"{"runId":"RUN","step":"restart","resolution":"STEP_RESOLUTION_DONE","reason":"a test"}"#,
    ),
    ("ListRunHistory", "viewer", Object, r#"{"runId":"RUN"}"#),
    (
        "BatchStartRuns",
        "operator",
        Each,
        r#"{"machineIds":["m-a"],"planId":"plan/reboot","reason":"a test"}"#,
    ),
    ("WaitRun", "viewer", Object, r#"{"runId":"RUN"}"#),
];

/// Requests that differ by what they would do: what the plan destroys does not matter to roles as they are, force does.
pub(super) const ALSO: &[(&str, &str, Kind, &str)] = &[
    (
        "StartRun",
        "operator",
        Object,
        r#"{"machineId":"m-a","planId":"plan/rma","reason":"a test","validateOnly":true}"#,
    ),
    (
        "StartRun",
        "operator",
        Object,
        r#"{"machineId":"m-a","planId":"plan/repave-join","reason":"a test","validateOnly":true}"#,
    ),
    (
        "StartRun",
        "admin",
        Object,
        r#"{"machineId":"m-a","planId":"plan/reboot","reason":"a test","force":true,"validateOnly":true}"#,
    ),
    (
        "BatchStartRuns",
        "operator",
        Each,
        r#"{"machineIds":["m-a"],"planId":"plan/rma","reason":"a test","validateOnly":true}"#,
    ),
    (
        "BatchStartRuns",
        "admin",
        Each,
        r#"{"machineIds":["m-a"],"planId":"plan/rma","reason":"a test","force":true,"validateOnly":true}"#,
    ),
    ("RetryRun", "operator", AdminsObject, r#"{"runId":"FORCED"}"#),
    (
        "UpdateMachine",
        "admin",
        Object,
        r#"{"machine":{"machineId":"m-a","status":{"phase":"PHASE_RETIRED"}},"updateMask":"status.phase","validateOnly":true}"#,
    ),
    ("CheckAccess", "viewer", Same, r#"{"method":"StartRun","object":"m-a"}"#),
    (
        "BatchRegisterMachines",
        "operator",
        Each,
        r#"{"machines":[{"machineId":"m-a","labels":{"tenant":"a"},"spec":{"provider":"fake"}}],"validateOnly":true}"#,
    ),
    // A plan for admins: to start it, and to control its runs.
    (
        "StartRun",
        "operator",
        AdminsObject,
        r#"{"machineId":"m-a","planId":"plan/careful","reason":"a test","validateOnly":true}"#,
    ),
    (
        "BatchStartRuns",
        "operator",
        AdminsEach,
        r#"{"machineIds":["m-a"],"planId":"plan/careful","reason":"a test","validateOnly":true}"#,
    ),
    ("CancelRun", "operator", AdminsObject, r#"{"runId":"CAREFUL"}"#),
    ("AbortRun", "operator", AdminsObject, r#"{"runId":"CAREFUL","reason":"a test"}"#),
    ("PauseRun", "operator", AdminsObject, r#"{"runId":"CAREFUL"}"#),
    ("ResumeRun", "operator", AdminsObject, r#"{"runId":"CAREFUL"}"#),
    ("RetryRun", "operator", AdminsObject, r#"{"runId":"CAREFUL"}"#),
    (
        "SkipStep",
        "operator",
        AdminsObject,
        r#"{"runId":"CAREFUL","step":"restart","reason":"a test"}"#,
    ),
    ("GetRun", "viewer", Object, r#"{"runId":"CAREFUL"}"#),
];
