//! Plans as a table.

use std::io::{self, Write};

use crate::pb;

use super::table::write_plain;
use super::text::Look;

/// Writes the table of plans: name for people and the steps in order.
pub(crate) fn write_plans(out: &mut dyn Write, look: Look, plans: &[pb::Plan]) -> io::Result<()> {
    let arrow = format!(" {} ", look.arrow());
    let rows: Vec<Vec<String>> = plans
        .iter()
        .map(|plan| {
            let steps: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
            vec![plan.plan_id.clone(), plan.display_name.clone(), steps.join(&arrow)]
        })
        .collect();
    write_plain(out, look, &[("PLAN", 18), ("DISPLAY", 22), ("STEPS", 0)], &rows)
}
