//! Checks one document against the schema of a plan.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::check_own;
use super::check_param::Params;
use super::check_step;
use super::diagnostic::Diagnostic;
use super::limits::{LINE_BYTES_MAX, TEXT_BYTES_MAX};
use super::names::{EffectiveState, Phase, Risk, RunType};
use super::nodes::{get, is_name, shown, value_of};
use super::read::{Read, Reader};
use super::schema::{Action, Plan, PlanResult, Step};

const PLAN_KEYS: &[&str] = &[
    "id",
    "display_name",
    "description",
    "default_for",
    "destructive",
    "allowed_phases",
    "refused_effective",
    "refused_hint",
    "required_conditions",
    "params",
    "time_limit",
    "role",
    "allow_destructive",
    "steps",
    "on_failure",
    "finally",
    "result",
];

/// The result for one file. The id and the default are set even if other parts of the file are wrong, so that clashes
/// between files are reported in the same pass.
pub(super) struct Checked {
    pub(super) plan: Option<Plan>,
    pub(super) id: Option<Read<String>>,
    pub(super) default_for: Option<Read<RunType>>,
}

/// Checks a plan, reporting every mistake; returns the plan if there was none.
pub(super) fn plan(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Checked {
    reader.unknown_keys(table, "the plan", PLAN_KEYS);
    let start = table.keys().map(|key| key.span()).min_by_key(|span| span.start).unwrap_or(0..0);
    let id = id(reader, table, &start);
    let display_name = value_of(table, "display_name")
        .map(|node| reader.text(node, "`display_name`", LINE_BYTES_MAX, false));
    let description = value_of(table, "description")
        .map(|node| reader.text(node, "`description`", TEXT_BYTES_MAX, true));
    let default_for = default_for(reader, table);
    let allowed_phases = allowed_phases(reader, table, &start);
    let refused_effective = value_of(table, "refused_effective").map(|node| {
        let what = ("plan::unknown-effective-state", "effective state");
        reader.choices(
            node,
            "`refused_effective`",
            what,
            EffectiveState::ALL,
            EffectiveState::as_str,
        )
    });
    let refused_hint = get(table, "refused_hint").map(|(key, node)| {
        if value_of(table, "refused_effective").is_none() {
            let message = "`refused_hint` is never shown";
            let help =
                "it goes with `refused_effective = [\"IN_SERVICE\"]`; add that or remove the hint";
            reader.report("plan::unused", message, key.span(), "nothing is refused", help);
        }
        reader.text(node, "`refused_hint`", TEXT_BYTES_MAX, true)
    });
    let required_conditions = value_of(table, "required_conditions")
        .map(|node| reader.conditions(node, "`required_conditions`"));
    let mut params = Params::read(reader, table);
    let time_limit_ms = check_own::time_limit(reader, table);
    let steps = check_step::steps(reader, table, &start, &mut params);
    params.report_unused(reader);
    let destructive = destructive(reader, table, &steps);
    let for_admins = for_admins(reader, table);
    let allow_destructive = allow_destructive(reader, table, default_for.as_ref(), &steps);
    let result = result(reader, table);

    let mistakes = !reader.diagnostics.is_empty();
    let plan = id.as_ref().filter(|_| !mistakes).map(|id| Plan {
        id: Cow::Owned(id.value.clone()),
        display_name: display_name
            .flatten()
            .unwrap_or_else(|| Cow::Owned(id.value.trim_start_matches("plan/").to_owned())),
        description: description.flatten().unwrap_or_default(),
        default_for: default_for.as_ref().map(|read| read.value),
        destructive,
        allowed_phases: Cow::Owned(allowed_phases.unwrap_or_default()),
        refused_effective: Cow::Owned(refused_effective.flatten().unwrap_or_default()),
        refused_hint: refused_hint.flatten(),
        required_conditions: Cow::Owned(required_conditions.flatten().unwrap_or_default()),
        params: Cow::Owned(params.into_values()),
        time_limit_ms,
        for_admins,
        allow_destructive,
        steps: Cow::Owned(steps.into_iter().map(|read| read.value).collect()),
        result,
    });
    Checked { plan, id, default_for }
}

fn id(reader: &mut Reader<'_>, table: &DeTable<'_>, start: &Range<usize>) -> Option<Read<String>> {
    let Some(node) = value_of(table, "id") else {
        reader.missing("the plan", "id", start.clone(), "add `id = \"plan/NAME\"`");
        return None;
    };
    let text = reader.string(node, "`id`")?;
    if text.strip_prefix("plan/").is_some_and(is_name) {
        return Some(Read { value: text.to_owned(), span: node.span() });
    }
    let fixed = text.rsplit('/').next().unwrap_or_default().to_lowercase().replace(['_', ' '], "-");
    let mut help =
        "an id is `plan/` and a name of 1 to 63 lower-case letters, digits and `-`".to_owned();
    if is_name(&fixed) {
        help = format!("{help}: `plan/{fixed}`");
    }
    reader.report(
        "plan::bad-id",
        format!("`{}` is not a plan id", shown(text)),
        node.span(),
        "",
        help,
    );
    None
}

fn default_for(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Read<RunType>> {
    let node = value_of(table, "default_for")?;
    let what = ("plan::unknown-run-type", "run type");
    let value = reader.choice(node, what, RunType::ALL, RunType::as_str)?;
    if value == RunType::Custom {
        let help = "remove `default_for`: a plan without it is CUSTOM";
        reader.report("plan::bad-default-for", "CUSTOM has no default plan", node.span(), "", help);
        return None;
    }
    Some(Read { value, span: node.span() })
}

fn allowed_phases(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    start: &Range<usize>,
) -> Option<Vec<Phase>> {
    let Some(node) = value_of(table, "allowed_phases") else {
        let help =
            "say in which phases a run may start: `allowed_phases = [\"READY\", \"MAINTENANCE\"]`";
        reader.missing("the plan", "allowed_phases", start.clone(), help);
        return None;
    };
    let phases = reader.phases(node, "`allowed_phases`")?;
    if node.get_ref().as_array().is_some_and(|array| array.is_empty()) {
        let help = "name at least one phase, such as `[\"READY\"]`";
        reader.report(
            "plan::empty-list",
            "no run of this plan could ever start",
            node.span(),
            "empty",
            help,
        );
    }
    Some(phases)
}

/// Whether the plan is destructive follows from its actions; an explicit value is a promise to the reader that is
/// checked here.
fn destructive(reader: &mut Reader<'_>, table: &DeTable<'_>, steps: &[Read<Step>]) -> bool {
    let culprit = steps.iter().find(|step| step.value.action.traits.risk.is_destructive());
    let Some(node) = value_of(table, "destructive") else { return culprit.is_some() };
    match (reader.boolean(node, "`destructive`"), culprit) {
        (Some(false), Some(step)) => {
            let Action { name, traits, .. } = &step.value.action;
            let diagnostic = Diagnostic::new(
                "plan::destructive",
                "the plan says it is not destructive, but it is",
                reader.file,
                node.span(),
                "said here",
            )
            .and(reader.file, step.span.clone(), format!("`{name}` is {}", traits.risk))
            .help("write `destructive = true` or leave the key out");
            reader.push(diagnostic);
        }
        // A step with a mistake of its own may be the destructive one; then nothing can be concluded yet.
        (Some(true), None) if reader.diagnostics.is_empty() => {
            let message = "the plan says it is destructive, but no action of it is";
            let help = "write `destructive = false` or leave the key out";
            reader.report("plan::destructive", message, node.span(), "said here", help);
        }
        (Some(_) | None, _) => {}
    }
    culprit.is_some()
}

/// Who may start and control runs of the plan.
fn for_admins(reader: &mut Reader<'_>, table: &DeTable<'_>) -> bool {
    let Some(node) = value_of(table, "role") else { return false };
    let Some(role) = reader.string(node, "`role`") else { return false };
    if !["operator", "admin"].contains(&role) {
        let help = "write `role = \"admin\"`, or leave the key out: operators may run it then";
        let message = format!("`{}` is no role of a plan", shown(role));
        reader.report("plan::unknown-role", message, node.span(), "not a role", help);
    }
    role == "admin"
}

/// An operator who restarts a machine, or changes its network, does not expect to lose its data: a plan of such a type
/// has to say that it destroys some.
fn allow_destructive(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    default_for: Option<&Read<RunType>>,
    steps: &[Read<Step>],
) -> bool {
    let destroys = |action: &Action| action.traits.risk == Risk::DataDestroying;
    let culprit = steps.iter().find_map(|read| {
        let undo = read.value.compensation.as_ref().map(|undo| &undo.action);
        let action = [Some(&read.value.action), undo].into_iter().flatten();
        action.into_iter().find(|action| destroys(action)).map(|action| (read, action))
    });
    let is_harmless =
        |read: &&Read<RunType>| matches!(read.value, RunType::Reboot | RunType::NetReconfig);
    let harmless = default_for.filter(is_harmless);
    let given = value_of(table, "allow_destructive");
    let allowed = given.and_then(|node| reader.boolean(node, "`allow_destructive`"));
    match (harmless, culprit, given) {
        (Some(kind), Some((step, action)), _) if allowed != Some(true) => {
            let diagnostic = Diagnostic::new(
                "plan::destroys-data",
                format!("a plan of type {} destroys data", kind.value.as_str()),
                reader.file,
                step.span.clone(),
                format!("`{}` is {}", action.name, action.traits.risk),
            )
            .and(reader.file, kind.span.clone(), "operators who start this type do not expect it")
            .help(
                "write `allow_destructive = true` if that is meant; else leave out the step, or `default_for`",
            );
            reader.push(diagnostic);
        }
        (Some(_), Some(_), _) | (_, _, None) => {}
        // A step with a mistake of its own may be the one that destroys data; then nothing can be concluded yet.
        (_, _, Some(node)) if allowed == Some(true) && reader.diagnostics.is_empty() => {
            let message = "`allow_destructive` allows nothing";
            let help = "it is for plans of the types REBOOT and NET_RECONFIG with a step that destroys data: leave it out";
            reader.report("plan::unused", message, node.span(), "said here", help);
        }
        (_, _, Some(_)) => {}
    }
    allowed == Some(true)
}

fn result(reader: &mut Reader<'_>, table: &DeTable<'_>) -> PlanResult {
    let Some(node) = value_of(table, "result") else { return PlanResult::default() };
    let Some(table) = reader.table(node, "`result`", "`[result]`") else {
        return PlanResult::default();
    };
    reader.unknown_keys(table, "`result`", &["phase", "conditions"]);
    let phase = value_of(table, "phase").and_then(|node| {
        reader.choice(node, ("plan::unknown-phase", "phase"), Phase::ALL, Phase::as_str)
    });
    let conditions = value_of(table, "conditions")
        .and_then(|node| reader.conditions(node, "`conditions` of the result"));
    PlanResult { phase, conditions: Cow::Owned(conditions.unwrap_or_default()) }
}
