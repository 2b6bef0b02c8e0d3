use super::*;

#[test]
fn names_are_unique_and_found() {
    for spec in SPECS {
        assert!(std::ptr::eq(ActionSpec::find(&spec.name).unwrap(), spec), "{}", spec.name);
        assert!(spec.consumes.as_ref().is_none_or(|name| ActionSpec::find(name).is_some()));
    }
    assert!(ActionSpec::find("levitate").is_none());
}

/// A compensation has no `on_unknown`: what undoes a step must not be destructive.
#[test]
fn what_destroys_data_is_an_image_or_an_erasure() {
    let of =
        |risk| SPECS.iter().filter(move |spec| spec.risk == risk).map(|spec| spec.name.as_ref());
    assert_eq!(of(Risk::DataDestroying).collect::<Vec<_>>(), ["repave", "wipe"]);
    assert_eq!(of(Risk::Disruptive).collect::<Vec<_>>(), ["drain", "reboot", "apply-net-config"]);
}

#[test]
fn arguments_are_sorted_and_defaults_fit() {
    for spec in SPECS {
        assert!(spec.args.is_sorted_by(|a, b| a.name <= b.name), "{}", spec.name);
        assert!(0 < spec.expected_ms && spec.expected_ms <= spec.timeout_ms, "{}", spec.name);
        for arg in spec.args.iter() {
            let Some(default) = &arg.default else { continue };
            assert_eq!(default.kind(), arg.kind, "{} {}", spec.name, arg.name);
            assert!(
                arg.one_of.is_empty()
                    || default
                        .as_str()
                        .is_some_and(|text| arg.one_of.iter().any(|one| one == text))
            );
        }
    }
}
