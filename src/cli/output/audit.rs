//! The audit.

use std::io::{self, Write};

use crate::pb;

use super::text::{Look, Meaning, name_text, sanitized, wrapped};
use super::time::moment;

/// Writes one line per entry: number, time, decision, who, what and why.
pub(crate) fn write_audit(
    out: &mut dyn Write,
    look: Look,
    entries: &[pb::AuditEntry],
    now_ms: u64,
) -> io::Result<()> {
    for entry in entries {
        let at = moment(look, entry.at.as_ref(), now_ms);
        let mut line = look.paint(Meaning::Dim, &format!("{:>6} {at}", entry.seq));
        line.push_str(&format!(" {:<6} {}", sanitized(&entry.decision), who(entry)));
        if !entry.rpc.is_empty() {
            line.push_str(&format!(" {}", sanitized(&entry.rpc)));
        }
        for object in &entry.objects {
            line.push_str(&format!(" {}", sanitized(object)));
        }
        if !entry.reason.is_empty() {
            line.push_str(&format!(" ({})", sanitized(&entry.reason)));
        }
        writeln!(out, "{}", wrapped(look, &line, 7))?;
    }
    Ok(())
}

/// `ann by a certificate`, `"a name" unverified`, or the address of an unknown caller.
fn who(entry: &pb::AuditEntry) -> String {
    let from = match entry.peer.as_str() {
        "" => String::new(),
        peer => format!(" from {}", sanitized(peer)),
    };
    if entry.principal.is_empty() {
        return format!("unknown{from}");
    }
    let name = name_text(&entry.principal);
    match (entry.verified, entry.proof.as_str()) {
        (false, _) => format!("{name} unverified{from}"),
        (true, "") => format!("{name}{from}"),
        (true, proof) => format!("{name} by {}{from}", sanitized(proof)),
    }
}
