use proptest::prelude::*;

use std::borrow::Cow;

use super::*;
use crate::plan::registry::BUILT_IN;
use crate::plan::*;

#[test]
fn built_in_plans_keep_their_text() {
    // A change here means that every run in flight was pinned with another text: give the format a new number unless
    // the plan itself changed.
    let texts: Vec<String> = BUILT_IN
        .iter()
        .map(|plan| format!("{} {}\n{}\n", plan.id, plan.digest(), plan.canonical()))
        .collect();
    crate::assert_golden!("plan_canonical", texts.join("\n"));
}

#[test]
fn refuses_what_it_did_not_write() {
    let text = BUILT_IN[1].canonical();
    for (from, to, error) in [
        (
            "\"format\":2",
            "\"format\":3",
            "the pinned plan has format 3, this build reads formats 1 to 2; use the version that wrote it, or a newer one",
        ),
        (
            "\"capability\":\"power\"",
            "\"capability\":\"levitation\"",
            "the pinned plan names the unknown capability `levitation`",
        ),
        ("\"format\":2", "\"format\": 2", "the pinned plan is not in canonical form"),
        ("\"format\":2", "\"format\":2,\"owner\":1", "the pinned plan is not readable"),
        ("\"format\":2", "\"format\":1", "the pinned plan is not readable"),
        ("\"risk\":\"disruptive\",", "", "the pinned plan is not readable"),
        ("\"destructive\":true,", "", "the pinned plan is not readable"),
        ("{", "", "the pinned plan is not readable"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(
            Plan::from_canonical(&text.replacen(from, to, 1)).unwrap_err().to_string(),
            error
        );
    }
}

/// An action that this build does not have: added by an operator, or by another version.
#[test]
fn an_unknown_action_is_readable() {
    let text = BUILT_IN[1].canonical().replace("\"name\":\"reboot\"", "\"name\":\"flash-bios\"");
    let plan = Plan::from_canonical(&text).unwrap();
    assert_eq!(plan.steps[0].action.name, "flash-bios");
    assert_eq!(plan.steps[0].action.traits, BUILT_IN[1].steps[0].action.traits);
    assert_eq!(plan.canonical(), text);
}

/// The built-in plans as builds that wrote format 1 pinned them: id and digest, the text, an empty line.
const FORMAT_1: &str = include_str!("../../../tests/plans/format_1.txt");

#[test]
fn format_1_is_read_for_ever_and_never_rewritten() {
    let mut read = 0;
    for pinned in FORMAT_1.trim_end().split("\n\n") {
        let (head, text) = pinned.split_once('\n').unwrap();
        let (id, wanted) = head.split_once(' ').unwrap();
        let plan = Plan::from_canonical(text).unwrap();
        assert_eq!(plan.id, id);
        let registered = Registered::pinned(plan.clone(), text);
        assert_eq!((registered.digest(), &**registered.canonical()), (wanted, text));
        // Its meaning has not changed, except for what later builds call a risk, and how they treat it.
        let now = BUILT_IN.iter().find(|plan| plan.id == id).unwrap();
        for (then, now) in plan.steps.iter().zip(now.steps.iter()) {
            let mut expected = now.clone();
            if expected.action.name == "drain" {
                expected.action.traits.risk = Risk::None;
                expected.on_unknown = OnUnknown::Retry;
            }
            if expected.action.name == "join" {
                expected.sets = Cow::Borrowed(&[]);
            }
            assert_eq!(*then, expected);
        }
        read += 1;
    }
    assert_eq!(read, BUILT_IN.len());
    let unknown =
        FORMAT_1.lines().nth(1).unwrap().replace("apply-net-config\",\"args", "nonsense\",\"args");
    assert_eq!(
        Plan::from_canonical(&unknown).unwrap_err().to_string(),
        "the pinned plan names the unknown action `nonsense`"
    );
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof!["[a-z0-9-]{1,8}", any::<String>()].prop_map(Cow::Owned)
}

fn one<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn some<T: Copy + Ord + std::fmt::Debug + 'static>(
    all: &'static [T],
) -> impl Strategy<Value = Cow<'static, [T]>> {
    prop::sample::subsequence(all, 0..=all.len()).prop_map(Cow::Owned)
}

fn some_conditions() -> impl Strategy<Value = Cow<'static, [(Condition, bool)]>> {
    prop::collection::btree_map(one(Condition::ALL), any::<bool>(), 0..4)
        .prop_map(|map| Cow::Owned(map.into_iter().collect()))
}

fn some_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::Str),
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::DurationMs),
    ]
}

/// Sorted by name, as the compiler of plans leaves it.
fn named<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Cow<'static, [(Cow<'static, str>, T)]>> {
    prop::collection::btree_map(text(), value, 0..3)
        .prop_map(|map| Cow::Owned(map.into_iter().collect()))
}

