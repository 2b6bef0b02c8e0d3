//! Read masks: which fields of a machine or a run a client wants to see.

use crate::pb;

/// Fields to keep; the default keeps all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReadMask(Option<Vec<String>>);

/// A message that a read mask applies to.
pub(crate) trait Masked {
    /// Every path that a mask may name.
    const PATHS: &'static [&'static str];
    /// Clears the fields that are not kept.
    fn prune(&mut self, mask: &Kept<'_>);
}

/// Paths to keep.
pub(crate) struct Kept<'a>(&'a [String]);

impl Kept<'_> {
    /// Whether a field, or something inside it, is kept.
    fn touches(&self, field: &str) -> bool {
        self.0.iter().any(|path| path == field || begins(path, field))
    }

    /// Whether a field inside another one is kept.
    fn keeps(&self, field: &str, inner: &str) -> bool {
        self.0
            .iter()
            .any(|path| path == field || begins(path, field) && path[field.len() + 1..] == *inner)
    }
}

fn begins(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'))
}

impl ReadMask {
    /// The mask, or what is wrong with it.
    pub(crate) fn parse<M: Masked>(mask: Option<&prost_types::FieldMask>) -> Result<Self, String> {
        let Some(mask) = mask else { return Ok(Self::default()) };
        if mask.paths.iter().any(|path| path == "*") {
            return Ok(Self::default());
        }
        match mask.paths.iter().find(|path| !M::PATHS.contains(&path.as_str())) {
            Some(unknown) => {
                Err(format!("{unknown:?} is not a readable field: use {}", M::PATHS.join(", ")))
            }
            None => Ok(Self(Some(mask.paths.clone()))),
        }
    }

    /// Clears the fields that the client does not want.
    pub(crate) fn apply<M: Masked>(&self, message: &mut M) {
        if let Some(paths) = &self.0 {
            message.prune(&Kept(paths));
        }
    }
}

macro_rules! masked {
    (
        $message:ident, $id:literal,
        [$($field:ident = $name:literal),* $(,)?]
        $(, inside $outer:ident = $outer_name:literal [$($inner:ident),* $(,)?])*
    ) => {
        impl Masked for pb::$message {
            const PATHS: &'static [&'static str] = &[
                $id,
                $($name,)*
                $($outer_name, $(concat!($outer_name, ".", stringify!($inner)),)*)*
            ];

            fn prune(&mut self, mask: &Kept<'_>) {
                $(if !mask.touches($name) {
                    self.$field = Default::default();
                })*
                $(if mask.touches($outer_name) {
                    if let Some(outer) = &mut self.$outer {
                        $(if !mask.keeps($outer_name, stringify!($inner)) {
                            outer.$inner = Default::default();
                        })*
                    }
                } else {
                    self.$outer = None;
                })*
            }
        }
    };
}

masked!(
    Machine, "machine_id",
    [
        labels = "labels",
        created_at = "created_at",
        updated_at = "updated_at",
        etag = "etag",
        revision = "revision",
    ],
    inside spec = "spec" [
        provider,
        ssh_endpoint,
        bmc_endpoint,
        target_cluster,
        mac_addresses,
        serial,
        bmc_system_id,
        bmc_credentials,
        bmc_certificate_sha256,
    ],
    inside status = "status" [
        phase,
        effective_state,
        conditions,
        active_run_id,
        effective_rule,
        epoch,
        untrusted_disks,
        observed,
        capabilities,
        installation,
    ]
);

masked!(
    Run,
    "run_id",
    [
        machine_id = "machine_id",
        request_id = "request_id",
        r#type = "type",
        plan_id = "plan_id",
        phase = "phase",
        steps = "steps",
        current_step = "current_step",
        error = "error",
        created_at = "created_at",
        started_at = "started_at",
        finished_at = "finished_at",
        plan_digest = "plan_digest",
        parameters = "parameters",
        waiting = "waiting",
        cancel_requested = "cancel_requested",
        pause_requested = "pause_requested",
        labels = "labels",
        compensating = "compensating",
        retry_of = "retry_of",
        requested_by = "requested_by",
        forced = "forced",
        etag = "etag",
        revision = "revision",
        reason = "reason",
    ]
);

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str]) -> prost_types::FieldMask {
        prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
    }

    #[test]
    fn a_mask_keeps_what_it_names_and_the_id() {
        let whole = pb::Machine {
            machine_id: "m-1".to_owned(),
            etag: "\"1\"".to_owned(),
            revision: 1,
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            status: Some(pb::MachineStatus { phase: 2, epoch: 7, ..Default::default() }),
            ..Default::default()
        };
        let masked = |paths: &[&str]| {
            let mut machine = whole.clone();
            ReadMask::parse::<pb::Machine>(Some(&mask(paths))).unwrap().apply(&mut machine);
            machine
        };
        assert_eq!(masked(&["*"]), whole);
        assert_eq!(masked(&[]), pb::Machine { machine_id: "m-1".to_owned(), ..Default::default() });
        assert_eq!(
            masked(&["status.phase", "etag"]),
            pb::Machine {
                machine_id: "m-1".to_owned(),
                etag: "\"1\"".to_owned(),
                status: Some(pb::MachineStatus { phase: 2, ..Default::default() }),
                ..Default::default()
            }
        );
        assert_eq!(masked(&["status", "status.phase"]).status, whole.status);
        let wrong = ReadMask::parse::<pb::Machine>(Some(&mask(&["colour"]))).unwrap_err();
        assert!(wrong.starts_with("\"colour\" is not a readable field"), "{wrong}");
    }

    /// The lists above are the fields of the messages.
    #[test]
    fn every_field_can_be_named() {
        let pool = prost_reflect::DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
        for (name, paths) in
            [("Machine", <pb::Machine as Masked>::PATHS), ("Run", <pb::Run as Masked>::PATHS)]
        {
            let message = pool.get_message_by_name(&format!("baremetal.v1.{name}")).unwrap();
            let fields: Vec<_> = message.fields().map(|field| field.name().to_owned()).collect();
            for field in &fields {
                assert!(paths.contains(&field.as_str()), "{name} lacks {field}");
            }
            let top = paths.iter().filter(|path| !path.contains('.'));
            assert_eq!(top.count(), fields.len());
            for outer in ["spec", "status"].into_iter().filter(|outer| paths.contains(outer)) {
                let inside = message.get_field_by_name(outer).unwrap().kind();
                for field in inside.as_message().unwrap().fields() {
                    let path = format!("{outer}.{}", field.name());
                    assert!(paths.contains(&path.as_str()), "{name} lacks {path}");
                }
            }
        }
    }
}
