//! Relative times, and the words of protobuf JSON.

use super::a_machine;
use crate::clock::Timestamp;
use crate::model::filter::{Filter, Subject};

#[test]
fn times_may_be_relative_where_now_is_known() {
    let now = Timestamp(1_700_000_000_000 + 7_200_000);
    let at = |text: &str| Filter::parse_at(text, Subject::Machine, now);
    for (text, canonical) in [
        ("created_at > -2h", "created_at > 2023-11-14T22:13:20.000Z"),
        ("created_at>-1h59m60s", "created_at > 2023-11-14T22:13:20.000Z"),
        ("created_at > -0s", "created_at > 2023-11-15T00:13:20.000Z"),
        ("updated_at < -1w", "updated_at < 2023-11-08T00:13:20.000Z"),
        ("updated_at < -999999w", "updated_at < 1970-01-01T00:00:00.000Z"),
        ("created_at > 2023-11-14T22:13:20Z", "created_at > 2023-11-14T22:13:20.000Z"),
    ] {
        assert_eq!(at(text).unwrap().to_string(), canonical, "{text}");
    }
    assert!(at("created_at >= -2h").unwrap().matches_machine(&a_machine()));
    assert!(!at("created_at > -119m").unwrap().matches_machine(&a_machine()));
    for wrong in
        ["-", "-2", "-h", "-2h1h", "-1s1m", "-2 h", "+2h", "2h", "--2h", "-9999999999999999999w"]
    {
        let error = at(&format!("created_at > {wrong}")).unwrap_err().to_string();
        assert!(error.contains("such as -2h or -1d") || wrong == "-2 h", "{wrong}: {error}");
    }
    assert!(Filter::parse("created_at > -2h", Subject::Machine).is_err());
}

#[test]
fn words_of_protobuf_json_are_taken() {
    for (json, own) in [
        ("phase = PHASE_READY", "phase = READY"),
        ("effective_state = EFFECTIVE_STATE_IN_SERVICE", "effective_state = IN_SERVICE"),
        (
            "conditions.CONDITION_TYPE_NEEDS_INTERVENTION = true",
            "conditions.NeedsIntervention = true",
        ),
        ("conditions.CONDITION_TYPE_IN_CUSTOMER_CLUSTER:*", "conditions.InCustomerCluster:*"),
        ("conditions:CONDITION_TYPE_DEGRADED", "conditions.Degraded:*"),
        ("conditions.CONDITION_TYPE_REACHABLE = false", "conditions.Reachable = false"),
    ] {
        let read = Filter::parse(json, Subject::Machine).unwrap();
        assert_eq!(read, Filter::parse(own, Subject::Machine).unwrap(), "{json}");
    }
    for (json, own) in
        [("phase = RUN_PHASE_FAILED", "phase = FAILED"), ("type = RUN_TYPE_RMA", "type = RMA")]
    {
        let read = Filter::parse(json, Subject::Run).unwrap();
        assert_eq!(read, Filter::parse(own, Subject::Run).unwrap(), "{json}");
    }
    assert!(Filter::parse("conditions.CONDITION_TYPE_HOT = true", Subject::Machine).is_err());
}