fn some_action() -> impl Strategy<Value = Action> {
    let arg = prop_oneof![
        some_value().prop_map(Arg::Literal),
        text().prop_map(Arg::Param),
        text().prop_map(Arg::Text),
    ];
    let traits = (one(Capability::ALL), one(Risk::ALL), any::<bool>(), any::<bool>()).prop_map(
        |(capability, risk, idempotent, interruptible)| Traits {
            capability,
            risk,
            idempotent,
            interruptible,
        },
    );
    (text(), named(arg), traits).prop_map(|(name, args, traits)| Action { name, args, traits })
}

fn some_compensation() -> impl Strategy<Value = Compensation> {
    let retry = prop::option::of(some_retry());
    (some_action(), any::<u64>(), any::<u64>(), some_conditions(), retry).prop_map(
        |(action, timeout_ms, expected_ms, sets, retry)| Compensation {
            action,
            timeout_ms,
            expected_ms,
            sets,
            retry,
        },
    )
}

fn some_retry() -> impl Strategy<Value = Retry> {
    (any::<u32>(), some(ErrorClass::ALL), any::<u64>(), any::<u64>()).prop_map(
        |(max_attempts, on, backoff_ms, backoff_max_ms)| Retry {
            max_attempts,
            on,
            backoff_ms,
            backoff_max_ms,
        },
    )
}

fn some_guard() -> impl Strategy<Value = Guard> {
    let outputs =
        prop::collection::btree_map((text(), text()), some_value(), 0..3).prop_map(|map| {
            map.into_iter().map(|((step, name), value)| Output { step, name, value }).collect()
        });
    let providers = prop::collection::vec(text(), 0..3).prop_map(Cow::Owned);
    (named(some_value()), some_conditions(), some(Phase::ALL), named(text()), providers, outputs)
        .prop_map(|(params, conditions, phases, labels, providers, outputs)| Guard {
            params,
            conditions,
            phases,
            labels,
            providers,
            outputs,
        })
}

fn some_step() -> impl Strategy<Value = Step> {
    (
        (text(), some_action(), any::<u64>(), any::<u64>(), some_retry(), one(OnUnknown::ALL)),
        (prop::option::of(some_guard()), prop::option::of(some_guard()), one(Role::ALL)),
        prop::collection::vec(text(), 0..3),
        prop::option::of(some_compensation()),
        some_conditions(),
    )
        .prop_map(
            |(
                (name, action, timeout_ms, expected_ms, retry, on_unknown),
                (when, until, role),
                needs,
                compensation,
                sets,
            )| Step {
                name,
                role,
                action,
                timeout_ms,
                expected_ms,
                retry,
                on_unknown,
                when,
                until,
                needs: Cow::Owned(needs),
                compensation,
                sets,
            },
        )
}

fn some_param() -> impl Strategy<Value = (ValueKind, Option<Value>, Vec<Value>, Cow<'static, str>)>
{
    (
        one(ValueKind::ALL),
        prop::option::of(some_value()),
        prop::collection::vec(some_value(), 0..3),
        text(),
    )
}

fn some_plan() -> impl Strategy<Value = Plan> {
    let params = named(some_param()).prop_map(|params| {
        let param = |(name, (kind, default, one_of, description))| Param {
            name,
            kind,
            default,
            one_of: Cow::Owned(one_of),
            description,
        };
        Cow::Owned(params.into_owned().into_iter().map(param).collect())
    });
    (
        (text(), text(), text(), prop::option::of(one(RunType::ALL)), any::<bool>()),
        (some(Phase::ALL), some(EffectiveState::ALL), prop::option::of(text()), some_conditions()),
        (params, prop::option::of(any::<u64>()), any::<(bool, bool)>()),
        prop::collection::vec(some_step(), 0..4),
        (prop::option::of(one(Phase::ALL)), some_conditions()),
    )
        .prop_map(
            |(head, start, (params, time_limit_ms, rights), steps, (phase, conditions))| {
                let (id, display_name, description, default_for, destructive) = head;
                let (allowed_phases, refused_effective, refused_hint, required_conditions) = start;
                Plan {
                    id,
                    display_name,
                    description,
                    default_for,
                    destructive,
                    allowed_phases,
                    refused_effective,
                    refused_hint,
                    required_conditions,
                    params,
                    time_limit_ms,
                    for_admins: rights.0,
                    allow_destructive: rights.1,
                    steps: Cow::Owned(steps),
                    result: PlanResult { phase, conditions },
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading back what was written gives the same plan, so the text, and with it the digest, leaves nothing out.
    #[test]
    fn text_says_everything(plan in some_plan()) {
        let text = plan.canonical();
        let read = Plan::from_canonical(&text).unwrap();
        prop_assert_eq!(&read, &plan);
        prop_assert_eq!(read.digest(), plan.digest());
    }
}
